#include "homeserver/service/room_upgrade.h"

#include "homeserver/service/directory.h"
#include "homeserver/service/purge.h"
#include "homeserver/service/sending.h"
#include "homeserver/service/succession.h"
#include "homeserver/service/users.h"

/* The events that go along as they are, in an order in which they are allowed. Spaces keep their
 * children, rooms their image packs, and bans stay. */
static const struct slice carried_types[] = {
    {"m.room.history_visibility", 25},
    {"m.room.join_rules", 17},
    {"m.room.guest_access", 19},
    {"m.room.encryption", 17},
    {"m.room.server_acl", 17},
    {"m.room.name", 11},
    {"m.room.topic", 12},
    {"m.room.avatar", 13},
    {"m.room.policy", 13},
    {"m.room.canonical_alias", 22}, /* its aliases follow once the old room is closed */
};

struct upgrading {
    struct hs *hs;
    struct ctx *ctx;
    struct room *old_room, *new_room;
    const struct actor *actor;
    const struct room_upgrade *upgrade;
    const struct room_rules *rules; /* of the new room */
    uint64_t root;                  /* state of the old room */
    struct power_levels levels;     /* of the old room */
    struct json creators;           /* additional ones of the new room */
    struct json final_levels;       /* content of m.room.power_levels at the end */
    bool levels_are_final;
};

static struct err find_state(struct upgrading *u, struct slice type, struct slice state_key,
                             const struct json **content_out)
{
    struct stored_event event;
    bool found = false;
    TRY(hs_state_event(u->hs, u->ctx, u->old_room, u->root, type, state_key, &event, &found));
    *content_out = found ? event.event.content : NULL;
    return OK;
}

static struct err send_state(struct upgrading *u, struct room *room, struct slice type,
                             struct slice state_key, struct json content)
{
    struct hs_sent sent;
    struct hs_draft draft = {.sender = u->actor->user_id,
                             .sender_number = u->actor->user,
                             .type = type,
                             .state_key = state_key,
                             .content = content};
    return hs_send_policed(u->hs, u->ctx, room, &draft, &sent);
}

/* --- what is asked for --- */

static struct err check_permission(struct upgrading *u)
{
    struct power_levels *levels = &u->levels;
    enum membership membership = MEMBERSHIP_NONE;
    TRY(hs_membership_at(u->hs, u->ctx, u->old_room, u->root, u->actor->user_id, &membership));
    if (membership != MEMBERSHIP_JOIN) {
        return err_public(ERR_M_FORBIDDEN, "You are not in this room.");
    }
    TRY(hs_room_power(u->hs, u->ctx, u->old_room, levels));
    return power_of_user(levels, ids_trust_user(u->actor->user_id)) >=
                   power_needed_for(levels, LIT("m.room.tombstone"), POWER_STATE)
               ? OK
               : err_public(ERR_M_FORBIDDEN, "You do not have the power to upgrade this room.");
}

static struct err read_creators(struct upgrading *u)
{
    const struct json *given = u->upgrade->additional_creators;
    u->creators = json_array();
    if (!u->rules->creator_infinite || !given) {
        return OK;
    }
    for (uint32_t i = 0; i < given->count; i++) {
        if (given->items[i].type != JSON_STRING || !ids_is_user(given->items[i].text)) {
            return err_public(ERR_M_INVALID_PARAM, "`additional_creators` must hold user ids.");
        }
        json_push(u->ctx->arena, &u->creators, given->items[i]);
    }
    return OK;
}

/* --- the new room --- */

static bool is_new_creator(const struct upgrading *u, struct slice user_id)
{
    bool is = slice_eq(u->actor->user_id, user_id);
    for (uint32_t i = 0; i < u->creators.count && !is; i++) {
        is = json_is_string(&u->creators.items[i], user_id);
    }
    return is;
}

/* Spec: "A reference to the room this room replaces". The event is left out where the new version
 * lets it be. */
static struct err make_predecessor(struct upgrading *u, struct json *predecessor_out)
{
    struct stored_event newest;
    bool found = false;
    struct arena *arena = u->ctx->arena;
    *predecessor_out = json_object();
    json_set(arena, predecessor_out, LIT("room_id"),
             json_string(hs_room_info(u->old_room).room_id));
    if (u->rules->creator_infinite) {
        return OK;
    }
    TRY(hs_event_scan(u->hs, u->ctx, u->old_room, hs_room_head(u->old_room).number, &newest,
                      &found));
    if (found) {
        json_set(arena, predecessor_out, LIT("event_id"), json_string(newest.event.id.s));
    }
    return OK;
}

