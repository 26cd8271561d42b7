#include "homeserver/media/media_sandbox.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { HELPERS_MAX = 16, WAITING_MAX = 48, WANTING_MAX = 16, JOBS_MAX = 500, SOCKET_FD = 3 };
/* Until a helper is free. */
enum { PATIENCE_MS = 20000 };

struct helper {
    pid_t pid; /* 0 = not started */
    int fd;
    int jobs;
    bool busy;
};

struct media_sandbox {
    struct hs *hs;
    char path[1024];      /* of the program; empty = there is none */
    pthread_mutex_t lock; /* a leaf; held while a helper is killed, so that its pid is its own */
    pthread_cond_t changed;
    struct helper helpers[HELPERS_MAX];
    size_t helper_count, waiting;
    struct map *running; /* what is being made -> those who want it */
    _Atomic bool stopping;
};

/* --- life --- */

/* The setting, or the program beside this one. */
static void find_program(struct media_sandbox *sandbox)
{
    static const char name[] = "myelin-media";
    struct slice set = sandbox->hs->conf->media_helper;
    size_t max = sizeof sandbox->path;
    if (set.len) {
        memcpy(sandbox->path, set.ptr, set.len < max ? set.len : max - 1);
    } else {
        ssize_t len = readlink("/proc/self/exe", sandbox->path, max - sizeof name);
        struct slice self = {sandbox->path, len > 0 ? (size_t)len : 0};
        size_t slash = slice_find_last(self, '/');
        memcpy(sandbox->path + (slash < self.len ? slash + 1 : 0), name, sizeof name);
    }
    if (access(sandbox->path, X_OK) != 0) {
        log_warn(sandbox->hs->log, "media_helper_missing", .note = slice_of(sandbox->path));
        sandbox->path[0] = '\0';
    }
}

struct media_sandbox *media_sandbox_new(struct hs *hs)
{
    struct media_sandbox *sandbox = mem_alloc(sizeof *sandbox);
    pthread_condattr_t attributes;
    sandbox->hs = hs;
    pthread_mutex_init(&sandbox->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&sandbox->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    sandbox->helper_count = (size_t)hs->conf->media_helpers;
    sandbox->running = map_new();
    find_program(sandbox);
    return sandbox;
}

/* With the lock held. */
static void end_helper(struct helper *helper)
{
    if (helper->pid) {
        kill(helper->pid, SIGKILL);
        waitpid(helper->pid, NULL, 0);
        close(helper->fd);
        helper->pid = 0;
        helper->jobs = 0;
    }
}

void media_sandbox_stop(struct media_sandbox *sandbox)
{
    pthread_mutex_lock(&sandbox->lock);
    sandbox->stopping = true;
    for (size_t i = 0; i < sandbox->helper_count; i++) {
        if (sandbox->helpers[i].pid) { /* its thread sees the end of its socket, and buries it */
            kill(sandbox->helpers[i].pid, SIGKILL);
        }
    }
    pthread_cond_broadcast(&sandbox->changed);
    pthread_mutex_unlock(&sandbox->lock);
}

void media_sandbox_free(struct media_sandbox **pointer)
{
    struct media_sandbox *sandbox = *pointer;
    if (!sandbox) {
        return;
    }
    for (size_t i = 0; i < sandbox->helper_count; i++) {
        end_helper(&sandbox->helpers[i]);
    }
    map_free(&sandbox->running);
    pthread_cond_destroy(&sandbox->changed);
    pthread_mutex_destroy(&sandbox->lock);
    mem_free(sandbox);
    *pointer = NULL;
}

bool media_sandbox_is_there(const struct media_sandbox *sandbox)
{
    return sandbox && sandbox->path[0];
}

/* --- starting helpers --- */

/* Nothing of the server goes along but the standard error output: no descriptors, no environment.
 * libvips is told to load no modules, which read more formats, and to use no files. */
static int spawn(const char *path, int fd, pid_t *pid_out)
{
    char *const arguments[] = {(char *)(uintptr_t) "myelin-media", (char *)(uintptr_t) "--serve",
                               NULL};
    char *const environment[] = {(char *)(uintptr_t) "LC_ALL=C.UTF-8",
                                 (char *)(uintptr_t) "VIPSHOME=/nonexistent",
                                 (char *)(uintptr_t) "VIPS_DISC_THRESHOLD=100g", NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fd, SOCKET_FD);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", 0, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", 1, 0);
    posix_spawn_file_actions_addclosefrom_np(&actions, SOCKET_FD + 1);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int failed = posix_spawn(pid_out, path, &actions, &attributes, arguments, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return failed;
}

/* With the helper taken. */
static struct err start_helper(struct media_sandbox *sandbox, struct helper *helper)
{
    int pair[2];
    pid_t pid = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        return err_make(ERR_UNAVAILABLE, "no socket for a media helper");
    }
    int failed = spawn(sandbox->path, pair[1], &pid);
    close(pair[1]);
    if (failed) {
        close(pair[0]);
        return err_make(ERR_UNAVAILABLE, "a media helper cannot be started");
    }
    pthread_mutex_lock(&sandbox->lock);
    helper->pid = pid;
    helper->fd = pair[0];
    helper->jobs = 0;
    if (sandbox->stopping) {
        kill(pid, SIGKILL);
    }
    pthread_mutex_unlock(&sandbox->lock);
    return OK;
}

