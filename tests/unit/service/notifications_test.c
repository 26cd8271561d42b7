#include "homeserver/service/notifications.h"

#include "homeserver/service/signals.h"
#include "tests/support/house_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct house h;
static struct guest ann, ben;
static struct room *rooms[3];

static void furnish(void)
{
    ann = house_guest(&h, "ann");
    ben = house_guest(&h, "ben");
    for (size_t i = 0; i < COUNT_OF(rooms); i++) {
        rooms[i] = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
        house_say(&h, rooms[i], &ann, "before ben came");
        house_member(&h, rooms[i], &ben, &ben, MEMBERSHIP_JOIN);
    }
}

static struct house_plan plan = {&h, furnish};

static struct notifications list(uint64_t before, size_t limit)
{
    struct notifications found;
    struct notifications_request request = {
        .user = ben.actor.user, .before = before, .limit = limit};
    house_settle(&h);
    assert_int_equal(hs_notifications_list(&h.hs, &h.ctx, &request, &found).code, 0);
    return found;
}

static void rooms_are_merged_newest_first(void **state)
{
    (void)state;
    struct slice said[9];
    for (size_t i = 0; i < COUNT_OF(said); i++) {
        said[i] = house_say(&h, rooms[i % 3], &ann, "hello");
    }
    struct notifications found = list(0, 50);
    assert_int_equal(found.count, COUNT_OF(said));
    for (size_t i = 0; i < found.count; i++) {
        assert_true(slice_eq(found.items[i].event.event.id.s, said[COUNT_OF(said) - 1 - i]));
        assert_false(found.items[i].is_read);
    }
    assert_int_equal(found.next, 0);
}

static void pages_follow_each_other_without_gap(void **state)
{
    (void)state;
    size_t seen = 0;
    uint64_t before = 0, last = UINT64_MAX;
    for (size_t i = 0; i < 100; i++) {
        house_say(&h, rooms[(i * 7) % 3], i % 10 == 9 ? &ben : &ann, "hello");
    }
    do {
        struct notifications found = list(before, 7);
        for (size_t i = 0; i < found.count; i++) {
            assert_true(found.items[i].event.pos < last);
            last = found.items[i].event.pos;
        }
        seen += found.count;
        before = found.next;
    } while (before);
    assert_int_equal(seen, 90);
}

static void own_events_and_quiet_ones_are_none(void **state)
{
    (void)state;
    house_say(&h, rooms[0], &ben, "mine");
    house_send(&h, rooms[0], &ann, "org.example.quiet", "{}");
    house_state(&h, rooms[0], &ann, "m.room.topic", "{\"topic\":\"x\"}");
    assert_int_equal(list(0, 50).count, 0);
}

static void receipts_say_what_is_read(void **state)
{
    (void)state;
    struct slice first = house_say(&h, rooms[0], &ann, "one");
    house_say(&h, rooms[0], &ann, "two");
    struct receipt_request request = {.type = LIT("m.read"), .event_id = first};
    assert_int_equal(hs_receipt_request(&h.hs, &h.ctx, rooms[0], &ben.actor, &request).code, 0);
    struct notifications found = list(0, 50);
    assert_int_equal(found.count, 2);
    assert_false(found.items[0].is_read);
    assert_true(found.items[1].is_read);
}

static void highlights_alone_on_request(void **state)
{
    (void)state;
    struct notifications found;
    struct notifications_request request = {
        .user = ben.actor.user, .limit = 50, .only_highlights = true};
    house_say(&h, rooms[0], &ann, "plain");
    house_send(&h, rooms[1], &ann, "m.room.message",
               "{\"body\":\"you\",\"m.mentions\":{\"user_ids\":[\"@ben:test\"]},"
               "\"msgtype\":\"m.text\"}");
    house_settle(&h);
    assert_int_equal(hs_notifications_list(&h.hs, &h.ctx, &request, &found).code, 0);
    assert_int_equal(found.count, 1);
    assert_true(found.items[0].verdict.highlight);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(rooms_are_merged_newest_first),
        HOUSE_TEST(pages_follow_each_other_without_gap),
        HOUSE_TEST(own_events_and_quiet_ones_are_none),
        HOUSE_TEST(receipts_say_what_is_read),
        HOUSE_TEST(highlights_alone_on_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
