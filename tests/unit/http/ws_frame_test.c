#include "homeserver/http/ws_frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define BYTES(text)                                                                                \
    {                                                                                              \
        (text), sizeof(text) - 1                                                                   \
    }

/* Masks of zeros keep the payloads readable. The limit of a message is 200 bytes. */
static const struct {
    struct slice bytes;
    enum http_ws_event event;
    struct slice payload;
    int code;
} cases[] = {
    {BYTES("\x81\x83\0\0\0\0abc"), HTTP_WS_GOT_TEXT, BYTES("abc"), 0},
    {BYTES("\x81\x83\1\2\3\0`````"), HTTP_WS_GOT_TEXT, BYTES("abc"), 0},
    {BYTES("\x81\x80\0\0\0\0"), HTTP_WS_GOT_TEXT, BYTES(""), 0},
    {BYTES("\x01\x81\0\0\0\0a\x80\x82\0\0\0\0bc"), HTTP_WS_GOT_TEXT, BYTES("abc"), 0},
    {BYTES("\x89\x81\0\0\0\0p"), HTTP_WS_GOT_PING, BYTES("p"), 0},
    {BYTES("\x8A\x80\0\0\0\0"), HTTP_WS_GOT_PONG, BYTES(""), 0},
    {BYTES("\x88\x80\0\0\0\0"), HTTP_WS_GOT_CLOSE, BYTES(""), 1005},
    {BYTES("\x88\x82\0\0\0\0\x03\xE8"), HTTP_WS_GOT_CLOSE, BYTES("\x03\xE8"), 1000},
    {BYTES("\x88\x81\0\0\0\0\x03"), HTTP_WS_GOT_ERROR, BYTES("\x03"), 1002},
    {BYTES("\x88\x82\0\0\0\0\x03\xEE"), HTTP_WS_GOT_ERROR, BYTES("\x03\xEE"), 1002},
    {BYTES("\x88\x83\0\0\0\0\x03\xE8\xFF"), HTTP_WS_GOT_ERROR, BYTES("\x03\xE8\xFF"), 1007},
    {BYTES("\x81\x03"), HTTP_WS_GOT_ERROR, BYTES(""), 1002}, /* not masked */
    {BYTES("\xC1\x80"), HTTP_WS_GOT_ERROR, BYTES(""), 1002}, /* reserved bit */
    {BYTES("\x83\x80"), HTTP_WS_GOT_ERROR, BYTES(""), 1002}, /* reserved opcode */
    {BYTES("\x82\x80"), HTTP_WS_GOT_ERROR, BYTES(""), 1003}, /* binary */
    {BYTES("\x80\x80"), HTTP_WS_GOT_ERROR, BYTES(""), 1002}, /* nothing to continue */
    {BYTES("\x09\x80"), HTTP_WS_GOT_ERROR, BYTES(""), 1002}, /* fragmented ping */
    {BYTES("\x89\xFE"), HTTP_WS_GOT_ERROR, BYTES(""), 1002}, /* long ping */
    {BYTES("\x01\x80\0\0\0\0\x81\x80"), HTTP_WS_GOT_ERROR, BYTES(""), 1002}, /* interleaved */
    {BYTES("\x81\xFE\0\x05\0\0\0\0"), HTTP_WS_GOT_ERROR, BYTES(""), 1002},   /* long form */
    {BYTES("\x81\xFE\0\xC9\0\0\0\0"), HTTP_WS_GOT_ERROR, BYTES(""), 1009},
    {BYTES("\x81\xFF\x80\0\0\0\0\0\0\0\0\0\0\0"), HTTP_WS_GOT_ERROR, BYTES(""), 1002},
    {BYTES("\x81\x81\0\0\0\0\xFF"), HTTP_WS_GOT_ERROR, BYTES("\xFF"), 1007},
    {BYTES("\x81\x83\0\0\0\0ab"), HTTP_WS_GOT_NOTHING, BYTES(""), 0},
    {BYTES("\x81"), HTTP_WS_GOT_NOTHING, BYTES(""), 0},
};

