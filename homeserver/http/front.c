/* The one file that talks to libmicrohttpd. Each loop drives one daemon in external mode: its epoll
 * descriptor is watched, and MHD_run is called before the loop sleeps whenever there is a reason.
 *
 * What the library answers by itself, before our code sees the request or while it reads the body
 * (headers larger than the pool, a malformed request line, Content-Length or chunk), it queues with
 * its public MHD_queue_response, which it calls as any other program does: by name. This file
 * defines that name, so those answers come by here and get the form of all others. */
#include "homeserver/base/mem.h"
#include "homeserver/http/priv.h"
#include "spec/errcodes.h"

#include <dlfcn.h>
#include <microhttpd.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum {
    UNREAD_BYTES_MAX = 1 << 20,
    HEADER_RECORD_BYTES = 64, /* of the pool, for each header line */
    REPLY_HEAD_BYTES = 1536,  /* of the pool, for the reply */
};

typedef enum MHD_Result (*queue_fn)(struct MHD_Connection *mhd, unsigned status,
                                    struct MHD_Response *response);

struct http_front {
    struct MHD_Daemon *daemon;
    struct http_loop *home;
    struct loop_watch *watch;
    struct loop_timer *timer;
    struct http_connection *incoming; /* during MHD_add_connection */
    queue_fn queue;                   /* the library's MHD_queue_response */
    bool need_run;
};

/* Request headers that are kept, by their place in struct http_job. */
static const struct {
    struct slice name;
    size_t offset;
} kept[] = {
#define KEEP(text, field)                                                                          \
    {                                                                                              \
        {text, sizeof(text) - 1}, offsetof(struct http_job, field)                                 \
    }
    KEEP("Authorization", request.authorization),
    KEEP("Content-Type", request.content_type),
    KEEP("If-Match", request.if_match),
    KEEP("If-None-Match", request.if_none_match),
    KEEP("Sec-Fetch-Mode", request.fetch_mode),
    KEEP("Range", request.range),
    KEEP("Origin", request.origin_header),
    KEEP("User-Agent", request.user_agent),
    KEEP("Host", request.host),
    KEEP("X-Forwarded-For", forwarded_for),
    KEEP("Upgrade", upgrade),
    KEEP("Connection", connection_header),
    KEEP("Sec-WebSocket-Key", ws_key),
    KEEP("Sec-WebSocket-Version", ws_version),
    KEEP("Sec-WebSocket-Protocol", ws_protocol),
    KEEP("Transfer-Encoding", transfer_encoding),
#undef KEEP
};

static const struct {
    struct slice name;
    enum http_method method;
} methods[] = {
    {{"GET", 3}, HTTP_GET},       {{"PUT", 3}, HTTP_PUT},   {{"POST", 4}, HTTP_POST},
    {{"DELETE", 6}, HTTP_DELETE}, {{"HEAD", 4}, HTTP_HEAD}, {{"OPTIONS", 7}, HTTP_OPTIONS},
};

static bool is_token(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        if (c <= 0x20 || c >= 0x7F || c == ':') {
            return false;
        }
    }
    return name.len > 0;
}

static void keep_header(struct http_job *job, struct slice name, struct slice value)
{
    for (size_t i = 0; i < COUNT_OF(kept); i++) {
        if (slice_eq_nocase(name, kept[i].name)) {
            struct slice *field = (struct slice *)(void *)((char *)job + kept[i].offset);
            /* X-Forwarded-For: the last one was added by the nearest proxy */
            bool replace = !field->len || field == &job->forwarded_for;
            *field = replace ? value : *field;
            return;
        }
    }
}

static enum MHD_Result on_header(void *cls, enum MHD_ValueKind kind, const char *key,
                                 size_t key_len, const char *value, size_t value_len)
{
    struct http_job *job = cls;
    struct slice name = {key, key_len};
    struct slice text = {value ? value : "", value ? value_len : 0};
    (void)kind;
    job->bad_header |= !is_token(name) || memchr(text.ptr, '\r', text.len) != NULL;
    job->header_count++;
    job->host_count += slice_eq_nocase(name, LIT("Host"));
    job->encoding_count += slice_eq_nocase(name, LIT("Transfer-Encoding"));
    if (slice_eq_nocase(name, LIT("Content-Length"))) {
        job->length_count++;
        job->bad_header |= !slice_parse_i64(text, &job->content_length) || job->content_length < 0;
    }
    if (slice_eq_nocase(name, LIT("Expect"))) {
        job->expects_continue = true;
    }
    keep_header(job, name, text);
    struct http_request *request = &job->request;
    if (slice_eq_nocase(name, LIT("Authorization")) &&
        request->authorization_count < HTTP_AUTHORIZATIONS_MAX) {
        request->authorizations[request->authorization_count++] = text;
    }
    return MHD_YES;
}

