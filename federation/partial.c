#include "federation/partial.h"

#include "federation/fed_priv.h"
#include "federation/resync.h"
#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/intake.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

enum {
    RETRY_MS_MIN = 2000,
    RETRY_MS_MAX = 15 * 60 * 1000,
    AWAIT_SECONDS = 60,
    AWAITING_MAX = 16, /* requests that may hold a waiting thread */
    SERVER_BYTES_MAX = 255,
};

struct partial_room {
    char server[SERVER_BYTES_MAX + 1]; /* asked first; may be empty */
    int64_t due_ms;                    /* mono */
    int64_t pause_ms;
};

struct fed_partial {
    struct fed *fed;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pthread_t thread;
    bool started, stopping;
    struct map *rooms; /* number -> struct partial_room * */
    size_t awaiting;
};

struct fed_partial *fed_partial_new(struct fed *fed)
{
    struct fed_partial *partial = mem_alloc(sizeof *partial);
    pthread_condattr_t attributes;
    partial->fed = fed;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&partial->mutex, NULL);
    pthread_cond_init(&partial->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    partial->rooms = map_new();
    return partial;
}

void fed_partial_free(struct fed_partial **pointer)
{
    struct fed_partial *partial = *pointer;
    struct slice key;
    uint64_t value = 0;
    size_t cursor = 0;
    if (!partial) {
        return;
    }
    while (map_next(partial->rooms, &cursor, &key, &value)) {
        mem_free(map_get_ptr(partial->rooms, key));
    }
    map_free(&partial->rooms);
    pthread_cond_destroy(&partial->changed);
    pthread_mutex_destroy(&partial->mutex);
    mem_free(partial);
    *pointer = NULL;
}

/* With the mutex held. */
static void add_room(struct fed_partial *partial, uint64_t room, struct slice server)
{
    struct partial_room *entry = map_get_ptr(partial->rooms, map_key_u64(&room));
    if (!entry) {
        entry = mem_alloc(sizeof *entry);
        map_set_ptr(partial->rooms, map_key_u64(&room), entry);
    }
    *entry = (struct partial_room){.pause_ms = RETRY_MS_MIN};
    for (size_t i = 0; i < server.len && i < SERVER_BYTES_MAX; i++) {
        entry->server[i] = server.ptr[i];
    }
}

void fed_partial_begin(struct fed *fed, uint64_t room, struct slice server)
{
    pthread_mutex_lock(&fed->partial->mutex);
    add_room(fed->partial, room, server);
    pthread_cond_broadcast(&fed->partial->changed);
    pthread_mutex_unlock(&fed->partial->mutex);
}

/* --- the thread --- */

/* With the mutex held: the room that is due first. */
static struct partial_room *find_first(const struct fed_partial *partial, uint64_t *room_out)
{
    struct partial_room *first = NULL;
    struct slice key;
    uint64_t value = 0;
    size_t cursor = 0;
    while (map_next(partial->rooms, &cursor, &key, &value)) {
        struct partial_room *entry = map_get_ptr(partial->rooms, key);
        if (!first || entry->due_ms < first->due_ms) {
            first = entry;
            __builtin_memcpy(room_out, key.ptr, sizeof *room_out);
        }
    }
    return first;
}

static void wait_ms(struct fed_partial *partial, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&partial->changed, &partial->mutex, &until);
}

/* Without the mutex. */
static struct err work_on(struct fed_partial *partial, uint64_t room, const char *server)
{
    struct hs *hs = partial->fed->hs;
    struct ctx ctx = {.arena = arena_new(), .now = hs->now, .log = hs->log, .may_wait = true};
    struct resync resync = {
        .fed = partial->fed, .ctx = &ctx, .number = room, .first = slice_of(server)};
    struct err err = resync_run(&resync);
    if (err.code != 0) {
        log_warn(hs->log, "room_still_partial", .room = resync.room_id, .err = slice_of(err.text));
    }
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return (struct err){.code = err.code};
}

