/* A request that is answered when what it watches has news, or when its time is over. While it
 * waits it is one small struct: no thread, no arena. What it watches and how the answer is made is
 * the driver's: /sync (poll.c) and /events (peek.c) have one each. */
#pragma once
#include "homeserver/http/http.h"
#include "homeserver/service/hs.h"

struct sync_waiting_driver {
    /* Writes the answer. `upto` is where to wait on from when there is no news. */
    struct err (*respond)(void *arg, struct ctx *ctx, struct buf *body, bool *news_out,
                          uint64_t *upto_out);
    /* Arms for changes after `upto`; false, and not armed, when there already are some. Once armed,
     * `wake` of `start` is called once, on a worker, unless `cancel` says true. */
    bool (*wait)(void *arg, uint64_t upto);
    bool (*cancel)(void *arg);
    void (*free)(void *arg);
};

struct sync_waiting;

/* Made before the driver's waiter, which wakes it by sync_waiting_wake. `arg` is the driver's and
 * is freed by it. */
struct sync_waiting *sync_waiting_new(struct hs *hs, const struct sync_waiting_driver *driver,
                                      void *arg);
void sync_waiting_wake(void *waiting);
/* Parks the request, which found nothing new up to `upto`. Takes `waiting`. On a loop, ERR_WAITS
 * when there is news already, which takes time to tell. */
struct sync_waiting_start {
    uint64_t upto;
    int64_t timeout_ms;
};
struct err sync_waiting_park(struct sync_waiting *waiting, struct ctx *ctx,
                             const struct sync_waiting_start *start,
                             const struct http_request *http, struct http_reply *reply) MUST_USE;
