/* WebSockets after the upgrade: the descriptor is ours, the loop reads and writes, messages go to
 * the hooks on workers, one at a time and in order. */
#include "homeserver/base/mem.h"
#include "homeserver/base/stats.h"
#include "homeserver/http/priv.h"
#include "homeserver/http/ws_frame.h"
#include "homeserver/http/ws_key.h"
#include "spec/errcodes.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    MESSAGE_BYTES_MAX = 1 << 20,
    INBOX_BYTES_MAX = 1 << 18, /* beyond it the socket is not read */
    READ_BYTES = 1 << 14,
    READS_AT_ONCE = 8,
    FRAMES_AT_ONCE = 32,
    PING_MS = 30000,
    SILENCE_MS = 90000,
    CLOSE_MS = 5000, /* for the other side's close frame */
    RETRY_MS = 100,
    KEY_BYTES = 24,
    CODE_GOING_AWAY = 1001,
};

/* A piece of the stream, to or from the peer. */
struct chunk {
    struct chunk *next;
    struct http_ws *ws; /* while it waits for durability */
    struct gate *gate;  /* opens when the chunk has left, or is dropped */
    size_t len, done;
    char bytes[];
};

struct chunks {
    struct chunk *first, *last;
};

struct http_ws {
    struct http_loop *home;
    struct http_ws *next, *prev; /* of the loop's open sockets */
    const struct http_ws_hooks *hooks;
    void *arg;
    struct http_place place;
    struct http_tls_pipe *pipe; /* as in struct http_connection */
    struct loop_socket socket;
    struct http_wheel_entry timer;
    struct loop_task flush_task, read_task, gone_task;
    int64_t heard_ms, sent_ms, closing_ms;
    struct http_ws_reader *reader_owned; /* NULL between messages, which is most of the time */
    _Atomic unsigned references;
    int fd;
    bool close_received, close_written;
    bool failed; /* the peer broke the protocol: what it sends on is thrown away */
    /* protected by mutex (leaf lock) */
    pthread_mutex_t mutex;
    struct chunks out, in;
    size_t in_bytes;
    bool flush_posted;
    bool closing; /* a close frame is queued: nothing more is sent */
    bool job_running;
    bool ended; /* the socket is gone; on_close is due */
    bool paused;
};

static struct chunk *new_chunk(size_t len)
{
    struct chunk *chunk = mem_alloc_raw(sizeof *chunk + len);
    *chunk = (struct chunk){.len = len};
    return chunk;
}

static void push(struct chunks *chunks, struct chunk *chunk)
{
    chunk->next = NULL;
    if (chunks->last) {
        chunks->last->next = chunk;
    } else {
        chunks->first = chunk;
    }
    chunks->last = chunk;
}

static struct chunk *pop(struct chunks *chunks)
{
    struct chunk *chunk = chunks->first;
    if (chunk) {
        chunks->first = chunk->next;
        chunks->last = chunks->first ? chunks->last : NULL;
    }
    return chunk;
}

/* The lock is not held: whoever waits for the gate runs. */
static void free_chunk(struct chunk *chunk)
{
    if (chunk->gate) {
        gate_open(chunk->gate);
        gate_release(&chunk->gate);
    }
    mem_free(chunk);
}

static void drop_all(struct chunks *chunks)
{
    for (struct chunk *chunk = pop(chunks); chunk; chunk = pop(chunks)) {
        free_chunk(chunk);
    }
}

static int64_t now_of(const struct http_ws *ws)
{
    return loop_mono_ms(ws->home->loop);
}

static void drop_reader(struct http_ws *ws)
{
    if (ws->reader_owned) {
        http_ws_reader_deinit(ws->reader_owned);
        mem_free(ws->reader_owned);
        ws->reader_owned = NULL;
    }
}

static void unref(struct http_ws *ws)
{
    if (atomic_fetch_sub(&ws->references, 1) == 1) {
        drop_all(&ws->out);
        drop_all(&ws->in);
        drop_reader(ws);
        pthread_mutex_destroy(&ws->mutex);
        mem_free(ws);
    }
}

/* --- messages to the hooks, on workers --- */

static void on_gone(void *arg)
{
    struct http_ws *ws = arg;
    http_wheel_cancel(&ws->home->wheel, &ws->timer);
    atomic_fetch_sub(&ws->home->server->sockets, 1);
    stats_gauge_add(ws->home->server->config.stats, STAT_http_websockets, -1);
    unref(ws);
}

