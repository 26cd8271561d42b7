/* From an event to the gateway, with a gateway that is a function. */
#include "homeserver/push/push_priv.h"

#include "homeserver/service/prefs.h"
#include "homeserver/service/signals.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { LETTERS_MAX = 64, BODY_BYTES_MAX = 8192 };
#define GATEWAY "https://push.example/_matrix/push/v1/notify"

static struct house h;
static struct guest ann, ben, cat;
static struct room *room;
static struct push *push;

/* What went out, and what comes back. */
static struct {
    pthread_mutex_t lock;
    char urls[LETTERS_MAX][128];
    char bodies[LETTERS_MAX][BODY_BYTES_MAX];
    size_t count;
    int status;
    const char *answer, *dead; /* an URL that starts so has no answer */
} wire;

static struct err fetch(void *arg, struct ctx *ctx, const struct http_fetch_request *request,
                        struct http_fetch_reply *reply_out)
{
    (void)arg;
    (void)ctx;
    pthread_mutex_lock(&wire.lock);
    ASSERT(wire.count < LETTERS_MAX);
    snprintf(wire.urls[wire.count], sizeof wire.urls[0], "%.*s", (int)request->url.len,
             request->url.ptr);
    snprintf(wire.bodies[wire.count], sizeof wire.bodies[0], "%.*s", (int)request->body.len,
             request->body.ptr);
    wire.count++;
    bool dead = wire.dead && slice_has_prefix(request->url, slice_of(wire.dead));
    *reply_out = (struct http_fetch_reply){.status = wire.status, .body = slice_of(wire.answer)};
    pthread_mutex_unlock(&wire.lock);
    return dead ? err_make(ERR_UNAVAILABLE, "nobody is there") : OK;
}

static void begin(void)
{
    struct push_config config = {.port = {.fetch = fetch}};
    house_settle(&h);
    h.hs.waiters = workers_new("waiter", 4, 1000);
    push = push_new(&h.hs, &config);
    h.hs.push = push;
    assert_int_equal(push_start(push).code, 0);
}

static void end(void (*stop)(struct push *))
{
    house_settle(&h);
    stop(push);
    workers_free(&h.hs.waiters);
    push_free(&push);
}

static void settle(void)
{
    house_settle(&h);
    push_settle(push);
}

static void later(int64_t ms)
{
    h.wall_ms += ms;
    h.mono_ms += ms;
    settle();
}

static void set_pusher(const struct guest *guest, const char *key, const char *members)
{
    struct pusher pusher = {.app_id = LIT("app"),
                            .pushkey = slice_of(key),
                            .device_id = guest->device_id,
                            .set_ms = 5000,
                            .json = slice_of(members)};
    assert_int_equal(hs_pusher_set(&h.hs, &h.ctx, guest->actor.user, &pusher, PUSHER_APPEND).code,
                     0);
}

#define PLAIN "{\"data\":{\"brand\":\"x\",\"url\":\"" GATEWAY "\"},\"kind\":\"http\"}"

static int open_house(void **state)
{
    (void)state;
    wire.count = 0;
    wire.status = 200;
    wire.answer = "{\"rejected\":[]}";
    wire.dead = NULL;
    pthread_mutex_init(&wire.lock, NULL);
    house_open(&h);
    ann = house_guest(&h, "ann");
    ben = house_guest(&h, "ben");
    cat = house_guest(&h, "cat");
    room = house_room(&h, &ann, "{\"preset\":\"public_chat\",\"name\":\"Den\"}");
    house_member(&h, room, &ben, &ben, MEMBERSHIP_JOIN);
    house_member(&h, room, &cat, &cat, MEMBERSHIP_JOIN);
    begin();
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    end(push_stop);
    house_close(&h);
    return 0;
}

/* The notification of a letter. */
static const struct json *notification(size_t at)
{
    struct json *json = arena_alloc(h.ctx.arena, sizeof *json);
    assert_true(at < wire.count);
    assert_int_equal(json_parse(h.ctx.arena, slice_of(wire.bodies[at]), json).code, 0);
    return json_get(json, LIT("notification"));
}

static void expect_text(const struct json *object, const char *key, const char *text)
{
    struct slice found = json_get_string(object, slice_of(key));
    assert_string_equal(arena_cstr(h.ctx.arena, found), text);
}

