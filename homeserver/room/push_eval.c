#include "homeserver/room/push_eval.h"

#include "homeserver/room/glob.h"
#include "homeserver/room/property_path.h"

enum condition_kind {
    CONDITION_MATCH,
    CONDITION_MATCH_WORD, /* content.body */
    CONDITION_IS,
    CONDITION_CONTAINS,
    CONDITION_DISPLAY_NAME,
    CONDITION_MEMBER_COUNT,
    CONDITION_PERMISSION,
    CONDITION_ROOM,
    CONDITION_SENDER,
};

enum comparison {
    COMPARE_EQUAL,
    COMPARE_LESS,
    COMPARE_GREATER,
    COMPARE_LESS_EQUAL,
    COMPARE_GREATER_EQUAL,
};

enum place {
    PLACE_CONTENT,
    PLACE_TYPE,
    PLACE_STATE_KEY,
    PLACE_SENDER,
    PLACE_ROOM_ID,
    PLACE_EVENT_ID,
    PLACE_NOWHERE,
};

struct condition {
    enum condition_kind kind;
    enum place place;
    enum comparison comparison;
    struct property_path path;
    struct slice text; /* pattern, room or user id, or notification key */
    bool is_plain;     /* the pattern is ASCII without wildcards */
    bool is_own;       /* compares with the id, or localpart, of whoever is asked for */
    struct json value;
    int64_t count;
};

struct rule {
    enum push_kind kind;
    struct slice rule_id;
    struct slice actions;
    struct slice sound;
    bool notify;
    bool highlight;
    bool only_without_mentions; /* a rule of the time before m.mentions */
    struct condition *conditions;
    size_t condition_count;
};

struct push_rules {
    struct rule *rules; /* enabled rules in the order they are tried */
    size_t count;
    bool is_default;
};

static enum place place_of(const struct property_path *path)
{
    static const struct slice names[] = {
        [PLACE_CONTENT] = LIT("content"),     [PLACE_TYPE] = LIT("type"),
        [PLACE_STATE_KEY] = LIT("state_key"), [PLACE_SENDER] = LIT("sender"),
        [PLACE_ROOM_ID] = LIT("room_id"),     [PLACE_EVENT_ID] = LIT("event_id"),
    };
    for (enum place place = PLACE_CONTENT; place < PLACE_NOWHERE; place++) {
        bool fits = place == PLACE_CONTENT ? path->count > 1 : path->count == 1;
        if (fits && slice_eq(path->names[0], names[place])) {
            return place;
        }
    }
    return PLACE_NOWHERE;
}

static bool parse_count(struct slice text, struct condition *condition)
{
    static const struct {
        struct slice prefix;
        enum comparison comparison;
    } prefixes[] = {
        {LIT("=="), COMPARE_EQUAL},         {LIT("<="), COMPARE_LESS_EQUAL},
        {LIT(">="), COMPARE_GREATER_EQUAL}, {LIT("<"), COMPARE_LESS},
        {LIT(">"), COMPARE_GREATER},
    };
    uint64_t count = 0;
    condition->kind = CONDITION_MEMBER_COUNT;
    for (size_t i = 0; i < COUNT_OF(prefixes); i++) {
        if (slice_has_prefix(text, prefixes[i].prefix)) {
            condition->comparison = prefixes[i].comparison;
            text = slice_from(text, prefixes[i].prefix.len);
            break;
        }
    }
    if (!slice_parse_u64(text, &count) || count > INT64_MAX) {
        return false;
    }
    condition->count = (int64_t)count;
    return true;
}

static bool is_scalar(const struct json *value)
{
    return value && (value->type == JSON_STRING || value->type == JSON_INT ||
                     value->type == JSON_BOOL || value->type == JSON_NULL);
}

/* Deep copy of a scalar, so that the rules do not borrow from the document. */
static struct json copy_scalar(struct arena *arena, const struct json *value)
{
    struct json copy = *value;
    copy.raw = (struct slice){0};
    if (copy.type == JSON_STRING) {
        copy.text = arena_copy(arena, copy.text);
    }
    return copy;
}

