/* Frames from the client. One worker at a time runs them, in order. */
#include "homeserver/base/mem.h"
#include "homeserver/service/rates.h"
#include "homeserver/service/sending.h"
#include "homeserver/service/signals.h"
#include "homeserver/service/tokens.h"
#include "homeserver/service/users.h"
#include "homeserver/sync/stream_priv.h"

#include <string.h>

struct frame {
    struct stream *stream;
    struct ctx *ctx;
    const struct json *json;
    uint16_t close;         /* how the stream ends when the frame's handler returns an error */
    int64_t retry_after_ms; /* of a question that came too soon */
};

static struct err bad_frame(struct frame *frame, const char *text)
{
    frame->close = STREAM_CLOSE_BAD_FRAME;
    return err_public(ERR_M_BAD_JSON, text);
}

/* --- members --- */

static struct err get_text(struct frame *frame, struct slice key, struct slice *text_out)
{
    const struct json *value = json_get(frame->json, key);
    *text_out = (struct slice){0};
    if (value == NULL) {
        return OK;
    }
    if (value->type != JSON_STRING) {
        return bad_frame(frame, "A member that must be a string is not.");
    }
    *text_out = value->text;
    return OK;
}

static struct err need_text(struct frame *frame, struct slice key, struct slice *text_out)
{
    struct err err = get_text(frame, key, text_out);
    if (err.code == 0 && text_out->ptr == NULL) {
        frame->close = STREAM_CLOSE_BAD_FRAME;
        return err_publicf(frame->ctx->arena, ERR_M_MISSING_PARAM, "The member %.*s is missing.",
                           (int)key.len, key.ptr);
    }
    return err;
}

static struct err get_flag(struct frame *frame, struct slice key, bool *flag_out)
{
    const struct json *value = json_get(frame->json, key);
    *flag_out = value != NULL && value->type == JSON_BOOL && value->boolean;
    return value == NULL || value->type == JSON_BOOL
               ? OK
               : bad_frame(frame, "A member that must be true or false is not.");
}

/* --- auth --- */

static void keep_token(struct stream *stream, struct slice token)
{
    char *copy = mem_alloc(token.len + 1);
    memcpy(copy, token.ptr, token.len);
    mem_free(stream->token_owned);
    stream->token_owned = copy;
    stream->token_len = token.len;
}

static struct err take_token(struct frame *frame)
{
    struct slice token;
    TRY(get_text(frame, LIT("access_token"), &token));
    if (token.len > 0) {
        keep_token(frame->stream, token);
    }
    if (frame->stream->token_len == 0) {
        frame->close = STREAM_CLOSE_NO_AUTH;
        return err_public(ERR_M_MISSING_TOKEN, "An access token is needed, here or in the header.");
    }
    return OK;
}

static struct err read_filter(struct frame *frame, struct slice *text_out)
{
    const struct json *filter = json_get(frame->json, LIT("filter"));
    *text_out = (struct slice){0};
    if (filter == NULL || filter->type == JSON_STRING) {
        *text_out = filter ? filter->text : *text_out;
        return OK;
    }
    if (filter->type != JSON_OBJECT) {
        return bad_frame(frame, "`filter` must be an id or an object.");
    }
    *text_out = json_canonical(frame->ctx->arena, filter);
    return OK;
}

static struct err read_presence(struct frame *frame)
{
    struct slice text;
    TRY(get_text(frame, LIT("set_presence"), &text));
    if (text.ptr == NULL || slice_eq(text, LIT("online"))) {
        frame->stream->presence = PRESENCE_ONLINE;
    } else if (slice_eq(text, LIT("offline"))) {
        frame->stream->presence = PRESENCE_OFFLINE;
    } else if (slice_eq(text, LIT("unavailable"))) {
        frame->stream->presence = PRESENCE_UNAVAILABLE;
    } else {
        frame->close = STREAM_CLOSE_PARAMETER;
        return err_public(ERR_M_INVALID_PARAM,
                          "`set_presence` must be online, offline or unavailable.");
    }
    return OK;
}

/* The frame's parameters as a request; the filter is checked now, so that later answers cannot fail
 * for it. */
