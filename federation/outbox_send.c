/* One destination's transactions, one after the other, each until it is acknowledged: a job makes
 * it and sends it off, another takes the answer. Spec: server-server, "Transactions". */
#include "federation/outbox_priv.h"
#include "homeserver/base/pause.h"
#include "homeserver/base/stats.h"

#include <string.h>

enum {
    ROUNDS_MAX = 16, /* then others have their turn */
    STORED_EDUS_MAX = 80,
    BODY_BYTES_MAX = 64 << 20,
    EDUS_BYTES_SOFT = 4 << 20, /* a transaction takes no further EDUs beyond this */
    PAUSE_MS_MIN = 2000,
    PAUSE_MS_MAX = 3600 * 1000,
    REASON_BYTES_MAX = 300,
};

enum round_end { ROUND_SENT, ROUND_NOTHING, ROUND_RELOAD, ROUND_FAILED };

struct round {
    struct outbox *outbox;
    struct dest *dest;
    struct ctx *ctx;
    struct destination_txn txn;
    struct stored_event *events; /* of txn.events; id empty = gone meanwhile */
    int64_t until_ms;            /* after ROUND_FAILED */
    bool is_forced;
};

/* --- making a transaction --- */

static void take_events(struct round *round)
{
    struct dest *dest = round->dest;
    size_t max = dest->singles ? 1 : OUTBOX_PDUS_MAX;
    size_t count = dest->count < max ? dest->count : max;
    round->txn.events.items =
        arena_array(round->ctx->arena, count + 1, sizeof *round->txn.events.items);
    round->txn.events.count = count;
    if (count > 0) {
        memcpy(round->txn.events.items, dest->events + dest->first,
               count * sizeof *round->txn.events.items);
    }
}

/* Rows that must not be lost come before what passes. */
static struct err take_stored_edus(struct round *round, struct buf *edus)
{
    struct destination_edu *rows = NULL;
    size_t count = 0;
    size_t max = round->dest->singles ? 1 : STORED_EDUS_MAX;
    TRY(hs_destination_edus(round->outbox->hs, round->ctx, dest_name(round->dest), max, &rows,
                            &count));
    uint64_t *orders = arena_array(round->ctx->arena, count + 1, sizeof *orders);
    size_t taken = 0;
    while (taken < count && edus->len < EDUS_BYTES_SOFT) {
        if (taken > 0) {
            buf_add_byte(edus, ',');
        }
        buf_add(edus, rows[taken].json);
        orders[taken] = rows[taken].order;
        taken++;
    }
    round->txn.stored = orders;
    round->txn.stored_count = taken;
    round->txn.edu_count = taken;
    if (taken < count || count == max) {
        pthread_mutex_lock(&round->outbox->lock);
        round->dest->has_edus = true;
        pthread_mutex_unlock(&round->outbox->lock);
    }
    return OK;
}

static void take_passing(struct round *round, struct buf *edus)
{
    struct buf passing;
    size_t max = OUTBOX_EDUS_MAX - (size_t)round->txn.edu_count;
    buf_init_arena(&passing, round->ctx->arena, BODY_BYTES_MAX);
    pthread_mutex_lock(&round->outbox->lock);
    size_t count =
        round->dest->singles ? 0 : dest_take_passing(round->dest, round->ctx, max, &passing);
    pthread_mutex_unlock(&round->outbox->lock);
    if (count > 0 && edus->len > 0) {
        buf_add_byte(edus, ',');
    }
    buf_add(edus, buf_slice(&passing));
    round->txn.edu_count += count;
}

/* Takes what waits; ROUND_SENT: there is something. */
static struct err make_txn(struct round *round, enum round_end *end_out)
{
    struct outbox *outbox = round->outbox;
    struct dest *dest = round->dest;
    struct buf edus;
    buf_init_arena(&edus, round->ctx->arena, BODY_BYTES_MAX);
    pthread_mutex_lock(&outbox->lock);
    bool reload = dest->reload;
    bool has_edus = dest->has_edus;
    if (!reload) {
        take_events(round);
        bool takes_edus = !dest->singles || dest->count == 0;
        has_edus = has_edus && takes_edus;
        dest->has_edus = dest->has_edus && !takes_edus;
    }
    pthread_mutex_unlock(&outbox->lock);
    if (reload) {
        *end_out = ROUND_RELOAD;
        return OK;
    }
    if (has_edus) {
        struct err err = take_stored_edus(round, &edus);
        if (err.code != 0) {
            pthread_mutex_lock(&outbox->lock);
            dest->has_edus = true;
            pthread_mutex_unlock(&outbox->lock);
            return err;
        }
    }
    take_passing(round, &edus);
    round->txn.edus = buf_slice(&edus);
    *end_out = round->txn.events.count + round->txn.edu_count > 0 ? ROUND_SENT : ROUND_NOTHING;
    return buf_check(&edus);
}

