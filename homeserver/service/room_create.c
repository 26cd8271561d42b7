#include "homeserver/service/room_create.h"

#include "homeserver/room/power.h"
#include "homeserver/service/appservices.h"
#include "homeserver/service/directory.h"
#include "homeserver/service/purge.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/sending.h"
#include "homeserver/service/users.h"

struct preset {
    struct slice name;
    const char *join_rule, *history_visibility, *guest_access;
    bool invitees_have_power;
    bool anyone_invites;
};

static const struct preset presets[] = {
    {{"private_chat", 12}, "invite", "shared", "can_join", false, true},
    {{"trusted_private_chat", 20}, "invite", "shared", "can_join", true, true},
    /* Guests are forbidden where the room says nothing, so it says nothing. */
    {{"public_chat", 11}, "public", "shared", NULL, false, false},
};

struct creating {
    struct hs *hs;
    struct ctx *ctx;
    const struct actor *actor;
    const struct json *body;
    const struct preset *preset;
    const struct room_rules *rules;
    bool is_public, is_version_ours; /* the request names no version */
    struct slice alias;              /* ptr NULL = none */
    struct room *room;
};

/* --- reading the request --- */

static struct err optional_string(const struct json *body, struct slice key, struct slice *text_out)
{
    const struct json *value = json_get(body, key);
    *text_out = (struct slice){0};
    if (!value || value->type == JSON_NULL) {
        return OK;
    }
    if (value->type != JSON_STRING) {
        return err_public(ERR_M_BAD_JSON, "A member of the request that must be a string is not.");
    }
    *text_out = value->text;
    return OK;
}

static struct err check_type(const struct json *body, struct slice key, enum json_type type)
{
    const struct json *value = json_get(body, key);
    if (value && value->type != JSON_NULL && value->type != type) {
        return err_public(ERR_M_BAD_JSON, "A member of the request has the wrong type.");
    }
    return OK;
}

static struct err check_types(const struct json *body)
{
    static const struct {
        struct slice key;
        enum json_type type;
    } members[] = {
        {{"name", 4}, JSON_STRING},
        {{"topic", 5}, JSON_STRING},
        {{"invite", 6}, JSON_ARRAY},
        {{"invite_3pid", 11}, JSON_ARRAY},
        {{"initial_state", 13}, JSON_ARRAY},
        {{"creation_content", 16}, JSON_OBJECT},
        {{"power_level_content_override", 28}, JSON_OBJECT},
        {{"is_direct", 9}, JSON_BOOL},
    };
    for (size_t i = 0; i < COUNT_OF(members); i++) {
        TRY(check_type(body, members[i].key, members[i].type));
    }
    const struct json *third_party = json_get_array(body, LIT("invite_3pid"));
    if (third_party && third_party->count) {
        return err_public(ERR_M_THREEPID_DENIED, "Invites by address are not offered here.");
    }
    return OK;
}

/* Each is an event that this one request writes. */
enum { INVITES_MAX = 1000, INITIAL_STATE_MAX = 1000 };

static struct err check_invites(const struct json *body)
{
    const struct json *invite = json_get_array(body, LIT("invite"));
    if (invite && invite->count > INVITES_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "`invite` may list 1000 users at most.");
    }
    for (uint32_t i = 0; invite && i < invite->count; i++) {
        if (invite->items[i].type != JSON_STRING || !ids_is_user(invite->items[i].text)) {
            return err_public(ERR_M_INVALID_PARAM, "`invite` must be a list of user ids.");
        }
    }
    return OK;
}

static struct err check_initial_state(const struct json *body)
{
    const struct json *initial = json_get_array(body, LIT("initial_state"));
    if (initial && initial->count > INITIAL_STATE_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "`initial_state` may list 1000 events at most.");
    }
    for (uint32_t i = 0; initial && i < initial->count; i++) {
        const struct json *event = &initial->items[i];
        const struct json *state_key = json_get(event, LIT("state_key"));
        if (!json_get_string(event, LIT("type")).ptr || !json_get_object(event, LIT("content")) ||
            (state_key && state_key->type != JSON_STRING)) {
            return err_public(ERR_M_BAD_JSON,
                              "`initial_state` must list events with type, content, state_key.");
        }
    }
    return OK;
}

