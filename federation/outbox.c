#include "federation/outbox_priv.h"

#include "homeserver/base/mem.h"

#include <string.h>

struct slice dest_name(const struct dest *dest)
{
    return (struct slice){dest->name, dest->name_len};
}

/* --- lists --- */

void dest_list_add(struct dest_list *list, struct dest *dest)
{
    if (list->count == list->cap) {
        list->cap = list->cap ? list->cap * 2 : 64;
        list->items = mem_grow(list->items, list->cap * sizeof *list->items);
    }
    list->items[list->count++] = dest;
}

static void ready_add(struct outbox *outbox, struct dest *dest)
{
    struct ready_list *proven = dest->is_near ? &outbox->near : &outbox->far;
    struct ready_list *list = dest->is_proven ? proven : &outbox->doubtful;
    dest->state = DEST_READY;
    dest->ready_next = NULL;
    if (list->last) {
        list->last->ready_next = dest;
    } else {
        list->first = dest;
    }
    list->last = dest;
    outbox->ready++;
}

static struct dest *ready_take(struct outbox *outbox, struct ready_list *list)
{
    struct dest *dest = list->first;
    if (dest) {
        list->first = dest->ready_next;
        list->last = list->first ? list->last : NULL;
        outbox->ready--;
    }
    return dest;
}

/* --- timers: a heap by the time of the next try --- */

static void timer_put(struct dest_list *heap, size_t at, struct dest *dest)
{
    heap->items[at] = dest;
    dest->timer = at + 1;
}

