#include "tests/support/http_harness.h"

#include "homeserver/http/selfsigned.h"
#include "spec/errcodes.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_MS = 30000, PATIENT_MS = 300000, HASTY_MS = 1500 };

static struct err do_echo(void *app, struct ctx *ctx, const struct http_request *request,
                          struct http_reply *reply)
{
    (void)app;
    (void)ctx;
    json_write_canonical(&reply->body, &request->json);
    return OK;
}

static struct err do_params(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    (void)app;
    struct json_out out = json_out_to(&reply->body);
    json_out_object(&out);
    json_out_key_string(&out, LIT("room"), request->params[0]);
    json_out_key_string(&out, LIT("key"), request->params[1]);
    json_out_key_string(&out, LIT("q"), http_query_get(ctx, request, LIT("q")));
    json_out_key_string(&out, LIT("token"), request->token);
    json_out_key_string(&out, LIT("from"), request->remote_address);
    json_out_object_end(&out);
    return OK;
}

static void on_expired(void *arg);

static struct err answer_empty(void *arg, struct ctx *ctx, struct http_reply *reply)
{
    (void)arg;
    (void)ctx;
    http_reply_empty(reply);
    return OK;
}

static struct err do_park(void *app, struct ctx *ctx, const struct http_request *request,
                          struct http_reply *reply)
{
    struct harness *harness = app;
    int64_t timeout_ms = 0;
    TRY(http_query_int(ctx, request, LIT("timeout"), 30000, &timeout_ms));
    harness->waiting = http_park(ctx, request, reply, timeout_ms, on_expired, harness);
    harness->parked++;
    return OK;
}

/* Tried on the loop first: `as` says what it does there. */
static struct err do_loop(void *app, struct ctx *ctx, const struct http_request *request,
                          struct http_reply *reply)
{
    struct harness *harness = app;
    struct slice as = http_query_get(ctx, request, LIT("as"));
    harness->handled++;
    if (ctx->on_loop && slice_eq(as, LIT("waits"))) {
        reply->status = 202;
        buf_add(&reply->body, LIT("half of an "));
        return err_make(ERR_WAITS, "the store is needed");
    }
    if (slice_has_prefix(as, LIT("parks"))) {
        TRY(do_park(app, ctx, request, reply));
        if (slice_eq(as, LIT("parks_woken"))) {
            http_unpark(harness->waiting, answer_empty, harness);
        }
        return OK;
    }
    buf_add(&reply->body, ctx->on_loop ? LIT("{\"on\":\"loop\"}") : LIT("{\"on\":\"worker\"}"));
    return slice_eq(as, LIT("fails")) ? err_make(ERR_M_FORBIDDEN, "no") : OK;
}

static void on_expired(void *arg)
{
    struct harness *harness = arg;
    harness->expired++;
    http_unpark(harness->waiting, answer_empty, harness);
}

static struct err stream_begin(void *app, struct ctx *ctx, struct http_request *request,
                               struct http_reply *reply)
{
    struct harness *harness = app;
    (void)ctx;
    (void)reply;
    harness->streamed = 0;
    request->stream = harness;
    if (slice_eq(request->query, LIT("refuse"))) {
        return err_make(ERR_M_FORBIDDEN, "refused by test");
    }
    return OK;
}

static struct err stream_piece(void *stream, struct slice bytes)
{
    ((struct harness *)stream)->streamed += (int64_t)bytes.len;
    return OK;
}

static void stream_abort(void *stream)
{
    ((struct harness *)stream)->aborted++;
}

static struct err do_stream(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct harness *harness = request->stream;
    (void)app;
    (void)ctx;
    buf_printf(&reply->body, "{\"bytes\":%lld}", (long long)harness->streamed);
    return OK;
}

static struct err do_slow(void *app, struct ctx *ctx, const struct http_request *request,
                          struct http_reply *reply)
{
    struct harness *harness = app;
    (void)ctx;
    (void)request;
    harness->handled++;
    nanosleep(&(struct timespec){.tv_nsec = 200 * 1000000L}, NULL);
    http_reply_empty(reply);
    return OK;
}

/* Asks for the network in the middle of its reply; the second run must find a clean one. */
static struct err do_waits(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct harness *harness = app;
    (void)request;
    harness->handled++;
    buf_add(&reply->body, LIT("{\"run\":"));
    http_reply_header(reply, LIT("X-Run"), ctx->may_wait ? LIT("second") : LIT("first"));
    if (!ctx->may_wait) {
        reply->status = 202;
        return err_make(ERR_WAITS, "the network is needed");
    }
    buf_printf(&reply->body, "%d}", (int)harness->handled);
    return OK;
}