static struct err read_preset(struct creating *c)
{
    struct slice visibility;
    struct slice name;
    TRY(optional_string(c->body, LIT("visibility"), &visibility));
    TRY(optional_string(c->body, LIT("preset"), &name));
    c->is_public = slice_eq(visibility, LIT("public"));
    if (visibility.ptr && !c->is_public && !slice_eq(visibility, LIT("private"))) {
        return err_public(ERR_M_INVALID_PARAM, "`visibility` must be public or private.");
    }
    if (!name.ptr) {
        name = c->is_public ? LIT("public_chat") : LIT("private_chat");
    }
    for (size_t i = 0; i < COUNT_OF(presets); i++) {
        if (slice_eq(presets[i].name, name)) {
            c->preset = &presets[i];
            return OK;
        }
    }
    return err_public(ERR_M_INVALID_PARAM, "This preset is not known.");
}

static struct err read_alias(struct creating *c)
{
    struct slice name;
    uint64_t room = 0;
    uint64_t creator = 0;
    bool found = false;
    TRY(optional_string(c->body, LIT("room_alias_name"), &name));
    if (!name.ptr) {
        return OK;
    }
    struct server_name server = ids_trust_server(c->hs->server_name);
    c->alias = ids_make_alias(c->ctx->arena, name, server).s;
    if (slice_find(name, ':') != name.len || !ids_is_alias(c->alias)) {
        return err_public(ERR_M_INVALID_PARAM, "`room_alias_name` is not a valid local name.");
    }
    TRY(hs_appservice_check_alias(c->hs, c->actor->appservice, c->alias));
    TRY(hs_alias_get(c->hs, c->ctx, c->alias, &room, &creator, &found));
    return found ? err_public(ERR_M_ROOM_IN_USE, "The room alias is taken.") : OK;
}

static struct err read_version(struct creating *c)
{
    struct slice version;
    TRY(optional_string(c->body, LIT("room_version"), &version));
    c->is_version_ours = !version.ptr;
    c->rules = room_rules_get(version.ptr ? version : c->hs->conf->default_room_version);
    return c->rules ? OK
                    : err_public(ERR_M_UNSUPPORTED_ROOM_VERSION, "This room version is not known.");
}

static struct err read_request(struct creating *c)
{
    TRY(check_types(c->body));
    TRY(check_invites(c->body));
    TRY(check_initial_state(c->body));
    TRY(read_version(c));
    TRY(read_preset(c));
    return read_alias(c);
}

/* --- the events --- */

static struct err put_state(struct creating *c, struct slice type, struct slice state_key,
                            struct json content)
{
    struct hs_sent sent;
    struct hs_draft draft = {.sender = c->actor->user_id,
                             .sender_number = c->actor->user,
                             .type = type,
                             .state_key = state_key.ptr ? state_key : LIT(""),
                             .content = content};
    return hs_send(c->hs, c->ctx, c->room, &draft, &sent);
}

static struct err put_one(struct creating *c, struct slice type, struct slice key,
                          struct slice text)
{
    struct json content = json_object();
    json_set(c->ctx->arena, &content, key, json_string(text));
    return put_state(c, type, LIT(""), content);
}

/* The invitees of a trusted chat who are not listed yet. */
static void add_invitees(struct creating *c, struct json *creators)
{
    const struct json *invite = json_get_array(c->body, LIT("invite"));
    for (uint32_t i = 0; invite && i < invite->count; i++) {
        bool known = slice_eq(invite->items[i].text, c->actor->user_id);
        for (uint32_t j = 0; j < creators->count; j++) {
            known = known || slice_eq(creators->items[j].text, invite->items[i].text);
        }
        if (!known) {
            json_push(c->ctx->arena, creators, invite->items[i]);
        }
    }
}

/* Spec: room version 12: creators hold no level; trusted chats make the invitees creators. */
static struct err add_creators(struct creating *c, struct json *content)
{
    const struct json *given = json_get(content, LIT("additional_creators"));
    struct json creators = json_array();
    if (given && given->type != JSON_ARRAY) {
        return err_public(ERR_M_INVALID_PARAM, "`additional_creators` must be a list.");
    }
    for (uint32_t i = 0; given && i < given->count; i++) {
        if (given->items[i].type != JSON_STRING || !ids_is_user(given->items[i].text)) {
            return err_public(ERR_M_INVALID_PARAM, "`additional_creators` must hold user ids.");
        }
        json_push(c->ctx->arena, &creators, given->items[i]);
    }
    if (c->preset->invitees_have_power) {
        add_invitees(c, &creators);
    }
    if (given || creators.count) {
        json_set(c->ctx->arena, content, LIT("additional_creators"), creators);
    }
    return OK;
}

