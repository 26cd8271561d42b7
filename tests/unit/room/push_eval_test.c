#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "homeserver/room/glob.h"
#include "homeserver/room/push_eval.h"

struct glob_row {
    const char *pattern;
    const char *text;
    bool matches;
};

/* Synapse CVE-2021-29471. */
static void globs_match_whole_values(void **state)
{
    (void)state;
    static const struct glob_row rows[] = {
        {"lunc?*", "Lunch plans", true},
        {"lunc?*", "LUNCH", true},
        {"lunc?*", " lunch", false},
        {"lunc?*", "lunc", false},
        {"", "", true},
        {"", "x", false},
        {"*", "", true},
        {"a*b*c", "aXbYc", true},
        {"a*b*c", "aXcYb", false},
        {"*ab", "aab", true},
        {"?", "\xc3\xa4", true},
        {"\xc3\x84*", "\xc3\xa4x", true},
        {"\xd0\x9f", "\xd0\xbf", true},
        {"a?", "a", false},
        {"a**", "a", true},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (glob_matches(slice_of(rows[i].pattern), slice_of(rows[i].text)) != rows[i].matches) {
            fail_msg("%s on %s", rows[i].pattern, rows[i].text);
        }
    }
}

static void words_start_and_end_at_boundaries(void **state)
{
    (void)state;
    static const struct glob_row rows[] = {
        {"ex*ple", "An example event.", true},
        {"ex*ple", "exple", true},
        {"ex*ple", "An exciting triple-whammy", true},
        {"ex*ple", "examples", false},
        {"foo", "foo_bar", false},
        {"foo", "(foo)", true},
        {"foo", "FOO", true},
        {"foo", "food foo", true},
        {"f*", "a food", true},
        {"a*z", "a b c", false},
        {"t?a", "no tea today", true},
        {"foo",
         "\xc3\xa4"
         "foo",
         true},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct slice pattern = slice_of(rows[i].pattern);
        if (glob_matches_word(pattern, slice_of(rows[i].text), GLOB_WILDCARDS) != rows[i].matches) {
            fail_msg("%s in %s", rows[i].pattern, rows[i].text);
        }
    }
    assert_false(glob_matches_word(LIT("f*"), LIT("food"), GLOB_LITERAL));
    assert_true(glob_matches_word(LIT("f*"), LIT("x f* y"), GLOB_LITERAL));
}

struct push_row {
    const char *type;
    bool is_state;
    const char *content;
    int64_t members;
    const char *rule_id;
    bool notify;
    bool highlight;
    const char *sound;
};

static const struct push_row push_rows[] = {
    {"m.room.message", false, "{\"body\":\"hi\"}", 3, ".m.rule.message", true, false, ""},
    {"m.room.message", false, "{\"body\":\"hi\"}", 2, ".m.rule.room_one_to_one", true, false,
     "default"},
    {"m.room.encrypted", false, "{}", 3, ".m.rule.encrypted", true, false, ""},
    {"m.room.encrypted", false, "{}", 2, ".m.rule.encrypted_room_one_to_one", true, false,
     "default"},
    {"m.call.invite", false, "{}", 2, ".m.rule.call", true, false, "ring"},
    {"m.room.message", false, "{\"body\":\"hi\",\"msgtype\":\"m.notice\"}", 2,
     ".m.rule.suppress_notices", false, false, ""},
    {"m.room.message", false, "{\"m.mentions\":{\"user_ids\":[\"@x:h\",\"@me:h\"]}}", 3,
     ".m.rule.is_user_mention", true, true, "default"},
    {"m.room.message", false, "{\"m.mentions\":{\"user_ids\":[\"@x:h\"]}}", 3, ".m.rule.message",
     true, false, ""},
    {"m.room.message", false, "{\"m.mentions\":{\"room\":true}}", 3, ".m.rule.message", true, false,
     ""},
    {"m.reaction", false, "{}", 2, ".m.rule.reaction", false, false, ""},
    {"m.room.message", false, "{\"m.relates_to\":{\"rel_type\":\"m.replace\"}}", 2,
     ".m.rule.suppress_edits", false, false, ""},
    {"m.room.tombstone", true, "{}", 3, ".m.rule.tombstone", true, true, ""},
    {"m.room.tombstone", false, "{}", 3, "", false, false, ""},
    {"m.room.server_acl", true, "{}", 3, ".m.rule.room.server_acl", false, false, ""},
    {"m.room.topic", true, "{}", 3, "", false, false, ""},
};