static struct err do_big(void *app, struct ctx *ctx, const struct http_request *request,
                         struct http_reply *reply)
{
    (void)app;
    (void)ctx;
    (void)request;
    for (int i = 0; i < 1000; i++) {
        buf_add(&reply->body, LIT("0123456789012345678901234567890123456789"));
    }
    return OK;
}

/* What has been handed to a socket of this machine can be read at its other end at once. */
static void on_gate(void *arg)
{
    struct harness *harness = arg;
    struct pollfd wait = {.fd = harness->client_fd, .events = POLLIN};
    harness->opened_early += poll(&wait, 1, 0) != 1;
    harness->opened++;
}

static void watch_gate(struct harness *harness, struct ctx *ctx)
{
    ctx->author = 1;
    ctx->write_ticket = 1;
    gate_await(ctx_gate(ctx), on_gate, harness);
}

static struct err do_gated(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    (void)request;
    watch_gate(app, ctx);
    http_reply_empty(reply);
    return OK;
}

static void durable_at_once(void *store, uint64_t ticket, void (*fn)(void *arg, struct err err),
                            void *arg)
{
    (void)store;
    (void)ticket;
    fn(arg, OK);
}

static void on_text(void *arg, struct ctx *ctx, struct slice text)
{
    struct harness *harness = arg;
    struct http_ws *ws = harness->ws;
    harness->texts++;
    if (slice_eq(text, LIT("close"))) {
        http_ws_close(ws, 4001, LIT("asked to"));
        return;
    }
    if (slice_eq(text, LIT("gated"))) {
        watch_gate(harness, ctx);
        http_ws_send_durable(ws, ctx, text);
        return;
    }
    http_ws_send(ws, arena_concat(ctx->arena, LIT("echo:"), text));
}

static void on_close(void *arg)
{
    ((struct harness *)arg)->closed++;
}

static const struct http_ws_hooks ws_hooks = {on_text, on_close};

static struct err do_ws(void *app, struct ctx *ctx, const struct http_request *request,
                        struct http_reply *reply)
{
    struct harness *harness = app;
    struct http_ws *ws = NULL;
    TRY(http_ws_accept(ctx, request, reply, LIT("test.v1"), &ws_hooks, harness, &ws));
    harness->ws = ws;
    return OK;
}

static const struct http_stream_hooks stream_hooks = {stream_begin, stream_piece, stream_abort};

static const struct http_route routes[] = {
    {.method = HTTP_PUT,
     .path = "/_matrix/client/v3/echo",
     .body = HTTP_BODY_JSON,
     .body_bytes_max = 10000,
     .handler = do_echo},
    {.method = HTTP_POST,
     .path = "/_matrix/client/v3/echo",
     .body = HTTP_BODY_OPTIONAL_JSON,
     .body_bytes_max = 10000,
     .handler = do_echo},
    {.method = HTTP_GET,
     .path = "/_matrix/client/v3/rooms/{room}/state/{key}",
     .handler = do_params},
    {.method = HTTP_GET, .path = "/_matrix/client/v3/park", .handler = do_park},
    {.method = HTTP_POST,
     .path = "/upload",
     .body = HTTP_BODY_STREAM,
     .body_bytes_max = 50000000,
     .handler = do_stream,
     .stream = &stream_hooks},
    {.method = HTTP_GET, .path = "/ws", .handler = do_ws, .flags = HTTP_WEBSOCKET},
    {.method = HTTP_GET, .path = "/slow", .handler = do_slow},
    {.method = HTTP_GET, .path = "/waits", .handler = do_waits},
    {.method = HTTP_GET, .path = "/big", .handler = do_big},
    {.method = HTTP_GET, .path = "/gated", .handler = do_gated},
    {.method = HTTP_GET, .path = "/loop", .handler = do_loop, .flags = HTTP_LOOP_FIRST},
};
static const struct http_route admin_routes[] = {
    {.method = HTTP_GET, .path = "/admin", .handler = do_big},
};
static const struct http_route_table tables[] = {{routes, COUNT_OF(routes)}};
static const struct http_route_table admin_tables[] = {{admin_routes, COUNT_OF(admin_routes)}};

