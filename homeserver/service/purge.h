/* Removing a room with everything about it: events, state, members, receipts, aliases, and its
 * place in the lists and account data of users. Nobody is told; who was in it just no longer is.
 * What a purge has begun is noted in the store, and finished at the next start when it did not
 * come to an end. */
#pragma once
#include "homeserver/service/hs.h"

struct purge_result {
    uint64_t events;
    uint64_t members;
    int64_t took_ms;
};

/* In no lane. Takes seconds for large rooms; everybody else who wants to write to the room waits
 * and then hears that it is gone. M_NOT_FOUND for unknown rooms. */
struct err hs_room_purge(struct hs *hs, struct ctx *ctx, uint64_t room,
                         struct purge_result *result_out) MUST_USE;
/* The same for a room that could not be made whole; its disk space comes back later. A room that is
 * not stored is none. */
struct err hs_room_take_back(struct hs *hs, struct ctx *ctx, uint64_t room) MUST_USE;
/* Finishes what was interrupted; before requests arrive. */
struct err hs_purges_finish(struct hs *hs, struct ctx *ctx) MUST_USE;