static int64_t unread_of(size_t at)
{
    int64_t unread = -1;
    json_get_int(json_get(notification(at), LIT("counts")), LIT("unread"), &unread);
    return unread;
}

static void read_up_to(const struct guest *guest, struct slice event_id)
{
    struct receipt_request request = {.type = LIT("m.read"), .event_id = event_id};
    assert_int_equal(hs_receipt_request(&h.hs, &h.ctx, room, &guest->actor, &request).code, 0);
}

/* --- */

static void a_message_reaches_the_gateway_with_all_it_says(void **state)
{
    (void)state;
    set_pusher(&ben, "key", PLAIN);
    struct slice event_id = house_say(&h, room, &ann, "hello");
    settle();
    assert_int_equal(wire.count, 1);
    assert_string_equal(wire.urls[0], GATEWAY);
    const struct json *said = notification(0);
    expect_text(said, "event_id", arena_cstr(h.ctx.arena, event_id));
    expect_text(said, "type", "m.room.message");
    expect_text(said, "sender", "@ann:test");
    expect_text(said, "room_name", "Den");
    expect_text(json_get(said, LIT("content")), "body", "hello");
    assert_int_equal(unread_of(0), 1);
    const struct json *device = &json_get_array(said, LIT("devices"))->items[0];
    expect_text(device, "app_id", "app");
    expect_text(device, "pushkey", "key");
    expect_text(json_get(device, LIT("data")), "brand", "x");
    assert_null(json_get(json_get(device, LIT("data")), LIT("url")));
    int64_t ts = 0;
    assert_true(json_get_int(device, LIT("pushkey_ts"), &ts));
    assert_int_equal(ts, 5);
}

static void a_message_to_few_has_a_sound(void **state)
{
    (void)state;
    set_pusher(&ben, "key", PLAIN);
    house_member(&h, room, &cat, &cat, MEMBERSHIP_LEAVE);
    house_say(&h, room, &ann, "hello");
    settle();
    assert_int_equal(wire.count, 1);
    const struct json *said = notification(0);
    const struct json *device = &json_get_array(said, LIT("devices"))->items[0];
    expect_text(json_get(device, LIT("tweaks")), "sound", "default");
    expect_text(said, "prio", "high");
}

static void who_wants_ids_alone_gets_no_more(void **state)
{
    (void)state;
    set_pusher(&ben, "key",
               "{\"data\":{\"format\":\"event_id_only\",\"url\":\"" GATEWAY
               "\"},\"kind\":\"http\"}");
    house_say(&h, room, &ann, "secret");
    settle();
    assert_int_equal(wire.count, 1);
    assert_null(strstr(wire.bodies[0], "secret"));
    assert_null(json_get(notification(0), LIT("sender")));
    assert_non_null(json_get(notification(0), LIT("event_id")));
    assert_non_null(json_get(notification(0), LIT("room_id")));
    assert_int_equal(unread_of(0), 1);
}

static void the_operator_may_keep_content_here(void **state)
{
    (void)state;
    h.conf.push_include_content = false;
    set_pusher(&ben, "key", PLAIN);
    house_say(&h, room, &ann, "secret");
    settle();
    assert_int_equal(wire.count, 1);
    assert_null(strstr(wire.bodies[0], "secret"));
    expect_text(notification(0), "sender", "@ann:test");
}

static void a_room_without_a_name_is_named_by_its_members(void **state)
{
    (void)state;
    set_pusher(&ben, "key", PLAIN);
    room = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    house_member(&h, room, &ben, &ben, MEMBERSHIP_JOIN);
    house_say(&h, room, &ann, "hello");
    settle();
    expect_text(notification(0), "room_name", "@ann:test");
}

static void only_those_with_pushers_and_others_events_count(void **state)
{
    (void)state;
    house_say(&h, room, &ann, "nobody listens");
    set_pusher(&ann, "own", PLAIN);
    house_say(&h, room, &ann, "to myself");
    settle();
    assert_int_equal(wire.count, 0);
}

static void a_rejected_key_removes_the_pusher(void **state)
{
    (void)state;
    struct pushers left;
    wire.answer = "{\"rejected\":[\"key\"]}";
    set_pusher(&ben, "key", PLAIN);
    house_say(&h, room, &ann, "one");
    settle();
    assert_int_equal(hs_pushers_list(&h.hs, &h.ctx, ben.actor.user, &left).code, 0);
    assert_int_equal(left.count, 0);
    house_say(&h, room, &ann, "two");
    settle();
    assert_int_equal(wire.count, 1);
}

