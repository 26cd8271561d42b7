/* Asking other servers for events of a room: what comes back has been parsed and its signatures
 * checked, and is of that room; what does not hold is left out. All may wait for the network.
 * Spec: server-server, "Backfilling and retrieving missing events", "Retrieving events",
 * "Retrieving event authorisation information". */
#pragma once
#include "federation/inbound.h"

struct pull {
    struct fed *fed;
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    struct slice server;
    int64_t timeout_ms; /* of each request; 0 = 20 s */
    bool is_alive;      /* it was heard of just now: asked even when it is in back-off */
    bool *answered_out; /* set when it answers, whatever it says; may be NULL */
};

struct pulled {
    const struct event **items;
    size_t count;
};

/* The events between `earliest` and `latest`, in the order of the graph, oldest first. Only those
 * that `latest` leads to through each other; at most `limit`. */
struct pull_missing {
    const struct event_id *earliest;
    size_t earliest_count;
    const struct event *latest;
    size_t limit;
};
struct err pull_missing(const struct pull *pull, const struct pull_missing *want,
                        struct pulled *pulled_out) MUST_USE;
/* Events from these on backwards, in the order of the graph, oldest first; as above. */
struct err pull_history(const struct pull *pull, const struct event_id *from, size_t from_count,
                        size_t limit, struct pulled *pulled_out) MUST_USE;

enum pull_result {
    PULL_ABSENT, /* the server does not give it */
    PULL_BAD,    /* it does not hold */
    PULL_GOOD,
};
struct err pull_event(const struct pull *pull, struct event_id id, struct event *event_out,
                      enum pull_result *result_out) MUST_USE;
/* An event's authorisation chain, in its own order. */
struct err pull_event_auth(const struct pull *pull, struct event_id id,
                           struct pulled *pulled_out) MUST_USE;
/* The state before an event. */
struct pulled_ids {
    struct event_id *state, *chain;
    size_t state_count, chain_count;
};
struct err pull_state_ids(const struct pull *pull, struct event_id id,
                          struct pulled_ids *ids_out) MUST_USE;
/* The same as events: state and chain together, in the order of authorisation. */
struct err pull_state(const struct pull *pull, struct event_id id,
                      struct pulled *pulled_out) MUST_USE;

/* Those of `events` that the ids lead to through prev_events among them, in the order of the graph;
 * doubles are dropped. */
void pull_keep_connected(struct ctx *ctx, const struct event_id *from, size_t from_count,
                         struct pulled *events);