static struct err send_create(struct upgrading *u)
{
    const struct json *old = NULL;
    struct json predecessor;
    struct hs_sent sent;
    struct arena *arena = u->ctx->arena;
    struct json content = json_object();
    TRY(find_state(u, LIT("m.room.create"), LIT(""), &old));
    TRY(make_predecessor(u, &predecessor));
    json_set(arena, &content, LIT("room_version"), json_string(u->rules->version));
    json_set(arena, &content, LIT("predecessor"), predecessor);
    if (json_get_string(old, LIT("type")).ptr) {
        json_set(arena, &content, LIT("type"), *json_get(old, LIT("type")));
    }
    if (!json_get_bool(old, LIT("m.federate"), true)) {
        json_set(arena, &content, LIT("m.federate"), json_bool(false));
    }
    if (!u->rules->implicit_creator) {
        json_set(arena, &content, LIT("creator"), json_string(u->actor->user_id));
    }
    if (u->creators.count) {
        json_set(arena, &content, LIT("additional_creators"), u->creators);
    }
    struct hs_draft draft = {.sender = u->actor->user_id,
                             .sender_number = u->actor->user,
                             .type = LIT("m.room.create"),
                             .state_key = LIT(""),
                             .content = content};
    return hs_room_create_first(u->hs, u->ctx, u->rules->version, &draft, &u->new_room, &sent);
}

static struct err send_join(struct upgrading *u)
{
    struct hs_sent sent;
    struct member_change change = {.target = u->actor->user_id, .membership = MEMBERSHIP_JOIN};
    return hs_member_set(u->hs, u->ctx, u->new_room, u->actor, &change, &sent);
}

/* The users of the old levels; without creators where these have no level, and with the creators
 * of the old room where these now need one. */
static struct json carry_users(struct upgrading *u, const struct json *old_users)
{
    struct arena *arena = u->ctx->arena;
    struct json users = json_object();
    for (uint32_t i = 0; old_users && i < old_users->count; i++) {
        struct slice user_id = old_users->members[i].key;
        if (!u->rules->creator_infinite || !is_new_creator(u, user_id)) {
            json_set(arena, &users, user_id, old_users->members[i].value);
        }
    }
    const struct event *create = u->levels.create;
    if (u->rules->creator_infinite || !create || !create->rules->creator_infinite) {
        return users;
    }
    const struct json *others = json_get_array(create->content, LIT("additional_creators"));
    json_set(arena, &users, create->sender.s, json_int(100));
    for (uint32_t i = 0; others && i < others->count; i++) {
        json_set(arena, &users, others->items[i].text, json_int(100));
    }
    return users;
}

static bool has_power_for_all(const struct upgrading *u, const struct json *content)
{
    struct event shape = {.rules = u->rules, .content = content};
    struct power_levels levels = power_load(u->rules, NULL, &shape);
    int64_t own = power_of_user(&levels, ids_trust_user(u->actor->user_id));
    int64_t needed = levels.state_default > levels.ban ? levels.state_default : levels.ban;
    for (uint32_t i = 0; levels.events && i < levels.events->count; i++) {
        int64_t level = 0;
        if (power_parse_level(u->rules, &levels.events->members[i].value, &level)) {
            needed = level > needed ? level : needed;
        }
    }
    return own >= needed;
}

/* Who upgrades needs the power to set all that is carried along; where the old levels do not give
 * it, they come into force at the end. */
static struct err send_power_levels(struct upgrading *u)
{
    const struct json *old = NULL;
    struct arena *arena = u->ctx->arena;
    struct json empty = json_object();
    TRY(find_state(u, LIT("m.room.power_levels"), LIT(""), &old));
    u->final_levels = json_without(arena, old ? old : &empty, NULL, 0);
    const struct json *old_users = json_get_object(old, LIT("users"));
    struct json users = carry_users(u, old_users);
    json_set(arena, &u->final_levels, LIT("users"), users);
    u->levels_are_final = u->rules->creator_infinite || has_power_for_all(u, &u->final_levels);
    if (u->levels_are_final) {
        return send_state(u, u->new_room, LIT("m.room.power_levels"), LIT(""), u->final_levels);
    }
    static const struct slice with_users[] = {LIT("users")};
    struct json first = json_without(arena, &u->final_levels, with_users, 1);
    struct json raised = json_without(arena, &users, NULL, 0);
    json_set(arena, &raised, u->actor->user_id, json_int(JSON_INT_MAX));
    json_set(arena, &first, LIT("users"), raised);
    return send_state(u, u->new_room, LIT("m.room.power_levels"), LIT(""), first);
}

