#include "homeserver/base/loop.h"

#include "homeserver/base/err.h"
#include "homeserver/base/mem.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <uv.h>

enum { SOCKETS_AT_ONCE = 64 };

struct loop {
    uv_loop_t uv;
    uv_poll_t sockets; /* those of struct loop_socket, in an epoll set of their own */
    int sockets_fd;
    struct epoll_event seen[SOCKETS_AT_ONCE]; /* those to be called yet */
    int seen_count;
    uv_poll_t wake;
    int wake_fd;
    uv_prepare_t prepare;
    void (*before_sleep)(void *arg);
    void *before_sleep_arg;
    _Atomic(struct loop_task *) posted; /* newest first */
    _Atomic bool
        sleeping; /* or about to: who posts must wake it. Otherwise it looks before it does */
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

/* libuv has a wake-up of its own, in which the loop spins until the waking thread has gone on. */
static void wake(struct loop *loop)
{
    uint64_t one = 1;
    while (write(loop->wake_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

static void on_wake(uv_poll_t *poll, int status, int events)
{
    struct loop *loop = poll->data;
    uint64_t count = 0;
    (void)status;
    (void)events;
    atomic_store_explicit(&loop->sleeping, false, memory_order_relaxed);
    while (read(loop->wake_fd, &count, sizeof count) < 0 && errno == EINTR) {
    }
    if (atomic_load(&loop->stopping)) {
        uv_stop(&loop->uv);
    }
}

/* What is posted from here on wakes the loop; what was posted before is looked at once more. */
static void on_prepare(uv_prepare_t *prepare)
{
    struct loop *loop = prepare->data;
    run_posted(loop);
    if (loop->before_sleep) {
        loop->before_sleep(loop->before_sleep_arg);
    }
    atomic_store(&loop->sleeping, true);
    bool late = atomic_load(&loop->posted) || atomic_load(&loop->stopping);
    if (late && atomic_exchange(&loop->sleeping, false)) {
        wake(loop);
    }
}

static void call_socket(const struct epoll_event *event)
{
    struct loop_socket *socket = event->data.ptr;
    unsigned events = event->events;
    unsigned seen = events & (EPOLLERR | EPOLLHUP) ? socket->events : 0;
    seen |= events & (EPOLLIN | EPOLLRDHUP) ? LOOP_READ : 0;
    seen |= events & EPOLLOUT ? LOOP_WRITE : 0;
    socket->fn(socket->arg, seen);
}

static void on_sockets(uv_poll_t *poll, int status, int events)
{
    struct loop *loop = poll->data;
    (void)status;
    (void)events;
    atomic_store_explicit(&loop->sleeping, false, memory_order_relaxed);
    loop->seen_count = epoll_wait(loop->sockets_fd, loop->seen, SOCKETS_AT_ONCE, 0);
    for (int i = 0; i < loop->seen_count; i++) {
        if (loop->seen[i].data.ptr) { /* else it was stopped by one before it */
            call_socket(&loop->seen[i]);
        }
    }
    loop->seen_count = 0;
}

void loop_socket_set(struct loop *loop, struct loop_socket *socket, unsigned events)
{
    struct epoll_event event = {.data.ptr = socket};
    int change = !socket->events ? EPOLL_CTL_ADD : events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
    if (socket->events == events) {
        return;
    }
    event.events = (events & LOOP_READ ? (uint32_t)EPOLLIN : 0) |
                   (events & LOOP_WRITE ? (uint32_t)EPOLLOUT : 0);
    socket->events = events;
    int failed = epoll_ctl(loop->sockets_fd, change, socket->fd, &event);
    ASSERT(failed == 0);
    for (int i = 0; !events && i < loop->seen_count; i++) {
        if (loop->seen[i].data.ptr == socket) {
            loop->seen[i].data.ptr = NULL;
        }
    }
}

static void init_sockets(struct loop *loop)
{
    loop->sockets_fd = epoll_create1(EPOLL_CLOEXEC);
    ASSERT(loop->sockets_fd >= 0);
    int failed = uv_poll_init(&loop->uv, &loop->sockets, loop->sockets_fd);
    ASSERT(failed == 0);
    loop->sockets.data = loop;
    uv_poll_start(&loop->sockets, UV_READABLE, on_sockets);
}

struct loop *loop_new(void)
{
    struct loop *loop = mem_alloc(sizeof *loop);
    int failed = uv_loop_init(&loop->uv);
    ASSERT(failed == 0);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ASSERT(loop->wake_fd >= 0);
    failed = uv_poll_init(&loop->uv, &loop->wake, loop->wake_fd);
    ASSERT(failed == 0);
    loop->wake.data = loop;
    loop->uv.data = loop;
    uv_poll_start(&loop->wake, UV_READABLE, on_wake);
    init_sockets(loop);
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
    uv_close((uv_handle_t *)&loop->sockets, NULL);
    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT); /* lets closed watches and timers free themselves */
    int busy = uv_loop_close(&loop->uv);
    ASSERT(busy == 0);
    close(loop->wake_fd);
    close(loop->sockets_fd);
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
    wake(loop);
}

void loop_post(struct loop *loop, struct loop_task *task)
{
    struct loop_task *old = atomic_load_explicit(&loop->posted, memory_order_relaxed);
    do {
        task->next = old;
    } while (!atomic_compare_exchange_weak(&loop->posted, &old, task));
    if (atomic_load(&loop->sleeping) && atomic_exchange(&loop->sleeping, false)) {
        wake(loop);
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
    struct loop *loop = poll->loop->data;
    atomic_store_explicit(&loop->sleeping, false, memory_order_relaxed);
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
    struct loop *loop = timer->loop->data;
    atomic_store_explicit(&loop->sleeping, false, memory_order_relaxed);
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