static bool is_plain(struct slice pattern)
{
    for (size_t i = 0; i < pattern.len; i++) {
        unsigned char c = (unsigned char)pattern.ptr[i];
        if (c >= 0x80 || c == '*' || c == '?') {
            return false;
        }
    }
    return true;
}

static bool compile_match(struct arena *arena, const struct json *json, struct condition *condition)
{
    struct slice pattern = json_get_string(json, LIT("pattern"));
    bool is_body = json_is_string(json_get(json, LIT("key")), LIT("content.body"));
    condition->kind = is_body ? CONDITION_MATCH_WORD : CONDITION_MATCH;
    condition->text = arena_copy(arena, pattern);
    condition->is_plain = is_plain(pattern);
    return pattern.ptr != NULL;
}

static bool compile_value(struct arena *arena, const struct json *json, enum condition_kind kind,
                          struct condition *condition)
{
    const struct json *value = json_get(json, LIT("value"));
    condition->kind = kind;
    if (!is_scalar(value)) {
        return false;
    }
    condition->value = copy_scalar(arena, value);
    return true;
}

/* False when the condition can match nothing. */
static bool compile_condition(struct arena *arena, const struct json *json,
                              struct condition *condition)
{
    struct slice kind = json_get_string(json, LIT("kind"));
    struct slice key = json_get_string(json, LIT("key"));
    *condition = (struct condition){0};
    if (slice_eq(kind, LIT("contains_display_name"))) {
        condition->kind = CONDITION_DISPLAY_NAME;
        return true;
    }
    if (slice_eq(kind, LIT("room_member_count"))) {
        return parse_count(json_get_string(json, LIT("is")), condition);
    }
    if (!key.ptr) {
        return false;
    }
    if (slice_eq(kind, LIT("sender_notification_permission"))) {
        condition->kind = CONDITION_PERMISSION;
        condition->text = arena_copy(arena, key);
        return true;
    }
    condition->path = property_path_parse(arena, key);
    condition->place = place_of(&condition->path);
    if (slice_eq(kind, LIT("event_match"))) {
        return compile_match(arena, json, condition);
    }
    if (slice_eq(kind, LIT("event_property_is"))) {
        return compile_value(arena, json, CONDITION_IS, condition);
    }
    if (slice_eq(kind, LIT("event_property_contains"))) {
        return compile_value(arena, json, CONDITION_CONTAINS, condition);
    }
    return false;
}

static bool compile_conditions(struct arena *arena, const struct json *json, struct rule *rule)
{
    const struct json *list = json_get_array(json, LIT("conditions"));
    size_t count = list ? list->count : 0;
    rule->conditions = arena_array(arena, count + 1, sizeof *rule->conditions);
    for (size_t i = 0; i < count; i++) {
        if (!compile_condition(arena, &list->items[i], &rule->conditions[i])) {
            return false;
        }
    }
    rule->condition_count = count;
    return true;
}

/* The one condition that content, room and sender rules stand for. */
static bool compile_implied(struct arena *arena, const struct json *json, struct rule *rule)
{
    struct condition *condition = arena_alloc(arena, sizeof *condition);
    struct slice text = rule->rule_id;
    if (rule->kind == PUSH_CONTENT) {
        static const struct slice body[] = {LIT("content"), LIT("body")};
        text = arena_copy(arena, json_get_string(json, LIT("pattern")));
        condition->kind = CONDITION_MATCH_WORD;
        condition->path = (struct property_path){body, COUNT_OF(body)};
    } else {
        condition->kind = rule->kind == PUSH_ROOM ? CONDITION_ROOM : CONDITION_SENDER;
    }
    condition->text = text;
    rule->conditions = condition;
    rule->condition_count = 1;
    return text.len > 0;
}

static void compile_tweak(struct arena *arena, const struct json *action, struct rule *rule)
{
    struct slice tweak = json_get_string(action, LIT("set_tweak"));
    if (slice_eq(tweak, LIT("sound"))) {
        rule->sound = arena_copy(arena, json_get_string(action, LIT("value")));
    } else if (slice_eq(tweak, LIT("highlight"))) {
        rule->highlight = json_get_bool(action, LIT("value"), true);
    }
}