static struct err read_request(struct frame *frame, struct sync_request *request,
                               struct slice *filter_text)
{
    struct sync_filter filter;
    struct slice since;
    TRY(get_text(frame, LIT("since"), &since));
    TRY(get_flag(frame, LIT("full_state"), &request->full_state));
    TRY(get_flag(frame, LIT("use_state_after"), &request->use_state_after));
    TRY(read_filter(frame, filter_text));
    TRY(read_presence(frame));
    frame->close = STREAM_CLOSE_PARAMETER;
    TRY(sync_parse_since(frame->stream->sync, since, request));
    return sync_find_filter(frame->stream->sync, frame->ctx, request->user, *filter_text, &filter);
}

static void say_hello(struct frame *frame, const struct requester *requester)
{
    struct buf buf;
    buf_init_arena(&buf, frame->ctx->arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&buf);
    json_out_object(&out);
    json_out_key_string(&out, LIT("type"), LIT("hello"));
    json_out_key_string(&out, LIT("user_id"), requester->user_id);
    json_out_key_string(&out, LIT("device_id"), requester->device_id);
    json_out_object_end(&out);
    stream_put(frame->stream, buf_slice(&buf));
}

static bool begin(struct stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    bool open = stream->phase == STREAM_OPENING;
    if (open) {
        stream->phase = STREAM_COMPUTING;
        stream->deadline_mono_ms = 0;
    }
    pthread_mutex_unlock(&stream->lock);
    return open;
}

static struct err on_auth(struct frame *frame)
{
    struct stream *stream = frame->stream;
    struct hs *hs = stream->sync->hs;
    struct requester requester = {0};
    enum token_state state = TOKEN_UNKNOWN;
    struct sync_request request = {0};
    struct slice filter_text;
    TRY(take_token(frame));
    struct slice token = {stream->token_owned, stream->token_len};
    TRY(hs_token_find(hs, frame->ctx, token, &requester, &state));
    if (!stream_check_token(stream, frame->ctx)) {
        return OK; /* it has said why */
    }
    request.user = requester.user;
    request.user_id = requester.user_id;
    request.device_id = requester.device_id;
    TRY(read_request(frame, &request, &filter_text));
    stream->is_unlimited = requester.is_unlimited;
    sync_params_copy(&stream->params, &request, filter_text);
    sync_waiter_init(&stream->waiter, stream->params.device_id, stream->waiter.wake, stream);
    if (!begin(stream)) {
        return OK;
    }
    say_hello(frame, &requester);
    hs_presence_touch(hs, request.user, request.device_id, stream->presence);
    frame->close = STREAM_CLOSE_INTERNAL;
    TRY(sync_acknowledge(stream->sync, frame->ctx, &request));
    stream_compute(stream, frame->ctx);
    return OK;
}

/* --- ack --- */

/* Takes the acknowledgement of the outstanding answer; anything else is ignored. */
static bool take_ack(struct stream *stream, struct sync_token token)
{
    pthread_mutex_lock(&stream->lock);
    bool fits = stream->phase == STREAM_OUTSTANDING && token.pos == stream->sent.pos &&
                token.inbox == stream->sent.inbox;
    if (fits) {
        stream->phase = STREAM_COMPUTING;
        stream->deadline_mono_ms = 0;
        stream->params.since = token;
        stream->params.initial = false;
        stream->params.full_state = false;
    }
    pthread_mutex_unlock(&stream->lock);
    return fits;
}

static struct err on_ack(struct frame *frame)
{
    struct stream *stream = frame->stream;
    struct sync_token token;
    struct slice pos;
    TRY(need_text(frame, LIT("pos"), &pos));
    if (sync_token_parse(pos, &token).code != 0 || !take_ack(stream, token) ||
        !stream_check_token(stream, frame->ctx)) {
        return OK;
    }
    struct sync_request request = {
        .user = stream->params.user, .device_id = stream->params.device_id, .since = token};
    TRY(sync_acknowledge(stream->sync, frame->ctx, &request));
    stream_compute(stream, frame->ctx);
    return OK;
}

static struct err on_ping(struct frame *frame)
{
    stream_put(frame->stream, LIT("{\"type\":\"pong\"}"));
    return OK;
}

/* --- questions with a result --- */

struct question {
    struct slice id;
    struct room *room;
    struct actor actor;
};

