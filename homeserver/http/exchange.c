/* One request from its headers to its reply: refuse early, collect the body, run the handler on the
 * workers, wait for durability, hand the reply to the front. */
#include "homeserver/base/mem.h"
#include "homeserver/base/stats.h"
#include "homeserver/http/priv.h"
#include "spec/errcodes.h"

#include <string.h>
#include <unistd.h>

enum {
    BODY_BYTES_DEFAULT = 1 << 20,
    BODY_RESERVE_MAX = 1 << 16,
    LOOP_BODY_BYTES_MAX = 1 << 14, /* more takes too long to parse on a loop */
};

static const struct http_server_config *config_of(const struct http_connection *connection)
{
    return &connection->home->server->config;
}

static void set_deadline(struct http_connection *connection, int64_t after_ms)
{
    struct http_loop *home = connection->home;
    http_wheel_set(&home->wheel, &connection->deadline, loop_mono_ms(home->loop) + after_ms);
}

static struct arena *take_arena(struct http_loop *home)
{
    return home->arena_count ? home->arenas[--home->arena_count] : arena_new();
}

static void spare_arena(struct http_loop *home, struct arena **arena)
{
    if (home->arena_count == COUNT_OF(home->arenas)) {
        arena_free(arena);
        return;
    }
    arena_reset(*arena);
    home->arenas[home->arena_count++] = *arena;
    *arena = NULL;
}

static void new_reply(struct http_connection *connection)
{
    struct http_reply *reply = &connection->job->reply;
    *reply = (struct http_reply){.file_fd = -1};
    buf_init_arena(&reply->body, connection->arena, HTTP_REPLY_BYTES_MAX);
}

void http_exchange_new_job(struct http_connection *connection)
{
    const struct http_server_config *config = config_of(connection);
    connection->arena = take_arena(connection->home);
    struct http_job *job = arena_alloc(connection->arena, sizeof *job);
    connection->job = job;
    job->content_length = -1;
    job->request.content_length = -1;
    job->request.connection = connection;
    job->request.route = connection->route;
    new_reply(connection);
    job->ctx = (struct ctx){
        .arena = connection->arena,
        .now = config->now,
        .log = config->log,
        .req = slice_of(connection->req_text),
    };
}

/* The reply's bytes have gone to the socket, or nobody wants them: the request's changes may be
 * shown to its own user. Behind TLS they still lie before the pump. */
static void open_gate(struct http_connection *connection)
{
    struct ctx *ctx = &connection->job->ctx;
    if (ctx->gate) {
        http_tls_flush(connection->pipe);
        ctx_open_gate(ctx);
    }
}

void http_exchange_drop_job(struct http_connection *connection)
{
    if (connection->job) {
        open_gate(connection);
        if (connection->job->reply.file_fd >= 0) {
            close(connection->job->reply.file_fd);
        }
        ctx_finish(&connection->job->ctx);
        connection->job = NULL;
        spare_arena(connection->home, &connection->arena);
    }
}

static void name_request(struct http_connection *connection)
{
    static const char digits[] = "0123456789abcdef";
    struct http_loop *home = connection->home;
    uint64_t number = (uint64_t)home->server->id_seed << 32 | (home->request_number++ & 0xFFFFFFFF);
    for (size_t i = 0; i < 16; i++) {
        connection->req_text[i] = digits[number >> (60 - 4 * i) & 15];
    }
    connection->req_text[15] = digits[home->index & 15];
    connection->req_text[16] = '\0';
}

void http_exchange_begin(struct http_connection *connection, struct slice target)
{
    http_exchange_drop_job(connection);
    name_request(connection);
    connection->route = NULL;
    http_exchange_new_job(connection);
    connection->phase = HTTP_PHASE_HEAD;
    connection->started_us = now_mono_us();
    connection->body_bytes = 0;
    connection->refused = false;
    connection->begun = false;
    connection->in_head = true;
    connection->job->request.target = arena_copy(connection->arena, target);
    set_deadline(connection, config_of(connection)->request_timeout_ms);
}

/* Absolute form counts as origin form. Spec: RFC 9112, 3.2.2. */
static void split_target(struct http_request *request)
{
    struct slice target = request->target;
    bool http = slice_has_prefix(target, LIT("http://"));
    if (http || slice_has_prefix(target, LIT("https://"))) {
        target = slice_from(target, http ? 7 : 8);
        target = slice_from(target, slice_find(target, '/'));
    }
    request->query = slice_cut(target, '?', &request->path);
}

