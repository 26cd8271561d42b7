#include "homeserver/base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct slice canonical_of(struct arena *arena, const char *text)
{
    struct json value;
    struct err err = json_parse(arena, slice_of(text), &value);
    return err.code ? (struct slice){0} : json_canonical(arena, &value);
}

static void canonical_form_sorts_and_shortens(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"{}", "{}"},
        {" { \"b\" : \"2\" , \"a\" : [ ] } ", "{\"a\":[],\"b\":\"2\"}"},
        {"{\"a\":\"\\u65E5\"}", "{\"a\":\"日\"}"},
        {"{\"\\uD83D\\uDE00\":1,\"\\uFFFD\":2}", "{\"\xEF\xBF\xBD\":2,\"😀\":1}"},
        {"[true,false,null,-7,9007199254740991]", "[true,false,null,-7,9007199254740991]"},
        {"\"\\u000B\\u0007\\/\\t\\u007f\"", "\"\\u000b\\u0007/\\t\x7f\""},
        {"{\"a\":{\"c\":{\"e\":1,\"d\":[{},[]]},\"b\":0}}",
         "{\"a\":{\"b\":0,\"c\":{\"d\":[{},[]],\"e\":1}}}"},
    };
    (void)state;
    struct arena *arena = arena_new();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct slice got = canonical_of(arena, cases[i].in);
        assert_int_equal(got.len, slice_of(cases[i].out).len);
        assert_memory_equal(got.ptr, cases[i].out, got.len);
    }
    arena_free(&arena);
}

static void malformed_text_is_refused(void **state)
{
    static const char *const cases[] = {
        "",
        " ",
        "{",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "{\"a\"}",
        "{\"a\":1,}",
        "{\"a\":1,\"a\":2}",
        "01",
        "-",
        "1.",
        "1e",
        "+1",
        "tru",
        "\"",
        "\"\\",
        "\"\\x\"",
        "\"\\uD800\"",
        "\"\\uDC00\\uD800\"",
        "\"\x01\"",
        "\"\xC0\x80\"",
        "\"\xED\xA0\x80\"",
        "\"\xF5\x80\x80\x80\"",
        "1 2",
        "{a:1}",
        "['a']",
        "NaN",
        "{\"a\":1}x",
    };
    (void)state;
    struct arena *arena = arena_new();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_null(canonical_of(arena, cases[i]).ptr);
    }
    arena_free(&arena);
}

static void numbers_outside_canonical_json_keep_their_spelling(void **state)
{
    static const char *const cases[] = {"9007199254740992",
                                        "-9007199254740992",
                                        "1.0",
                                        "1e10",
                                        "-0",
                                        "123456789012345678901234567890"};
    (void)state;
    struct arena *arena = arena_new();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct json value;
        assert_int_equal(json_parse(arena, slice_of(cases[i]), &value).code, ERR_OK);
        assert_int_equal(value.type, JSON_NUMBER);
        assert_int_not_equal(json_check_canonical(&value).code, ERR_OK);
        assert_true(slice_eq(json_canonical(arena, &value), slice_of(cases[i])));
    }
    arena_free(&arena);
}

static struct slice nested(struct arena *arena, size_t levels)
{
    struct buf text;
    buf_init_arena(&text, arena, 10000);
    for (size_t i = 0; i < levels; i++) {
        buf_add(&text, i % 2 ? LIT("{\"a\":") : LIT("["));
    }
    buf_add(&text, LIT("1"));
    for (size_t i = levels; i > 0; i--) {
        buf_add_byte(&text, (i - 1) % 2 ? '}' : ']');
    }
    return buf_slice(&text);
}

static void texts_of_many_makers_may_nest_deeper(void **state)
{
    struct arena *arena = arena_new();
    struct json value;
    (void)state;
    struct slice text = nested(arena, JSON_DEEP_MAX);
    assert_int_equal(json_parse(arena, text, &value).code, ERR_SYNTAX);
    assert_int_equal(json_parse_deep(arena, text, &value).code, ERR_OK);
    assert_int_equal(json_depth(&value), JSON_DEEP_MAX);
    assert_true(slice_eq(json_canonical(arena, &value), text));
    assert_int_equal(json_check_canonical(&value).code, ERR_OK);
    assert_true(json_eq(&value, &value));
    assert_int_equal(json_parse_deep(arena, nested(arena, JSON_DEEP_MAX + 1), &value).code,
                     ERR_SYNTAX);
    assert_int_equal(json_parse(arena, LIT("[1,{\"a\":[]},[[]]]"), &value).code, ERR_OK);
    assert_int_equal(json_depth(&value), 3);
    assert_int_equal(json_parse(arena, LIT("7"), &value).code, ERR_OK);
    assert_int_equal(json_depth(&value), 0);
    arena_free(&arena);
}

/* An array and what stands in it. */
static struct slice many(struct arena *arena, size_t values)
{
    struct buf text;
    buf_init_arena(&text, arena, SIZE_MAX / 2);
    buf_add(&text, LIT("[1"));
    for (size_t i = 2; i < values; i++) {
        buf_add(&text, LIT(",1"));
    }
    buf_add_byte(&text, ']');
    return buf_slice(&text);
}

