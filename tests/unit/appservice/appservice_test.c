/* Transactions of a played application service: what is in them, in which order, and what a crash
 * or a failing store does to them. */
#include "homeserver/appservice/appservice.h"

#include "homeserver/service/device_keys.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/directory.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/to_device.h"
#include "tests/support/bridge_fixture.h"

#include <stdio.h>
#include <string.h>

static struct guest ann, ghost;
static struct room *room;
static int said;

static void furnish(const char *more)
{
    said = 0;
    open_bridge(more);
    ann = house_guest(&h, "ann");
    ghost = bridge_ghost(&fax, "fax_one");
    room = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    house_member(&h, room, &ghost, &ghost, MEMBERSHIP_JOIN);
    bridge_settle(&fax);
}

static int open_plain(void **state)
{
    (void)state;
    furnish("");
    return 0;
}

static int open_full(void **state)
{
    (void)state;
    furnish("receive_ephemeral: true\norg.matrix.msc3202: true\n");
    return 0;
}

static void say(int times)
{
    char text[32];
    for (int i = 0; i < times; i++) {
        snprintf(text, sizeof text, "m%d", said++);
        house_say(&h, room, &ann, text);
    }
}

/* Every message said has come, once and in order. */
static void expect_all(void)
{
    struct json events = bridge_items(&fax, "events");
    int seen = 0;
    for (uint32_t i = 0; i < events.count; i++) {
        char text[32];
        struct slice body =
            json_get_string(json_get_object(&events.items[i], LIT("content")), LIT("body"));
        if (!body.ptr) {
            continue;
        }
        snprintf(text, sizeof text, "m%d", seen++);
        assert_true(slice_eq(body, slice_of(text)));
    }
    assert_int_equal(seen, said);
}

static void events_come_in_order_and_whole_batches(void **state)
{
    (void)state;
    fax.status = 0;
    say(250);
    bridge_settle(&fax);
    assert_int_equal(fax.txn_count, 1); /* the join, before it was down */
    fax.status = 200;
    assert_int_equal(as_retry(fax.as, LIT("fax")), 1);
    bridge_settle(&fax);
    expect_all();
    assert_true(fax.txn_count <= 2 + 250 / AS_EVENTS_MAX + 1);
}

static void a_service_that_refuses_gets_the_same_again(void **state)
{
    (void)state;
    fax.status = 500;
    say(3);
    bridge_settle(&fax);
    size_t count = fax.txn_count;
    say(3);
    as_retry(fax.as, (struct slice){0});
    bridge_settle(&fax); /* the bridge compares the bytes */
    assert_int_equal(fax.txn_count, count);
    struct as_look_at look;
    as_look(fax.as, LIT("fax"), &look);
    assert_true(slice_eq(look.state, LIT("waiting")) && look.next_try_ms > h.wall_ms);
    fax.status = 200;
    as_retry(fax.as, (struct slice){0});
    bridge_settle(&fax);
    expect_all();
}

static void a_crash_loses_and_doubles_nothing(void **state)
{
    (void)state;
    for (int turn = 0; turn < 12; turn++) {
        fax.status = turn % 3 == 1 ? 500 : 200;
        say(7);
        if (turn % 2) {
            bridge_settle(&fax);
        }
        bridge_crash(&fax);
        say(3);
        bridge_start(&fax, "");
    }
    fax.status = 200;
    as_retry(fax.as, (struct slice){0});
    bridge_settle(&fax);
    expect_all();
}

static void a_service_hears_of_what_its_user_was_there_for(void **state)
{
    (void)state;
    struct room *other = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    bridge_crash(&fax);
    house_say(&h, other, &ann, "unheard");
    house_member(&h, other, &ghost, &ghost, MEMBERSHIP_JOIN);
    say(1);
    struct slice heard = house_say(&h, other, &ann, "m1");
    said = 2;
    house_member(&h, other, &ghost, &ghost, MEMBERSHIP_LEAVE);
    house_say(&h, other, &ann, "unheard");
    bridge_start(&fax, "");
    bridge_settle(&fax);
    struct json events = bridge_items(&fax, "events");
    bool found = false;
    for (uint32_t i = 0; i < events.count; i++) {
        found = found || json_is_string(json_get(&events.items[i], LIT("event_id")), heard);
    }
    assert_true(found);
    expect_all();
}

static void a_room_is_heard_by_its_alias(void **state)
{
    (void)state;
    struct room *other = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    uint64_t number = hs_room_info(other).number;
    house_say(&h, other, &ann, "unheard");
    bridge_settle(&fax);
    assert_int_equal(hs_alias_set(&h.hs, &h.ctx, LIT("#fax_hall:test"), number, 1).code, 0);
    house_say(&h, other, &ann, "m0");
    bridge_settle(&fax);
    assert_int_equal(hs_alias_delete(&h.hs, &h.ctx, LIT("#fax_hall:test")).code, 0);
    house_say(&h, other, &ann, "unheard");
    said = 1;
    bridge_settle(&fax);
    expect_all();
}