static const char *header_fault(const struct http_job *job)
{
    if (job->bad_header) {
        return "A header or the request line is malformed.";
    }
    if (job->host_count > 1 || (job->host_count == 0 && !job->http_1_0)) {
        return "Exactly one Host header is required.";
    }
    if (job->length_count > 1 || (job->length_count && job->encoding_count)) {
        return "The length of the body must be given exactly once.";
    }
    bool chunked = slice_eq_nocase(job->transfer_encoding, LIT("chunked")) && !job->http_1_0;
    if (job->encoding_count > 1 || (job->encoding_count && !chunked)) {
        return "The only transfer encoding is chunked.";
    }
    return NULL;
}

static void set_token(struct http_job *job)
{
    struct http_request *request = &job->request;
    struct slice scheme = slice_sub(request->authorization, 0, 7);
    if (slice_eq_nocase(scheme, LIT("Bearer "))) {
        request->token = slice_trim(slice_from(request->authorization, 7));
    } else if (!request->authorization.len && request->query.len) {
        request->token = http_query_get(&job->ctx, request, LIT("access_token"));
    }
}

static struct err find_route(struct http_connection *connection)
{
    struct http_server *server = connection->home->server;
    struct http_request *request = &connection->job->request;
    struct http_router *router = connection->is_admin ? server->admin_router : server->router;
    switch (http_router_find(router, connection->arena, request->method, request->path,
                             &connection->route, request->params)) {
    case HTTP_MATCH_FOUND:
        request->route = connection->route;
        return OK;
    case HTTP_MATCH_NO_METHOD:
        return err_make(ERR_M_METHOD_UNRECOGNIZED, "method not allowed");
    case HTTP_MATCH_BAD_PATH:
        return err_public(ERR_M_INVALID_PARAM, "The path is not valid percent-encoded UTF-8.");
    case HTTP_MATCH_NO_PATH:
        break;
    }
    return err_make(ERR_M_UNRECOGNIZED, "no such path");
}

static size_t body_max(const struct http_connection *connection)
{
    const struct http_route *route = connection->route;
    if (!route || route->body == HTTP_BODY_NONE) {
        return HTTP_DRAIN_BYTES_MAX;
    }
    return route->body_bytes_max ? route->body_bytes_max : BODY_BYTES_DEFAULT;
}

/* The reply is this error. It leaves after the body when that is short, else at once; then MHD
 * closes the connection. */
static enum http_step refuse(struct http_connection *connection, struct err err)
{
    struct http_job *job = connection->job;
    bool drain = connection->body_bytes <= HTTP_DRAIN_BYTES_MAX &&
                 job->content_length <= HTTP_DRAIN_BYTES_MAX && !job->expects_continue;
    connection->refused = true;
    http_exchange_count_error(connection->home->server, err);
    if (job->reply.status < 400 || !job->reply.body.len) {
        http_reply_error(&job->reply, err, (struct slice){0});
    }
    return drain ? HTTP_STEP_GO_ON : HTTP_STEP_REPLY;
}

static struct err check_headers(struct http_connection *connection)
{
    struct http_job *job = connection->job;
    split_target(&job->request);
    TRY(find_route(connection));
    if (job->content_length > (int64_t)body_max(connection)) {
        return err_make(ERR_M_TOO_LARGE, "body too large");
    }
    set_token(job);
    return OK;
}

bool http_exchange_submit(struct http_connection *connection, uint64_t lane, job_fn fn)
{
    struct http_server *server = connection->home->server;
    atomic_fetch_add(&server->running, 1);
    bool queued = workers_submit(server->config.workers, lane, fn, connection);
    if (!queued) {
        atomic_fetch_sub(&server->running, 1);
    }
    return queued;
}

static enum http_step suspend_for(struct http_connection *connection, job_fn fn)
{
    http_wheel_cancel(&connection->home->wheel, &connection->deadline);
    connection->phase = HTTP_PHASE_WORK;
    if (!http_exchange_submit(connection, 0, fn)) {
        connection->phase = HTTP_PHASE_BODY;
        return refuse(connection, err_make(ERR_M_UNAVAILABLE, "worker queue is full"));
    }
    return HTTP_STEP_SUSPEND;
}

static enum http_step suspend_or_reply(struct http_connection *connection, job_fn fn)
{
    enum http_step step = suspend_for(connection, fn);
    return step == HTTP_STEP_SUSPEND ? step : HTTP_STEP_REPLY;
}

