/* Memory of clients that wait and hear nothing: parked long polls and idle streams. */
#include "homeserver/base/mem.h"
#include "homeserver/base/now.h"
#include "tools/myelin-bench/listen.h"
#include "tools/myelin-bench/probe.h"
#include "tools/myelin-bench/rows.h"

enum { USERS = 100, DESCRIPTORS_SPARE = 1200, PEER_CONNECTIONS = 1000, STEP = 500 };

static void ignore(void *arg, struct slice json)
{
    (void)arg;
    (void)json;
}

static size_t connection_count(const struct row_run *run)
{
    size_t most = probe_descriptors_max() - DESCRIPTORS_SPARE;
    size_t wanted = run->options->connections;
    if (run->target->is_peer && (wanted == 0 || wanted > PEER_CONNECTIONS)) {
        wanted = PEER_CONNECTIONS;
    }
    return wanted == 0 || wanted > most ? most : wanted;
}

static void rest(struct target *target, int64_t us)
{
    for (int64_t end_us = now_mono_us() + us; now_mono_us() < end_us;) {
        wire_poll(target->wire, end_us);
    }
}

static struct err park(struct target *target, struct listener *listeners, size_t count,
                       const struct slice *tokens)
{
    for (size_t from = 0; from < count; from += STEP) {
        size_t to = from + STEP < count ? from + STEP : count;
        for (size_t i = from; i < to; i++) {
            listen_start(&listeners[i], tokens[listeners[i].user]);
        }
        TRY(listen_wait_ready(target, listeners + from, to - from));
    }
    rest(target, 2000000);
    return OK;
}

static struct err idle(struct row_run *run, enum listen_mode mode, struct report_figure figure)
{
    struct target *target = run->target;
    size_t count = connection_count(run);
    int64_t ms = 0;
    TRY(target_need_users(target, USERS));
    if (target
            ->start_command) { /* memory that other rows left free would hide what this one takes */
        target_stop(target);
        TRY(target_start(target, &ms));
    }
    struct listener *listeners = mem_alloc(count * sizeof *listeners);
    struct slice *tokens = arena_array(target->arena, USERS, sizeof *tokens);
    for (size_t i = 0; i < count; i++) {
        listeners[i] = (struct listener){
            .target = target, .user = i % USERS, .mode = mode, .fn = ignore, .arg = NULL};
    }
    struct err err = listen_tokens(target, listeners, USERS < count ? USERS : count, tokens);
    int64_t before = probe_memory_bytes(target->pid);
    if (err.code == 0) {
        err = park(target, listeners, count, tokens);
    }
    int64_t each = (probe_memory_bytes(target->pid) - before) / (int64_t)count;
    for (size_t i = 0; i < count; i++) {
        listen_stop(&listeners[i]);
    }
    mem_free(listeners);
    rest(target, 1000000);
    TRY(err);
    figure.value = (double)each;
    figure.note = arena_cstr(target->arena,
                             arena_printf(target->arena,
                                          "%zu connections of %d users; 100,000 would take %.0f MB",
                                          count, USERS, (double)each * 0.1));
    report_add(run->report, figure);
    return OK;
}

struct err row_idle_poll(struct row_run *run)
{
    if (run->target->pid == 0) {
        return OK;
    }
    return idle(run, LISTEN_POLL,
                (struct report_figure){.row = "idle-poll",
                                       .what = "memory of an idle long-poll client",
                                       .unit = "B",
                                       .goal = 9000,
                                       .better = REPORT_LOWER});
}

struct err row_idle_stream(struct row_run *run)
{
    if (run->target->pid == 0 || run->target->is_peer) {
        return OK;
    }
    return idle(run, LISTEN_STREAM,
                (struct report_figure){.row = "idle-stream",
                                       .what = "memory of an idle stream client",
                                       .unit = "B",
                                       .goal = 1000,
                                       .better = REPORT_LOWER});
}