static struct err send_create(struct creating *c)
{
    struct slice drop[] = {LIT("room_version"), LIT("creator")};
    const struct json *given = json_get_object(c->body, LIT("creation_content"));
    struct json empty = json_object();
    struct hs_sent sent;
    struct json content = json_without(c->ctx->arena, given ? given : &empty, drop, 2);
    json_set(c->ctx->arena, &content, LIT("room_version"), json_string(c->rules->version));
    if (!c->rules->implicit_creator) {
        json_set(c->ctx->arena, &content, LIT("creator"), json_string(c->actor->user_id));
    }
    if (c->rules->creator_infinite) {
        TRY(add_creators(c, &content));
    }
    struct hs_draft draft = {.sender = c->actor->user_id,
                             .sender_number = c->actor->user,
                             .type = LIT("m.room.create"),
                             .state_key = LIT(""),
                             .content = content};
    return hs_room_create_first(c->hs, c->ctx, c->rules->version, &draft, &c->room, &sent);
}

static struct err send_join(struct creating *c)
{
    struct hs_sent sent;
    struct member_change change = {.target = c->actor->user_id, .membership = MEMBERSHIP_JOIN};
    return hs_member_set(c->hs, c->ctx, c->room, c->actor, &change, &sent);
}

static struct json default_levels(struct creating *c)
{
    static const struct {
        struct slice type;
        int64_t level;
    } events[] = {
        {{"m.room.name", 11}, 50},
        {{"m.room.avatar", 13}, 50},
        {{"m.room.canonical_alias", 22}, 50},
        {{"m.room.history_visibility", 25}, 100},
        {{"m.room.power_levels", 19}, 100},
        {{"m.room.encryption", 17}, 100},
        {{"m.room.server_acl", 17}, 100},
        {{"m.room.tombstone", 16}, 100},
    };
    static const struct {
        struct slice name;
        int64_t level;
    } levels[] = {{{"users_default", 13}, 0},  {{"events_default", 14}, 0},
                  {{"state_default", 13}, 50}, {{"ban", 3}, 50},
                  {{"kick", 4}, 50},           {{"redact", 6}, 50}};
    struct arena *arena = c->ctx->arena;
    struct json content = json_object();
    struct json by_type = json_object();
    for (size_t i = 0; i < COUNT_OF(events); i++) {
        json_set(arena, &by_type, events[i].type, json_int(events[i].level));
    }
    if (c->rules->creator_infinite) {
        json_set(arena, &by_type, LIT("m.room.tombstone"), json_int(150));
    }
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        json_set(arena, &content, levels[i].name, json_int(levels[i].level));
    }
    json_set(arena, &content, LIT("invite"), json_int(c->preset->anyone_invites ? 0 : 50));
    json_set(arena, &content, LIT("events"), by_type);
    return content;
}

static struct json default_users(struct creating *c)
{
    const struct json *invite = json_get_array(c->body, LIT("invite"));
    struct json users = json_object();
    if (c->rules->creator_infinite) {
        return users;
    }
    json_set(c->ctx->arena, &users, c->actor->user_id, json_int(100));
    for (uint32_t i = 0; c->preset->invitees_have_power && invite && i < invite->count; i++) {
        json_set(c->ctx->arena, &users, invite->items[i].text, json_int(100));
    }
    return users;
}

/* The last event of this type without state key in `initial_state`, or NULL. */
static const struct json *find_initial_state(const struct creating *c, struct slice type)
{
    const struct json *initial = json_get_array(c->body, LIT("initial_state"));
    const struct json *last = NULL;
    for (uint32_t i = 0; initial && i < initial->count; i++) {
        if (slice_eq(json_get_string(&initial->items[i], LIT("type")), type) &&
            json_get_string(&initial->items[i], LIT("state_key")).len == 0) {
            last = &initial->items[i];
        }
    }
    return last;
}

/* Who names no room version cannot know that this one keeps creators out of `users`, and asks for
 * less than they have: many clients give their own user 100. */
static struct json forgive_creators(struct creating *c, const struct event *create,
                                    const struct json *content)
{
    struct arena *arena = c->ctx->arena;
    const struct json *given = json_get_object(content, LIT("users"));
    struct slice key = LIT("users");
    struct json users = json_object();
    if (!given || !c->is_version_ours || !c->rules->creator_infinite) {
        return *content;
    }
    for (uint32_t i = 0; i < given->count; i++) {
        struct slice user = given->members[i].key;
        if (!ids_is_user(user) || !power_is_creator(create, ids_trust_user(user))) {
            json_set(arena, &users, user, given->members[i].value);
        }
    }
    struct json forgiven = json_without(arena, content, &key, 1);
    json_set(arena, &forgiven, key, users);
    return forgiven;
}

