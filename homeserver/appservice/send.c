/* One service's transactions, one after the other. Spec: application-service, "Pushing events". */
#include "homeserver/appservice/as_priv.h"
#include "homeserver/base/pause.h"
#include "homeserver/service/to_device.h"
#include "homeserver/service/users.h"

enum { TIMEOUT_MS = 60000, ROUNDS_MAX = 200 };

enum round_end {
    ROUND_SENT,    /* taken by the service */
    ROUND_NOTHING, /* nothing waits */
    ROUND_FAILED,
    ROUND_STOPPED, /* the server stops, or the service is not registered any more */
};

struct round {
    struct as_queue *queue;
    const struct appservice *service;
    struct ctx *ctx;
    struct as_txn txn;
};

static bool is_stopping(struct as_queue *queue, const struct appservice **service_out)
{
    pthread_mutex_lock(&queue->as->lock);
    bool stopping = queue->as->is_stopping || !queue->service;
    *service_out = queue->service;
    pthread_mutex_unlock(&queue->as->lock);
    return stopping;
}

/* Written before it is sent, so that a retry after a crash sends the same bytes under the same id,
 * and durable before, as the service remembers the id. */
static struct err make_txn(struct round *round, bool *found_out)
{
    struct hs *hs = round->queue->as->hs;
    struct err err = err_make(ERR_CONFLICT, "not tried yet");
    struct as_made made = {0};
    struct as_making making = {.as = round->queue->as, .service = round->service};
    making.passing = as_passing_take(round->queue, round->ctx, &making.passing_count);
    while (err.code == ERR_CONFLICT) { /* a row changed while it was looked at */
        TRY(as_compose(&making, round->ctx, &made));
        if (!made.found && !made.update) {
            *found_out = false;
            return OK;
        }
        err = store_write(hs->store, round->ctx, &made.update, 1);
    }
    TRY(err);
    if (made.more) {
        as_queue_wake(round->queue);
    }
    *found_out = made.found;
    round->txn = made.txn;
    return made.found ? store_wait_durable(hs->store, round->ctx->write_ticket) : OK;
}

static struct err find_txn(struct round *round, bool *found_out)
{
    struct as_queue *queue = round->queue;
    TRY(as_txn_load(queue->as->hs, round->ctx, queue->id_owned, &round->txn, found_out));
    if (*found_out) {
        as_queue_wake(queue); /* other rows may wait behind it */
        return OK;
    }
    return make_txn(round, found_out);
}

/* The service has it: nothing of it is sent again. */
static struct err finish_txn(struct round *round)
{
    struct as *as = round->queue->as;
    struct hs *hs = as->hs;
    struct as_state state;
    TRY(as_state_load(hs, round->ctx, round->queue->id_owned, &state));
    bool was_down = state.failures > 0;
    state.failures = 0;
    state.failed_since_ms = 0;
    state.failure = (struct slice){0};
    state.last_success_ms = now_wall_ms(round->ctx->now);
    struct store_update *update = as_rows_update(round->ctx, round->queue->id_owned);
    as_txn_delete(update);
    as_state_put(round->ctx, update, &state);
    for (size_t i = 0; i < round->txn.inbox_count; i++) {
        as_inbox_mark_put(round->ctx, update, &round->txn.inboxes[i]);
    }
    TRY(store_write(hs->store, round->ctx, &update, 1));
    stats_add(hs->stats, STAT_appservice_transactions_total, 1);
    stats_add(hs->stats, STAT_appservice_events_sent_total, round->txn.event_count);
    if (was_down) {
        log_info(hs->log, "appservice_back", .dest = round->queue->id_owned);
    }
    return OK;
}

/* Users that are the service's alone do not sync: what they have is not kept for them. */
static struct err clear_inboxes(struct round *round)
{
    struct hs *hs = round->queue->as->hs;
    for (size_t i = 0; i < round->txn.inbox_count; i++) {
        const struct as_inbox_mark *mark = &round->txn.inboxes[i];
        struct slice user_id;
        TRY(hs_user_id_of(hs, round->ctx, mark->user, &user_id));
        if (hs_appservice_owns_user(hs, round->service, user_id)) {
            TRY(hs_inbox_acknowledge(hs, round->ctx, mark->user, mark->device_id, mark->pos));
        }
    }
    return OK;
}

