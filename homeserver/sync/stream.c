#include "homeserver/base/mem.h"
#include "homeserver/service/tokens.h"
#include "homeserver/sync/stream_priv.h"

#include <string.h>

void stream_hold(struct stream *stream)
{
    atomic_fetch_add(&stream->refs, 1);
}

void stream_release(struct stream *stream)
{
    if (atomic_fetch_sub(&stream->refs, 1) == 1) {
        sync_params_deinit(&stream->params);
        mem_free(stream->token_owned);
        pthread_mutex_destroy(&stream->lock);
        mem_free(stream);
    }
}

bool stream_put(struct stream *stream, struct slice text)
{
    pthread_mutex_lock(&stream->lock);
    bool open = stream->ws != NULL;
    if (open) {
        http_ws_send(stream->ws, text);
    }
    pthread_mutex_unlock(&stream->lock);
    return open;
}

/* --- ending --- */

static struct slice error_frame(struct ctx *ctx, struct err err, const bool *soft_logout)
{
    const struct errcode_info *info = errcode_get(err.code);
    struct buf buf;
    buf_init_arena(&buf, ctx->arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&buf);
    json_out_object(&out);
    json_out_key_string(&out, LIT("type"), LIT("error"));
    json_out_key_int(&out, LIT("status"), info->http_status);
    json_out_key_string(&out, LIT("errcode"), info->wire);
    json_out_key_string(&out, LIT("error"), err.is_public ? slice_of(err.text) : info->text);
    if (soft_logout != NULL) {
        json_out_key_bool(&out, LIT("soft_logout"), *soft_logout);
    }
    json_out_object_end(&out);
    return buf_slice(&buf);
}

static void end(struct stream *stream, uint16_t close, struct slice frame)
{
    pthread_mutex_lock(&stream->lock);
    if (stream->ws != NULL && stream->phase != STREAM_CLOSED) {
        if (frame.len > 0) {
            http_ws_send(stream->ws, frame);
        }
        http_ws_close(stream->ws, close, LIT(""));
    }
    stream->phase = STREAM_CLOSED;
    stream->deadline_mono_ms = 0;
    pthread_mutex_unlock(&stream->lock);
}

void stream_fail(struct stream *stream, struct ctx *ctx, uint16_t close, struct err err)
{
    end(stream, close, close >= STREAM_CLOSE_BAD_FRAME ? error_frame(ctx, err, NULL) : LIT(""));
}

void stream_fail_token(struct stream *stream, struct ctx *ctx, struct err err, bool soft_logout)
{
    end(stream, STREAM_CLOSE_TOKEN, error_frame(ctx, err, &soft_logout));
}

bool stream_check_token(struct stream *stream, struct ctx *ctx)
{
    struct requester requester = {0};
    enum token_state state = TOKEN_UNKNOWN;
    struct slice token = {stream->token_owned, stream->token_len};
    struct err err = hs_token_find(stream->sync->hs, ctx, token, &requester, &state);
    if (err.code != 0) {
        stream_fail(stream, ctx, STREAM_CLOSE_INTERNAL, err);
    } else if (state == TOKEN_EXPIRED) {
        stream_fail_token(stream, ctx, err_make(ERR_M_UNKNOWN_TOKEN, "expired token"), true);
    } else if (state != TOKEN_VALID) {
        stream_fail_token(stream, ctx, err_make(ERR_M_UNKNOWN_TOKEN, "unknown token"), false);
    } else if (requester.is_locked) {
        stream_fail_token(stream, ctx, err_make(ERR_M_USER_LOCKED, "locked account"), true);
    } else {
        return true;
    }
    return false;
}

/* --- answers --- */

static bool set_phase(struct stream *stream, enum stream_phase phase)
{
    pthread_mutex_lock(&stream->lock);
    bool open = stream->phase != STREAM_CLOSED;
    if (open) {
        stream->phase = phase;
    }
    pthread_mutex_unlock(&stream->lock);
    return open;
}

/* The acknowledgement may come before this returns: everything is noted first. */
static void send_answer(struct stream *stream, struct ctx *ctx, struct buf *frame,
                        const struct sync_answer *answer)
{
    struct slice pos = sync_token_encode(ctx->arena, answer->next);
    buf_printf(frame, ",\"pos\":\"%.*s\"}", (int)pos.len, pos.ptr);
    stream->greeted = true;
    pthread_mutex_lock(&stream->lock);
    if (stream->phase != STREAM_CLOSED && stream->ws != NULL) {
        stream->phase = STREAM_OUTSTANDING;
        stream->sent = answer->next;
        stream->deadline_mono_ms = now_mono_ms(stream->sync->hs->now) + STREAM_ACK_MS;
        http_ws_send(stream->ws, buf_slice(frame));
    }
    pthread_mutex_unlock(&stream->lock);
}

/* True when an answer was sent or the stream is over; otherwise there is nothing new up to
 * *upto_out. */
