/* One pusher's job: what waits for it, one after the other. */
#include "homeserver/push/push_priv.h"

#include "homeserver/base/stats.h"

enum {
    ROUNDS_MAX = 16,  /* then others have their turn */
    REFUSALS_MAX = 5, /* of one message; the next has its turn then */
};
#define GIVE_UP_MS (INT64_C(24) * 3600 * 1000)

struct round {
    struct push *push;
    struct push_dest *target;
    struct ctx *ctx;
    struct slice name;
    struct pusher pusher;
    struct pusher_data data;
    struct push_mark mark;
    struct push_outcome outcome;
    bool goes_on; /* with another round */
};

static void end_round(struct round *r, enum push_end end)
{
    r->outcome.end = end;
    r->goes_on = false;
}

/* --- what becomes of a message --- */

/* The row goes, and the mark says so. */
static struct err forget_item(struct round *r, const struct push_item *item, uint32_t badge)
{
    struct store_update *update = hs_push_update(r->ctx, r->target->user);
    struct push_mark mark = {.pos = item->pos > r->mark.pos ? item->pos : r->mark.pos,
                             .badge = badge};
    hs_push_delete(r->ctx, update, r->name, item->pos);
    hs_push_put_mark(r->ctx, update, r->name, &mark);
    TRY(store_write(r->push->hs->store, r->ctx, &update, 1));
    pthread_mutex_lock(&r->push->lock);
    r->target->queued -= r->target->queued ? 1 : 0;
    r->target->failures = 0;
    pthread_mutex_unlock(&r->push->lock);
    return OK;
}

static struct err give_up(struct round *r, const struct push_item *item)
{
    stats_add(r->push->hs->stats, STAT_push_dropped_total, 1);
    return forget_item(r, item, r->mark.badge);
}

static struct err remove_pusher(struct round *r)
{
    log_info(r->push->hs->log, "pusher_rejected", .dest = r->data.gateway);
    stats_add(r->push->hs->stats, STAT_push_rejected_total, 1);
    end_round(r, PUSH_DONE);
    return hs_pusher_delete_old(r->push->hs, r->ctx, r->target->user, &r->pusher);
}

static uint32_t failures_of(struct round *r)
{
    pthread_mutex_lock(&r->push->lock);
    uint32_t failures = r->target->failures;
    pthread_mutex_unlock(&r->push->lock);
    return failures;
}

/* After a delivery; item NULL: a count alone. */
static struct err receive(struct round *r, const struct push_reception *reception,
                          const struct push_item *item, uint32_t badge)
{
    struct push_item none = {.pos = 0};
    r->outcome.has_answered = r->outcome.has_answered || reception->has_answered;
    r->outcome.retry_after = reception->retry_after_ms;
    switch (reception->kind) {
    case PUSH_TAKEN:
        r->outcome.has_taken = true;
        stats_add(r->push->hs->stats, STAT_push_sent_total, 1);
        return forget_item(r, item ? item : &none, badge);
    case PUSH_KEY_GONE:
        return remove_pusher(r);
    case PUSH_REFUSED:
        stats_add(r->push->hs->stats, STAT_push_failures_total, 1);
        if (!item || failures_of(r) + 1 >= REFUSALS_MAX) {
            log_warn(r->push->hs->log, "push_refused", .dest = r->data.gateway,
                     .bytes = reception->status);
            return give_up(r, item ? item : &none);
        }
        end_round(r, PUSH_PUSHER_FAILED);
        return OK;
    case PUSH_LATER:
        stats_add(r->push->hs->stats, STAT_push_failures_total, 1);
        end_round(r, PUSH_PUSHER_FAILED);
        return OK;
    case PUSH_GATEWAY_OUT:
        stats_add(r->push->hs->stats, STAT_push_failures_total, 1);
        end_round(r, PUSH_GATEWAY_FAILED);
        return OK;
    case PUSH_CANCELLED:
        end_round(r, PUSH_PUSHER_FAILED);
        return OK;
    }
    return OK;
}

static struct push_reception deliver(struct round *r, const struct push_notice *notice)
{
    struct push_letter letter = {&r->pusher, &r->data, notice};
    stats_gauge_add(r->push->hs->stats, STAT_push_sending, 1);
    struct push_reception reception = push_deliver(r->push, r->ctx, &letter);
    stats_gauge_add(r->push->hs->stats, STAT_push_sending, -1);
    return reception;
}

/* --- what is to be sent --- */

static struct err send_activation(struct round *r, const struct push_item *item)
{
    if (r->pusher.ack_token.len == 0 || r->pusher.ack_until_ms < now_wall_ms(r->ctx->now)) {
        return give_up(r, item);
    }
    struct push_reception reception = deliver(r, NULL);
    return receive(r, &reception, item, r->mark.badge);
}