static void collect_headers(struct http_connection *connection, const char *method,
                            const char *version)
{
    struct http_job *job = connection->job;
    struct slice name = slice_of(method);
    job->unknown_method = true;
    job->request.method = HTTP_OPTIONS; /* no table has it: unknown methods find no route */
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        if (slice_eq(name, methods[i].name)) {
            job->request.method = methods[i].method;
            job->unknown_method = false;
        }
    }
    job->http_1_0 = !slice_eq(slice_of(version), LIT("HTTP/1.1"));
    /* The version stands right behind the target; a gap means that a NUL cut the target short. */
    job->bad_header = *version && connection->uri + connection->uri_len + 1 != version;
    MHD_get_connection_values_n(connection->mhd, MHD_HEADER_KIND, on_header, job);
}

static struct http_connection *connection_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info->socket_context;
}

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    struct http_connection *connection = connection_of(mhd);
    (void)cls;
    connection->uri = uri ? uri : "";
    connection->uri_len = strlen(connection->uri);
    http_exchange_begin(connection, slice_of(connection->uri));
    return connection;
}

static void add_header(struct MHD_Response *response, struct arena *arena, struct slice name,
                       struct slice value)
{
    MHD_add_response_header(response, arena_cstr(arena, name), arena_cstr(arena, value));
}

static void add_headers(struct http_connection *connection, struct MHD_Response *response)
{
    struct http_reply *reply = &connection->job->reply;
    for (size_t i = 0; i < HTTP_CORS_COUNT; i++) {
        MHD_add_response_header(response, http_cors[i].name, http_cors[i].value);
    }
    MHD_add_response_header(response, "X-Request-Id", connection->req_text);
    if (reply->content_type.len) {
        add_header(response, connection->arena, LIT("Content-Type"), reply->content_type);
    } else if (reply->body.len) {
        MHD_add_response_header(response, "Content-Type", "application/json");
    }
    for (size_t i = 0; i < reply->header_count; i++) {
        add_header(response, connection->arena, reply->headers[i].name, reply->headers[i].value);
    }
    bool close_after = connection->close_after || connection->home->draining;
    if (close_after && reply->status != 101) {
        MHD_add_response_header(response, "Connection", "close");
    }
}

/* A file between two texts, read as it is sent. */
struct framed_file {
    struct slice head, tail;
    int fd;
    int64_t offset, bytes;
};

static ssize_t read_framed(void *cls, uint64_t pos, char *to, size_t max)
{
    const struct framed_file *framed = cls;
    uint64_t file_end = framed->head.len + (uint64_t)framed->bytes;
    if (pos >= framed->head.len && pos < file_end) {
        uint64_t at = pos - framed->head.len;
        size_t left = (size_t)((uint64_t)framed->bytes - at);
        ssize_t got = pread(framed->fd, to, left < max ? left : max, framed->offset + (off_t)at);
        return got > 0 ? got : MHD_CONTENT_READER_END_WITH_ERROR;
    }
    struct slice text = pos < framed->head.len ? slice_from(framed->head, pos)
                                               : slice_from(framed->tail, pos - file_end);
    size_t count = text.len < max ? text.len : max;
    memcpy(to, text.ptr, count);
    return count ? (ssize_t)count : MHD_CONTENT_READER_END_OF_STREAM;
}

static void free_framed(void *cls)
{
    struct framed_file *framed = cls;
    close(framed->fd);
    mem_free(framed);
}

static struct MHD_Response *new_framed_response(struct http_reply *reply)
{
    enum { BLOCK_BYTES = 32768 };
    struct framed_file *framed = mem_alloc(sizeof *framed);
    *framed = (struct framed_file){reply->file_head, reply->file_tail, reply->file_fd,
                                   reply->file_offset, reply->file_bytes};
    reply->file_fd = -1; /* the response closes it */
    uint64_t bytes = framed->head.len + (uint64_t)framed->bytes + framed->tail.len;
    struct MHD_Response *response =
        MHD_create_response_from_callback(bytes, BLOCK_BYTES, read_framed, framed, free_framed);
    if (!response) {
        free_framed(framed);
    }
    return response;
}