static struct err send_carried(struct upgrading *u)
{
    for (size_t i = 0; i < COUNT_OF(carried_types); i++) {
        const struct json *content = NULL;
        TRY(find_state(u, carried_types[i], LIT(""), &content));
        if (content) {
            TRY(send_state(u, u->new_room, carried_types[i], LIT(""), *content));
        }
    }
    return OK;
}

/* Those with any state key that go along. */
static bool is_carried_with_key(struct slice type)
{
    return slice_eq(type, LIT("m.space.child")) || slice_eq(type, LIT("m.room.image_pack"));
}

static struct err send_keyed(struct upgrading *u)
{
    uint64_t *keys = NULL;
    size_t count = 0;
    TRY(hs_state_keys_without_members(u->hs, u->ctx, u->old_room, &keys, &count));
    for (size_t i = 0; i < count; i++) {
        struct slice type;
        struct slice state_key;
        const struct json *content = NULL;
        TRY(hs_state_key_name(u->hs, u->ctx, u->old_room, keys[i], &type, &state_key));
        if (!is_carried_with_key(type)) {
            continue;
        }
        TRY(find_state(u, type, state_key, &content));
        if (content && content->count) {
            TRY(send_state(u, u->new_room, type, state_key, *content));
        }
    }
    return OK;
}

static struct err send_bans(struct upgrading *u)
{
    struct room_members banned;
    TRY(hs_room_members(u->hs, u->ctx, u->old_room, MEMBERSHIP_BAN, 0, &banned));
    for (size_t i = 0; i < banned.count; i++) {
        const struct json *content = NULL;
        TRY(find_state(u, LIT("m.room.member"), banned.items[i].user_id, &content));
        if (content && !is_new_creator(u, banned.items[i].user_id)) {
            TRY(send_state(u, u->new_room, LIT("m.room.member"), banned.items[i].user_id,
                           *content));
        }
    }
    return OK;
}

static struct err send_final_levels(struct upgrading *u)
{
    return u->levels_are_final
               ? OK
               : send_state(u, u->new_room, LIT("m.room.power_levels"), LIT(""), u->final_levels);
}

/* --- the old room --- */

static struct err send_tombstone(struct upgrading *u)
{
    struct arena *arena = u->ctx->arena;
    struct json content = json_object();
    json_set(arena, &content, LIT("body"), json_string(LIT("This room has been replaced")));
    json_set(arena, &content, LIT("replacement_room"),
             json_string(hs_room_info(u->new_room).room_id));
    return send_state(u, u->old_room, LIT("m.room.tombstone"), LIT(""), content);
}

/* Whoever may upgrade need not be allowed to do the rest in the old room. */
static struct err unless_forbidden(struct err err)
{
    return err.code == ERR_M_FORBIDDEN ? OK : err;
}

static struct err clear_canonical(struct upgrading *u)
{
    const struct json *content = NULL;
    TRY(find_state(u, LIT("m.room.canonical_alias"), LIT(""), &content));
    return content && content->count
               ? unless_forbidden(send_state(u, u->old_room, LIT("m.room.canonical_alias"), LIT(""),
                                             json_object()))
               : OK;
}

static struct err move_names(struct upgrading *u)
{
    return hs_names_move(u->hs, u->ctx, hs_room_info(u->old_room).number,
                         hs_room_info(u->new_room).number);
}

/* Spec: "setting events_default and invite to the greater of 50 and users_default + 1". */
static struct err close_old(struct upgrading *u)
{
    const struct json *old = NULL;
    struct arena *arena = u->ctx->arena;
    struct json empty = json_object();
    int64_t floor = u->levels.users_default + 1 > 50 ? u->levels.users_default + 1 : 50;
    TRY(find_state(u, LIT("m.room.power_levels"), LIT(""), &old));
    struct json content = json_without(arena, old ? old : &empty, NULL, 0);
    if (u->levels.events_default < floor) {
        json_set(arena, &content, LIT("events_default"), json_int(floor));
    }
    if (u->levels.invite < floor) {
        json_set(arena, &content, LIT("invite"), json_int(floor));
    }
    return unless_forbidden(
        send_state(u, u->old_room, LIT("m.room.power_levels"), LIT(""), content));
}

