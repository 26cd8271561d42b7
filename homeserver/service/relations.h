/* Events that relate to an event, and the threads of a room, from the derived index.
 * Spec: client-server, "Forming relationships between events", "Threading". */
#pragma once
#include "homeserver/service/rooms.h"

struct hs_relation {
    int64_t number; /* of the child */
    uint64_t sender;
    struct slice rel_type, type, key;
};
struct hs_relations {
    struct hs_relation *items; /* oldest first */
    size_t count;
};
/* Children of an event, down to `levels` levels (1 = only its own). Not filtered by visibility. */
struct err hs_relations_of(struct hs *hs, struct ctx *ctx, struct room *room, struct slice event_id,
                           size_t levels, struct hs_relations *relations_out) MUST_USE;

struct hs_thread {
    struct slice root; /* event id */
    int64_t newest;    /* number of the newest reply */
};
struct hs_threads {
    struct hs_thread *items; /* newest reply first */
    size_t count;
};
/* Threads whose newest reply is below `before`. */
struct err hs_threads_before(struct hs *hs, struct ctx *ctx, struct room *room, int64_t before,
                             struct hs_threads *threads_out) MUST_USE;
/* Whether the user replied in the thread. */
struct err hs_thread_has_user(struct hs *hs, struct ctx *ctx, struct room *room, struct slice root,
                              uint64_t user, bool *has_out) MUST_USE;
