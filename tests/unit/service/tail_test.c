#include "homeserver/service/tail.h"

#include "tests/support/house.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdatomic.h>
#include <cmocka.h>

enum { SEEN_MAX = 256 };

static struct house h;
static struct guest ann;
static struct room *room;

/* What a consumer was told. */
static struct {
    uint64_t positions[SEEN_MAX];
    _Atomic size_t count;
    _Atomic int fail_next;
    uint32_t fail_code;
    size_t lost, flushed, rested;
    size_t flushed_count; /* of what was seen */
} seen;

static struct err handle(void *arg, struct ctx *ctx, const struct change *change)
{
    (void)arg;
    (void)ctx;
    if (seen.fail_next > 0) {
        seen.fail_next--;
        return err_make(seen.fail_code, "not now");
    }
    assert_true(seen.count < SEEN_MAX);
    seen.positions[seen.count++] = change->pos;
    return OK;
}

static struct err on_rest(void *arg, struct ctx *ctx, int64_t *next_wall_ms)
{
    (void)arg;
    (void)ctx;
    (void)next_wall_ms;
    seen.rested++;
    return OK;
}

static struct err flush(void *arg, struct ctx *ctx)
{
    (void)arg;
    (void)ctx;
    seen.flushed++;
    seen.flushed_count = seen.count;
    return OK;
}

static struct err lost(void *arg, struct ctx *ctx)
{
    (void)arg;
    (void)ctx;
    seen.lost++;
    return OK;
}

/* Messages while the consumer is on its way to the logs: one is published, the next is stored, but
 * waits for a position below it. */
static _Atomic uint64_t held_pos;

static struct err lost_while_people_talk(void *arg, struct ctx *ctx)
{
    (void)arg;
    (void)ctx;
    house_say(&h, room, &ann, "published");
    house_settle(&h);
    uint64_t held = positions_reserve(h.hs.positions);
    house_say(&h, room, &ann, "stored");
    held_pos = held;
    return OK;
}

static struct hs_tail *begin_as(const struct hs_tail_port *port)
{
    house_settle(&h); /* what was published before is no news */
    struct hs_tail *tail = hs_tail_new(&h.hs, port);
    seen.count = 0;
    seen.lost = 0;
    assert_int_equal(hs_tail_start(tail).code, 0);
    hs_tail_settle(tail);
    return tail;
}

static struct hs_tail *begin(const char *name, bool from_start)
{
    const struct hs_tail_port port = {.name = name,
                                      .kinds = TAIL_KIND(CHANGE_EVENT),
                                      .start = from_start ? TAIL_FROM_START : TAIL_FROM_NOW,
                                      .handle = handle,
                                      .rest = on_rest,
                                      .flush = flush,
                                      .lost = lost};
    return begin_as(&port);
}

static void say(int times)
{
    for (int i = 0; i < times; i++) {
        house_say(&h, room, &ann, "hello");
    }
    house_settle(&h);
}

static int open_house(void **state)
{
    (void)state;
    house_open(&h);
    ann = house_guest(&h, "ann");
    room = house_room(&h, &ann, "{}");
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    house_close(&h);
    return 0;
}

static void assert_ascending(void)
{
    for (size_t i = 1; i < seen.count; i++) {
        assert_true(seen.positions[i] > seen.positions[i - 1]);
    }
}

static void a_new_consumer_starts_with_what_comes_next(void **state)
{
    (void)state;
    struct hs_tail *tail = begin("now", false);
    assert_int_equal(seen.count, 0);
    say(3);
    hs_tail_settle(tail);
    assert_int_equal(seen.count, 3);
    assert_ascending();
    assert_int_equal(hs_tail_position(tail), seen.positions[2]);
    hs_tail_stop(tail);
    assert_int_equal(seen.flushed_count, 3);
    hs_tail_free(&tail);
}

/* The mark is read at the start: without it nothing could be handed over in this run. */
static void a_store_that_fails_at_the_start_is_asked_again(void **state)
{
    (void)state;
    house_settle(&h);
    store_fail_after(h.hs.store, 1);
    struct hs_tail *tail = begin("now", false);
    store_fail_after(h.hs.store, 0);
    say(3);
    hs_tail_settle(tail);
    assert_int_equal(seen.count, 3);
    hs_tail_stop(tail);
    hs_tail_free(&tail);
}

static void one_from_the_start_is_handed_all_history_once(void **state)
{
    (void)state;
    struct hs_tail *tail = begin("all", true);
    size_t history = seen.count;
    assert_true(history >= 6);
    assert_int_equal(seen.lost, 1);
    assert_ascending();
    hs_tail_stop(tail);
    hs_tail_free(&tail);
    tail = begin("all", true);
    assert_int_equal(seen.count, 0);
    assert_int_equal(seen.lost, 0);
    hs_tail_stop(tail);
    hs_tail_free(&tail);
}