struct fixture {
    struct arena *arena;
    struct power_levels levels;
    struct json content;
    struct event event;
    struct push_target target;
};

static int set_up(void **state)
{
    static struct fixture f;
    const struct room_rules *rules = room_rules_get(LIT("11"));
    f = (struct fixture){.arena = arena_new(), .levels = power_load(rules, NULL, NULL)};
    f.event = (struct event){.rules = rules,
                             .sender = ids_trust_user(LIT("@you:h")),
                             .room_id = ids_trust_room(LIT("!r:h")),
                             .content = &f.content};
    f.target = (struct push_target){
        .user = ids_trust_user(LIT("@me:h")), .member_count = 3, .levels = &f.levels};
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    arena_free(&f->arena);
    return 0;
}

static struct json parse(struct fixture *f, const char *text)
{
    struct json value;
    assert_int_equal(json_parse(f->arena, slice_of(text), &value).code, 0);
    return value;
}

static struct push_verdict evaluate(struct fixture *f, const struct json *stored)
{
    struct json merged = push_rules_merge(f->arena, f->target.user, stored);
    return push_rules_evaluate(push_rules_compile(f->arena, &merged), &f->event, &f->target);
}

static void message(struct fixture *f, const char *content)
{
    f->event.type = LIT("m.room.message");
    f->content = parse(f, content);
}

static void default_rules_decide_as_the_spec_lists_them(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < COUNT_OF(push_rows); i++) {
        const struct push_row *row = &push_rows[i];
        f->event.type = slice_of(row->type);
        f->event.has_state_key = row->is_state;
        f->content = parse(f, row->content);
        f->target.member_count = row->members;
        struct push_verdict verdict = evaluate(f, NULL);
        if (!slice_eq(verdict.rule_id, slice_of(row->rule_id)) || verdict.notify != row->notify ||
            verdict.highlight != row->highlight || !slice_eq(verdict.sound, slice_of(row->sound))) {
            fail_msg("row %zu: %.*s", i, (int)verdict.rule_id.len, verdict.rule_id.ptr);
        }
    }
}

static void what_is_foreseen_is_what_is_found(void **state)
{
    struct fixture *f = *state;
    const struct push_rules *everybody = push_rules_of_everybody(f->arena);
    size_t told = 0;
    for (size_t i = 0; i < COUNT_OF(push_rows); i++) {
        f->event.type = slice_of(push_rows[i].type);
        f->event.has_state_key = push_rows[i].is_state;
        f->content = parse(f, push_rows[i].content);
        f->target.member_count = push_rows[i].members;
        struct push_verdict verdict = evaluate(f, NULL);
        struct push_outlook outlook = push_rules_foresee(everybody, &f->event);
        if (outlook.verdict == PUSH_OUTLOOK_ASK) {
            continue;
        }
        told++;
        if ((outlook.verdict == PUSH_OUTLOOK_NOTIFIES) != verdict.notify ||
            outlook.highlight != verdict.highlight) {
            fail_msg("row %zu", i);
        }
    }
    assert_true(told > 10);
}

static void the_rules_of_everybody_are_those_of_each(void **state)
{
    static const char *const more[] = {"{\"body\":\"hello ME!\"}", "{\"body\":\"hello you\"}",
                                       "{\"body\":\"me\",\"m.mentions\":{}}",
                                       "{\"m.mentions\":{\"user_ids\":[\"@me:h\"]}}"};
    struct fixture *f = *state;
    const struct push_rules *everybody = push_rules_of_everybody(f->arena);
    for (size_t i = 0; i < COUNT_OF(push_rows) + COUNT_OF(more) + 1; i++) {
        const struct push_row *row = i < COUNT_OF(push_rows) ? &push_rows[i] : &push_rows[0];
        f->event.type = slice_of(row->type);
        f->event.has_state_key = row->is_state;
        f->content =
            parse(f, i < COUNT_OF(push_rows)                    ? row->content
                     : i - COUNT_OF(push_rows) < COUNT_OF(more) ? more[i - COUNT_OF(push_rows)]
                                                                : "{\"membership\":\"invite\"}");
        if (i == COUNT_OF(push_rows) + COUNT_OF(more)) {
            f->event.type = LIT("m.room.member");
            f->event.has_state_key = true;
            f->event.state_key = LIT("@me:h");
        }
        f->target.member_count = row->members;
        struct push_verdict own = evaluate(f, NULL);
        struct push_verdict shared = push_rules_evaluate(everybody, &f->event, &f->target);
        if (!slice_eq(own.rule_id, shared.rule_id) || own.notify != shared.notify ||
            own.highlight != shared.highlight || !slice_eq(own.actions, shared.actions)) {
            fail_msg("row %zu: %.*s", i, (int)shared.rule_id.len, shared.rule_id.ptr);
        }
    }
}

