#include "homeserver/media/media.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void a_media_id_is_a_file_name_and_nothing_else(void **state)
{
    static const struct {
        const char *id;
        bool valid;
    } rows[] = {
        {"abcXYZ019_-", true}, {"", false},    {"..", false},    {"a/b", false},
        {"a.b", false},        {"a b", false}, {"a%2Fb", false}, {"\xc4\x8d", false},
        {"@12345678", false},  {"-", true},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        assert_int_equal(media_id_is_valid(slice_of(rows[i].id)), rows[i].valid);
    }
}

static void only_harmless_types_are_shown_in_place(void **state)
{
    (void)state;
    assert_true(media_type_is_inline(LIT("image/png")));
    assert_true(media_type_is_inline(LIT("Image/PNG")));
    assert_true(media_type_is_inline(LIT("text/plain; charset=utf-8")));
    assert_false(media_type_is_inline(LIT("text/html")));
    assert_false(media_type_is_inline(LIT("image/svg+xml")));
    assert_false(media_type_is_inline(LIT("image/pngx")));
    assert_false(media_type_is_inline(LIT("")));
}

static void a_name_takes_the_form_that_its_characters_need(void **state)
{
    static const struct {
        const char *type, *name, *disposition;
    } rows[] = {
        {"image/png", "", "inline"},
        {"image/png", "a b.png", "inline; filename=\"a b.png\""},
        {"text/html", "x.html", "attachment; filename=\"x.html\""},
        {"text/html", "a\"b", "attachment; filename*=utf-8''a%22b"},
        {"text/html", "a\r\nSet-Cookie: x",
         "attachment; filename*=utf-8''a%0D%0ASet-Cookie%3A%20x"},
        {"text/html", "\xe2\x98\x95.txt", "attachment; filename*=utf-8''%E2%98%95.txt"},
    };
    struct arena *arena = arena_new();
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct slice got = media_disposition(arena, slice_of(rows[i].type), slice_of(rows[i].name));
        assert_true(slice_eq(got, slice_of(rows[i].disposition)));
    }
    arena_free(&arena);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_media_id_is_a_file_name_and_nothing_else),
        cmocka_unit_test(only_harmless_types_are_shown_in_place),
        cmocka_unit_test(a_name_takes_the_form_that_its_characters_need),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