static void what_came_while_it_was_gone_after_a_crash_is_handed_over(void **state)
{
    (void)state;
    struct hs_tail *tail = begin("crash", false);
    say(2);
    hs_tail_settle(tail);
    hs_tail_abandon(tail);
    hs_tail_free(&tail);
    say(2);
    tail = begin("crash", false);
    assert_true(seen.count >= 2 && seen.count <= 4); /* at least once */
    assert_int_equal(seen.lost, 1);
    assert_ascending();
    hs_tail_stop(tail);
    hs_tail_free(&tail);
}

static void what_is_said_during_the_replay_comes_once_and_in_order(void **state)
{
    (void)state;
    const struct hs_tail_port port = {.name = "crash",
                                      .kinds = TAIL_KIND(CHANGE_EVENT),
                                      .handle = handle,
                                      .lost = lost_while_people_talk};
    struct hs_tail *tail = begin("crash", false);
    hs_tail_abandon(tail);
    hs_tail_free(&tail);
    tail = hs_tail_new(&h.hs, &port);
    seen.count = 0;
    assert_int_equal(hs_tail_start(tail).code, 0);
    while (hs_tail_position(tail) < held_pos - 1 || held_pos == 0) {
        sched_yield();
    }
    struct change late = {.pos = held_pos, .kind = CHANGE_EVENT, .room = 1, .number = 1};
    positions_complete(h.hs.positions, &late, 0);
    hs_tail_settle(tail);
    assert_int_equal(seen.count, 3);
    assert_ascending();
    assert_int_equal(seen.positions[1], held_pos);
    hs_tail_stop(tail);
    hs_tail_free(&tail);
}

static void a_failed_change_comes_again_and_a_broken_one_is_passed_over(void **state)
{
    (void)state;
    struct hs_tail *tail = begin("fail", false);
    seen.fail_code = ERR_IO;
    seen.fail_next = 1;
    say(2);
    hs_tail_settle(tail);
    assert_int_equal(seen.count, 2);
    seen.fail_code = ERR_CORRUPT;
    seen.fail_next = 1;
    say(2);
    hs_tail_settle(tail);
    assert_int_equal(seen.count, 3);
    hs_tail_stop(tail);
    hs_tail_free(&tail);
}

static void one_that_ends_on_a_failure_goes_on_there(void **state)
{
    (void)state;
    struct hs_tail *tail = begin("gap", false);
    seen.fail_code = ERR_IO;
    seen.fail_next = 1000;
    say(2);
    hs_tail_stop(tail);
    hs_tail_free(&tail);
    seen.fail_next = 0;
    tail = begin("gap", false);
    assert_int_equal(seen.count, 2);
    hs_tail_stop(tail);
    hs_tail_free(&tail);
}

static void a_poke_has_it_rest(void **state)
{
    (void)state;
    struct hs_tail *tail = begin("poke", false);
    size_t rested = seen.rested;
    hs_tail_poke(tail);
    hs_tail_settle(tail);
    assert_true(seen.rested > rested);
    hs_tail_stop(tail);
    hs_tail_free(&tail);
}

static bool is_message(void *arg, const struct stored_event *event)
{
    (void)arg;
    return slice_eq(event->event.type, LIT("m.room.message"));
}

static void a_mark_may_stand_elsewhere_and_history_be_sifted(void **state)
{
    (void)state;
    static const struct hs_tail_place place = {.object = "elsewhere", .key = "k"};
    const struct hs_tail_port port = {.name = "sifted",
                                      .place = &place,
                                      .kinds = TAIL_KIND(CHANGE_EVENT),
                                      .start = TAIL_FROM_START,
                                      .handle = handle,
                                      .wants = is_message};
    struct ctx ctx = {.arena = arena_new(), .now = h.hs.now, .log = h.hs.log};
    uint64_t pos = 0;
    bool found = true;
    say(1);
    struct hs_tail *tail = begin("unsifted", true);
    size_t all = seen.count;
    hs_tail_stop(tail);
    hs_tail_free(&tail);
    tail = begin_as(&port);
    assert_true(seen.count > 0 && seen.count < all); /* no creation, no members */
    hs_tail_stop(tail);
    hs_tail_free(&tail);
    assert_int_equal(hs_tail_mark(&h.hs, &ctx, "sifted", &pos, &found).code, 0);
    assert_false(found);
    arena_free(&ctx.arena);
    tail = begin_as(&port);
    assert_int_equal(seen.count, 0); /* nor lost: it ended in order */
    assert_int_equal(seen.lost, 0);
    hs_tail_stop(tail);
    hs_tail_free(&tail);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_consumer_starts_with_what_comes_next),
        cmocka_unit_test(a_store_that_fails_at_the_start_is_asked_again),
        cmocka_unit_test(one_from_the_start_is_handed_all_history_once),
        cmocka_unit_test(what_came_while_it_was_gone_after_a_crash_is_handed_over),
        cmocka_unit_test(what_is_said_during_the_replay_comes_once_and_in_order),
        cmocka_unit_test(a_failed_change_comes_again_and_a_broken_one_is_passed_over),
        cmocka_unit_test(one_that_ends_on_a_failure_goes_on_there),
        cmocka_unit_test(a_poke_has_it_rest),
        cmocka_unit_test(a_mark_may_stand_elsewhere_and_history_be_sifted),
    };
    return cmocka_run_group_tests(tests, open_house, close_house);
}
