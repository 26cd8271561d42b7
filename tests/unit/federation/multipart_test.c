#include "federation/multipart.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

struct taken {
    struct arena *arena;
    struct multipart multipart;
    struct buf content;
};

static struct err take(void *arg, struct slice bytes)
{
    struct taken *taken = arg;
    buf_add(&taken->content, bytes);
    return OK;
}

static void begin(struct taken *taken)
{
    taken->arena = arena_new();
    buf_init_arena(&taken->content, taken->arena, 1 << 20);
    multipart_begin(&taken->multipart, taken->arena, take, taken);
}

static struct err feed(struct taken *taken, struct slice text, size_t step)
{
    for (size_t at = 0; at < text.len; at += step) {
        TRY(multipart_read(&taken->multipart, slice_sub(text, at, step)));
    }
    return OK;
}

static const struct slice good =
    LIT("--abc\r\nContent-Type: application/json\r\n\r\n{}\r\n--abc\r\n"
        "Content-Type: image/png\r\nContent-Disposition: inline; filename=\"a b.png\"\r\n\r\n"
        "first\r\n--abX\r\nlast\r\n--abc--\r\n");

static void the_content_comes_out_however_it_is_cut(void **state)
{
    (void)state;
    for (size_t step = 1; step <= good.len; step++) {
        struct taken taken;
        begin(&taken);
        assert_int_equal(feed(&taken, good, step).code, 0);
        assert_true(multipart_is_whole(&taken.multipart));
        assert_true(slice_eq(buf_slice(&taken.content), LIT("first\r\n--abX\r\nlast")));
        assert_true(slice_eq(taken.multipart.content_type, LIT("image/png")));
        assert_true(slice_eq(multipart_file_name(taken.arena, taken.multipart.disposition),
                             LIT("a b.png")));
        arena_free(&taken.arena);
    }
}

static void half_of_it_is_not_whole(void **state)
{
    (void)state;
    for (size_t len = 0; len + 12 < good.len; len++) {
        struct taken taken;
        begin(&taken);
        assert_int_equal(feed(&taken, slice_sub(good, 0, len), 7).code, 0);
        assert_false(multipart_is_whole(&taken.multipart));
        arena_free(&taken.arena);
    }
}

static void a_location_stands_for_the_content(void **state)
{
    struct taken taken;
    (void)state;
    begin(&taken);
    assert_int_equal(feed(&taken,
                          LIT("--x\r\n\r\n{}\r\n--x\r\nLocation: https://cdn.example/1\r\n\r\n"
                              "\r\n--x--"),
                          3)
                         .code,
                     0);
    assert_true(multipart_is_whole(&taken.multipart));
    assert_true(slice_eq(taken.multipart.location, LIT("https://cdn.example/1")));
    arena_free(&taken.arena);
}

static void floods_are_refused(void **state)
{
    struct taken taken;
    struct err err = OK;
    (void)state;
    begin(&taken);
    for (int i = 0; i < 100000 && err.code == 0; i++) {
        err = multipart_read(&taken.multipart, LIT("no line end at all "));
    }
    assert_int_equal(err.code, ERR_SYNTAX);
    arena_free(&taken.arena);
    begin(&taken);
    err = multipart_read(&taken.multipart, LIT("--b\r\n\r\n"));
    for (int i = 0; i < 100000 && err.code == 0; i++) {
        err = multipart_read(&taken.multipart, LIT("metadata without end\r\n"));
    }
    assert_int_equal(err.code, ERR_SYNTAX);
    arena_free(&taken.arena);
    begin(&taken);
    assert_int_equal(feed(&taken, LIT("--b\r\n\r\n{}\r\n--b--\r\n"), 4).code, ERR_SYNTAX);
    arena_free(&taken.arena);
}

static void file_names_are_read_in_both_forms(void **state)
{
    static const struct {
        struct slice header, name;
    } cases[] = {
        {LIT("attachment; filename=plain.txt"), LIT("plain.txt")},
        {LIT("inline; filename*=utf-8''%C3%A9%20.txt"), LIT("\xc3\xa9 .txt")},
        {LIT("inline; filename=\"old\"; filename*=UTF-8''new"), LIT("new")},
        {LIT("inline; filename=\"semi;colon \\\"x\\\"\""), LIT("semi;colon \"x\"")},
        {LIT("inline"), LIT("")},
        {LIT("inline; filename*=utf-8"), LIT("")},
    };
    struct arena *arena = arena_new();
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_true(slice_eq(multipart_file_name(arena, cases[i].header), cases[i].name));
    }
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_content_comes_out_however_it_is_cut),
        cmocka_unit_test(half_of_it_is_not_whole),
        cmocka_unit_test(a_location_stands_for_the_content),
        cmocka_unit_test(floods_are_refused),
        cmocka_unit_test(file_names_are_read_in_both_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
