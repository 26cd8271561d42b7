/* A client reads back to where the history here ends, or to a gap in its middle. */
#include "homeserver/service/check.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/remote.h"
#include "tests/support/inbound_fixture.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int64_t lowest_edge(int64_t below)
{
    struct intake_edge *edges = NULL;
    size_t count = 0;
    int64_t best = INT64_MIN;
    assert_int_equal(hs_intake_edges(&w->house.hs, &w->house.ctx, w->room, &edges, &count).code, 0);
    for (size_t i = 0; i < count; i++) {
        best = edges[i].cited_by < below && edges[i].cited_by > best ? edges[i].cited_by : best;
    }
    return best;
}

static bool backfill(int64_t number)
{
    bool added = false;
    struct err err =
        w->house.hs.remote->backfill(&w->house.hs, &w->house.ctx, w->room, number, 10, &added);
    assert_int_equal(err.code, 0);
    return added;
}

static struct stored_events timeline(void)
{
    struct stored_events events;
    struct event_range range = {.from = INT64_MIN + 2, .limit = 1000, .order = EVENTS_FORWARD};
    assert_int_equal(hs_events_read(&w->house.hs, &w->house.ctx, w->room, range, &events).code, 0);
    return events;
}

/* The events stand in the order in which they were made, none lost, none doubled. */
static void assert_timeline(size_t first, size_t last)
{
    struct stored_events events = timeline();
    size_t next = first;
    for (size_t i = 0; i < events.count; i++) {
        size_t at = peer_find(&w->theirs, events.items[i].event.id.s);
        if (at >= first && at <= last) {
            assert_int_equal(at, next);
            next++;
        }
    }
    assert_int_equal(next, last + 1);
}

static void report(void *arg, const struct check_difference *difference)
{
    (void)arg;
    printf("%s of %" PRId64 " %s\n", check_index_name(difference->index), difference->number,
           difference->what);
}

/* What was written is what a rebuild would write. */
static void assert_sound(void)
{
    struct check_options options = {.deep = true, .report = report};
    struct check_result result;
    assert_int_equal(hs_check(&w->house.hs, &w->house.ctx, &options, &result).code, 0);
    assert_int_equal(result.differences, 0);
}

static void history_from_before_the_join_is_fetched(void **state)
{
    (void)state;
    int64_t edge = lowest_edge(INT64_MAX);
    assert_true(edge != INT64_MIN);
    assert_true(backfill(edge));
    assert_timeline(0, w->joined);
    assert_sound();
    assert_true(lowest_edge(INT64_MAX) == INT64_MIN);
    assert_false(backfill(edge));
}

static void a_gap_in_the_middle_is_filled_in_its_place(void **state)
{
    size_t events[50];
    (void)state;
    size_t before = inbound_say(w, NULL, 0);
    inbound_send(w, &before, 1);
    for (size_t i = 0; i < 50; i++) {
        events[i] = inbound_say(w, NULL, 0);
    }
    inbound_send(w, &events[49], 1);
    int64_t edge = lowest_edge(INT64_MAX);
    assert_true(inbound_has(w, events[49]));
    assert_false(inbound_has(w, events[5]));
    assert_true(backfill(edge));
    assert_timeline(before, events[49]);
    assert_sound();
    assert_int_equal(inbound_asked(w, "/backfill/"), 1);
}

static void fill_all(void)
{
    int64_t edge = lowest_edge(INT64_MAX);
    while (edge != INT64_MIN) {
        assert_true(backfill(edge));
        edge = lowest_edge(INT64_MAX);
    }
}

/* What is fetched for a gap reaches over the join to what the join misses. */
static void what_lies_below_another_gap_is_left_to_that(void **state)
{
    size_t last = 0;
    (void)state;
    for (size_t i = 0; i < 40; i++) {
        last = inbound_say(w, NULL, 0);
    }
    inbound_send(w, &last, 1);
    fill_all();
    assert_timeline(0, last);
    assert_sound();
}

/* A branch leads past the join, and misses the same event. */
static void what_two_gaps_miss_goes_below_the_lower_one(void **state)
{
    (void)state;
    size_t before = w->joined - 1;
    size_t branch = inbound_say(w, &before, 1);
    size_t both[] = {w->joined, branch};
    size_t last = inbound_say(w, both, 2);
    for (size_t i = 0; i < 24; i++) {
        last = inbound_say(w, NULL, 0);
    }
    inbound_send(w, &last, 1);
    fill_all();
    assert_timeline(0, last);
    assert_sound();
}