/* --- on workers --- */

static void post_back(struct http_connection *connection, void (*fn)(void *arg))
{
    connection->task.fn = fn;
    connection->task.arg = connection;
    loop_post(connection->home->loop, &connection->task);
}

static struct err parse_body(struct http_job *job, const struct http_route *route)
{
    struct slice body = buf_slice(&job->body);
    job->request.body = body;
    if (route->body != HTTP_BODY_JSON && route->body != HTTP_BODY_OPTIONAL_JSON) {
        return OK;
    }
    if (route->body == HTTP_BODY_OPTIONAL_JSON && slice_trim(body).len == 0) {
        job->request.json = json_object();
        return OK;
    }
    struct err err = route->flags & HTTP_DEEP_JSON
                         ? json_parse_deep(job->ctx.arena, body, &job->request.json)
                         : json_parse(job->ctx.arena, body, &job->request.json);
    if (err.code) {
        return (struct err){err.text, ERR_M_NOT_JSON, err.is_public};
    }
    if (job->request.json.type != JSON_OBJECT) {
        return err_public(ERR_M_BAD_JSON, "The body must be a JSON object.");
    }
    return OK;
}

static struct err authenticate(struct http_connection *connection)
{
    const struct http_server_config *config = config_of(connection);
    struct http_job *job = connection->job;
    const struct http_route *route = connection->route;
    if (route->auth != HTTP_AUTH_NONE && config->authenticate) {
        TRY(config->authenticate(config->app, &job->ctx, &job->request, &job->reply));
    }
    if (route->rate != HTTP_RATE_NONE && config->check_rate) {
        TRY(config->check_rate(config->app, &job->ctx, &job->request, &job->reply));
    }
    return OK;
}

/* A server signs the body too, so it is parsed before the signature is checked; for users the token
 * is looked at first. */
static struct err admit(struct http_connection *connection)
{
    const struct http_route *route = connection->route;
    if (route->body == HTTP_BODY_STREAM) {
        return OK; /* done before the body was read */
    }
    if (route->auth == HTTP_AUTH_SERVER) {
        TRY(parse_body(connection->job, route));
        return authenticate(connection);
    }
    TRY(authenticate(connection));
    return parse_body(connection->job, route);
}

/* The job would have to wait for the network: it begins again, with a new reply and in no lane, on
 * the pool whose threads may. */
bool http_exchange_wait(struct http_connection *connection, struct err err, job_fn fn)
{
    const struct http_server_config *config = config_of(connection);
    struct http_job *job = connection->job;
    if (err.code != ERR_WAITS || job->ctx.may_wait || !config->waiters) {
        return false;
    }
    ctx_finish(&job->ctx);
    job->ctx.may_wait = true;
    new_reply(connection);
    return workers_submit(config->waiters, 0, fn, connection);
}

static void run_handler(void *arg)
{
    struct http_connection *connection = arg;
    struct http_job *job = connection->job;
    struct err err = connection->route->handler(config_of(connection)->app, &job->ctx,
                                                &job->request, &job->reply);
    if (!http_exchange_wait(connection, err, run_handler)) {
        http_exchange_finish(connection, err);
    }
}

static void run_request(void *arg)
{
    struct http_connection *connection = arg;
    const struct http_server_config *config = config_of(connection);
    struct http_job *job = connection->job;
    struct err err = admit(connection);
    if (http_exchange_wait(connection, err, run_request)) {
        return;
    }
    if (err.code) {
        http_exchange_finish(connection, err);
        return;
    }
    bool in_lane = connection->route->lane == HTTP_LANE_USER && config->lane_of;
    uint64_t lane = in_lane ? config->lane_of(config->app, &job->request) : 0;
    if (!lane) {
        run_handler(connection);
        return;
    }
    job->ctx.may_wait = false;
    if (!workers_submit(config->workers, lane, run_handler, connection)) {
        http_exchange_finish(connection, err_make(ERR_M_UNAVAILABLE, "worker queue is full"));
    }
}

void http_exchange_count_error(struct http_server *server, struct err err)
{
    const struct errcode_info *info = errcode_get(err.code);
    size_t index = (size_t)(info - errcode_get(ERR_M_NONE + 1));
    stats_family_add(server->config.stats, STAT_errors_total, index, 1);
    if (err.code == ERR_M_LIMIT_EXCEEDED) {
        stats_add(server->config.stats, STAT_rate_limited_total, 1);
    }
}

