#include "federation/pull.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

/* A small graph: event i has the id "$<letter>" and the parents named by letters. */
struct node {
    const char *id, *parents;
    int64_t depth;
};

struct graph {
    struct arena *arena;
    struct ctx ctx;
    const struct event **events;
    size_t count;
};

static struct event_id id_of(struct arena *arena, char letter)
{
    return ids_trust_event(arena_printf(arena, "$%c", letter));
}

static struct graph make(const struct node *nodes, size_t count)
{
    struct graph graph = {.arena = arena_new(), .count = count};
    graph.ctx = (struct ctx){.arena = graph.arena};
    graph.events = arena_array(graph.arena, count, sizeof *graph.events);
    for (size_t i = 0; i < count; i++) {
        struct event *event = arena_alloc(graph.arena, sizeof *event);
        struct event_id *parents = arena_array(graph.arena, 20, sizeof *parents);
        event->id = id_of(graph.arena, nodes[i].id[0]);
        event->depth = nodes[i].depth;
        for (const char *p = nodes[i].parents; *p; p++) {
            parents[event->prev_event_count++] = id_of(graph.arena, *p);
        }
        event->prev_events = event->auth_events = parents;
        event->auth_event_count = event->prev_event_count;
        graph.events[i] = event;
    }
    return graph;
}

static void assert_order(struct graph *graph, const char *order)
{
    assert_int_equal(graph->count, strlen(order));
    for (size_t i = 0; i < graph->count; i++) {
        assert_int_equal(graph->events[i]->id.s.ptr[1], order[i]);
    }
    arena_free(&graph->arena);
}

static void events_come_after_their_parents_whatever_depth_says(void **state)
{
    static const struct node nodes[] = {
        {"d", "c", 1}, {"c", "b", 9007199254740991}, {"b", "a", -5}, {"a", "z", 7}};
    struct graph graph = make(nodes, COUNT_OF(nodes));
    (void)state;
    fed_graph_order(&graph.ctx, graph.events, graph.count, GRAPH_PREV);
    assert_order(&graph, "abcd");
}

static void forks_are_ordered_by_depth(void **state)
{
    static const struct node nodes[] = {
        {"d", "bc", 3}, {"c", "a", 2}, {"b", "a", 1}, {"a", "", 0}, {"e", "a", 9}};
    struct graph graph = make(nodes, COUNT_OF(nodes));
    (void)state;
    fed_graph_order(&graph.ctx, graph.events, graph.count, GRAPH_AUTH);
    assert_order(&graph, "abcde");
}

static void a_cycle_goes_last(void **state)
{
    static const struct node nodes[] = {
        {"x", "y", 1}, {"y", "x", 1}, {"b", "ax", 2}, {"a", "", 5}, {"s", "s", 9}};
    struct graph graph = make(nodes, COUNT_OF(nodes));
    (void)state;
    fed_graph_order(&graph.ctx, graph.events, graph.count, GRAPH_PREV);
    assert_int_equal(graph.events[0]->id.s.ptr[1], 'a');
    assert_int_equal(graph.events[1]->id.s.ptr[1], 's');
    arena_free(&graph.arena);
}

static void doubles_do_no_harm(void **state)
{
    static const struct node nodes[] = {{"b", "aaa", 2}, {"a", "", 1}, {"a", "", 1}, {"b", "a", 2}};
    struct graph graph = make(nodes, COUNT_OF(nodes));
    struct event_id from = id_of(graph.arena, 'b');
    struct pulled pulled = {graph.events, graph.count};
    (void)state;
    pull_keep_connected(&graph.ctx, &from, 1, &pulled);
    graph.count = pulled.count;
    assert_order(&graph, "ab");
}

static void what_nothing_leads_to_is_dropped(void **state)
{
    static const struct node nodes[] = {{"c", "b", 3}, {"b", "a", 2}, {"q", "p", 2},
                                        {"p", "b", 1}, {"a", "z", 1}, {"r", "", 0}};
    struct graph graph = make(nodes, COUNT_OF(nodes));
    struct event_id from = id_of(graph.arena, 'c');
    struct pulled pulled = {graph.events, graph.count};
    (void)state;
    pull_keep_connected(&graph.ctx, &from, 1, &pulled);
    graph.count = pulled.count;
    assert_order(&graph, "abc");
}

