#include "store/positions.h"

#include "homeserver/base/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum {
    /* So many positions are claimed with one row: a restart begins above all of them. */
    CLAIM_COUNT = 10000,
    LISTENERS_MAX = 16,
    BATCH_MAX = 256,
    RING_MIN = 64,
    STUCK_S = 10, /* a position that blocks all later ones for so long is logged */
};

enum entry_state { ENTRY_RESERVED = 0, ENTRY_COMPLETE, ENTRY_ABANDONED };

struct entry {
    enum entry_state state;
    uint64_t ticket;
    struct change change;
};

struct listener {
    change_fn fn;
    void *arg;
};

struct after {
    published_fn fn;
    void *arg;
};

struct positions {
    struct store *store;
    struct log *log;
    pthread_t publisher;
    pthread_mutex_t lock; /* guards what follows; leaf, but for the row that claims positions */
    pthread_cond_t wake;
    pthread_cond_t moved; /* `published` has grown */
    struct entry *ring;   /* positions published+1 .. newest, at pos & (cap - 1) */
    size_t ring_cap;
    uint64_t head;    /* oldest position in the ring */
    uint64_t claimed; /* positions up to here are claimed in the store */
    bool stopping;
    bool failed;
    bool publishing; /* listeners are being called */
    _Atomic uint64_t newest;
    _Atomic uint64_t published;
    struct listener listeners[LISTENERS_MAX];
    size_t listener_count;
    struct after afters[LISTENERS_MAX];
    size_t after_count;
    struct change batch[BATCH_MAX]; /* the publisher's */
};

static const struct store_object meta = {.kind = STORE_META};

static struct err load_claimed(struct store *store, struct ctx *ctx, uint64_t *claimed_out)
{
    struct slice value = {0};
    bool found = false;
    *claimed_out = 0;
    TRY(store_get(store, ctx, meta, LIT("positions"), &value, &found));
    if (!found) {
        return OK;
    }
    struct unpack in = unpack_of(value);
    *claimed_out = unpack_u64(&in);
    return unpack_check(&in);
}

static struct err save_claimed(struct store *store, struct ctx *ctx, uint64_t claimed)
{
    struct buf out;
    buf_init_arena(&out, ctx->arena, 16);
    pack_u64(&out, claimed);
    struct store_update *update = store_update_new(ctx, meta);
    store_put(update, LIT("positions"), buf_slice(&out));
    return store_write(store, ctx, &update, 1);
}

/* Claims more positions well before they run out. The log keeps the order of writes, so no row with
 * a claimed position outlives its claim. When the row cannot be written the next call tries again;
 * a store that refuses this row refuses rows with new positions as well. Lock held. */
static void claim_more(struct positions *positions)
{
    struct ctx ctx = {.arena = arena_new(), .log = positions->log};
    struct err err = save_claimed(positions->store, &ctx, positions->claimed + CLAIM_COUNT);
    if (err.code == 0) {
        positions->claimed += CLAIM_COUNT;
    } else {
        log_error(positions->log, "positions_claim", .err = slice_of(err.text));
    }
    arena_free(&ctx.arena);
}

/* --- publishing --- */

static struct entry *entry_at(struct positions *positions, uint64_t pos)
{
    return &positions->ring[pos & (positions->ring_cap - 1)];
}

static bool head_is_ready(struct positions *positions)
{
    if (positions->head > atomic_load(&positions->newest)) {
        return false;
    }
    const struct entry *entry = entry_at(positions, positions->head);
    return entry->state == ENTRY_ABANDONED ||
           (entry->state == ENTRY_COMPLETE &&
            entry->ticket <= store_durable_ticket(positions->store));
}

/* Takes what is ready off the ring; `count_out` of them are changes. Lock held. */
static uint64_t take_ready(struct positions *positions, size_t *count_out)
{
    *count_out = 0;
    while (*count_out < BATCH_MAX && head_is_ready(positions)) {
        const struct entry *entry = entry_at(positions, positions->head);
        if (entry->state == ENTRY_COMPLETE) {
            positions->batch[(*count_out)++] = entry->change;
        }
        positions->head++;
    }
    return positions->head - 1;
}

