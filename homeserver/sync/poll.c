#include "homeserver/sync/poll.h"

#include "homeserver/base/mem.h"
#include "homeserver/sync/priv.h"

#include <stdatomic.h>

enum { BODY_BYTES_MAX = 1 << 29 };

/* Two chains of calls hold a poll: the waiter's (which computes) and the request's (which answers).
 * Whoever claims it first answers. */
struct poll {
    struct sync *sync;
    struct http_parked *parked;
    struct sync_waiter waiter;
    struct sync_params params;
    struct buf body; /* the answer, on the heap */
    uint32_t error_code;
    _Atomic bool claimed;
    _Atomic int refs;
};

static void release(struct poll *poll)
{
    if (atomic_fetch_sub(&poll->refs, 1) == 1) {
        buf_deinit(&poll->body);
        sync_params_deinit(&poll->params);
        mem_free(poll);
    }
}

static bool claim(struct poll *poll)
{
    return !atomic_exchange(&poll->claimed, true);
}

/* --- answering --- */

static struct err answer_found(void *arg, struct ctx *ctx, struct http_reply *reply)
{
    struct poll *poll = arg;
    uint32_t code = poll->error_code;
    (void)ctx;
    buf_add(&reply->body, buf_slice(&poll->body));
    release(poll);
    return code == 0 ? OK : err_make(code, "a waiting sync failed");
}

static struct err answer_now(void *arg, struct ctx *ctx, struct http_reply *reply)
{
    struct poll *poll = arg;
    struct sync_answer answer;
    struct err err = sync_params_respond(poll->sync, ctx, &poll->params, &reply->body, &answer);
    release(poll);
    return err;
}

/* Time is over, the client has gone, or the server stops. */
static void on_expired(void *arg)
{
    struct poll *poll = arg;
    if (!claim(poll)) {
        return;
    }
    if (sync_sessions_cancel(poll->sync->sessions, &poll->waiter)) {
        release(poll); /* the waiter's */
    }
    http_unpark(poll->parked, answer_now, poll);
}

/* --- waiting --- */

/* True when there is something to say. */
static bool compute(struct poll *poll, struct sync_answer *answer)
{
    struct hs *hs = poll->sync->hs;
    struct ctx ctx = {.arena = arena_new(), .now = hs->now, .log = hs->log};
    buf_clear(&poll->body);
    struct err err = sync_params_respond(poll->sync, &ctx, &poll->params, &poll->body, answer);
    ctx_finish(&ctx);
    if (err.code != 0) {
        buf_clear(&poll->body);
        poll->error_code = err.code;
        log_error(hs->log, "sync_failed", .user = poll->params.user_id, .err = slice_of(err.text));
    }
    arena_free(&ctx.arena);
    return err.code != 0 || answer->news;
}

/* Waits on; false when there are changes already. An expiry that came between finds no waiter to
 * cancel, so it is looked for once more. */
static bool wait_on(struct poll *poll, uint64_t upto)
{
    buf_deinit(&poll->body);
    buf_init(&poll->body, BODY_BYTES_MAX);
    if (!sync_sessions_wait(poll->sync->sessions, poll->params.user, upto, &poll->waiter)) {
        return false;
    }
    if (atomic_load(&poll->claimed) && sync_sessions_cancel(poll->sync->sessions, &poll->waiter)) {
        release(poll);
    }
    return true;
}

static void on_wake(void *arg)
{
    struct poll *poll = arg;
    struct sync_answer answer = {0};
    while (!atomic_load(&poll->claimed)) {
        if (!compute(poll, &answer)) {
            if (wait_on(poll, answer.upto)) {
                return;
            }
            continue;
        }
        if (claim(poll)) {
            http_unpark(poll->parked, answer_found, poll);
        }
        break;
    }
    release(poll);
}

void sync_poll_park(struct sync *sync, struct ctx *ctx, const struct sync_poll_start *start,
                    const struct http_request *http, struct http_reply *reply)
{
    struct poll *poll = mem_alloc(sizeof *poll);
    poll->sync = sync;
    atomic_init(&poll->refs, 2);
    buf_init(&poll->body, BODY_BYTES_MAX);
    sync_params_copy(&poll->params, start->request, start->filter);
    sync_waiter_init(&poll->waiter, poll->params.device_id, on_wake, poll);
    poll->parked = http_park(ctx, http, reply, start->timeout_ms, on_expired, poll);
    if (!wait_on(poll, start->upto)) {
        on_wake(poll);
    }
}
