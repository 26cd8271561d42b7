/* State resolution 2 and 2.1. Spec: room versions 2 and 12, "State resolution". */
#include <stdlib.h>
#include <string.h>

#include "homeserver/room/membership.h"
#include "homeserver/room/power.h"
#include "homeserver/room/resolve_priv.h"

static bool is_v2_1(const struct resolve_graph *graph)
{
    return graph->input->rules->stateres == STATERES_2_1;
}

/* The conflicted state set: every event of every set. */
static struct resolve_nodes load_conflicted(struct resolve_graph *graph)
{
    const struct resolve_input *input = graph->input;
    struct resolve_nodes conflicted = {0};
    for (size_t i = 0; i < input->set_count; i++) {
        for (size_t j = 0; j < input->sets[i].count; j++) {
            struct resolve_node *node = resolve_graph_node(graph, input->sets[i].items[j].event);
            if (!node->conflicted) {
                node->conflicted = true;
                node->full = true;
                resolve_nodes_add(graph->arena, &conflicted, node);
            }
        }
    }
    return conflicted;
}

/* Takes out what the unconflicted events cite: it is in every state's auth chain. */
static void drop_common(struct resolve_graph *graph, const struct resolve_nodes *candidates)
{
    const struct resolve_input *input = graph->input;
    struct event_id *ids = arena_array(graph->arena, candidates->count, sizeof *ids);
    bool *common = arena_array(graph->arena, candidates->count, sizeof *common);
    for (size_t i = 0; i < candidates->count; i++) {
        ids[i] = candidates->items[i]->id;
    }
    if (input->unconflicted_chain && candidates->count) {
        input->unconflicted_chain(input->arg, ids, candidates->count, common);
    }
    for (size_t i = 0; i < candidates->count; i++) {
        candidates->items[i]->full = !common[i];
    }
}

/* The auth difference: what is in some state's auth chain, but not in all. A state's own events
 * count as part of its chain; they are conflicted or common to all anyway. */
static void mark_difference(struct resolve_graph *graph)
{
    const struct resolve_input *input = graph->input;
    struct resolve_nodes candidates = {0};
    for (size_t i = 0; i < input->set_count; i++) {
        struct resolve_nodes starts = {0};
        for (size_t j = 0; j < input->sets[i].count; j++) {
            resolve_nodes_add(graph->arena, &starts,
                              resolve_graph_node(graph, input->sets[i].items[j].event));
        }
        struct resolve_nodes chain = resolve_graph_walk(graph, &starts);
        for (size_t j = 0; j < chain.count; j++) {
            chain.items[j]->reach_count++;
        }
    }
    for (size_t i = 0; i < graph->nodes.count; i++) {
        struct resolve_node *node = graph->nodes.items[i];
        if (!node->conflicted && node->reach_count && node->reach_count < input->set_count) {
            resolve_nodes_add(graph->arena, &candidates, node);
        }
    }
    drop_common(graph, &candidates);
}

static void count_citing(struct resolve_nodes *nodes)
{
    for (size_t i = 0; i < nodes->count; i++) {
        for (size_t j = 0; j < nodes->items[i]->cited_count; j++) {
            nodes->items[i]->cited[j]->citing_count++;
        }
    }
}

/* Fills `citing` of all nodes for the edges among `nodes`; resets counts first. */
static void link_citing(struct resolve_graph *graph, struct resolve_nodes *nodes)
{
    for (size_t i = 0; i < graph->nodes.count; i++) {
        graph->nodes.items[i]->citing_count = 0;
    }
    count_citing(nodes);
    for (size_t i = 0; i < graph->nodes.count; i++) {
        struct resolve_node *node = graph->nodes.items[i];
        node->citing = arena_array(graph->arena, node->citing_count, sizeof(struct resolve_node *));
        node->citing_count = 0;
    }
    for (size_t i = 0; i < nodes->count; i++) {
        struct resolve_node *node = nodes->items[i];
        for (size_t j = 0; j < node->cited_count; j++) {
            struct resolve_node *cited = node->cited[j];
            cited->citing[cited->citing_count++] = node;
        }
    }
}

/* 2.1: the conflicted state subgraph: every event on a path of auth_events between two conflicted
 * ones. All nodes met so far come after a conflicted event; those from which another conflicted one
 * can be reached are found by walking back. */
static void mark_subgraph(struct resolve_graph *graph, const struct resolve_nodes *conflicted)
{
    struct resolve_nodes all = resolve_graph_walk(graph, conflicted);
    struct resolve_nodes queue = {0};
    uint32_t visit = ++graph->visit;
    link_citing(graph, &all);
    for (size_t i = 0; i < conflicted->count; i++) {
        conflicted->items[i]->visit = visit;
        resolve_nodes_add(graph->arena, &queue, conflicted->items[i]);
    }
    for (size_t i = 0; i < queue.count; i++) {
        struct resolve_node *node = queue.items[i];
        for (size_t j = 0; j < node->citing_count; j++) {
            struct resolve_node *citing = node->citing[j];
            if (citing->visit != visit) {
                citing->visit = visit;
                citing->full = true;
                resolve_nodes_add(graph->arena, &queue, citing);
            }
        }
    }
}

