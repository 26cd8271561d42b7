#include "homeserver/service/tail.h"

#include "homeserver/base/mem.h"
#include "homeserver/base/pause.h"
#include "homeserver/service/stream_events.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum {
    CHANGES_MAX = 200000,
    MARK_CHANGES = 4096,
    MARK_MS = 1000,
    AGAIN_MS = 1000,
    LINGER_CHANGES_MAX = 20000,
    CAP_KEPT_MAX = 1024, /* of a list without changes */
};

struct mark {
    uint64_t pos;
    bool is_clean; /* the last run ended in order: nothing has to be looked for */
};

struct hs_tail {
    struct hs *hs;
    struct hs_tail_port port;
    uint64_t start_pos; /* newest position before this run */
    pthread_t thread;
    bool is_running;
    pthread_mutex_t lock; /* everything down to `position` */
    pthread_cond_t wake;  /* for the thread */
    pthread_cond_t calm;  /* for hs_tail_settle */
    bool stopping, is_abandoned;
    bool is_poked;
    bool is_roused;  /* the thread knows of changes */
    int64_t ripe_ms; /* monotonic: when these are to be handled */
    bool is_busy;
    bool overrun; /* changes were dropped: the logs are read again */
    struct change *changes;
    size_t change_count, change_cap;
    uint64_t position; /* handled up to here */

    /* the thread's */
    struct ctx ctx;
    struct mark found; /* the last run's */
    bool is_found;
    bool has_gap; /* a change could not be handled before the end, and nothing after it was */
    uint64_t replayed_pos; /* events up to here were read from the logs */
    size_t since_mark;
    int64_t marked_ms;
    int64_t rest_at_ms; /* wall; 0 = no need */
};

/* --- on the publisher's thread --- */

static void add_change(struct hs_tail *tail, const struct change *change)
{
    if (tail->change_count == CHANGES_MAX) {
        tail->overrun = true;
        return;
    }
    if (tail->change_count == tail->change_cap) {
        tail->change_cap = tail->change_cap ? tail->change_cap * 2 : 64;
        tail->changes = mem_grow(tail->changes, tail->change_cap * sizeof *tail->changes);
    }
    tail->changes[tail->change_count] = *change;
    tail->changes[tail->change_count++].gate = NULL;
}

static void on_change(void *arg, const struct change *change)
{
    struct hs_tail *tail = arg;
    if (tail->port.kinds & TAIL_KIND(change->kind)) {
        pthread_mutex_lock(&tail->lock);
        add_change(tail, change);
        pthread_mutex_unlock(&tail->lock);
    }
}

static void on_published(void *arg, uint64_t pos)
{
    struct hs_tail *tail = arg;
    (void)pos;
    pthread_mutex_lock(&tail->lock);
    if (tail->change_count > 0 && !tail->is_roused) {
        tail->is_roused = true;
        tail->ripe_ms = now_mono_ms(tail->hs->now) + tail->port.linger_ms;
        pthread_cond_signal(&tail->wake);
    }
    pthread_mutex_unlock(&tail->lock);
}

/* --- the mark --- */

static struct store_object marks_object(void)
{
    return (struct store_object){STORE_SERVER, LIT("tails")};
}

static struct store_object object_of(const struct hs_tail *tail)
{
    const struct hs_tail_place *place = tail->port.place;
    return place ? (struct store_object){STORE_SERVER, slice_of(place->object)} : marks_object();
}

static struct slice key_of(const struct hs_tail *tail)
{
    return slice_of(tail->port.place ? tail->port.place->key : tail->port.name);
}

static struct err read_mark(struct hs_tail *tail, struct mark *mark_out)
{
    struct slice row;
    bool found = false;
    TRY(store_get(tail->hs->store, &tail->ctx, object_of(tail), key_of(tail), &row, &found));
    if (!found) {
        bool from_now = tail->port.start == TAIL_FROM_NOW;
        *mark_out = (struct mark){from_now ? tail->start_pos : 0, from_now};
        return OK;
    }
    struct unpack in = unpack_of(row);
    mark_out->pos = unpack_u64(&in);
    mark_out->is_clean = unpack_u64(&in) != 0;
    return unpack_check(&in);
}

