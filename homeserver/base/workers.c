#include "homeserver/base/workers.h"

#include "homeserver/base/err.h"
#include "homeserver/base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>

enum { LANE_BUCKETS = 1024, SPARE_MAX = 1024 };

struct job {
    struct job *next;
    struct lane *lane; /* NULL = none */
    job_fn fn;
    void *arg;
};

/* Threads wait on semaphores and not on conditions of the mutex: a condition takes the mutex back
 * as a contended one, so that giving it back costs a system call each time. */

/* A thread that waits to enter a lane; lives on that thread's stack. */
struct waiter {
    struct waiter *next;
    sem_t granted; /* posted once, when the lane is this thread's */
    bool is_own;   /* a thread of the pool */
};

/* A thread, and whether it is without work. The one that slept shortest wakes first: its caches are
 * warm. */
struct sleeper {
    struct sleeper *next;
    struct workers *workers;
    pthread_t thread;
    sem_t woken; /* posted once for each time that it is taken off the list */
};

/* Exists while somebody holds it, waits for it or has a job in it. Only a running thread holds a
 * lane: a job that is merely queued does not, so threads that wait never wait for a job that has no
 * thread left to run on. */
struct lane {
    uint64_t key;
    struct lane *bucket_next;
    struct lane *ready_next;
    struct job *first, *last;
    struct waiter *waiting_first, *waiting_last;
    bool held;
    bool ready; /* stands in the ready list */
};

struct workers {
    pthread_mutex_t mutex; /* protects all below; held for a few instructions at a time */
    struct sleeper *sleepers;
    struct job *first, *last;              /* jobs without a lane */
    struct lane *ready_first, *ready_last; /* lanes whose next job may run */
    struct lane *buckets[LANE_BUCKETS];
    struct job *spare;
    size_t spare_count;
    size_t queued, queue_max;
    size_t awake, awake_max; /* threads that neither sleep nor wait; those being woken count */
    bool lane_turn;          /* lanes and free jobs take turns */
    bool stopping;
    bool ended;     /* no thread is left */
    sem_t *to_post; /* by whoever has the mutex, after giving it back: whom it wakes wants it */
    const char *name;
    struct sleeper *threads; /* the first `started` run: one is started when none is at hand */
    size_t started, thread_max;
};

/* The lane this thread holds: lanes belong to threads, so this is state of the thread. */
static _Thread_local struct {
    struct workers *own;     /* the pool this thread belongs to */
    struct workers *workers; /* of the lane */
    uint64_t key;
    unsigned depth;
} held;

uint64_t lane_of_room(uint64_t room_number)
{
    return room_number * 2 + 1;
}

uint64_t lane_of_user(uint64_t user_number)
{
    return user_number * 2 + 2;
}

static struct lane **bucket_of(struct workers *workers, uint64_t key)
{
    return &workers->buckets[(key * UINT64_C(0x9E3779B97F4A7C15)) >> 54];
}

static struct lane *lane_get(struct workers *workers, uint64_t key)
{
    struct lane **bucket = bucket_of(workers, key);
    for (struct lane *lane = *bucket; lane; lane = lane->bucket_next) {
        if (lane->key == key) {
            return lane;
        }
    }
    struct lane *lane = mem_alloc(sizeof *lane);
    lane->key = key;
    lane->bucket_next = *bucket;
    *bucket = lane;
    return lane;
}

static void lane_drop_if_unused(struct workers *workers, struct lane *lane)
{
    if (lane->held || lane->ready || lane->first || lane->waiting_first) {
        return;
    }
    struct lane **at = bucket_of(workers, lane->key);
    while (*at != lane) {
        at = &(*at)->bucket_next;
    }
    *at = lane->bucket_next;
    mem_free(lane);
}

static void *run_thread(void *arg);

/* Without the means for one more thread, those that run do the work. */
static void start_one(struct workers *workers)
{
    struct sleeper *self = &workers->threads[workers->started];
    int failed = pthread_create(&self->thread, NULL, run_thread, self);
    ASSERT(failed == 0 || workers->started > 0);
    if (failed == 0) {
        workers->started++;
        workers->awake++;
    }
}

static void post_soon(struct workers *workers, sem_t *sem)
{
    if (workers->to_post) {
        sem_post(workers->to_post);
    }
    workers->to_post = sem;
}

static void wake_one(struct workers *workers)
{
    struct sleeper *sleeper = workers->sleepers;
    if (workers->awake >= workers->awake_max) {
        return;
    }
    if (!sleeper && workers->started < workers->thread_max) {
        start_one(workers);
    } else if (sleeper) {
        workers->sleepers = sleeper->next;
        workers->awake++;
        post_soon(workers, &sleeper->woken);
    }
}

static void unlock(struct workers *workers)
{
    sem_t *to_post = workers->to_post;
    workers->to_post = NULL;
    pthread_mutex_unlock(&workers->mutex);
    if (to_post) {
        sem_post(to_post);
    }
}

