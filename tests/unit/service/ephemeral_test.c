#include "homeserver/service/ephemeral_priv.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static struct house h;
static struct guest ann, ben;
static struct room *room;

static int open_house(void **state)
{
    (void)state;
    house_open(&h);
    ann = house_guest(&h, "ann");
    ben = house_guest(&h, "ben");
    room = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    house_close(&h);
    return 0;
}

/* Moves the clock, and does what the thread would. */
static void pass_ms(int64_t ms)
{
    pthread_mutex_lock(&h.hs.ephemeral->lock);
    h.mono_ms += ms;
    typing_expire(h.hs.ephemeral);
    presence_decay(h.hs.ephemeral);
    pthread_mutex_unlock(&h.hs.ephemeral->lock);
}

/* --- receipts --- */

static void set(uint64_t user, enum receipt_type type, const char *event_id, int64_t number)
{
    struct receipt receipt = {
        .user = user, .type = type, .event_id = slice_of(event_id), .number = number, .ts_ms = 5};
    assert_int_equal(hs_receipt_set(&h.hs, &h.ctx, room, &receipt).code, 0);
}

static struct receipts seen_by(uint64_t viewer, uint64_t since)
{
    struct receipts receipts;
    assert_int_equal(hs_receipts_since(&h.hs, &h.ctx, room, viewer, since,
                                       positions_newest(h.hs.positions), &receipts)
                         .code,
                     0);
    return receipts;
}

static void a_receipt_replaces_the_one_before(void **state)
{
    (void)state;
    set(ann.actor.user, RECEIPT_READ, "$one", 1);
    set(ann.actor.user, RECEIPT_READ, "$two", 2);
    struct receipts receipts = seen_by(ben.actor.user, 0);
    assert_int_equal(receipts.count, 1);
    assert_true(slice_eq(receipts.items[0].event_id, LIT("$two")));
    assert_true(slice_eq(receipts.items[0].user_id, LIT("@ann:test")));
    assert_int_equal(receipts.items[0].ts_ms, 5);
}

static void a_receipt_never_moves_back(void **state)
{
    (void)state;
    set(ann.actor.user, RECEIPT_READ, "$two", 2);
    uint64_t pos = positions_newest(h.hs.positions);
    set(ann.actor.user, RECEIPT_READ, "$one", 1);
    set(ann.actor.user, RECEIPT_READ, "$two", 2);
    set(ann.actor.user, RECEIPT_READ, "$unknown", 0);
    assert_int_equal(seen_by(ben.actor.user, pos).count, 0);
    assert_int_equal(positions_newest(h.hs.positions), pos);
}

static void an_event_that_comes_to_be_known_outdoes_an_unknown_one(void **state)
{
    (void)state;
    set(ann.actor.user, RECEIPT_READ, "$unknown", 0);
    set(ann.actor.user, RECEIPT_READ, "$one", 1);
    struct receipts receipts = seen_by(ben.actor.user, 0);
    assert_int_equal(receipts.count, 1);
    assert_true(slice_eq(receipts.items[0].event_id, LIT("$one")));
}

static void a_private_receipt_is_for_its_owner(void **state)
{
    (void)state;
    set(ann.actor.user, RECEIPT_READ_PRIVATE, "$one", 1);
    assert_int_equal(seen_by(ben.actor.user, 0).count, 0);
    assert_int_equal(seen_by(ann.actor.user, 0).count, 1);
}

static void threads_have_receipts_of_their_own(void **state)
{
    struct receipts receipts;
    const struct slice threads[] = {{0}, LIT("main"), LIT("$root")};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        struct receipt receipt = {
            .user = ann.actor.user, .event_id = LIT("$one"), .number = 1, .thread = threads[i]};
        assert_int_equal(hs_receipt_set(&h.hs, &h.ctx, room, &receipt).code, 0);
    }
    assert_int_equal(hs_receipts_of_user(&h.hs, &h.ctx, room, ann.actor.user, &receipts).code, 0);
    assert_int_equal(receipts.count, 3);
    assert_null(receipts.items[0].thread.ptr);
    assert_true(slice_eq(receipts.items[1].thread, LIT("$root")));
    assert_true(slice_eq(receipts.items[2].thread, LIT("main")));
}

/* --- typing --- */

static size_t typing(uint64_t *pos_out)
{
    struct slice *user_ids = NULL;
    return hs_typing_get(&h.hs, &h.ctx, 7, &user_ids, pos_out);
}

static void typing_is_seen_after_very_many_rooms(void **state)
{
    (void)state;
    uint64_t pos = 0;
    for (uint64_t number = 100; number < 10200; number++) {
        hs_typing_set(&h.hs, number, ann.actor.user, 1000);
        hs_typing_set(&h.hs, number, ann.actor.user, 0);
    }
    hs_typing_set(&h.hs, 7, ann.actor.user, 1000);
    assert_int_equal(typing(&pos), 1);
}

static void typing_ends_by_itself_and_says_so(void **state)
{
    uint64_t began = 0;
    uint64_t renewed = 0;
    uint64_t ended = 0;
    (void)state;
    hs_typing_set(&h.hs, 7, ann.actor.user, 1000);
    assert_int_equal(typing(&began), 1);
    pass_ms(900);
    hs_typing_set(&h.hs, 7, ann.actor.user, 1000);
    assert_int_equal(typing(&renewed), 1);
    assert_int_equal(renewed, began);
    pass_ms(900);
    assert_int_equal(typing(&renewed), 1);
    pass_ms(200);
    assert_int_equal(typing(&ended), 0);
    assert_true(ended > began);
}