static void log_failure(struct http_connection *connection, struct err err)
{
    http_exchange_count_error(connection->home->server, err);
    struct log *log = config_of(connection)->log;
    bool ours = err.code < ERR_MATRIX_FIRST && err.code != ERR_SYNTAX && err.code != ERR_LIMIT;
    log_line(log, ours ? LOG_LEVEL_ERROR : LOG_LEVEL_DEBUG, "request_failed",
             &(struct log_fields){.req = slice_of(connection->req_text),
                                  .step = slice_of(connection->route->path),
                                  .err = slice_of(err.text)});
}

/* An error keeps a reply that is an error already; a half-written success is thrown away. */
static void settle_reply(struct http_connection *connection, struct err err)
{
    struct http_reply *reply = &connection->job->reply;
    if (!err.code && buf_check(&reply->body).code) {
        err = err_make(ERR_INTERNAL, "the reply is larger than its limit");
    }
    if (!err.code) {
        return;
    }
    log_failure(connection, err);
    if (reply->file_fd >= 0) {
        close(reply->file_fd);
        reply->file_fd = -1;
    }
    if (reply->status < 400 || !reply->body.len) {
        http_reply_error(reply, err, (struct slice){0});
    }
}

static void on_ready(void *arg)
{
    struct http_connection *connection = arg;
    atomic_fetch_sub(&connection->home->server->running, 1);
    connection->phase = HTTP_PHASE_READY;
    http_front_resume(connection);
}

static void on_parked(void *arg)
{
    struct http_connection *connection = arg;
    atomic_fetch_sub(&connection->home->server->running, 1);
    http_park_start(connection);
}

static void on_durable(void *arg, struct err err)
{
    struct http_connection *connection = arg;
    if (err.code) {
        connection->job->reply.status = 0;
        settle_reply(connection, err);
    }
    post_back(connection, on_ready);
}

/* Whether the request waits for http_unpark. One that failed does not, unless somebody else answers
 * it already. */
static bool is_parked(struct http_connection *connection, struct err err)
{
    struct http_reply *reply = &connection->job->reply;
    if (reply->parked && err.code && !atomic_exchange(&connection->parked.taken, true)) {
        reply->parked = false; /* nobody else can answer any more */
    }
    return reply->parked;
}

void http_exchange_finish(struct http_connection *connection, struct err err)
{
    const struct http_server_config *config = config_of(connection);
    struct http_job *job = connection->job;
    ctx_finish(&job->ctx); /* the handler is over: rooms and the like go back */
    if (is_parked(connection, err)) {
        connection->parked.write_ticket = job->ctx.write_ticket;
        post_back(connection, on_parked);
        return;
    }
    settle_reply(connection, err);
    if (job->ctx.write_ticket && config->when_durable) {
        config->when_durable(config->store, job->ctx.write_ticket, on_durable, connection);
    } else {
        post_back(connection, on_ready);
    }
}

/* --- streamed bodies --- */

static void on_piece_done(void *arg)
{
    struct http_connection *connection = arg;
    atomic_fetch_sub(&connection->home->server->running, 1);
    connection->phase = HTTP_PHASE_BODY;
    set_deadline(connection, config_of(connection)->request_timeout_ms);
    http_front_resume(connection);
}

/* The stream is broken off; the rest of the body is not wanted. */
static void fail_stream(struct http_connection *connection, struct err err)
{
    if (connection->begun) {
        connection->route->stream->abort(connection->job->request.stream);
        connection->begun = false;
    }
    connection->refused = true;
    settle_reply(connection, err);
}

static void run_begin(void *arg)
{
    struct http_connection *connection = arg;
    struct http_job *job = connection->job;
    struct err err = authenticate(connection);
    if (http_exchange_wait(connection, err, run_begin)) {
        return;
    }
    if (!err.code) {
        err = connection->route->stream->begin(config_of(connection)->app, &job->ctx, &job->request,
                                               &job->reply);
        connection->begun = !err.code;
    }
    if (err.code) {
        fail_stream(connection, err);
    }
    post_back(connection, on_piece_done);
}

static struct err flush_piece(struct http_connection *connection)
{
    struct slice bytes = {connection->piece, connection->piece_len};
    connection->piece_len = 0;
    return bytes.len ? connection->route->stream->piece(connection->job->request.stream, bytes)
                     : OK;
}