struct err hs_tail_mark(struct hs *hs, struct ctx *ctx, const char *name, uint64_t *pos_out,
                        bool *found_out)
{
    struct slice row;
    *pos_out = 0;
    TRY(store_get(hs->store, ctx, marks_object(), slice_of(name), &row, found_out));
    if (!*found_out) {
        return OK;
    }
    struct unpack in = unpack_of(row);
    *pos_out = unpack_u64(&in);
    return unpack_check(&in);
}

static struct err write_mark(struct hs_tail *tail, bool ends)
{
    struct buf row;
    struct ctx *ctx = &tail->ctx;
    if (tail->port.flush) {
        TRY(tail->port.flush(tail->port.arg, ctx));
    }
    struct store_update *update = store_update_new(ctx, object_of(tail));
    buf_init_arena(&row, ctx->arena, 32);
    pack_u64(&row, tail->position);
    pack_u64(&row, ends && !tail->has_gap ? 1 : 0);
    store_put(update, key_of(tail), buf_slice(&row));
    TRY(store_write(tail->hs->store, ctx, &update, 1));
    tail->since_mark = 0;
    tail->marked_ms = now_mono_ms(tail->hs->now);
    return OK;
}

/* --- the thread --- */

static void complain(struct hs_tail *tail, const char *step, struct err err)
{
    if (err.code == ERR_M_NOT_FOUND) { /* a room was purged, or taken back, meanwhile */
        log_debug(tail->hs->log, tail->port.name, .step = slice_of(step),
                  .err = slice_of(err.text));
    } else if (err.code != 0) {
        log_error(tail->hs->log, tail->port.name, .step = slice_of(step),
                  .err = slice_of(err.text));
    }
}

static void next_job(struct hs_tail *tail)
{
    struct ctx *ctx = &tail->ctx;
    ctx_finish(ctx);
    arena_reset(ctx->arena);
    *ctx = (struct ctx){.arena = ctx->arena, .now = ctx->now, .log = ctx->log};
}

static void sleep_until(struct hs_tail *tail, int64_t wall_ms)
{
    if (wall_ms == 0) {
        pthread_cond_wait(&tail->wake, &tail->lock);
        return;
    }
    int64_t wait_ms = wall_ms - now_wall_ms(tail->hs->now);
    pause_on(&tail->wake, &tail->lock, wait_ms < 1 ? 1 : wait_ms);
}

static bool is_stopping(struct hs_tail *tail)
{
    pthread_mutex_lock(&tail->lock);
    bool stopping = tail->stopping;
    pthread_mutex_unlock(&tail->lock);
    return stopping;
}

/* False when the server stops meanwhile. */
static bool pause_after_failure(struct hs_tail *tail)
{
    int64_t until = now_wall_ms(tail->hs->now) + AGAIN_MS;
    pthread_mutex_lock(&tail->lock);
    while (!tail->stopping && now_wall_ms(tail->hs->now) < until) {
        sleep_until(tail, until);
    }
    bool go_on = !tail->stopping;
    pthread_mutex_unlock(&tail->lock);
    return go_on;
}

static void set_position(struct hs_tail *tail, uint64_t pos)
{
    pthread_mutex_lock(&tail->lock);
    tail->position = pos;
    pthread_mutex_unlock(&tail->lock);
}

static bool is_passed_over(struct err err)
{
    return err.code == ERR_M_NOT_FOUND || err.code == ERR_CORRUPT;
}

typedef struct err (*step_fn)(struct hs_tail *tail, const struct change *change);