static void a_gateway_that_is_away_gets_it_later_and_once(void **state)
{
    (void)state;
    wire.dead = GATEWAY;
    set_pusher(&ben, "key", PLAIN);
    house_say(&h, room, &ann, "one");
    house_say(&h, room, &ann, "two");
    settle();
    assert_int_equal(wire.count, 1);
    later(100);
    assert_int_equal(wire.count, 1);
    wire.dead = NULL;
    later(5000);
    assert_int_equal(wire.count, 3);
    assert_string_equal(wire.bodies[0], wire.bodies[1]);
    expect_text(json_get(notification(2), LIT("content")), "body", "two");
    later(3600 * 1000);
    assert_int_equal(wire.count, 3);
}

static void of_a_dead_gateway_one_pusher_tries(void **state)
{
    (void)state;
    wire.dead = "https://dead.example";
    set_pusher(&ben, "key", PLAIN);
    set_pusher(&cat, "a",
               "{\"data\":{\"url\":\"https://dead.example/_matrix/push/v1/notify\"},"
               "\"kind\":\"http\"}");
    house_say(&h, room, &ann, "one");
    settle();
    set_pusher(&ben, "b",
               "{\"data\":{\"url\":\"https://dead.example/_matrix/push/v1/notify\"},"
               "\"kind\":\"http\"}");
    house_say(&h, room, &ann, "two");
    settle();
    size_t dead = 0;
    for (size_t i = 0; i < wire.count; i++) {
        dead += strstr(wire.urls[i], "dead") ? 1 : 0;
    }
    assert_int_equal(dead, 1);
    assert_int_equal(wire.count, 3); /* and the other gateway has both */
}

static void what_is_older_than_a_day_is_given_up(void **state)
{
    (void)state;
    wire.dead = GATEWAY;
    set_pusher(&ben, "key", PLAIN);
    house_say(&h, room, &ann, "old");
    settle();
    wire.dead = NULL;
    size_t before = wire.count;
    later(25 * 3600 * 1000);
    assert_int_equal(wire.count, before);
    house_say(&h, room, &ann, "new");
    settle();
    assert_int_equal(wire.count, before + 1);
}

static void what_the_gateway_refuses_does_not_hold_up_the_next(void **state)
{
    (void)state;
    wire.status = 400;
    set_pusher(&ben, "key", PLAIN);
    house_say(&h, room, &ann, "one");
    settle();
    for (int i = 0; i < 10; i++) {
        later(3600 * 1000 / 2);
    }
    assert_int_equal(wire.count, 5);
    wire.status = 200;
    house_say(&h, room, &ann, "two");
    settle();
    assert_int_equal(wire.count, 6);
}

static void a_crash_loses_nothing_and_repeats_nothing_that_was_taken(void **state)
{
    (void)state;
    set_pusher(&ben, "key", PLAIN);
    house_say(&h, room, &ann, "taken");
    settle();
    wire.dead = GATEWAY;
    house_say(&h, room, &ann, "waits");
    settle();
    end(push_abandon);
    house_say(&h, room, &ann, "unheard");
    wire.dead = NULL;
    wire.count = 0;
    begin();
    settle();
    later(5000);
    assert_int_equal(wire.count, 2);
    expect_text(json_get(notification(0), LIT("content")), "body", "waits");
    expect_text(json_get(notification(1), LIT("content")), "body", "unheard");
}

static void what_was_read_meanwhile_is_not_pushed(void **state)
{
    (void)state;
    wire.dead = GATEWAY;
    set_pusher(&ben, "key", PLAIN);
    house_say(&h, room, &ann, "one");
    settle();
    read_up_to(&ben, house_say(&h, room, &ann, "two"));
    wire.dead = NULL;
    wire.count = 0;
    later(5000);
    assert_int_equal(wire.count, 0);
}