static void run_piece(void *arg)
{
    struct http_connection *connection = arg;
    struct err err = flush_piece(connection);
    if (err.code) {
        fail_stream(connection, err);
    }
    post_back(connection, on_piece_done);
}

static void run_stream_end(void *arg)
{
    struct http_connection *connection = arg;
    struct err err = flush_piece(connection);
    if (err.code) {
        fail_stream(connection, err);
        http_exchange_finish(connection, err);
        return;
    }
    connection->begun = false; /* the handler owns request->stream now */
    run_request(connection);
}

/* --- on the loop --- */

enum http_step http_exchange_headers(struct http_connection *connection)
{
    struct http_job *job = connection->job;
    const char *fault = header_fault(job);
    if (connection->phase == HTTP_PHASE_BODY) { /* back from the begin hook */
        bool drain = job->content_length <= HTTP_DRAIN_BYTES_MAX && !job->expects_continue;
        return connection->refused && !drain ? HTTP_STEP_REPLY : HTTP_STEP_GO_ON;
    }
    connection->phase = HTTP_PHASE_BODY;
    connection->close_after = fault || connection->home->draining;
    job->request.content_length = job->content_length;
    if (fault) {
        connection->refused = true;
        http_reply_error(&job->reply, err_public(ERR_M_UNKNOWN_400, fault), (struct slice){0});
        return HTTP_STEP_REPLY;
    }
    const struct http_server_config *config = config_of(connection);
    job->request.remote_address = http_address_forwarded(
        (struct slice){connection->address, connection->address_len}, job->forwarded_for,
        config->trusted_proxies, config->trusted_proxy_count);
    if (job->request.method == HTTP_OPTIONS && !job->unknown_method) {
        job->reply.status = 204;
        connection->refused = true; /* no handler runs */
        return HTTP_STEP_GO_ON;
    }
    struct err err = check_headers(connection);
    if (err.code) {
        return refuse(connection, err);
    }
    buf_init_arena(&job->body, connection->arena, body_max(connection));
    if (connection->route->body == HTTP_BODY_STREAM) {
        return suspend_for(connection, run_begin);
    }
    return HTTP_STEP_GO_ON;
}

static enum http_step stream_body(struct http_connection *connection, struct slice bytes,
                                  size_t *taken_out)
{
    if (!connection->piece) {
        connection->piece = mem_alloc_raw(HTTP_PIECE_BYTES);
        connection->piece_len = 0;
    }
    size_t room = HTTP_PIECE_BYTES - connection->piece_len;
    *taken_out = bytes.len < room ? bytes.len : room;
    memcpy(connection->piece + connection->piece_len, bytes.ptr, *taken_out);
    connection->piece_len += *taken_out;
    connection->body_bytes += (int64_t)*taken_out;
    if (connection->piece_len == HTTP_PIECE_BYTES) {
        return suspend_for(connection, run_piece);
    }
    return HTTP_STEP_GO_ON;
}

enum http_step http_exchange_body(struct http_connection *connection, struct slice bytes,
                                  size_t *taken_out)
{
    const struct http_route *route = connection->route;
    struct http_job *job = connection->job;
    int64_t body_bytes = connection->body_bytes + (int64_t)bytes.len;
    /* MHD goes on with the next chunk of a chunked body although the one before it has suspended
     * the connection; what is not taken comes again. */
    if (connection->phase == HTTP_PHASE_WORK) {
        *taken_out = 0;
        return HTTP_STEP_GO_ON;
    }
    *taken_out = bytes.len;
    set_deadline(connection, config_of(connection)->request_timeout_ms +
                                 body_bytes / HTTP_BYTES_PER_MS_MIN -
                                 (now_mono_us() - connection->started_us) / 1000);
    if (!connection->refused && body_bytes > (int64_t)body_max(connection)) {
        if (connection->begun) {
            route->stream->abort(job->request.stream);
            connection->begun = false;
        }
        refuse(connection, err_make(ERR_M_TOO_LARGE, "body too large"));
    }
    if (connection->refused) {
        connection->body_bytes = body_bytes;
        return body_bytes > HTTP_DRAIN_BYTES_MAX ? HTTP_STEP_DROP : HTTP_STEP_GO_ON;
    }
    if (route->body == HTTP_BODY_STREAM) {
        return stream_body(connection, bytes, taken_out);
    }
    connection->body_bytes = body_bytes;
    if (route->body != HTTP_BODY_NONE) {
        if (!job->body.ptr && job->content_length > 0) {
            int64_t reserve = job->content_length;
            buf_reserve(&job->body,
                        reserve < BODY_RESERVE_MAX ? (size_t)reserve : BODY_RESERVE_MAX);
        }
        buf_add(&job->body, bytes);
    }
    return HTTP_STEP_GO_ON;
}

