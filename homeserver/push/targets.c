#include "homeserver/push/push_priv.h"

#include "homeserver/base/mem.h"
#include "homeserver/base/pause.h"
#include "homeserver/base/stats.h"

#include <stdio.h>
#include <string.h>

enum {
    PAUSE_MS_MIN = 1000,
    PAUSE_MS_MAX = 3600 * 1000,
    BADGE_DELAY_MS = 1000, /* several receipts make one push */
    STORE_PAUSE_MS = 1000,
    BUSY_PAUSE_MS = 1000,
    WELL_MS = 10000,
    NAME_SHOWN_MAX = 200,
    GATEWAYS_KEPT_MAX = 1000, /* without targets */
};

int64_t push_pause_ms(uint32_t failures)
{
    return pause_after_failures(failures, PAUSE_MS_MIN, PAUSE_MS_MAX);
}

struct slice push_dest_name(const struct push_dest *target)
{
    return slice_from((struct slice){target->key, target->key_len}, sizeof target->user);
}

/* --- the table; lock held --- */

static struct push_gateway *find_gateway(struct push *push, struct slice name)
{
    struct push_gateway *gateway = map_get_ptr(push->gateways, name);
    if (!gateway) {
        gateway = mem_alloc(sizeof *gateway + name.len + 1);
        gateway->name_len = name.len;
        memcpy(gateway->name, name.ptr ? name.ptr : "", name.len);
        map_set_ptr(push->gateways, name, gateway);
    }
    return gateway;
}

static struct push_dest *find_target(struct push *push, struct ctx *ctx,
                                     const struct push_wish *wish)
{
    struct slice name = hs_pusher_name(ctx, wish->pusher->app_id, wish->pusher->pushkey);
    struct slice key = arena_concat(ctx->arena, store_id_u64(ctx->arena, wish->user), name);
    struct push_dest *target = map_get_ptr(push->targets, key);
    struct pusher_data data;
    if (target) {
        return target;
    }
    push_read_pusher(ctx->arena, wish->pusher, &data);
    target = mem_alloc(sizeof *target + key.len + 1);
    target->push = push;
    target->user = wish->user;
    target->key_len = key.len;
    memcpy(target->key, key.ptr, key.len);
    target->gateway = find_gateway(push, data.gateway);
    target->gateway->target_count++;
    map_set_ptr(push->targets, key, target);
    return target;
}

static void drop_gateway(struct push *push, struct push_gateway *gateway)
{
    if (--gateway->target_count == 0 && map_count(push->gateways) > GATEWAYS_KEPT_MAX) {
        map_remove(push->gateways, (struct slice){gateway->name, gateway->name_len});
        mem_free(gateway);
    }
}

static void drop_target(struct push *push, struct push_dest *target)
{
    map_remove(push->targets, (struct slice){target->key, target->key_len});
    drop_gateway(push, target->gateway);
    mem_free(target);
}

void push_dests_free(struct push *push)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(push->targets, &cursor, &key, &value)) {
        mem_free((void *)(uintptr_t)value);
    }
    cursor = 0;
    while (map_next(push->gateways, &cursor, &key, &value)) {
        mem_free((void *)(uintptr_t)value);
    }
    map_free(&push->targets);
    map_free(&push->gateways);
}

/* --- queues; lock held --- */

static void list_gateway(struct push *push, struct push_gateway *gateway)
{
    gateway->next = NULL;
    gateway->is_listed = true;
    if (push->listed_last) {
        push->listed_last->next = gateway;
    } else {
        push->listed_first = gateway;
    }
    push->listed_last = gateway;
    push->listed_count++;
}

static struct push_gateway *unlist_first(struct push *push)
{
    struct push_gateway *gateway = push->listed_first;
    push->listed_first = gateway->next;
    push->listed_last = push->listed_first ? push->listed_last : NULL;
    push->listed_count--;
    gateway->is_listed = false;
    return gateway;
}

static void make_ready(struct push *push, struct push_dest *target)
{
    struct push_gateway *gateway = target->gateway;
    target->state = TARGET_READY;
    target->next = NULL;
    if (gateway->last) {
        gateway->last->next = target;
    } else {
        gateway->first = target;
    }
    gateway->last = target;
    if (!gateway->is_listed) {
        list_gateway(push, gateway);
    }
}