/* As the federation hands it over: a room that this server is not in. */
static void invite_from_afar(const char *room_id)
{
    struct event event;
    struct json state;
    struct slice json = arena_printf(
        h.ctx.arena,
        "{\"type\":\"m.room.member\",\"room_id\":\"%s\",\"sender\":\"@zoe:away\","
        "\"state_key\":\"@fax_one:test\",\"content\":{\"membership\":\"invite\"},\"depth\":5,"
        "\"origin_server_ts\":1,\"prev_events\":[\"$a\"],\"auth_events\":[\"$b\"],"
        "\"hashes\":{\"sha256\":\"aaaa\"},\"signatures\":{}}",
        room_id);
    const char *stripped = "[{\"type\":\"m.room.name\",\"state_key\":\"\",\"sender\":\"@zoe:away\","
                           "\"content\":{\"name\":\"Afar\"}}]";
    assert_int_equal(event_parse(h.ctx.arena, room_rules_get(LIT("11")), json, &event).code, 0);
    assert_int_equal(json_parse(h.ctx.arena, slice_of(stripped), &state).code, 0);
    struct intake_invite invite = {
        .room_id = event.room_id.s, .version = LIT("11"), .event = &event, .room_state = &state};
    assert_int_equal(hs_intake_invite(&h.hs, &h.ctx, &invite).code, 0);
}

static void an_invite_from_another_server_comes_with_the_room(void **state)
{
    (void)state;
    invite_from_afar("!one:away");
    bridge_settle(&fax);
    bridge_crash(&fax);
    invite_from_afar("!two:away");
    bridge_start(&fax, "");
    bridge_settle(&fax);
    struct json events = bridge_items(&fax, "events");
    assert_true(events.count >= 3);
    for (uint32_t i = 0; i < 2; i++) {
        const struct json *event = &events.items[events.count - 2 + i];
        const struct json *rooms_state =
            json_get_array(json_get_object(event, LIT("unsigned")), LIT("invite_room_state"));
        assert_true(json_is_string(json_get(event, LIT("room_id")),
                                   i ? LIT("!two:away") : LIT("!one:away")));
        assert_true(json_is_string(json_get(event, LIT("state_key")), ghost.actor.user_id));
        assert_non_null(rooms_state);
        assert_int_equal(rooms_state->count, 2); /* the name, and the invite itself */
    }
}

static void typing_and_receipts_pass_and_the_newest_counts(void **state)
{
    (void)state;
    uint64_t number = hs_room_info(room).number;
    fax.status = 0;
    struct slice id = house_say(&h, room, &ann, "m0");
    said = 1;
    hs_typing_set(&h.hs, number, ann.actor.user, 30000);
    hs_typing_set(&h.hs, number, ann.actor.user, 0);
    struct receipt receipt = {.user = ann.actor.user,
                              .user_id = ann.actor.user_id,
                              .type = RECEIPT_READ,
                              .event_id = id,
                              .ts_ms = 5};
    assert_int_equal(hs_receipt_set(&h.hs, &h.ctx, room, &receipt).code, 0);
    receipt.type = RECEIPT_READ_PRIVATE;
    assert_int_equal(hs_receipt_set(&h.hs, &h.ctx, room, &receipt).code, 0);
    bridge_settle(&fax);
    fax.status = 200;
    as_retry(fax.as, LIT("fax"));
    bridge_settle(&fax);
    struct json items = bridge_items(&fax, "ephemeral");
    size_t typing = 0;
    size_t receipts = 0;
    for (uint32_t i = 0; i < items.count; i++) {
        typing += json_is_string(json_get(&items.items[i], LIT("type")), LIT("m.typing"));
        receipts += json_is_string(json_get(&items.items[i], LIT("type")), LIT("m.receipt"));
        assert_true(
            slice_eq(json_get_string(&items.items[i], LIT("room_id")), hs_room_info(room).room_id));
    }
    assert_true(typing >= 1 && typing <= 2);
    assert_int_equal(receipts, 1);
    expect_all();
}

static void send_to_device(int count)
{
    for (int i = 0; i < count; i++) {
        char text[64];
        struct json content;
        snprintf(text, sizeof text, "{\"n\":%d}", said++);
        assert_int_equal(
            json_parse(h.ctx.arena, arena_copy(h.ctx.arena, slice_of(text)), &content).code, 0);
        struct to_device_item item = {ghost.actor.user_id, LIT("*"), &content};
        struct to_device_send send = {.sender = ann.actor.user_id,
                                      .type = LIT("org.test"),
                                      .items = &item,
                                      .count = 1,
                                      .user = ann.actor.user};
        assert_int_equal(hs_to_device_send(&h.hs, &h.ctx, &send).code, 0);
    }
}

