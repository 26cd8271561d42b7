#include "tests/support/http_harness.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define UPGRADE                                                                                    \
    "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"     \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

static struct harness_reply reply;

static int open_ws(struct harness *harness)
{
    int fd = harness_connect(harness, HARNESS_PLAIN);
    harness_write(fd, LIT(UPGRADE "Sec-WebSocket-Protocol: x, test.v1\r\n\r\n"));
    assert_true(harness_read(fd, &reply));
    assert_int_equal(reply.status, 101);
    assert_non_null(strstr(reply.head, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    assert_non_null(strstr(reply.head, "Sec-WebSocket-Protocol: test.v1\r\n"));
    return fd;
}

/* A client frame with a mask of zeros, so that the payload stays readable. */
static void send_frame(int fd, unsigned char first, struct slice payload)
{
    char head[14] = {(char)first};
    size_t len = 2;
    if (payload.len < 126) {
        head[1] = (char)(0x80 | payload.len);
    } else {
        head[1] = (char)(0x80 | 127);
        for (size_t i = 0; i < 8; i++) {
            head[2 + i] = (char)(payload.len >> (56 - 8 * i) & 0xFF);
        }
        len = 10;
    }
    harness_write(fd, (struct slice){head, len + 4});
    harness_write(fd, payload);
}

static void expect_bytes(int fd, struct slice expected)
{
    for (size_t i = 0; i < expected.len; i++) {
        char byte = 0;
        assert_int_equal(recv(fd, &byte, 1, 0), 1);
        assert_int_equal(byte, expected.ptr[i]);
    }
}

static void texts_are_echoed_in_order(void **state)
{
    struct harness *harness = *state;
    int fd = open_ws(harness);
    send_frame(fd, 0x81, LIT("one"));
    expect_bytes(fd, LIT("\x81\x08"
                         "echo:one"));
    send_frame(fd, 0x01, LIT("t")); /* a ping may stand between the parts of a message */
    send_frame(fd, 0x89, LIT("p"));
    expect_bytes(fd, LIT("\x8A\x01p"));
    send_frame(fd, 0x80, LIT("wo"));
    expect_bytes(fd, LIT("\x81\x08"
                         "echo:two"));
    send_frame(fd, 0x88, LIT("\x03\xE8"));
    expect_bytes(fd, LIT("\x88\x02\x03\xE8"));
    assert_true(harness_closed(fd));
    assert_true(harness_wait(&harness->closed, 1));
    close(fd);
}

static void large_messages_pass_and_too_large_ones_close(void **state)
{
    static char text[(1 << 20) + 1];
    struct harness *harness = *state;
    int fd = open_ws(harness);
    memset(text, 'x', sizeof text);
    send_frame(fd, 0x81, (struct slice){text, sizeof text - 10});
    expect_bytes(fd, LIT("\x81\x7F\0\0\0\0\0\x0F\xFF\xFC"
                         "echo:"));
    expect_bytes(fd, (struct slice){text, sizeof text - 10});
    send_frame(fd, 0x81, (struct slice){text, sizeof text});
    expect_bytes(fd, LIT("\x88\x02\x03\xF1"));
    close(fd);
    assert_true(harness_wait(&harness->closed, 1));
}

static void a_lost_client_is_noticed(void **state)
{
    struct harness *harness = *state;
    for (int i = 1; i <= 20; i++) {
        close(open_ws(harness));
        assert_true(harness_wait(&harness->closed, i));
    }
}

static void the_server_may_close(void **state)
{
    struct harness *harness = *state;
    int fd = open_ws(harness);
    send_frame(fd, 0x81, LIT("close"));
    expect_bytes(fd, LIT("\x88\x0A\x0F\xA1"
                         "asked to"));
    send_frame(fd, 0x88, LIT("\x0F\xA1"));
    assert_true(harness_closed(fd));
    assert_true(harness_wait(&harness->closed, 1));
    close(fd);
}

static void a_gate_opens_when_its_frame_is_on_its_way(void **state)
{
    struct harness *harness = *state;
    int fd = open_ws(harness);
    harness->client_fd = fd;
    for (int i = 1; i <= 20; i++) {
        send_frame(fd, 0x81, LIT("gated"));
        assert_true(harness_wait(&harness->opened, i));
        expect_bytes(fd, LIT("\x81\x05gated"));
    }
    assert_int_equal(harness->opened_early, 0);
    close(fd);
}

static void what_is_no_upgrade_gets_426(void **state)
{
    static const char *const requests[] = {
        "GET /ws HTTP/1.1\r\nHost: a\r\n\r\n",
        UPGRADE "\r\n",
        UPGRADE "Sec-WebSocket-Protocol: other\r\n\r\n",
    };
    for (size_t i = 0; i < COUNT_OF(requests); i++) {
        assert_int_equal(harness_ask(*state, slice_of(requests[i]), &reply), 426);
        assert_non_null(strstr(reply.head, "Sec-WebSocket-Version: 13\r\n"));
        assert_non_null(strstr(reply.body, "M_UNRECOGNIZED"));
    }
}

static void draining_closes_with_1001(void **state)
{
    struct harness *harness = *state;
    int fd = open_ws(harness);
    http_server_stop(harness->server, 100);
    expect_bytes(fd, LIT("\x88"));
    assert_true(harness_wait(&harness->closed, 1));
    close(fd);
}

int main(void)
{
#define WS_TEST(name) cmocka_unit_test_setup_teardown(name, harness_start, harness_stop)
    const struct CMUnitTest tests[] = {
        WS_TEST(texts_are_echoed_in_order),
        WS_TEST(large_messages_pass_and_too_large_ones_close),
        WS_TEST(a_lost_client_is_noticed),
        WS_TEST(the_server_may_close),
        WS_TEST(a_gate_opens_when_its_frame_is_on_its_way),
        WS_TEST(what_is_no_upgrade_gets_426),
        WS_TEST(draining_closes_with_1001),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