static void on_read_again(void *arg);

/* The next message; NULL when there is none, and then the job is over. */
static struct chunk *next_message(struct http_ws *ws, bool *ended_out)
{
    pthread_mutex_lock(&ws->mutex);
    struct chunk *message = pop(&ws->in);
    ws->in_bytes -= message ? message->len : 0;
    bool resume = ws->paused && ws->in_bytes < INBOX_BYTES_MAX / 2 && !ws->ended;
    ws->paused = ws->paused && !resume;
    *ended_out = !message && ws->ended;
    ws->job_running = message || *ended_out;
    pthread_mutex_unlock(&ws->mutex);
    if (resume) {
        atomic_fetch_add(&ws->references, 1);
        ws->read_task = (struct loop_task){.fn = on_read_again, .arg = ws};
        loop_post(ws->home->loop, &ws->read_task);
    }
    return message;
}

static void run_messages(void *arg)
{
    struct http_ws *ws = arg;
    const struct http_server_config *config = &ws->home->server->config;
    struct arena *arena = arena_new();
    bool ended = false;
    for (struct chunk *message = next_message(ws, &ended); message;
         message = next_message(ws, &ended)) {
        struct ctx ctx = {.arena = arena, .now = config->now, .log = config->log};
        ws->hooks->on_text(ws->arg, &ctx, (struct slice){message->bytes, message->len});
        ctx_finish(&ctx);
        ctx_open_gate(&ctx); /* when no frame has taken it over */
        free_chunk(message);
        arena_reset(arena);
    }
    arena_free(&arena);
    if (ended) {
        ws->hooks->on_close(ws->arg);
        ws->gone_task = (struct loop_task){.fn = on_gone, .arg = ws};
        loop_post(ws->home->loop, &ws->gone_task);
    }
}

/* Loop thread. When the worker queue is full, the timer tries again. */
static void schedule_job(struct http_ws *ws)
{
    pthread_mutex_lock(&ws->mutex);
    bool start = !ws->job_running && (ws->in.first || ws->ended);
    ws->job_running |= start;
    pthread_mutex_unlock(&ws->mutex);
    if (start && !workers_submit(ws->home->server->config.workers, 0, run_messages, ws)) {
        pthread_mutex_lock(&ws->mutex);
        ws->job_running = false;
        pthread_mutex_unlock(&ws->mutex);
        http_wheel_set(&ws->home->wheel, &ws->timer, now_of(ws) + RETRY_MS);
    }
}

/* --- the socket, on the loop --- */

static void end_socket(struct http_ws *ws)
{
    struct http_loop *home = ws->home;
    if (ws->fd >= 0) {
        loop_socket_set(home->loop, &ws->socket, 0);
        close(ws->fd);
        ws->fd = -1;
        if (ws->prev) {
            ws->prev->next = ws->next;
        } else {
            home->sockets = ws->next;
        }
        if (ws->next) {
            ws->next->prev = ws->prev;
        }
        http_place_leave(home->server, &ws->place);
        http_tls_move_owner(&ws->pipe, NULL);
    }
    http_wheel_cancel(&home->wheel, &ws->timer);
    pthread_mutex_lock(&ws->mutex);
    ws->ended = true;
    ws->closing = true;
    pthread_mutex_unlock(&ws->mutex);
    schedule_job(ws);
}

static void watch_socket(struct http_ws *ws, bool want_write)
{
    pthread_mutex_lock(&ws->mutex);
    bool want_read = !ws->paused && !ws->close_received;
    pthread_mutex_unlock(&ws->mutex);
    loop_socket_set(ws->home->loop, &ws->socket,
                    (want_read ? LOOP_READ : 0) | (want_write ? LOOP_WRITE : 0));
}

static void set_timer(struct http_ws *ws)
{
    int64_t ping_ms = ws->sent_ms + PING_MS;
    int64_t silence_ms = ws->heard_ms + SILENCE_MS;
    int64_t due_ms = ping_ms < silence_ms ? ping_ms : silence_ms;
    due_ms = ws->closing_ms ? ws->closing_ms + CLOSE_MS : due_ms;
    http_wheel_set(&ws->home->wheel, &ws->timer, due_ms);
}

