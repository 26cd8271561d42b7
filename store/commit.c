#include "store/commit.h"

#include "homeserver/base/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { LAZY_FLUSH_MS = 5 }; /* a write that nobody waits for is flushed after this time */

struct waiter {
    uint64_t ticket;
    store_durable_fn fn;
    void *arg;
};

struct waiters {
    struct waiter *items;
    size_t count;
    size_t cap;
};

struct commit {
    struct kv *kv;
    struct log *log;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;      /* the thread sleeps here */
    pthread_cond_t listened;  /* a listener call has ended */
    _Atomic uint64_t newest;  /* newest ticket given out */
    _Atomic uint64_t durable; /* every ticket up to here is on disk */
    _Atomic uint64_t wanted;  /* somebody waits for this one */
    _Atomic uint64_t flush_count;
    atomic_bool failed;
    atomic_bool sleeping; /* the thread waits for a first write */
    bool stopping;
    bool in_listener;
    struct waiters waiters; /* at most one per unanswered job and publisher */
    store_durable_fn listener_fn;
    void *listener_arg;
};

static struct err failed_err(void)
{
    return err_make(ERR_IO, "the disk refused the log: no further writes until a restart");
}

static void add_waiter(struct waiters *list, struct waiter waiter)
{
    if (list->count == list->cap) {
        list->cap = list->cap ? list->cap * 2 : 64;
        list->items = mem_grow(list->items, list->cap * sizeof *list->items);
    }
    list->items[list->count++] = waiter;
}

/* Moves the waiters that can be answered to `ready`; order is kept. With the lock held. */
static void move_ready(struct commit *commit, struct waiters *ready)
{
    struct waiters *list = &commit->waiters;
    bool all = atomic_load(&commit->failed);
    uint64_t durable = atomic_load(&commit->durable);
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (all || list->items[i].ticket <= durable) {
            add_waiter(ready, list->items[i]);
        } else {
            list->items[kept++] = list->items[i];
        }
    }
    list->count = kept;
}

static void answer(struct commit *commit, struct waiters *ready)
{
    struct err err = commit_check(commit);
    for (size_t i = 0; i < ready->count; i++) {
        ready->items[i].fn(ready->items[i].arg, err);
    }
    ready->count = 0;
    pthread_mutex_lock(&commit->lock);
    store_durable_fn listener_fn = commit->listener_fn;
    void *listener_arg = commit->listener_arg;
    commit->in_listener = listener_fn != NULL;
    pthread_mutex_unlock(&commit->lock);
    if (listener_fn) {
        listener_fn(listener_arg, err);
        pthread_mutex_lock(&commit->lock);
        commit->in_listener = false;
        pthread_cond_broadcast(&commit->listened);
        pthread_mutex_unlock(&commit->lock);
    }
}

static void flush(struct commit *commit)
{
    /* Tickets are given out after their write, so this flush covers all up to here. */
    uint64_t target = atomic_load(&commit->newest);
    struct err err = commit->kv->ops->flush_fn(commit->kv);
    atomic_fetch_add(&commit->flush_count, 1);
    if (err.code != 0) {
        log_error(commit->log, "store_stopped", .err = slice_of(err.text),
                  .note = LIT("no further writes until a restart"));
        atomic_store(&commit->failed, true);
    } else {
        atomic_store(&commit->durable, target);
    }
}

static struct timespec lazy_deadline(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_nsec += LAZY_FLUSH_MS * 1000000L;
    if (at.tv_nsec >= 1000000000L) {
        at.tv_nsec -= 1000000000L;
        at.tv_sec++;
    }
    return at;
}

static bool is_dirty(struct commit *commit)
{
    return atomic_load(&commit->newest) > atomic_load(&commit->durable);
}

static bool is_wanted(struct commit *commit)
{
    return atomic_load(&commit->wanted) > atomic_load(&commit->durable);
}

/* Sleeps until something is to be flushed and either wanted or old enough. Lock held. */
static void wait_for_work(struct commit *commit)
{
    atomic_store(&commit->sleeping, true);
    while (!commit->stopping && !is_dirty(commit)) {
        pthread_cond_wait(&commit->wake, &commit->lock);
    }
    atomic_store(&commit->sleeping, false);
    struct timespec deadline = lazy_deadline();
    int expired = 0;
    while (!commit->stopping && !is_wanted(commit) && expired == 0) {
        expired = pthread_cond_timedwait(&commit->wake, &commit->lock, &deadline);
    }
}