/* `event_id` is empty when the answer has none. */
static void put_result(struct frame *frame, struct slice id, struct err err, struct slice event_id)
{
    const struct errcode_info *info = err.code != 0 ? errcode_get(err.code) : NULL;
    struct buf buf;
    buf_init_arena(&buf, frame->ctx->arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&buf);
    json_out_object(&out);
    json_out_key_string(&out, LIT("type"), LIT("result"));
    json_out_key_string(&out, LIT("id"), id);
    json_out_key_int(&out, LIT("status"), info ? info->http_status : 200);
    json_out_key_bool(&out, LIT("ok"), info == NULL);
    if (info) {
        json_out_key_string(&out, LIT("errcode"), info->wire);
        json_out_key_string(&out, LIT("error"), err.is_public ? slice_of(err.text) : info->text);
        if (frame->retry_after_ms > 0) {
            json_out_key_int(&out, LIT("retry_after_ms"), frame->retry_after_ms);
        }
    } else if (event_id.len > 0) {
        json_out_key_string(&out, LIT("event_id"), event_id);
    }
    json_out_object_end(&out);
    struct stream *stream = frame->stream;
    pthread_mutex_lock(&stream->lock);
    if (stream->phase != STREAM_CLOSED && stream->ws != NULL) {
        http_ws_send_durable(stream->ws, frame->ctx, buf_slice(&buf));
    }
    pthread_mutex_unlock(&stream->lock);
}

static struct err read_question(struct frame *frame, struct question *question,
                                struct slice *room_id_out)
{
    TRY(need_text(frame, LIT("id"), &question->id));
    TRY(need_text(frame, LIT("room_id"), room_id_out));
    if (question->id.len == 0 || question->id.len > STREAM_ID_BYTES_MAX) {
        return bad_frame(frame, "`id` must have 1 to 64 bytes.");
    }
    question->actor = (struct actor){.user_id = frame->stream->params.user_id,
                                     .user = frame->stream->params.user};
    frame->ctx->author = question->actor.user;
    return OK;
}

/* What the authentication of the request would look at, its rate limit, and the room. */
static struct err admit(struct frame *frame, enum http_rate rate, struct question *question,
                        struct slice room_id)
{
    struct hs *hs = frame->stream->sync->hs;
    uint32_t flags = 0;
    bool found = false;
    if (!stream_check_token(frame->stream, frame->ctx)) {
        return err_make(ERR_M_UNKNOWN_TOKEN, "the stream is over"); /* it has said why */
    }
    TRY(hs_account_flags(hs, frame->ctx, question->actor.user, &flags, &found));
    question->actor.is_guest = (flags & ACCOUNT_GUEST) != 0;
    if (flags & ACCOUNT_SUSPENDED) {
        return err_make(ERR_M_USER_SUSPENDED, "suspended account");
    }
    if (!frame->stream->is_unlimited) {
        TRY(hs_rates_take(hs, frame->ctx, rate, question->actor.user_id, &frame->retry_after_ms));
    }
    if (!ids_is_room(room_id)) {
        return err_public(ERR_M_INVALID_PARAM, "The room id is not valid.");
    }
    struct err err = hs_room_get_by_id(hs, frame->ctx, room_id, &question->room);
    return err.code == ERR_M_NOT_FOUND ? err_public(ERR_M_FORBIDDEN, "You are not in this room.")
                                       : err;
}

static struct err on_send(struct frame *frame)
{
    struct question question = {0};
    struct slice room_id;
    struct slice type;
    struct slice txn_id;
    struct hs_sent sent = {0};
    TRY(read_question(frame, &question, &room_id));
    TRY(need_text(frame, LIT("event_type"), &type));
    TRY(need_text(frame, LIT("txn_id"), &txn_id));
    const struct json *content = json_get_object(frame->json, LIT("content"));
    if (content == NULL) {
        return bad_frame(frame, "`content` must be an object.");
    }
    struct err err = admit(frame, HTTP_RATE_MESSAGE, &question, room_id);
    if (err.code == 0) {
        struct send_request send = {.actor = &question.actor,
                                    .device_id = frame->stream->params.device_id,
                                    .txn_id = txn_id,
                                    .type = type,
                                    .content = content};
        err = hs_send_message(frame->stream->sync->hs, frame->ctx, question.room, &send, &sent);
    }
    put_result(frame, question.id, err, sent.event_id);
    return OK;
}

