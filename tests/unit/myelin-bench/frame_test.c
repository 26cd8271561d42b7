/* Frames as RFC 6455 lays them out. */
#include "tools/myelin-bench/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void short_text_is_read_with_what_follows(void **state)
{
    (void)state;
    struct frame frame;
    struct slice bytes = LIT("\x81\x05Hello\x81");
    assert_true(frame_read(bytes, &frame));
    assert_int_equal(frame.opcode, FRAME_TEXT);
    assert_true(frame.final);
    assert_true(slice_eq(frame.payload, LIT("Hello")));
    assert_int_equal(frame.size, 7);
}

static void a_part_of_a_frame_asks_for_more(void **state)
{
    (void)state;
    struct frame frame;
    struct slice whole = LIT("\x81\x7e\x00\x80xxxxxxxx");
    for (size_t size = 0; size <= whole.len; size++) {
        assert_false(frame_read(slice_sub(whole, 0, size), &frame));
    }
}

static void lengths_change_their_form_at_126_and_65536(void **state)
{
    static const size_t sizes[] = {0, 125, 126, 65535, 65536};
    static const size_t heads[] = {6, 6, 8, 8, 14};
    static char payload[65536];
    (void)state;
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct buf out;
        buf_init(&out, 100000);
        frame_write(&out, FRAME_TEXT, (struct slice){payload, sizes[i]});
        assert_int_equal(out.len, sizes[i] + heads[i]);
        assert_int_equal((unsigned char)out.ptr[0], 0x81);
        assert_int_equal((unsigned char)out.ptr[1] & 0x80, 0x80);
        buf_deinit(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_text_is_read_with_what_follows),
        cmocka_unit_test(a_part_of_a_frame_asks_for_more),
        cmocka_unit_test(lengths_change_their_form_at_126_and_65536),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
