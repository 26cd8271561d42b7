/* Reading and rewriting the nodes of state trees. Private to store/.
 * The functions that call themselves go down one level each time; STATE_HEIGHT_MAX bounds them. */
#pragma once
#include "store/state_cache.h"

#include "homeserver/base/map.h"

#include <pthread.h>

struct state_store {
    struct store *store;
    struct state_cache *cache;
    pthread_mutex_t lock; /* guards what follows; leaf */
    struct map *counters; /* room number -> struct state_counters */
    struct state_counters {
        uint64_t root, nodes; /* newest record numbers of a room */
    } floor;                  /* of rooms whose counters were forgotten */
};

/* Where a call reads: records of `update` count as stored. */
struct state_reader {
    struct state_store *states;
    struct ctx *ctx;
    uint64_t room;
    const struct store_update *update; /* or NULL */
};

struct state_differences {
    struct state_difference *items;
    size_t count;
    size_t cap;
    uint64_t from; /* wanted: keys from here on */
    size_t limit;  /* wanted: so many at most; 0 = all */
    bool stopped;  /* by the limit: there may be more behind the last one */
};

struct store_object state_object(struct ctx *ctx, uint64_t room);
/* Makes sure that the room's counters are loaded, so that numbers can be taken. */
struct err state_counters_load(const struct state_reader *reader) MUST_USE;
/* A record number never used in this room. After state_counters_load, in the room's lane. */
uint64_t state_counters_take(const struct state_reader *reader, enum state_record_kind kind);

/* Root 0 is the empty one. */
struct err state_tree_load_root(const struct state_reader *reader, uint64_t number,
                                struct state_root *root_out) MUST_USE;
struct err state_tree_load_node(const struct state_reader *reader, struct state_ref ref,
                                uint32_t level, struct state_node *node_out) MUST_USE;
/* The event under a key in the root's tree, its list apart; 0 = none. */
struct err state_tree_get(const struct state_reader *reader, const struct state_root *root,
                          uint64_t key, int64_t *event_out) MUST_USE;
/* All entries of the tree, ascending, its list apart. */
struct err state_tree_read(const struct state_reader *reader, const struct state_root *root,
                           struct state_entries *entries_out) MUST_USE;
/* Keys whose events differ between two trees, ascending, lists apart. */
struct err state_tree_diff(const struct state_reader *reader, const struct state_root *left,
                           const struct state_root *right,
                           struct state_differences *differences) MUST_USE;
void state_differences_add(struct arena *arena, struct state_differences *differences,
                           struct state_difference item);
/* Gives `root` a new tree with the changes (ascending, each key once); nodes go to `update`. */
struct err state_tree_fold(const struct state_reader *reader, const struct state_entry *changes,
                           size_t count, struct store_update *update,
                           struct state_root *root) MUST_USE;
