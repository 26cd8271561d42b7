#include "homeserver/base/loop.h"

#include "homeserver/base/err.h"
#include "homeserver/base/mem.h"

#include <stdatomic.h>
#include <uv.h>

struct loop {
    uv_loop_t uv;
    uv_async_t wake;
    uv_prepare_t prepare;
    void (*before_sleep)(void *arg);
    void *before_sleep_arg;
    _Atomic(struct loop_task *) posted; /* newest first */
    _Atomic bool stopping;
};

struct loop_watch {
    uv_poll_t poll;
    void (*fn)(void *arg, unsigned events);
    void *arg;
    unsigned events;
};

struct loop_timer {
    uv_timer_t timer;
    void (*fn)(void *arg);
    void *arg;
};

static void run_posted(struct loop *loop)
{
    struct loop_task *task = atomic_exchange_explicit(&loop->posted, NULL, memory_order_acquire);
    struct loop_task *first = NULL;
    while (task) { /* the list is newest first: turn it round */
        struct loop_task *next = task->next;
        task->next = first;
        first = task;
        task = next;
    }
    while (first) {
        struct loop_task *next = first->next;
        first->fn(first->arg);
        first = next;
    }
}

static void on_wake(uv_async_t *wake)
{
    struct loop *loop = wake->data;
    run_posted(loop);
    if (atomic_load(&loop->stopping)) {
        uv_stop(&loop->uv);
    }
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct loop *loop = prepare->data;
    if (loop->before_sleep) {
        loop->before_sleep(loop->before_sleep_arg);
    }
}

struct loop *loop_new(void)
{
    struct loop *loop = mem_alloc(sizeof *loop);
    int failed = uv_loop_init(&loop->uv);
    ASSERT(failed == 0);
    failed = uv_async_init(&loop->uv, &loop->wake, on_wake);
    ASSERT(failed == 0);
    loop->wake.data = loop;
    uv_prepare_init(&loop->uv, &loop->prepare);
    loop->prepare.data = loop;
    uv_prepare_start(&loop->prepare, on_prepare);
    return loop;
}

void loop_free(struct loop **pointer)
{
    struct loop *loop = *pointer;
    if (!loop) {
        return;
    }
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT); /* lets closed watches and timers free themselves */
    int busy = uv_loop_close(&loop->uv);
    ASSERT(busy == 0);
    mem_free(loop);
    *pointer = NULL;
}

void loop_run(struct loop *loop)
{
    while (!atomic_load(&loop->stopping)) {
        uv_run(&loop->uv, UV_RUN_DEFAULT);
    }
    run_posted(loop);
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stopping, true);
    uv_async_send(&loop->wake);
}

void loop_post(struct loop *loop, struct loop_task *task)
{
    struct loop_task *old = atomic_load_explicit(&loop->posted, memory_order_relaxed);
    do {
        task->next = old;
    } while (!atomic_compare_exchange_weak_explicit(&loop->posted, &old, task, memory_order_release,
                                                    memory_order_relaxed));
    if (!old) { /* whoever made the list non-empty has woken the loop already */
        uv_async_send(&loop->wake);
    }
}

void loop_before_sleep(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    loop->before_sleep = fn;
    loop->before_sleep_arg = arg;
}

int64_t loop_mono_ms(const struct loop *loop)
{
    return (int64_t)uv_now(&loop->uv);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct loop_watch *watch = poll->data;
    unsigned seen = status < 0 ? watch->events : 0; /* a broken descriptor shows on use */
    seen |= events & (UV_READABLE | UV_DISCONNECT) ? LOOP_READ : 0;
    seen |= events & UV_WRITABLE ? LOOP_WRITE : 0;
    watch->fn(watch->arg, seen);
}

struct loop_watch *loop_watch_new(struct loop *loop, int fd, void (*fn)(void *arg, unsigned events),
                                  void *arg)
{
    struct loop_watch *watch = mem_alloc(sizeof *watch);
    watch->fn = fn;
    watch->arg = arg;
    int failed = uv_poll_init(&loop->uv, &watch->poll, fd);
    ASSERT(failed == 0);
    watch->poll.data = watch;
    return watch;
}

void loop_watch_set(struct loop_watch *watch, unsigned events)
{
    if (watch->events == events) {
        return;
    }
    watch->events = events;
    if (!events) {
        uv_poll_stop(&watch->poll);
        return;
    }
    int mask = (events & LOOP_READ ? UV_READABLE : 0) | (events & LOOP_WRITE ? UV_WRITABLE : 0);
    uv_poll_start(&watch->poll, mask, on_poll);
}

static void free_handle(uv_handle_t *handle)
{
    mem_free(handle->data);
}

void loop_watch_free(struct loop_watch **watch)
{
    if (*watch) {
        uv_close((uv_handle_t *)&(*watch)->poll, free_handle);
        *watch = NULL;
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct loop_timer *self = timer->data;
    self->fn(self->arg);
}

struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct loop_timer *timer = mem_alloc(sizeof *timer);
    timer->fn = fn;
    timer->arg = arg;
    uv_timer_init(&loop->uv, &timer->timer);
    timer->timer.data = timer;
    return timer;
}

void loop_timer_start(struct loop_timer *timer, int64_t after_ms)
{
    uv_timer_start(&timer->timer, on_timer, after_ms > 0 ? (uint64_t)after_ms : 0, 0);
}

void loop_timer_stop(struct loop_timer *timer)
{
    uv_timer_stop(&timer->timer);
}

void loop_timer_free(struct loop_timer **timer)
{
    if (*timer) {
        uv_close((uv_handle_t *)&(*timer)->timer, free_handle);
        *timer = NULL;
    }
}
