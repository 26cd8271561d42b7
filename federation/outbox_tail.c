/* The thread that tails the stream of changes. */
#include "federation/outbox_priv.h"
#include "homeserver/base/mem.h"
#include "homeserver/base/pause.h"

enum { CHANGES_MAX = 200000, MARK_EVENTS = 512, MARK_MS = 1000 };

/* --- on the publisher's thread --- */

static bool is_of_interest(enum change_kind kind)
{
    return kind == CHANGE_EVENT || kind == CHANGE_RECEIPT || kind == CHANGE_TYPING ||
           kind == CHANGE_PRESENCE || kind == CHANGE_DEVICE_KEYS;
}

static void add_change(struct outbox *outbox, const struct change *change)
{
    if (outbox->change_count == CHANGES_MAX) {
        outbox->overrun = true;
        return;
    }
    if (outbox->change_count == outbox->change_cap) {
        outbox->change_cap = outbox->change_cap ? outbox->change_cap * 2 : 256;
        outbox->changes = mem_grow(outbox->changes, outbox->change_cap * sizeof *outbox->changes);
    }
    outbox->changes[outbox->change_count++] = *change;
}

void outbox_on_change(void *arg, const struct change *change)
{
    struct outbox *outbox = arg;
    if (is_of_interest(change->kind)) {
        pthread_mutex_lock(&outbox->lock);
        add_change(outbox, change);
        pthread_mutex_unlock(&outbox->lock);
    }
}

void outbox_on_published(void *arg, uint64_t pos)
{
    struct outbox *outbox = arg;
    (void)pos;
    pthread_mutex_lock(&outbox->lock);
    if (outbox->change_count > 0) {
        pthread_cond_signal(&outbox->wake);
    }
    pthread_mutex_unlock(&outbox->lock);
}

/* --- the thread --- */

/* One turn of work: what was taken under the lock. */
struct turn {
    struct outbox *outbox;
    struct ctx ctx;
    struct change *changes;
    size_t change_count, change_cap;
    struct dest_list chores;
    bool overrun;
};

static void complain(struct outbox *outbox, const char *step, struct err err)
{
    if (err.code != 0) {
        log_error(outbox->hs->log, "outbox", .step = slice_of(step), .err = slice_of(err.text));
    }
}

static void sleep_until(struct outbox *outbox, int64_t wall_ms)
{
    int64_t wait_ms = wall_ms - now_wall_ms(outbox->hs->now);
    if (wall_ms == 0) {
        pthread_cond_wait(&outbox->wake, &outbox->lock);
        return;
    }
    pause_on(&outbox->wake, &outbox->lock, wait_ms < 1 ? 1 : wait_ms);
}

static struct err handle_event(struct turn *turn, const struct change *change)
{
    struct outbox *outbox = turn->outbox;
    struct stored_event event;
    struct room *room = NULL;
    bool found = false;
    TRY(outbox_give_event(outbox, &turn->ctx, change, &event, &found));
    if (!found || !slice_eq(event.event.type, LIT("m.room.member"))) {
        return OK;
    }
    TRY(hs_room_get(outbox->hs, &turn->ctx, change->room, &room));
    TRY(hs_event_parse_content(&turn->ctx, &event));
    return edus_out_member(outbox->edus, &turn->ctx, room, &event);
}

static bool is_room_gone(struct turn *turn, uint64_t number)
{
    struct room *room = NULL;
    return hs_room_get(turn->outbox->hs, &turn->ctx, number, &room).code == ERR_M_NOT_FOUND;
}

/* Rows that vanish under a room that is purged or taken back are no fault of the store. */
static struct err handle(struct turn *turn, const struct change *change)
{
    if (change->kind == CHANGE_EVENT) {
        struct err err = handle_event(turn, change);
        bool is_gone = err.code == ERR_CORRUPT && is_room_gone(turn, change->room);
        return is_gone ? err_make(ERR_M_NOT_FOUND, "the room is gone") : err;
    }
    return edus_out_change(turn->outbox->edus, &turn->ctx, change);
}