/* Written before it is sent, so that a retry after a restart sends the same. Nobody waits for the
 * disk: what a crash takes back is made once more from what it was made of. */
static struct err store_txn(struct round *round)
{
    struct ctx *ctx = round->ctx;
    struct store_update *update = hs_destination_update(ctx, dest_name(round->dest));
    round->txn.id = hs_outbound_order(round->outbox->hs);
    round->txn.ts_ms = now_wall_ms(ctx->now);
    hs_destination_put_txn(ctx, update, &round->txn);
    TRY(store_write(round->outbox->hs->store, ctx, &update, 1));
    pthread_mutex_lock(&round->outbox->lock);
    round->dest->has_txn = true;
    pthread_mutex_unlock(&round->outbox->lock);
    return OK;
}

static struct err find_txn(struct round *round, enum round_end *end_out)
{
    bool found = false;
    pthread_mutex_lock(&round->outbox->lock);
    bool stored = round->dest->has_txn;
    pthread_mutex_unlock(&round->outbox->lock);
    *end_out = ROUND_SENT;
    if (stored) {
        TRY(hs_destination_txn(round->outbox->hs, round->ctx, dest_name(round->dest), &round->txn,
                               &found));
    }
    if (found) {
        return OK;
    }
    TRY(make_txn(round, end_out));
    return *end_out == ROUND_SENT ? store_txn(round) : OK;
}

/* --- its bytes --- */

static struct err load_event(struct round *round, size_t i)
{
    const struct destination_event *event = &round->txn.events.items[i];
    struct room *room = NULL;
    bool found = false;
    struct err err = hs_room_get(round->outbox->hs, round->ctx, event->room, &room);
    if (err.code == ERR_M_NOT_FOUND) { /* purged */
        return OK;
    }
    TRY(err);
    TRY(hs_event_scan(round->outbox->hs, round->ctx, room, event->number, &round->events[i],
                      &found));
    if (!found) {
        round->events[i] = (struct stored_event){0};
    }
    return OK;
}

static struct err load_events(struct round *round)
{
    size_t count = round->txn.events.count;
    round->events = arena_array(round->ctx->arena, count + 1, sizeof *round->events);
    for (size_t i = 0; i < count; i++) {
        TRY(load_event(round, i));
    }
    return OK;
}

/* Canonical JSON: keys in order, and what is spliced in is canonical already. */
static struct err write_body(struct round *round, struct buf *body)
{
    size_t written = 0;
    TRY(load_events(round));
    buf_add(body, LIT("{"));
    if (round->txn.edu_count > 0) {
        buf_add(body, LIT("\"edus\":["));
        buf_add(body, round->txn.edus);
        buf_add(body, LIT("],"));
    }
    buf_add(body, LIT("\"origin\":"));
    json_write_string(body, round->outbox->hs->server_name);
    buf_add(body, LIT(",\"origin_server_ts\":"));
    buf_add_i64(body, round->txn.ts_ms);
    buf_add(body, LIT(",\"pdus\":["));
    for (size_t i = 0; i < round->txn.events.count; i++) {
        if (round->events[i].event.json.len > 0) {
            if (written++ > 0) {
                buf_add_byte(body, ',');
            }
            buf_add(body, round->events[i].event.json);
        }
    }
    buf_add(body, LIT("]}"));
    return buf_check(body);
}

/* --- what the server says --- */

static struct slice reason_of(struct round *round, struct err err, const struct fed_answer *answer)
{
    struct slice errcode = json_get_string(&answer->json, LIT("errcode"));
    struct slice text = json_get_string(&answer->json, LIT("error"));
    struct json body;
    if (err.code != 0) {
        return slice_of(err.text ? err.text : "no answer");
    }
    if (!errcode.ptr && json_parse(round->ctx->arena, answer->body, &body).code == 0) {
        errcode = json_get_string(&body, LIT("errcode"));
        text = json_get_string(&body, LIT("error"));
    }
    text = slice_sub(text, 0, REASON_BYTES_MAX);
    errcode = slice_sub(errcode, 0, REASON_BYTES_MAX);
    return arena_printf(round->ctx->arena, "status %d %.*s %.*s", answer->status, (int)errcode.len,
                        errcode.ptr, (int)text.len, text.ptr);
}