/* Settings of all local members go along now, so that they are there when they join. */
static struct err carry_settings(struct upgrading *u)
{
    uint64_t *users = NULL;
    size_t count = hs_room_local_users(u->ctx, u->old_room, &users);
    for (size_t i = 0; i < count; i++) {
        struct actor member = {.user = users[i]};
        TRY(hs_user_id_of(u->hs, u->ctx, users[i], &member.user_id));
        TRY(hs_succession_carry(u->hs, u->ctx, u->new_room, &member));
    }
    return OK;
}

typedef struct err (*step_fn)(struct upgrading *u);

static struct err run(struct upgrading *u, const step_fn *steps, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        TRY(steps[i](u));
    }
    return OK;
}

/* The tombstone comes last: before it nobody has heard of the new room, which can be taken back. */
static struct err make_new(struct upgrading *u)
{
    static const step_fn steps[] = {send_create, send_join, send_power_levels, send_carried,
                                    send_keyed,  send_bans, send_final_levels, send_tombstone};
    struct err err = run(u, steps, COUNT_OF(steps));
    if (err.code != 0 && u->new_room) {
        struct err left = hs_room_take_back(u->hs, u->ctx, hs_room_info(u->new_room).number);
        if (left.code != 0) {
            log_warn(u->hs->log, "room_not_taken_back", .room = hs_room_info(u->new_room).room_id,
                     .err = slice_of(left.text));
        }
    }
    return err;
}

/* Whether the room is the successor that this upgrade would make, and the actor is in it. */
static struct err is_successor(struct upgrading *u, struct room *room, bool *is_out)
{
    struct stored_event create;
    enum membership membership = MEMBERSHIP_NONE;
    uint64_t root = hs_room_head(room).root;
    TRY(hs_state_event(u->hs, u->ctx, room, root, LIT("m.room.create"), LIT(""), &create, is_out));
    TRY(hs_membership_at(u->hs, u->ctx, room, root, u->actor->user_id, &membership));
    if (*is_out) {
        const struct json *predecessor = json_get_object(create.event.content, LIT("predecessor"));
        *is_out = slice_eq(create.event.sender.s, u->actor->user_id) &&
                  hs_room_info(room).rules == u->rules && membership == MEMBERSHIP_JOIN &&
                  json_is_string(json_get(predecessor, LIT("room_id")),
                                 hs_room_info(u->old_room).room_id);
    }
    return OK;
}

/* An upgrade that stopped behind its tombstone goes on where it was. */
static struct err find_new(struct upgrading *u)
{
    const struct json *tombstone = NULL;
    struct room *room = NULL;
    uint64_t number = 0;
    bool found = false;
    TRY(find_state(u, LIT("m.room.tombstone"), LIT(""), &tombstone));
    struct slice room_id = json_get_string(tombstone, LIT("replacement_room"));
    if (ids_is_room(room_id)) {
        TRY(hs_room_find(u->hs, u->ctx, room_id, &number, &found));
    }
    if (found) {
        TRY(hs_room_get(u->hs, u->ctx, number, &room));
        TRY(is_successor(u, room, &found));
    }
    u->new_room = found ? room : NULL;
    return OK;
}

struct err hs_room_upgrade(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct actor *actor, const struct room_upgrade *upgrade,
                           struct slice *room_id_out)
{
    static const step_fn rest[] = {move_names, clear_canonical, close_old, carry_settings};
    struct upgrading u = {.hs = hs,
                          .ctx = ctx,
                          .old_room = room,
                          .actor = actor,
                          .upgrade = upgrade,
                          .root = hs_room_head(room).root,
                          .rules = room_rules_get(upgrade->new_version)};
    if (!u.rules) {
        return err_public(ERR_M_UNSUPPORTED_ROOM_VERSION, "This room version is not known.");
    }
    TRY(hs_policy_wait(hs, ctx, room));
    TRY(check_permission(&u));
    TRY(read_creators(&u));
    TRY(find_new(&u));
    if (!u.new_room) {
        TRY(make_new(&u));
    }
    TRY(run(&u, rest, COUNT_OF(rest)));
    *room_id_out = hs_room_info(u.new_room).room_id;
    return OK;
}
