#include "homeserver/sync/holds.h"

#include "homeserver/base/err.h"
#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "homeserver/base/now.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

struct hold {
    struct sync_holds *holds;
    struct hold *next, *prev; /* of all, oldest first */
    struct hold *user_next;   /* of the user, by position */
    struct gate *gate;
    uint64_t user, pos;
    int64_t since_us;
    bool ended; /* too old: waits for its gate only to be freed */
};

struct sync_holds {
    void (*ended)(void *arg, uint64_t user);
    void *arg;
    pthread_mutex_t lock; /* protects what follows; leaf */
    pthread_cond_t wake;  /* of the thread */
    pthread_cond_t moved; /* a hold has ended */
    pthread_t thread;     /* ends what is too old */
    struct map *users;    /* number -> the user's first hold */
    struct hold *oldest, *newest;
    _Atomic size_t count; /* not ended */
    bool idle;            /* the thread sleeps until the next hold */
    bool stopping;
};

/* --- lists; lock held --- */

static void link_hold(struct sync_holds *holds, struct hold *hold)
{
    struct hold *first = map_get_ptr(holds->users, map_key_u64(&hold->user));
    hold->prev = holds->newest;
    *(holds->newest ? &holds->newest->next : &holds->oldest) = hold;
    holds->newest = hold;
    if (first == NULL) {
        map_set_ptr(holds->users, map_key_u64(&hold->user), hold);
        return;
    }
    while (first->user_next != NULL) {
        first = first->user_next;
    }
    first->user_next = hold;
}

static void unlink_user_hold(struct sync_holds *holds, struct hold *hold)
{
    struct hold *at = map_get_ptr(holds->users, map_key_u64(&hold->user));
    if (at == hold && hold->user_next != NULL) {
        map_set_ptr(holds->users, map_key_u64(&hold->user), hold->user_next);
    } else if (at == hold) {
        map_remove(holds->users, map_key_u64(&hold->user));
    } else {
        while (at->user_next != hold) {
            at = at->user_next;
        }
        at->user_next = hold->user_next;
    }
    hold->user_next = NULL;
}

static void end_hold(struct sync_holds *holds, struct hold *hold)
{
    unlink_user_hold(holds, hold);
    hold->ended = true;
    atomic_fetch_sub(&holds->count, 1);
    pthread_cond_broadcast(&holds->moved);
}

static void unlink_hold(struct sync_holds *holds, struct hold *hold)
{
    *(hold->prev ? &hold->prev->next : &holds->oldest) = hold->next;
    *(hold->next ? &hold->next->prev : &holds->newest) = hold->prev;
}

/* --- ending --- */

static void on_open(void *arg)
{
    struct hold *hold = arg;
    struct sync_holds *holds = hold->holds;
    uint64_t user = hold->user;
    pthread_mutex_lock(&holds->lock);
    bool late = hold->ended;
    if (!late) {
        end_hold(holds, hold);
    }
    unlink_hold(holds, hold);
    pthread_mutex_unlock(&holds->lock);
    gate_release(&hold->gate);
    mem_free(hold);
    if (!late) {
        holds->ended(holds->arg, user);
    }
}

static struct hold *oldest_active(const struct sync_holds *holds)
{
    struct hold *hold = holds->oldest;
    while (hold != NULL && hold->ended) {
        hold = hold->next;
    }
    return hold;
}

/* Sleeps until the oldest hold is too old; without one until there is one. Lock held. */
static void wait_for_age(struct sync_holds *holds)
{
    struct hold *hold = oldest_active(holds);
    if (hold == NULL) {
        holds->idle = true;
        pthread_cond_wait(&holds->wake, &holds->lock);
        holds->idle = false;
        return;
    }
    int64_t until_us = hold->since_us + SYNC_HOLD_MS_MAX * 1000;
    struct timespec until = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};
    pthread_cond_timedwait(&holds->wake, &holds->lock, &until);
}

