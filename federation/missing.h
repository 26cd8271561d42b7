/* Completing what cites unknown events: the events between are asked for, and where those do not
 * reach back to what is here, the state at the gap. Bounded in requests, events and time (the
 * ctx's deadline). Spec: server-server, "Checks performed on receipt of a PDU", "Backfilling and
 * retrieving missing events". */
#pragma once
#include "federation/pull.h"
#include "federation/staged.h"

/* Takes an event in, fetching what it lacks. A staged_fill_fn. */
struct err fed_missing_fill(struct fed *fed, struct ctx *ctx, const struct staged_event *event,
                            struct staged_outcome *outcome_io) MUST_USE;

/* The whole state before an event, from the server of `pull`: what is unknown of it and of its
 * authorisation is fetched and stored. is_whole_out false: parts of it could not be had. */
struct state_before {
    struct event_id *ids; /* all stored here */
    size_t count;
    bool is_whole;
};
struct err fed_missing_state(const struct pull *pull, struct event_id id,
                             struct state_before *state_out) MUST_USE;
/* Stores the auth events that an event lacks, as far as they can be had. */
struct err fed_missing_auth(const struct pull *pull, const struct event *event) MUST_USE;