static void compile_actions(struct arena *arena, const struct json *list, struct rule *rule)
{
    struct json kept = json_array();
    for (uint32_t i = 0; list && i < list->count; i++) {
        const struct json *action = &list->items[i];
        bool is_notify = json_is_string(action, LIT("notify"));
        /* dont_notify and coalesce are history and have no effect. */
        if (is_notify || action->type == JSON_OBJECT) {
            json_push(arena, &kept, *action);
        }
        rule->notify = rule->notify || is_notify;
        compile_tweak(arena, action, rule);
    }
    rule->actions = json_canonical(arena, &kept);
}

static bool is_before_mentions(struct slice rule_id)
{
    return slice_eq(rule_id, LIT(".m.rule.contains_display_name")) ||
           slice_eq(rule_id, LIT(".m.rule.contains_user_name")) ||
           slice_eq(rule_id, LIT(".m.rule.roomnotif"));
}

static bool compile_rule(struct arena *arena, enum push_kind kind, const struct json *json,
                         struct rule *rule)
{
    *rule = (struct rule){.kind = kind};
    if (!json_get_bool(json, LIT("enabled"), true)) {
        return false;
    }
    rule->rule_id = arena_copy(arena, json_get_string(json, LIT("rule_id")));
    rule->only_without_mentions = is_before_mentions(rule->rule_id);
    compile_actions(arena, json_get_array(json, LIT("actions")), rule);
    if (kind == PUSH_OVERRIDE || kind == PUSH_UNDERRIDE) {
        return compile_conditions(arena, json, rule);
    }
    return compile_implied(arena, json, rule);
}

struct push_rules *push_rules_compile(struct arena *arena, const struct json *merged)
{
    const struct json *global = json_get_object(merged, LIT("global"));
    struct push_rules *rules = arena_alloc(arena, sizeof *rules);
    size_t total = 0;
    for (enum push_kind kind = PUSH_OVERRIDE; kind < PUSH_KIND_COUNT; kind++) {
        const struct json *list = json_get_array(global, push_kind_word(kind));
        total += list ? list->count : 0;
    }
    rules->rules = arena_array(arena, total + 1, sizeof *rules->rules);
    for (enum push_kind kind = PUSH_OVERRIDE; kind < PUSH_KIND_COUNT; kind++) {
        const struct json *list = json_get_array(global, push_kind_word(kind));
        for (uint32_t i = 0; list && i < list->count; i++) {
            rules->count += compile_rule(arena, kind, &list->items[i], &rules->rules[rules->count]);
        }
    }
    return rules;
}

bool push_rules_is_default(const struct push_rules *rules)
{
    return rules->is_default;
}

/* The pattern, or text, that a condition compares with. */
static struct slice text_for(const struct condition *condition, const struct push_target *target)
{
    if (!condition->is_own) {
        return condition->text;
    }
    return condition->kind == CONDITION_MATCH_WORD ? ids_user_localpart(target->user)
                                                   : target->user.s;
}

/* The value a condition looks at; false when the event has none. */
static bool find_value(const struct condition *condition, const struct event *event,
                       struct json *value_out)
{
    const struct json *found = NULL;
    switch (condition->place) {
    case PLACE_CONTENT:
        found = property_path_find(event->content, &condition->path, 1);
        *value_out = found ? *found : (struct json){0};
        return found != NULL;
    case PLACE_TYPE:
        *value_out = json_string(event->type);
        return true;
    case PLACE_STATE_KEY:
        *value_out = json_string(event->state_key);
        return event->has_state_key;
    case PLACE_SENDER:
        *value_out = json_string(event->sender.s);
        return true;
    case PLACE_ROOM_ID:
        *value_out = json_string(event->room_id.s);
        return true;
    case PLACE_EVENT_ID:
        *value_out = json_string(event->id.s);
        return true;
    case PLACE_NOWHERE:
        return false;
    }
    return false;
}

static bool contains_value(const struct condition *condition, const struct json *list,
                           const struct push_target *target)
{
    struct json wanted =
        condition->is_own ? json_string(text_for(condition, target)) : condition->value;
    for (uint32_t i = 0; list->type == JSON_ARRAY && i < list->count; i++) {
        if (is_scalar(&list->items[i]) && json_eq(&list->items[i], &wanted)) {
            return true;
        }
    }
    return false;
}

