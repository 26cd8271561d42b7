/* Sliding sync on the engine: which rooms a client wants to know of, and what is new of them for
 * one connection. Long polls are its driver. Spec: MSC4186; sync-sliding.md. */
#pragma once
#include "homeserver/sync/sliding_request.h"
#include "homeserver/sync/sync.h"

struct sync_sliding;

/* Before the first position is reserved. */
struct sync_sliding *sync_sliding_new(struct sync *sync);
void sync_sliding_free(struct sync_sliding **sliding);

/* Forgets all connections, as a restart does. */
void sync_sliding_forget(struct sync *sync);

struct sliding_asking {
    uint64_t user;
    struct slice user_id, device_id;
    const struct sliding_request *request;
    struct slice pos; /* ptr NULL = a new connection */
    /* 0: the request is new. Otherwise it has waited since it was given this number; if another one
     * came meanwhile, the answer is empty, and its pos that of the request. */
    uint64_t serial;
};
struct sliding_answer {
    bool news;
    uint64_t upto;   /* looked up to here; wait for what comes after it */
    uint64_t serial; /* for asking again */
};
/* Writes the body of the answer. M_UNKNOWN_POS. ERR_WAITS on a loop when there is news. */
struct err sync_sliding_respond(struct sync *sync, struct ctx *ctx,
                                const struct sliding_asking *asking, struct buf *body,
                                struct sliding_answer *answer_out) MUST_USE;

/* Parks the request, which found nothing new; `json` is its body. ERR_WAITS as waiting.h has it. */
struct sliding_wait {
    const struct sliding_asking *asking;
    struct slice json;
    const struct sliding_answer *answer;
    int64_t timeout_ms;
};
struct http_request;
struct http_reply;
struct err sync_sliding_park(struct sync *sync, struct ctx *ctx, const struct sliding_wait *wait,
                             const struct http_request *http, struct http_reply *reply) MUST_USE;
