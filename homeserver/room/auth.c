#include "homeserver/room/auth.h"

#include <stdio.h>

#include "homeserver/room/auth_priv.h"
#include "spec/errcodes.h"

static bool has_rule(const struct room_rules *rules, enum auth_rule rule)
{
    switch (rule) {
    case AUTH_RULE_ROOM:
        return rules->hash_room_id;
    case AUTH_RULE_ALIASES:
        return rules->aliases_auth;
    case AUTH_RULE_REDACTION:
        return rules->redaction_auth;
    case AUTH_RULE_CREATE:
    case AUTH_RULE_AUTH_EVENTS:
    case AUTH_RULE_FEDERATE:
    case AUTH_RULE_MEMBER:
    case AUTH_RULE_SENDER:
    case AUTH_RULE_THIRD_PARTY_INVITE:
    case AUTH_RULE_LEVEL:
    case AUTH_RULE_STATE_KEY:
    case AUTH_RULE_POWER_LEVELS:
        return true;
    }
    return true;
}

struct auth_verdict auth_allow(void)
{
    return (struct auth_verdict){.allowed = true};
}

struct auth_verdict auth_refuse(const struct room_rules *rules, enum auth_rule rule,
                                const char *sub, const char *text)
{
    struct auth_verdict verdict = {.text = text};
    int number = 1;
    for (enum auth_rule before = AUTH_RULE_CREATE; before < rule; before++) {
        number += has_rule(rules, before);
    }
    snprintf(verdict.rule, sizeof verdict.rule, "%d%s", number, sub);
    return verdict;
}

const struct event *auth_state(const struct auth_check *check, struct slice type,
                               struct slice state_key)
{
    return check->input->state(check->input->state_arg, type, state_key);
}

enum membership auth_membership(const struct auth_check *check, struct slice user)
{
    return membership_of(auth_state(check, LIT("m.room.member"), user));
}

static bool are_user_ids(const struct json *list)
{
    if (list->type != JSON_ARRAY) {
        return false;
    }
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->items[i].type != JSON_STRING || !ids_is_user(list->items[i].text)) {
            return false;
        }
    }
    return true;
}

static bool is_known_version(const struct json *version)
{
    return !version || (version->type == JSON_STRING && room_rules_get(version->text));
}

/* Rule 1: m.room.create. */
static struct auth_verdict check_create(const struct event *event)
{
    const struct room_rules *rules = event->rules;
    /* 1.1: a create event has no prev_events. */
    if (event->prev_event_count) {
        return auth_refuse(rules, AUTH_RULE_CREATE, ".1", "the create event has prev_events");
    }
    /* 1.2: the room is of the sender's server. From version 12 on the event has no room_id: the
     * parser refuses one of the create event, and asks one of any other of this type. */
    if (rules->hash_room_id && !event_is(event, LIT("m.room.create"), LIT(""))) {
        return auth_refuse(rules, AUTH_RULE_CREATE, ".2", "the create event has a room_id");
    }
    if (!rules->hash_room_id &&
        !ids_server_eq(ids_room_domain(event->room_id), ids_user_domain(event->sender))) {
        return auth_refuse(rules, AUTH_RULE_CREATE, ".2",
                           "the room id is not of the creator's server");
    }
    /* 1.3: room_version is known. */
    if (!is_known_version(json_get(event->content, LIT("room_version")))) {
        return auth_refuse(rules, AUTH_RULE_CREATE, ".3", "the room version is not known");
    }
    /* 1.4 before version 11: there is a creator. */
    if (!rules->implicit_creator && !json_get(event->content, LIT("creator"))) {
        return auth_refuse(rules, AUTH_RULE_CREATE, ".4", "the create event names no creator");
    }
    /* 1.4 from version 12 on: additional_creators are user ids. */
    const struct json *others = json_get(event->content, LIT("additional_creators"));
    if (rules->creator_infinite && others && !are_user_ids(others)) {
        return auth_refuse(rules, AUTH_RULE_CREATE, ".4",
                           "additional_creators must be a list of user ids");
    }
    return auth_allow();
}

/* Rule 2 of version 12: the room id is that of an accepted create event. */
static struct auth_verdict check_room(const struct auth_check *check)
{
    const struct event *create = check->create;
    if (!create || create->rejected || !ids_room_eq(create->room_id, check->event->room_id)) {
        return auth_refuse(check->rules, AUTH_RULE_ROOM, "",
                           "the room id is not that of an accepted create event");
    }
    return auth_allow();
}