static struct err refuse(struct round *round, struct store_update *update, struct slice what,
                         struct slice room_id, struct slice reason)
{
    struct outbox *outbox = round->outbox;
    struct destination_refused refused = {.ts_ms = now_wall_ms(round->ctx->now),
                                          .what = what,
                                          .room_id = room_id,
                                          .reason = slice_sub(reason, 0, REASON_BYTES_MAX)};
    log_warn(outbox->hs->log, "pdu_refused", .dest = dest_name(round->dest), .event = what,
             .room = room_id, .err = refused.reason);
    stats_add(outbox->hs->stats, STAT_federation_refused_total, 1);
    return hs_destination_put_refused(outbox->hs, round->ctx, dest_name(round->dest), update,
                                      &refused);
}

static bool has_error(const struct json *results)
{
    for (size_t i = 0; results && i < results->count; i++) {
        if (json_get_string(&results->members[i].value, LIT("error")).ptr) {
            return true;
        }
    }
    return false;
}

static struct err note_refusals(struct round *round, struct store_update *update,
                                const struct json *results)
{
    if (!has_error(results)) {
        return OK;
    }
    TRY(load_events(round));
    for (size_t i = 0; i < round->txn.events.count; i++) {
        const struct event *event = &round->events[i].event;
        const struct json *result = json_get_object(results, event->id.s);
        struct slice error = json_get_string(result, LIT("error"));
        if (error.ptr) {
            TRY(refuse(round, update, event->id.s, event->room_id.s, error));
        }
    }
    return OK;
}

/* Lock held. */
static void drop_sent(struct dest *dest)
{
    while (dest->count > 0 && dest->events[dest->first].pos <= dest->acknowledged) {
        dest->first++;
        dest->count--;
    }
    dest->first = dest->count ? dest->first : 0;
}

/* The server has it: one write says so and forgets what was sent. */
static struct err acknowledge(struct round *round, struct store_update *update)
{
    struct outbox *outbox = round->outbox;
    struct dest *dest = round->dest;
    struct destination_state state = {.acknowledged = dest->acknowledged,
                                      .last_success_ms = now_wall_ms(round->ctx->now)};
    for (size_t i = 0; i < round->txn.events.count; i++) {
        uint64_t pos = round->txn.events.items[i].pos;
        state.acknowledged = pos > state.acknowledged ? pos : state.acknowledged;
    }
    hs_destination_put_state(round->ctx, update, &state);
    hs_destination_delete_txn(round->ctx, update, &round->txn);
    TRY(store_write(outbox->hs->store, round->ctx, &update, 1));
    stats_add(outbox->hs->stats, STAT_federation_transactions_total, 1);
    stats_add(outbox->hs->stats, STAT_federation_pdus_sent_total, round->txn.events.count);
    stats_add(outbox->hs->stats, STAT_federation_edus_sent_total, round->txn.edu_count);
    pthread_mutex_lock(&outbox->lock);
    dest->acknowledged = state.acknowledged;
    dest->last_success_ms = state.last_success_ms;
    dest->has_txn = false;
    dest->failures = 0;
    dest->failed_since_ms = 0;
    dest->singles -= dest->singles ? 1 : 0;
    drop_sent(dest);
    pthread_mutex_unlock(&outbox->lock);
    return OK;
}

static struct err fail(struct round *round, struct slice reason)
{
    struct outbox *outbox = round->outbox;
    struct dest *dest = round->dest;
    int64_t now = now_wall_ms(round->ctx->now);
    int64_t down_until = 0;
    pthread_mutex_lock(&outbox->lock);
    dest->failures++;
    dest->failed_since_ms = dest->failed_since_ms ? dest->failed_since_ms : now;
    struct destination_state state = {.acknowledged = dest->acknowledged,
                                      .last_success_ms = dest->last_success_ms,
                                      .failed_since_ms = dest->failed_since_ms,
                                      .failures = dest->failures,
                                      .failure = reason};
    pthread_mutex_unlock(&outbox->lock);
    state.next_try_ms = now + pause_after_failures(state.failures, PAUSE_MS_MIN, PAUSE_MS_MAX);
    if (outbox->port.is_down(outbox->port.arg, dest_name(dest), &down_until)) {
        state.next_try_ms = down_until;
    }
    round->until_ms = state.next_try_ms;
    if (state.failures == 1) {
        log_warn(outbox->hs->log, "destination_down", .dest = dest_name(dest), .err = reason);
    }
    stats_add(outbox->hs->stats, STAT_federation_transaction_failures_total, 1);
    struct store_update *update = hs_destination_update(round->ctx, dest_name(dest));
    hs_destination_put_state(round->ctx, update, &state);
    return store_write(outbox->hs->store, round->ctx, &update, 1);
}