static int start(void **state, int64_t timeout_ms)
{
    struct harness *harness = calloc(1, sizeof *harness);
    const struct http_listener listeners[HARNESS_LISTENERS] = {
        [HARNESS_PLAIN] = {.host = LIT("127.0.0.1")},
        [HARNESS_ADMIN] = {.host = LIT("127.0.0.1"), .admin = true},
        [HARNESS_TLS] = {.host = LIT("127.0.0.1"), .tls = true},
    };
    snprintf(harness->folder, sizeof harness->folder, "/tmp/http-test-XXXXXX");
    assert_non_null(mkdtemp(harness->folder));
    snprintf(harness->certificate, sizeof harness->certificate, "%s/cert.pem", harness->folder);
    snprintf(harness->key, sizeof harness->key, "%s/key.pem", harness->folder);
    struct err err = http_selfsigned_make(slice_of(harness->certificate), slice_of(harness->key),
                                          LIT("example.org:8448"));
    assert_int_equal(err.code, 0);
    harness->now = now_system();
    harness->workers = workers_new("work", 4, 1000);
    harness->waiters = workers_new("wait", 2, 1000);
    harness->log = log_new(getenv("HARNESS_DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR, 2);
    const struct http_server_config config = {
        .listeners = listeners,
        .listener_count = HARNESS_LISTENERS,
        .tls_certificate = slice_of(harness->certificate),
        .tls_key = slice_of(harness->key),
        .loop_count = 2,
        .request_timeout_ms = timeout_ms,
        .idle_timeout_ms = timeout_ms,
        .connection_max_per_address = 200,
        .tables = tables,
        .table_count = 1,
        .admin_tables = admin_tables,
        .admin_table_count = 1,
        .app = harness,
        .when_durable = durable_at_once,
        .workers = harness->workers,
        .waiters = harness->waiters,
        .now = &harness->now,
        .log = harness->log,
    };
    err = http_server_new(&config, &harness->server);
    assert_int_equal(err.code, 0);
    err = http_server_start(harness->server);
    assert_int_equal(err.code, 0);
    *state = harness;
    return 0;
}

int harness_start(void **state)
{
    return start(state, PATIENT_MS);
}

int harness_start_hasty(void **state)
{
    return start(state, HASTY_MS);
}

int harness_stop(void **state)
{
    struct harness *harness = *state;
    http_server_stop(harness->server, 3000);
    workers_join(harness->waiters);
    workers_join(harness->workers);
    workers_free(&harness->waiters);
    workers_free(&harness->workers);
    http_server_free(&harness->server);
    log_free(&harness->log);
    unlink(harness->certificate);
    unlink(harness->key);
    rmdir(harness->folder);
    free(harness);
    return 0;
}

int harness_connect(struct harness *harness, size_t listener)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons(http_server_port(harness->server, listener))};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

void harness_write(int fd, struct slice bytes)
{
    while (bytes.len) {
        ssize_t sent = send(fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
        if (sent <= 0) {
            return; /* the server may close early; the reply tells */
        }
        bytes = slice_from(bytes, (size_t)sent);
    }
}

static bool read_byte(int fd, char *byte)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    return poll(&wait, 1, WAIT_MS) == 1 && recv(fd, byte, 1, 0) == 1;
}

bool harness_read(int fd, struct harness_reply *reply)
{
    size_t len = 0;
    memset(reply, 0, sizeof *reply);
    while (!strstr(reply->head, "\r\n\r\n")) {
        if (len + 1 >= sizeof reply->head || !read_byte(fd, reply->head + len++)) {
            return false;
        }
    }
    reply->status = (int)strtol(reply->head + 9, NULL, 10);
    const char *length = strstr(reply->head, "Content-Length: ");
    size_t want = length ? (size_t)strtoul(length + 16, NULL, 10) : 0;
    want = reply->status < 200 || reply->status == 204 || reply->status == 304 ? 0 : want;
    while (reply->body_len < want && reply->body_len + 1 < sizeof reply->body) {
        if (!read_byte(fd, reply->body + reply->body_len++)) {
            return false;
        }
    }
    return true;
}

bool harness_closed(int fd)
{
    char byte = 0;
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    while (poll(&wait, 1, WAIT_MS) == 1) {
        if (recv(fd, &byte, 1, 0) <= 0) {
            return true;
        }
    }
    return false;
}

int harness_ask(struct harness *harness, struct slice request, struct harness_reply *reply)
{
    int fd = harness_connect(harness, HARNESS_PLAIN);
    harness_write(fd, request);
    bool answered = harness_read(fd, reply);
    close(fd);
    return answered ? reply->status : -1;
}

bool harness_wait(_Atomic int *counter, int value)
{
    for (int i = 0; i < WAIT_MS / 2 && *counter < value; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 2 * 1000000L}, NULL);
    }
    return *counter >= value;
}