/* Rule: m.federate. The word has to be literally false to close the room. */
static struct auth_verdict check_federate(const struct auth_check *check)
{
    const struct event *create = check->create;
    if (!json_get_bool(create->content, LIT("m.federate"), true) &&
        !ids_server_eq(ids_user_domain(create->sender), ids_user_domain(check->event->sender))) {
        return auth_refuse(check->rules, AUTH_RULE_FEDERATE, "",
                           "this room does not admit other servers");
    }
    return auth_allow();
}

/* Rule: m.room.aliases, up to version 5. */
static struct auth_verdict check_aliases(const struct auth_check *check)
{
    const struct event *event = check->event;
    if (!event->has_state_key) {
        return auth_refuse(check->rules, AUTH_RULE_ALIASES, ".1", "aliases need a state_key");
    }
    if (!slice_eq(event->state_key, ids_user_domain(event->sender).s)) {
        return auth_refuse(check->rules, AUTH_RULE_ALIASES, ".2",
                           "aliases must be of the sender's server");
    }
    return auth_allow();
}

struct slice auth_state_key_owner(struct slice state_key)
{
    size_t colon = slice_find(state_key, ':');
    size_t end = colon + slice_find(slice_from(state_key, colon), '_');
    return slice_sub(state_key, 0, end);
}

/* MSC3757: the owner, or who has more power. */
static bool may_write_owned(const struct auth_check *check)
{
    struct slice owner = auth_state_key_owner(check->event->state_key);
    return ids_is_user(owner) &&
           (slice_eq(owner, check->event->sender.s) ||
            check->sender_power > power_of_user(&check->levels, ids_trust_user(owner)));
}

/* Rule: required level of the type, and state keys that belong to users. */
static struct auth_verdict check_level(const struct auth_check *check)
{
    const struct event *event = check->event;
    enum power_kind kind = event->has_state_key ? POWER_STATE : POWER_MESSAGE;
    if (power_needed_for(&check->levels, event->type, kind) > check->sender_power) {
        return auth_refuse(check->rules, AUTH_RULE_LEVEL, "",
                           "the sender's power level is too low for this event type");
    }
    if (event->has_state_key && event->state_key.len && event->state_key.ptr[0] == '@' &&
        !(check->rules->owned_state ? may_write_owned(check)
                                    : slice_eq(event->state_key, event->sender.s))) {
        return auth_refuse(check->rules, AUTH_RULE_STATE_KEY, "",
                           "the state_key is another user's id");
    }
    return auth_allow();
}

/* Rule: m.room.redaction, versions 1 and 2. */
static struct auth_verdict check_redaction(const struct auth_check *check)
{
    const struct event *event = check->event;
    if (check->sender_power >= check->levels.redact) {
        return auth_allow();
    }
    if (event->redacts.s.len &&
        ids_server_eq(ids_event_domain(event->redacts), ids_event_domain(event->id))) {
        return auth_allow();
    }
    return auth_refuse(check->rules, AUTH_RULE_REDACTION, ".3",
                       "the sender may not redact this event");
}

static void load_levels(struct auth_check *check)
{
    const struct event *levels = auth_state(check, LIT("m.room.power_levels"), LIT(""));
    check->levels = power_load(check->rules, check->create, levels);
    check->sender_power = power_of_user(&check->levels, check->event->sender);
    check->sender_membership = auth_membership(check, check->event->sender.s);
}

static struct auth_verdict check_third_party_invite(const struct auth_check *check)
{
    if (check->sender_power < check->levels.invite) {
        return auth_refuse(check->rules, AUTH_RULE_THIRD_PARTY_INVITE, ".1",
                           "the sender's power level is too low to invite");
    }
    return auth_allow();
}

/* Rules from the sender's membership on, for events that are neither create, aliases nor member. */
static struct auth_verdict check_ordinary(const struct auth_check *check)
{
    const struct event *event = check->event;
    if (check->sender_membership != MEMBERSHIP_JOIN) {
        return auth_refuse(check->rules, AUTH_RULE_SENDER, "", "the sender is not in the room");
    }
    if (slice_eq(event->type, LIT("m.room.third_party_invite"))) {
        return check_third_party_invite(check);
    }
    struct auth_verdict verdict = check_level(check);
    if (!verdict.allowed) {
        return verdict;
    }
    if (slice_eq(event->type, LIT("m.room.power_levels"))) {
        return auth_check_power_levels(check);
    }
    if (check->rules->redaction_auth && slice_eq(event->type, LIT("m.room.redaction"))) {
        return check_redaction(check);
    }
    return auth_allow();
}