static void *run(void *arg)
{
    struct sync_holds *holds = arg;
    pthread_mutex_lock(&holds->lock);
    while (!holds->stopping) {
        wait_for_age(holds);
        struct hold *hold = oldest_active(holds);
        if (hold == NULL || hold->since_us + SYNC_HOLD_MS_MAX * 1000 > now_mono_us()) {
            continue;
        }
        uint64_t user = hold->user;
        end_hold(holds, hold);
        pthread_mutex_unlock(&holds->lock);
        holds->ended(holds->arg, user);
        pthread_mutex_lock(&holds->lock);
    }
    pthread_mutex_unlock(&holds->lock);
    return NULL;
}

/* --- public --- */

struct sync_holds *sync_holds_new(void (*ended)(void *arg, uint64_t user), void *arg)
{
    struct sync_holds *holds = mem_alloc(sizeof *holds);
    pthread_condattr_t attributes;
    holds->ended = ended;
    holds->arg = arg;
    holds->users = map_new();
    pthread_mutex_init(&holds->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&holds->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_cond_init(&holds->moved, NULL);
    int failed = pthread_create(&holds->thread, NULL, run, holds);
    ASSERT(failed == 0);
    return holds;
}

void sync_holds_free(struct sync_holds **holds)
{
    struct sync_holds *own = *holds;
    if (own == NULL) {
        return;
    }
    pthread_mutex_lock(&own->lock);
    own->stopping = true;
    pthread_cond_signal(&own->wake);
    pthread_mutex_unlock(&own->lock);
    pthread_join(own->thread, NULL);
    while (own->oldest != NULL) {
        struct hold *hold = own->oldest;
        unlink_hold(own, hold);
        gate_release(&hold->gate);
        mem_free(hold);
    }
    map_free(&own->users);
    pthread_cond_destroy(&own->wake);
    pthread_cond_destroy(&own->moved);
    pthread_mutex_destroy(&own->lock);
    mem_free(own);
    *holds = NULL;
}

void sync_holds_add(struct sync_holds *holds, struct gate *gate, uint64_t pos)
{
    struct hold *hold = mem_alloc(sizeof *hold);
    *hold = (struct hold){.holds = holds,
                          .gate = gate_hold(gate),
                          .user = gate_user(gate),
                          .pos = pos,
                          .since_us = now_mono_us()};
    pthread_mutex_lock(&holds->lock);
    /* An earlier change of the same job may wait for the gate; its hold, should it be over, says
     * that the job takes too long. */
    bool closed = gate_await(gate, on_open, hold);
    if (closed) {
        link_hold(holds, hold);
        atomic_fetch_add(&holds->count, 1);
    }
    if (closed && holds->idle) {
        pthread_cond_signal(&holds->wake);
    }
    pthread_mutex_unlock(&holds->lock);
    if (!closed) {
        gate_release(&hold->gate);
        mem_free(hold);
    }
}

uint64_t sync_holds_limit(struct sync_holds *holds, uint64_t user, uint64_t published)
{
    if (atomic_load(&holds->count) == 0) {
        return published;
    }
    pthread_mutex_lock(&holds->lock);
    const struct hold *first = map_get_ptr(holds->users, map_key_u64(&user));
    bool less = first != NULL && first->pos <= published;
    uint64_t limit = less ? first->pos - 1 : published;
    pthread_mutex_unlock(&holds->lock);
    return limit;
}

void sync_holds_wait(struct sync_holds *holds, uint64_t user)
{
    if (atomic_load(&holds->count) == 0) {
        return;
    }
    pthread_mutex_lock(&holds->lock);
    uint64_t newest = holds->newest != NULL ? holds->newest->pos : 0;
    for (;;) {
        const struct hold *first = map_get_ptr(holds->users, map_key_u64(&user));
        if (first == NULL || first->pos > newest) {
            break;
        }
        pthread_cond_wait(&holds->moved, &holds->lock);
    }
    pthread_mutex_unlock(&holds->lock);
}