/* Events that may take away someone's ability to do something. Only the effective power levels and
 * join rules count, those with an empty state key. */
static bool is_power_event(const struct event *event)
{
    if (event_is(event, LIT("m.room.power_levels"), LIT("")) ||
        event_is(event, LIT("m.room.join_rules"), LIT(""))) {
        return true;
    }
    if (!event->has_state_key || !slice_eq(event->type, LIT("m.room.member"))) {
        return false;
    }
    enum membership membership = membership_of(event);
    return (membership == MEMBERSHIP_LEAVE || membership == MEMBERSHIP_BAN) &&
           !slice_eq(event->sender.s, event->state_key);
}

/* The sender's power as the event's own auth_events tell it. */
static int64_t power_of_sender(struct resolve_graph *graph, struct resolve_node *node)
{
    const struct resolve_node *levels = resolve_graph_levels(graph, node);
    struct power_levels power =
        power_load(graph->input->rules, graph->input->create, levels ? levels->event : NULL);
    return power_of_user(&power, node->event->sender);
}

static void pick_power_event(struct resolve_graph *graph, struct resolve_nodes *picked,
                             struct resolve_node *node)
{
    if (node->full && node->event && !node->power) {
        node->power = true;
        node->sender_power = power_of_sender(graph, node);
        resolve_nodes_add(graph->arena, picked, node);
    }
}

/* X: power events of the full conflicted set and what they cite in it. A chain is not followed
 * beyond the set: an event that is cited only by way of others outside of it stays out, as on the
 * servers there are, with which we must agree. */
static struct resolve_nodes select_power_events(struct resolve_graph *graph)
{
    struct resolve_nodes picked = {0};
    for (size_t i = 0; i < graph->nodes.count; i++) {
        struct resolve_node *node = graph->nodes.items[i];
        if (node->full && node->event && is_power_event(node->event)) {
            pick_power_event(graph, &picked, node);
        }
    }
    for (size_t i = 0; i < picked.count; i++) {
        const struct resolve_node *node = resolve_graph_expand(graph, picked.items[i]);
        for (size_t j = 0; j < node->cited_count; j++) {
            pick_power_event(graph, &picked, node->cited[j]);
        }
    }
    return picked;
}

/* Greater power first, then the earlier, then the smaller id. */
static bool is_before(const struct resolve_node *a, const struct resolve_node *b)
{
    if (a->sender_power != b->sender_power) {
        return a->sender_power > b->sender_power;
    }
    if (a->event->origin_server_ts != b->event->origin_server_ts) {
        return a->event->origin_server_ts < b->event->origin_server_ts;
    }
    return slice_cmp(a->id.s, b->id.s) < 0;
}