struct auth_verdict auth_check_event(const struct auth_input *input)
{
    const struct event *event = input->event;
    const struct room_rules *rules = event->rules;
    struct auth_check check = {
        .input = input, .event = event, .rules = rules, .create = input->create};
    if (slice_eq(event->type, LIT("m.room.create"))) {
        return check_create(event);
    }
    if (!check.create && !rules->hash_room_id) {
        check.create = auth_state(&check, LIT("m.room.create"), LIT(""));
    }
    struct auth_verdict verdict = rules->hash_room_id ? check_room(&check) : auth_allow();
    if (!verdict.allowed) {
        return verdict;
    }
    if (!check.create) {
        return auth_refuse(rules, AUTH_RULE_AUTH_EVENTS, ".4", "the room has no create event");
    }
    verdict = check_federate(&check);
    if (!verdict.allowed) {
        return verdict;
    }
    if (rules->aliases_auth && slice_eq(event->type, LIT("m.room.aliases"))) {
        return check_aliases(&check);
    }
    load_levels(&check);
    if (slice_eq(event->type, LIT("m.room.member"))) {
        return auth_check_member(&check);
    }
    return check_ordinary(&check);
}

static bool is_selected(const struct event *cited, const struct auth_key *keys, size_t key_count)
{
    for (size_t i = 0; i < key_count; i++) {
        if (event_is(cited, keys[i].type, keys[i].state_key)) {
            return true;
        }
    }
    return false;
}

static bool is_duplicate(const struct event *const *cited, size_t at)
{
    for (size_t i = 0; i < at; i++) {
        if (event_is(cited[i], cited[at]->type, cited[at]->state_key)) {
            return true;
        }
    }
    return false;
}

struct auth_verdict auth_check_auth_events(const struct event *event,
                                           const struct event *const *cited, size_t count)
{
    struct auth_key keys[AUTH_EVENTS_MAX];
    size_t key_count = auth_events_select(event, keys);
    bool has_create = false;
    for (size_t i = 0; i < count; i++) {
        if (is_duplicate(cited, i)) {
            return auth_refuse(event->rules, AUTH_RULE_AUTH_EVENTS, ".1",
                               "auth_events hold one state key twice");
        }
        if (!is_selected(cited[i], keys, key_count)) {
            return auth_refuse(event->rules, AUTH_RULE_AUTH_EVENTS, ".2",
                               "auth_events hold an event that this event may not cite");
        }
        if (cited[i]->rejected) {
            return auth_refuse(event->rules, AUTH_RULE_AUTH_EVENTS, ".3",
                               "auth_events hold a rejected event");
        }
        has_create = has_create || event_is(cited[i], LIT("m.room.create"), LIT(""));
    }
    bool is_create = slice_eq(event->type, LIT("m.room.create"));
    if (!has_create && !is_create && event->rules->event_format != EVENT_FORMAT_12) {
        return auth_refuse(event->rules, AUTH_RULE_AUTH_EVENTS, ".4",
                           "auth_events lack the create event");
    }
    for (size_t i = 0; i < count; i++) {
        if (!ids_room_eq(cited[i]->room_id, event->room_id)) {
            return auth_refuse(event->rules, AUTH_RULE_AUTH_EVENTS, ".5",
                               "auth_events hold an event of another room");
        }
    }
    return auth_allow();
}

struct cited_state {
    const struct event *const *items;
    size_t count;
};

static const struct event *find_cited(void *arg, struct slice type, struct slice state_key)
{
    const struct cited_state *cited = arg;
    for (size_t i = 0; i < cited->count; i++) {
        if (event_is(cited->items[i], type, state_key)) {
            return cited->items[i];
        }
    }
    return NULL;
}

struct auth_verdict auth_check_by_auth_events(struct arena *arena, const struct event *event,
                                              const struct event *create,
                                              const struct event *const *cited, size_t count)
{
    struct cited_state state = {cited, count};
    struct auth_verdict verdict = auth_check_auth_events(event, cited, count);
    if (!verdict.allowed) {
        return verdict;
    }
    struct auth_input input = {
        .arena = arena, .event = event, .create = create, .state = find_cited, .state_arg = &state};
    return auth_check_event(&input);
}

struct err auth_error(struct arena *arena, const struct auth_verdict *verdict)
{
    if (verdict->allowed) {
        return OK;
    }
    return err_publicf(arena, ERR_M_FORBIDDEN, "%s (authorization rule %s)", verdict->text,
                       verdict->rule);
}