/* A chain and many edges, in the worst order: must not take long. */
static void a_large_chain_is_ordered(void **state)
{
    enum { COUNT = 100000 };
    struct graph graph = {.arena = arena_new(), .count = COUNT};
    graph.ctx = (struct ctx){.arena = graph.arena};
    graph.events = arena_array(graph.arena, COUNT, sizeof *graph.events);
    (void)state;
    for (int i = 0; i < COUNT; i++) {
        struct event *event = arena_alloc(graph.arena, sizeof *event);
        struct event_id *parent = arena_alloc(graph.arena, sizeof *parent);
        event->id = ids_trust_event(arena_printf(graph.arena, "$%d", COUNT - i));
        *parent = ids_trust_event(arena_printf(graph.arena, "$%d", COUNT - i - 1));
        event->prev_events = parent;
        event->prev_event_count = 1;
        graph.events[i] = event;
    }
    fed_graph_order(&graph.ctx, graph.events, graph.count, GRAPH_PREV);
    assert_true(slice_eq(graph.events[0]->id.s, LIT("$1")));
    assert_true(slice_eq(graph.events[COUNT - 1]->id.s, LIT("$100000")));
    arena_free(&graph.arena);
}

/* --- over a stored room --- */
static void a_walk_goes_back_from_the_newest(void **state)
{
    struct house house;
    struct stored_events events;
    (void)state;
    house_open(&house);
    struct guest alice = house_guest(&house, "alice");
    struct room *room = house_room(&house, &alice, "{}");
    struct slice first = house_say(&house, room, &alice, "1");
    struct slice second = house_say(&house, room, &alice, "2");
    struct slice third = house_say(&house, room, &alice, "3");
    struct event_id from = ids_trust_event(third);
    struct event_id stop = ids_trust_event(first);
    struct graph_walk walk = {.from = &from, .from_count = 1, .limit = 2};
    assert_int_equal(fed_graph_walk(&house.hs, &house.ctx, room, &walk, &events).code, 0);
    assert_int_equal(events.count, 2);
    assert_true(slice_eq(events.items[0].event.id.s, second));
    assert_true(slice_eq(events.items[1].event.id.s, first));
    walk.start = GRAPH_WITH_START;
    walk.stop = &stop;
    walk.stop_count = 1;
    walk.limit = 10;
    assert_int_equal(fed_graph_walk(&house.hs, &house.ctx, room, &walk, &events).code, 0);
    assert_int_equal(events.count, 2);
    assert_true(slice_eq(events.items[0].event.id.s, third));
    walk.min_depth = events.items[0].event.depth;
    assert_int_equal(fed_graph_walk(&house.hs, &house.ctx, room, &walk, &events).code, 0);
    assert_int_equal(events.count, 1);
    house_close(&house);
}

static void a_walk_stays_in_its_room(void **state)
{
    struct house house;
    struct stored_events events;
    (void)state;
    house_open(&house);
    struct guest alice = house_guest(&house, "alice");
    struct room *room = house_room(&house, &alice, "{}");
    struct room *other = house_room(&house, &alice, "{}");
    struct event_id from = ids_trust_event(house_say(&house, other, &alice, "secret"));
    struct graph_walk walk = {
        .from = &from, .from_count = 1, .limit = 10, .start = GRAPH_WITH_START};
    assert_int_equal(fed_graph_walk(&house.hs, &house.ctx, room, &walk, &events).code, 0);
    assert_int_equal(events.count, 0);
    house_close(&house);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_after_their_parents_whatever_depth_says),
        cmocka_unit_test(forks_are_ordered_by_depth),
        cmocka_unit_test(a_cycle_goes_last),
        cmocka_unit_test(doubles_do_no_harm),
        cmocka_unit_test(what_nothing_leads_to_is_dropped),
        cmocka_unit_test(a_large_chain_is_ordered),
        cmocka_unit_test(a_walk_goes_back_from_the_newest),
        cmocka_unit_test(a_walk_stays_in_its_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
