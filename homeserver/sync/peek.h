/* The event stream from before /sync: the room events after a position, of all the user's rooms or
 * of one room that may be looked into. Spec: client-server, "Room Previews". */
#pragma once
#include "homeserver/sync/sync.h"
#include "homeserver/sync/waiting.h"

enum { SYNC_PEEK_EVENTS_MAX = 100 };

struct sync_peek {
    uint64_t user;
    struct slice user_id, device_id;
    uint64_t room; /* 0 = all rooms that the user is in */
    uint64_t since;
};

/* Writes {"start", "end", "chunk"}: the oldest events after `since`, and what goes on after them.
 * news_out: there are some. M_FORBIDDEN when the user may not look into the room. */
struct err sync_peek_respond(struct sync *sync, struct ctx *ctx, const struct sync_peek *peek,
                             struct buf *body, bool *news_out, uint64_t *upto_out) MUST_USE;
/* Parks a request that found nothing. ERR_WAITS as waiting.h has it. */
struct err sync_peek_park(struct sync *sync, struct ctx *ctx, const struct sync_peek *peek,
                          const struct sync_waiting_start *start, const struct http_request *http,
                          struct http_reply *reply) MUST_USE;
