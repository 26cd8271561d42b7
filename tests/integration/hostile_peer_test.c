/* Servers that answer wrongly on purpose: each costs a bounded time and memory, whether a thread
 * waits for the answer or none does. */
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
    _Atomic bool drips, bombs;
    _Atomic bool stop;
    _Atomic unsigned connections;
} server;

static struct arena *arena;
static struct now now;
static struct http_fetcher *fetcher;

/* 1 MB of zeros in 1 KB: its bytes hold zeros themselves. */
enum { BOMB_HEAD = 25, BOMB_ZEROS = 1016, BOMB_TAIL = 10 };
enum { BOMB_BYTES = BOMB_HEAD + BOMB_ZEROS + BOMB_TAIL };
static const char bomb_head[BOMB_HEAD] =
    "\x1f\x8b\x08\0\0\0\0\0\x02\x03\xed\xc1\x31\x01\0\0\0\xc2\xa0\xf5\x4f\x6d\x08\x5f\xa0";
static const char bomb_tail[BOMB_TAIL] = "\x3e\x03\x1c\xea\x38\xa7\0\0\x10";

static bool send_bomb(int fd)
{
    char bomb[BOMB_BYTES] = {0};
    memcpy(bomb, bomb_head, BOMB_HEAD);
    memcpy(bomb + BOMB_HEAD + BOMB_ZEROS, bomb_tail, BOMB_TAIL);
    return send(fd, bomb, sizeof bomb, MSG_NOSIGNAL) == (ssize_t)sizeof bomb;
}