static void heap_push(struct arena *arena, struct resolve_nodes *heap, struct resolve_node *node)
{
    resolve_nodes_add(arena, heap, node);
    size_t at = heap->count - 1;
    while (at && is_before(node, heap->items[(at - 1) / 2])) {
        heap->items[at] = heap->items[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap->items[at] = node;
}

static struct resolve_node *heap_pop(struct resolve_nodes *heap)
{
    struct resolve_node *top = heap->items[0];
    struct resolve_node *last = heap->items[--heap->count];
    size_t at = 0;
    for (;;) {
        size_t child = at * 2 + 1;
        if (child + 1 < heap->count && is_before(heap->items[child + 1], heap->items[child])) {
            child++;
        }
        if (child >= heap->count || !is_before(heap->items[child], last)) {
            break;
        }
        heap->items[at] = heap->items[child];
        at = child;
    }
    if (heap->count) {
        heap->items[at] = last;
    }
    return top;
}

/* Kahn's algorithm: always the smallest event all of whose cited events are out. */
static struct resolve_nodes sort_by_power(struct resolve_graph *graph, struct resolve_nodes *nodes)
{
    struct resolve_nodes heap = {0};
    struct resolve_nodes sorted = {0};
    link_citing(graph, nodes);
    for (size_t i = 0; i < nodes->count; i++) {
        struct resolve_node *node = nodes->items[i];
        node->waiting = 0;
        for (size_t j = 0; j < node->cited_count; j++) {
            node->waiting += node->cited[j]->power;
        }
        if (node->waiting == 0) {
            heap_push(graph->arena, &heap, node);
        }
    }
    while (heap.count) {
        struct resolve_node *node = heap_pop(&heap);
        resolve_nodes_add(graph->arena, &sorted, node);
        for (size_t i = 0; i < node->citing_count; i++) {
            if (--node->citing[i]->waiting == 0) {
                heap_push(graph->arena, &heap, node->citing[i]);
            }
        }
    }
    return sorted;
}

/* What one event is checked against: the state so far, then its own auth_events. */
struct partial {
    const struct resolve_state *state;
    const struct resolve_node *node;
};

static const struct event *partial_lookup(void *arg, struct slice type, struct slice state_key)
{
    const struct partial *partial = arg;
    const struct event *found = resolve_state_get(partial->state, type, state_key);
    for (size_t i = 0; !found && i < partial->node->cited_count; i++) {
        const struct event *cited = partial->node->cited[i]->event;
        if (cited && !cited->rejected && event_is(cited, type, state_key)) {
            found = cited;
        }
    }
    return found;
}

static void apply_in_order(struct resolve_graph *graph, const struct resolve_nodes *order,
                           struct resolve_state *state)
{
    for (size_t i = 0; i < order->count; i++) {
        struct resolve_node *node = order->items[i];
        struct partial partial = {state, resolve_graph_expand(graph, node)};
        struct auth_input check = {.arena = graph->arena,
                                   .event = node->event,
                                   .create = graph->input->create,
                                   .state = partial_lookup,
                                   .state_arg = &partial};
        if (node->event->has_state_key && auth_check_event(&check).allowed) {
            resolve_state_set(state, node->event);
        }
    }
}

/* Position 0 is farthest from the resolved power levels: positions here count from the far end, so
 * that "not on the mainline" (infinite in the spec) sorts first as 0. */
static void number_mainline(struct resolve_graph *graph, const struct event *levels)
{
    struct resolve_nodes mainline = {0};
    struct resolve_node *node = levels ? resolve_graph_node(graph, levels->id) : NULL;
    while (node && node->mainline == 0) {
        node->mainline = -1;
        resolve_nodes_add(graph->arena, &mainline, node);
        node = resolve_graph_levels(graph, node);
    }
    for (size_t i = 0; i < mainline.count; i++) {
        mainline.items[i]->mainline = (int64_t)(mainline.count - i) + 1;
    }
}

/* The mainline position of what `start` cites, remembered for all power levels on the way. */
static int64_t mainline_of(struct resolve_graph *graph, struct resolve_node *start)
{
    struct resolve_nodes path = {0};
    struct resolve_node *node = resolve_graph_levels(graph, start);
    while (node && node->mainline == 0) {
        node->mainline = -1;
        resolve_nodes_add(graph->arena, &path, node);
        node = resolve_graph_levels(graph, node);
    }
    int64_t position = node && node->mainline > 0 ? node->mainline : 1;
    for (size_t i = 0; i < path.count; i++) {
        path.items[i]->mainline = position;
    }
    return position;
}

struct placed {
    struct resolve_node *node;
    int64_t position;
};

static int compare_placed(const void *a, const void *b)
{
    const struct placed *left = a;
    const struct placed *right = b;
    if (left->position != right->position) {
        return left->position < right->position ? -1 : 1;
    }
    int64_t left_ts = left->node->event->origin_server_ts;
    int64_t right_ts = right->node->event->origin_server_ts;
    if (left_ts != right_ts) {
        return left_ts < right_ts ? -1 : 1;
    }
    return slice_cmp(left->node->id.s, right->node->id.s);
}

/* The full conflicted set without X, in mainline order. */
static struct resolve_nodes sort_by_mainline(struct resolve_graph *graph,
                                             const struct event *levels)
{
    struct resolve_nodes rest = {0};
    size_t node_count = graph->nodes.count;
    struct placed *placed = arena_array(graph->arena, node_count, sizeof *placed);
    size_t count = 0;
    number_mainline(graph, levels);
    for (size_t i = 0; i < node_count; i++) {
        struct resolve_node *node = graph->nodes.items[i];
        if (node->full && node->event && !node->power) {
            placed[count++] = (struct placed){node, mainline_of(graph, node)};
        }
    }
    if (count) {
        qsort(placed, count, sizeof *placed, compare_placed);
    }
    for (size_t i = 0; i < count; i++) {
        resolve_nodes_add(graph->arena, &rest, placed[i].node);
    }
    return rest;
}

void resolve_v2(const struct resolve_input *input, struct resolve_state *state)
{
    struct resolve_graph graph = {.input = input, .arena = input->arena, .by_id = map_new()};
    struct resolve_nodes conflicted = load_conflicted(&graph);
    mark_difference(&graph);
    if (is_v2_1(&graph)) {
        mark_subgraph(&graph, &conflicted);
    } else {
        state->base = input->unconflicted; /* 2.1 starts from nothing instead */
        state->base_arg = input->arg;
    }
    struct resolve_nodes power_events = select_power_events(&graph);
    struct resolve_nodes order = sort_by_power(&graph, &power_events);
    apply_in_order(&graph, &order, state);
    order = sort_by_mainline(&graph, resolve_state_get(state, LIT("m.room.power_levels"), LIT("")));
    apply_in_order(&graph, &order, state);
    map_free(&graph.by_id);
}