static void reading_pushes_the_count_alone(void **state)
{
    (void)state;
    set_pusher(&ben, "key", PLAIN);
    struct slice event_id = house_say(&h, room, &ann, "one");
    settle();
    read_up_to(&ben, event_id);
    settle();
    assert_int_equal(wire.count, 1);
    later(2000);
    assert_int_equal(wire.count, 2);
    assert_null(json_get(notification(1), LIT("event_id")));
    assert_int_equal(unread_of(1), 0);
    read_up_to(&ben, house_say(&h, room, &ben, "back"));
    later(2000);
    assert_int_equal(wire.count, 2); /* it is zero already */
}

static int64_t missed_of(size_t at)
{
    int64_t missed = 0;
    json_get_int(json_get(notification(at), LIT("counts")), LIT("missed_calls"), &missed);
    return missed;
}

static void a_call_is_missed_when_it_rings_no_more(void **state)
{
    (void)state;
    set_pusher(&ben, "key", PLAIN);
    house_send(&h, room, &ann, "m.call.invite", "{\"call_id\":\"1\"}");
    settle();
    assert_int_equal(missed_of(0), 0);
    house_say(&h, room, &ann, "call me back");
    settle();
    assert_int_equal(missed_of(1), 1);
    house_send(&h, room, &ben, "m.call.answer", "{\"call_id\":\"1\"}");
    house_say(&h, room, &ann, "there you are");
    settle();
    assert_int_equal(missed_of(2), 0);
    assert_int_equal(unread_of(2), 1);
}

static void a_pusher_that_is_off_is_left_alone(void **state)
{
    (void)state;
    set_pusher(&ben, "key",
               "{\"data\":{\"url\":\"" GATEWAY
               "\"},\"kind\":\"http\",\"org.matrix.msc3881.enabled\":false}");
    house_say(&h, room, &ann, "one");
    settle();
    assert_int_equal(wire.count, 0);
}

static void an_invite_is_pushed_to_whom_it_concerns(void **state)
{
    (void)state;
    set_pusher(&cat, "key", PLAIN);
    struct room *den = house_room(&h, &ann, "{\"name\":\"Attic\"}");
    house_member(&h, den, &ann, &cat, MEMBERSHIP_INVITE);
    settle();
    assert_int_equal(wire.count, 1);
    const struct json *said = notification(0);
    expect_text(said, "type", "m.room.member");
    expect_text(said, "room_name", "Attic");
    assert_true(json_get_bool(said, LIT("user_is_target"), false));
}

static void an_invite_during_a_crash_is_pushed(void **state)
{
    (void)state;
    set_pusher(&cat, "key", PLAIN);
    struct room *den = house_room(&h, &ann, "{}");
    settle();
    end(push_abandon);
    house_member(&h, den, &ann, &cat, MEMBERSHIP_INVITE);
    begin();
    settle();
    assert_int_equal(wire.count, 1);
    expect_text(notification(0), "type", "m.room.member");
}

static void reading_during_a_crash_pushes_the_count(void **state)
{
    (void)state;
    set_pusher(&ben, "key", PLAIN);
    struct slice event_id = arena_copy(h.conf_arena, house_say(&h, room, &ann, "one"));
    settle();
    end(push_abandon);
    read_up_to(&ben, event_id);
    begin();
    settle();
    later(2000);
    assert_int_equal(wire.count, 2);
    assert_int_equal(unread_of(1), 0);
}

static void an_orderly_end_is_no_crash(void **state)
{
    (void)state;
    set_pusher(&ben, "key", PLAIN);
    wire.dead = GATEWAY;
    house_say(&h, room, &ann, "one");
    settle();
    end(push_stop);
    wire.dead = NULL;
    wire.count = 0;
    begin();
    settle();
    later(5000);
    assert_int_equal(wire.count, 1);
}

static void an_invite_that_was_answered_is_no_news(void **state)
{
    (void)state;
    wire.dead = GATEWAY;
    set_pusher(&cat, "key", PLAIN);
    struct room *den = house_room(&h, &ann, "{}");
    house_member(&h, den, &ann, &cat, MEMBERSHIP_INVITE);
    settle();
    house_member(&h, den, &cat, &cat, MEMBERSHIP_LEAVE);
    wire.dead = NULL;
    wire.count = 0;
    later(5000);
    assert_int_equal(wire.count, 0);
}

static void who_is_ignored_pushes_nothing(void **state)
{
    (void)state;
    set_pusher(&ben, "key", PLAIN);
    assert_int_equal(hs_account_data_put(&h.hs, &h.ctx, ben.actor.user, 0,
                                         LIT("m.ignored_user_list"),
                                         LIT("{\"ignored_users\":{\"@ann:test\":{}}}"))
                         .code,
                     0);
    house_say(&h, room, &ann, "one");
    settle();
    assert_int_equal(wire.count, 0);
}

