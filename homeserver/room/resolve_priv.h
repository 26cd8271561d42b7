/* Shared by the files that implement room/resolve.h. */
#pragma once
#include "homeserver/base/map.h"
#include "homeserver/room/resolve.h"

/* An event met during resolution. `event` is NULL when nobody has it. */
struct resolve_node {
    struct event_id id;
    const struct event *event;
    struct resolve_node **cited; /* auth_events; filled when first asked for */
    size_t cited_count;
    bool expanded;
    bool conflicted;      /* is in the conflicted state set */
    bool full;            /* is in the full conflicted set */
    bool power;           /* is among the events sorted by power */
    uint32_t visit;       /* number of the walk that met it last */
    uint32_t reach_count; /* how many states' auth chains hold it */
    int64_t sender_power;
    size_t waiting;               /* cited events not yet emitted by the topological sort */
    struct resolve_node **citing; /* events of the sort that wait for this one */
    size_t citing_count;
    int64_t mainline; /* position + 1; 0 = not computed; -1 = being computed */
};

struct resolve_nodes {
    struct resolve_node **items;
    size_t count;
    size_t cap;
};

void resolve_nodes_add(struct arena *arena, struct resolve_nodes *nodes, struct resolve_node *node);

struct resolve_graph {
    const struct resolve_input *input;
    struct arena *arena;
    struct map *by_id;
    struct resolve_nodes nodes;
    uint32_t visit;
};

struct resolve_node *resolve_graph_node(struct resolve_graph *graph, struct event_id id);
/* The node with its auth_events known. */
const struct resolve_node *resolve_graph_expand(struct resolve_graph *graph,
                                                struct resolve_node *node);
/* All nodes reachable from `starts` through auth_events, the starts included, each once. */
struct resolve_nodes resolve_graph_walk(struct resolve_graph *graph,
                                        const struct resolve_nodes *starts);
/* The cited power levels event of a node (state key empty), or NULL. */
struct resolve_node *resolve_graph_levels(struct resolve_graph *graph, struct resolve_node *node);

/* The state being built: entries by key over a lookup for what is not there. */
struct resolve_state {
    struct arena *arena;
    struct map *by_key; /* const struct event * */
    auth_state_fn base; /* may be NULL */
    void *base_arg;
};
const struct event *resolve_state_get(const struct resolve_state *state, struct slice type,
                                      struct slice state_key);
void resolve_state_set(struct resolve_state *state, const struct event *event);
/* One slice for a key pair. */
struct slice resolve_key(struct arena *arena, struct slice type, struct slice state_key);

void resolve_v1(const struct resolve_input *input, struct resolve_state *state);
void resolve_v2(const struct resolve_input *input, struct resolve_state *state);
