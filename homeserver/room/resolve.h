/* State resolution: versions 1, 2 and 2.1. Spec: room versions 1, 2 and 12, "State resolution".
 * The work grows with the conflict: the caller passes only the conflicting keys of each state and
 * answers lookups for the rest. */
#pragma once
#include "homeserver/room/auth.h"

struct resolve_entry {
    struct slice type;
    struct slice state_key;
    struct event_id event;
};

/* A state or part of one: each key at most once. */
struct resolve_set {
    const struct resolve_entry *items;
    size_t count;
};

/* An event by id; NULL when it is not known (it is then passed over). Must give the same pointer
 * content for the same id during the call; `rejected` must be set on rejected events. */
typedef const struct event *(*resolve_event_fn)(void *arg, struct event_id id);
/* Marks those of `ids` that are unconflicted events or stand in the auth chain of one. */
typedef void (*resolve_chain_fn)(void *arg, const struct event_id *ids, size_t count,
                                 bool *in_chain_out);

struct resolve_input {
    struct arena *arena; /* scratch and result */
    const struct room_rules *rules;
    const struct event *create;
    /* One set per state to resolve: its entries under the keys on which the states differ. A key
     * that one state lacks is conflicted too (in version 1 of the algorithm it is not, when the
     * others agree; resolve sees to that). */
    const struct resolve_set *sets;
    size_t set_count;
    auth_state_fn unconflicted; /* the event under a key on which all states agree, or NULL */
    resolve_event_fn event;
    resolve_chain_fn unconflicted_chain; /* version 2 and 2.1; NULL: nothing is marked */
    void *arg;                           /* of the three callbacks */
};

/* The resolved entries for the conflicting keys, sorted by type, then state key; a conflicting key
 * without an entry has no event in the result. The rest of the state is the unconflicted part,
 * unchanged. (An event of the auth difference may bring a key that no state had.) */
void resolve_conflicts(const struct resolve_input *input, struct resolve_set *resolved_out);

/* Convenience over whole states: splits them, resolves, and gives the whole resulting state, sorted
 * by type, then state key. `unconflicted` and `unconflicted_chain` of the input are ignored. */
void resolve_states(const struct resolve_input *input, struct resolve_set *state_out);