static void make_wait(struct push *push, struct push_dest *target, int64_t until_ms)
{
    target->state = TARGET_WAITING;
    target->retry_ms = until_ms;
    target->next = push->waiting;
    push->waiting = target;
}

/* Those that are due stop waiting; when the next one is. */
static int64_t end_waits(struct push *push, int64_t now)
{
    struct push_dest **link = &push->waiting;
    int64_t next = 0;
    while (*link) {
        struct push_dest *target = *link;
        if (target->retry_ms <= now) {
            *link = target->next;
            make_ready(push, target);
            continue;
        }
        next = next == 0 || target->retry_ms < next ? target->retry_ms : next;
        link = &target->next;
    }
    return next;
}

static bool is_doubtful(const struct push_gateway *gateway)
{
    return gateway->failures > 0 || !gateway->has_answered;
}

static bool may_send(const struct push *push, const struct push_gateway *gateway, int64_t now)
{
    if (gateway->failures > 0 && (gateway->sending > 0 || gateway->retry_ms > now)) {
        return false;
    }
    if (is_doubtful(gateway)) {
        return push->doubtful < PUSH_DOUBTFUL_MAX && gateway->sending < PUSH_GATEWAY_NEW_MAX;
    }
    return gateway->sending < PUSH_GATEWAY_SENDING_MAX;
}

static struct push_dest *take_ready(struct push_gateway *gateway)
{
    struct push_dest *target = gateway->first;
    gateway->first = target->next;
    gateway->last = gateway->first ? gateway->last : NULL;
    target->next = NULL;
    return target;
}

/* The gateways have their turns one after the other. */
static struct push_dest *next_ready(struct push *push, int64_t now)
{
    if (push->stopping || push->sending >= PUSH_SENDING_MAX) {
        return NULL;
    }
    for (size_t left = push->listed_count; left > 0; left--) {
        struct push_gateway *gateway = unlist_first(push);
        struct push_dest *target = may_send(push, gateway, now) ? take_ready(gateway) : NULL;
        if (gateway->first) {
            list_gateway(push, gateway);
        }
        if (target) {
            target->state = TARGET_SENDING;
            target->is_doubtful = is_doubtful(gateway);
            gateway->sending++;
            push->sending++;
            push->doubtful += target->is_doubtful ? 1 : 0;
            return target;
        }
    }
    return NULL;
}

static void end_sending(struct push *push, struct push_dest *target)
{
    target->gateway->sending--;
    push->sending--;
    push->doubtful -= target->is_doubtful ? 1 : 0;
    if (push->sending == 0) {
        pthread_cond_broadcast(&push->calm);
    }
}

/* When a gateway that failed is tried again. */
static int64_t next_retry(const struct push *push, int64_t next)
{
    for (const struct push_gateway *g = push->listed_first; g; g = g->next) {
        if (g->failures > 0 && g->sending == 0 && (next == 0 || g->retry_ms < next)) {
            next = g->retry_ms;
        }
    }
    return next;
}

int64_t push_pump(struct push *push)
{
    int64_t now = now_wall_ms(push->hs->now);
    int64_t next = 0;
    struct push_dest *target = NULL;
    pthread_mutex_lock(&push->lock);
    next = end_waits(push, now);
    while ((target = next_ready(push, now)) != NULL) {
        pthread_mutex_unlock(&push->lock);
        bool fits = workers_submit(push->hs->waiters, 0, push_send_job, target);
        pthread_mutex_lock(&push->lock);
        if (!fits) {
            end_sending(push, target);
            make_wait(push, target, now + BUSY_PAUSE_MS);
            next = now + BUSY_PAUSE_MS;
            break;
        }
    }
    next = next_retry(push, next);
    pthread_mutex_unlock(&push->lock);
    return next;
}

static void wake(struct push *push, struct push_dest *target)
{
    if (target->state != TARGET_IDLE) {
        return;
    }
    if (target->has_items) {
        make_ready(push, target);
    } else if (target->wants_badge) {
        make_wait(push, target, now_wall_ms(push->hs->now) + BADGE_DELAY_MS);
    }
}

