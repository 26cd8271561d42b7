/* Long polls: a parked request is a suspended connection without job, arena or thread. All steps
 * are ordered by the loop: the job that parks is over before the answer begins, and `expired` has
 * returned before the answer begins. */
#include "homeserver/base/stats.h"
#include "homeserver/http/priv.h"
#include "spec/errcodes.h"

#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { HANGUPS_AT_ONCE = 64, RETRY_MS = 100 };

struct http_parked *http_park(struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply, int64_t timeout_ms,
                              void (*expired)(void *arg), void *arg)
{
    struct http_parked *parked = &request->connection->parked;
    (void)ctx;
    *parked = (struct http_parked){
        .connection = request->connection,
        .expired = expired,
        .expired_arg = arg,
        .timeout_ms = timeout_ms,
    };
    reply->parked = true;
    return parked;
}

/* Once for all requests of the connection: who polls in a busy room is parked for an instant, a
 * hundred times a minute. A peer hangs up but once, so it is told but once. */
static void watch_hangup(struct http_connection *connection)
{
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = connection};
    if (!connection->watched) {
        int added = epoll_ctl(connection->home->hangup_fd, EPOLL_CTL_ADD, connection->fd, &event);
        connection->watched = added == 0;
    }
}

void http_park_unwatch(struct http_connection *connection)
{
    if (connection->watched) {
        epoll_ctl(connection->home->hangup_fd, EPOLL_CTL_DEL, connection->fd, NULL);
        connection->watched = false;
    }
}

static void run_resume(void *arg)
{
    struct http_connection *connection = arg;
    struct http_parked *parked = &connection->parked;
    struct http_job *job = connection->job;
    job->ctx.write_ticket = parked->write_ticket;
    struct err err = parked->resume(parked->resume_arg, &job->ctx, &job->reply);
    if (!http_exchange_wait(connection, err, run_resume)) {
        http_exchange_finish(connection, err);
    }
}

static void retry_later(struct http_connection *connection)
{
    struct http_loop *home = connection->home;
    http_wheel_set(&home->wheel, &connection->deadline, loop_mono_ms(home->loop) + RETRY_MS);
}

/* Starts the answer when nothing of the request runs any more. */
static void resume_if_quiet(struct http_connection *connection)
{
    struct http_parked *parked = &connection->parked;
    if (!parked->unparked || parked->expiring || connection->phase != HTTP_PHASE_PARKED) {
        return;
    }
    http_wheel_cancel(&connection->home->wheel, &connection->deadline);
    if (!connection->job) {
        http_exchange_new_job(connection);
    }
    connection->phase = HTTP_PHASE_WORK;
    if (parked->is_at_hand) {
        atomic_fetch_add(&connection->home->server->running, 1);
        run_resume(connection);
    } else if (!http_exchange_submit(connection, 0, run_resume)) {
        connection->phase = HTTP_PHASE_PARKED;
        retry_later(connection);
        return;
    }
    stats_gauge_add(connection->home->server->config.stats, STAT_http_parked, -1);
}

static void on_unparked(void *arg)
{
    struct http_connection *connection = arg;
    connection->parked.unparked = true;
    resume_if_quiet(connection);
}

static bool take(struct http_parked *parked)
{
    return !atomic_exchange(&parked->taken, true);
}

static void answer(struct http_parked *parked, http_resume_fn fn, void *arg)
{
    parked->resume = fn;
    parked->resume_arg = arg;
    parked->unpark_task = (struct loop_task){.fn = on_unparked, .arg = parked->connection};
    loop_post(parked->connection->home->loop, &parked->unpark_task);
}

bool http_unpark(struct http_parked *parked, http_resume_fn fn, void *arg)
{
    if (!take(parked)) {
        return false;
    }
    answer(parked, fn, arg);
    return true;
}

bool http_unpark_at_hand(struct http_parked *parked, http_resume_fn fn, void *arg)
{
    if (!take(parked)) {
        return false;
    }
    parked->is_at_hand = true;
    answer(parked, fn, arg);
    return true;
}

void http_park_start(struct http_connection *connection)
{
    struct http_loop *home = connection->home;
    struct http_parked *parked = &connection->parked;
    http_exchange_drop_job(connection);
    connection->phase = HTTP_PHASE_PARKED;
    stats_gauge_add(home->server->config.stats, STAT_http_parked, 1);
    if (parked->unparked) {
        resume_if_quiet(connection);
        return;
    }
    watch_hangup(connection);
    bool at_once = home->draining || connection->hung_up;
    http_wheel_set(&home->wheel, &connection->deadline,
                   at_once ? 0 : loop_mono_ms(home->loop) + parked->timeout_ms);
}

static void on_expired_done(void *arg)
{
    struct http_connection *connection = arg;
    atomic_fetch_sub(&connection->home->server->running, 1);
    connection->parked.expiring = false;
    resume_if_quiet(connection);
}

static void run_expired(void *arg)
{
    struct http_connection *connection = arg;
    struct http_parked *parked = &connection->parked;
    parked->expired(parked->expired_arg);
    parked->expired_task = (struct loop_task){.fn = on_expired_done, .arg = connection};
    loop_post(connection->home->loop, &parked->expired_task);
}

void http_park_expire(struct http_connection *connection)
{
    struct http_parked *parked = &connection->parked;
    if (parked->unparked) { /* an answer that found the worker queue full */
        resume_if_quiet(connection);
        return;
    }
    if (parked->expiry_started) {
        return;
    }
    parked->expiring = true;
    parked->expiry_started = true;
    if (!http_exchange_submit(connection, 0, run_expired)) {
        parked->expiring = false;
        parked->expiry_started = false;
        retry_later(connection);
    }
}

static void on_hangups(void *arg, unsigned events)
{
    struct http_loop *home = arg;
    struct epoll_event seen[HANGUPS_AT_ONCE];
    int count = epoll_wait(home->hangup_fd, seen, HANGUPS_AT_ONCE, 0);
    (void)events;
    for (int i = 0; i < count; i++) {
        struct http_connection *connection = seen[i].data.ptr;
        connection->hung_up = true;
        if (connection->phase == HTTP_PHASE_PARKED) {
            http_park_expire(connection);
        }
    }
}

struct err http_park_init(struct http_loop *home)
{
    home->hangup_fd = epoll_create1(EPOLL_CLOEXEC);
    if (home->hangup_fd < 0) {
        return err_make(ERR_IO, "epoll_create1 failed: too many open files?");
    }
    home->hangup_watch = loop_watch_new(home->loop, home->hangup_fd, on_hangups, home);
    loop_watch_set(home->hangup_watch, LOOP_READ);
    return OK;
}

void http_park_deinit(struct http_loop *home)
{
    loop_watch_free(&home->hangup_watch);
    if (home->hangup_fd >= 0) {
        close(home->hangup_fd);
        home->hangup_fd = -1;
    }
}
