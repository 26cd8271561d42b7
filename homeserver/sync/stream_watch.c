/* Deadlines of streams, and what a client that keeps asking would keep up: presence, a look at its
 * token. One thread for all; a stream has no timer of its own. */
#include "homeserver/base/mem.h"
#include "homeserver/sync/stream_priv.h"

#include <time.h>

enum { TICK_MS = 1000, AT_ONCE = 256 };

struct sync_streams {
    struct sync *sync;
    pthread_mutex_t lock; /* protects what follows; taken before a stream's lock */
    pthread_cond_t wake;
    pthread_t thread;
    struct stream *first;
    size_t count;
    int64_t touched_mono_ms;
    bool stopping;
};

bool streams_add(struct sync_streams *streams, struct stream *stream)
{
    pthread_mutex_lock(&streams->lock);
    bool added = streams->count < STREAMS_MAX && !streams->stopping;
    if (added) {
        stream->next = streams->first;
        if (streams->first) {
            streams->first->prev = stream;
        }
        streams->first = stream;
        streams->count++;
    }
    pthread_mutex_unlock(&streams->lock);
    return added;
}

void streams_remove(struct sync_streams *streams, struct stream *stream)
{
    pthread_mutex_lock(&streams->lock);
    *(stream->prev ? &stream->prev->next : &streams->first) = stream->next;
    if (stream->next) {
        stream->next->prev = stream->prev;
    }
    stream->next = NULL;
    stream->prev = NULL;
    streams->count--;
    pthread_mutex_unlock(&streams->lock);
}

/* --- deadlines --- */

static bool is_late(struct stream *stream, int64_t mono_ms)
{
    pthread_mutex_lock(&stream->lock);
    bool late = stream->deadline_mono_ms != 0 && stream->deadline_mono_ms <= mono_ms;
    pthread_mutex_unlock(&stream->lock);
    return late;
}

/* Late streams, each held. */
static size_t take_late(struct sync_streams *streams, int64_t mono_ms, struct stream *late[AT_ONCE])
{
    size_t count = 0;
    pthread_mutex_lock(&streams->lock);
    for (struct stream *at = streams->first; at != NULL && count < AT_ONCE; at = at->next) {
        if (is_late(at, mono_ms)) {
            stream_hold(at);
            late[count++] = at;
        }
    }
    pthread_mutex_unlock(&streams->lock);
    return count;
}

static void give_up(struct stream *stream, struct ctx *ctx)
{
    pthread_mutex_lock(&stream->lock);
    bool opening = stream->phase == STREAM_OPENING;
    pthread_mutex_unlock(&stream->lock);
    if (opening) {
        stream_fail(stream, ctx, STREAM_CLOSE_NO_AUTH,
                    err_public(ERR_M_MISSING_TOKEN, "No `auth` frame came in time."));
    } else {
        stream_fail(stream, ctx, STREAM_CLOSE_NO_ACK,
                    err_public(ERR_M_UNKNOWN_400, "A `sync` was not acknowledged in time."));
    }
}

/* --- presence and tokens --- */

static void touch(struct stream *stream, struct ctx *ctx)
{
    if (stream_check_token(stream, ctx)) {
        hs_presence_touch(stream->sync->hs, stream->params.user, stream->params.device_id,
                          stream->presence);
    }
}

static bool is_live(struct stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    bool live = stream->phase != STREAM_OPENING && stream->phase != STREAM_CLOSED;
    pthread_mutex_unlock(&stream->lock);
    return live;
}

/* The next live stream after `at` (NULL = the first), held; gives `at` back. A stream that was
 * removed meanwhile ends the round. */
static struct stream *next_live(struct sync_streams *streams, struct stream *at)
{
    pthread_mutex_lock(&streams->lock);
    struct stream *next = at ? at->next : streams->first;
    while (next != NULL && !is_live(next)) {
        next = next->next;
    }
    if (next != NULL) {
        stream_hold(next);
    }
    pthread_mutex_unlock(&streams->lock);
    if (at != NULL) {
        stream_release(at);
    }
    return next;
}

/* --- the thread --- */

static void tick(struct sync_streams *streams)
{
    struct hs *hs = streams->sync->hs;
    struct arena *arena = arena_new();
    struct ctx ctx = {.arena = arena, .now = hs->now, .log = hs->log};
    struct stream *late[AT_ONCE];
    int64_t mono_ms = now_mono_ms(hs->now);
    size_t count = take_late(streams, mono_ms, late);
    for (size_t i = 0; i < count; i++) {
        give_up(late[i], &ctx);
        stream_release(late[i]);
    }
    if (mono_ms - streams->touched_mono_ms >= STREAM_TOUCH_MS) {
        streams->touched_mono_ms = mono_ms;
        for (struct stream *at = next_live(streams, NULL); at; at = next_live(streams, at)) {
            touch(at, &ctx);
            ctx_finish(&ctx);
            arena_reset(arena);
        }
    }
    arena_free(&arena);
}

static struct timespec later(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += TICK_MS / 1000;
    return at;
}

static void *run(void *arg)
{
    struct sync_streams *streams = arg;
    pthread_mutex_lock(&streams->lock);
    while (!streams->stopping) {
        struct timespec at = later();
        pthread_cond_timedwait(&streams->wake, &streams->lock, &at);
        bool idle = streams->first == NULL || streams->stopping;
        pthread_mutex_unlock(&streams->lock);
        if (!idle) {
            tick(streams);
        }
        pthread_mutex_lock(&streams->lock);
    }
    pthread_mutex_unlock(&streams->lock);
    return NULL;
}

struct sync_streams *sync_streams_new(struct sync *sync)
{
    struct sync_streams *streams = mem_alloc(sizeof *streams);
    pthread_condattr_t attributes;
    streams->sync = sync;
    pthread_mutex_init(&streams->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&streams->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    int failed = pthread_create(&streams->thread, NULL, run, streams);
    ASSERT(failed == 0);
    return streams;
}

void sync_streams_free(struct sync_streams **streams)
{
    struct sync_streams *s = *streams;
    if (s == NULL) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
    *streams = NULL;
}