/* The server takes this as malformed, and would for ever. What was in it goes one by one, and what
 * is refused alone is given up and listed. */
static struct err split(struct round *round, struct slice reason)
{
    struct outbox *outbox = round->outbox;
    struct dest *dest = round->dest;
    size_t items = round->txn.events.count + (size_t)round->txn.edu_count;
    struct store_update *update = hs_destination_update(round->ctx, dest_name(dest));
    if (items > 1) {
        hs_destination_give_up_txn(update);
        TRY(store_write(outbox->hs->store, round->ctx, &update, 1));
        pthread_mutex_lock(&outbox->lock);
        dest->has_txn = false;
        dest->has_edus = true;
        dest->singles = (uint32_t)items;
        pthread_mutex_unlock(&outbox->lock);
        return OK;
    }
    if (round->txn.events.count > 0) {
        TRY(load_events(round));
        const struct event *event = &round->events[0].event;
        TRY(refuse(round, update, event->id.s, event->room_id.s, reason));
    } else {
        TRY(refuse(round, update, LIT("an EDU"), (struct slice){0}, reason));
    }
    return acknowledge(round, update);
}

static bool is_refusal(int status)
{
    return status == 400 || status == 413 || status == 422;
}

static struct err send_txn(struct round *round, const struct outbox_receipt *receipt)
{
    struct outbox *outbox = round->outbox;
    struct buf body;
    buf_init_arena(&body, round->ctx->arena, BODY_BYTES_MAX);
    TRY(write_body(round, &body));
    pthread_mutex_lock(&outbox->lock);
    bool crowded = outbox->sending > OUTBOX_CROWDED;
    pthread_mutex_unlock(&outbox->lock);
    struct outbox_letter letter = {
        .destination = dest_name(round->dest),
        .txn_id = arena_printf(round->ctx->arena, "%llu", (unsigned long long)round->txn.id),
        .body = buf_slice(&body),
        .is_forced = round->is_forced,
        .is_hurried = crowded};
    outbox->port.send(outbox->port.arg, round->ctx, &letter, receipt);
    return OK;
}

/* The answer to what is stored as under way. */
static struct err take_answer(struct round *round, struct err err, const struct fed_answer *answer,
                              enum round_end *end_out)
{
    struct outbox *outbox = round->outbox;
    bool found = false;
    *end_out = ROUND_FAILED;
    if (err.code == ERR_CANCELLED) { /* the server stops */
        round->until_ms = now_wall_ms(round->ctx->now) + PAUSE_MS_MIN;
        return OK;
    }
    bool accepted = err.code == 0 && answer->status / 100 == 2;
    if (!accepted && (err.code != 0 || !is_refusal(answer->status))) {
        return fail(round, reason_of(round, err, answer));
    }
    *end_out = ROUND_SENT;
    TRY(hs_destination_txn(outbox->hs, round->ctx, dest_name(round->dest), &round->txn, &found));
    if (!found) {
        return err_make(ERR_CORRUPT, "the transaction under way is not in the store");
    }
    if (!accepted) {
        return split(round, reason_of(round, err, answer));
    }
    struct store_update *update = hs_destination_update(round->ctx, dest_name(round->dest));
    TRY(note_refusals(round, update, json_get_object(&answer->json, LIT("pdus"))));
    return acknowledge(round, update);
}

/* --- the jobs --- */

static void on_sent(void *dest, struct ctx *ctx, struct err err, const struct fed_answer *answer);

/* Perhaps on the network's thread, of an attempt that cannot end before this returns. */
static void on_started(void *arg)
{
    struct dest *dest = arg;
    struct outbox *outbox = dest->outbox;
    pthread_mutex_lock(&outbox->lock);
    bool may_pump = outbox_note_start(outbox, dest);
    pthread_mutex_unlock(&outbox->lock);
    if (may_pump) {
        outbox_pump(outbox);
    }
}