static void messages_to_devices_survive_a_crash_and_leave_the_inbox(void **state)
{
    (void)state;
    struct to_device_messages left;
    assert_int_equal(
        hs_device_create(&h.hs, &h.ctx, ghost.actor.user, LIT("PHONE"), (struct slice){0}).code, 0);
    for (int turn = 0; turn < 4; turn++) {
        send_to_device(60);
        bridge_crash(&fax);
        send_to_device(60);
        bridge_start(&fax, "receive_ephemeral: true\norg.matrix.msc3202: true\n");
        bridge_settle(&fax);
    }
    struct json items = bridge_items(&fax, "to_device");
    assert_int_equal(items.count, 480);
    for (uint32_t i = 0; i < items.count; i++) {
        int64_t n = -1;
        json_get_int(json_get_object(&items.items[i], LIT("content")), LIT("n"), &n);
        assert_int_equal(n, i);
        assert_true(json_is_string(json_get(&items.items[i], LIT("to_device_id")), LIT("PHONE")));
        assert_true(
            json_is_string(json_get(&items.items[i], LIT("to_user_id")), ghost.actor.user_id));
    }
    struct inbox_range all = {.upto = UINT64_MAX - 1, .limit = 10};
    assert_int_equal(hs_inbox_read(&h.hs, &h.ctx, ghost.actor.user, LIT("PHONE"), all, &left).code,
                     0);
    assert_int_equal(left.count, 0);
}

/* All users named by one list of device_lists. */
static size_t listed(const char *kind, struct slice user_id)
{
    size_t count = 0;
    for (size_t i = 0; i < fax.txn_count; i++) {
        struct json body;
        assert_int_equal(json_parse(h.ctx.arena, fax.txns[i].body, &body).code, 0);
        const struct json *lists = json_get_object(&body, LIT("device_lists"));
        const struct json *users = json_get_array(lists, slice_of(kind));
        for (uint32_t k = 0; users && k < users->count; k++) {
            count += json_is_string(&users->items[k], user_id);
        }
    }
    return count;
}

static void device_lists_follow_who_shares_a_room(void **state)
{
    (void)state;
    struct guest bob = house_guest(&h, "bob");
    assert_int_equal(hs_device_list_changed(&h.hs, &h.ctx, bob.actor.user).code, 0);
    bridge_settle(&fax);
    assert_int_equal(listed("changed", bob.actor.user_id), 0);
    house_member(&h, room, &bob, &bob, MEMBERSHIP_JOIN);
    bridge_settle(&fax);
    assert_int_equal(listed("changed", bob.actor.user_id), 1);
    assert_int_equal(hs_device_list_changed(&h.hs, &h.ctx, bob.actor.user).code, 0);
    bridge_settle(&fax);
    assert_int_equal(listed("changed", bob.actor.user_id), 2);
    house_member(&h, room, &bob, &bob, MEMBERSHIP_LEAVE);
    bridge_settle(&fax);
    assert_int_equal(listed("left", bob.actor.user_id), 1);
    assert_int_equal(listed("left", ann.actor.user_id), 0);
    house_member(&h, room, &ghost, &ghost, MEMBERSHIP_LEAVE);
    bridge_settle(&fax);
    assert_int_equal(listed("left", ann.actor.user_id), 1);
}

/* What is sent while a call of the store fails comes later, once. */
static void a_failing_store_delays_and_loses_nothing(void **state)
{
    (void)state;
    for (int k = 1; k < 60; k++) {
        furnish("");
        fax.status = 500;
        say(4);
        bridge_settle(&fax);
        say(4);
        bridge_settle(&fax);
        fax.status = 200;
        store_fail_after(h.hs.store, k);
        as_retry(fax.as, (struct slice){0});
        as_settle(fax.as);
        store_fail_after(h.hs.store, 0);
        as_retry(fax.as, (struct slice){0});
        bridge_settle(&fax);
        expect_all();
        close_all(NULL);
    }
}

static void a_store_that_fails_at_the_start_loses_nothing(void **state)
{
    (void)state;
    for (int k = 1; k < 60; k++) {
        furnish("");
        bridge_crash(&fax);
        say(4);
        house_settle(&h);
        bridge_start(&fax, "");
        store_fail_after(h.hs.store, k);
        bridge_settle(&fax);
        store_fail_after(h.hs.store, 0);
        bridge_stop(&fax);
        bridge_start(&fax, "");
        bridge_settle(&fax);
        as_retry(fax.as, (struct slice){0});
        bridge_settle(&fax);
        expect_all();
        close_all(NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define PLAIN(test) cmocka_unit_test_setup_teardown(test, open_plain, close_all)
#define FULL(test) cmocka_unit_test_setup_teardown(test, open_full, close_all)
        PLAIN(events_come_in_order_and_whole_batches),
        PLAIN(a_service_that_refuses_gets_the_same_again),
        PLAIN(a_crash_loses_and_doubles_nothing),
        PLAIN(a_service_hears_of_what_its_user_was_there_for),
        PLAIN(a_room_is_heard_by_its_alias),
        PLAIN(an_invite_from_another_server_comes_with_the_room),
        FULL(typing_and_receipts_pass_and_the_newest_counts),
        FULL(messages_to_devices_survive_a_crash_and_leave_the_inbox),
        FULL(device_lists_follow_who_shares_a_room),
        cmocka_unit_test(a_failing_store_delays_and_loses_nothing),
        cmocka_unit_test(a_store_that_fails_at_the_start_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