static void call_listeners(struct positions *positions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < positions->listener_count; j++) {
            const struct listener *listener = &positions->listeners[j];
            listener->fn(listener->arg, &positions->batch[i]);
        }
        gate_release(&positions->batch[i].gate);
    }
}

static void publish(struct positions *positions, uint64_t last, size_t count)
{
    call_listeners(positions, count);
    pthread_mutex_lock(&positions->lock);
    atomic_store(&positions->published, last);
    pthread_cond_broadcast(&positions->moved);
    pthread_mutex_unlock(&positions->lock);
    for (size_t i = 0; i < positions->after_count; i++) {
        positions->afters[i].fn(positions->afters[i].arg, last);
    }
}

/* Waits for a wake-up; with positions in flight at most STUCK_S, and says so when that has passed
 * without progress: a position that is neither completed nor abandoned holds up every reader. */
static void wait_for_wake(struct positions *positions)
{
    struct timespec until;
    uint64_t head = positions->head;
    if (head > atomic_load(&positions->newest) || positions->failed) {
        pthread_cond_wait(&positions->wake, &positions->lock);
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += STUCK_S;
    int expired = pthread_cond_timedwait(&positions->wake, &positions->lock, &until);
    if (expired && head == positions->head && !head_is_ready(positions)) {
        log_warn(positions->log, "positions_stuck", .pos = (int64_t)head);
    }
}

static void *run(void *arg)
{
    struct positions *positions = arg;
    pthread_mutex_lock(&positions->lock);
    for (;;) {
        size_t count = 0;
        while (!positions->stopping && !head_is_ready(positions)) {
            wait_for_wake(positions);
        }
        if (!head_is_ready(positions)) {
            break;
        }
        uint64_t last = take_ready(positions, &count);
        positions->publishing = true;
        pthread_mutex_unlock(&positions->lock);
        publish(positions, last, count);
        pthread_mutex_lock(&positions->lock);
        positions->publishing = false;
        pthread_cond_broadcast(&positions->moved);
    }
    pthread_mutex_unlock(&positions->lock);
    return NULL;
}

/* On the commit thread, after each flush. */
static void on_flush(void *arg, struct err err)
{
    struct positions *positions = arg;
    pthread_mutex_lock(&positions->lock);
    if (err.code != 0) {
        positions->failed = true;
        pthread_cond_broadcast(&positions->moved);
    }
    if (head_is_ready(positions)) {
        pthread_cond_signal(&positions->wake);
    }
    pthread_mutex_unlock(&positions->lock);
}

/* --- public --- */

struct err positions_open(struct store *store, struct ctx *ctx, struct positions **out)
{
    uint64_t claimed = 0;
    TRY(load_claimed(store, ctx, &claimed));
    TRY(save_claimed(store, ctx, claimed + CLAIM_COUNT));
    struct positions *positions = mem_alloc(sizeof *positions);
    positions->store = store;
    positions->log = ctx->log;
    positions->claimed = claimed + CLAIM_COUNT;
    positions->head = claimed + 1;
    positions->ring_cap = RING_MIN;
    positions->ring = mem_alloc(RING_MIN * sizeof *positions->ring);
    atomic_store(&positions->newest, claimed);
    atomic_store(&positions->published, claimed);
    pthread_mutex_init(&positions->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&positions->wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_cond_init(&positions->moved, NULL);
    int failed = pthread_create(&positions->publisher, NULL, run, positions);
    ASSERT(failed == 0);
    store_on_flush(store, on_flush, positions);
    *out = positions;
    return OK;
}

void positions_close(struct positions **positions)
{
    struct positions *own = *positions;
    if (!own) {
        return;
    }
    store_on_flush(own->store, NULL, NULL);
    pthread_mutex_lock(&own->lock);
    own->stopping = true;
    pthread_cond_signal(&own->wake);
    pthread_mutex_unlock(&own->lock);
    pthread_join(own->publisher, NULL);
    for (; own->head <= atomic_load(&own->newest); own->head++) { /* never became durable */
        gate_release(&entry_at(own, own->head)->change.gate);
    }
    pthread_cond_destroy(&own->wake);
    pthread_cond_destroy(&own->moved);
    pthread_mutex_destroy(&own->lock);
    mem_free(own->ring);
    mem_free(own);
    *positions = NULL;
}

/* Takes the lock when no listener runs. */
static void lock_listeners(struct positions *positions)
{
    pthread_mutex_lock(&positions->lock);
    while (positions->publishing) {
        pthread_cond_wait(&positions->moved, &positions->lock);
    }
}

void positions_listen(struct positions *positions, change_fn fn, void *arg)
{
    lock_listeners(positions);
    ASSERT(positions->listener_count < LISTENERS_MAX);
    positions->listeners[positions->listener_count++] = (struct listener){fn, arg};
    pthread_mutex_unlock(&positions->lock);
}

void positions_on_published(struct positions *positions, published_fn fn, void *arg)
{
    lock_listeners(positions);
    ASSERT(positions->after_count < LISTENERS_MAX);
    positions->afters[positions->after_count++] = (struct after){fn, arg};
    pthread_mutex_unlock(&positions->lock);
}

void positions_unlisten(struct positions *positions, const void *arg)
{
    size_t kept = 0;
    size_t kept_after = 0;
    lock_listeners(positions);
    for (size_t i = 0; i < positions->listener_count; i++) {
        if (positions->listeners[i].arg != arg) {
            positions->listeners[kept++] = positions->listeners[i];
        }
    }
    for (size_t i = 0; i < positions->after_count; i++) {
        if (positions->afters[i].arg != arg) {
            positions->afters[kept_after++] = positions->afters[i];
        }
    }
    positions->listener_count = kept;
    positions->after_count = kept_after;
    pthread_mutex_unlock(&positions->lock);
}

/* The ring grows to the number of changes in flight, which the workers bound. Lock held. */
static void grow_ring(struct positions *positions)
{
    struct entry *old = positions->ring;
    size_t old_cap = positions->ring_cap;
    positions->ring_cap = old_cap * 2;
    positions->ring = mem_alloc(positions->ring_cap * sizeof *positions->ring);
    for (uint64_t pos = positions->head; pos <= atomic_load(&positions->newest); pos++) {
        *entry_at(positions, pos) = old[pos & (old_cap - 1)];
    }
    mem_free(old);
}

uint64_t positions_reserve(struct positions *positions)
{
    pthread_mutex_lock(&positions->lock);
    uint64_t pos = atomic_load(&positions->newest) + 1;
    if (pos + CLAIM_COUNT / 2 > positions->claimed) {
        claim_more(positions);
    }
    if (pos - positions->head == positions->ring_cap) {
        grow_ring(positions);
    }
    *entry_at(positions, pos) = (struct entry){.state = ENTRY_RESERVED};
    atomic_store(&positions->newest, pos);
    pthread_mutex_unlock(&positions->lock);
    return pos;
}

static void settle(struct positions *positions, uint64_t pos, const struct entry *settled)
{
    pthread_mutex_lock(&positions->lock);
    ASSERT(pos >= positions->head);
    struct entry *entry = entry_at(positions, pos);
    ASSERT(entry->state == ENTRY_RESERVED);
    *entry = *settled;
    if (pos == positions->head && head_is_ready(positions)) {
        pthread_cond_signal(&positions->wake);
    }
    pthread_mutex_unlock(&positions->lock);
}

void positions_complete(struct positions *positions, const struct change *change, uint64_t ticket)
{
    struct entry entry = {.state = ENTRY_COMPLETE, .ticket = ticket, .change = *change};
    if (change->gate) {
        gate_hold(change->gate);
    }
    /* Asks for no flush: the job's reply will, and then leaves before the change wakes anybody. */
    settle(positions, change->pos, &entry);
}

void positions_abandon(struct positions *positions, uint64_t pos)
{
    settle(positions, pos, &(struct entry){.state = ENTRY_ABANDONED});
}

uint64_t positions_published(const struct positions *positions)
{
    return atomic_load(&positions->published);
}

uint64_t positions_newest(const struct positions *positions)
{
    return atomic_load(&positions->newest);
}

void positions_wait(struct positions *positions, uint64_t pos)
{
    pthread_mutex_lock(&positions->lock);
    while (atomic_load(&positions->published) < pos && !positions->failed) {
        pthread_cond_wait(&positions->moved, &positions->lock);
    }
    pthread_mutex_unlock(&positions->lock);
}