static void what_depends_on_the_user_is_not_foreseen(void **state)
{
    static const struct {
        const char *content;
        bool asks, unless_named;
    } rows[] = {
        {"{\"body\":\"hi\"}", false, true},
        {"{\"body\":\"hi\",\"m.mentions\":{}}", false, false},
        {"{\"body\":\"hi\",\"m.mentions\":{\"user_ids\":[]}}", false, false},
        {"{\"body\":\"hi\",\"m.mentions\":{\"user_ids\":[\"@x:h\"]}}", true, false},
        {"{\"body\":\"@room\"}", true, false},
        {"{\"m.mentions\":{\"room\":true}}", true, false},
    };
    struct fixture *f = *state;
    const struct push_rules *everybody = push_rules_of_everybody(f->arena);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        message(f, rows[i].content);
        struct push_outlook outlook = push_rules_foresee(everybody, &f->event);
        bool asks = outlook.verdict == PUSH_OUTLOOK_ASK;
        if (asks != rows[i].asks || (!asks && outlook.unless_named != rows[i].unless_named)) {
            fail_msg("row %zu", i);
        }
    }
}

static void bodies_mention_only_where_mentions_are_not_told(void **state)
{
    struct fixture *f = *state;
    message(f, "{\"body\":\"hello me!\"}");
    struct push_verdict verdict = evaluate(f, NULL);
    assert_true(slice_eq(verdict.rule_id, LIT(".m.rule.contains_user_name")));
    assert_true(verdict.highlight);
    message(f, "{\"body\":\"hello me!\",\"m.mentions\":{}}");
    assert_false(evaluate(f, NULL).highlight);
}

static void room_mentions_need_power(void **state)
{
    struct fixture *f = *state;
    message(f, "{\"m.mentions\":{\"room\":true}}");
    f->levels.users_default = 50;
    struct push_verdict verdict = evaluate(f, NULL);
    assert_true(slice_eq(verdict.rule_id, LIT(".m.rule.is_room_mention")));
    assert_true(verdict.highlight);
}

static void own_events_never_notify(void **state)
{
    struct fixture *f = *state;
    message(f, "{}");
    f->event.sender = f->target.user;
    assert_false(evaluate(f, NULL).notify);
}

static void kinds_are_tried_in_order(void **state)
{
    struct fixture *f = *state;
    struct json stored = parse(f, "{\"global\":{"
                                  "\"sender\":[{\"rule_id\":\"@you:h\",\"actions\":[]}],"
                                  "\"room\":[{\"rule_id\":\"!r:h\",\"actions\":[]}],"
                                  "\"content\":[{\"rule_id\":\"c\",\"pattern\":\"tea\","
                                  "\"actions\":[\"notify\",{\"set_tweak\":\"highlight\"}]}]}}");
    message(f, "{\"body\":\"Tea!\"}");
    assert_int_equal(evaluate(f, &stored).kind, PUSH_CONTENT);
    message(f, "{\"body\":\"coffee\"}");
    assert_int_equal(evaluate(f, &stored).kind, PUSH_ROOM);
    f->event.room_id = ids_trust_room(LIT("!other:h"));
    assert_int_equal(evaluate(f, &stored).kind, PUSH_SENDER);
    f->event.sender = ids_trust_user(LIT("@else:h"));
    assert_int_equal(evaluate(f, &stored).kind, PUSH_UNDERRIDE);
}

static void stored_changes_of_defaults_count(void **state)
{
    struct fixture *f = *state;
    struct json stored =
        parse(f, "{\"global\":{\"underride\":[{\"rule_id\":\".m.rule.message\",\"enabled\":true,"
                 "\"actions\":[\"notify\",{\"set_tweak\":\"sound\",\"value\":\"ping\"}]}],"
                 "\"override\":[{\"rule_id\":\".m.rule.suppress_notices\",\"enabled\":false}]}}");
    message(f, "{\"msgtype\":\"m.notice\"}");
    assert_true(slice_eq(evaluate(f, &stored).sound, LIT("ping")));
    stored = parse(f, "{\"global\":{\"override\":["
                      "{\"rule_id\":\"mine\",\"actions\":[\"notify\"],\"conditions\":[]},"
                      "{\"rule_id\":\".m.rule.master\",\"enabled\":true}]}}");
    assert_false(evaluate(f, &stored).notify); /* the master rule outranks the user's */
}

