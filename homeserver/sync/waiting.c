#include "homeserver/sync/waiting.h"

#include "homeserver/base/mem.h"

#include <stdatomic.h>

enum { BODY_BYTES_MAX = 1 << 29, AT_HAND_BYTES_MAX = 1 << 16 };

/* Two chains of calls hold it: the waiter's (which computes) and the request's (which answers).
 * Whoever claims it first answers. */
struct sync_waiting {
    struct hs *hs;
    struct http_parked *parked;
    const struct sync_waiting_driver *driver;
    void *arg;
    struct buf body; /* the answer, on the heap */
    uint32_t error_code;
    _Atomic bool claimed;
    _Atomic int refs;
};

static void release(struct sync_waiting *waiting)
{
    if (atomic_fetch_sub(&waiting->refs, 1) == 1) {
        buf_deinit(&waiting->body);
        waiting->driver->free(waiting->arg);
        mem_free(waiting);
    }
}

static bool claim(struct sync_waiting *waiting)
{
    return !atomic_exchange(&waiting->claimed, true);
}

/* --- answering --- */

static struct err answer_found(void *arg, struct ctx *ctx, struct http_reply *reply)
{
    struct sync_waiting *waiting = arg;
    uint32_t code = waiting->error_code;
    (void)ctx;
    buf_add(&reply->body, buf_slice(&waiting->body));
    release(waiting);
    return code == 0 ? OK : err_make(code, "a waiting request failed");
}

static struct err answer_now(void *arg, struct ctx *ctx, struct http_reply *reply)
{
    struct sync_waiting *waiting = arg;
    bool news = false;
    uint64_t upto = 0;
    struct err err = waiting->driver->respond(waiting->arg, ctx, &reply->body, &news, &upto);
    release(waiting);
    return err;
}

/* Time is over, the client has gone, or the server stops. */
static void on_expired(void *arg)
{
    struct sync_waiting *waiting = arg;
    if (!claim(waiting)) {
        return;
    }
    if (waiting->driver->cancel(waiting->arg)) {
        release(waiting); /* the waiter's */
    }
    http_unpark(waiting->parked, answer_now, waiting);
}

/* Of many who wait for one message each would take a second turn of a worker, to copy its answer.
 */
static void give(struct sync_waiting *waiting)
{
    if (buf_slice(&waiting->body).len <= AT_HAND_BYTES_MAX) {
        http_unpark_at_hand(waiting->parked, answer_found, waiting);
    } else {
        http_unpark(waiting->parked, answer_found, waiting);
    }
}

/* --- waiting --- */

/* True when there is something to say. */
static bool compute(struct sync_waiting *waiting, uint64_t *upto_out)
{
    struct hs *hs = waiting->hs;
    struct ctx ctx = {.arena = arena_new(), .now = hs->now, .log = hs->log};
    bool news = false;
    buf_clear(&waiting->body);
    struct err err = waiting->driver->respond(waiting->arg, &ctx, &waiting->body, &news, upto_out);
    ctx_finish(&ctx);
    if (err.code != 0) {
        buf_clear(&waiting->body);
        waiting->error_code = err.code;
        if (err.code < ERR_MATRIX_FIRST) {
            log_error(hs->log, "sync_failed", .err = slice_of(err.text));
        }
    }
    arena_free(&ctx.arena);
    return err.code != 0 || news;
}

/* Waits on; false when there are changes already. An expiry that came between finds no waiter to
 * cancel, so it is looked for once more. */
static bool wait_on(struct sync_waiting *waiting, uint64_t upto)
{
    buf_deinit(&waiting->body);
    buf_init(&waiting->body, BODY_BYTES_MAX);
    if (!waiting->driver->wait(waiting->arg, upto)) {
        return false;
    }
    if (atomic_load(&waiting->claimed) && waiting->driver->cancel(waiting->arg)) {
        release(waiting);
    }
    return true;
}

void sync_waiting_wake(void *arg)
{
    struct sync_waiting *waiting = arg;
    uint64_t upto = 0;
    while (!atomic_load(&waiting->claimed)) {
        if (!compute(waiting, &upto)) {
            if (wait_on(waiting, upto)) {
                return;
            }
            continue;
        }
        if (claim(waiting)) {
            give(waiting);
        }
        break;
    }
    release(waiting);
}

struct sync_waiting *sync_waiting_new(struct hs *hs, const struct sync_waiting_driver *driver,
                                      void *arg)
{
    struct sync_waiting *waiting = mem_alloc(sizeof *waiting);
    waiting->hs = hs;
    waiting->driver = driver;
    waiting->arg = arg;
    atomic_init(&waiting->refs, 2);
    buf_init(&waiting->body, BODY_BYTES_MAX);
    return waiting;
}

struct err sync_waiting_park(struct sync_waiting *waiting, struct ctx *ctx,
                             const struct sync_waiting_start *start,
                             const struct http_request *http, struct http_reply *reply)
{
    waiting->parked = http_park(ctx, http, reply, start->timeout_ms, on_expired, waiting);
    if (wait_on(waiting, start->upto)) {
        return OK;
    }
    if (!ctx->on_loop) {
        sync_waiting_wake(waiting);
        return OK;
    }
    reply->parked = false; /* nobody knows of it yet: neither chain of calls has begun */
    release(waiting);
    release(waiting);
    return err_make(ERR_WAITS, "there is news");
}
