/* Rooms of many members that are joined: how much is held and written at once, and what becomes of
 * it when that is interrupted. */
#include "tests/support/away.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum {
    FEW = 400,
    MANY = 900,
    ROWS_MAX = 2500,      /* of one write: a page of members, or of the state's events */
    BYTES_PER_MEMBER = 8, /* of what the job keeps to its end */
    LEFT_OUT = 40,
};

static struct away a;

static int open_house(void **state)
{
    (void)state;
    away_open(&a, "10");
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    away_close(&a);
    return 0;
}

static void add_members(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "member%zu", i);
        struct slice user = peer_user(a.h.conf_arena, &a.far, name);
        struct peer_draft draft = {.peer = &a.far, .sender = user};
        peer_member(&a.r, &draft, user, "join");
    }
}

static bool is_member(const struct event *event)
{
    return slice_eq(event->type, LIT("m.room.member"));
}

/* By an event of ann's that is made when there is none. */
static size_t own_join(void)
{
    for (size_t i = 0; i < a.r.count; i++) {
        if (event_is(peer_get(&a.r, i), LIT("m.room.member"), a.ann.actor.user_id)) {
            return i;
        }
    }
    return peer_member(&a.r, &a.by_ann, a.ann.actor.user_id, "join");
}

static struct err add_state(struct intake_join *join, size_t mine, enum away_join how)
{
    for (size_t i = 0; i < mine; i++) {
        const struct event *event = peer_get(&a.r, i);
        bool left_out =
            how == AWAY_PARTIAL && is_member(event) && !slice_eq(event->state_key, a.ria);
        if (!left_out) {
            TRY(hs_intake_join_add(join, &a.h.ctx, INTAKE_JOIN_STATE, event));
        }
    }
    return OK;
}

static struct err try_join(enum away_join how)
{
    struct intake_join *join = NULL;
    struct hs_sent sent;
    size_t mine = own_join();
    struct intake_join_start start = {.room_id = a.r.room_id,
                                      .version = a.r.rules->version,
                                      .join = peer_get(&a.r, mine),
                                      .is_partial = how == AWAY_PARTIAL,
                                      .servers = &a.far.name,
                                      .server_count = 1};
    TRY(hs_intake_join_begin(&a.h.hs, &a.h.ctx, &start, &join));
    struct err err = add_state(join, mine, how);
    if (err.code != 0) {
        hs_intake_join_abort(&join);
        return err;
    }
    return hs_intake_join_finish(&join, &a.h.ctx, &a.room, &sent);
}

static void join(enum away_join how)
{
    assert_int_equal(try_join(how).code, 0);
}

/* The members' events come, as outliers. */
static void fetch_members(void)
{
    for (size_t i = 0; i < own_join(); i++) {
        struct intake_report report;
        if (is_member(peer_get(&a.r, i))) {
            assert_int_equal(
                hs_intake_outlier(&a.h.hs, &a.h.ctx, a.room, peer_get(&a.r, i), &report).code, 0);
        }
    }
}

/* With the state before the join, of which the newest events are left out. */
static struct err complete_without(size_t left_out)
{
    size_t mine = own_join();
    struct event_id *ids = arena_array(a.r.arena_owned, mine, sizeof *ids);
    size_t count = 0;
    for (size_t i = 0; i + left_out < mine; i++) {
        ids[count++] = peer_get(&a.r, i)->id;
    }
    return away_complete(&a, ids, count);
}

static size_t count_joined(void)
{
    struct room_members members;
    struct err err = hs_room_members(&a.h.hs, &a.h.ctx, a.room, MEMBERSHIP_JOIN, 0, &members);
    assert_int_equal(err.code, 0);
    return members.count;
}

/* ria and rob, ann and the others. */
static void expect_whole(size_t others)
{
    assert_false(hs_room_is_partial(a.room));
    assert_int_equal(count_joined(), others + 3);
    assert_int_equal(hs_room_head(a.room).joined_count, others + 3);
}

static void expect_partial(void)
{
    assert_true(hs_room_is_partial(a.room));
    assert_int_equal(count_joined(), 2);
    assert_int_equal(hs_room_head(a.room).joined_count, 2);
}

static uint64_t largest_write(void)
{
    struct store_stats stats;
    store_get_stats(a.h.hs.store, &stats);
    return stats.largest_write_rows;
}