static void stopping_is_told_once(void **state)
{
    uint64_t first = 0;
    uint64_t second = 0;
    (void)state;
    hs_typing_set(&h.hs, 7, ann.actor.user, 1000);
    hs_typing_set(&h.hs, 7, ben.actor.user, 1000);
    hs_typing_set(&h.hs, 7, ann.actor.user, 0);
    assert_int_equal(typing(&first), 1);
    hs_typing_set(&h.hs, 7, ann.actor.user, 0);
    assert_int_equal(typing(&second), 1);
    assert_int_equal(first, second);
}

/* --- presence --- */

static struct presence_state presence(void)
{
    struct presence_state state;
    assert_true(hs_presence_get(&h.hs, &h.ctx, ann.actor.user, &state));
    return state;
}

static void the_best_device_counts(void **state)
{
    uint64_t user = ann.actor.user;
    (void)state;
    hs_presence_touch(&h.hs, user, LIT("PHONE"), PRESENCE_UNAVAILABLE);
    assert_int_equal(presence().presence, PRESENCE_UNAVAILABLE);
    hs_presence_touch(&h.hs, user, LIT("DESK"), PRESENCE_ONLINE);
    assert_int_equal(presence().presence, PRESENCE_ONLINE);
    hs_presence_touch(&h.hs, user, LIT("DESK"), PRESENCE_UNAVAILABLE);
    assert_int_equal(presence().presence, PRESENCE_UNAVAILABLE);
    hs_presence_touch(&h.hs, user, LIT("PHONE"), PRESENCE_OFFLINE);
    assert_int_equal(presence().presence, PRESENCE_UNAVAILABLE);
}

static void who_stops_syncing_goes_offline(void **state)
{
    (void)state;
    hs_presence_touch(&h.hs, ann.actor.user, LIT("DESK"), PRESENCE_ONLINE);
    uint64_t before = presence().pos;
    assert_true(presence().currently_active);
    pass_ms(80000);
    assert_int_equal(presence().presence, PRESENCE_ONLINE);
    assert_false(presence().currently_active);
    pass_ms(20000);
    assert_int_equal(presence().presence, PRESENCE_OFFLINE);
    assert_int_equal(presence().last_active_ago_ms, 100000);
    assert_true(presence().pos > before);
}

static void a_device_takes_over_from_what_was_set(void **state)
{
    (void)state;
    hs_presence_set(&h.hs, ann.actor.user, PRESENCE_ONLINE, LIT("tea"));
    hs_presence_touch(&h.hs, ann.actor.user, LIT("DESK"), PRESENCE_UNAVAILABLE);
    assert_int_equal(presence().presence, PRESENCE_UNAVAILABLE);
    assert_true(slice_eq(presence().status_msg, LIT("tea")));
    hs_presence_set(&h.hs, ann.actor.user, PRESENCE_OFFLINE, (struct slice){0});
    assert_int_equal(presence().presence, PRESENCE_OFFLINE);
    assert_null(presence().status_msg.ptr);
}

static void a_long_status_is_cut_between_characters(void **state)
{
    char status[STATUS_BYTES_MAX + 2];
    (void)state;
    memset(status, 'x', sizeof status);
    memcpy(status + STATUS_BYTES_MAX - 1, "\xc3\xa9", 2);
    hs_presence_set(&h.hs, ann.actor.user, PRESENCE_ONLINE, (struct slice){status, sizeof status});
    assert_int_equal(presence().status_msg.len, STATUS_BYTES_MAX - 1);
}

static void changes_are_listed_oldest_first(void **state)
{
    struct presence_state *states = NULL;
    uint64_t before = positions_newest(h.hs.positions);
    (void)state;
    hs_presence_set(&h.hs, ann.actor.user, PRESENCE_ONLINE, LIT("1"));
    hs_presence_set(&h.hs, ben.actor.user, PRESENCE_ONLINE, LIT("2"));
    hs_presence_set(&h.hs, ann.actor.user, PRESENCE_ONLINE, LIT("3"));
    size_t count = hs_presence_since(&h.hs, &h.ctx, before, before + 3, &states);
    assert_int_equal(count, 2);
    assert_true(slice_eq(states[0].user_id, LIT("@ben:test")));
    assert_true(slice_eq(states[1].status_msg, LIT("3")));
}

#define IN_HOUSE(test) cmocka_unit_test_setup_teardown(test, open_house, close_house)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_HOUSE(a_receipt_replaces_the_one_before),
        IN_HOUSE(a_receipt_never_moves_back),
        IN_HOUSE(an_event_that_comes_to_be_known_outdoes_an_unknown_one),
        IN_HOUSE(a_private_receipt_is_for_its_owner),
        IN_HOUSE(threads_have_receipts_of_their_own),
        IN_HOUSE(typing_ends_by_itself_and_says_so),
        IN_HOUSE(typing_is_seen_after_very_many_rooms),
        IN_HOUSE(stopping_is_told_once),
        IN_HOUSE(the_best_device_counts),
        IN_HOUSE(who_stops_syncing_goes_offline),
        IN_HOUSE(a_device_takes_over_from_what_was_set),
        IN_HOUSE(a_long_status_is_cut_between_characters),
        IN_HOUSE(changes_are_listed_oldest_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