/* The bytes stay in the arena, which lives until the request is completed. */
static struct MHD_Response *new_response(struct http_connection *connection)
{
    struct http_reply *reply = &connection->job->reply;
    if (reply->file_fd >= 0 && reply->file_head.len) {
        return new_framed_response(reply);
    }
    if (reply->file_fd >= 0) {
        int fd = reply->file_fd;
        reply->file_fd = -1; /* the response closes it */
        return MHD_create_response_from_fd_at_offset64((uint64_t)reply->file_bytes, fd,
                                                       (uint64_t)reply->file_offset);
    }
    return MHD_create_response_from_buffer(reply->body.len, reply->body.ptr,
                                           MHD_RESPMEM_PERSISTENT);
}

static void on_upgrade(void *cls, struct MHD_Connection *mhd, void *con_cls, const char *extra,
                       size_t extra_len, MHD_socket fd, struct MHD_UpgradeResponseHandle *handle)
{
    struct http_connection *connection = con_cls;
    (void)cls;
    (void)mhd;
    http_wheel_cancel(&connection->home->wheel, &connection->deadline);
    http_ws_open(connection, fd, (struct slice){extra, extra_len});
    MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE); /* closes the library's descriptor */
    connection->home->front->need_run = true;
}

static enum MHD_Result queue_reply(struct http_connection *connection)
{
    struct http_loop *home = connection->home;
    struct http_reply *reply = &connection->job->reply;
    unsigned status = reply->status ? (unsigned)reply->status : 200;
    int64_t bytes = (int64_t)reply->body.len + (reply->file_fd >= 0 ? reply->file_bytes : 0);
    bool upgrade = connection->ws && status == 101;
    struct MHD_Response *response =
        upgrade ? MHD_create_response_for_upgrade(on_upgrade, NULL) : new_response(connection);
    if (!response) {
        return MHD_NO;
    }
    add_headers(connection, response);
    connection->phase = HTTP_PHASE_SENDING;
    http_wheel_set(&home->wheel, &connection->deadline,
                   loop_mono_ms(home->loop) + home->server->config.idle_timeout_ms +
                       bytes / HTTP_BYTES_PER_MS_MIN);
    enum MHD_Result queued = MHD_queue_response(connection->mhd, status, response);
    MHD_destroy_response(response);
    return queued;
}

/* Bytes that nobody will read any more: a socket that is closed over them resets the connection,
 * and the peer may lose the answer. */
static void throw_unread_away(int fd)
{
    char bytes[4096];
    for (size_t i = 0; i < UNREAD_BYTES_MAX / sizeof bytes; i++) {
        if (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) <= 0) {
            return;
        }
    }
}

/* The reply by hand, where the library takes none; the connection is closed after it. */
static void send_raw(struct http_connection *connection)
{
    struct http_reply *reply = &connection->job->reply;
    struct slice body = buf_slice(&reply->body);
    struct buf out;
    buf_init_arena(&out, connection->arena, HTTP_REPLY_BYTES_MAX);
    buf_printf(&out, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: %zu\r\n",
               reply->status, MHD_get_reason_phrase_for((unsigned)reply->status), body.len);
    for (size_t i = 0; i < HTTP_CORS_COUNT; i++) {
        buf_printf(&out, "%s: %s\r\n", http_cors[i].name, http_cors[i].value);
    }
    buf_printf(&out, "X-Request-Id: %s\r\nContent-Type: application/json\r\n\r\n",
               connection->req_text);
    buf_add(&out, body);
    throw_unread_away(connection->fd);
    ssize_t sent = send(connection->fd, out.ptr, out.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)sent; /* a peer that does not read loses the explanation, not more */
    shutdown(connection->fd, SHUT_WR);
}

/* --- answers of the library's own --- */

