#include "homeserver/room/resolve_priv.h"

#include <string.h>

void resolve_nodes_add(struct arena *arena, struct resolve_nodes *nodes, struct resolve_node *node)
{
    if (nodes->count == nodes->cap) {
        size_t cap = nodes->cap ? nodes->cap * 2 : 32;
        nodes->items = arena_grow(arena, nodes->items, nodes->cap * sizeof *nodes->items,
                                  cap * sizeof *nodes->items);
        nodes->cap = cap;
    }
    nodes->items[nodes->count++] = node;
}

struct resolve_node *resolve_graph_node(struct resolve_graph *graph, struct event_id id)
{
    struct resolve_node *node = map_get_ptr(graph->by_id, id.s);
    if (node) {
        return node;
    }
    node = arena_alloc(graph->arena, sizeof *node);
    node->id = id;
    node->event = graph->input->event(graph->input->arg, id);
    map_set_ptr(graph->by_id, id.s, node);
    resolve_nodes_add(graph->arena, &graph->nodes, node);
    return node;
}

const struct resolve_node *resolve_graph_expand(struct resolve_graph *graph,
                                                struct resolve_node *node)
{
    const struct event *event = node->event;
    if (node->expanded || !event) {
        return node;
    }
    node->expanded = true;
    node->cited = arena_array(graph->arena, event->auth_event_count, sizeof(struct resolve_node *));
    for (size_t i = 0; i < event->auth_event_count; i++) {
        node->cited[node->cited_count++] = resolve_graph_node(graph, event->auth_events[i]);
    }
    return node;
}

struct resolve_nodes resolve_graph_walk(struct resolve_graph *graph,
                                        const struct resolve_nodes *starts)
{
    struct resolve_nodes met = {0};
    uint32_t visit = ++graph->visit;
    for (size_t i = 0; i < starts->count; i++) {
        if (starts->items[i]->visit != visit) {
            starts->items[i]->visit = visit;
            resolve_nodes_add(graph->arena, &met, starts->items[i]);
        }
    }
    for (size_t i = 0; i < met.count; i++) {
        const struct resolve_node *node = resolve_graph_expand(graph, met.items[i]);
        for (size_t j = 0; j < node->cited_count; j++) {
            if (node->cited[j]->visit != visit) {
                node->cited[j]->visit = visit;
                resolve_nodes_add(graph->arena, &met, node->cited[j]);
            }
        }
    }
    return met;
}

struct resolve_node *resolve_graph_levels(struct resolve_graph *graph, struct resolve_node *node)
{
    resolve_graph_expand(graph, node);
    for (size_t i = 0; i < node->cited_count; i++) {
        const struct event *cited = node->cited[i]->event;
        if (cited && event_is(cited, LIT("m.room.power_levels"), LIT(""))) {
            return node->cited[i];
        }
    }
    return NULL;
}

struct slice resolve_key(struct arena *arena, struct slice type, struct slice state_key)
{
    uint32_t type_len = (uint32_t)type.len;
    char *key = arena_alloc(arena, sizeof type_len + type.len + state_key.len);
    memcpy(key, &type_len, sizeof type_len);
    if (type.len) {
        memcpy(key + sizeof type_len, type.ptr, type.len);
    }
    if (state_key.len) {
        memcpy(key + sizeof type_len + type.len, state_key.ptr, state_key.len);
    }
    return (struct slice){key, sizeof type_len + type.len + state_key.len};
}

const struct event *resolve_state_get(const struct resolve_state *state, struct slice type,
                                      struct slice state_key)
{
    const struct event *event =
        map_get_ptr(state->by_key, resolve_key(state->arena, type, state_key));
    if (event || !state->base) {
        return event;
    }
    return state->base(state->base_arg, type, state_key);
}

void resolve_state_set(struct resolve_state *state, const struct event *event)
{
    map_set_ptr(state->by_key, resolve_key(state->arena, event->type, event->state_key),
                (void *)(uintptr_t)event);
}