static struct err note_failure(struct round *round, struct slice reason)
{
    struct hs *hs = round->queue->as->hs;
    struct as_state state;
    TRY(as_state_load(hs, round->ctx, round->queue->id_owned, &state));
    state.failures++;
    state.failure = reason;
    state.failed_since_ms =
        state.failed_since_ms ? state.failed_since_ms : now_wall_ms(round->ctx->now);
    if (state.failures == 1) {
        log_warn(hs->log, "appservice_down", .dest = round->queue->id_owned, .err = reason);
    }
    stats_add(hs->stats, STAT_appservice_transaction_failures_total, 1);
    struct store_update *update = as_rows_update(round->ctx, round->queue->id_owned);
    as_state_put(round->ctx, update, &state);
    return store_write(hs->store, round->ctx, &update, 1);
}

static struct err deliver(struct round *round, enum round_end *end_out)
{
    struct http_fetch_reply reply;
    struct slice id = arena_printf(round->ctx->arena, "%llu", (unsigned long long)round->txn.id);
    struct as_call call = {.service = round->service,
                           .method = LIT("PUT"),
                           .path = as_path(round->ctx, "/_matrix/app/v1/transactions/%s", id),
                           .legacy = as_path(round->ctx, "/transactions/%s", id),
                           .body = round->txn.body,
                           .timeout_ms = TIMEOUT_MS};
    struct err err = as_call(round->queue->as, round->ctx, &call, &reply);
    if (err.code == ERR_CANCELLED) {
        *end_out = ROUND_STOPPED;
        return OK;
    }
    if (err.code == 0 && reply.status / 100 == 2) {
        *end_out = ROUND_SENT;
        TRY(finish_txn(round));
        return clear_inboxes(round);
    }
    *end_out = ROUND_FAILED;
    return note_failure(round, err.code
                                   ? slice_of(err.text)
                                   : arena_printf(round->ctx->arena, "status %d", reply.status));
}

static enum round_end run_round(struct as_queue *queue, struct ctx *ctx)
{
    struct round round = {.queue = queue, .ctx = ctx};
    enum round_end end = ROUND_NOTHING;
    bool found = false;
    if (is_stopping(queue, &round.service)) {
        return ROUND_STOPPED;
    }
    pthread_mutex_lock(&queue->as->lock);
    queue->has_work = false; /* what comes from now on sets it again */
    pthread_mutex_unlock(&queue->as->lock);
    struct err err = find_txn(&round, &found);
    if (err.code == 0 && found) {
        err = deliver(&round, &end);
    }
    if (err.code != 0) {
        log_error(queue->as->hs->log, "appservice_failed", .dest = queue->id_owned,
                  .err = slice_of(err.text));
        return ROUND_FAILED;
    }
    return end;
}

static void finish(struct as_queue *queue, enum round_end end)
{
    struct as *as = queue->as;
    pthread_mutex_lock(&as->lock);
    queue->state = end == ROUND_FAILED ? AS_WAITING : AS_IDLE;
    queue->failures = end == ROUND_FAILED ? queue->failures + 1 : 0;
    queue->has_work = queue->has_work || end != ROUND_NOTHING;
    queue->next_try_ms = now_wall_ms(as->hs->now) +
                         pause_after_failures(queue->failures, AS_PAUSE_MS_MIN, AS_PAUSE_MS_MAX);
    pthread_mutex_unlock(&as->lock);
    hs_tail_poke(as->tail);
    pthread_mutex_lock(&as->lock);
    as->sending--; /* after the last one `as` may go */
    pthread_cond_broadcast(&as->calm);
    pthread_mutex_unlock(&as->lock);
}

static bool has_work(struct as_queue *queue)
{
    pthread_mutex_lock(&queue->as->lock);
    bool has = queue->has_work;
    pthread_mutex_unlock(&queue->as->lock);
    return has;
}

void as_send_job(void *arg)
{
    struct as_queue *queue = arg;
    struct ctx ctx = {.arena = arena_new(), .now = queue->as->hs->now, .log = queue->as->hs->log};
    enum round_end end = ROUND_SENT;
    for (int i = 0; i < ROUNDS_MAX && end == ROUND_SENT; i++) {
        ctx.may_wait = true;
        end = run_round(queue, &ctx);
        ctx_finish(&ctx);
        arena_reset(ctx.arena);
        ctx = (struct ctx){.arena = ctx.arena, .now = ctx.now, .log = ctx.log};
        if (end == ROUND_NOTHING && has_work(queue)) {
            end = ROUND_SENT;
        }
    }
    arena_free(&ctx.arena);
    finish(queue, end);
}