static void next_job(struct turn *turn)
{
    struct ctx *ctx = &turn->ctx;
    ctx_finish(ctx);
    arena_reset(ctx->arena);
    *ctx = (struct ctx){.arena = ctx->arena, .now = ctx->now, .log = ctx->log};
}

/* After a failure of the store nothing later is given out before this is: each destination gets its
 * events in order. False when the server stops meanwhile. */
static bool pause_after_failure(struct outbox *outbox)
{
    pthread_mutex_lock(&outbox->lock);
    if (!outbox->stopping) {
        sleep_until(outbox, now_wall_ms(outbox->hs->now) + MARK_MS);
    }
    bool go_on = !outbox->stopping;
    pthread_mutex_unlock(&outbox->lock);
    return go_on;
}

static bool is_passing(struct err err)
{
    return err.code != 0 && err.code != ERR_M_NOT_FOUND && err.code != ERR_CORRUPT;
}

/* False when it has to be given up for this run. */
static bool insist(struct turn *turn, const struct change *change)
{
    struct outbox *outbox = turn->outbox;
    for (int tries = 0;; tries++) {
        struct err err =
            change ? handle(turn, change) : outbox_replay(outbox, &turn->ctx, outbox->given);
        if (err.code != 0 && err.code != ERR_M_NOT_FOUND) {
            complain(outbox, change ? "change" : "replay", err);
        }
        next_job(turn);
        if (!is_passing(err)) {
            return true;
        }
        if (tries > 0 && !pause_after_failure(outbox)) {
            return false;
        }
    }
}

static void handle_changes(struct turn *turn)
{
    struct outbox *outbox = turn->outbox;
    for (size_t i = 0; i < turn->change_count && !outbox->has_gap; i++) {
        outbox->has_gap = !insist(turn, &turn->changes[i]);
        outbox->given = outbox->has_gap ? outbox->given : turn->changes[i].pos;
    }
    if (turn->overrun && !outbox->has_gap) {
        outbox->has_gap = !insist(turn, NULL);
    }
}

/* A destination that failed gives its memory back; one that needs its events gets them. */
static void do_chore(struct turn *turn, struct dest *dest)
{
    struct outbox *outbox = turn->outbox;
    pthread_mutex_lock(&outbox->lock);
    dest->has_chore = false;
    bool reload = dest->state == DEST_CHORE;
    pthread_mutex_unlock(&outbox->lock);
    struct err err =
        reload ? outbox_reload(outbox, &turn->ctx, dest) : outbox_spill(outbox, &turn->ctx, dest);
    complain(outbox, reload ? "reload" : "spill", err);
    if (reload) {
        pthread_mutex_lock(&outbox->lock);
        if (err.code != 0) {
            outbox_wait(outbox, dest, now_wall_ms(outbox->hs->now) + MARK_MS);
        } else {
            dest->state = DEST_IDLE;
            if (dest_has_work(dest)) {
                outbox_wake(outbox, dest);
            }
        }
        pthread_mutex_unlock(&outbox->lock);
    }
    next_job(turn);
}

static void mark_if_due(struct turn *turn)
{
    struct outbox *outbox = turn->outbox;
    int64_t now = now_mono_ms(outbox->hs->now);
    bool due = outbox->events_since_mark >= MARK_EVENTS ||
               (outbox->events_since_mark > 0 && now - outbox->marked_ms >= MARK_MS);
    if (due) {
        complain(outbox, "mark", outbox_mark(outbox, &turn->ctx, OUTBOX_RUNS));
        outbox->marked_ms = now;
        next_job(turn);
    }
}

static bool is_due(int64_t at_ms, int64_t now_ms)
{
    return at_ms != 0 && at_ms <= now_ms;
}