static const struct own_answer {
    unsigned status;
    uint32_t code;
    const char *text;
} own_answers[] = {
    {MHD_HTTP_BAD_REQUEST, ERR_M_UNKNOWN_400,
     "The request line, a header or the coding of the body is malformed."},
    {MHD_HTTP_CONTENT_TOO_LARGE, ERR_M_TOO_LARGE, "The body is too large."},
    {MHD_HTTP_URI_TOO_LONG, ERR_M_TOO_LARGE, "The request line is too long."},
    {MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE, ERR_M_HEADERS_TOO_LARGE,
     "The request headers are too large."},
    {MHD_HTTP_HTTP_VERSION_NOT_SUPPORTED, ERR_M_UNKNOWN_400, "Use HTTP/1.1."},
    {MHD_HTTP_INTERNAL_SERVER_ERROR, ERR_M_UNKNOWN, "The server failed to read the request."},
};

static const struct own_answer *find_own_answer(unsigned status)
{
    for (size_t i = 0; i + 1 < COUNT_OF(own_answers); i++) {
        if (own_answers[i].status == status) {
            return &own_answers[i];
        }
    }
    return &own_answers[COUNT_OF(own_answers) - 1];
}

/* Sent by hand: some of the library's own answers leave with their head twice. */
static void send_own_answer(struct http_connection *connection, unsigned status)
{
    const struct own_answer *answer = find_own_answer(status);
    struct err err = err_public(answer->code, answer->text);
    if (!connection->job) {
        http_exchange_begin(connection, (struct slice){0});
    }
    http_exchange_count_error(connection->home->server, err);
    http_reply_error(&connection->job->reply, err, (struct slice){0});
    connection->job->reply.status = (int)status;
    send_raw(connection);
}

/* Ours are queued while the phase says so; see the head of the file. Told that it cannot queue its
 * answer, the library closes the connection. */
enum MHD_Result MHD_queue_response(struct MHD_Connection *mhd, unsigned status,
                                   struct MHD_Response *response)
{
    struct http_connection *connection = connection_of(mhd);
    if (connection->phase == HTTP_PHASE_SENDING) {
        return connection->home->front->queue(mhd, status, response);
    }
    send_own_answer(connection, status);
    return MHD_NO;
}

/* Whether the pool, which holds the request's head, has room for that of the reply. */
static bool has_room(struct http_connection *connection)
{
    const struct http_server_config *config = &connection->home->server->config;
    size_t pool = config->pool_bytes ? config->pool_bytes : HTTP_POOL_BYTES;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    size_t used = (info ? info->header_size : 0) +
                  (size_t)connection->job->header_count * HEADER_RECORD_BYTES;
    return used + REPLY_HEAD_BYTES <= pool;
}

/* The request's head is complete. */
static enum http_step take_head(struct http_connection *connection, const char *method,
                                const char *version)
{
    collect_headers(connection, method, version);
    if (has_room(connection)) {
        return http_exchange_headers(connection);
    }
    struct err err = err_make(ERR_M_HEADERS_TOO_LARGE, "no room for the reply's headers");
    http_exchange_count_error(connection->home->server, err);
    http_reply_error(&connection->job->reply, err, (struct slice){0});
    return HTTP_STEP_DROP;
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *mhd, const char *url,
                                 const char *method, const char *version, const char *upload,
                                 size_t *upload_len, void **con_cls)
{
    struct http_connection *connection = *con_cls;
    enum http_step step = HTTP_STEP_DROP;
    (void)cls;
    (void)url;
    if (*upload_len) {
        size_t taken = 0;
        step = http_exchange_body(connection, (struct slice){upload, *upload_len}, &taken);
        *upload_len -= taken;
    } else if (connection->in_head) {
        step = connection->phase == HTTP_PHASE_HEAD ? take_head(connection, method, version)
                                                    : http_exchange_headers(connection);
        connection->in_head = step == HTTP_STEP_SUSPEND;
    } else {
        step = http_exchange_complete(connection);
    }
    switch (step) {
    case HTTP_STEP_GO_ON:
        return MHD_YES;
    case HTTP_STEP_SUSPEND:
        MHD_suspend_connection(mhd);
        return MHD_YES;
    case HTTP_STEP_REPLY:
        return queue_reply(connection);
    case HTTP_STEP_DROP:
        send_raw(connection);
        return MHD_NO;
    }
    return MHD_NO;
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                         enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)mhd;
    (void)code;
    if (*con_cls) {
        http_exchange_end(*con_cls);
        *con_cls = NULL;
    }
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http_front *front = cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        front->incoming->mhd = mhd;
        *context = front->incoming;
        front->incoming = NULL;
    } else if (*context) {
        http_connection_free(*context);
        *context = NULL;
    }
}