static bool matches_value(const struct condition *condition, const struct event *event,
                          const struct push_target *target)
{
    struct json value;
    struct slice text = text_for(condition, target);
    if (!find_value(condition, event, &value)) {
        return false;
    }
    if (condition->kind == CONDITION_IS) {
        return is_scalar(&value) && json_eq(&value, &condition->value);
    }
    if (condition->kind == CONDITION_MATCH) {
        return value.type == JSON_STRING && (condition->is_plain ? slice_eq_nocase(text, value.text)
                                                                 : glob_matches(text, value.text));
    }
    if (condition->kind == CONDITION_MATCH_WORD) {
        return value.type == JSON_STRING && glob_matches_word(text, value.text, GLOB_WILDCARDS);
    }
    return contains_value(condition, &value, target);
}

static bool matches_count(const struct condition *condition, int64_t members)
{
    switch (condition->comparison) {
    case COMPARE_EQUAL:
        return members == condition->count;
    case COMPARE_LESS:
        return members < condition->count;
    case COMPARE_GREATER:
        return members > condition->count;
    case COMPARE_LESS_EQUAL:
        return members <= condition->count;
    case COMPARE_GREATER_EQUAL:
        return members >= condition->count;
    }
    return false;
}

static bool matches_display_name(const struct event *event, struct slice display_name)
{
    struct slice body = json_get_string(event->content, LIT("body"));
    return display_name.len && body.ptr && glob_matches_word(display_name, body, GLOB_LITERAL);
}

static bool may_notify(const struct condition *condition, const struct event *event,
                       const struct push_target *target)
{
    return target->levels && power_of_user(target->levels, event->sender) >=
                                 power_needed_to_notify(target->levels, condition->text);
}

static bool matches(const struct condition *condition, const struct event *event,
                    const struct push_target *target)
{
    switch (condition->kind) {
    case CONDITION_MATCH:
    case CONDITION_MATCH_WORD:
    case CONDITION_IS:
    case CONDITION_CONTAINS:
        return matches_value(condition, event, target);
    case CONDITION_DISPLAY_NAME:
        return matches_display_name(event, target->display_name);
    case CONDITION_MEMBER_COUNT:
        return matches_count(condition, target->member_count);
    case CONDITION_PERMISSION:
        return may_notify(condition, event, target);
    case CONDITION_ROOM:
        return slice_eq(condition->text, event->room_id.s);
    case CONDITION_SENDER:
        return slice_eq(condition->text, event->sender.s);
    }
    return false;
}

static bool rule_matches(const struct rule *rule, const struct event *event,
                         const struct push_target *target)
{
    if (rule->only_without_mentions && json_get_object(event->content, LIT("m.mentions"))) {
        return false;
    }
    for (size_t i = 0; i < rule->condition_count; i++) {
        if (!matches(&rule->conditions[i], event, target)) {
            return false;
        }
    }
    return true;
}

struct push_verdict push_rules_evaluate(const struct push_rules *rules, const struct event *event,
                                        const struct push_target *target)
{
    if (ids_user_eq(event->sender, target->user)) {
        return (struct push_verdict){0};
    }
    for (size_t i = 0; i < rules->count; i++) {
        const struct rule *rule = &rules->rules[i];
        if (rule_matches(rule, event, target)) {
            return (struct push_verdict){.notify = rule->notify,
                                         .highlight = rule->highlight,
                                         .sound = rule->sound,
                                         .rule_id = rule->rule_id,
                                         .actions = rule->actions,
                                         .kind = rule->kind};
        }
    }
    return (struct push_verdict){0};
}

/* --- what holds for all users --- */

/* No user id: nothing that an event says of its users is equal to it. */
static const struct slice nobody = LIT("@\1:\1");
static const struct slice nobody_localpart = LIT("\1");

static void mark_own(struct condition *condition)
{
    bool own_id = slice_eq(condition->text, nobody) ||
                  (condition->value.type == JSON_STRING && slice_eq(condition->value.text, nobody));
    condition->is_own = own_id || (condition->kind == CONDITION_MATCH_WORD &&
                                   slice_eq(condition->text, nobody_localpart));
    condition->is_plain = condition->is_plain && !condition->is_own;
}

