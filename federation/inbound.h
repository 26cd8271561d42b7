/* What comes in: the parts that receipt of transactions, filling of gaps and history share.
 * Spec: server-server, "Transactions", "Checks performed on receipt of a PDU", "Backfilling and
 * retrieving missing events". */
#pragma once
#include "federation/fed.h"
#include "homeserver/base/json_out.h"
#include "homeserver/room/visibility.h"
#include "homeserver/service/intake.h"

/* --- candidates.c --- */
/* Servers that may know about an event of the room, best first: `first` (if any), `second`, then
 * servers of the room's longest members. Without this server, at most `max`. */
struct fed_candidates {
    struct slice first, second;
    size_t max;
};
struct err fed_servers_to_ask(struct hs *hs, struct ctx *ctx, struct room *room,
                              const struct fed_candidates *candidates, struct slice **servers_out,
                              size_t *count_out) MUST_USE;

/* --- server_view.c: what another server may see --- */
struct server_view {
    struct hs *hs;
    struct room *room;
    struct slice server;
    bool is_resident;
    bool has_users;            /* `users` is filled */
    const struct slice *users; /* its users that were ever in the room */
    size_t user_count;
    uint64_t visibility_root, membership_root; /* what was looked up last */
    enum history_visibility visibility;
    enum membership membership;
};
struct err server_view_init(struct server_view *view, struct hs *hs, struct ctx *ctx,
                            struct room *room, struct slice server) MUST_USE;
/* Judged with the state at the event, which must have a place in the graph. */
struct err server_view_allows(struct server_view *view, struct ctx *ctx,
                              const struct stored_event *event, bool *allowed_out) MUST_USE;
/* The event's federation form for this server: redacted where it may not see it. */
struct err server_view_event(struct server_view *view, struct ctx *ctx,
                             const struct stored_event *event, struct slice *json_out) MUST_USE;

/* --- graph.c: walking the graph of a room --- */
/* Events with a place, found by going back from `from` along prev_events, those of greatest depth
 * first; each once, at most `limit`. */
struct graph_walk {
    const struct event_id *from;
    size_t from_count;
    const struct event_id *stop; /* neither these nor what lies behind them alone */
    size_t stop_count;
    int64_t min_depth;
    size_t limit;
    enum { GRAPH_WITHOUT_START, GRAPH_WITH_START } start;
};
struct err fed_graph_walk(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct graph_walk *walk, struct stored_events *events_out) MUST_USE;
/* An event of this room that has a place in its graph: no outlier, not rejected. */
struct err fed_graph_find(struct hs *hs, struct ctx *ctx, struct room *room, struct slice event_id,
                          struct stored_event *event_out, bool *found_out) MUST_USE;
/* Brings parsed events into an order in which each comes after those of its prev_events (or
 * auth_events) that are among them; others by depth, then time, then id. Cycles are cut. */
enum graph_links { GRAPH_PREV, GRAPH_AUTH };
void fed_graph_order(struct ctx *ctx, const struct event **events, size_t count,
                     enum graph_links links);