/* With the mutex held. A room that was joined again meanwhile is due again. */
static void note_result(struct fed_partial *partial, uint64_t room, struct err err)
{
    struct partial_room *entry = map_get_ptr(partial->rooms, map_key_u64(&room));
    bool again = entry && entry->due_ms == 0;
    if (!entry || again) {
        return;
    }
    if (err.code == 0) {
        map_remove(partial->rooms, map_key_u64(&room));
        mem_free(entry);
        return;
    }
    entry->due_ms = now_mono_ms(partial->fed->hs->now) + entry->pause_ms;
    entry->pause_ms = entry->pause_ms * 2 < RETRY_MS_MAX ? entry->pause_ms * 2 : RETRY_MS_MAX;
}

/* With the mutex held. */
static void step(struct fed_partial *partial)
{
    uint64_t room = 0;
    struct partial_room *entry = find_first(partial, &room);
    int64_t now_ms = now_mono_ms(partial->fed->hs->now);
    if (!entry) {
        pthread_cond_wait(&partial->changed, &partial->mutex);
        return;
    }
    if (entry->due_ms > now_ms) {
        wait_ms(partial, entry->due_ms - now_ms);
        return;
    }
    struct partial_room copy = *entry;
    entry->due_ms = 1; /* taken up */
    pthread_mutex_unlock(&partial->mutex);
    struct err err = work_on(partial, room, copy.server);
    pthread_mutex_lock(&partial->mutex);
    note_result(partial, room, err);
    pthread_cond_broadcast(&partial->changed);
}

static void *run(void *arg)
{
    struct fed_partial *partial = arg;
    pthread_mutex_lock(&partial->mutex);
    while (!partial->stopping) {
        step(partial);
    }
    pthread_mutex_unlock(&partial->mutex);
    return NULL;
}

static struct err take_up(struct fed_partial *partial)
{
    struct hs *hs = partial->fed->hs;
    struct ctx ctx = {.arena = arena_new(), .now = hs->now, .log = hs->log};
    uint64_t *rooms = NULL;
    size_t count = 0;
    struct err err = hs_rooms_partial(hs, &ctx, &rooms, &count);
    pthread_mutex_lock(&partial->mutex);
    for (size_t i = 0; i < count && err.code == 0; i++) {
        add_room(partial, rooms[i], (struct slice){0});
    }
    pthread_mutex_unlock(&partial->mutex);
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return err;
}

struct err fed_partial_start(struct fed_partial *partial)
{
    TRY(take_up(partial));
    if (pthread_create(&partial->thread, NULL, run, partial) != 0) {
        return err_make(ERR_IO, "a thread cannot be started");
    }
    partial->started = true;
    return OK;
}

void fed_partial_stop(struct fed_partial *partial)
{
    pthread_mutex_lock(&partial->mutex);
    partial->stopping = true;
    pthread_cond_broadcast(&partial->changed);
    pthread_mutex_unlock(&partial->mutex);
    if (partial->started) {
        pthread_join(partial->thread, NULL);
        partial->started = false;
    }
}

/* --- waiting for it --- */

static struct err await(struct fed_partial *partial, struct room *room)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += AWAIT_SECONDS;
    while (hs_room_is_partial(room)) {
        if (partial->stopping) {
            return err_make(ERR_CANCELLED, "the server is stopping");
        }
        if (pthread_cond_timedwait(&partial->changed, &partial->mutex, &until) == ETIMEDOUT) {
            return err_public(ERR_TIMEOUT, "The room's state is still on its way; try again.");
        }
    }
    return OK;
}

struct err fed_partial_await(struct hs *hs, struct ctx *ctx, struct room *room)
{
    struct fed_partial *partial = hs->fed->partial;
    struct err err = OK;
    if (!hs_room_is_partial(room)) {
        return OK;
    }
    if (!ctx->may_wait) {
        return err_make(ERR_WAITS, "the room's state is on its way");
    }
    pthread_mutex_lock(&partial->mutex);
    if (partial->awaiting >= AWAITING_MAX) {
        err = err_public(ERR_UNAVAILABLE, "The room's state is still on its way; try again.");
    } else {
        partial->awaiting++;
        err = await(partial, room);
        partial->awaiting--;
    }
    pthread_mutex_unlock(&partial->mutex);
    return err;
}