static struct json chosen_levels(struct creating *c)
{
    const struct json *override = json_get_object(c->body, LIT("power_level_content_override"));
    const struct json *initial = find_initial_state(c, LIT("m.room.power_levels"));
    if (initial) {
        return *json_get_object(initial, LIT("content"));
    }
    struct json content = default_levels(c);
    json_set(c->ctx->arena, &content, LIT("users"), default_users(c));
    for (uint32_t i = 0; override && i < override->count; i++) {
        json_set(c->ctx->arena, &content, override->members[i].key, override->members[i].value);
    }
    return content;
}

/* Levels in `initial_state` "take precedence": they come here, in place of the generated ones,
 * which would forbid the creator to rise above 100. */
static struct err send_power_levels(struct creating *c)
{
    const struct event *create = NULL;
    struct json content = chosen_levels(c);
    TRY(room_state_current(c->hs, c->ctx, c->room, LIT("m.room.create"), LIT(""), &create));
    content = forgive_creators(c, create, &content);
    TRY(power_check_content(c->ctx->arena, c->rules, create, &content));
    return put_state(c, LIT("m.room.power_levels"), LIT(""), content);
}

static struct err send_alias(struct creating *c)
{
    if (!c->alias.ptr) {
        return OK;
    }
    struct err err = hs_alias_set(c->hs, c->ctx, c->alias, c->room->number, c->actor->user);
    if (err.code == ERR_M_ALIAS_IN_USE) {
        return err_public(ERR_M_ROOM_IN_USE, "The room alias is taken.");
    }
    TRY(err);
    return put_one(c, LIT("m.room.canonical_alias"), LIT("alias"), c->alias);
}

static struct err send_preset(struct creating *c)
{
    const struct {
        struct slice type, key;
        const char *value;
    } events[] = {
        {LIT("m.room.join_rules"), LIT("join_rule"), c->preset->join_rule},
        {LIT("m.room.history_visibility"), LIT("history_visibility"),
         c->preset->history_visibility},
        {LIT("m.room.guest_access"), LIT("guest_access"), c->preset->guest_access},
    };
    for (size_t i = 0; i < COUNT_OF(events); i++) {
        if (events[i].value && !find_initial_state(c, events[i].type)) {
            TRY(put_one(c, events[i].type, events[i].key, slice_of(events[i].value)));
        }
    }
    return OK;
}

/* The user whom an event of the initial state invites; ptr NULL = none. */
static struct slice invited_by(const struct json *event)
{
    const struct json *content = json_get_object(event, LIT("content"));
    bool invites = json_is_string(json_get(event, LIT("type")), LIT("m.room.member")) &&
                   json_is_string(json_get(content, LIT("membership")), LIT("invite"));
    struct slice user_id = json_get_string(event, LIT("state_key"));
    return invites && ids_is_user(user_id) ? user_id : (struct slice){0};
}

/* An invite is one wherever it stands: the invited may not take it, their server signs it. */
static struct err put_invite(struct creating *c, const struct json *event)
{
    struct hs_sent sent;
    struct send_request invite = {.actor = c->actor,
                                  .type = LIT("m.room.member"),
                                  .state_key = json_get_string(event, LIT("state_key")),
                                  .content = json_get_object(event, LIT("content"))};
    struct err err = hs_send_state(c->hs, c->ctx, c->room, &invite, &sent);
    return err.code == ERR_M_INVITE_BLOCKED ? OK : err;
}

static struct err put_initial(struct creating *c, const struct json *event)
{
    struct slice type = json_get_string(event, LIT("type"));
    struct slice state_key = json_get_string(event, LIT("state_key"));
    const struct json *content = json_get_object(event, LIT("content"));
    if (invited_by(event).ptr) {
        return put_invite(c, event);
    }
    if (slice_eq(type, LIT("m.room.canonical_alias")) && state_key.len == 0) {
        TRY(hs_check_first_alias(c->hs, c->ctx, c->room, content));
    }
    return put_state(c, type, state_key, *content);
}

static struct err send_initial_state(struct creating *c)
{
    const struct json *initial = json_get_array(c->body, LIT("initial_state"));
    for (uint32_t i = 0; initial && i < initial->count; i++) {
        const struct json *event = &initial->items[i];
        struct slice type = json_get_string(event, LIT("type"));
        struct slice state_key = json_get_string(event, LIT("state_key"));
        if (slice_eq(type, LIT("m.room.power_levels")) && state_key.len == 0) {
            continue; /* stands already */
        }
        struct err err = put_initial(c, event);
        if (err.code == ERR_M_FORBIDDEN) {
            return err_public(ERR_M_INVALID_ROOM_STATE, "The initial state is not allowed.");
        }
        TRY(err);
    }
    return OK;
}