static bool send_all(int fd, const char *text)
{
    size_t len = strlen(text);
    return send(fd, text, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static void serve_one(int fd)
{
    char request[4096];
    server.connections++;
    if (recv(fd, request, sizeof request, 0) > 0 && send_all(fd, server.first) &&
        (!server.bombs || send_bomb(fd))) {
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
    struct http_fetch_config config = {.allow = &allowed, .allow_count = 1, .thread_count = 3};
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

enum manner { AT_ONCE, DRIPS, BOMBS };

struct attack {
    const char *first, *again;
    enum manner manner;
    uint32_t code; /* 0: a good answer */
};

struct end {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool reached;
};

static void on_done(void *arg)
{
    struct end *end = arg;
    pthread_mutex_lock(&end->mutex);
    end->reached = true;
    pthread_cond_signal(&end->changed);
    pthread_mutex_unlock(&end->mutex);
}

static struct err fetch_unwatched(struct ctx *ctx, const struct http_fetch_request *request,
                                  struct http_fetch_reply *reply)
{
    struct end end = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    const struct http_fetch_watcher watcher = {.on_done = on_done, .arg = &end};
    struct http_fetching *fetching = NULL;
    struct err err = http_fetch_start(fetcher, ctx, request, &watcher, &fetching);
    if (err.code) {
        return err;
    }
    pthread_mutex_lock(&end.mutex);
    while (!end.reached) {
        pthread_cond_wait(&end.changed, &end.mutex);
    }
    pthread_mutex_unlock(&end.mutex);
    return http_fetch_end(&fetching, arena, reply);
}

enum way { WATCHED, UNWATCHED, WAYS };

static struct err ask(const struct attack *attack, enum way way, struct http_fetch_reply *reply)
{
    struct ctx ctx = {.arena = arena, .now = &now};
    struct http_fetch_request request = {
        .url = arena_printf(arena, "http://127.0.0.1:%u/", server.port),
        .timeout_ms = attack->manner == DRIPS ? DRIP_TIMEOUT_MS : TIMEOUT_MS,
        .body_bytes_max = BODY_MAX,
        .redirects_max = 5,
    };
    server.first = attack->first;
    server.again = attack->again;
    server.drips = attack->manner == DRIPS;
    server.bombs = attack->manner == BOMBS;
    return way == WATCHED ? http_fetch(fetcher, &ctx, &request, reply)
                          : fetch_unwatched(&ctx, &request, reply);
}

static void check(const struct attack *attacks, size_t count)
{
    for (size_t i = 0; i < count * WAYS; i++) {
        const struct attack *attack = &attacks[i / WAYS];
        struct http_fetch_reply reply;
        int64_t began_us = now_mono_us();
        struct err err = ask(attack, (enum way)(i % WAYS), &reply);
        bool denied = err.text && strcmp(err.text, "the address is not allowed") == 0;
        err.code = denied ? DENIED : err.code;
        if (err.code != attack->code) {
            print_error("attack %zu: %u\n", i / WAYS, err.code);
        }
        assert_int_equal(err.code, attack->code);
        assert_true(now_mono_us() - began_us < 3000000);
        assert_true(reply.body.len <= BODY_MAX);
    }
}

#define HEAD "HTTP/1.1 200 OK\r\n"
#define LINE "X: 0123456789012345678901234567890123456789012345678901234567890123456789\r\n"
#define TEXT "0123456789012345678901234567890123456789012345678901234567890123456789"

#define MOVED "HTTP/1.1 302 F\r\nContent-Length: 0\r\nConnection: close\r\nLocation: "

static void a_good_answer_comes_through(void **state)
{
    static const struct attack attacks[] = {
        {HEAD "Content-Length: 2\r\nConnection: close\r\n\r\n{}", NULL, AT_ONCE, 0},
    };
    (void)state;
    check(attacks, COUNT_OF(attacks));
}

static void answers_that_drip_end_in_time(void **state)
{
    static const struct attack attacks[] = {
        {HEAD, "X: 1\r\n", DRIPS, ERR_TIMEOUT},
        {HEAD "Content-Length: 50000\r\n\r\n", "x", DRIPS, ERR_TIMEOUT},
        {HEAD "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", DRIPS, ERR_TIMEOUT},
    };
    (void)state;
    check(attacks, COUNT_OF(attacks));
}

/* Synapse CVE-2021-21274. */
static void answers_without_an_end_are_cut(void **state)
{
    static const struct attack attacks[] = {
        {HEAD, LINE, AT_ONCE, ERR_LIMIT},
        {HEAD "\r\n", TEXT, AT_ONCE, ERR_LIMIT},
        {HEAD "Transfer-Encoding: chunked\r\n\r\n", "46\r\n" TEXT "\r\n", AT_ONCE, ERR_LIMIT},
        {HEAD "Content-Length: 99999999999\r\n\r\n", TEXT, AT_ONCE, ERR_LIMIT},
    };
    (void)state;
    check(attacks, COUNT_OF(attacks));
}

static void little_that_unpacks_to_much_is_cut(void **state)
{
    static const struct attack attacks[] = {
        {HEAD "Content-Encoding: gzip\r\nContent-Length: 1051\r\nConnection: close\r\n\r\n", NULL,
         BOMBS, ERR_LIMIT},
    };
    (void)state;
    assert_int_equal(BOMB_BYTES, 1051);
    check(attacks, COUNT_OF(attacks));
}

static void lengths_that_are_not_true_are_no_answer(void **state)
{
    static const struct attack attacks[] = {
        {"", NULL, AT_ONCE, ERR_UNAVAILABLE},
        {HEAD "Content-Length: 100\r\n\r\n{}", NULL, AT_ONCE, ERR_UNAVAILABLE},
        {HEAD "Content-Length: -5\r\n\r\n{}", NULL, AT_ONCE, ERR_UNAVAILABLE},
        {HEAD "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", TEXT, AT_ONCE,
         ERR_UNAVAILABLE},
        {HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nab", NULL, AT_ONCE, ERR_UNAVAILABLE},
        {"SSH-2.0-OpenSSH\r\n", NULL, AT_ONCE, ERR_UNAVAILABLE},
    };
    (void)state;
    check(attacks, COUNT_OF(attacks));
}

static void redirects_to_the_inside_are_not_followed(void **state)
{
    static const struct attack attacks[] = {
        {MOVED "http://127.0.0.2/\r\n\r\n", NULL, AT_ONCE, DENIED},
        {MOVED "http://[::ffff:10.0.0.1]/\r\n\r\n", NULL, AT_ONCE, DENIED},
        {MOVED "http://169.254.169.254/latest\r\n\r\n", NULL, AT_ONCE, DENIED},
        {MOVED "http://0x7f.2/\r\n\r\n", NULL, AT_ONCE, DENIED},
        {MOVED "http://2130706434/\r\n\r\n", NULL, AT_ONCE, DENIED},
        {MOVED "file:///etc/passwd\r\n\r\n", NULL, AT_ONCE, ERR_UNAVAILABLE},
        {MOVED "gopher://127.0.0.1/\r\n\r\n", NULL, AT_ONCE, ERR_UNAVAILABLE},
    };
    (void)state;
    check(attacks, COUNT_OF(attacks));
}

/* Synapse CVE-2021-21273. */
static void a_circle_of_redirects_is_left(void **state)
{
    const struct attack circle = {MOVED "/again\r\n\r\n", NULL, AT_ONCE, 0};
    struct http_fetch_reply reply;
    (void)state;
    assert_int_equal(ask(&circle, WATCHED, &reply).code, ERR_UNAVAILABLE);
    assert_int_equal(server.connections, 6);
}

int main(void)
{
#define HOSTILE_TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        HOSTILE_TEST(a_good_answer_comes_through),
        HOSTILE_TEST(answers_that_drip_end_in_time),
        HOSTILE_TEST(answers_without_an_end_are_cut),
        HOSTILE_TEST(little_that_unpacks_to_much_is_cut),
        HOSTILE_TEST(lengths_that_are_not_true_are_no_answer),
        HOSTILE_TEST(redirects_to_the_inside_are_not_followed),
        HOSTILE_TEST(a_circle_of_redirects_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