/* --- one job --- */

struct exchange {
    struct ctx *ctx;
    int fd;
    int64_t until_ms; /* the machine's monotonic clock: a helper does not live by tests' clocks */
};

static int64_t machine_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct err send_job(const struct exchange *exchange, const struct media_job *job,
                           int input_fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    char record[MEDIA_JOB_BYTES];
    struct iovec from = {record, sizeof record};
    struct msghdr message = {.msg_iov = &from,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    media_job_encode(job, record);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &input_fd, sizeof(int));
    ssize_t sent = sendmsg(exchange->fd, &message, MSG_NOSIGNAL);
    return sent == (ssize_t)sizeof record ? OK : err_make(ERR_IO, "the helper is gone");
}

static struct err receive(const struct exchange *exchange, char *to, size_t len)
{
    while (len) {
        int64_t left_ms = exchange->until_ms - machine_ms();
        struct pollfd readable = {.fd = exchange->fd, .events = POLLIN};
        int ready = left_ms > 0 ? poll(&readable, 1, (int)left_ms) : 0;
        if (ready == 0) {
            return err_make(ERR_TIMEOUT, "the job took too long");
        }
        ssize_t got = ready > 0 ? recv(exchange->fd, to, len, 0) : -1;
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return err_make(ERR_IO, "the helper died");
        }
        to += got > 0 ? got : 0;
        len -= got > 0 ? (size_t)got : 0;
    }
    return OK;
}

static struct err exchange_job(const struct exchange *exchange, const struct media_job *job,
                               int input_fd, struct media_reply *reply_out)
{
    char record[MEDIA_REPLY_BYTES];
    size_t len = 0;
    TRY(send_job(exchange, job, input_fd));
    TRY(receive(exchange, record, sizeof record));
    TRY(media_reply_decode((struct slice){record, sizeof record}, reply_out, &len));
    if (len) {
        char *bytes = arena_alloc(exchange->ctx->arena, len);
        reply_out->bytes = (struct slice){bytes, len};
        TRY(receive(exchange, bytes, len));
    }
    return OK;
}

/* --- taking turns --- */

static struct helper *find_idle(struct media_sandbox *sandbox)
{
    struct helper *found = NULL;
    for (size_t i = 0; i < sandbox->helper_count; i++) {
        struct helper *helper = &sandbox->helpers[i];
        if (!helper->busy && (!found || (helper->pid && !found->pid))) {
            found = helper;
        }
    }
    return found;
}