static void work(struct turn *turn)
{
    struct outbox *outbox = turn->outbox;
    handle_changes(turn);
    for (size_t i = 0; i < turn->chores.count; i++) {
        do_chore(turn, turn->chores.items[i]);
    }
    mark_if_due(turn);
    if (is_due(edus_out_next(outbox->edus), now_wall_ms(outbox->hs->now))) {
        complain(outbox, "refresh", edus_out_refresh(outbox->edus, &turn->ctx));
        next_job(turn);
    }
    outbox_drop_idle(outbox);
    outbox_pump(outbox);
}

/* Swaps what has arrived with the emptied lists of the last turn. Lock held. */
static void take_turn(struct turn *turn)
{
    struct outbox *outbox = turn->outbox;
    struct change *changes = turn->changes;
    size_t cap = turn->change_cap;
    struct dest_list chores = turn->chores;
    turn->changes = outbox->changes;
    turn->change_count = outbox->change_count;
    turn->change_cap = outbox->change_cap;
    turn->chores = outbox->chores;
    turn->overrun = outbox->overrun;
    outbox->changes = changes;
    outbox->change_count = 0;
    outbox->change_cap = cap;
    outbox->chores = (struct dest_list){.items = chores.items, .cap = chores.cap};
    outbox->overrun = false;
    outbox->is_busy = true;
}

static int64_t earlier(int64_t a, int64_t b)
{
    if (a == 0 || b == 0) {
        return a + b;
    }
    return a < b ? a : b;
}

/* Lock held; whether there is something to do. */
static bool wait_for_work(struct turn *turn)
{
    struct outbox *outbox = turn->outbox;
    while (!outbox->stopping) {
        int64_t now = now_wall_ms(outbox->hs->now);
        size_t ready = outbox->ready;
        int64_t next = outbox_run_timers(outbox, now);
        int64_t refresh = edus_out_next(outbox->edus);
        if (outbox->change_count > 0 || outbox->chores.count > 0 || outbox->ready > ready ||
            is_due(refresh, now)) {
            return true;
        }
        outbox->is_busy = false;
        pthread_cond_broadcast(&outbox->calm);
        sleep_until(outbox, earlier(next, refresh));
    }
    return false;
}

static void begin(struct turn *turn)
{
    struct outbox *outbox = turn->outbox;
    struct outbound_mark mark = {0};
    struct err err = hs_outbound_mark(outbox->hs, &turn->ctx, &mark);
    complain(outbox, "start", err);
    outbox->marked = mark;
    complain(outbox, "resume", outbox_resume(outbox, &turn->ctx));
    next_job(turn);
    outbox->given = mark.pos;
    outbox->has_gap = err.code != 0 || (!mark.is_clean && !insist(turn, NULL));
    outbox->given = outbox->has_gap ? mark.pos : outbox->start_pos;
    complain(outbox, "mark", outbox_mark(outbox, &turn->ctx, OUTBOX_RUNS));
    outbox->marked_ms = now_mono_ms(outbox->hs->now);
    next_job(turn);
    outbox_pump(outbox);
}

void *outbox_tail(void *arg)
{
    struct outbox *outbox = arg;
    struct turn turn = {
        .outbox = outbox,
        .ctx = {.arena = arena_new(), .now = outbox->hs->now, .log = outbox->hs->log}};
    begin(&turn);
    pthread_mutex_lock(&outbox->lock);
    while (wait_for_work(&turn)) {
        take_turn(&turn);
        pthread_mutex_unlock(&outbox->lock);
        work(&turn);
        pthread_mutex_lock(&outbox->lock);
    }
    take_turn(&turn);
    bool writes = !outbox->is_abandoned;
    pthread_mutex_unlock(&outbox->lock);
    if (writes) {
        handle_changes(&turn);
        complain(outbox, "mark", outbox_mark(outbox, &turn.ctx, OUTBOX_ENDS));
    }
    ctx_finish(&turn.ctx);
    arena_free(&turn.ctx.arena);
    mem_free(turn.changes);
    mem_free(turn.chores.items);
    return NULL;
}