/* Gives the mutex back meanwhile. */
static void wait_unlocked(struct workers *workers, sem_t *until)
{
    unlock(workers);
    while (sem_wait(until) != 0) {
        ASSERT(errno == EINTR);
    }
}

static void wake_all(struct workers *workers)
{
    workers->awake_max = SIZE_MAX;
    while (workers->sleepers) {
        wake_one(workers);
    }
}

/* This thread stops counting as awake; another takes its place when there is work. */
static void step_aside(struct workers *workers)
{
    workers->awake--;
    if (workers->first || workers->ready_first) {
        wake_one(workers);
    }
}

static void sleep_until_woken(struct workers *workers, struct sleeper *self)
{
    self->next = workers->sleepers;
    workers->sleepers = self;
    workers->awake--;
    wait_unlocked(workers, &self->woken);
    pthread_mutex_lock(&workers->mutex);
}

static void lane_make_ready(struct workers *workers, struct lane *lane)
{
    if (lane->ready || lane->held || !lane->first) {
        return;
    }
    lane->ready = true;
    lane->ready_next = NULL;
    if (workers->ready_last) {
        workers->ready_last->ready_next = lane;
    } else {
        workers->ready_first = lane;
    }
    workers->ready_last = lane;
    wake_one(workers);
}

/* Waiting threads come first: each of them occupies a thread. Whoever is given the lane wakes with
 * it and needs the mutex no more. */
static void lane_release(struct workers *workers, struct lane *lane)
{
    struct waiter *next = lane->waiting_first;
    if (next) {
        lane->waiting_first = next->next;
        lane->waiting_last = lane->waiting_first ? lane->waiting_last : NULL;
        workers->awake += next->is_own ? 1 : 0;
        post_soon(workers, &next->granted);
        return;
    }
    lane->held = false;
    lane_make_ready(workers, lane);
    lane_drop_if_unused(workers, lane);
}

static struct job *take_lane_job(struct workers *workers)
{
    while (workers->ready_first) {
        struct lane *lane = workers->ready_first;
        workers->ready_first = lane->ready_next;
        workers->ready_last = workers->ready_first ? workers->ready_last : NULL;
        lane->ready = false;
        if (!lane->held) { /* else a thread entered meanwhile; its release makes it ready again */
            struct job *job = lane->first;
            lane->first = job->next;
            lane->last = lane->first ? lane->last : NULL;
            lane->held = true;
            return job;
        }
    }
    return NULL;
}

static struct job *take_free_job(struct workers *workers)
{
    struct job *job = workers->first;
    if (job) {
        workers->first = job->next;
        workers->last = workers->first ? workers->last : NULL;
    }
    return job;
}

static struct job *take_job(struct workers *workers)
{
    workers->lane_turn = !workers->lane_turn;
    struct job *job = workers->lane_turn ? take_lane_job(workers) : take_free_job(workers);
    if (!job) {
        job = workers->lane_turn ? take_free_job(workers) : take_lane_job(workers);
    }
    return job;
}

static void spare_job(struct workers *workers, struct job *job)
{
    if (workers->spare_count >= SPARE_MAX) {
        mem_free(job);
        return;
    }
    job->next = workers->spare;
    workers->spare = job;
    workers->spare_count++;
}

static void run_job(struct workers *workers, struct job *job)
{
    struct lane *lane = job->lane;
    job_fn fn = job->fn;
    void *arg = job->arg;
    workers->queued--;
    spare_job(workers, job);
    unlock(workers);
    if (lane) {
        held.workers = workers;
        held.key = lane->key;
        held.depth = 1;
    }
    fn(arg);
    ASSERT(held.depth == (lane ? 1 : 0));
    held.depth = 0;
    pthread_mutex_lock(&workers->mutex);
    if (lane) {
        lane_release(workers, lane);
    }
}

static void *run_thread(void *arg)
{
    struct sleeper *self = arg;
    struct workers *workers = self->workers;
    char title[16];
    snprintf(title, sizeof title, "%.10s-%zu", workers->name,
             (size_t)(self - workers->threads) % 1000);
    pthread_setname_np(pthread_self(), title);
    held.own = workers;
    pthread_mutex_lock(&workers->mutex);
    for (;;) {
        struct job *job = workers->awake > workers->awake_max ? NULL : take_job(workers);
        if (job) {
            run_job(workers, job);
        } else if (workers->stopping && workers->queued == 0) {
            break;
        } else {
            sleep_until_woken(workers, self);
        }
    }
    wake_all(workers); /* the last job is done: the others may go too */
    unlock(workers);
    return NULL;
}