/* Does a step until it works; false when it has to be given up for this run. */
static bool insist(struct hs_tail *tail, const char *name, step_fn step,
                   const struct change *change)
{
    for (int tries = 0;; tries++) {
        struct err err = step(tail, change);
        next_job(tail);
        if (err.code == 0) {
            return true;
        }
        complain(tail, name, err);
        if (is_passed_over(err)) {
            return true;
        }
        if (tries > 0 && !pause_after_failure(tail)) {
            return false;
        }
    }
}

static struct err step_find(struct hs_tail *tail, const struct change *change)
{
    (void)change;
    struct err err = read_mark(tail, &tail->found);
    tail->is_found = err.code == 0;
    return err;
}

static struct err step_handle(struct hs_tail *tail, const struct change *change)
{
    return tail->port.handle(tail->port.arg, &tail->ctx, change);
}

static struct err step_lost(struct hs_tail *tail, const struct change *change)
{
    (void)change;
    return tail->port.lost ? tail->port.lost(tail->port.arg, &tail->ctx) : OK;
}

static struct err step_mark(struct hs_tail *tail, const struct change *change)
{
    return write_mark(tail, change != NULL);
}

static void mark_if_due(struct hs_tail *tail)
{
    bool due = tail->since_mark >= MARK_CHANGES ||
               (tail->since_mark > 0 && now_mono_ms(tail->hs->now) - tail->marked_ms >= MARK_MS);
    if (due) {
        complain(tail, "mark", write_mark(tail, false));
        tail->marked_ms = now_mono_ms(tail->hs->now); /* a failed one is tried again in a while */
        next_job(tail);
    }
}

/* False: not handled, and the run ends. */
static bool take(struct hs_tail *tail, const struct change *change)
{
    if (!insist(tail, "change", step_handle, change)) {
        tail->has_gap = true;
        return false;
    }
    tail->since_mark++;
    if (change->pos > tail->position) {
        set_position(tail, change->pos);
    }
    mark_if_due(tail);
    return true;
}

/* Hands over the events after a position again. Those above what is published now may be in the
 * logs or not yet: all of them come as changes, in their turn. */
static struct err replay(struct hs_tail *tail, uint64_t since)
{
    struct stream_events events = {0};
    uint64_t upto = positions_published(tail->hs->positions);
    if (tail->port.kinds & TAIL_KIND(CHANGE_EVENT)) {
        TRY(hs_stream_events_since(tail->hs, &tail->ctx, since, tail->port.wants, tail->port.arg,
                                   &events));
    }
    for (size_t i = 0; i < events.count && !tail->has_gap; i++) {
        const struct stream_event *event = &events.items_owned[i];
        struct change change = {
            .pos = event->pos, .kind = CHANGE_EVENT, .room = event->room, .number = event->number};
        if (event->pos > upto) {
            break;
        }
        if (is_stopping(tail)) { /* the rest in the next run */
            tail->has_gap = true;
        } else {
            take(tail, &change);
        }
    }
    tail->replayed_pos = upto;
    mem_free(events.items_owned);
    return OK;
}

static struct err step_replay(struct hs_tail *tail, const struct change *change)
{
    return replay(tail, change->pos);
}

static void catch_up(struct hs_tail *tail, uint64_t since)
{
    struct change from = {.pos = since};
    bool done = insist(tail, "lost", step_lost, NULL) && insist(tail, "replay", step_replay, &from);
    tail->has_gap = tail->has_gap || !done;
}

static void rest(struct hs_tail *tail)
{
    if (tail->port.rest) {
        int64_t next = 0;
        struct err err = tail->port.rest(tail->port.arg, &tail->ctx, &next);
        complain(tail, "rest", err);
        tail->rest_at_ms = err.code != 0 ? now_wall_ms(tail->hs->now) + AGAIN_MS : next;
        next_job(tail);
    }
}

