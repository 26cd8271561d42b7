/* The default push rules and how a user's changes are laid over them. */
#include "homeserver/room/push_eval.h"

static const struct slice kind_words[PUSH_KIND_COUNT] = {
    [PUSH_OVERRIDE] = LIT("override"),   [PUSH_CONTENT] = LIT("content"),
    [PUSH_ROOM] = LIT("room"),           [PUSH_SENDER] = LIT("sender"),
    [PUSH_UNDERRIDE] = LIT("underride"),
};

struct default_rule {
    enum push_kind kind;
    struct slice rule_id;
    bool enabled;
    struct slice conditions;
    struct slice actions;
};

static const struct default_rule default_rules[] = {
#define PUSH_RULE(kind, id, enabled, conditions, actions)                                          \
    {PUSH_##kind, LIT(id), enabled, LIT(conditions), LIT(actions)},
#include "homeserver/room/push_rules.def"
#undef PUSH_RULE
};

struct slice push_kind_word(enum push_kind kind)
{
    return kind_words[kind];
}

bool push_kind_parse(struct slice word, enum push_kind *kind_out)
{
    for (enum push_kind kind = PUSH_OVERRIDE; kind < PUSH_KIND_COUNT; kind++) {
        if (slice_eq(word, kind_words[kind])) {
            *kind_out = kind;
            return true;
        }
    }
    return false;
}

bool push_rules_has_default(enum push_kind kind, struct slice rule_id)
{
    for (size_t i = 0; i < COUNT_OF(default_rules); i++) {
        if (default_rules[i].kind == kind && slice_eq(default_rules[i].rule_id, rule_id)) {
            return true;
        }
    }
    return false;
}

static struct json parse_constant(struct arena *arena, struct slice text)
{
    struct json value;
    struct err err = json_parse(arena, text, &value);
    ASSERT(err.code == 0);
    return value;
}

/* Puts the user's id where the table says "[user]". */
static struct json conditions_for(struct arena *arena, const struct default_rule *rule,
                                  struct user_id user)
{
    const struct slice places[] = {LIT("pattern"), LIT("value")};
    struct json conditions = parse_constant(arena, rule->conditions);
    for (uint32_t i = 0; i < conditions.count; i++) {
        for (size_t j = 0; j < COUNT_OF(places); j++) {
            const struct json *value = json_get(&conditions.items[i], places[j]);
            if (json_is_string(value, LIT("[user]"))) {
                json_set(arena, &conditions.items[i], places[j], json_string(user.s));
            }
        }
    }
    return conditions;
}

static const struct json *find_rule(const struct json *rules, struct slice rule_id)
{
    for (uint32_t i = 0; rules && i < rules->count; i++) {
        if (json_is_string(json_get(&rules->items[i], LIT("rule_id")), rule_id)) {
            return &rules->items[i];
        }
    }
    return NULL;
}

static struct json default_as_json(struct arena *arena, const struct default_rule *rule,
                                   struct user_id user, const struct json *stored)
{
    struct json value = json_object();
    const struct json *changed = find_rule(stored, rule->rule_id);
    const struct json *actions = json_get_array(changed, LIT("actions"));
    json_set(arena, &value, LIT("rule_id"), json_string(rule->rule_id));
    json_set(arena, &value, LIT("default"), json_bool(true));
    json_set(arena, &value, LIT("enabled"),
             json_bool(json_get_bool(changed, LIT("enabled"), rule->enabled)));
    if (rule->kind == PUSH_CONTENT) {
        json_set(arena, &value, LIT("pattern"), json_string(ids_user_localpart(user)));
    } else {
        json_set(arena, &value, LIT("conditions"), conditions_for(arena, rule, user));
    }
    json_set(arena, &value, LIT("actions"),
             actions ? *actions : parse_constant(arena, rule->actions));
    return value;
}

/* A user's own rule in full, or nothing when it is malformed. */
static bool user_rule(struct arena *arena, enum push_kind kind, const struct json *stored,
                      struct json *rule_out)
{
    struct slice rule_id = json_get_string(stored, LIT("rule_id"));
    const struct json *actions = json_get_array(stored, LIT("actions"));
    const struct json *pattern = json_get(stored, LIT("pattern"));
    const struct json *conditions = json_get_array(stored, LIT("conditions"));
    if (!rule_id.len || rule_id.ptr[0] == '.' || !actions ||
        (kind == PUSH_CONTENT && (!pattern || pattern->type != JSON_STRING))) {
        return false;
    }
    *rule_out = json_object();
    json_set(arena, rule_out, LIT("rule_id"), json_string(rule_id));
    json_set(arena, rule_out, LIT("default"), json_bool(false));
    json_set(arena, rule_out, LIT("enabled"),
             json_bool(json_get_bool(stored, LIT("enabled"), true)));
    json_set(arena, rule_out, LIT("actions"), *actions);
    if (kind == PUSH_CONTENT) {
        json_set(arena, rule_out, LIT("pattern"), *pattern);
    } else if (kind == PUSH_OVERRIDE || kind == PUSH_UNDERRIDE) {
        json_set(arena, rule_out, LIT("conditions"), conditions ? *conditions : json_array());
    }
    return true;
}

/* The master rule, then the user's rules, then the other defaults. */
static struct json merge_kind(struct arena *arena, struct user_id user, enum push_kind kind,
                              const struct json *stored)
{
    struct json rules = json_array();
    if (kind == PUSH_OVERRIDE) {
        json_push(arena, &rules, default_as_json(arena, &default_rules[0], user, stored));
    }
    for (uint32_t i = 0; stored && i < stored->count; i++) {
        struct json rule;
        if (user_rule(arena, kind, &stored->items[i], &rule)) {
            json_push(arena, &rules, rule);
        }
    }
    for (size_t i = 1; i < COUNT_OF(default_rules); i++) {
        if (default_rules[i].kind == kind) {
            json_push(arena, &rules, default_as_json(arena, &default_rules[i], user, stored));
        }
    }
    return rules;
}

struct json push_rules_merge(struct arena *arena, struct user_id user, const struct json *stored)
{
    const struct json *stored_global = json_get_object(stored, LIT("global"));
    struct json global = json_object();
    struct json merged = json_object();
    for (enum push_kind kind = PUSH_OVERRIDE; kind < PUSH_KIND_COUNT; kind++) {
        const struct json *rules = json_get_array(stored_global, kind_words[kind]);
        json_set(arena, &global, kind_words[kind], merge_kind(arena, user, kind, rules));
    }
    json_set(arena, &merged, LIT("global"), global);
    return merged;
}