struct workers *workers_new(const char *name, size_t thread_max, size_t queue_max)
{
    struct workers *workers = mem_alloc(sizeof *workers);
    ASSERT(thread_max > 0);
    pthread_mutex_init(&workers->mutex, NULL);
    workers->name = name;
    workers->awake_max = SIZE_MAX;
    workers->queue_max = queue_max;
    workers->thread_max = thread_max;
    workers->threads = mem_alloc(thread_max * sizeof *workers->threads);
    for (size_t i = 0; i < thread_max; i++) {
        workers->threads[i].workers = workers;
        sem_init(&workers->threads[i].woken, 0, 0);
    }
    return workers;
}

void workers_join(struct workers *workers)
{
    if (!workers || workers->ended) {
        return;
    }
    pthread_mutex_lock(&workers->mutex);
    workers->stopping = true;
    wake_all(workers);
    for (size_t i = 0; i < workers->started; i++) { /* the last jobs may start threads yet */
        unlock(workers);
        pthread_join(workers->threads[i].thread, NULL);
        pthread_mutex_lock(&workers->mutex);
    }
    workers->ended = true;
    unlock(workers);
}

void workers_free(struct workers **pool)
{
    struct workers *workers = *pool;
    if (!workers) {
        return;
    }
    workers_join(workers);
    while (workers->spare) {
        struct job *next = workers->spare->next;
        mem_free(workers->spare);
        workers->spare = next;
    }
    for (size_t i = 0; i < workers->thread_max; i++) {
        sem_destroy(&workers->threads[i].woken);
    }
    pthread_mutex_destroy(&workers->mutex);
    mem_free(workers->threads);
    mem_free(workers);
    *pool = NULL;
}

static struct job *new_job(struct workers *workers)
{
    struct job *job = workers->spare;
    if (job) {
        workers->spare = job->next;
        workers->spare_count--;
        return job;
    }
    return mem_alloc_raw(sizeof *job);
}

static void append_job(struct workers *workers, struct job *job, uint64_t key)
{
    struct lane *lane = key ? lane_get(workers, key) : NULL;
    struct job **first = lane ? &lane->first : &workers->first;
    struct job **last = lane ? &lane->last : &workers->last;
    job->lane = lane;
    if (*last) {
        (*last)->next = job;
    } else {
        *first = job;
    }
    *last = job;
    if (lane) {
        lane_make_ready(workers, lane);
    } else {
        wake_one(workers);
    }
}

bool workers_submit(struct workers *workers, uint64_t lane, job_fn fn, void *arg)
{
    pthread_mutex_lock(&workers->mutex);
    bool room = workers->queued < workers->queue_max && !workers->ended;
    if (room) {
        struct job *job = new_job(workers);
        *job = (struct job){.fn = fn, .arg = arg};
        workers->queued++;
        append_job(workers, job, lane);
    }
    unlock(workers);
    return room;
}

/* Begins with the mutex and ends without it, in the lane. */
static void wait_for_lane(struct workers *workers, struct lane *lane)
{
    struct waiter self = {.is_own = held.own == workers};
    sem_init(&self.granted, 0, 0);
    if (lane->waiting_last) {
        lane->waiting_last->next = &self;
    } else {
        lane->waiting_first = &self;
    }
    lane->waiting_last = &self;
    if (self.is_own) {
        step_aside(workers);
    }
    wait_unlocked(workers, &self.granted);
    sem_destroy(&self.granted);
}

void workers_lane_enter(struct workers *workers, uint64_t key)
{
    ASSERT(key != 0);
    if (held.depth) {
        ASSERT(held.workers == workers);
        ASSERT(held.key == key);
        held.depth++;
        return;
    }
    pthread_mutex_lock(&workers->mutex);
    struct lane *lane = lane_get(workers, key);
    if (lane->held) {
        wait_for_lane(workers, lane);
    } else {
        lane->held = true;
        unlock(workers);
    }
    held.workers = workers;
    held.key = key;
    held.depth = 1;
}

void workers_lane_leave(struct workers *workers, uint64_t key)
{
    ASSERT(held.depth > 0);
    ASSERT(held.workers == workers);
    ASSERT(held.key == key);
    if (--held.depth == 0) {
        pthread_mutex_lock(&workers->mutex);
        lane_release(workers, lane_get(workers, key));
        unlock(workers);
    }
}

void workers_limit_awake(struct workers *workers, size_t awake_max)
{
    ASSERT(awake_max > 0);
    pthread_mutex_lock(&workers->mutex);
    workers->awake_max = awake_max;
    unlock(workers);
}

void workers_pause(void)
{
    if (held.own) {
        pthread_mutex_lock(&held.own->mutex);
        step_aside(held.own);
        unlock(held.own);
    }
}

void workers_resume(void)
{
    if (held.own) {
        pthread_mutex_lock(&held.own->mutex);
        held.own->awake++;
        unlock(held.own);
    }
}

size_t workers_queued(struct workers *workers)
{
    pthread_mutex_lock(&workers->mutex);
    size_t queued = workers->queued;
    unlock(workers);
    return queued;
}