static struct err on_typing(struct frame *frame)
{
    struct question question = {0};
    struct slice room_id;
    bool typing = false;
    int64_t timeout_ms = HS_TYPING_DEFAULT_MS;
    const struct json *timeout = json_get(frame->json, LIT("timeout"));
    TRY(read_question(frame, &question, &room_id));
    if (json_get(frame->json, LIT("typing")) == NULL) {
        return bad_frame(frame, "`typing` is missing.");
    }
    TRY(get_flag(frame, LIT("typing"), &typing));
    if (timeout && (timeout->type != JSON_INT || timeout->integer < 0)) {
        return bad_frame(frame, "`timeout` must be a number of milliseconds.");
    }
    timeout_ms = timeout ? timeout->integer : timeout_ms;
    struct err err = admit(frame, HTTP_RATE_WRITE, &question, room_id);
    if (err.code == 0) {
        err = hs_typing_request(frame->stream->sync->hs, frame->ctx, question.room, &question.actor,
                                typing ? timeout_ms : 0);
    }
    put_result(frame, question.id, err, LIT(""));
    return OK;
}

static struct err on_receipt(struct frame *frame)
{
    struct question question = {0};
    struct slice room_id;
    struct receipt_request receipt = {.thread_id = json_get(frame->json, LIT("thread_id"))};
    TRY(read_question(frame, &question, &room_id));
    TRY(need_text(frame, LIT("receipt_type"), &receipt.type));
    TRY(need_text(frame, LIT("event_id"), &receipt.event_id));
    struct err err = admit(frame, HTTP_RATE_WRITE, &question, room_id);
    if (err.code == 0) {
        err = hs_receipt_request(frame->stream->sync->hs, frame->ctx, question.room,
                                 &question.actor, &receipt);
    }
    put_result(frame, question.id, err, LIT(""));
    return OK;
}

/* --- dispatch --- */

struct frame_kind {
    struct slice type;
    struct err (*handle)(struct frame *frame);
};

static const struct frame_kind kinds[] = {
    {{"ack", 3}, on_ack},       {{"ping", 4}, on_ping},       {{"send", 4}, on_send},
    {{"typing", 6}, on_typing}, {{"receipt", 7}, on_receipt},
};

static struct err handle(struct frame *frame, enum stream_phase phase)
{
    struct slice type = json_get_string(frame->json, LIT("type"));
    bool is_auth = slice_eq(type, LIT("auth"));
    if (frame->json->type != JSON_OBJECT || type.ptr == NULL) {
        return bad_frame(frame, "A frame must be a JSON object with a string `type`.");
    }
    if ((phase == STREAM_OPENING) != is_auth) {
        return bad_frame(frame, "The first frame, and no other, must be `auth`.");
    }
    if (is_auth) {
        return on_auth(frame);
    }
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        if (slice_eq(type, kinds[i].type)) {
            return kinds[i].handle(frame);
        }
    }
    return bad_frame(frame, "The `type` of this frame is not known.");
}

static struct err handle_text(struct frame *frame, struct slice text, enum stream_phase phase)
{
    struct json json;
    if (text.len > STREAM_FRAME_BYTES_MAX) {
        frame->close = STREAM_CLOSE_TOO_LARGE;
        return err_make(ERR_M_TOO_LARGE, "frame too large");
    }
    if (json_parse(frame->ctx->arena, text, &json).code != 0) {
        return bad_frame(frame, "The frame is not valid JSON.");
    }
    frame->json = &json;
    return handle(frame, phase);
}

void stream_on_text(void *arg, struct ctx *ctx, struct slice text)
{
    struct stream *stream = arg;
    struct frame frame = {.stream = stream, .ctx = ctx, .close = STREAM_CLOSE_INTERNAL};
    pthread_mutex_lock(&stream->lock);
    enum stream_phase phase = stream->phase;
    pthread_mutex_unlock(&stream->lock);
    if (phase != STREAM_CLOSED) {
        struct err err = handle_text(&frame, text, phase);
        if (err.code != 0) {
            stream_fail(stream, ctx, frame.close, err);
        }
    }
    ctx_finish(ctx);
}
