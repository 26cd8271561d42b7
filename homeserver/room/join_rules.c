#include "homeserver/room/join_rules.h"

struct row {
    struct slice word;
    enum join_rule rule;
};

static const struct row rows[] = {
    {LIT("public"), JOIN_RULE_PUBLIC},
    {LIT("invite"), JOIN_RULE_INVITE},
    {LIT("knock"), JOIN_RULE_KNOCK},
    {LIT("restricted"), JOIN_RULE_RESTRICTED},
    {LIT("knock_restricted"), JOIN_RULE_KNOCK_RESTRICTED},
};

static bool is_known_to(const struct room_rules *rules, enum join_rule rule)
{
    switch (rule) {
    case JOIN_RULE_INVITE:
    case JOIN_RULE_PUBLIC:
        return true;
    case JOIN_RULE_KNOCK:
        return rules->knock;
    case JOIN_RULE_RESTRICTED:
        return rules->restricted;
    case JOIN_RULE_KNOCK_RESTRICTED:
        return rules->knock_restricted;
    case JOIN_RULE_OTHER:
        return false;
    }
    return false;
}

enum join_rule join_rules_rule(const struct event *join_rules)
{
    if (!join_rules) {
        return JOIN_RULE_INVITE;
    }
    const struct json *word = json_get(join_rules->content, LIT("join_rule"));
    if (!word) {
        return JOIN_RULE_INVITE;
    }
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (json_is_string(word, rows[i].word) && is_known_to(join_rules->rules, rows[i].rule)) {
            return rows[i].rule;
        }
    }
    return JOIN_RULE_OTHER;
}

bool join_rules_are_restricted(enum join_rule rule)
{
    return rule == JOIN_RULE_RESTRICTED || rule == JOIN_RULE_KNOCK_RESTRICTED;
}

bool join_rules_allow_knock(enum join_rule rule)
{
    return rule == JOIN_RULE_KNOCK || rule == JOIN_RULE_KNOCK_RESTRICTED;
}

struct join_rules join_rules_parse(struct arena *arena, const struct event *join_rules)
{
    struct join_rules parsed = {.rule = join_rules_rule(join_rules)};
    const struct json *allow = NULL;
    if (join_rules && join_rules_are_restricted(parsed.rule)) {
        allow = json_get_array(join_rules->content, LIT("allow"));
    }
    if (!allow) {
        return parsed;
    }
    struct room_id *rooms = arena_array(arena, allow->count, sizeof *rooms);
    for (uint32_t i = 0; i < allow->count; i++) {
        const struct json *condition = &allow->items[i];
        struct slice room = json_get_string(condition, LIT("room_id"));
        if (json_is_string(json_get(condition, LIT("type")), LIT("m.room_membership")) &&
            ids_is_room(room)) {
            rooms[parsed.allowed_room_count++] = ids_trust_room(room);
        }
    }
    parsed.allowed_rooms = rooms;
    return parsed;
}