/* What was seen before and after a gap is the same whatever is fetched for it later. */
static void tokens_do_not_move_when_a_gap_is_filled(void **state)
{
    size_t events[50];
    struct stored_event stored;
    int64_t number = 0;
    uint64_t root = 0;
    bool found = false;
    (void)state;
    size_t before = inbound_say(w, NULL, 0);
    inbound_send(w, &before, 1);
    uint64_t pos = hs_room_head(w->room).pos;
    inbound_make(w, "m.room.topic", "", "{\"topic\":\"1\"}");
    for (size_t i = 0; i < 50; i++) {
        events[i] = inbound_say(w, NULL, 0);
    }
    inbound_send(w, &events[49], 1);
    assert_true(backfill(lowest_edge(INT64_MAX)));
    assert_int_equal(hs_room_at(&w->house.hs, &w->house.ctx, w->room, pos, &number, &root).code, 0);
    assert_int_equal(
        hs_event_load(&w->house.hs, &w->house.ctx, w->room, number, &stored, &found).code, 0);
    assert_true(found);
    assert_int_equal(peer_find(&w->theirs, stored.event.id.s), before);
    assert_int_equal(hs_state_event(&w->house.hs, &w->house.ctx, w->room, root, LIT("m.room.topic"),
                                    LIT(""), &stored, &found)
                         .code,
                     0);
    assert_false(found);
}

static bool refuse_all(struct inbound_world *world, struct arena *arena, struct slice path,
                       struct slice *body)
{
    (void)world;
    (void)arena;
    (void)path;
    *body = (struct slice){0};
    return true;
}

static void a_place_that_nobody_fills_is_left_alone_for_a_while(void **state)
{
    (void)state;
    int64_t edge = lowest_edge(INT64_MAX);
    w->lie = refuse_all;
    assert_false(backfill(edge));
    size_t asked = w->asked_count;
    assert_true(asked > 0);
    assert_false(backfill(edge));
    assert_int_equal(w->asked_count, asked);
    w->lie = NULL;
    w->house.mono_ms += 61000;
    w->house.wall_ms += 61000;
    assert_true(backfill(edge));
}

static bool forged(struct inbound_world *world, struct arena *arena, struct slice path,
                   struct slice *body)
{
    if (!slice_contains(path, LIT("/backfill/"))) {
        return false;
    }
    struct json list = json_array();
    struct json object = json_object();
    for (size_t i = world->joined; i-- > 0;) {
        struct json tree = *event_tree(arena, peer_get(&world->theirs, i));
        json_set(arena, &tree, LIT("origin_server_ts"), json_int(1));
        json_push(arena, &list, tree);
    }
    json_set(arena, &object, LIT("pdus"), list);
    *body = json_canonical(arena, &object);
    return true;
}

static void forged_history_is_not_taken(void **state)
{
    (void)state;
    int64_t edge = lowest_edge(INT64_MAX);
    w->lie = forged;
    size_t had = timeline().count;
    assert_false(backfill(edge));
    assert_int_equal(timeline().count, had);
}

static void nobody_waits_for_the_network_where_it_may_not(void **state)
{
    bool added = false;
    (void)state;
    w->house.ctx.may_wait = false;
    struct err err = w->house.hs.remote->backfill(&w->house.hs, &w->house.ctx, w->room,
                                                  lowest_edge(INT64_MAX), 10, &added);
    assert_int_equal(err.code, ERR_WAITS);
    assert_int_equal(w->asked_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(history_from_before_the_join_is_fetched),
        WITH_WORLD(a_gap_in_the_middle_is_filled_in_its_place),
        WITH_WORLD(what_lies_below_another_gap_is_left_to_that),
        WITH_WORLD(what_two_gaps_miss_goes_below_the_lower_one),
        WITH_WORLD(tokens_do_not_move_when_a_gap_is_filled),
        WITH_WORLD(a_place_that_nobody_fills_is_left_alone_for_a_while),
        WITH_WORLD(forged_history_is_not_taken),
        WITH_WORLD(nobody_waits_for_the_network_where_it_may_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
