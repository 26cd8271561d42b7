#include "homeserver/push/push_priv.h"

#include "homeserver/base/mem.h"
#include "homeserver/base/stats.h"

#include <string.h>

enum { LINGER_MS = 10 };

static struct err fetch(void *arg, struct ctx *ctx, const struct http_fetch_request *request,
                        struct http_fetch_reply *reply_out)
{
    struct hs *hs = arg;
    return http_fetch(hs->fetcher, ctx, request, reply_out);
}

static struct err rest(void *arg, struct ctx *ctx, int64_t *next_wall_ms)
{
    (void)ctx;
    *next_wall_ms = push_pump(arg);
    return OK;
}

struct push *push_new(struct hs *hs, const struct push_config *config)
{
    struct push *push = mem_alloc(sizeof *push);
    push->hs = hs;
    push->port = config->port.fetch ? config->port : (struct push_port){fetch, hs};
    push->vapid_secret = config->vapid_secret;
    push->replay_upto = positions_newest(hs->positions);
    push->targets = map_new();
    push->gateways = map_new();
    pthread_mutex_init(&push->lock, NULL);
    pthread_cond_init(&push->calm, NULL);
    const struct hs_tail_port port = {
        .name = "push",
        .kinds = TAIL_KIND(CHANGE_EVENT) | TAIL_KIND(CHANGE_MEMBERSHIP) | TAIL_KIND(CHANGE_RECEIPT),
        .start = TAIL_FROM_NOW,
        .linger_ms = LINGER_MS,
        .arg = push,
        .handle = push_on_change,
        .rest = rest,
        .lost = push_on_lost,
    };
    push->tail = hs_tail_new(hs, &port);
    return push;
}

struct err push_start(struct push *push)
{
    struct ctx ctx = {.arena = arena_new(), .now = push->hs->now, .log = push->hs->log};
    struct err err = hs_pushers_load(push->hs, &ctx);
    err = err.code ? err : push_resume(push, &ctx);
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    TRY(err);
    return hs_tail_start(push->tail);
}

static void stop_sending(struct push *push)
{
    pthread_mutex_lock(&push->lock);
    push->stopping = true;
    pthread_mutex_unlock(&push->lock);
}

void push_stop(struct push *push)
{
    hs_tail_stop(push->tail);
    stop_sending(push);
}

void push_abandon(struct push *push)
{
    hs_tail_abandon(push->tail);
    stop_sending(push);
}

void push_free(struct push **push)
{
    struct push *p = *push;
    if (!p) {
        return;
    }
    hs_tail_free(&p->tail);
    push_dests_free(p);
    pthread_cond_destroy(&p->calm);
    pthread_mutex_destroy(&p->lock);
    mem_free(p);
    *push = NULL;
}

void push_settle(struct push *push)
{
    hs_tail_settle(push->tail);
    pthread_mutex_lock(&push->lock);
    while (push->sending > 0) {
        pthread_cond_wait(&push->calm, &push->lock);
    }
    pthread_mutex_unlock(&push->lock);
}

const struct p256_key *push_vapid(struct push *push)
{
    if (!push || !push->vapid_secret) {
        return NULL;
    }
    pthread_mutex_lock(&push->lock);
    push->has_vapid = push->has_vapid || p256_from_secret(push->vapid_secret, &push->vapid);
    bool has_vapid = push->has_vapid;
    pthread_mutex_unlock(&push->lock);
    return has_vapid ? &push->vapid : NULL;
}

bool push_vapid_public(struct push *push, unsigned char public_out[P256_PUBLIC_BYTES])
{
    const struct p256_key *key = push_vapid(push);
    if (key) {
        memcpy(public_out, key->public_key, P256_PUBLIC_BYTES);
    }
    return key != NULL;
}

struct err push_activation(struct push *push, struct ctx *ctx, uint64_t user,
                           const struct pusher *pusher)
{
    if (!push) {
        return OK;
    }
    struct store_update *update = hs_push_update(ctx, user);
    struct push_item item = {.queued_ms = now_wall_ms(ctx->now)};
    hs_push_put(ctx, update, hs_pusher_name(ctx, pusher->app_id, pusher->pushkey), &item);
    TRY(store_write(push->hs->store, ctx, &update, 1));
    push_wish(push, ctx,
              &(struct push_wish){.user = user, .pusher = pusher, .has_items = true, .queued = 1},
              NULL);
    hs_tail_poke(push->tail);
    return OK;
}