static bool try_answer(struct stream *stream, struct ctx *ctx, uint64_t *upto_out)
{
    struct sync_answer answer = {0};
    struct buf frame;
    buf_init(&frame, STREAM_BODY_BYTES_MAX);
    buf_add(&frame, LIT("{\"type\":\"sync\",\"data\":"));
    struct err err = sync_params_respond(stream->sync, ctx, &stream->params, &frame, &answer);
    bool done = err.code != 0 || answer.news || !stream->greeted;
    if (err.code != 0) {
        log_error(stream->sync->hs->log, "sync_failed", .user = stream->params.user_id,
                  .err = slice_of(err.text));
        stream_fail(stream, ctx, STREAM_CLOSE_INTERNAL, err);
    } else if (done) {
        send_answer(stream, ctx, &frame, &answer);
    }
    buf_deinit(&frame);
    *upto_out = answer.upto;
    return done;
}

/* Waits for news; false when there is some. A close that came between found no waiter to cancel. */
static bool wait_on(struct stream *stream, uint64_t upto)
{
    struct sync_sessions *sessions = stream->sync->sessions;
    bool open = set_phase(stream, STREAM_WAITING);
    if (!open) {
        stream_release(stream);
        return true;
    }
    if (!sync_sessions_wait(sessions, stream->params.user, upto, &stream->waiter)) {
        return false;
    }
    pthread_mutex_lock(&stream->lock);
    bool closed = stream->phase == STREAM_CLOSED || stream->ws == NULL;
    pthread_mutex_unlock(&stream->lock);
    if (closed && sync_sessions_cancel(sessions, &stream->waiter)) {
        stream_release(stream);
    }
    return true;
}

/* Owns one reference, which ends here or passes to the waiter. */
static void compute_held(struct stream *stream, struct ctx *ctx)
{
    uint64_t upto = 0;
    while (set_phase(stream, STREAM_COMPUTING)) {
        if (try_answer(stream, ctx, &upto)) {
            break;
        }
        if (wait_on(stream, upto)) {
            return;
        }
    }
    stream_release(stream);
}

void stream_compute(struct stream *stream, struct ctx *ctx)
{
    stream_hold(stream);
    compute_held(stream, ctx);
}

static void on_wake(void *arg)
{
    struct stream *stream = arg;
    struct hs *hs = stream->sync->hs;
    struct ctx ctx = {.arena = arena_new(), .now = hs->now, .log = hs->log};
    struct arena *arena = ctx.arena;
    if (stream_check_token(stream, &ctx)) {
        compute_held(stream, &ctx);
    } else {
        stream_release(stream);
    }
    ctx_finish(&ctx);
    arena_free(&arena);
}

/* --- the connection --- */

static void on_close(void *arg)
{
    struct stream *stream = arg;
    pthread_mutex_lock(&stream->lock);
    stream->ws = NULL;
    stream->phase = STREAM_CLOSED;
    pthread_mutex_unlock(&stream->lock);
    streams_remove(stream->streams, stream);
    if (sync_sessions_cancel(stream->sync->sessions, &stream->waiter)) {
        stream_release(stream); /* the waiter's */
    }
    stream_release(stream);
}

static const struct http_ws_hooks hooks = {stream_on_text, on_close};

static struct stream *stream_new(struct sync *sync, struct slice token)
{
    struct stream *stream = mem_alloc(sizeof *stream);
    stream->sync = sync;
    stream->streams = sync->streams;
    pthread_mutex_init(&stream->lock, NULL);
    stream->presence = PRESENCE_ONLINE;
    stream->token_len = token.len;
    stream->token_owned = mem_alloc(token.len + 1);
    if (token.len > 0) {
        memcpy(stream->token_owned, token.ptr, token.len);
    }
    stream->deadline_mono_ms = now_mono_ms(sync->hs->now) + STREAM_AUTH_MS;
    sync_waiter_init(&stream->waiter, LIT(""), on_wake, stream);
    atomic_init(&stream->refs, 1);
    return stream;
}

struct err sync_stream_open(struct sync *sync, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct http_ws *ws = NULL;
    /* The token of a query parameter does not count: URLs end up in logs. */
    struct slice token = request->authorization.len > 0 ? request->token : LIT("");
    struct stream *stream = stream_new(sync, token);
    if (!streams_add(sync->streams, stream)) {
        stream_release(stream);
        return err_public(ERR_M_LIMIT_EXCEEDED, "Too many streams are open; try again later.");
    }
    stream_hold(stream);
    struct err err =
        http_ws_accept(ctx, request, reply, LIT(SYNC_STREAM_PROTOCOL), &hooks, stream, &ws);
    if (err.code != 0) {
        on_close(stream); /* nobody else will call it */
    }
    pthread_mutex_lock(&stream->lock);
    stream->ws = stream->phase != STREAM_CLOSED ? ws : NULL;
    pthread_mutex_unlock(&stream->lock);
    stream_release(stream);
    return err;
}