/* Lock held; when the thread has to look again (wall; 0 = when it is told). */
static int64_t next_look(const struct hs_tail *tail)
{
    int64_t now = now_wall_ms(tail->hs->now);
    int64_t ripe_in = tail->ripe_ms - now_mono_ms(tail->hs->now);
    int64_t ripe_at = tail->is_roused ? now + ripe_in : 0;
    int64_t mark_at = tail->since_mark > 0 ? now + MARK_MS : 0;
    return pause_earlier(tail->rest_at_ms, pause_earlier(mark_at, ripe_at));
}

/* Lock held: changes are there, and have waited for others. */
static bool is_ripe(const struct hs_tail *tail)
{
    return tail->change_count > 0 &&
           (tail->change_count >= LINGER_CHANGES_MAX || tail->port.linger_ms == 0 ||
            (tail->is_roused && tail->ripe_ms <= now_mono_ms(tail->hs->now)));
}

/* Lock held; false at the end. */
static bool wait_for_work(struct hs_tail *tail)
{
    while (!tail->stopping) {
        int64_t now = now_wall_ms(tail->hs->now);
        bool rest_due = tail->rest_at_ms != 0 && tail->rest_at_ms <= now;
        bool mark_due =
            tail->since_mark > 0 && now_mono_ms(tail->hs->now) - tail->marked_ms >= MARK_MS;
        if (is_ripe(tail) || tail->is_poked || tail->overrun || rest_due || mark_due) {
            return true;
        }
        tail->is_busy = false;
        pthread_cond_broadcast(&tail->calm);
        sleep_until(tail, next_look(tail));
    }
    return false;
}

/* What was taken under the lock. */
struct turn {
    struct change *changes;
    size_t count, cap;
    bool overrun;
};

/* Swaps what has arrived with the emptied list of the last turn. Lock held. */
static void take_turn(struct hs_tail *tail, struct turn *turn)
{
    if (turn->cap > CAP_KEPT_MAX) { /* of a rush */
        mem_free(turn->changes);
        *turn = (struct turn){0};
    }
    struct turn next = {tail->changes, tail->change_count, tail->change_cap, tail->overrun};
    tail->changes = turn->changes;
    tail->change_cap = turn->cap;
    tail->change_count = 0;
    tail->overrun = false;
    tail->is_poked = false;
    tail->is_roused = false;
    tail->is_busy = true;
    *turn = next;
}

static void take_all(struct hs_tail *tail, const struct turn *turn)
{
    for (size_t i = 0; i < turn->count && !tail->has_gap; i++) {
        const struct change *change = &turn->changes[i];
        if (change->kind != CHANGE_EVENT || change->pos > tail->replayed_pos) {
            take(tail, change);
        }
    }
}

static void work(struct hs_tail *tail, const struct turn *turn)
{
    take_all(tail, turn);
    if (turn->overrun && !tail->has_gap) {
        catch_up(tail, tail->position);
    }
    rest(tail);
    mark_if_due(tail);
}

static void begin(struct hs_tail *tail)
{
    insist(tail, "start", step_find, NULL);
    if (!tail->is_found) { /* a later run looks again */
        tail->has_gap = true;
        return;
    }
    set_position(tail, tail->found.pos);
    if (!tail->found.is_clean) {
        catch_up(tail, tail->found.pos);
    }
    if (!tail->has_gap) {
        set_position(tail, tail->position > tail->start_pos ? tail->position : tail->start_pos);
        insist(tail, "mark", step_mark, NULL);
        rest(tail);
    }
}

static void end(struct hs_tail *tail, struct turn *turn, bool writes)
{
    static const struct change ends;
    if (writes) {
        take_all(tail, turn);
        tail->has_gap = tail->has_gap || turn->overrun;
        complain(tail, "mark", step_mark(tail, &ends));
    }
    ctx_finish(&tail->ctx);
    arena_free(&tail->ctx.arena);
    mem_free(turn->changes);
}

