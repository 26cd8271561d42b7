#include "homeserver/sync/poll.h"

#include "homeserver/base/mem.h"
#include "homeserver/sync/priv.h"
#include "homeserver/sync/waiting.h"

struct poll {
    struct sync *sync;
    struct sync_waiter waiter;
    struct sync_params params;
};

static struct err poll_respond(void *arg, struct ctx *ctx, struct buf *body, bool *news_out,
                               uint64_t *upto_out)
{
    struct poll *poll = arg;
    struct sync_answer answer = {0};
    TRY(sync_params_respond(poll->sync, ctx, &poll->params, body, &answer));
    *news_out = answer.news;
    *upto_out = answer.upto;
    return OK;
}

static bool poll_wait(void *arg, uint64_t upto)
{
    struct poll *poll = arg;
    return sync_sessions_wait(poll->sync->sessions, poll->params.user, upto, &poll->waiter);
}

static bool poll_cancel(void *arg)
{
    struct poll *poll = arg;
    return sync_sessions_cancel(poll->sync->sessions, &poll->waiter);
}

static void poll_free(void *arg)
{
    struct poll *poll = arg;
    sync_params_deinit(&poll->params);
    mem_free(poll);
}

static const struct sync_waiting_driver driver = {poll_respond, poll_wait, poll_cancel, poll_free};

struct err sync_poll_park(struct sync *sync, struct ctx *ctx, const struct sync_poll_start *start,
                          const struct http_request *http, struct http_reply *reply)
{
    struct poll *poll = mem_alloc(sizeof *poll);
    struct sync_waiting *waiting = sync_waiting_new(sync->hs, &driver, poll);
    poll->sync = sync;
    sync_params_copy(&poll->params, start->request, start->filter);
    sync_waiter_init(&poll->waiter, poll->params.device_id, sync_waiting_wake, waiting);
    return sync_waiting_park(
        waiting, ctx,
        &(struct sync_waiting_start){.upto = start->upto, .timeout_ms = start->timeout_ms}, http,
        reply);
}