static struct err take_helper(struct media_sandbox *sandbox, struct helper **helper_out)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += PATIENCE_MS / 1000;
    struct err err = OK;
    pthread_mutex_lock(&sandbox->lock);
    bool too_many = sandbox->waiting == WAITING_MAX;
    sandbox->waiting++;
    *helper_out = too_many ? NULL : find_idle(sandbox);
    int waited = too_many ? ETIMEDOUT : 0;
    while (!*helper_out && !waited && !sandbox->stopping) {
        waited = pthread_cond_timedwait(&sandbox->changed, &sandbox->lock, &until);
        *helper_out = find_idle(sandbox);
    }
    sandbox->waiting--;
    if (sandbox->stopping) {
        err = err_make(ERR_CANCELLED, "the server stops");
    } else if (!*helper_out) {
        err = err_make(ERR_UNAVAILABLE, "many media jobs wait already");
    } else {
        (*helper_out)->busy = true;
    }
    pthread_mutex_unlock(&sandbox->lock);
    return err;
}

static void give_back(struct media_sandbox *sandbox, struct helper *helper, struct err err)
{
    pthread_mutex_lock(&sandbox->lock);
    helper->jobs++;
    if (err.code || helper->jobs >= JOBS_MAX) {
        end_helper(helper);
    }
    helper->busy = false;
    pthread_cond_broadcast(&sandbox->changed);
    pthread_mutex_unlock(&sandbox->lock);
}

/* One try. died_out: the helper, if there was one, did not answer. */
static struct err try_job(struct media_sandbox *sandbox, struct exchange *exchange,
                          const struct media_job *job, int input_fd, struct media_reply *reply_out)
{
    struct helper *helper = NULL;
    TRY(take_helper(sandbox, &helper));
    bool was_there = helper->pid != 0;
    struct err err = was_there ? OK : start_helper(sandbox, helper);
    if (!err.code) {
        exchange->fd = helper->fd;
        exchange->until_ms = machine_ms() + sandbox->hs->conf->media_helper_timeout;
        err = exchange_job(exchange, job, input_fd, reply_out);
    }
    give_back(sandbox, helper, err);
    return err.code == ERR_IO && was_there ? err_make(ERR_CONFLICT, err.text) : err;
}

struct err media_sandbox_run(struct media_sandbox *sandbox, struct ctx *ctx,
                             const struct media_job *job, int input_fd,
                             struct media_reply *reply_out)
{
    struct exchange exchange = {.ctx = ctx};
    ASSERT(ctx->may_wait);
    if (!media_sandbox_is_there(sandbox)) {
        return err_make(ERR_UNAVAILABLE, "there is no media helper");
    }
    struct err err = try_job(sandbox, &exchange, job, input_fd, reply_out);
    if (err.code == ERR_CONFLICT) { /* one that stood idle may have been dead before */
        err = try_job(sandbox, &exchange, job, input_fd, reply_out);
    }
    if (err.code && sandbox->stopping) {
        return err_make(ERR_CANCELLED, "the server stops");
    }
    if (err.code == ERR_IO || err.code == ERR_TIMEOUT || err.code == ERR_SYNTAX ||
        err.code == ERR_CONFLICT) {
        log_warn(sandbox->hs->log, "media_helper_failed", .err = slice_of(err.text));
        *reply_out = (struct media_reply){.result = MEDIA_RESULT_NONE};
        return OK;
    }
    return err;
}

/* --- the same thing once --- */

struct err media_sandbox_begin(struct media_sandbox *sandbox, struct slice what, bool *is_first_out)
{
    uint64_t wanting = 0;
    pthread_mutex_lock(&sandbox->lock);
    *is_first_out = !map_get(sandbox->running, what, &wanting);
    bool too_many = wanting == WANTING_MAX;
    if (!too_many) {
        map_set(sandbox->running, what, wanting + 1);
    }
    while (!*is_first_out && !too_many && map_get(sandbox->running, what, &wanting)) {
        pthread_cond_wait(&sandbox->changed, &sandbox->lock);
    }
    pthread_mutex_unlock(&sandbox->lock);
    return too_many ? err_make(ERR_UNAVAILABLE, "many wait for this already") : OK;
}

void media_sandbox_end(struct media_sandbox *sandbox, struct slice what)
{
    pthread_mutex_lock(&sandbox->lock);
    map_remove(sandbox->running, what);
    pthread_cond_broadcast(&sandbox->changed);
    pthread_mutex_unlock(&sandbox->lock);
}