static void check_case(size_t i, size_t step)
{
    struct http_ws_reader reader;
    enum http_ws_event event = HTTP_WS_GOT_NOTHING;
    struct slice payload = {0};
    uint16_t code = 0;
    http_ws_reader_init(&reader, 200);
    for (size_t at = 0; at < cases[i].bytes.len && event == HTTP_WS_GOT_NOTHING; at += step) {
        struct slice part = slice_sub(cases[i].bytes, at, step);
        event = http_ws_reader_next(&reader, &part, &payload, &code);
    }
    bool same = event == cases[i].event;
    bool has_payload = event != HTTP_WS_GOT_NOTHING && event != HTTP_WS_GOT_ERROR;
    if (!same || (has_payload && !slice_eq(payload, cases[i].payload)) ||
        (cases[i].code && code != cases[i].code)) {
        fail_msg("case %zu step %zu: event %d code %d", i, step, (int)event, code);
    }
    http_ws_reader_deinit(&reader);
}

static void frames_are_read_whole_or_byte_by_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        check_case(i, 1000);
        check_case(i, 1);
        check_case(i, 3);
    }
}

static void a_ping_between_parts_does_not_disturb_the_message(void **state)
{
    struct slice bytes =
        LIT("\x01\x81\0\0\0\0a\x89\x81\0\0\0\0p\x80\x81\0\0\0\0b\x81\x81\0\0\0\0c");
    struct http_ws_reader reader;
    struct slice payload;
    uint16_t code = 0;
    (void)state;
    http_ws_reader_init(&reader, 200);
    assert_int_equal(http_ws_reader_next(&reader, &bytes, &payload, &code), HTTP_WS_GOT_PING);
    assert_true(slice_eq(payload, LIT("p")));
    assert_int_equal(http_ws_reader_next(&reader, &bytes, &payload, &code), HTTP_WS_GOT_TEXT);
    assert_true(slice_eq(payload, LIT("ab")));
    assert_int_equal(http_ws_reader_next(&reader, &bytes, &payload, &code), HTTP_WS_GOT_TEXT);
    assert_true(slice_eq(payload, LIT("c")));
    assert_int_equal(http_ws_reader_next(&reader, &bytes, &payload, &code), HTTP_WS_GOT_NOTHING);
    assert_null(reader.message.ptr);
    http_ws_reader_deinit(&reader);
}

static void lengths_are_written_in_the_shortest_form(void **state)
{
    static char payload[70000];
    static const struct {
        size_t len;
        struct slice head;
    } heads[] = {
        {125, BYTES("\x81\x7D")},
        {126, BYTES("\x81\x7E\0\x7E")},
        {65535, BYTES("\x81\x7E\xFF\xFF")},
        {65536, BYTES("\x81\x7F\0\0\0\0\0\1\0\0")},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(heads); i++) {
        struct buf out;
        buf_init(&out, 100000);
        http_ws_frame_write(&out, HTTP_WS_TEXT, (struct slice){payload, heads[i].len});
        assert_true(slice_has_prefix(buf_slice(&out), heads[i].head));
        assert_int_equal(out.len, heads[i].head.len + heads[i].len);
        buf_deinit(&out);
    }
}

static void close_reasons_are_cut_between_characters(void **state)
{
    char reason[200];
    struct buf out;
    (void)state;
    for (size_t i = 0; i + 1 < sizeof reason; i += 2) {
        memcpy(reason + i, "\xC3\xA4", 2);
    }
    buf_init(&out, 1000);
    http_ws_frame_write_close(&out, 4000, (struct slice){reason, sizeof reason});
    assert_int_equal(out.len, 2 + 2 + 122);
    assert_true(slice_is_utf8(slice_from(buf_slice(&out), 4)));
    buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_read_whole_or_byte_by_byte),
        cmocka_unit_test(a_ping_between_parts_does_not_disturb_the_message),
        cmocka_unit_test(lengths_are_written_in_the_shortest_form),
        cmocka_unit_test(close_reasons_are_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
