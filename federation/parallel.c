#include "federation/parallel.h"

#include "homeserver/base/mem.h"

#include <pthread.h>
#include <stdatomic.h>

/* Shared by the caller and its helpers. A helper that gets a thread too late finds nothing to do,
 * so the whole lives until the last one has let go of it. */
struct crew {
    struct fed_parts parts; /* fn and arg count only while a part is left */
    struct ctx ctx;         /* what each part's begins with */
    pthread_mutex_t lock;
    pthread_cond_t idle;
    size_t next;    /* first part not taken */
    size_t running; /* parts */
    unsigned refs;
};

static bool take(struct crew *crew, size_t *index_out)
{
    pthread_mutex_lock(&crew->lock);
    if (crew->next < crew->parts.count &&
        now_mono_ms(crew->ctx.now) >= crew->ctx.deadline_mono_ms) {
        crew->next = crew->parts.count;
    }
    bool got = crew->next < crew->parts.count;
    *index_out = crew->next;
    crew->next += got;
    crew->running += got;
    pthread_mutex_unlock(&crew->lock);
    return got;
}

static void work(struct crew *crew)
{
    size_t index = 0;
    struct ctx ctx = crew->ctx;
    ctx.arena = NULL;
    while (take(crew, &index)) {
        ctx.arena = ctx.arena ? ctx.arena : arena_new();
        crew->parts.fn(crew->parts.arg, &ctx, index);
        ctx_finish(&ctx);
        arena_reset(ctx.arena);
        pthread_mutex_lock(&crew->lock);
        crew->running--;
        pthread_cond_signal(&crew->idle);
        pthread_mutex_unlock(&crew->lock);
    }
    if (ctx.arena) {
        arena_free(&ctx.arena);
    }
}

static void let_go(struct crew *crew)
{
    pthread_mutex_lock(&crew->lock);
    bool last = --crew->refs == 0;
    pthread_mutex_unlock(&crew->lock);
    if (last) {
        pthread_cond_destroy(&crew->idle);
        pthread_mutex_destroy(&crew->lock);
        mem_free(crew);
    }
}

static void help(void *arg)
{
    work(arg);
    let_go(arg);
}

static void call_helpers(struct fed *fed, struct crew *crew)
{
    size_t wanted =
        crew->parts.count < crew->parts.width_max ? crew->parts.count : crew->parts.width_max;
    for (size_t i = 1; i < wanted && fed->hs->waiters; i++) {
        pthread_mutex_lock(&crew->lock);
        crew->refs++;
        pthread_mutex_unlock(&crew->lock);
        if (!workers_submit(fed->hs->waiters, 0, help, crew)) {
            let_go(crew);
            return;
        }
    }
}

void fed_parallel(struct fed *fed, struct ctx *ctx, const struct fed_parts *parts)
{
    struct crew *crew = mem_alloc(sizeof *crew);
    int64_t until_ms = now_mono_ms(ctx->now) + parts->within_ms;
    bool sooner = ctx->deadline_mono_ms && ctx->deadline_mono_ms < until_ms;
    crew->parts = *parts;
    crew->ctx = (struct ctx){.now = ctx->now,
                             .log = ctx->log,
                             .may_wait = true,
                             .deadline_mono_ms = sooner ? ctx->deadline_mono_ms : until_ms};
    crew->refs = 1;
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->idle, NULL);
    call_helpers(fed, crew);
    work(crew);
    pthread_mutex_lock(&crew->lock);
    while (crew->running) {
        pthread_cond_wait(&crew->idle, &crew->lock);
    }
    pthread_mutex_unlock(&crew->lock);
    let_go(crew);
}
