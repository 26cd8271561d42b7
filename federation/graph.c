/* Walks over the graph of a room, and orders of events by it. No recursion: heaps with a bound. */
#include "federation/inbound.h"
#include "homeserver/base/map.h"

enum { WALK_VISITS_PER_RESULT = 4, WALK_VISITS_MIN = 100, HEAP_START = 64 };

/* --- a heap of indices --- */
struct heap {
    struct arena *arena;
    size_t *items;
    size_t count, cap;
    bool (*before)(const void *arg, size_t a, size_t b);
    const void *arg;
};

static void heap_swap(struct heap *heap, size_t a, size_t b)
{
    size_t kept = heap->items[a];
    heap->items[a] = heap->items[b];
    heap->items[b] = kept;
}

static void heap_push(struct heap *heap, size_t item)
{
    if (heap->count == heap->cap) {
        size_t cap = heap->cap ? heap->cap * 2 : HEAP_START;
        heap->items = arena_grow(heap->arena, heap->items, heap->cap * sizeof *heap->items,
                                 cap * sizeof *heap->items);
        heap->cap = cap;
    }
    size_t at = heap->count++;
    heap->items[at] = item;
    while (at && heap->before(heap->arg, heap->items[at], heap->items[(at - 1) / 2])) {
        heap_swap(heap, at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

static size_t heap_pop(struct heap *heap)
{
    size_t top = heap->items[0];
    heap->items[0] = heap->items[--heap->count];
    for (size_t at = 0;;) {
        size_t best = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < heap->count; child++) {
            best = heap->before(heap->arg, heap->items[child], heap->items[best]) ? child : best;
        }
        if (best == at) {
            return top;
        }
        heap_swap(heap, at, best);
        at = best;
    }
}

/* --- walking back --- */
static bool has_place(const struct stored_event *event)
{
    return (event->flags & EVENT_OUTLIER) == 0;
}

struct err fed_graph_find(struct hs *hs, struct ctx *ctx, struct room *room, struct slice event_id,
                          struct stored_event *event_out, bool *found_out)
{
    TRY(hs_event_find(hs, ctx, room, event_id, event_out, found_out));
    *found_out = *found_out && has_place(event_out) && !(event_out->flags & EVENT_REJECTED);
    return OK;
}

struct walker {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    const struct graph_walk *walk;
    struct map *seen; /* ids */
    struct stored_event *found;
    size_t found_count, found_max;
    struct heap heap;
};

static bool is_deeper(const void *arg, size_t a, size_t b)
{
    const struct walker *w = arg;
    int64_t left = w->found[a].event.depth;
    int64_t right = w->found[b].event.depth;
    return left != right ? left > right : w->found[a].number > w->found[b].number;
}

static struct err visit(struct walker *w, struct event_id id)
{
    uint64_t known = 0;
    bool found = false;
    if (w->found_count == w->found_max || map_get(w->seen, id.s, &known)) {
        return OK;
    }
    map_set(w->seen, id.s, 1);
    struct stored_event *event = &w->found[w->found_count];
    TRY(hs_event_find(w->hs, w->ctx, w->room, id.s, event, &found));
    if (found && has_place(event) && event->event.depth >= w->walk->min_depth) {
        heap_push(&w->heap, w->found_count++);
    }
    return OK;
}

static struct err visit_parents(struct walker *w, const struct stored_event *event)
{
    for (size_t i = 0; i < event->event.prev_event_count; i++) {
        TRY(visit(w, event->event.prev_events[i]));
    }
    return OK;
}

static struct err begin_walk(struct walker *w)
{
    const struct graph_walk *walk = w->walk;
    for (size_t i = 0; i < walk->stop_count; i++) {
        map_set(w->seen, walk->stop[i].s, 1);
    }
    for (size_t i = 0; i < walk->from_count; i++) {
        struct stored_event start;
        bool found = false;
        uint64_t known = 0;
        if (walk->start == GRAPH_WITH_START) {
            TRY(visit(w, walk->from[i]));
            continue;
        }
        if (map_get(w->seen, walk->from[i].s, &known)) {
            continue;
        }
        TRY(hs_event_find(w->hs, w->ctx, w->room, walk->from[i].s, &start, &found));
        map_set(w->seen, walk->from[i].s, 1);
        if (found && has_place(&start)) {
            TRY(visit_parents(w, &start));
        }
    }
    return OK;
}

static struct err walk_on(struct walker *w, struct stored_events *events)
{
    TRY(begin_walk(w));
    while (w->heap.count && events->count < w->walk->limit) {
        const struct stored_event *event = &w->found[heap_pop(&w->heap)];
        if (!(event->flags & EVENT_REJECTED)) {
            events->items[events->count++] = *event;
        }
        TRY(visit_parents(w, event));
    }
    return OK;
}

struct err fed_graph_walk(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct graph_walk *walk, struct stored_events *events_out)
{
    struct walker w = {.hs = hs, .ctx = ctx, .room = room, .walk = walk, .seen = map_new()};
    /* Rejected events are walked over, so more are looked at than are given. */
    w.found_max = walk->limit * WALK_VISITS_PER_RESULT + WALK_VISITS_MIN;
    w.found = arena_array(ctx->arena, w.found_max, sizeof *w.found);
    w.heap = (struct heap){.arena = ctx->arena, .before = is_deeper, .arg = &w};
    *events_out = (struct stored_events){0};
    events_out->items = arena_array(ctx->arena, walk->limit + 1, sizeof *events_out->items);
    struct err err = walk_on(&w, events_out);
    map_free(&w.seen);
    return err;
}

/* --- ordering --- */
struct order {
    const struct event **events;
    size_t count;
    size_t *waits;  /* parents of each that have not been placed */
    size_t *starts; /* of each parent's children in `children`; count + 1 */
    size_t *children;
    bool *placed;
};

static bool is_earlier(const void *arg, size_t a, size_t b)
{
    const struct order *order = arg;
    const struct event *left = order->events[a];
    const struct event *right = order->events[b];
    if (left->depth != right->depth) {
        return left->depth < right->depth;
    }
    if (left->origin_server_ts != right->origin_server_ts) {
        return left->origin_server_ts < right->origin_server_ts;
    }
    return slice_cmp(left->id.s, right->id.s) < 0;
}

static size_t links_of(const struct event *event, enum graph_links links,
                       const struct event_id **ids_out)
{
    *ids_out = links == GRAPH_PREV ? event->prev_events : event->auth_events;
    return links == GRAPH_PREV ? event->prev_event_count : event->auth_event_count;
}

/* Calls for each link inside the set: once to count, once to fill. */
static void each_link(struct order *order, const struct map *index, enum graph_links links,
                      size_t *cursor)
{
    for (size_t i = 0; i < order->count; i++) {
        const struct event_id *ids;
        size_t id_count = links_of(order->events[i], links, &ids);
        for (size_t k = 0; k < id_count; k++) {
            uint64_t parent = 0;
            if (!map_get(index, ids[k].s, &parent) || parent == i) {
                continue;
            }
            if (cursor) {
                order->children[cursor[parent]++] = i;
            } else {
                order->starts[parent + 1]++;
                order->waits[i]++;
            }
        }
    }
}

static void link_up(struct arena *arena, struct order *order, enum graph_links links)
{
    struct map *index = map_new();
    for (size_t i = order->count; i > 0; i--) {
        map_set(index, order->events[i - 1]->id.s, i - 1); /* the first of doubles counts */
    }
    order->waits = arena_array(arena, order->count, sizeof *order->waits);
    order->starts = arena_array(arena, order->count + 1, sizeof *order->starts);
    order->placed = arena_array(arena, order->count, sizeof *order->placed);
    each_link(order, index, links, NULL);
    for (size_t i = 0; i < order->count; i++) {
        order->starts[i + 1] += order->starts[i];
    }
    order->children = arena_array(arena, order->starts[order->count] + 1, sizeof *order->children);
    size_t *cursor = arena_array(arena, order->count, sizeof *cursor);
    for (size_t i = 0; i < order->count; i++) {
        cursor[i] = order->starts[i];
    }
    each_link(order, index, links, cursor);
    map_free(&index);
}

void fed_graph_order(struct ctx *ctx, const struct event **events, size_t count,
                     enum graph_links links)
{
    struct order order = {.events = events, .count = count};
    struct heap heap = {.arena = ctx->arena, .before = is_earlier, .arg = &order};
    if (count < 2) {
        return;
    }
    const struct event **sorted = arena_array(ctx->arena, count, sizeof *sorted);
    size_t done = 0;
    link_up(ctx->arena, &order, links);
    for (size_t i = 0; i < count; i++) {
        if (order.waits[i] == 0) {
            heap_push(&heap, i);
        }
    }
    while (heap.count) {
        size_t at = heap_pop(&heap);
        sorted[done++] = events[at];
        order.placed[at] = true;
        for (size_t k = order.starts[at]; k < order.starts[at + 1]; k++) {
            if (--order.waits[order.children[k]] == 0) {
                heap_push(&heap, order.children[k]);
            }
        }
    }
    /* What is left stands in a cycle, which only ids of versions 1 and 2 can make, or behind one:
     * it goes last, where its missing parents refuse it. */
    for (size_t i = 0; i < count; i++) {
        if (!order.placed[i]) {
            sorted[done++] = events[i];
        }
    }
    for (size_t i = 0; i < count; i++) {
        events[i] = sorted[i];
    }
}