static void timer_up(struct dest_list *heap, size_t at)
{
    struct dest *dest = heap->items[at];
    while (at > 0 && heap->items[(at - 1) / 2]->next_try_ms > dest->next_try_ms) {
        timer_put(heap, at, heap->items[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    timer_put(heap, at, dest);
}

static void timer_down(struct dest_list *heap, size_t at)
{
    struct dest *dest = heap->items[at];
    for (;;) {
        size_t child = at * 2 + 1;
        if (child + 1 < heap->count &&
            heap->items[child + 1]->next_try_ms < heap->items[child]->next_try_ms) {
            child++;
        }
        if (child >= heap->count || heap->items[child]->next_try_ms >= dest->next_try_ms) {
            break;
        }
        timer_put(heap, at, heap->items[child]);
        at = child;
    }
    timer_put(heap, at, dest);
}

static void timer_remove(struct dest_list *heap, struct dest *dest)
{
    size_t at = dest->timer - 1;
    struct dest *last = heap->items[--heap->count];
    dest->timer = 0;
    if (last != dest) {
        timer_put(heap, at, last);
        timer_up(heap, at);
        timer_down(heap, last->timer - 1);
    }
}

int64_t outbox_run_timers(struct outbox *outbox, int64_t now_ms)
{
    while (outbox->timers.count > 0 && outbox->timers.items[0]->next_try_ms <= now_ms) {
        struct dest *dest = outbox->timers.items[0];
        timer_remove(&outbox->timers, dest);
        ready_add(outbox, dest);
    }
    return outbox->timers.count ? outbox->timers.items[0]->next_try_ms : 0;
}

/* --- states --- */

bool dest_has_work(const struct dest *dest)
{
    return dest->count > 0 || dest->has_edus || dest->passing_count > 0 || dest->has_txn ||
           dest->reload;
}

bool outbox_sees_near(const struct outbox *outbox, struct slice server)
{
    return outbox->port.is_near && outbox->port.is_near(outbox->port.arg, server);
}

void outbox_wake(struct outbox *outbox, struct dest *dest)
{
    if (dest->state == DEST_IDLE) {
        ready_add(outbox, dest);
    }
}

void outbox_wait(struct outbox *outbox, struct dest *dest, int64_t until_ms)
{
    dest->state = DEST_WAITING;
    dest->next_try_ms = until_ms;
    dest_list_add(&outbox->timers, dest);
    timer_up(&outbox->timers, outbox->timers.count - 1);
    dest_drop_passing(dest);
    outbox_chore(outbox, dest);
}

void outbox_chore(struct outbox *outbox, struct dest *dest)
{
    if (!dest->has_chore) {
        dest->has_chore = true;
        dest_list_add(&outbox->chores, dest);
    }
    hs_tail_poke(outbox->tail);
}

static void end_waiting(struct outbox *outbox, struct dest *dest)
{
    if (dest->state == DEST_WAITING) {
        timer_remove(&outbox->timers, dest);
        ready_add(outbox, dest);
    }
}

/* --- attempts --- */

static void begin_attempt(struct outbox *outbox, struct dest *dest)
{
    dest->state = DEST_SENDING;
    dest->rounds = 0;
    dest->is_starting = true;
    outbox->starting++;
    outbox->sending++;
    dest->is_far_sent = !dest->is_near;
    outbox->far_sending += dest->is_far_sent ? 1 : 0;
    outbox->doubtful_sending += dest->is_proven ? 0 : 1;
}

bool outbox_note_start(struct outbox *outbox, struct dest *dest)
{
    if (!dest->is_starting) {
        return false;
    }
    dest->is_starting = false;
    return outbox->starting-- == OUTBOX_STARTING_MAX && outbox->ready > 0;
}

void outbox_end_attempt(struct outbox *outbox, struct dest *dest)
{
    outbox_note_start(outbox, dest);
    outbox->sending--;
    outbox->far_sending -= dest->is_far_sent ? 1 : 0;
    outbox->doubtful_sending -= dest->is_proven ? 0 : 1;
}

static struct dest *take_far(struct outbox *outbox)
{
    struct dest *dest = NULL;
    if (outbox->far_sending < outbox->far_max) {
        dest = ready_take(outbox, &outbox->far);
        if (!dest && outbox->doubtful_sending < OUTBOX_DOUBTFUL_MAX) {
            dest = ready_take(outbox, &outbox->doubtful);
        }
    }
    return dest;
}

/* The near have all turns but a few, so that those who need a handshake come too. */
static struct dest *take_turn(struct outbox *outbox)
{
    bool is_far_turn = ++outbox->turns % OUTBOX_FAR_TURN == 0;
    struct dest *dest = is_far_turn ? take_far(outbox) : ready_take(outbox, &outbox->near);
    if (!dest) {
        dest = is_far_turn ? ready_take(outbox, &outbox->near) : take_far(outbox);
    }
    return dest;
}

static struct dest *next_ready(struct outbox *outbox)
{
    if (outbox->stopping || !outbox->is_running || outbox->sending >= outbox->sending_max ||
        outbox->starting >= OUTBOX_STARTING_MAX) {
        return NULL;
    }
    struct dest *dest = take_turn(outbox);
    if (dest) {
        begin_attempt(outbox, dest);
    }
    return dest;
}

static bool submit(struct outbox *outbox, struct dest *dest)
{
    struct workers *pool = outbox->port.pool ? outbox->port.pool : outbox->hs->waiters;
    return workers_submit(pool, 0, outbox_send_job, dest);
}

void outbox_pump(struct outbox *outbox)
{
    for (;;) {
        pthread_mutex_lock(&outbox->lock);
        struct dest *dest = next_ready(outbox);
        pthread_mutex_unlock(&outbox->lock);
        if (!dest) {
            return;
        }
        if (!submit(outbox, dest)) {
            pthread_mutex_lock(&outbox->lock);
            outbox_end_attempt(outbox, dest);
            outbox_wait(outbox, dest, now_wall_ms(outbox->hs->now) + 1000);
            pthread_mutex_unlock(&outbox->lock);
            return;
        }
    }
}

/* --- the table --- */

static struct dest *dest_new(struct outbox *outbox, struct slice server)
{
    struct dest *dest = mem_alloc(sizeof *dest + server.len + 1);
    dest->outbox = outbox;
    dest->name_len = server.len;
    memcpy(dest->name, server.ptr, server.len);
    return dest;
}

static void dest_free(struct dest *dest)
{
    dest_drop_passing(dest);
    mem_free(dest->passing);
    mem_free(dest->events);
    mem_free(dest);
}

/* Lock held; the tail's, who alone keeps pointers across calls. */
static void drop_idle(struct outbox *outbox)
{
    struct map *kept = map_new();
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(outbox->dests, &cursor, &key, &value)) {
        struct dest *dest = (struct dest *)(uintptr_t)value;
        bool is_idle =
            dest->state == DEST_IDLE && !dest_has_work(dest) && !dest->is_dirty && !dest->has_chore;
        if (is_idle) {
            dest_free(dest);
        } else {
            map_set_ptr(kept, key, dest);
        }
    }
    map_free(&outbox->dests);
    outbox->dests = kept;
}

static struct err load_dest(struct outbox *outbox, struct ctx *ctx, struct dest *dest)
{
    struct destination_state state;
    struct destination_events marks;
    struct destination_edu *edus = NULL;
    struct destination_txn txn;
    size_t edu_count = 0;
    bool found = false;
    TRY(hs_destination_load(outbox->hs, ctx, dest_name(dest), &state, &found));
    TRY(hs_destination_marks(outbox->hs, ctx, dest_name(dest), &marks));
    TRY(hs_destination_edus(outbox->hs, ctx, dest_name(dest), 1, &edus, &edu_count));
    TRY(hs_destination_txn(outbox->hs, ctx, dest_name(dest), &txn, &dest->has_txn));
    dest->acknowledged = state.acknowledged;
    dest->last_success_ms = state.last_success_ms;
    dest->failed_since_ms = state.failed_since_ms;
    dest->failures = state.failures;
    dest->is_proven = found && state.failures == 0 && state.last_success_ms != 0;
    dest->has_edus = edu_count > 0;
    dest->has_marks = marks.count > 0;
    for (size_t i = 0; i < marks.count; i++) {
        dest->reload = dest->reload || marks.items[i].pos > state.acknowledged;
    }
    return OK;
}

static struct dest *find_dest(struct outbox *outbox, struct slice server)
{
    pthread_mutex_lock(&outbox->lock);
    struct dest *dest = map_get_ptr(outbox->dests, server);
    pthread_mutex_unlock(&outbox->lock);
    return dest;
}

struct err outbox_dest(struct outbox *outbox, struct ctx *ctx, struct slice server,
                       struct dest **dest_out)
{
    *dest_out = find_dest(outbox, server);
    if (*dest_out) {
        return OK;
    }
    struct dest *fresh = dest_new(outbox, server);
    struct err err = load_dest(outbox, ctx, fresh);
    pthread_mutex_lock(&outbox->lock);
    struct dest *other = map_get_ptr(outbox->dests, server);
    if (err.code != 0 || other) {
        dest_free(fresh);
        fresh = other;
    } else {
        map_set_ptr(outbox->dests, server, fresh);
    }
    pthread_mutex_unlock(&outbox->lock);
    *dest_out = fresh;
    return err;
}

struct err outbox_lock_dest(struct outbox *outbox, struct ctx *ctx, struct slice server,
                            struct dest **dest_out)
{
    for (;;) {
        TRY(outbox_dest(outbox, ctx, server, dest_out));
        pthread_mutex_lock(&outbox->lock);
        *dest_out = map_get_ptr(outbox->dests, server);
        if (*dest_out) {
            return OK;
        }
        pthread_mutex_unlock(&outbox->lock);
    }
}

void outbox_drop_idle(struct outbox *outbox)
{
    pthread_mutex_lock(&outbox->lock);
    if (map_count(outbox->dests) > OUTBOX_KEPT_MAX) {
        drop_idle(outbox);
    }
    pthread_mutex_unlock(&outbox->lock);
}

/* --- public --- */

static struct err queue_durable(struct outbox *outbox, struct ctx *ctx, const struct slice *servers,
                                size_t count, struct slice json)
{
    struct store_update **updates =
        arena_array(ctx->arena, count + 1, sizeof(struct store_update *));
    uint64_t order = hs_outbound_order(outbox->hs);
    for (size_t i = 0; i < count; i++) {
        struct destination_edu edu = {order, json};
        updates[i] = hs_destination_update(ctx, servers[i]);
        hs_destination_put_edu(ctx, updates[i], &edu);
    }
    TRY(store_write(outbox->hs->store, ctx, updates, count));
    for (size_t i = 0; i < count; i++) {
        struct dest *dest = NULL;
        bool is_near = outbox_sees_near(outbox, servers[i]);
        TRY(outbox_lock_dest(outbox, ctx, servers[i], &dest));
        dest->is_near = is_near;
        dest->has_edus = true;
        outbox_wake(outbox, dest);
        pthread_mutex_unlock(&outbox->lock);
    }
    outbox_pump(outbox);
    return OK;
}

struct err outbox_queue(struct outbox *outbox, struct ctx *ctx, const struct slice *servers,
                        size_t count, const struct fed_edu *edu)
{
    struct json whole = json_object();
    json_set(ctx->arena, &whole, LIT("content"), *edu->content);
    json_set(ctx->arena, &whole, LIT("edu_type"), json_string(edu->type));
    struct slice json = json_canonical(ctx->arena, &whole);
    if (count == 0) {
        return OK;
    }
    if (edu->is_durable) {
        return queue_durable(outbox, ctx, servers, count, json);
    }
    struct passing_draft draft = {.kind = PASSING_WHOLE, .key = edu->key, .json = json};
    return outbox_pass(outbox, ctx, (struct server_names){servers, count}, &draft);
}

void outbox_peer_alive(struct outbox *outbox, struct slice server)
{
    pthread_mutex_lock(&outbox->lock);
    struct dest *dest = map_get_ptr(outbox->dests, server);
    bool waits = dest && dest->state == DEST_WAITING;
    if (waits) {
        dest->is_proven = true;
        end_waiting(outbox, dest);
    }
    pthread_mutex_unlock(&outbox->lock);
    if (waits) {
        outbox_pump(outbox);
    }
}

/* Lock held. */
static size_t retry_one(struct outbox *outbox, struct dest *dest)
{
    bool waits = dest && dest->state == DEST_WAITING;
    if (waits) {
        dest->is_forced = true;
        end_waiting(outbox, dest);
    }
    return waits ? 1 : 0;
}

size_t outbox_retry(struct outbox *outbox, struct slice server)
{
    size_t cursor = 0;
    size_t retried = 0;
    struct slice key;
    uint64_t value = 0;
    pthread_mutex_lock(&outbox->lock);
    if (server.len > 0) {
        retried = retry_one(outbox, map_get_ptr(outbox->dests, server));
    }
    while (server.len == 0 && map_next(outbox->dests, &cursor, &key, &value)) {
        retried += retry_one(outbox, (struct dest *)(uintptr_t)value);
    }
    pthread_mutex_unlock(&outbox->lock);
    outbox_pump(outbox);
    return retried;
}

void outbox_look(struct outbox *outbox, struct slice server, struct destination_live *live_out)
{
    static const struct slice words[] = {[DEST_IDLE] = {"idle", 4},
                                         [DEST_READY] = {"ready", 5},
                                         [DEST_SENDING] = {"sending", 7},
                                         [DEST_CHORE] = {"ready", 5},
                                         [DEST_WAITING] = {"waiting", 7}};
    *live_out = (struct destination_live){0};
    pthread_mutex_lock(&outbox->lock);
    const struct dest *dest = map_get_ptr(outbox->dests, server);
    if (dest) {
        live_out->state = words[dest->state];
        live_out->events = dest->count;
        live_out->edus = dest->passing_count;
    }
    pthread_mutex_unlock(&outbox->lock);
}

static bool is_calm(const struct outbox *outbox)
{
    return !outbox->is_busy && outbox->chores.count == 0 && outbox->ready == 0 &&
           outbox->sending == 0;
}

void outbox_settle(struct outbox *outbox)
{
    hs_tail_settle(outbox->tail);
    pthread_mutex_lock(&outbox->lock);
    while (!is_calm(outbox)) {
        pthread_cond_wait(&outbox->calm, &outbox->lock);
    }
    pthread_mutex_unlock(&outbox->lock);
}

/* --- life --- */

struct err outbox_new(struct hs *hs, const struct outbox_port *port, struct outbox **outbox_out)
{
    struct outbox *outbox = mem_alloc(sizeof *outbox);
    outbox->hs = hs;
    outbox->port = *port;
    outbox->sending_max = port->sending_max && port->sending_max < OUTBOX_SENDING_MAX
                              ? port->sending_max
                              : OUTBOX_SENDING_MAX;
    outbox->far_max = outbox->sending_max * OUTBOX_FAR_MAX / OUTBOX_SENDING_MAX;
    outbox->dests = map_new();
    outbox->servers = room_servers_new(hs, port->acl);
    outbox->servers_now = room_servers_new(hs, port->acl);
    outbox->edus = edus_out_new(outbox);
    pthread_mutex_init(&outbox->lock, NULL);
    pthread_cond_init(&outbox->calm, NULL);
    outbox->tail = outbox_tail_new(outbox);
    *outbox_out = outbox;
    return OK;
}

struct err outbox_start(struct outbox *outbox)
{
    outbox->is_running = true;
    TRY(hs_tail_start(outbox->tail));
    hs_tail_poke(outbox->tail); /* what waits since the last run goes out in any case */
    return OK;
}

static void end_sending(struct outbox *outbox)
{
    pthread_mutex_lock(&outbox->lock);
    outbox->stopping = true;
    while (outbox->sending > 0 || outbox->leaving > 0) {
        pthread_cond_wait(&outbox->calm, &outbox->lock);
    }
    pthread_mutex_unlock(&outbox->lock);
}

void outbox_stop(struct outbox *outbox)
{
    end_sending(outbox);
    hs_tail_stop(outbox->tail);
}

void outbox_abandon(struct outbox *outbox)
{
    end_sending(outbox);
    hs_tail_abandon(outbox->tail);
}

void outbox_free(struct outbox **pointer)
{
    struct outbox *outbox = *pointer;
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    if (!outbox) {
        return;
    }
    hs_tail_free(&outbox->tail);
    while (map_next(outbox->dests, &cursor, &key, &value)) {
        dest_free((struct dest *)(uintptr_t)value);
    }
    map_free(&outbox->dests);
    edus_out_free(&outbox->edus);
    room_servers_free(&outbox->servers);
    room_servers_free(&outbox->servers_now);
    mem_free(outbox->timers.items);
    mem_free(outbox->chores.items);
    mem_free(outbox->dirty.items);
    pthread_cond_destroy(&outbox->calm);
    pthread_mutex_destroy(&outbox->lock);
    mem_free(outbox);
    *pointer = NULL;
}
