/* Servers that answer wrongly on purpose: each costs a bounded time and memory. */
#include "homeserver/http/fetch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { DRIP_MS = 20, TIMEOUT_MS = 2500, DRIP_TIMEOUT_MS = 400, BODY_MAX = 100000 };

/* A server that sends `first`, then `again` for ever (with a pause when it drips), or closes. */
static struct {
    int listener;
    uint16_t port;
    pthread_t thread;
    const char *_Atomic first;
    const char *_Atomic again;
    _Atomic bool drips;
    _Atomic bool stop;
    _Atomic unsigned connections;
} server;

static struct arena *arena;
static struct now now;
static struct http_fetcher *fetcher;

static bool send_all(int fd, const char *text)
{
    size_t len = strlen(text);
    return send(fd, text, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static void serve_one(int fd)
{
    char request[4096];
    server.connections++;
    if (recv(fd, request, sizeof request, 0) > 0 && send_all(fd, server.first)) {
        while (server.again && !server.stop && send_all(fd, server.again)) {
            if (server.drips) {
                nanosleep(&(struct timespec){.tv_nsec = DRIP_MS * 1000000L}, NULL);
            }
        }
    }
    close(fd);
}

static void *serve(void *arg)
{
    (void)arg;
    while (!server.stop) {
        struct pollfd wait = {.fd = server.listener, .events = POLLIN};
        if (poll(&wait, 1, 50) == 1) {
            int fd = accept(server.listener, NULL, NULL);
            serve_one(fd);
        }
    }
    return NULL;
}

static int start(void **state)
{
    static const struct slice allowed = {"127.0.0.1/32", 12};
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    (void)state;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(server.listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(server.listener, 16), 0);
    assert_int_equal(getsockname(server.listener, (struct sockaddr *)&address, &len), 0);
    server.port = ntohs(address.sin_port);
    server.stop = false;
    server.connections = 0;
    assert_int_equal(pthread_create(&server.thread, NULL, serve, NULL), 0);
    now = now_system();
    arena = arena_new();
    struct http_fetch_config config = {.allow = &allowed, .allow_count = 1};
    assert_int_equal(http_fetcher_new(&config, &fetcher).code, 0);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    server.stop = true;
    http_fetcher_free(&fetcher);
    pthread_join(server.thread, NULL);
    close(server.listener);
    arena_free(&arena);
    return 0;
}

/* ERR_UNAVAILABLE for the address, before any connection. */
enum { DENIED = 1000000 };

struct attack {
    const char *first, *again;
    bool drips;
    uint32_t code; /* 0: a good answer */
};

static struct err ask(const struct attack *attack, struct http_fetch_reply *reply)
{
    struct ctx ctx = {.arena = arena, .now = &now};
    struct http_fetch_request request = {
        .url = arena_printf(arena, "http://127.0.0.1:%u/", server.port),
        .timeout_ms = attack->drips ? DRIP_TIMEOUT_MS : TIMEOUT_MS,
        .body_bytes_max = BODY_MAX,
        .redirects_max = 5,
    };
    server.first = attack->first;
    server.again = attack->again;
    server.drips = attack->drips;
    return http_fetch(fetcher, &ctx, &request, reply);
}

#define HEAD "HTTP/1.1 200 OK\r\n"
#define LINE "X: 0123456789012345678901234567890123456789012345678901234567890123456789\r\n"
#define TEXT "0123456789012345678901234567890123456789012345678901234567890123456789"

static const struct attack attacks[] = {
    {HEAD "Content-Length: 2\r\nConnection: close\r\n\r\n{}", NULL, false, 0},
    /* bytes that come slowly, in the head and in the body */
    {HEAD, "X: 1\r\n", true, ERR_TIMEOUT},
    {HEAD "Content-Length: 50000\r\n\r\n", "x", true, ERR_TIMEOUT},
    {HEAD "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", true, ERR_TIMEOUT},
    {"", NULL, false, ERR_UNAVAILABLE},
    /* without an end */
    {HEAD, LINE, false, ERR_LIMIT},
    {HEAD "\r\n", TEXT, false, ERR_LIMIT},
    {HEAD "Transfer-Encoding: chunked\r\n\r\n", "46\r\n" TEXT "\r\n", false, ERR_LIMIT},
    /* lengths that are not true */
    {HEAD "Content-Length: 100\r\n\r\n{}", NULL, false, ERR_UNAVAILABLE},
    {HEAD "Content-Length: 99999999999\r\n\r\n", TEXT, false, ERR_LIMIT},
    {HEAD "Content-Length: -5\r\n\r\n{}", NULL, false, ERR_UNAVAILABLE},
    {HEAD "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", TEXT, false, ERR_UNAVAILABLE},
    {"SSH-2.0-OpenSSH\r\n", NULL, false, ERR_UNAVAILABLE},
    /* redirects inside, to files and other protocols */
    {"HTTP/1.1 302 F\r\nLocation: http://127.0.0.2/\r\nContent-Length: 0\r\n"
     "Connection: close\r\n\r\n",
     NULL, false, DENIED},
    {"HTTP/1.1 302 F\r\nLocation: http://[::ffff:10.0.0.1]/\r\nContent-Length: 0\r\n"
     "Connection: close\r\n\r\n",
     NULL, false, DENIED},
    {"HTTP/1.1 302 F\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\n"
     "Connection: close\r\n\r\n",
     NULL, false, DENIED},
    {"HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n"
     "Connection: close\r\n\r\n",
     NULL, false, ERR_UNAVAILABLE},
};

static void each_attack_ends_soon_and_small(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(attacks); i++) {
        struct http_fetch_reply reply;
        int64_t began_us = now_mono_us();
        struct err err = ask(&attacks[i], &reply);
        bool denied = err.text && strcmp(err.text, "the address is not allowed") == 0;
        err.code = denied ? DENIED : err.code;
        if (err.code != attacks[i].code) {
            print_error("attack %zu: %u\n", i, err.code);
        }
        assert_int_equal(err.code, attacks[i].code);
        assert_true(now_mono_us() - began_us < 3000000);
        assert_true(reply.body.len <= BODY_MAX);
    }
}

static void a_circle_of_redirects_is_left(void **state)
{
    const struct attack circle = {
        "HTTP/1.1 302 F\r\nLocation: /again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        NULL, false, 0};
    struct http_fetch_reply reply;
    (void)state;
    assert_int_equal(ask(&circle, &reply).code, ERR_UNAVAILABLE);
    assert_int_equal(server.connections, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_attack_ends_soon_and_small, start, stop),
        cmocka_unit_test_setup_teardown(a_circle_of_redirects_is_left, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