/* Spec: m.room.topic carries the rich form too. */
static struct err send_topic(struct creating *c, struct slice topic)
{
    struct arena *arena = c->ctx->arena;
    struct json text = json_object();
    struct json texts = json_array();
    struct json rich = json_object();
    struct json content = json_object();
    json_set(arena, &text, LIT("body"), json_string(topic));
    json_set(arena, &text, LIT("mimetype"), json_string(LIT("text/plain")));
    json_push(arena, &texts, text);
    json_set(arena, &rich, LIT("m.text"), texts);
    json_set(arena, &content, LIT("topic"), json_string(topic));
    json_set(arena, &content, LIT("m.topic"), rich);
    return put_state(c, LIT("m.room.topic"), LIT(""), content);
}

static struct err send_names(struct creating *c)
{
    struct slice name = json_get_string(c->body, LIT("name"));
    struct slice topic = json_get_string(c->body, LIT("topic"));
    if (name.ptr) {
        TRY(put_one(c, LIT("m.room.name"), LIT("name"), name));
    }
    return topic.ptr ? send_topic(c, topic) : OK;
}

/* One invite that is refused (a user who blocks invites) does not undo the room. */
static struct err send_invites(struct creating *c)
{
    const struct json *invite = json_get_array(c->body, LIT("invite"));
    bool is_direct = json_get_bool(c->body, LIT("is_direct"), false);
    for (uint32_t i = 0; invite && i < invite->count; i++) {
        struct hs_sent sent;
        struct member_change change = {.target = invite->items[i].text,
                                       .membership = MEMBERSHIP_INVITE,
                                       .is_direct = is_direct};
        struct err err = hs_member_set(c->hs, c->ctx, c->room, c->actor, &change, &sent);
        if (err.code != 0 && !hs_member_is_refusal(err)) {
            return err;
        }
        if (err.code != 0) {
            log_debug(c->hs->log, "invite_refused", .user = change.target,
                      .err = slice_of(err.text));
        }
    }
    return OK;
}

static struct err make(struct creating *c)
{
    static struct err (*const steps[])(struct creating *) = {
        send_join,          send_power_levels, send_alias,  send_preset,
        send_initial_state, send_names,        send_invites};
    TRY(send_create(c));
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        TRY(steps[i](c));
    }
    return c->is_public ? hs_public_set(c->hs, c->ctx, c->room->number, true) : OK;
}

/* Half a room would stand in its maker's list, and keep the alias from the next attempt. */
static void take_back(struct creating *c)
{
    struct err err = hs_room_take_back(c->hs, c->ctx, c->room->number);
    if (err.code != 0) {
        log_warn(c->hs->log, "room_not_taken_back", .room = hs_room_info(c->room).room_id,
                 .err = slice_of(err.text));
    }
}

/* Before the first effect: inviting users of other servers waits for those, and application
 * services make theirs. */
static struct err check_may_wait(struct creating *c)
{
    const struct json *invite = json_get_array(c->body, LIT("invite"));
    const struct json *initial = json_get_array(c->body, LIT("initial_state"));
    bool waits = false;
    for (uint32_t i = 0; invite && i < invite->count; i++) {
        waits = waits || hs_invite_waits(c->hs, invite->items[i].text);
        TRY(hs_invite_prepare(c->hs, c->ctx, invite->items[i].text));
    }
    for (uint32_t i = 0; initial && i < initial->count; i++) {
        struct slice user_id = invited_by(&initial->items[i]);
        if (user_id.ptr) {
            waits = waits || hs_invite_waits(c->hs, user_id);
            TRY(hs_invite_prepare(c->hs, c->ctx, user_id));
        }
    }
    return waits && !c->ctx->may_wait ? err_make(ERR_WAITS, "other servers sign invites") : OK;
}

struct err hs_room_create(struct hs *hs, struct ctx *ctx, const struct actor *actor,
                          const struct json *body, struct slice *room_id_out)
{
    struct creating creating = {.hs = hs, .ctx = ctx, .actor = actor, .body = body};
    TRY(read_request(&creating));
    TRY(check_may_wait(&creating));
    struct err err = make(&creating);
    if (err.code != 0 && creating.room) {
        take_back(&creating);
    }
    TRY(err);
    *room_id_out = hs_room_info(creating.room).room_id;
    return OK;
}