static void an_invite_that_is_not_shown_is_not_pushed(void **state)
{
    (void)state;
    struct room *den = house_room(&h, &ann, "{\"name\":\"Den\"}");
    set_pusher(&cat, "key", PLAIN);
    assert_int_equal(hs_account_data_put(&h.hs, &h.ctx, cat.actor.user, 0,
                                         LIT("org.matrix.msc4155.invite_permission_config"),
                                         LIT("{\"ignored_users\":[\"@ann:test\"]}"))
                         .code,
                     0);
    house_member(&h, den, &ann, &cat, MEMBERSHIP_INVITE);
    settle();
    assert_int_equal(wire.count, 0);
}

static void a_queue_that_grows_too_long_loses_its_oldest(void **state)
{
    (void)state;
    struct push_items items;
    wire.dead = GATEWAY;
    set_pusher(&ben, "key", PLAIN);
    for (int i = 0; i < PUSH_QUEUE_MAX + 20; i++) {
        house_say(&h, room, &ann, "one");
        house_next_job(&h);
    }
    settle();
    assert_int_equal(hs_push_read(&h.hs, &h.ctx, ben.actor.user,
                                  hs_pusher_name(&h.ctx, LIT("app"), LIT("key")), 0, &items)
                         .code,
                     0);
    assert_true(items.count <= PUSH_QUEUE_MAX);
    assert_true(items.count > PUSH_QUEUE_MAX / 2);
}

static void the_key_of_web_push_is_computed_for_who_asks(void **state)
{
    static const unsigned char secret[P256_SECRET_BYTES] = {7};
    unsigned char told[P256_PUBLIC_BYTES];
    struct p256_key key;
    struct push_config config = {.port = {.fetch = fetch}, .vapid_secret = secret};
    (void)state;
    assert_false(push_vapid_public(NULL, told));
    assert_false(push_vapid_public(push, told));
    house_settle(&h);
    struct push *other = push_new(&h.hs, &config);
    assert_true(p256_from_secret(secret, &key));
    for (int i = 0; i < 2; i++) {
        assert_true(push_vapid_public(other, told));
        assert_memory_equal(told, key.public_key, sizeof told);
    }
    push_free(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_message_reaches_the_gateway_with_all_it_says, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(a_message_to_few_has_a_sound, open_house, close_house),
        cmocka_unit_test_setup_teardown(who_wants_ids_alone_gets_no_more, open_house, close_house),
        cmocka_unit_test_setup_teardown(the_operator_may_keep_content_here, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(a_room_without_a_name_is_named_by_its_members, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(only_those_with_pushers_and_others_events_count, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(a_rejected_key_removes_the_pusher, open_house, close_house),
        cmocka_unit_test_setup_teardown(a_gateway_that_is_away_gets_it_later_and_once, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(of_a_dead_gateway_one_pusher_tries, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(what_is_older_than_a_day_is_given_up, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(what_the_gateway_refuses_does_not_hold_up_the_next,
                                        open_house, close_house),
        cmocka_unit_test_setup_teardown(a_crash_loses_nothing_and_repeats_nothing_that_was_taken,
                                        open_house, close_house),
        cmocka_unit_test_setup_teardown(what_was_read_meanwhile_is_not_pushed, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(reading_pushes_the_count_alone, open_house, close_house),
        cmocka_unit_test_setup_teardown(a_call_is_missed_when_it_rings_no_more, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(a_pusher_that_is_off_is_left_alone, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(an_invite_is_pushed_to_whom_it_concerns, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(an_invite_during_a_crash_is_pushed, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(reading_during_a_crash_pushes_the_count, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(an_orderly_end_is_no_crash, open_house, close_house),
        cmocka_unit_test_setup_teardown(an_invite_that_was_answered_is_no_news, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(who_is_ignored_pushes_nothing, open_house, close_house),
        cmocka_unit_test_setup_teardown(an_invite_that_is_not_shown_is_not_pushed, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(a_queue_that_grows_too_long_loses_its_oldest, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(the_key_of_web_push_is_computed_for_who_asks, open_house,
                                        close_house),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