/* Two hand-overs between threads cost several times what an answer from memory does. Admission is
 * not repeated on the worker once it is through: it counts. */
static enum http_step try_on_loop(struct http_connection *connection)
{
    struct http_job *job = connection->job;
    job_fn on_worker = run_request;
    job->ctx.on_loop = true;
    struct err err = admit(connection);
    if (!err.code) {
        on_worker = run_handler;
        err = connection->route->handler(config_of(connection)->app, &job->ctx, &job->request,
                                         &job->reply);
    }
    job->ctx.on_loop = false;
    ctx_finish(&job->ctx);
    if (err.code == ERR_WAITS) {
        new_reply(connection);
        return suspend_or_reply(connection, on_worker);
    }
    if (is_parked(connection, err)) {
        http_park_start(connection);
        return HTTP_STEP_SUSPEND;
    }
    settle_reply(connection, err);
    return HTTP_STEP_REPLY;
}

static bool goes_to_loop(const struct http_connection *connection)
{
    return (connection->route->flags & HTTP_LOOP_FIRST) &&
           connection->body_bytes <= LOOP_BODY_BYTES_MAX;
}

enum http_step http_exchange_complete(struct http_connection *connection)
{
    if (connection->refused || connection->phase == HTTP_PHASE_READY) {
        return HTTP_STEP_REPLY;
    }
    if (goes_to_loop(connection)) {
        return try_on_loop(connection);
    }
    bool stream = connection->route->body == HTTP_BODY_STREAM;
    return suspend_or_reply(connection, stream ? run_stream_end : run_request);
}

static void note_access(struct http_connection *connection)
{
    struct log *log = config_of(connection)->log;
    struct stats *stats = config_of(connection)->stats;
    struct http_job *job = connection->job;
    stats_add(stats, STAT_http_requests_total, 1);
    stats_add(stats, STAT_http_reply_bytes_total, job->reply.body.len);
    stats_observe(stats, STAT_http_request_seconds, now_mono_us() - connection->started_us);
    if (log_wants(log, LOG_LEVEL_DEBUG)) {
        const char *path = connection->route ? connection->route->path : "-";
        log_debug(log, "request", .req = slice_of(connection->req_text), .step = slice_of(path),
                  .pos = job->reply.status ? job->reply.status : 200,
                  .ms = (now_mono_us() - connection->started_us) / 1000,
                  .bytes = (int64_t)job->reply.body.len);
    }
}

struct abandoned {
    const struct http_stream_hooks *hooks;
    void *stream;
    struct arena *arena; /* what begin allocated may live there */
};

static void run_abort(void *arg)
{
    struct abandoned *abandoned = arg;
    abandoned->hooks->abort(abandoned->stream);
    arena_free(&abandoned->arena);
    mem_free(abandoned);
}

/* The client died in the middle of a streamed body. abort may touch the disk: not on the loop. */
static void abandon_stream(struct http_connection *connection)
{
    struct abandoned *abandoned = mem_alloc(sizeof *abandoned);
    *abandoned = (struct abandoned){
        .hooks = connection->route->stream,
        .stream = connection->job->request.stream,
        .arena = connection->arena,
    };
    connection->begun = false;
    open_gate(connection);
    connection->job = NULL;
    connection->arena = NULL;
    if (!workers_submit(config_of(connection)->workers, 0, run_abort, abandoned)) {
        run_abort(abandoned);
    }
}

void http_exchange_end(struct http_connection *connection)
{
    if (connection->job) {
        note_access(connection);
    }
    if (connection->begun) {
        abandon_stream(connection);
    }
    if (connection->ws) {
        http_ws_abandon(connection->ws);
        connection->ws = NULL;
    }
    mem_free(connection->piece);
    connection->piece = NULL;
    connection->piece_len = 0;
    http_exchange_drop_job(connection);
    connection->phase = HTTP_PHASE_IDLE;
    set_deadline(connection,
                 connection->home->draining ? 0 : config_of(connection)->idle_timeout_ms);
}
