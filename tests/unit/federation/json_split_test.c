#include "federation/json_split.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Members as "key=value;", or "!" when the text is broken. */
static const char *members_of(const char *text, char out[256])
{
    struct json_split split = json_split_object(slice_of(text));
    struct slice key;
    struct slice value;
    size_t len = 0;
    out[0] = '\0';
    while (json_split_member(&split, &key, &value)) {
        len += (size_t)snprintf(out + len, 256 - len, "%.*s=%.*s;", (int)key.len, key.ptr,
                                (int)value.len, value.ptr);
    }
    if (split.broken) {
        snprintf(out + len, 256 - len, "!");
    }
    return out;
}

static void members_come_with_their_raw_values(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"{}", ""},
        {" { \"a\" : 1 , \"b\":[1,{\"c\":\"]\"}] } ", "a=1;b=[1,{\"c\":\"]\"}];"},
        {"{\"a\":\"x\\\"y\\\\\",\"b\":true}", "a=\"x\\\"y\\\\\";b=true;"},
        {"{\"a\":{}}", "a={};"},
        {"[]", "!"},
        {"", "!"},
        {"{\"a\":1", "a=1;!"},
        {"{\"a\":\"x", "!"},
        {"{\"a\":[1,2", "!"},
        {"{\"a\" 1}", "!"},
        {"{\"a\":1 \"b\":2}", "a=1;!"},
        {"{\"a\":}", "!"},
        {"{a:1}", "!"},
    };
    char out[256];
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_string_equal(members_of(cases[i].in, out), cases[i].out);
    }
}

static void items_come_one_by_one(void **state)
{
    struct json_split split = json_split_array(LIT("[ {\"a\":[]} ,\"b,c\", 3,null]"));
    static const char *const wanted[] = {"{\"a\":[]}", "\"b,c\"", "3", "null"};
    struct slice item;
    size_t count = 0;
    (void)state;
    while (json_split_item(&split, &item)) {
        assert_true(slice_eq(item, slice_of(wanted[count++])));
    }
    assert_int_equal(count, 4);
    assert_false(split.broken);
}

static void a_text_cut_anywhere_is_broken(void **state)
{
    static const char text[] = "[{\"a\":\"\\\"\"},[1,[2]],\"x\",12 ]";
    (void)state;
    for (size_t len = 0; len + 1 < sizeof text; len++) {
        struct json_split split = json_split_array((struct slice){text, len});
        struct slice item;
        while (json_split_item(&split, &item)) {
        }
        assert_int_equal(split.broken, len + 1 < sizeof text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_come_with_their_raw_values),
        cmocka_unit_test(items_come_one_by_one),
        cmocka_unit_test(a_text_cut_anywhere_is_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