struct push_rules *push_rules_of_everybody(struct arena *arena)
{
    struct json merged = push_rules_merge(arena, ids_trust_user(nobody), NULL);
    struct push_rules *rules = push_rules_compile(arena, &merged);
    rules->is_default = true;
    for (size_t i = 0; i < rules->count; i++) {
        for (size_t j = 0; j < rules->rules[i].condition_count; j++) {
            mark_own(&rules->rules[i].conditions[j]);
        }
    }
    return rules;
}

enum certainty {
    CERTAIN_NO,
    CERTAIN_YES,
    UNCERTAIN_NAME,  /* the user's name stands in the body, or not */
    UNCERTAIN_COUNT, /* it depends on the number of members */
    UNCERTAIN,
};

static bool has_body(const struct event *event)
{
    return json_get_string(event->content, LIT("body")).ptr != NULL;
}

/* A condition that compares with the user's own id. */
static enum certainty foresee_own(const struct condition *condition, const struct event *event)
{
    struct json value;
    if (!find_value(condition, event, &value)) {
        return CERTAIN_NO;
    }
    bool none =
        condition->kind == CONDITION_CONTAINS && (value.type != JSON_ARRAY || value.count == 0);
    return none ? CERTAIN_NO : UNCERTAIN;
}

static enum certainty foresee_condition(const struct condition *condition,
                                        const struct event *event)
{
    if (condition->kind == CONDITION_DISPLAY_NAME ||
        (condition->kind == CONDITION_MATCH_WORD && condition->is_own)) {
        return has_body(event) ? UNCERTAIN_NAME : CERTAIN_NO;
    }
    if (condition->is_own) {
        return foresee_own(condition, event);
    }
    if (condition->kind == CONDITION_MEMBER_COUNT) {
        return UNCERTAIN_COUNT;
    }
    if (condition->kind == CONDITION_PERMISSION) {
        return UNCERTAIN;
    }
    return matches(condition, event, &(struct push_target){0}) ? CERTAIN_YES : CERTAIN_NO;
}

static enum certainty foresee_rule(const struct rule *rule, const struct event *event)
{
    enum certainty worst = CERTAIN_YES;
    if (rule->only_without_mentions && json_get_object(event->content, LIT("m.mentions"))) {
        return CERTAIN_NO;
    }
    for (size_t i = 0; i < rule->condition_count; i++) {
        enum certainty certainty = foresee_condition(&rule->conditions[i], event);
        if (certainty == CERTAIN_NO) {
            return CERTAIN_NO;
        }
        worst = certainty > worst ? certainty : worst;
    }
    return worst;
}

/* The outlook when this rule decides; ask when rules before it, of which it is not known whether
 * they do, say otherwise. */
static struct push_outlook decide(const struct rule *rule, const struct rule *maybe,
                                  bool unless_named)
{
    struct push_outlook outlook = {.unless_named = unless_named};
    bool notify = rule && rule->notify;
    bool highlight = rule && rule->highlight;
    if (!maybe || (maybe->notify == notify && maybe->highlight == highlight)) {
        outlook.verdict = notify ? PUSH_OUTLOOK_NOTIFIES : PUSH_OUTLOOK_SILENT;
        outlook.highlight = highlight;
    }
    return outlook;
}

struct push_outlook push_rules_foresee(const struct push_rules *rules, const struct event *event)
{
    const struct rule *maybe = NULL;
    bool unless_named = false;
    for (size_t i = 0; i < rules->count; i++) {
        const struct rule *rule = &rules->rules[i];
        switch (foresee_rule(rule, event)) {
        case CERTAIN_NO:
            break;
        case CERTAIN_YES:
            return decide(rule, maybe, unless_named);
        case UNCERTAIN_NAME:
            unless_named = true;
            break;
        case UNCERTAIN_COUNT:
            if (maybe && (maybe->notify != rule->notify || maybe->highlight != rule->highlight)) {
                return (struct push_outlook){.verdict = PUSH_OUTLOOK_ASK};
            }
            maybe = rule;
            break;
        case UNCERTAIN:
            return (struct push_outlook){.verdict = PUSH_OUTLOOK_ASK};
        }
    }
    return decide(NULL, maybe, unless_named);
}