static void odd_rules_match_nothing(void **state)
{
    struct fixture *f = *state;
    static const char *const conditions[] = {
        "{\"kind\":\"org.unknown\"}",
        "{\"kind\":\"event_match\",\"key\":\"content.n\",\"pattern\":\"*\"}",
        "{\"kind\":\"event_match\",\"key\":\"content.missing\",\"pattern\":\"*\"}",
        "{\"kind\":\"event_match\",\"key\":\"content.body\"}",
        "{\"kind\":\"room_member_count\",\"is\":\"=<3\"}",
        "{\"kind\":\"event_property_is\",\"key\":\"content.n\",\"value\":\"5\"}",
        "{\"kind\":\"event_property_is\",\"key\":\"content.n\",\"value\":[5]}",
        "5",
    };
    message(f, "{\"body\":\"x\",\"n\":5}");
    for (size_t i = 0; i < COUNT_OF(conditions); i++) {
        struct slice text =
            arena_printf(f->arena,
                         "{\"global\":{\"override\":[{\"rule_id\":\"r\",\"actions\":[],"
                         "\"conditions\":[%s]}]}}",
                         conditions[i]);
        struct json stored = parse(f, text.ptr);
        assert_true(slice_eq(evaluate(f, &stored).rule_id, LIT(".m.rule.message")));
    }
}

static void conditions_reach_into_escaped_paths(void **state)
{
    struct fixture *f = *state;
    static const char *const conditions[] = {
        "{\"kind\":\"event_property_is\",\"key\":\"content.a\\\\.b.c\\\\\\\\d\",\"value\":true}",
        "{\"kind\":\"event_property_contains\",\"key\":\"content.list\",\"value\":null}",
        "{\"kind\":\"event_match\",\"key\":\"sender\",\"pattern\":\"@YOU:*\"}",
        "{\"kind\":\"room_member_count\",\"is\":\">=3\"}",
        "{\"kind\":\"room_member_count\",\"is\":\"==3\"}",
        "{\"kind\":\"contains_display_name\"}",
    };
    f->target.display_name = LIT("me");
    message(f, "{\"body\":\"for (me)\",\"a.b\":{\"c\\\\d\":true},\"list\":[1,null]}");
    for (size_t i = 0; i < COUNT_OF(conditions); i++) {
        struct slice text =
            arena_printf(f->arena,
                         "{\"global\":{\"override\":[{\"rule_id\":\"r\",\"actions\":[],"
                         "\"conditions\":[%s]}]}}",
                         conditions[i]);
        struct json stored = parse(f, text.ptr);
        if (!slice_eq(evaluate(f, &stored).rule_id, LIT("r"))) {
            fail_msg("%s", conditions[i]);
        }
    }
}

static void the_document_lists_all_default_rules(void **state)
{
    struct fixture *f = *state;
    struct json merged = push_rules_merge(f->arena, f->target.user, NULL);
    const struct json *global = json_get(&merged, LIT("global"));
    assert_int_equal(json_get(global, LIT("override"))->count, 13);
    assert_int_equal(json_get(global, LIT("underride"))->count, 9);
    assert_int_equal(json_get(global, LIT("content"))->count, 1);
    assert_int_equal(json_get(global, LIT("room"))->count, 0);
    assert_int_equal(json_get(global, LIT("sender"))->count, 0);
    assert_true(push_rules_has_default(PUSH_OVERRIDE, LIT(".m.rule.master")));
    assert_false(push_rules_has_default(PUSH_UNDERRIDE, LIT(".m.rule.master")));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(globs_match_whole_values),
        cmocka_unit_test(words_start_and_end_at_boundaries),
        TEST(default_rules_decide_as_the_spec_lists_them),
        TEST(what_is_foreseen_is_what_is_found),
        TEST(the_rules_of_everybody_are_those_of_each),
        TEST(what_depends_on_the_user_is_not_foreseen),
        TEST(bodies_mention_only_where_mentions_are_not_told),
        TEST(room_mentions_need_power),
        TEST(own_events_never_notify),
        TEST(kinds_are_tried_in_order),
        TEST(stored_changes_of_defaults_count),
        TEST(odd_rules_match_nothing),
        TEST(conditions_reach_into_escaped_paths),
        TEST(the_document_lists_all_default_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