static void *run(void *arg)
{
    struct commit *commit = arg;
    struct waiters ready = {0};
    bool go_on = true;
    while (go_on) {
        pthread_mutex_lock(&commit->lock);
        wait_for_work(commit);
        pthread_mutex_unlock(&commit->lock);
        if (is_dirty(commit)) {
            flush(commit);
        }
        pthread_mutex_lock(&commit->lock);
        move_ready(commit, &ready);
        bool failed = atomic_load(&commit->failed);
        go_on = !failed && !(commit->stopping && !is_dirty(commit));
        pthread_mutex_unlock(&commit->lock);
        answer(commit, &ready);
    }
    mem_free(ready.items);
    return NULL;
}

struct commit *commit_start(struct kv *kv, struct log *log)
{
    struct commit *commit = mem_alloc(sizeof *commit);
    pthread_condattr_t attr;
    commit->kv = kv;
    commit->log = log;
    pthread_mutex_init(&commit->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&commit->wake, &attr);
    pthread_cond_init(&commit->listened, &attr);
    pthread_condattr_destroy(&attr);
    int failed = pthread_create(&commit->thread, NULL, run, commit);
    ASSERT(failed == 0);
    return commit;
}

void commit_stop(struct commit **commit)
{
    struct commit *own = *commit;
    pthread_mutex_lock(&own->lock);
    own->stopping = true;
    pthread_cond_broadcast(&own->wake);
    pthread_mutex_unlock(&own->lock);
    pthread_join(own->thread, NULL);
    pthread_cond_destroy(&own->wake);
    pthread_cond_destroy(&own->listened);
    pthread_mutex_destroy(&own->lock);
    mem_free(own->waiters.items);
    mem_free(own);
    *commit = NULL;
}

static void signal_thread(struct commit *commit)
{
    pthread_mutex_lock(&commit->lock);
    pthread_cond_signal(&commit->wake);
    pthread_mutex_unlock(&commit->lock);
}

uint64_t commit_next_ticket(struct commit *commit)
{
    uint64_t ticket = atomic_fetch_add(&commit->newest, 1) + 1;
    if (atomic_load(&commit->sleeping)) {
        signal_thread(commit);
    }
    return ticket;
}

struct err commit_check(struct commit *commit)
{
    return atomic_load(&commit->failed) ? failed_err() : OK;
}

static bool raise_wanted(struct commit *commit, uint64_t ticket)
{
    uint64_t old = atomic_load(&commit->wanted);
    while (old < ticket) {
        if (atomic_compare_exchange_weak(&commit->wanted, &old, ticket)) {
            return old <= atomic_load(&commit->durable); /* the thread may not be under way */
        }
    }
    return false;
}

void commit_when(struct commit *commit, uint64_t ticket, store_durable_fn fn, void *arg)
{
    bool now = false;
    pthread_mutex_lock(&commit->lock);
    now = atomic_load(&commit->failed) || ticket <= atomic_load(&commit->durable);
    if (!now) {
        add_waiter(&commit->waiters, (struct waiter){ticket, fn, arg});
        if (raise_wanted(commit, ticket)) {
            pthread_cond_signal(&commit->wake);
        }
    }
    pthread_mutex_unlock(&commit->lock);
    if (now) {
        bool durable = ticket <= atomic_load(&commit->durable);
        fn(arg, durable ? OK : failed_err());
    }
}

void commit_listen(struct commit *commit, store_durable_fn fn, void *arg)
{
    pthread_mutex_lock(&commit->lock);
    commit->listener_fn = fn;
    commit->listener_arg = arg;
    while (!fn && commit->in_listener) {
        pthread_cond_wait(&commit->listened, &commit->lock);
    }
    pthread_mutex_unlock(&commit->lock);
}

uint64_t commit_durable(struct commit *commit)
{
    return atomic_load(&commit->durable);
}

uint64_t commit_newest(struct commit *commit)
{
    return atomic_load(&commit->newest);
}

uint64_t commit_flush_count(struct commit *commit)
{
    return atomic_load(&commit->flush_count);
}
