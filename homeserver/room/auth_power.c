/* The rule on m.room.power_levels. Numbers in comments are those of room version 12 (rule 10). */
#include <stdio.h>

#include "homeserver/room/auth_priv.h"

static const struct slice scalar_keys[] = {
    LIT("users_default"), LIT("events_default"), LIT("state_default"), LIT("ban"),
    LIT("redact"),        LIT("kick"),           LIT("invite"),
};

/* `number` counts as in version 12, from 3 (users) on; older versions lack some of the checks. */
static struct auth_verdict refuse(const struct room_rules *rules, int number, const char *text)
{
    char sub[16];
    if (!rules->creator_infinite && number > 4) {
        number -= 1;
    }
    if (!rules->int_levels_only) {
        number -= 2;
    }
    snprintf(sub, sizeof sub, ".%d", number);
    return auth_refuse(rules, AUTH_RULE_POWER_LEVELS, sub, text);
}

static bool are_levels(const struct room_rules *rules, const struct json *map)
{
    int64_t level = 0;
    if (map->type != JSON_OBJECT) {
        return false;
    }
    for (uint32_t i = 0; i < map->count; i++) {
        if (!power_parse_level(rules, &map->members[i].value, &level)) {
            return false;
        }
    }
    return true;
}

/* 10.1 and 10.2, from version 10 on: every level is an integer. */
static struct auth_verdict check_integers(const struct auth_check *check)
{
    const struct json *content = check->event->content;
    const struct json *events = json_get(content, LIT("events"));
    const struct json *notifications = json_get(content, LIT("notifications"));
    for (size_t i = 0; i < COUNT_OF(scalar_keys); i++) {
        const struct json *value = json_get(content, scalar_keys[i]);
        if (value && value->type != JSON_INT) {
            return auth_refuse(check->rules, AUTH_RULE_POWER_LEVELS, ".1",
                               "a power level is not an integer");
        }
    }
    if ((events && !are_levels(check->rules, events)) ||
        (notifications && !are_levels(check->rules, notifications))) {
        return auth_refuse(check->rules, AUTH_RULE_POWER_LEVELS, ".2",
                           "events or notifications hold something else than integers");
    }
    return auth_allow();
}

/* 10.3 and 10.4: `users`. An absent one counts as empty, as on every existing server. */
static struct auth_verdict check_users(const struct auth_check *check)
{
    const struct json *users = json_get(check->event->content, LIT("users"));
    if (!users) {
        return auth_allow();
    }
    if (!are_levels(check->rules, users)) {
        return refuse(check->rules, 3, "users must map user ids to integers");
    }
    for (uint32_t i = 0; i < users->count; i++) {
        if (!ids_is_user(users->members[i].key)) {
            return refuse(check->rules, 3, "users must map user ids to integers");
        }
    }
    for (uint32_t i = 0; i < users->count && check->rules->creator_infinite; i++) {
        if (power_is_creator(check->create, ids_trust_user(users->members[i].key))) {
            return refuse(check->rules, 4, "users must not name a creator of the room");
        }
    }
    return auth_allow();
}

/* One level before and after. */
struct change {
    bool was;
    bool is;
    int64_t old_level;
    int64_t new_level;
};

static struct change change_of(const struct room_rules *rules, const struct json *before,
                               const struct json *after, struct slice key)
{
    struct change change = {0};
    change.was = power_parse_level(rules, json_get(before, key), &change.old_level);
    change.is = power_parse_level(rules, json_get(after, key), &change.new_level);
    return change;
}

static bool is_changed(const struct change *change)
{
    return change->was != change->is || change->old_level != change->new_level;
}

static bool removes_above(const struct change *change, int64_t power)
{
    return is_changed(change) && change->was && change->old_level > power;
}

static bool sets_above(const struct change *change, int64_t power)
{
    return is_changed(change) && change->is && change->new_level > power;
}

/* 10.6: the seven scalar levels. */
static struct auth_verdict check_scalars(const struct auth_check *check, const struct json *before)
{
    const struct json *after = check->event->content;
    for (size_t i = 0; i < COUNT_OF(scalar_keys); i++) {
        struct change change = change_of(check->rules, before, after, scalar_keys[i]);
        if (removes_above(&change, check->sender_power) ||
            sets_above(&change, check->sender_power)) {
            return refuse(check->rules, 6, "a level above the sender's own would change");
        }
    }
    return auth_allow();
}

/* 10.7 and 10.8: entries of `events` and, from version 6 on, `notifications`. */
static struct auth_verdict check_entries(const struct auth_check *check, const struct json *before,
                                         const struct json *after)
{
    for (uint32_t i = 0; before && i < before->count; i++) {
        struct change change = change_of(check->rules, before, after, before->members[i].key);
        if (removes_above(&change, check->sender_power)) {
            return refuse(check->rules, 7, "a required level above the sender's would change");
        }
    }
    for (uint32_t i = 0; after && i < after->count; i++) {
        struct change change = change_of(check->rules, before, after, after->members[i].key);
        if (sets_above(&change, check->sender_power)) {
            return refuse(check->rules, 8, "a required level would rise above the sender's");
        }
    }
    return auth_allow();
}

/* 10.9 and 10.10: entries of `users`. */
static struct auth_verdict check_user_entries(const struct auth_check *check,
                                              const struct json *before, const struct json *after)
{
    for (uint32_t i = 0; before && i < before->count; i++) {
        struct slice user = before->members[i].key;
        struct change change = change_of(check->rules, before, after, user);
        if (is_changed(&change) && change.was && change.old_level >= check->sender_power &&
            !slice_eq(user, check->event->sender.s)) {
            return refuse(check->rules, 9, "a user of the sender's power or more would change");
        }
    }
    for (uint32_t i = 0; after && i < after->count; i++) {
        struct change change = change_of(check->rules, before, after, after->members[i].key);
        if (sets_above(&change, check->sender_power)) {
            return refuse(check->rules, 10, "a user would rise above the sender");
        }
    }
    return auth_allow();
}

static struct auth_verdict check_changes(const struct auth_check *check, const struct json *before)
{
    const struct json *after = check->event->content;
    struct auth_verdict verdict = check_scalars(check, before);
    if (verdict.allowed) {
        verdict = check_entries(check, json_get_object(before, LIT("events")),
                                json_get_object(after, LIT("events")));
    }
    if (verdict.allowed && check->rules->limit_notifications) {
        verdict = check_entries(check, json_get_object(before, LIT("notifications")),
                                json_get_object(after, LIT("notifications")));
    }
    if (verdict.allowed) {
        verdict = check_user_entries(check, json_get_object(before, LIT("users")),
                                     json_get_object(after, LIT("users")));
    }
    return verdict;
}

struct auth_verdict auth_check_power_levels(const struct auth_check *check)
{
    struct auth_verdict verdict = auth_allow();
    if (check->rules->int_levels_only) {
        verdict = check_integers(check);
    }
    if (verdict.allowed) {
        verdict = check_users(check);
    }
    if (!verdict.allowed) {
        return verdict;
    }
    /* 10.5: the first power levels of the room are free. */
    const struct event *current = auth_state(check, LIT("m.room.power_levels"), LIT(""));
    return current ? check_changes(check, current->content) : auth_allow();
}
