#include "tools/myelin-conform/match.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct row {
    const char *pattern;
    const char *value; /* "" for an absent value */
    bool matches;
};

static bool matches(struct vars *vars, const char *pattern_text, const char *value_text)
{
    struct term pattern;
    struct slice rest;
    struct json value;
    struct match match = {.vars = vars};
    struct err err = term_parse(vars->arena, slice_of(pattern_text), &pattern, &rest);
    assert_int_equal(err.code, 0);
    assert_int_equal(rest.len, 0);
    if (*value_text == '\0') {
        return match_value(&match, &pattern, NULL);
    }
    err = json_parse(vars->arena, slice_of(value_text), &value);
    assert_int_equal(err.code, 0);
    bool matched = match_value(&match, &pattern, &value);
    assert_true(matched == (match.fault.len == 0));
    return matched;
}

static void check_rows(const struct row *rows, size_t count)
{
    struct arena *arena = arena_new();
    for (size_t i = 0; i < count; i++) {
        struct vars vars = {.arena = arena};
        vars_set(&vars, LIT("five"), json_int(5));
        vars_set(&vars, LIT("room"), json_string(LIT("!r:x")));
        bool matched = matches(&vars, rows[i].pattern, rows[i].value);
        if (matched != rows[i].matches) {
            fail_msg("%s against %s", rows[i].pattern, rows[i].value);
        }
    }
    arena_free(&arena);
}

static void plain_values_match_their_equals(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"1", "1", true},
        {"1", "2", false},
        {"\"a\"", "\"a\"", true},
        {"\"a\"", "\"b\"", false},
        {"null", "null", true},
        {"true", "false", false},
        {"1.5", "1.5", true},
        {"$five", "5", true},
        {"$five", "6", false},
        {"\"on $room\"", "\"on !r:x\"", true},
        {"\"$$x\"", "\"$x\"", true},
        {"1", "", false},
    };
    check_rows(rows, COUNT_OF(rows));
}

static void objects_are_open_unless_exact(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"{\"a\": 1}", "{\"a\": 1, \"b\": 2}", true},
        {"{\"a\": 1}", "{\"b\": 2}", false},
        {"exactly {\"a\": 1}", "{\"a\": 1, \"b\": 2}", false},
        {"exactly {\"a\": 1}", "{\"a\": 1}", true},
        {"{$room: {\"a\": int}}", "{\"!r:x\": {\"a\": 3}}", true},
        {"{\"a\": absent}", "{\"b\": 2}", true},
        {"{\"a\": absent}", "{\"a\": null}", false},
        {"exactly {}", "{}", true},
        {"{}", "[]", false},
    };
    check_rows(rows, COUNT_OF(rows));
}

static void arrays_match_in_order_with_gaps_at_an_ellipsis(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"[1, 2]", "[1, 2]", true},      {"[1, 2]", "[2, 1]", false},
        {"[1]", "[1, 2]", false},        {"[1, ...]", "[1, 2]", true},
        {"[..., 2]", "[1, 2]", true},    {"[..., 2, ...]", "[1, 2, 3]", true},
        {"[1, ..., 3]", "[1, 3]", true}, {"[..., 2, ..., 1]", "[1, 2, 3]", false},
        {"[...]", "[]", true},           {"[..., 1, 2]", "[1, 1, 2]", true},
    };
    check_rows(rows, COUNT_OF(rows));
}

static void lists_of_patterns_match_in_any_order(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"has [3, 1]", "[1, 2, 3]", true},
        {"has [4]", "[1, 2, 3]", false},
        {"only [2, 1]", "[1, 2]", true},
        {"only [2, 1]", "[1, 2, 2]", false},
        {"only [1, 1]", "[1, 2]", false},
        {"without [4]", "[1, 2]", true},
        {"without [2]", "[1, 2]", false},
        {"without [2]", "", true},
        {"has [{\"a\": 1}]", "[{\"a\": 2}, {\"a\": 1, \"b\": 1}]", true},
        {"has [1] and without [2]", "[1, 3]", true},
    };
    check_rows(rows, COUNT_OF(rows));
}

static void words_name_types_and_relations(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"string", "\"\"", true},
        {"string", "1", false},
        {"int", "1", true},
        {"int", "1.5", false},
        {"number", "1.5", true},
        {"bool", "false", true},
        {"array", "[]", true},
        {"object", "{}", true},
        {"any", "null", true},
        {"any", "", false},
        {"absent", "", true},
        {"nonempty", "\"\"", false},
        {"nonempty", "[1]", true},
        {"not 1", "2", true},
        {"not 1", "1", false},
        {"1 or 2", "2", true},
        {"1 or 2", "3", false},
        {"> 3", "4", true},
        {"<= $five", "5", true},
        {"< 5", "5", false},
        {"like \"mxc://*/*\"", "\"mxc://a/b\"", true},
        {"like \"a*\"", "\"ba\"", false},
        {"length 2", "[1, 2]", true},
        {"length > 2", "\"ab\"", false},
        {"not (string or int)", "null", true},
        {"int or absent", "", true},
        {"like \"*b*b\"", "\"abab\"", true},
    };
    check_rows(rows, COUNT_OF(rows));
}

static void a_capture_binds_once_and_then_compares(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct vars vars = {.arena = arena};
    assert_true(matches(&vars, "{\"a\": $x, \"b\": $x}", "{\"a\": [1], \"b\": [1]}"));
    assert_int_equal(vars_get(&vars, LIT("x"))->type, JSON_ARRAY);
    assert_false(matches(&vars, "{\"a\": $x}", "{\"a\": [2]}"));
    arena_free(&arena);
}

static void a_failed_alternative_leaves_no_capture(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct vars vars = {.arena = arena};
    assert_true(matches(&vars, "has [{\"id\": $id, \"kind\": 2}]",
                        "[{\"id\": 7, \"kind\": 1}, {\"id\": 8, \"kind\": 2}]"));
    assert_int_equal(vars_get(&vars, LIT("id"))->integer, 8);
    assert_true(matches(&vars, "[..., {\"n\": $n}, 3]", "[{\"n\": 1}, {\"n\": 2}, 3]"));
    assert_int_equal(vars_get(&vars, LIT("n"))->integer, 2);
    arena_free(&arena);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_values_match_their_equals),
        cmocka_unit_test(objects_are_open_unless_exact),
        cmocka_unit_test(arrays_match_in_order_with_gaps_at_an_ellipsis),
        cmocka_unit_test(lists_of_patterns_match_in_any_order),
        cmocka_unit_test(words_name_types_and_relations),
        cmocka_unit_test(a_capture_binds_once_and_then_compares),
        cmocka_unit_test(a_failed_alternative_leaves_no_capture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