static struct err send_item(struct round *r, const struct push_item *item)
{
    struct push_notice notice;
    struct push_subject subject = {r->target->user, item};
    bool found = false;
    if (item->pos == 0) {
        return send_activation(r, item);
    }
    if (!r->data.is_enabled) { /* it was switched off meanwhile */
        return forget_item(r, item, r->mark.badge);
    }
    if (now_wall_ms(r->ctx->now) - item->queued_ms > GIVE_UP_MS) {
        return give_up(r, item);
    }
    struct err err = push_notice_load(r->push->hs, r->ctx, &subject, &notice, &found);
    if (err.code == ERR_CORRUPT || err.code == ERR_M_NOT_FOUND) {
        return give_up(r, item);
    }
    TRY(err);
    if (!found) {
        return forget_item(r, item, r->mark.badge);
    }
    struct push_reception reception = deliver(r, &notice);
    return receive(r, &reception, item, notice.unread);
}

/* Spec: push-gateway, "Push Gateway API": counts may be sent by themselves. */
static struct err send_badge(struct round *r)
{
    struct push_notice notice = {0};
    bool events_only = json_get_bool(r->data.data, LIT("events_only"), false);
    if (!r->data.is_enabled || events_only || r->mark.badge == 0) {
        return OK;
    }
    TRY(push_count_unread(r->push->hs, r->ctx, r->target->user, 0, &notice));
    if (notice.unread >= r->mark.badge) { /* what is new has a push of its own */
        return OK;
    }
    struct push_reception reception = deliver(r, &notice);
    TRY(receive(r, &reception, NULL, notice.unread));
    if (r->outcome.end == PUSH_PUSHER_FAILED || r->outcome.end == PUSH_GATEWAY_FAILED) {
        pthread_mutex_lock(&r->push->lock);
        r->target->wants_badge = true;
        pthread_mutex_unlock(&r->push->lock);
    }
    return OK;
}

/* --- the job --- */

/* Takes the flags: what comes from now on sets them again. */
static void take_wishes(struct round *r, bool *items_out, bool *badge_out)
{
    pthread_mutex_lock(&r->push->lock);
    *items_out = r->target->has_items;
    *badge_out = r->target->wants_badge;
    r->target->has_items = r->target->wants_badge = false;
    pthread_mutex_unlock(&r->push->lock);
}

static void put_back(struct round *r, bool items, bool badge)
{
    pthread_mutex_lock(&r->push->lock);
    r->target->has_items = r->target->has_items || items;
    r->target->wants_badge = r->target->wants_badge || badge;
    pthread_mutex_unlock(&r->push->lock);
}

static struct err work(struct round *r, bool items, bool badge)
{
    struct push *push = r->push;
    struct push_items waiting = {0};
    bool found = false;
    TRY(hs_pusher_get(push->hs, r->ctx, r->target->user, r->name, &r->pusher, &found));
    if (!found) {
        struct store_update *update = hs_push_update(r->ctx, r->target->user);
        hs_push_forget(r->ctx, update, r->name);
        end_round(r, PUSH_DONE);
        return store_write(push->hs->store, r->ctx, &update, 1);
    }
    push_read_pusher(r->ctx->arena, &r->pusher, &r->data);
    TRY(hs_push_mark_get(push->hs, r->ctx, r->target->user, r->name, &r->mark));
    if (items) {
        TRY(hs_push_read(push->hs, r->ctx, r->target->user, r->name, 1, &waiting));
    }
    if (waiting.count > 0) {
        put_back(r, true, badge); /* there may be more */
        return send_item(r, &waiting.items[0]);
    }
    end_round(r, PUSH_DONE);
    return badge ? send_badge(r) : OK;
}

static void run_round(struct round *r)
{
    bool items = false, badge = false;
    take_wishes(r, &items, &badge);
    struct err err = work(r, items, badge);
    if (err.code != 0) {
        log_error(r->push->hs->log, "push", .err = slice_of(err.text));
        put_back(r, items, badge);
        end_round(r, PUSH_STORE_FAILED);
    }
}

void push_send_job(void *arg)
{
    struct push_dest *target = arg;
    struct arena *arena = arena_new();
    struct push_outcome outcome = {.end = PUSH_MORE};
    bool goes_on = true;
    for (int i = 0; i < ROUNDS_MAX && goes_on; i++) {
        struct ctx ctx = {.arena = arena,
                          .now = target->push->hs->now,
                          .log = target->push->hs->log,
                          .may_wait = true};
        struct round r = {.push = target->push,
                          .target = target,
                          .ctx = &ctx,
                          .name = push_dest_name(target),
                          .outcome = {.end = PUSH_MORE,
                                      .has_answered = outcome.has_answered,
                                      .has_taken = outcome.has_taken},
                          .goes_on = true};
        run_round(&r);
        outcome = r.outcome;
        goes_on = r.goes_on;
        ctx_finish(&ctx);
        arena_reset(arena);
    }
    arena_free(&arena);
    push_job_ended(target, &outcome);
}