/* What writev may take now; the lock is not held while writing because only the loop pops. */
static size_t gather(struct http_ws *ws, struct iovec *vectors)
{
    size_t count = 0;
    pthread_mutex_lock(&ws->mutex);
    for (struct chunk *chunk = ws->out.first; chunk && count < FRAMES_AT_ONCE;
         chunk = chunk->next) {
        vectors[count++] = (struct iovec){chunk->bytes + chunk->done, chunk->len - chunk->done};
    }
    pthread_mutex_unlock(&ws->mutex);
    return count;
}

static void take_written(struct http_ws *ws, size_t written)
{
    struct chunks gone = {0};
    bool awaited = false;
    pthread_mutex_lock(&ws->mutex);
    while (written) {
        struct chunk *chunk = ws->out.first;
        size_t part = chunk->len - chunk->done < written ? chunk->len - chunk->done : written;
        chunk->done += part;
        written -= part;
        if (chunk->done == chunk->len) {
            awaited |= chunk->gate != NULL;
            push(&gone, pop(&ws->out));
        }
    }
    ws->close_written = ws->closing && !ws->out.first;
    pthread_mutex_unlock(&ws->mutex);
    if (awaited) {
        http_tls_flush(ws->pipe);
    }
    drop_all(&gone);
}

static void flush(struct http_ws *ws)
{
    struct iovec vectors[FRAMES_AT_ONCE];
    size_t count = 0;
    while ((count = gather(ws, vectors)) > 0) {
        struct msghdr message = {.msg_iov = vectors, .msg_iovlen = count};
        ssize_t written = sendmsg(ws->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (written < 0 && (errno == EAGAIN || errno == EINTR)) {
            watch_socket(ws, true);
            return;
        }
        if (written < 0) {
            end_socket(ws);
            return;
        }
        ws->sent_ms = now_of(ws);
        take_written(ws, (size_t)written);
    }
    if (ws->close_written && ws->close_received) {
        end_socket(ws);
        return;
    }
    if (ws->close_written && !ws->closing_ms) {
        ws->closing_ms = now_of(ws);
        set_timer(ws);
    }
    watch_socket(ws, false);
}

static void on_flush(void *arg)
{
    struct http_ws *ws = arg;
    pthread_mutex_lock(&ws->mutex);
    ws->flush_posted = false;
    pthread_mutex_unlock(&ws->mutex);
    if (ws->fd >= 0) {
        flush(ws);
    }
    unref(ws);
}

enum queue_mode { QUEUE_DATA, QUEUE_CLOSE };

/* Takes the chunk. Any thread. */
static void queue_chunk(struct http_ws *ws, struct chunk *chunk, enum queue_mode mode)
{
    pthread_mutex_lock(&ws->mutex);
    bool drop = ws->closing;
    bool post = !drop && !ws->flush_posted;
    if (!drop) {
        push(&ws->out, chunk);
        ws->closing = mode == QUEUE_CLOSE;
    }
    ws->flush_posted |= post;
    if (post) {
        atomic_fetch_add(&ws->references, 1);
        ws->flush_task = (struct loop_task){.fn = on_flush, .arg = ws};
        loop_post(ws->home->loop, &ws->flush_task);
    }
    pthread_mutex_unlock(&ws->mutex);
    if (drop) {
        free_chunk(chunk);
    }
}

static struct chunk *frame_chunk(enum http_ws_opcode opcode, struct slice payload)
{
    struct chunk *chunk = new_chunk(payload.len + 10);
    struct buf out = {.ptr = chunk->bytes, .cap = chunk->len, .max = chunk->len};
    http_ws_frame_write(&out, opcode, payload);
    chunk->len = out.len;
    return chunk;
}

static void queue_close(struct http_ws *ws, uint16_t code, struct slice reason)
{
    struct chunk *chunk = new_chunk(HTTP_WS_CONTROL_BYTES_MAX + 2);
    struct buf out = {.ptr = chunk->bytes, .cap = chunk->len, .max = chunk->len};
    http_ws_frame_write_close(&out, code, reason);
    chunk->len = out.len;
    queue_chunk(ws, chunk, QUEUE_CLOSE);
}

static void take_message(struct http_ws *ws, struct slice text)
{
    struct chunk *message = new_chunk(text.len);
    if (text.len) {
        memcpy(message->bytes, text.ptr, text.len);
    }
    pthread_mutex_lock(&ws->mutex);
    push(&ws->in, message);
    ws->in_bytes += text.len;
    ws->paused = ws->in_bytes > INBOX_BYTES_MAX;
    pthread_mutex_unlock(&ws->mutex);
    schedule_job(ws);
}

static void feed(struct http_ws *ws, struct slice bytes)
{
    if (!ws->reader_owned) {
        ws->reader_owned = mem_alloc_raw(sizeof *ws->reader_owned);
        http_ws_reader_init(ws->reader_owned, MESSAGE_BYTES_MAX);
    }
    while (!ws->close_received && !ws->failed) {
        struct slice payload = {0};
        uint16_t code = 0;
        switch (http_ws_reader_next(ws->reader_owned, &bytes, &payload, &code)) {
        case HTTP_WS_GOT_NOTHING:
            if (http_ws_reader_is_idle(ws->reader_owned)) {
                drop_reader(ws);
            }
            return;
        case HTTP_WS_GOT_TEXT:
            take_message(ws, payload);
            break;
        case HTTP_WS_GOT_PING:
            queue_chunk(ws, frame_chunk(HTTP_WS_PONG, payload), QUEUE_DATA);
            break;
        case HTTP_WS_GOT_PONG:
            break;
        case HTTP_WS_GOT_CLOSE:
            ws->close_received = true;
            queue_close(ws, code, (struct slice){0});
            break;
        case HTTP_WS_GOT_ERROR:
            ws->failed = true;
            queue_close(ws, code, (struct slice){0});
            break;
        }
    }
}

static void read_socket(struct http_ws *ws)
{
    char bytes[READ_BYTES];
    for (int i = 0; i < READS_AT_ONCE && ws->fd >= 0 && !ws->close_received; i++) {
        ssize_t len = recv(ws->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (len < 0 && (errno == EAGAIN || errno == EINTR)) {
            break;
        }
        if (len <= 0) {
            end_socket(ws);
            return;
        }
        ws->heard_ms = now_of(ws);
        feed(ws, (struct slice){bytes, (size_t)len});
        pthread_mutex_lock(&ws->mutex);
        bool stop = ws->paused;
        pthread_mutex_unlock(&ws->mutex);
        if (stop || (size_t)len < sizeof bytes) {
            break;
        }
    }
    flush(ws);
}

static void on_read_again(void *arg)
{
    struct http_ws *ws = arg;
    if (ws->fd >= 0) {
        read_socket(ws);
    }
    unref(ws);
}

static void on_socket(void *arg, unsigned events)
{
    struct http_ws *ws = arg;
    if (events & LOOP_READ) {
        read_socket(ws);
    } else {
        flush(ws);
    }
}

static void on_timer(void *arg)
{
    struct http_ws *ws = arg;
    int64_t now_ms = now_of(ws);
    if (ws->fd < 0) {
        schedule_job(ws);
        return;
    }
    bool silent = now_ms - ws->heard_ms >= SILENCE_MS;
    if (silent || (ws->closing_ms && now_ms - ws->closing_ms >= CLOSE_MS)) {
        end_socket(ws);
        return;
    }
    if (now_ms - ws->sent_ms >= PING_MS) {
        ws->sent_ms = now_ms;
        queue_chunk(ws, frame_chunk(HTTP_WS_PING, (struct slice){0}), QUEUE_DATA);
    }
    schedule_job(ws);
    set_timer(ws);
}

void http_ws_open(struct http_connection *connection, int fd, struct slice early)
{
    struct http_ws *ws = connection->ws;
    struct http_loop *home = ws->home;
    int on = 1;
    connection->ws = NULL;
    ws->fd = dup(fd);
    if (ws->fd < 0) {
        end_socket(ws);
        return;
    }
    connection->upgraded = true;
    http_park_unwatch(connection);
    http_tls_move_owner(&connection->pipe, &ws->pipe);
    ws->place = connection->place;
    setsockopt(ws->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ws->next = home->sockets;
    if (ws->next) {
        ws->next->prev = ws;
    }
    home->sockets = ws;
    ws->socket = (struct loop_socket){.fn = on_socket, .arg = ws, .fd = ws->fd};
    ws->heard_ms = now_of(ws);
    ws->sent_ms = ws->heard_ms;
    set_timer(ws);
    feed(ws, early);
    if (home->draining) {
        queue_close(ws, CODE_GOING_AWAY, LIT("the server stops"));
    }
    flush(ws);
}

void http_ws_abandon(struct http_ws *ws)
{
    end_socket(ws);
}

void http_ws_drain(struct http_loop *home)
{
    for (struct http_ws *ws = home->sockets; ws; ws = ws->next) {
        queue_close(ws, CODE_GOING_AWAY, LIT("the server stops"));
    }
}

void http_ws_cut(struct http_loop *home)
{
    while (home->sockets) {
        end_socket(home->sockets);
    }
}

/* --- public --- */

static bool has_token(struct slice list, struct slice token, bool exact)
{
    while (list.len) {
        struct slice item;
        list = slice_cut(list, ',', &item);
        item = slice_trim(item);
        if (exact ? slice_eq(item, token) : slice_eq_nocase(item, token)) {
            return true;
        }
    }
    return false;
}

static bool is_upgrade(const struct http_job *job, struct slice subprotocol)
{
    return job->request.method == HTTP_GET && !job->http_1_0 &&
           has_token(job->upgrade, LIT("websocket"), false) &&
           has_token(job->connection_header, LIT("upgrade"), false) &&
           slice_eq(job->ws_version, LIT("13")) && job->ws_key.len == KEY_BYTES &&
           (!subprotocol.len || has_token(job->ws_protocol, subprotocol, true));
}

struct err http_ws_accept(struct ctx *ctx, const struct http_request *request,
                          struct http_reply *reply, struct slice subprotocol,
                          const struct http_ws_hooks *hooks, void *arg, struct http_ws **ws_out)
{
    struct http_connection *connection = request->connection;
    struct http_job *job = connection->job;
    if (!is_upgrade(job, subprotocol)) {
        http_reply_header(reply, LIT("Upgrade"), LIT("websocket"));
        http_reply_header(reply, LIT("Sec-WebSocket-Version"), LIT("13"));
        return err_make(ERR_M_UPGRADE_REQUIRED, "not a WebSocket upgrade");
    }
    struct http_ws *ws = mem_alloc(sizeof *ws);
    ws->home = connection->home;
    ws->hooks = hooks;
    ws->arg = arg;
    ws->fd = -1;
    ws->timer = (struct http_wheel_entry){.fn = on_timer, .arg = ws};
    atomic_store(&ws->references, 1);
    pthread_mutex_init(&ws->mutex, NULL);
    atomic_fetch_add(&ws->home->server->sockets, 1);
    stats_gauge_add(ws->home->server->config.stats, STAT_http_websockets, 1);
    connection->ws = ws;
    reply->status = 101;
    http_reply_header(reply, LIT("Upgrade"), LIT("websocket"));
    http_reply_header(reply, LIT("Sec-WebSocket-Accept"),
                      http_ws_key_answer(ctx->arena, job->ws_key));
    if (subprotocol.len) {
        http_reply_header(reply, LIT("Sec-WebSocket-Protocol"), subprotocol);
    }
    *ws_out = ws;
    return OK;
}

void http_ws_send(struct http_ws *ws, struct slice text)
{
    queue_chunk(ws, frame_chunk(HTTP_WS_TEXT, text), QUEUE_DATA);
}

static void on_durable(void *arg, struct err err)
{
    struct chunk *chunk = arg;
    struct http_ws *ws = chunk->ws;
    if (err.code) { /* what the frame would promise is not true */
        free_chunk(chunk);
        queue_close(ws, 1011, LIT("the server failed to store"));
    } else {
        queue_chunk(ws, chunk, QUEUE_DATA);
    }
    unref(ws);
}

void http_ws_send_durable(struct http_ws *ws, struct ctx *ctx, struct slice text)
{
    const struct http_server_config *config = &ws->home->server->config;
    struct chunk *chunk = frame_chunk(HTTP_WS_TEXT, text);
    chunk->gate = ctx->gate; /* taken */
    ctx->gate = NULL;
    if (!ctx->write_ticket || !config->when_durable) {
        queue_chunk(ws, chunk, QUEUE_DATA);
        return;
    }
    chunk->ws = ws;
    atomic_fetch_add(&ws->references, 1);
    config->when_durable(config->store, ctx->write_ticket, on_durable, chunk);
}

void http_ws_close(struct http_ws *ws, uint16_t code, struct slice reason)
{
    queue_close(ws, code, reason);
}
