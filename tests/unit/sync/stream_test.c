/* The stream over all services; the WebSocket is a list of frames. */
#include "homeserver/service/devices.h"
#include "homeserver/service/rates.h"
#include "homeserver/service/tokens.h"
#include "homeserver/service/users.h"
#include "homeserver/sync/stream.h"
#include "tests/support/house.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* --- a WebSocket that keeps what is sent --- */

enum { FRAMES_MAX = 64 };

struct http_ws {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char *frames[FRAMES_MAX];
    size_t count, taken;
    uint16_t close_code;
    const struct http_ws_hooks *hooks;
    void *arg;
};

struct err http_ws_accept(struct ctx *ctx, const struct http_request *request,
                          struct http_reply *reply, struct slice subprotocol,
                          const struct http_ws_hooks *hooks, void *arg, struct http_ws **ws_out)
{
    struct http_ws *ws = (struct http_ws *)(uintptr_t)request->connection;
    (void)ctx;
    (void)reply;
    assert_true(slice_eq(subprotocol, LIT(SYNC_STREAM_PROTOCOL)));
    ws->hooks = hooks;
    ws->arg = arg;
    *ws_out = ws;
    return OK;
}

void http_ws_send(struct http_ws *ws, struct slice text)
{
    pthread_mutex_lock(&ws->lock);
    if (ws->count < FRAMES_MAX) {
        ws->frames[ws->count] = calloc(1, text.len + 1);
        memcpy(ws->frames[ws->count++], text.ptr, text.len);
    }
    pthread_cond_signal(&ws->changed);
    pthread_mutex_unlock(&ws->lock);
}

void http_ws_send_durable(struct http_ws *ws, struct ctx *ctx, struct slice text)
{
    (void)ctx;
    http_ws_send(ws, text);
}

void http_ws_close(struct http_ws *ws, uint16_t code, struct slice reason)
{
    (void)reason;
    pthread_mutex_lock(&ws->lock);
    ws->close_code = code;
    pthread_cond_signal(&ws->changed);
    pthread_mutex_unlock(&ws->lock);
}

/* --- a client --- */

struct fixture {
    struct house house;
    struct guest alice, bob;
    struct slice token;
    struct room *room;
    struct http_ws ws;
    struct arena *arena; /* of the frames */
};