/* One that waits for a count alone does not keep an event waiting. */
static void hasten(struct push_dest *target)
{
    if (target->state == TARGET_WAITING && target->failures == 0) {
        target->retry_ms = 0;
    }
}

void push_wish(struct push *push, struct ctx *ctx, const struct push_wish *wish, size_t *queued_out)
{
    pthread_mutex_lock(&push->lock);
    struct push_dest *target = find_target(push, ctx, wish);
    target->has_items = target->has_items || wish->has_items;
    target->wants_badge = target->wants_badge || wish->wants_badge;
    target->queued += wish->queued;
    target->queued -= wish->dropped < target->queued ? wish->dropped : target->queued;
    if (queued_out) {
        *queued_out = target->queued;
    }
    if (wish->has_items) {
        hasten(target);
    }
    wake(push, target);
    pthread_mutex_unlock(&push->lock);
}

/* --- ends --- */

/* A gateway that takes what others have to say stumbles over this one message: only its pusher
 * waits. */
static bool is_well(const struct push_gateway *gateway, const struct push_outcome *outcome,
                    int64_t now)
{
    return outcome->has_answered && gateway->taken_ms && now - gateway->taken_ms < WELL_MS;
}

/* How the job ended, for its pusher. */
static enum push_end note_gateway(struct push *push, struct push_dest *target,
                                  const struct push_outcome *outcome)
{
    struct push_gateway *gateway = target->gateway;
    int64_t now = now_wall_ms(push->hs->now);
    gateway->taken_ms = outcome->has_taken ? now : gateway->taken_ms;
    gateway->has_answered = gateway->has_answered || outcome->has_answered;
    if (outcome->end != PUSH_GATEWAY_FAILED) {
        gateway->failures = outcome->has_answered ? 0 : gateway->failures;
        return outcome->end;
    }
    if (is_well(gateway, outcome, now)) {
        return PUSH_PUSHER_FAILED;
    }
    gateway->failures++;
    int64_t pause = push_pause_ms(gateway->failures);
    gateway->retry_ms = now + (outcome->retry_after > pause ? outcome->retry_after : pause);
    return PUSH_GATEWAY_FAILED;
}

static void settle_target(struct push *push, struct push_dest *target,
                          const struct push_outcome *outcome, enum push_end end)
{
    int64_t now = now_wall_ms(push->hs->now);
    int64_t pause = 0;
    target->state = TARGET_IDLE;
    switch (end) {
    case PUSH_DONE:
        target->failures = 0;
        wake(push, target);
        break;
    case PUSH_MORE:
        target->failures = 0;
        make_ready(push, target);
        break;
    case PUSH_GATEWAY_FAILED:
        make_ready(push, target);
        break;
    case PUSH_PUSHER_FAILED:
        pause = push_pause_ms(++target->failures);
        make_wait(push, target,
                  now + (outcome->retry_after > pause ? outcome->retry_after : pause));
        break;
    case PUSH_STORE_FAILED:
        make_wait(push, target, now + STORE_PAUSE_MS);
        break;
    }
    if (target->state == TARGET_IDLE) {
        drop_target(push, target);
    }
}

void push_job_ended(struct push_dest *target, const struct push_outcome *outcome)
{
    struct push *push = target->push;
    char name[NAME_SHOWN_MAX + 1] = {0};
    pthread_mutex_lock(&push->lock);
    enum push_end end = note_gateway(push, target, outcome);
    if (end == PUSH_GATEWAY_FAILED && target->gateway->failures == 1) {
        snprintf(name, sizeof name, "%s", target->gateway->name);
    }
    target->gateway->sending--;
    push->doubtful -= target->is_doubtful ? 1 : 0;
    settle_target(push, target, outcome, end);
    pthread_mutex_unlock(&push->lock);
    if (name[0]) {
        log_warn(push->hs->log, "push_gateway_down", .dest = slice_of(name));
    }
    bool waits = push_pump(push) != 0;
    pthread_mutex_lock(&push->lock);
    if (--push->sending == 0) {
        pthread_cond_broadcast(&push->calm);
    }
    pthread_mutex_unlock(&push->lock);
    if (waits) {
        hs_tail_poke(push->tail);
    }
}