/* Paths reach the router as they came: it decodes segment by segment. */
static size_t keep_escapes(void *cls, struct MHD_Connection *mhd, char *text)
{
    (void)cls;
    (void)mhd;
    return strlen(text);
}

static void on_message(void *cls, const char *format, va_list args)
{
    struct http_front *front = cls;
    struct log *log = front->home->server->config.log;
    char text[256];
    if (log_wants(log, LOG_LEVEL_DEBUG)) {
        vsnprintf(text, sizeof text, format, args);
        log_debug(log, "http_library", .note = slice_trim(slice_of(text)));
    }
}

static void on_readable(void *arg, unsigned events)
{
    struct http_front *front = arg;
    (void)events;
    front->need_run = true;
}

static void on_timer(void *arg)
{
    struct http_front *front = arg;
    front->need_run = true;
}

/* One pass per turn of the loop, so that all that became ready meanwhile is one batch. */
void http_front_run(struct http_front *front)
{
    MHD_UNSIGNED_LONG_LONG timeout_ms = 0;
    if (front->need_run) {
        front->need_run = false;
        MHD_run(front->daemon);
    }
    if (MHD_get_timeout(front->daemon, &timeout_ms) == MHD_YES || front->need_run) {
        loop_timer_start(front->timer, front->need_run ? 0 : (int64_t)timeout_ms);
    }
}

static struct MHD_Daemon *start_daemon(struct http_front *front)
{
    const struct http_server_config *config = &front->home->server->config;
    size_t pool = config->pool_bytes ? config->pool_bytes : HTTP_POOL_BYTES;
    return MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE |
            MHD_USE_ERROR_LOG,
        0, NULL, NULL, on_access, NULL, MHD_OPTION_EXTERNAL_LOGGER, on_message, front,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, pool, MHD_OPTION_CONNECTION_LIMIT, 1u << 24,
        MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, front, MHD_OPTION_URI_LOG_CALLBACK, on_uri,
        NULL, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_SIGPIPE_HANDLED_BY_APP,
        1, MHD_OPTION_END);
}

struct http_front *http_front_new(struct http_loop *home)
{
    struct http_front *front = mem_alloc(sizeof *front);
    void *queue = dlsym(RTLD_NEXT, "MHD_queue_response");
    ASSERT(queue != NULL);
    memcpy(&front->queue, &queue, sizeof queue);
    front->home = home;
    front->daemon = start_daemon(front);
    if (!front->daemon) {
        mem_free(front);
        return NULL;
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(front->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    front->watch = loop_watch_new(home->loop, info->epoll_fd, on_readable, front);
    loop_watch_set(front->watch, LOOP_READ);
    front->timer = loop_timer_new(home->loop, on_timer, front);
    front->need_run = true;
    return front;
}

void http_front_free(struct http_front **pointer)
{
    struct http_front *front = *pointer;
    if (front) {
        loop_before_sleep(front->home->loop, NULL, NULL);
        loop_watch_free(&front->watch);
        loop_timer_free(&front->timer);
        MHD_stop_daemon(front->daemon);
        mem_free(front);
        *pointer = NULL;
    }
}

void http_front_add(struct http_front *front, int fd, const struct sockaddr *peer,
                    socklen_t peer_len, struct http_connection *connection)
{
    connection->fd = fd;
    front->incoming = connection;
    enum MHD_Result added = MHD_add_connection(front->daemon, fd, peer, peer_len);
    if (front->incoming) { /* refused before it was announced */
        front->incoming = NULL;
        http_connection_free(connection);
    }
    front->need_run |= added == MHD_YES;
}

void http_front_resume(struct http_connection *connection)
{
    MHD_resume_connection(connection->mhd);
    connection->home->front->need_run = true;
}

void http_front_cut(struct http_connection *connection, struct err err)
{
    if (connection->upgraded) {
        return; /* MHD has closed its descriptor; the number may be another's */
    }
    if (connection->phase == HTTP_PHASE_BODY && connection->job) {
        http_reply_error(&connection->job->reply, err, (struct slice){0});
        send_raw(connection);
    }
    shutdown(connection->fd, SHUT_RDWR); /* MHD sees the end and closes */
}