static void open_stream(struct fixture *f)
{
    struct http_request request = {
        .connection = (struct http_connection *)(void *)&f->ws,
    };
    struct http_reply reply = {0};
    f->ws =
        (struct http_ws){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct err err = sync_stream_open(f->house.hs.sync, &f->house.ctx, &request, &reply);
    assert_int_equal(err.code, 0);
}

static void close_stream(struct fixture *f)
{
    f->ws.hooks->on_close(f->ws.arg);
    for (size_t i = 0; i < f->ws.count; i++) {
        free(f->ws.frames[i]);
    }
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct issued_tokens tokens;
    house_open(&f->house);
    f->arena = arena_new();
    f->alice = house_guest(&f->house, "alice");
    f->bob = house_guest(&f->house, "bob");
    struct sign_in sign_in = {.user = f->alice.actor.user, .device_id = LIT("DEVICE")};
    assert_int_equal(hs_token_issue(&f->house.hs, &f->house.ctx, &sign_in, &tokens).code, 0);
    f->token = arena_copy(f->arena, tokens.access_token);
    f->room = house_room(&f->house, &f->alice, "{\"preset\":\"public_chat\"}");
    house_member(&f->house, f->room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    house_settle(&f->house);
    open_stream(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    close_stream(f);
    house_close(&f->house);
    arena_free(&f->arena);
    free(f);
    return 0;
}

static void send_text(struct fixture *f, struct slice text)
{
    struct ctx ctx = {.arena = arena_new(), .now = &f->house.now};
    struct arena *arena = ctx.arena;
    f->ws.hooks->on_text(f->ws.arg, &ctx, text);
    ctx_finish(&ctx);
    ctx_open_gate(&ctx);
    arena_free(&arena);
}

static void send_auth(struct fixture *f, const char *more)
{
    send_text(f, arena_printf(
                     f->arena,
                     "{\"type\":\"auth\",\"set_presence\":\"offline\",\"access_token\":\"%.*s\"%s}",
                     (int)f->token.len, f->token.ptr, more));
}

/* The next frame; waits for it. */
static struct json next_frame(struct fixture *f)
{
    struct json json;
    pthread_mutex_lock(&f->ws.lock);
    while (f->ws.taken == f->ws.count) {
        pthread_cond_wait(&f->ws.changed, &f->ws.lock);
    }
    struct slice text = arena_copy(f->arena, slice_of(f->ws.frames[f->ws.taken++]));
    pthread_mutex_unlock(&f->ws.lock);
    assert_int_equal(json_parse(f->arena, text, &json).code, 0);
    return json;
}

static struct json expect_frame(struct fixture *f, const char *type)
{
    struct json frame = next_frame(f);
    assert_true(json_is_string(json_get(&frame, LIT("type")), slice_of(type)));
    return frame;
}

static void send_ack(struct fixture *f, const struct json *frame)
{
    struct slice pos = json_get_string(frame, LIT("pos"));
    const struct json *data = json_get(frame, LIT("data"));
    assert_true(json_is_string(json_get(data, LIT("next_batch")), pos));
    send_text(f,
              arena_printf(f->arena, "{\"type\":\"ack\",\"pos\":\"%.*s\"}", (int)pos.len, pos.ptr));
}

/* Bodies of the timeline of the room in a sync frame, each followed by a space. */
static const char *bodies(struct fixture *f, const struct json *frame)
{
    struct buf buf;
    buf_init_arena(&buf, f->arena, 1 << 16);
    const struct json *rooms = json_get(json_get(frame, LIT("data")), LIT("rooms"));
    const struct json *room = json_get(json_get(rooms, LIT("join")), hs_room_info(f->room).room_id);
    const struct json *events = json_get_array(json_get(room, LIT("timeline")), LIT("events"));
    for (uint32_t i = 0; events && i < events->count; i++) {
        struct slice body =
            json_get_string(json_get(&events->items[i], LIT("content")), LIT("body"));
        buf_add(&buf, body);
        buf_add(&buf, body.ptr ? LIT(" ") : LIT(""));
    }
    return arena_cstr(f->arena, buf_slice(&buf));
}

static void check_error(struct fixture *f, const struct json *frame, uint16_t code,
                        const char *errcode)
{
    assert_true(json_is_string(json_get(frame, LIT("type")), LIT("error")));
    assert_true(json_is_string(json_get(frame, LIT("errcode")), slice_of(errcode)));
    pthread_mutex_lock(&f->ws.lock);
    while (f->ws.close_code == 0) {
        pthread_cond_wait(&f->ws.changed, &f->ws.lock);
    }
    pthread_mutex_unlock(&f->ws.lock);
    assert_int_equal(f->ws.close_code, code);
}

static void expect_close(struct fixture *f, uint16_t code, const char *errcode)
{
    struct json frame = next_frame(f);
    check_error(f, &frame, code, errcode);
}

/* --- tests --- */

static void hello_and_the_first_answer_follow_auth(void **state)
{
    struct fixture *f = *state;
    send_auth(f, "");
    struct json hello = expect_frame(f, "hello");
    assert_true(json_is_string(json_get(&hello, LIT("user_id")), LIT("@alice:test")));
    assert_true(json_is_string(json_get(&hello, LIT("device_id")), LIT("DEVICE")));
    struct json first = expect_frame(f, "sync");
    assert_non_null(json_get(json_get(&first, LIT("data")), LIT("rooms")));
    assert_int_equal(f->ws.count, 2);
}

static void news_is_pushed_after_the_acknowledgement_and_merged_before_it(void **state)
{
    struct fixture *f = *state;
    send_auth(f, "");
    (void)expect_frame(f, "hello");
    struct json first = expect_frame(f, "sync");
    house_say(&f->house, f->room, &f->bob, "one");
    house_say(&f->house, f->room, &f->bob, "two");
    house_settle(&f->house);
    assert_int_equal(f->ws.count, 2); /* at most one is outstanding */
    send_ack(f, &first);
    struct json second = expect_frame(f, "sync");
    assert_string_equal(bodies(f, &second), "one two ");
    send_ack(f, &second);
    house_say(&f->house, f->room, &f->bob, "three");
    struct json third = expect_frame(f, "sync");
    assert_string_equal(bodies(f, &third), "three ");
}

static void a_wrong_acknowledgement_is_ignored(void **state)
{
    struct fixture *f = *state;
    send_auth(f, "");
    (void)expect_frame(f, "hello");
    struct json first = expect_frame(f, "sync");
    house_say(&f->house, f->room, &f->bob, "one");
    house_settle(&f->house);
    send_text(f, LIT("{\"type\":\"ack\",\"pos\":\"s1\"}"));
    send_text(f, LIT("{\"type\":\"ack\",\"pos\":\"junk\"}"));
    assert_int_equal(f->ws.count, 2);
    send_ack(f, &first);
    struct json second = expect_frame(f, "sync");
    assert_string_equal(bodies(f, &second), "one ");
}

static void a_stream_resumes_where_the_token_says(void **state)
{
    struct fixture *f = *state;
    send_auth(f, "");
    (void)expect_frame(f, "hello");
    struct json first = expect_frame(f, "sync");
    struct slice pos = json_get_string(&first, LIT("pos"));
    house_say(&f->house, f->room, &f->bob, "one");
    house_settle(&f->house);
    close_stream(f);
    open_stream(f);
    send_auth(f, arena_printf(f->arena, ",\"since\":\"%.*s\"", (int)pos.len, pos.ptr).ptr);
    (void)expect_frame(f, "hello");
    struct json again = expect_frame(f, "sync");
    assert_string_equal(bodies(f, &again), "one ");
    send_ack(f, &again);
    assert_int_equal(f->ws.count, 2);
}

static void sending_over_the_stream_answers_and_is_seen(void **state)
{
    struct fixture *f = *state;
    struct slice room_id = hs_room_info(f->room).room_id;
    send_auth(f, "");
    (void)expect_frame(f, "hello");
    struct json first = expect_frame(f, "sync");
    struct slice message = arena_printf(
        f->arena,
        "{\"type\":\"send\",\"id\":\"7\",\"room_id\":\"%.*s\",\"event_type\":\"m.room.message\","
        "\"content\":{\"msgtype\":\"m.text\",\"body\":\"mine\"},\"txn_id\":\"t\"}",
        (int)room_id.len, room_id.ptr);
    send_text(f, message);
    struct json result = expect_frame(f, "result");
    assert_true(json_is_string(json_get(&result, LIT("id")), LIT("7")));
    assert_true(json_get_bool(&result, LIT("ok"), false));
    send_text(f, message); /* the same transaction again */
    struct json replay = expect_frame(f, "result");
    assert_true(json_eq(&result, &replay));
    house_settle(&f->house);
    send_ack(f, &first);
    struct json second = expect_frame(f, "sync");
    assert_string_equal(bodies(f, &second), "mine ");
}

static void expect_end_at_send(struct fixture *f, const char *errcode)
{
    struct slice room_id = hs_room_info(f->room).room_id;
    send_text(f, arena_printf(f->arena,
                              "{\"type\":\"send\",\"id\":\"1\",\"room_id\":\"%.*s\","
                              "\"event_type\":\"m.x\",\"content\":{},\"txn_id\":\"t\"}",
                              (int)room_id.len, room_id.ptr));
    struct json error = expect_frame(f, "error");
    assert_true(json_is_string(json_get(&error, LIT("errcode")), slice_of(errcode)));
}

static void who_has_logged_out_sends_no_more(void **state)
{
    struct fixture *f = *state;
    uint64_t alice = f->alice.actor.user;
    send_auth(f, "");
    (void)expect_frame(f, "hello");
    (void)expect_frame(f, "sync");
    assert_int_equal(
        hs_devices_delete_others(&f->house.hs, &f->house.ctx, alice, (struct slice){0}).code, 0);
    expect_end_at_send(f, "M_UNKNOWN_TOKEN");
}

static void who_is_locked_sends_no_more(void **state)
{
    struct fixture *f = *state;
    send_auth(f, "");
    (void)expect_frame(f, "hello");
    (void)expect_frame(f, "sync");
    assert_int_equal(hs_account_set_flags(&f->house.hs, &f->house.ctx, f->alice.actor.user,
                                          ACCOUNT_LOCKED, ACCOUNT_LOCKED)
                         .code,
                     0);
    expect_end_at_send(f, "M_USER_LOCKED");
}

static void a_refused_send_says_why(void **state)
{
    struct fixture *f = *state;
    send_auth(f, "");
    (void)expect_frame(f, "hello");
    (void)expect_frame(f, "sync");
    send_text(f, LIT("{\"type\":\"send\",\"id\":\"1\",\"room_id\":\"!x:test\",\"event_type\":\"m\","
                     "\"content\":{},\"txn_id\":\"t\"}"));
    struct json result = expect_frame(f, "result");
    int64_t status = 0;
    assert_true(json_get_int(&result, LIT("status"), &status));
    assert_int_equal(status, 403);
    assert_true(json_is_string(json_get(&result, LIT("errcode")), LIT("M_FORBIDDEN")));
    send_text(f, LIT("{\"type\":\"ping\"}"));
    (void)expect_frame(f, "pong");
}

static int64_t retry_after_ms(const struct json *result)
{
    int64_t after_ms = 0;
    assert_true(json_is_string(json_get(result, LIT("errcode")), LIT("M_LIMIT_EXCEEDED")));
    assert_true(json_get_int(result, LIT("retry_after_ms"), &after_ms));
    return after_ms;
}

static void questions_take_their_tokens_where_requests_do(void **state)
{
    static const char *const frames[] = {
        "{\"type\":\"send\",\"id\":\"1\",\"room_id\":\"%.*s\",\"event_type\":\"m.x\","
        "\"content\":{},\"txn_id\":\"t%zu\"}",
        "{\"type\":\"typing\",\"id\":\"2\",\"room_id\":\"%.*s\",\"typing\":true,\"x\":%zu}",
        "{\"type\":\"receipt\",\"id\":\"3\",\"room_id\":\"%.*s\",\"receipt_type\":\"m.read\","
        "\"event_id\":\"$x%zu\"}",
    };
    struct fixture *f = *state;
    struct hs *hs = &f->house.hs;
    struct slice room_id = hs_room_info(f->room).room_id;
    const struct http_rate_rule rules[HTTP_RATES] = {
        [HTTP_RATE_MESSAGE] = {3, 500}, [HTTP_RATE_WRITE] = {3, 500}};
    int64_t after_ms = 0;
    hs->ratelimit = http_ratelimit_new(rules, 100);
    send_auth(f, "");
    (void)expect_frame(f, "hello");
    (void)expect_frame(f, "sync");
    /* A request of the same user has taken one of three. */
    struct slice user = f->alice.actor.user_id;
    assert_int_equal(hs_rates_take(hs, &f->house.ctx, HTTP_RATE_MESSAGE, user, &after_ms).code, 0);
    assert_int_equal(hs_rates_take(hs, &f->house.ctx, HTTP_RATE_WRITE, user, &after_ms).code, 0);
    for (size_t i = 0; i < 5; i++) {
        static const size_t order[] = {0, 0, 0, 1, 2};
        char text[512];
        snprintf(text, sizeof text, frames[order[i]], (int)room_id.len, room_id.ptr, i);
        send_text(f, slice_of(text));
        struct json result = expect_frame(f, "result");
        assert_true(i == 2 || json_get(&result, LIT("retry_after_ms")) == NULL);
        assert_true(i != 2 || retry_after_ms(&result) == 2000);
    }
    send_text(f, arena_printf(f->arena, frames[1], (int)room_id.len, room_id.ptr, (size_t)9));
    struct json result = expect_frame(f, "result"); /* one bucket for typing and receipts */
    assert_int_equal(retry_after_ms(&result), 2000);
    f->house.mono_ms += 2000;
    send_text(f, arena_printf(f->arena, frames[0], (int)room_id.len, room_id.ptr, (size_t)10));
    result = expect_frame(f, "result");
    assert_true(json_get_bool(&result, LIT("ok"), false));
    http_ratelimit_free(&hs->ratelimit);
}

static void the_stream_ends_when_the_token_dies(void **state)
{
    struct fixture *f = *state;
    struct issued_tokens tokens;
    struct sign_in sign_in = {.user = f->alice.actor.user, .device_id = LIT("DEVICE")};
    send_auth(f, "");
    (void)expect_frame(f, "hello");
    struct json first = expect_frame(f, "sync");
    send_ack(f, &first);
    /* Signing in again with the same device ends the old token. */
    assert_int_equal(hs_token_issue(&f->house.hs, &f->house.ctx, &sign_in, &tokens).code, 0);
    house_say(&f->house, f->room, &f->bob, "one");
    house_settle(&f->house);
    struct json frame = next_frame(f);
    if (json_is_string(json_get(&frame, LIT("type")), LIT("sync"))) {
        send_ack(f, &frame); /* something was new before the token died */
        frame = next_frame(f);
    }
    check_error(f, &frame, 4001, "M_UNKNOWN_TOKEN");
}

static void faulty_frames_end_the_stream_with_a_reason(void **state)
{
    static const struct {
        const char *text;
        uint16_t close;
        const char *errcode;
    } cases[] = {
        {"{", 4000, "M_BAD_JSON"},
        {"[]", 4000, "M_BAD_JSON"},
        {"{\"type\":\"ping\"}", 4000, "M_BAD_JSON"},
        {"{\"type\":\"auth\",\"access_token\":1}", 4000, "M_BAD_JSON"},
        {"{\"type\":\"auth\"}", 4002, "M_MISSING_TOKEN"},
        {"{\"type\":\"auth\",\"access_token\":\"nobody\"}", 4001, "M_UNKNOWN_TOKEN"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        send_text(f, slice_of(cases[i].text));
        expect_close(f, cases[i].close, cases[i].errcode);
        send_text(f, LIT("{\"type\":\"ping\"}")); /* nobody listens any more */
        close_stream(f);
        open_stream(f);
    }
    send_auth(f, ",\"since\":\"junk\"");
    expect_close(f, 4003, "M_INVALID_PARAM");
}

#define STREAM_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STREAM_TEST(hello_and_the_first_answer_follow_auth),
        STREAM_TEST(news_is_pushed_after_the_acknowledgement_and_merged_before_it),
        STREAM_TEST(a_wrong_acknowledgement_is_ignored),
        STREAM_TEST(a_stream_resumes_where_the_token_says),
        STREAM_TEST(sending_over_the_stream_answers_and_is_seen),
        STREAM_TEST(who_has_logged_out_sends_no_more),
        STREAM_TEST(who_is_locked_sends_no_more),
        STREAM_TEST(a_refused_send_says_why),
        STREAM_TEST(questions_take_their_tokens_where_requests_do),
        STREAM_TEST(the_stream_ends_when_the_token_dies),
        STREAM_TEST(faulty_frames_end_the_stream_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
