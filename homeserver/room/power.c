#include "homeserver/room/power.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "spec/errcodes.h"

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* White space, one sign, digits. Spec: room version 1, "m.room.power_levels events accept values as
 * strings". Numbers past 64 bits stop at the largest, so that they still compare. */
static bool parse_integer_string(struct slice s, int64_t *level_out)
{
    while (s.len && is_space(s.ptr[0])) {
        s = slice_from(s, 1);
    }
    while (s.len && is_space(s.ptr[s.len - 1])) {
        s.len--;
    }
    bool negative = s.len && s.ptr[0] == '-';
    if (s.len && (s.ptr[0] == '-' || s.ptr[0] == '+')) {
        s = slice_from(s, 1);
    }
    int64_t level = 0;
    for (size_t i = 0; i < s.len; i++) {
        int digit = s.ptr[i] - '0';
        if (digit < 0 || digit > 9) {
            return false;
        }
        if (__builtin_mul_overflow(level, 10, &level) ||
            __builtin_add_overflow(level, digit, &level)) {
            level = INT64_MAX - 1;
        }
    }
    *level_out = negative ? -level : level;
    return s.len > 0;
}

/* Exponent applied, then cut at the point. Spec: room version 1, "accept values as floats". */
static bool parse_float(struct slice text, int64_t *level_out)
{
    char spelling[400];
    if (text.len >= sizeof spelling) {
        return false;
    }
    memcpy(spelling, text.ptr, text.len);
    spelling[text.len] = 0;
    double value = strtod(spelling, NULL);
    if (!isfinite(value)) {
        return false;
    }
    if (value >= 9.2e18 || value <= -9.2e18) {
        *level_out = value > 0 ? INT64_MAX - 1 : INT64_MIN + 1;
    } else {
        *level_out = (int64_t)value;
    }
    return true;
}

bool power_parse_level(const struct room_rules *rules, const struct json *value, int64_t *level_out)
{
    if (!value) {
        return false;
    }
    if (value->type == JSON_INT) {
        *level_out = value->integer;
        return true;
    }
    if (value->type == JSON_STRING) {
        return !rules->int_levels_only && parse_integer_string(value->text, level_out);
    }
    if (value->type == JSON_NUMBER && rules->float_levels) {
        return parse_float(value->text, level_out);
    }
    return false;
}

static int64_t level_or(const struct room_rules *rules, const struct json *object, struct slice key,
                        int64_t fallback)
{
    int64_t level = fallback;
    if (object && power_parse_level(rules, json_get(object, key), &level)) {
        return level;
    }
    return fallback;
}

struct power_levels power_load(const struct room_rules *rules, const struct event *create,
                               const struct event *levels)
{
    const struct json *content = levels ? levels->content : NULL;
    return (struct power_levels){
        .rules = rules,
        .create = create,
        .users = json_get_object(content, LIT("users")),
        .events = json_get_object(content, LIT("events")),
        .notifications = json_get_object(content, LIT("notifications")),
        .has_event = levels != NULL,
        .users_default = level_or(rules, content, LIT("users_default"), 0),
        .events_default = level_or(rules, content, LIT("events_default"), 0),
        .state_default = level_or(rules, content, LIT("state_default"), 50),
        .ban = level_or(rules, content, LIT("ban"), 50),
        .kick = level_or(rules, content, LIT("kick"), 50),
        .redact = level_or(rules, content, LIT("redact"), 50),
        .invite = level_or(rules, content, LIT("invite"), 0),
    };
}

struct user_id power_creator(const struct event *create)
{
    if (!create) {
        return (struct user_id){0};
    }
    if (create->rules->implicit_creator) {
        return create->sender;
    }
    return ids_trust_user(json_get_string(create->content, LIT("creator")));
}

bool power_is_creator(const struct event *create, struct user_id user)
{
    if (!create) {
        return false;
    }
    if (ids_user_eq(power_creator(create), user)) {
        return true;
    }
    const struct json *others = NULL;
    if (create->rules->creator_infinite) {
        others = json_get_array(create->content, LIT("additional_creators"));
    }
    for (uint32_t i = 0; others && i < others->count; i++) {
        if (json_is_string(&others->items[i], user.s)) {
            return true;
        }
    }
    return false;
}

int64_t power_of_user(const struct power_levels *levels, struct user_id user)
{
    bool creator_counts = levels->rules->creator_infinite || !levels->has_event;
    if (creator_counts && power_is_creator(levels->create, user)) {
        return levels->rules->creator_infinite ? POWER_INFINITE : 100;
    }
    return level_or(levels->rules, levels->users, user.s, levels->users_default);
}

int64_t power_needed_for(const struct power_levels *levels, struct slice type, enum power_kind kind)
{
    int64_t fallback = kind == POWER_STATE ? levels->state_default : levels->events_default;
    return level_or(levels->rules, levels->events, type, fallback);
}

int64_t power_needed_to_notify(const struct power_levels *levels, struct slice key)
{
    return level_or(levels->rules, levels->notifications, key, 50);
}

static const struct slice scalar_keys[] = {
    LIT("users_default"), LIT("events_default"), LIT("state_default"), LIT("ban"),
    LIT("redact"),        LIT("kick"),           LIT("invite"),
};
static const struct slice map_keys[] = {LIT("events"), LIT("notifications"), LIT("users")};

static struct err not_a_level(struct arena *arena, struct slice key)
{
    return err_publicf(arena, ERR_M_BAD_JSON, "%.*s must hold integers as power levels",
                       (int)key.len, key.ptr);
}

static struct err check_users(const struct room_rules *rules, const struct event *create,
                              const struct json *users)
{
    for (uint32_t i = 0; users && i < users->count; i++) {
        struct slice user = users->members[i].key;
        if (!ids_is_user(user)) {
            return err_public(ERR_M_BAD_JSON, "users must have valid user ids as keys");
        }
        if (rules->creator_infinite && power_is_creator(create, ids_trust_user(user))) {
            return err_public(ERR_M_BAD_JSON, "users must not name a creator of the room");
        }
    }
    return OK;
}

struct err power_check_content(struct arena *arena, const struct room_rules *rules,
                               const struct event *create, const struct json *content)
{
    int64_t level = 0;
    for (size_t i = 0; i < COUNT_OF(scalar_keys); i++) {
        const struct json *value = json_get(content, scalar_keys[i]);
        if (value && !power_parse_level(rules, value, &level)) {
            return not_a_level(arena, scalar_keys[i]);
        }
    }
    for (size_t i = 0; i < COUNT_OF(map_keys); i++) {
        const struct json *map = json_get(content, map_keys[i]);
        if (map && map->type != JSON_OBJECT) {
            return not_a_level(arena, map_keys[i]);
        }
        for (uint32_t j = 0; map && j < map->count; j++) {
            if (!power_parse_level(rules, &map->members[j].value, &level)) {
                return not_a_level(arena, map_keys[i]);
            }
        }
    }
    return check_users(rules, create, json_get_object(content, LIT("users")));
}
