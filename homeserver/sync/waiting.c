#include "homeserver/sync/waiting.h"

#include "homeserver/base/mem.h"
#include "homeserver/service/tokens.h"

#include <stdatomic.h>
#include <string.h>

enum { BODY_BYTES_MAX = 1 << 29, AT_HAND_BYTES_MAX = 1 << 16 };

/* Two chains of calls hold it: the waiter's (which computes) and the request's (which answers).
 * Whoever claims it first answers. */
struct sync_waiting {
    struct hs *hs;
    struct http_parked *parked;
    const struct sync_waiting_driver *driver;
    void *arg;
    struct requester requester; /* who asked; the device's id is owned */
    struct buf body;            /* the answer, on the heap */
    uint32_t error_code;
    _Atomic bool claimed;
    _Atomic int refs;
};

static void release(struct sync_waiting *waiting)
{
    if (atomic_fetch_sub(&waiting->refs, 1) == 1) {
        buf_deinit(&waiting->body);
        waiting->driver->free(waiting->arg);
        mem_free((void *)(uintptr_t)waiting->requester.device_id.ptr);
        mem_free(waiting);
    }
}

static bool claim(struct sync_waiting *waiting)
{
    return !atomic_exchange(&waiting->claimed, true);
}

/* --- answering --- */

/* Spec: client-server, "Soft logout", "Account locking". */
static struct err refuse(struct http_reply *reply, struct err err)
{
    if (err.code == ERR_M_USER_LOCKED) {
        http_reply_error(reply, err, LIT("\"soft_logout\":true"));
    }
    if (err.code == ERR_M_UNKNOWN_TOKEN) {
        http_reply_error(reply, err, LIT("\"soft_logout\":false"));
    }
    return err;
}

static struct err answer_found(void *arg, struct ctx *ctx, struct http_reply *reply)
{
    struct sync_waiting *waiting = arg;
    uint32_t code = waiting->error_code;
    (void)ctx;
    if (code == 0) {
        buf_add(&reply->body, buf_slice(&waiting->body));
    }
    release(waiting);
    return code == 0 ? OK : refuse(reply, err_make(code, "a waiting request failed"));
}

/* Who has logged out meanwhile, or was locked out, gets nothing more. */
static struct err respond(struct sync_waiting *waiting, struct ctx *ctx, struct buf *body,
                          bool *news_out, uint64_t *upto_out)
{
    TRY(hs_token_recheck(waiting->hs, ctx, &waiting->requester));
    return waiting->driver->respond(waiting->arg, ctx, body, news_out, upto_out);
}

static struct err answer_now(void *arg, struct ctx *ctx, struct http_reply *reply)
{
    struct sync_waiting *waiting = arg;
    bool news = false;
    uint64_t upto = 0;
    struct err err = respond(waiting, ctx, &reply->body, &news, &upto);
    release(waiting);
    return err.code == 0 ? OK : refuse(reply, err);
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
    struct err err = respond(waiting, &ctx, &waiting->body, &news, upto_out);
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

/* Of the requester what lasts no longer than the request is copied, or not needed. */
static void remember(struct sync_waiting *waiting, const struct requester *requester)
{
    waiting->requester =
        (struct requester){.user = requester->user, .token_hash = requester->token_hash};
    if (requester->device_id.ptr) {
        size_t len = requester->device_id.len;
        char *copy = mem_alloc(len + 1);
        memcpy(copy, requester->device_id.ptr, len);
        waiting->requester.device_id = (struct slice){copy, len};
    }
}

struct err sync_waiting_park(struct sync_waiting *waiting, struct ctx *ctx,
                             const struct sync_waiting_start *start,
                             const struct http_request *http, struct http_reply *reply)
{
    remember(waiting, http->requester);
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