/* Bytes that the end of the partial time keeps to the end of its job. */
static size_t bytes_to_complete(size_t members)
{
    add_members(members);
    join(AWAY_PARTIAL);
    fetch_members();
    house_next_job(&a.h);
    assert_int_equal(hs_room_get_by_id(&a.h.hs, &a.h.ctx, a.r.room_id, &a.room).code, 0);
    expect_partial();
    struct arena *arena = a.h.ctx.arena;
    size_t before = arena_used_bytes(arena);
    assert_int_equal(complete_without(0).code, 0);
    size_t held = arena_used_bytes(arena) - before;
    expect_whole(members);
    return held;
}

static void what_is_held_does_not_grow_with_the_room(void **state)
{
    (void)state;
    size_t few = bytes_to_complete(FEW);
    away_close(&a);
    away_open(&a, "10");
    size_t many = bytes_to_complete(MANY);
    print_message("%zu and %zu bytes, at most %zu rows\n", few, many, (size_t)largest_write());
    assert_true(many < few + (MANY - FEW) * BYTES_PER_MEMBER);
    assert_true(largest_write() < ROWS_MAX);
}

static void a_whole_join_is_written_in_pages_too(void **state)
{
    (void)state;
    add_members(MANY);
    join(AWAY_WHOLE);
    expect_whole(MANY);
    assert_true(largest_write() < ROWS_MAX);
}

static void interrupted_pages_are_not_seen(void **state)
{
    (void)state;
    struct err err = {.code = 1};
    size_t failures = 0;
    add_members(FEW);
    join(AWAY_PARTIAL);
    fetch_members();
    for (int k = 3; err.code != 0; k += 211) {
        store_fail_after(a.h.hs.store, k);
        err = complete_without(0);
        store_fail_after(a.h.hs.store, 0);
        away_restart(&a);
        if (err.code != 0) {
            expect_partial();
            away_expect_sound(&a);
            failures++;
        }
    }
    assert_true(failures > 3);
    expect_whole(FEW);
}

/* The server that is asked next may tell another state. */
static void what_an_interrupted_run_wrote_is_undone(void **state)
{
    (void)state;
    struct err err = {.code = 1};
    add_members(FEW);
    join(AWAY_PARTIAL);
    fetch_members();
    /* all pages are written, and the last write is the one that fails */
    for (int k = 6000; err.code != 0; k -= 100) {
        store_fail_after(a.h.hs.store, k);
        err = complete_without(0);
        store_fail_after(a.h.hs.store, 0);
        if (err.code != 0) {
            break;
        }
        away_close(&a);
        away_open(&a, "10");
        add_members(FEW);
        join(AWAY_PARTIAL);
        fetch_members();
        err.code = 1;
    }
    away_restart(&a);
    expect_partial();
    struct peer_draft first = {.peer = &a.far,
                               .sender = peer_user(a.h.conf_arena, &a.far, "member0")};
    size_t again = peer_member(&a.r, &first, first.sender, "join");
    assert_int_equal(away_take(&a, again).result, INTAKE_ACCEPTED);
    assert_int_equal(count_joined(), hs_room_head(a.room).joined_count);
    away_expect_sound(&a);
    assert_int_equal(complete_without(LEFT_OUT).code, 0);
    expect_whole(FEW - LEFT_OUT);
    away_restart(&a);
    expect_whole(FEW - LEFT_OUT);
}

static void a_whole_join_begins_anew_after_a_failure(void **state)
{
    (void)state;
    struct err err = {.code = 1};
    add_members(FEW);
    for (int k = 500; err.code != 0; k += 1511) {
        store_fail_after(a.h.hs.store, k);
        err = try_join(AWAY_WHOLE);
        store_fail_after(a.h.hs.store, 0);
        house_settle(&a.h);
        house_next_job(&a.h);
    }
    assert_int_equal(hs_room_get_by_id(&a.h.hs, &a.h.ctx, a.r.room_id, &a.room).code, 0);
    expect_whole(FEW);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, open_house, close_house)
    const struct CMUnitTest tests[] = {
        CASE(what_is_held_does_not_grow_with_the_room),
        CASE(a_whole_join_is_written_in_pages_too),
        CASE(interrupted_pages_are_not_seen),
        CASE(what_an_interrupted_run_wrote_is_undone),
        CASE(a_whole_join_begins_anew_after_a_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
