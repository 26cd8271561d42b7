/* State of a room as a persistent tree of numbered nodes: a snapshot is one number (a root), and
 * snapshots share what they have in common. Keys are numbers of (type, state_key) pairs, values are
 * event numbers; both are local to the room. Root 0 is the empty state.
 *
 * A root is either a short list of changes against a base root or a folded tree node set; every
 * 32nd change folds. Equal states reached by two roads have equal set hashes. The difference of two
 * roots costs what differs, not the size of the state. Nodes are cached (bounded, shared). Calls
 * for one room run in that room's lane when they write; reads may come from any thread. */
#pragma once
#include "store/store.h"

struct state_store; /* one per process: node cache over a store */

struct state_entry {
    uint64_t key;  /* state key number, >= 1 */
    int64_t event; /* event number; in a change, 0 = remove the key */
};
struct state_entries {
    struct state_entry *items; /* ascending by key */
    size_t count;
};

struct state_store *state_store_new(struct store *store, size_t cache_bytes_max);
void state_store_free(struct state_store **states);
/* What the cached nodes hold. */
size_t state_store_bytes(struct state_store *states);

/* The event number under a key in a snapshot. */
struct err state_get(struct state_store *states, struct ctx *ctx, uint64_t room, uint64_t root,
                     uint64_t key, int64_t *event_out, bool *found_out) MUST_USE;
/* The whole snapshot, ascending by key, in the arena. */
struct err state_read(struct state_store *states, struct ctx *ctx, uint64_t room, uint64_t root,
                      struct state_entries *entries_out) MUST_USE;
/* A new root = `root` with the changes (of several for one key the last wins). New nodes are added
 * to `update`, which must be an update of object (STORE_ROOM_STATE, room) that the caller writes.
 * Several calls may build on each other before the write when they share the update. Changes that
 * change nothing give `root` back. Root numbers are allocated per room, ascending. */
struct err state_apply(struct state_store *states, struct ctx *ctx, uint64_t room, uint64_t root,
                       const struct state_entry *changes, size_t count, struct store_update *update,
                       uint64_t *root_out) MUST_USE;
struct state_difference {
    uint64_t key;
    int64_t left, right; /* 0 = absent on that side */
};
/* Keys whose values differ between two roots. */
struct err state_diff(struct state_store *states, struct ctx *ctx, uint64_t room, uint64_t left,
                      uint64_t right, struct state_difference **items_out,
                      size_t *count_out) MUST_USE;
/* The same piece by piece. `more` may be true with few or no items. */
struct state_page {
    uint64_t left, right;
    uint64_t from; /* first key wanted; becomes that of the next page */
    size_t limit;  /* about so many at once; 0 = all */
    struct state_difference *items;
    size_t count;
    bool more;
};
struct err state_diff_page(struct state_store *states, struct ctx *ctx, uint64_t room,
                           struct state_page *page_io) MUST_USE;
/* Whether two roots hold the same state. */
struct err state_eq(struct state_store *states, struct ctx *ctx, uint64_t room, uint64_t left,
                    uint64_t right, bool *equal_out) MUST_USE;
/* Removes what none of `roots` reaches (ascending order not needed), in several writes; all roots
 * of updates that are not written yet must be among them. removed_out counts records. */
struct err state_sweep(struct state_store *states, struct ctx *ctx, uint64_t room,
                       const uint64_t *roots, size_t count, uint64_t *removed_out) MUST_USE;
/* ERR_CORRUPT when the snapshot cannot be read whole or its set hash is not that of its entries. */
struct err state_check(struct state_store *states, struct ctx *ctx, uint64_t room,
                       uint64_t root) MUST_USE;
/* Calls visit for each stored root of the room, ascending. Stops with the first error. For check.
 */
struct err state_each_root(struct state_store *states, struct ctx *ctx, uint64_t room,
                           struct err (*visit)(void *arg, uint64_t root), void *arg) MUST_USE;
/* Forgets cached nodes of a room (after purge). */
void state_forget(struct state_store *states, uint64_t room);