/* Two bytes of text are up to 200 of memory. */
static void the_values_of_a_text_are_counted(void **state)
{
    struct arena *arena = arena_new();
    struct json value;
    (void)state;
    assert_int_equal(json_parse(arena, many(arena, JSON_VALUES_MAX), &value).code, ERR_OK);
    struct slice more = many(arena, JSON_VALUES_MAX + 1);
    assert_int_equal(json_parse(arena, more, &value).code, ERR_SYNTAX);
    assert_int_equal(json_parse_deep(arena, more, &value).code, ERR_SYNTAX);
    assert_int_equal(json_parse_list(arena, more, &value).code, ERR_OK);
    assert_int_equal(json_parse_list(arena, many(arena, JSON_LIST_VALUES_MAX + 1), &value).code,
                     ERR_SYNTAX);
    arena_free(&arena);
}

static void depth_is_limited_to_100(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct buf text;
    struct json value;
    buf_init_arena(&text, arena, 1000);
    for (int i = 0; i < 100; i++) {
        buf_add_byte(&text, '[');
    }
    struct slice open = buf_slice(&text);
    for (int i = 0; i < 100; i++) {
        buf_add_byte(&text, ']');
    }
    assert_int_equal(json_parse(arena, buf_slice(&text), &value).code, ERR_OK);
    struct slice deeper = arena_printf(arena, "[%.*s]", (int)text.len, text.ptr);
    assert_int_equal(json_parse(arena, deeper, &value).code, ERR_SYNTAX);
    assert_int_equal(json_parse(arena, open, &value).code, ERR_SYNTAX);
    arena_free(&arena);
}

static void members_are_found_set_and_removed(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct json value;
    int64_t number = 0;
    assert_int_equal(json_parse(arena, LIT("{\"c\":3,\"a\":\"x\",\"b\":{}}"), &value).code, ERR_OK);
    assert_true(json_get_int(&value, LIT("c"), &number) && number == 3);
    assert_true(slice_eq(json_get_string(&value, LIT("a")), LIT("x")));
    assert_non_null(json_get_object(&value, LIT("b")));
    assert_null(json_get(&value, LIT("d")));
    json_set(arena, &value, LIT("bb"), json_int(1));
    json_set(arena, &value, LIT("a"), json_bool(false));
    json_remove(&value, LIT("b"));
    assert_true(slice_eq(json_canonical(arena, &value), LIT("{\"a\":false,\"bb\":1,\"c\":3}")));
    struct json array = json_array();
    for (int i = 0; i < 5; i++) {
        json_push(arena, &array, json_int(i));
    }
    assert_true(slice_eq(json_canonical(arena, &array), LIT("[0,1,2,3,4]")));
    arena_free(&arena);
}

static void a_parsed_array_grows(void **state)
{
    struct json value;
    (void)state;
    struct arena *arena = arena_new();
    assert_int_equal(json_parse(arena, LIT("[1,2,3]"), &value).code, 0);
    struct json *next = arena_array(arena, 1, sizeof *next);
    *next = json_int(7);
    json_push(arena, &value, json_int(4));
    json_push(arena, &value, json_int(5));
    assert_int_equal(next->integer, 7);
    assert_true(slice_eq(json_canonical(arena, &value), LIT("[1,2,3,4,5]")));
    arena_free(&arena);
}

static void raw_is_the_text_of_the_value(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct json value;
    assert_int_equal(json_parse(arena, LIT("{\"a\": [1, 2] , \"b\":\"x\" }"), &value).code, 0);
    assert_true(slice_eq(json_get(&value, LIT("a"))->raw, LIT("[1, 2]")));
    assert_true(slice_eq(json_get(&value, LIT("b"))->raw, LIT("\"x\"")));
    arena_free(&arena);
}

static void equality_compares_whole_trees(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct json a;
    struct json b;
    assert_int_equal(json_parse(arena, LIT("{\"a\":[1,{\"b\":\"c\"}],\"z\":null}"), &a).code, 0);
    assert_int_equal(json_parse(arena, LIT("{\"z\":null,\"a\":[1,{\"b\":\"c\"}]}"), &b).code, 0);
    assert_true(json_eq(&a, &b));
    assert_int_equal(json_parse(arena, LIT("{\"z\":null,\"a\":[1,{\"b\":\"d\"}]}"), &b).code, 0);
    assert_false(json_eq(&a, &b));
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canonical_form_sorts_and_shortens),
        cmocka_unit_test(malformed_text_is_refused),
        cmocka_unit_test(numbers_outside_canonical_json_keep_their_spelling),
        cmocka_unit_test(depth_is_limited_to_100),
        cmocka_unit_test(texts_of_many_makers_may_nest_deeper),
        cmocka_unit_test(the_values_of_a_text_are_counted),
        cmocka_unit_test(members_are_found_set_and_removed),
        cmocka_unit_test(a_parsed_array_grows),
        cmocka_unit_test(raw_is_the_text_of_the_value),
        cmocka_unit_test(equality_compares_whole_trees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