static void *run(void *arg)
{
    struct hs_tail *tail = arg;
    struct turn turn = {0};
    tail->ctx = (struct ctx){.arena = arena_new(), .now = tail->hs->now, .log = tail->hs->log};
    begin(tail);
    pthread_mutex_lock(&tail->lock);
    while (wait_for_work(tail)) {
        take_turn(tail, &turn);
        pthread_mutex_unlock(&tail->lock);
        work(tail, &turn);
        pthread_mutex_lock(&tail->lock);
    }
    take_turn(tail, &turn);
    bool writes = !tail->is_abandoned;
    pthread_mutex_unlock(&tail->lock);
    end(tail, &turn, writes);
    return NULL;
}

/* --- from outside --- */

static void init_locks(struct hs_tail *tail)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&tail->lock, NULL);
    pthread_cond_init(&tail->wake, &monotonic);
    pthread_cond_init(&tail->calm, NULL);
    pthread_condattr_destroy(&monotonic);
}

struct hs_tail *hs_tail_new(struct hs *hs, const struct hs_tail_port *port)
{
    struct hs_tail *tail = mem_alloc(sizeof *tail);
    *tail = (struct hs_tail){.hs = hs, .port = *port};
    tail->start_pos = positions_newest(hs->positions);
    init_locks(tail);
    positions_listen(hs->positions, on_change, tail);
    positions_on_published(hs->positions, on_published, tail);
    return tail;
}

struct err hs_tail_start(struct hs_tail *tail)
{
    char name[16];
    tail->is_busy = true;
    if (pthread_create(&tail->thread, NULL, run, tail) != 0) {
        return err_make(ERR_IO, "no thread for a consumer of changes: raise the limit of threads");
    }
    tail->is_running = true;
    snprintf(name, sizeof name, "%s", tail->port.name);
    pthread_setname_np(tail->thread, name);
    return OK;
}

void hs_tail_poke(struct hs_tail *tail)
{
    pthread_mutex_lock(&tail->lock);
    tail->is_poked = true;
    pthread_cond_signal(&tail->wake);
    pthread_mutex_unlock(&tail->lock);
}

void hs_tail_settle(struct hs_tail *tail)
{
    positions_wait(tail->hs->positions, positions_newest(tail->hs->positions));
    pthread_mutex_lock(&tail->lock);
    tail->is_poked = true;
    tail->is_busy = tail->is_running;
    pthread_cond_signal(&tail->wake);
    while (tail->is_busy) {
        pthread_cond_wait(&tail->calm, &tail->lock);
    }
    pthread_mutex_unlock(&tail->lock);
}

uint64_t hs_tail_position(struct hs_tail *tail)
{
    pthread_mutex_lock(&tail->lock);
    uint64_t position = tail->position;
    pthread_mutex_unlock(&tail->lock);
    return position;
}

static void stop(struct hs_tail *tail, bool is_abandoned)
{
    if (!is_abandoned) {
        positions_wait(tail->hs->positions, positions_newest(tail->hs->positions));
    }
    pthread_mutex_lock(&tail->lock);
    tail->stopping = true;
    tail->is_abandoned = is_abandoned;
    pthread_cond_signal(&tail->wake);
    pthread_mutex_unlock(&tail->lock);
    if (tail->is_running) {
        pthread_join(tail->thread, NULL);
        tail->is_running = false;
    }
}

void hs_tail_stop(struct hs_tail *tail)
{
    stop(tail, false);
}

void hs_tail_abandon(struct hs_tail *tail)
{
    stop(tail, true);
}

void hs_tail_free(struct hs_tail **pointer)
{
    struct hs_tail *tail = *pointer;
    if (!tail) {
        return;
    }
    positions_unlisten(tail->hs->positions, tail);
    pthread_cond_destroy(&tail->wake);
    pthread_cond_destroy(&tail->calm);
    pthread_mutex_destroy(&tail->lock);
    mem_free(tail->changes);
    mem_free(tail);
    *pointer = NULL;
}