/* ROUND_SENT: on its way; the destination may be another thread's already. */
static enum round_end begin_round(struct round *round)
{
    enum round_end end = ROUND_NOTHING;
    struct outbox *outbox = round->outbox;
    struct dest *dest = round->dest;
    const struct outbox_receipt receipt = {on_started, on_sent, dest};
    pthread_mutex_lock(&outbox->lock);
    round->is_forced = dest->is_forced;
    dest->is_forced = false;
    pthread_mutex_unlock(&outbox->lock);
    if (!round->is_forced &&
        outbox->port.is_down(outbox->port.arg, dest_name(dest), &round->until_ms)) {
        return ROUND_FAILED;
    }
    struct err err = find_txn(round, &end);
    if (err.code == 0 && end == ROUND_SENT) {
        err = send_txn(round, &receipt);
    }
    if (err.code == 0) {
        return end;
    }
    log_error(outbox->hs->log, "outbox_send", .dest = dest_name(dest), .err = slice_of(err.text));
    round->until_ms = now_wall_ms(round->ctx->now) + PAUSE_MS_MIN;
    return ROUND_FAILED;
}

/* Lock held. */
static void finish(struct outbox *outbox, struct dest *dest, enum round_end end, int64_t until_ms)
{
    outbox_end_attempt(outbox, dest);
    if (end == ROUND_FAILED) {
        dest->is_proven = false;
        dest->is_near = false;
        outbox_wait(outbox, dest, until_ms);
    } else if (end == ROUND_RELOAD) {
        dest->state = DEST_CHORE;
        outbox_chore(outbox, dest);
    } else {
        dest->is_proven = dest->is_proven || dest->last_success_ms != 0;
        dest->is_near = dest->is_near || end == ROUND_SENT;
        dest->state = DEST_IDLE;
        if (dest_has_work(dest)) {
            outbox_wake(outbox, dest);
        }
    }
    if (outbox->stopping || outbox->sending == 0) {
        pthread_cond_broadcast(&outbox->calm);
    }
}

static void leave(struct dest *dest, enum round_end end, int64_t until_ms)
{
    struct outbox *outbox = dest->outbox;
    pthread_mutex_lock(&outbox->lock);
    outbox->leaving++;
    finish(outbox, dest, end, until_ms);
    pthread_mutex_unlock(&outbox->lock);
    outbox_pump(outbox);
    pthread_mutex_lock(&outbox->lock);
    outbox->leaving--; /* after the last one the outbox may go */
    pthread_cond_broadcast(&outbox->calm);
    pthread_mutex_unlock(&outbox->lock);
}

void outbox_send_job(void *arg)
{
    struct dest *dest = arg;
    struct outbox *outbox = dest->outbox;
    struct ctx ctx = {
        .arena = arena_new(), .now = outbox->hs->now, .log = outbox->hs->log, .may_wait = true};
    struct round round = {.outbox = outbox, .dest = dest, .ctx = &ctx};
    enum round_end end = begin_round(&round);
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    if (end != ROUND_SENT) {
        leave(dest, end, round.until_ms);
    }
}

/* Lock held: whether the next transaction follows at once. */
static bool goes_on(struct outbox *outbox, struct dest *dest, enum round_end end)
{
    return end == ROUND_SENT && !outbox->stopping && ++dest->rounds < ROUNDS_MAX &&
           dest_has_work(dest);
}

static void on_sent(void *arg, struct ctx *ctx, struct err err, const struct fed_answer *answer)
{
    struct dest *dest = arg;
    struct outbox *outbox = dest->outbox;
    enum round_end end = ROUND_FAILED;
    struct round round = {.outbox = outbox, .dest = dest, .ctx = ctx};
    struct err taken = take_answer(&round, err, answer, &end);
    if (taken.code != 0) {
        log_error(outbox->hs->log, "outbox_send", .dest = dest_name(dest),
                  .err = slice_of(taken.text));
        end = ROUND_FAILED;
        round.until_ms = round.until_ms ? round.until_ms : now_wall_ms(ctx->now) + PAUSE_MS_MIN;
    }
    pthread_mutex_lock(&outbox->lock);
    bool again = goes_on(outbox, dest, end);
    pthread_mutex_unlock(&outbox->lock);
    if (again) {
        outbox_send_job(dest);
    } else {
        leave(dest, end, round.until_ms);
    }
}
