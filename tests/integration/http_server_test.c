#include "tests/support/http_harness.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD "Host: localhost\r\n"

static struct harness_reply reply;

static void requests_are_answered_by_status(void **state)
{
    static const struct {
        const char *request;
        int status;
        const char *body;
    } cases[] = {
        {"GET /_matrix/client/v3/rooms/%21a%2Fb/state/k+1?q=x+y%2B&access_token=t HTTP/1.1\r\n" HEAD
         "\r\n",
         200,
         "{\"room\":\"!a/b\",\"key\":\"k+1\",\"q\":\"x y+\","
         "\"token\":\"t\",\"from\":\"127.0.0.1\"}"},
        {"GET /_matrix/client/r0/rooms/a/state/b HTTP/1.1\r\n" HEAD
         "Authorization: Bearer abc\r\n\r\n",
         200, "\"token\":\"abc\""},
        {"GET http://localhost/_matrix/client/v3/rooms/a/state/b HTTP/1.1\r\n" HEAD "\r\n", 200,
         "\"room\":\"a\""},
        {"PUT /_matrix/client/v3/echo HTTP/1.1\r\n" HEAD "Content-Length: 9\r\n\r\n{\"a\": 12}",
         200, "{\"a\":12}"},
        {"PUT /_matrix/client/v3/echo HTTP/1.0\r\nContent-Length: 9\r\n\r\n{\"a\": 12}", 200,
         "{\"a\":12}"},
        {"PUT /_matrix/client/v3/echo HTTP/1.1\r\n" HEAD
         "Transfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n3\r\n:1}\r\n0\r\n\r\n",
         200, "{\"a\":1}"},
        {"POST /_matrix/client/v3/echo HTTP/1.1\r\n" HEAD "Content-Length: 0\r\n\r\n", 200, "{}"},
        {"PUT /_matrix/client/v3/echo HTTP/1.1\r\n" HEAD "Content-Length: 0\r\n\r\n", 400,
         "M_NOT_JSON"},
        {"PUT /_matrix/client/v3/echo HTTP/1.1\r\n" HEAD "Content-Length: 2\r\n\r\n[]", 400,
         "M_BAD_JSON"},
        {"PUT /_matrix/client/v3/echo HTTP/1.1\r\n" HEAD
         "Content-Length: 5\r\n\r\n\"\xff\xfe\x80\"",
         400, "M_NOT_JSON"},
        {"PUT /_matrix/client/v3/echo HTTP/1.1\r\n" HEAD "Content-Length: 9999999\r\n\r\n", 413,
         "M_TOO_LARGE"},
        {"PUT /_matrix/client/v3/echo HTTP/1.1\r\n" HEAD
         "Expect: 100-continue\r\nContent-Length: 20000\r\n\r\n",
         413, "M_TOO_LARGE"},
        {"GET /nowhere HTTP/1.1\r\n" HEAD "\r\n", 404, "M_UNRECOGNIZED"},
        {"GET /slow/ HTTP/1.1\r\n" HEAD "\r\n", 404, "M_UNRECOGNIZED"},
        {"GET /admin HTTP/1.1\r\n" HEAD "\r\n", 404, "M_UNRECOGNIZED"},
        {"GET /_matrix/client/v3/echo HTTP/1.1\r\n" HEAD "\r\n", 405, "M_UNRECOGNIZED"},
        {"PATCH /_matrix/client/v3/echo HTTP/1.1\r\n" HEAD "\r\n", 405, "M_UNRECOGNIZED"},
        {"GET /_matrix/client/v3/rooms/%ZZ/state/b HTTP/1.1\r\n" HEAD "\r\n", 400,
         "M_INVALID_PARAM"},
        {"OPTIONS /nowhere HTTP/1.1\r\n" HEAD "\r\n", 204, ""},
        {"HEAD /big HTTP/1.0\r\n\r\n", 200, ""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int fd = harness_connect(*state, HARNESS_PLAIN);
        harness_write(fd, slice_of(cases[i].request));
        bool head = strncmp(cases[i].request, "HEAD", 4) == 0;
        bool answered = harness_read(fd, &reply);
        if ((!answered && !head) || reply.status != cases[i].status ||
            !strstr(reply.body, cases[i].body)) {
            fail_msg("%s -> %d %s", cases[i].request, reply.status, reply.body);
        }
        assert_non_null(strstr(reply.head, "Access-Control-Allow-Origin: *\r\n"));
        close(fd);
    }
}

static void malformed_requests_are_refused_and_closed(void **state)
{
#define BYTES(text)                                                                                \
    {                                                                                              \
        (text), sizeof(text) - 1                                                                   \
    }
    static const struct slice cases[] = {
        BYTES("GET / HTTP/1.1\r\n\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        BYTES("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}"),
        BYTES(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"),
        BYTES("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length : 2\r\n\r\n{}"),
        BYTES("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
        BYTES("GET /a\0x HTTP/1.1\r\nHost: a\r\n\r\n"),
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int fd = harness_connect(*state, HARNESS_PLAIN);
        harness_write(fd, cases[i]);
        assert_true(harness_read(fd, &reply));
        if (reply.status != 400 || !strstr(reply.body, "errcode")) {
            fail_msg("case %zu: %d %s", i, reply.status, reply.body);
        }
        assert_true(harness_closed(fd));
        close(fd);
    }
}

/* Head, `fill` bytes, tail: some are found by the library, some by us. */
static const struct broken {
    const char *head;
    size_t fill;
    const char *tail;
    int status;
} broken[] = {
    {"GET / HTTP/1.1\r\nHost: a\r\nX: ", 20000, "\r\n\r\n", 431},
    {"GET / HTTP/1.1\r\nHost: a\r\nX: ", 400000, "\r\n\r\n", 431},
    {"GET / HTTP/1.1\r\nHost: a\r\nX: ", 7000, "\r\n\r\n", 431}, /* no room to answer */
    {"GET / HTTP/1.1\r\nHost: a\r\nX: ", 8000, "\r\n\r\n", 431},
    {"GET /", 20000, " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
    {"GET /?", 20000, " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
    {"GET / HTTQ/1.1\r\nHost: a\r\n\r\n", 0, "", 400},
    {"one two three\r\n\r\n", 0, "", 400},
    {"GET /\r\n\r\n", 0, "", 400},
    {"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 0, "", 505},
    {"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 0, "", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 0, "", 400},
    {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 0, "", 400},
    {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: ten\r\n\r\n", 0, "", 400},
    {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1x\r\n\r\na", 0, "", 400},
    {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", 0, "", 400},
    {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 0, "", 413},
    {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 0, "", 400},
    {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", 0, "", 400},
#define CHUNKED(route) "POST " route " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    {CHUNKED("/_matrix/client/v3/echo") "zz\r\nabc\r\n0\r\n\r\n", 0, "", 400},
    {CHUNKED("/_matrix/client/v3/echo") "-1\r\nabc\r\n0\r\n\r\n", 0, "", 400},
    {CHUNKED("/_matrix/client/v3/echo") "2\r\n{}and more\r\n0\r\n\r\n", 0, "", 400},
    {CHUNKED("/_matrix/client/v3/echo") "ffffffffffffffffffff\r\n{}\r\n0\r\n\r\n", 0, "", 413},
    {CHUNKED("/_matrix/client/v3/echo") "2\r\n{}\r\n0\r\nno colon\r\n\r\n", 0, "", 400},
    {CHUNKED("/upload") "2\r\nab\r\nzz\r\nabc\r\n0\r\n\r\n", 0, "", 400},
};

/* Written in pieces, so that the library finds the fault with and without all of it at hand. */
static void write_broken(int fd, const struct broken *request, size_t piece_bytes)
{
    static char text[500000];
    size_t head = strlen(request->head);
    memcpy(text, request->head, head);
    memset(text + head, 'a', request->fill);
    memcpy(text + head + request->fill, request->tail, strlen(request->tail));
    struct slice rest = {text, head + request->fill + strlen(request->tail)};
    while (rest.len) {
        harness_write(fd, slice_sub(rest, 0, piece_bytes));
        rest = slice_from(rest, piece_bytes);
    }
}

static void every_refusal_has_the_one_shape(void **state)
{
    static const size_t pieces[] = {500000, 7};
    for (size_t i = 0; i < 2 * COUNT_OF(broken); i++) {
        const struct broken *request = &broken[i / 2];
        if (request->fill > 100000 && i % 2) {
            continue;
        }
        int fd = harness_connect(*state, HARNESS_PLAIN);
        write_broken(fd, request, pieces[i % 2]);
        bool answered = harness_read(fd, &reply);
        if (!answered || reply.status != request->status ||
            !strstr(reply.head, "Content-Type: application/json\r\n") ||
            !strstr(reply.head, "Access-Control-Allow-Origin: *\r\n") ||
            strncmp(reply.body, "{\"errcode\":\"M_", 14) != 0 ||
            !strstr(reply.body, "\"error\":\"")) {
            fail_msg("%.60s: %s%s", request->head, reply.head, reply.body);
        }
        assert_true(harness_closed(fd));
        close(fd);
    }
}

static void a_kept_connection_gets_the_shape_too(void **state)
{
    int fd = harness_connect(*state, HARNESS_PLAIN);
    for (int i = 0; i < 3; i++) {
        harness_write(fd, LIT("GET /big HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_true(harness_read(fd, &reply));
        assert_int_equal(reply.status, 200);
    }
    write_broken(fd, &broken[0], 1000);
    assert_true(harness_read(fd, &reply));
    assert_int_equal(reply.status, 431);
    assert_non_null(strstr(reply.body, "M_TOO_LARGE"));
    close(fd);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    char text[] = "POST /_matrix/client/v3/echo HTTP/1.1\r\nHost: a\r\n"
                  "Content-Length: 7\r\n\r\n{\"n\":0}";
    int fd = harness_connect(*state, HARNESS_PLAIN);
    for (int i = 0; i < 10; i++) {
        text[sizeof text - 3] = (char)('0' + i);
        harness_write(fd, slice_of(text));
    }
    for (int i = 0; i < 10; i++) {
        char expected[] = {'{', '"', 'n', '"', ':', (char)('0' + i), '}', 0};
        assert_true(harness_read(fd, &reply));
        assert_string_equal(reply.body, expected);
    }
    close(fd);
}

static void a_body_may_come_byte_by_byte(void **state)
{
    struct slice text = LIT("POST /_matrix/client/v3/echo HTTP/1.1\r\nHost: a\r\n"
                            "Content-Length: 7\r\n\r\n{\"n\":5}");
    int fd = harness_connect(*state, HARNESS_PLAIN);
    for (size_t i = 0; i < text.len; i++) {
        harness_write(fd, slice_sub(text, i, 1));
    }
    assert_true(harness_read(fd, &reply));
    assert_string_equal(reply.body, "{\"n\":5}");
    close(fd);
}

static void slow_bodies_get_408_and_idle_connections_end(void **state)
{
    int fd = harness_connect(*state, HARNESS_PLAIN);
    harness_write(fd, LIT("POST /_matrix/client/v3/echo HTTP/1.1\r\nHost: a\r\n"
                          "Content-Length: 7\r\n\r\n{\"n"));
    assert_true(harness_read(fd, &reply));
    assert_int_equal(reply.status, 408);
    assert_true(harness_closed(fd));
    close(fd);
    fd = harness_connect(*state, HARNESS_PLAIN);
    harness_write(fd, LIT("GET /big HT"));
    assert_true(harness_closed(fd));
    close(fd);
}

static void bodies_stream_in_constant_memory(void **state)
{
    static char block[100000];
    struct harness *harness = *state;
    int fd = harness_connect(harness, HARNESS_PLAIN);
    harness_write(fd, LIT("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n"));
    for (int i = 0; i < 100; i++) {
        harness_write(fd, (struct slice){block, sizeof block});
    }
    assert_true(harness_read(fd, &reply));
    assert_string_equal(reply.body, "{\"bytes\":10000000}");
    harness_write(fd,
                  LIT("POST /upload?refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"));
    assert_true(harness_read(fd, &reply));
    assert_int_equal(reply.status, 403);
    harness_write(fd, LIT("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 300\r\n\r\nabc"));
    close(fd);
    assert_true(harness_wait(&harness->aborted, 1));
}

/* Pieces end where chunks end, and the next chunk is in the library's hands already. */
static void chunked_bodies_wait_for_their_pieces(void **state)
{
    enum { CHUNK_BYTES = 1024, CHUNKS_PER_WRITE = 100, WRITES = 50 };
    static char block[CHUNKS_PER_WRITE * (CHUNK_BYTES + 7)];
    struct harness *harness = *state;
    int fd = harness_connect(harness, HARNESS_PLAIN);
    for (size_t i = 0; i < CHUNKS_PER_WRITE; i++) {
        char *chunk = block + i * (CHUNK_BYTES + 7);
        memcpy(chunk, "400\r\n", 5);
        memset(chunk + 5, 'x', CHUNK_BYTES);
        memcpy(chunk + 5 + CHUNK_BYTES, "\r\n", 2);
    }
    harness_write(fd,
                  LIT("POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
    for (size_t i = 0; i < WRITES; i++) {
        harness_write(fd, (struct slice){block, sizeof block});
    }
    harness_write(fd, LIT("0\r\n\r\n"));
    assert_true(harness_read(fd, &reply));
    assert_string_equal(reply.body, "{\"bytes\":5120000}");
    close(fd);
}

static struct err answer_woken(void *arg, struct ctx *ctx, struct http_reply *answer)
{
    (void)arg;
    (void)ctx;
    buf_add(&answer->body, LIT("{\"woken\":true}"));
    return OK;
}

static void a_parked_request_is_answered_once_by_unpark(void **state)
{
    struct harness *harness = *state;
    int fd = harness_connect(harness, HARNESS_PLAIN);
    for (int i = 1; i <= 3; i++) {
        harness_write(fd, LIT("GET /_matrix/client/v3/park HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_true(harness_wait(&harness->parked, i));
        assert_true(http_unpark(harness->waiting, answer_woken, NULL));
        assert_true(harness_read(fd, &reply));
        assert_string_equal(reply.body, "{\"woken\":true}");
    }
    close(fd);
    assert_int_equal(harness->expired, 0);
}

static void a_parked_request_ends_with_its_time_or_its_client(void **state)
{
    struct harness *harness = *state;
    struct slice request =
        LIT("GET /_matrix/client/v3/park?timeout=100 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(harness_ask(harness, request, &reply), 200);
    assert_string_equal(reply.body, "{}");
    assert_int_equal(harness->expired, 1);
    int fd = harness_connect(harness, HARNESS_PLAIN);
    harness_write(fd, LIT("GET /_matrix/client/v3/park HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_true(harness_wait(&harness->parked, 2));
    close(fd);
    assert_true(harness_wait(&harness->expired, 2));
}

static void a_gate_opens_when_the_reply_is_on_its_way(void **state)
{
    struct harness *harness = *state;
    int fd = harness_connect(harness, HARNESS_PLAIN);
    harness->client_fd = fd;
    for (int i = 1; i <= 20; i++) {
        harness_write(fd, LIT("GET /gated HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_true(harness_wait(&harness->opened, i));
        assert_true(harness_read(fd, &reply));
    }
    harness_write(fd, LIT("GET /gated HTTP/1.1\r\nHost: a\r\n\r\n"));
    close(fd); /* opens too when nobody waits for the reply */
    assert_true(harness_wait(&harness->opened, 21));
    assert_true(harness->opened_early <= 1);
}

static void the_admin_listener_has_its_own_routes(void **state)
{
    int fd = harness_connect(*state, HARNESS_ADMIN);
    harness_write(fd, LIT("GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_true(harness_read(fd, &reply));
    assert_int_equal(reply.status, 200);
    assert_int_equal(reply.body_len, 40000);
    harness_write(fd, LIT("GET /big HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_true(harness_read(fd, &reply));
    assert_int_equal(reply.status, 404);
    close(fd);
}

static void an_address_has_a_bounded_number_of_connections(void **state)
{
    int fds[205];
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        fds[i] = harness_connect(*state, HARNESS_PLAIN);
        harness_write(fds[i], LIT("OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_int_equal(harness_read(fds[i], &reply), i < 200);
    }
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        close(fds[i]);
    }
}

static void draining_answers_what_runs_and_what_is_parked(void **state)
{
    struct harness *harness = *state;
    int slow = harness_connect(harness, HARNESS_PLAIN);
    int parked = harness_connect(harness, HARNESS_PLAIN);
    int idle = harness_connect(harness, HARNESS_PLAIN);
    harness_write(parked, LIT("GET /_matrix/client/v3/park HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_true(harness_wait(&harness->parked, 1));
    harness_write(slow, LIT("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_true(harness_wait(&harness->handled, 1));
    http_server_stop(harness->server, 3000);
    assert_true(harness_read(slow, &reply));
    assert_int_equal(reply.status, 200);
    assert_true(harness_read(parked, &reply));
    assert_string_equal(reply.body, "{}");
    assert_true(harness_closed(idle));
    close(slow);
    close(parked);
    close(idle);
}

static void a_job_that_waits_for_the_network_runs_again(void **state)
{
    struct harness *harness = *state;
    int status = harness_ask(harness, LIT("GET /waits HTTP/1.1\r\n" HEAD "\r\n"), &reply);
    assert_int_equal(status, 200);
    assert_string_equal(reply.body, "{\"run\":2}");
    assert_non_null(strstr(reply.head, "X-Run: second"));
    assert_null(strstr(reply.head, "X-Run: first"));
    assert_int_equal(harness->handled, 2);
}

static void an_answer_from_memory_is_given_on_the_loop(void **state)
{
    struct harness *harness = *state;
    assert_int_equal(harness_ask(harness, LIT("GET /loop HTTP/1.1\r\n" HEAD "\r\n"), &reply), 200);
    assert_string_equal(reply.body, "{\"on\":\"loop\"}");
    assert_int_equal(harness->handled, 1);
    struct slice waits = LIT("GET /loop?as=waits HTTP/1.1\r\n" HEAD "\r\n");
    assert_int_equal(harness_ask(harness, waits, &reply), 200);
    assert_string_equal(reply.body, "{\"on\":\"worker\"}");
    assert_int_equal(harness->handled, 3);
    struct slice fails = LIT("GET /loop?as=fails HTTP/1.1\r\n" HEAD "\r\n");
    assert_int_equal(harness_ask(harness, fails, &reply), 403);
    int fd = harness_connect(harness, HARNESS_PLAIN);
    harness_write(fd, LIT("GET /loop HTTP/1.1\r\n" HEAD "\r\n"
                          "GET /loop?as=waits HTTP/1.1\r\n" HEAD "\r\n"
                          "GET /loop HTTP/1.1\r\n" HEAD "\r\n"));
    for (int i = 0; i < 3; i++) {
        assert_true(harness_read(fd, &reply));
        assert_string_equal(reply.body, i == 1 ? "{\"on\":\"worker\"}" : "{\"on\":\"loop\"}");
    }
    close(fd);
}

static void a_request_parks_on_the_loop(void **state)
{
    struct harness *harness = *state;
    int fd = harness_connect(harness, HARNESS_PLAIN);
    for (int i = 1; i <= 3; i++) {
        harness_write(fd, LIT("GET /loop?as=parks HTTP/1.1\r\n" HEAD "\r\n"));
        assert_true(harness_wait(&harness->parked, 2 * i - 1));
        assert_true(http_unpark(harness->waiting, answer_woken, NULL));
        assert_true(harness_read(fd, &reply));
        assert_string_equal(reply.body, "{\"woken\":true}");
        harness_write(fd, LIT("GET /loop?as=parks_woken HTTP/1.1\r\n" HEAD "\r\n"));
        assert_true(harness_read(fd, &reply));
        assert_string_equal(reply.body, "{}");
    }
    close(fd);
    assert_int_equal(harness->expired, 0);
    struct slice request = LIT("GET /loop?as=parks&timeout=100 HTTP/1.1\r\n" HEAD "\r\n");
    assert_int_equal(harness_ask(harness, request, &reply), 200);
    assert_int_equal(harness->expired, 1);
}

int main(void)
{
#define HTTP_TEST(name) cmocka_unit_test_setup_teardown(name, harness_start, harness_stop)
    const struct CMUnitTest tests[] = {
        HTTP_TEST(requests_are_answered_by_status),
        HTTP_TEST(malformed_requests_are_refused_and_closed),
        HTTP_TEST(every_refusal_has_the_one_shape),
        HTTP_TEST(a_kept_connection_gets_the_shape_too),
        HTTP_TEST(pipelined_requests_are_answered_in_order),
        HTTP_TEST(a_body_may_come_byte_by_byte),
        cmocka_unit_test_setup_teardown(slow_bodies_get_408_and_idle_connections_end,
                                        harness_start_hasty, harness_stop),
        HTTP_TEST(bodies_stream_in_constant_memory),
        HTTP_TEST(chunked_bodies_wait_for_their_pieces),
        HTTP_TEST(a_job_that_waits_for_the_network_runs_again),
        HTTP_TEST(a_parked_request_is_answered_once_by_unpark),
        HTTP_TEST(a_parked_request_ends_with_its_time_or_its_client),
        HTTP_TEST(an_answer_from_memory_is_given_on_the_loop),
        HTTP_TEST(a_request_parks_on_the_loop),
        HTTP_TEST(a_gate_opens_when_the_reply_is_on_its_way),
        HTTP_TEST(the_admin_listener_has_its_own_routes),
        HTTP_TEST(an_address_has_a_bounded_number_of_connections),
        HTTP_TEST(draining_answers_what_runs_and_what_is_parked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
