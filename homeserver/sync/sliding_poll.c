/* Sliding sync that waits: the poll computes the answer anew from the request's own text. */
#include "homeserver/base/mem.h"
#include "homeserver/sync/priv.h"
#include "homeserver/sync/sliding.h"
#include "homeserver/sync/waiting.h"

#include <string.h>

struct poll {
    struct sync *sync;
    struct sync_waiter waiter;
    uint64_t user;
    uint64_t serial;
    struct slice user_id, device_id, pos, json;
};

static struct err poll_respond(void *arg, struct ctx *ctx, struct buf *body, bool *news_out,
                               uint64_t *upto_out)
{
    const struct poll *poll = arg;
    struct json json;
    struct sliding_request request;
    struct sliding_answer answer = {0};
    struct sliding_asking asking = {.user = poll->user,
                                    .user_id = poll->user_id,
                                    .device_id = poll->device_id,
                                    .request = &request,
                                    .pos = poll->pos,
                                    .serial = poll->serial};
    TRY(json_parse(ctx->arena, poll->json, &json));
    TRY(sync_sliding_parse(ctx->arena, &json, poll->user_id, &request));
    TRY(sync_sliding_respond(poll->sync, ctx, &asking, body, &answer));
    *news_out = answer.news;
    *upto_out = answer.upto;
    return OK;
}

static bool poll_wait(void *arg, uint64_t upto)
{
    struct poll *poll = arg;
    return sync_sessions_wait(poll->sync->sessions, poll->user, upto, &poll->waiter);
}

static bool poll_cancel(void *arg)
{
    struct poll *poll = arg;
    return sync_sessions_cancel(poll->sync->sessions, &poll->waiter);
}

static const struct sync_waiting_driver driver = {poll_respond, poll_wait, poll_cancel, mem_free};

static struct slice put(char **at, struct slice s)
{
    struct slice copy = {*at, s.len};
    if (s.len > 0) {
        memcpy(*at, s.ptr, s.len);
    }
    *at += s.len;
    return copy;
}

struct err sync_sliding_park(struct sync *sync, struct ctx *ctx, const struct sliding_wait *wait,
                             const struct http_request *http, struct http_reply *reply)
{
    const struct sliding_asking *asking = wait->asking;
    size_t text_len =
        asking->user_id.len + asking->device_id.len + asking->pos.len + wait->json.len;
    struct poll *poll = mem_alloc(sizeof *poll + text_len);
    struct sync_waiting *waiting = sync_waiting_new(sync->hs, &driver, poll);
    char *at = (char *)(poll + 1);
    poll->sync = sync;
    poll->user = asking->user;
    poll->serial = wait->answer->serial;
    poll->user_id = put(&at, asking->user_id);
    poll->device_id = put(&at, asking->device_id);
    poll->pos = put(&at, asking->pos);
    poll->json = put(&at, wait->json);
    sync_waiter_init(&poll->waiter, poll->device_id, sync_waiting_wake, waiting);
    struct sync_waiting_start start = {.upto = wait->answer->upto, .timeout_ms = wait->timeout_ms};
    return sync_waiting_park(waiting, ctx, &start, http, reply);
}
