/* Server CPU of registration, room creation and joins; memory and start before and after the load.
 */
#include "homeserver/base/now.h"
#include "tools/myelin-bench/probe.h"
#include "tools/myelin-bench/rows.h"

#include <time.h>

enum { COUNT = 400, COUNT_PEER = 40, MILLION = 1000000, CHUNK = 20000 };

static size_t repetitions(const struct row_run *run)
{
    return run->target->is_peer ? COUNT_PEER : COUNT;
}

static void report_cost(struct row_run *run, const char *what, int64_t cpu_us, double goal)
{
    report_add(run->report, (struct report_figure){"costs", what, "ms",
                                                   (double)cpu_us / 1000 / (double)repetitions(run),
                                                   goal, REPORT_LOWER, NULL});
}

/* What the password hash costs: a login with a wrong password computes it and little else. */
static struct err failed_logins(struct row_run *run, int64_t *cpu_us_out)
{
    struct target *target = run->target;
    size_t count = repetitions(run);
    int64_t cpu_us = target_cpu_us(target);
    for (size_t i = 0; i < count; i++) {
        struct slice id = target->users[i].id;
        struct target_call call = {
            .request = {.method = LIT("POST"),
                        .path = LIT("/_matrix/client/v3/login"),
                        .body = arena_printf(target->arena,
                                             "{\"type\":\"m.login.password\",\"identifier\":{"
                                             "\"type\":\"m.id.user\",\"user\":\"%.*s\"},"
                                             "\"password\":\"wrong-password\"}",
                                             (int)id.len, id.ptr)}};
        struct err err = target_calls(target, &call, 1, 1);
        if (call.status != 403) {
            return err.code != 0 ? err : err_public(ERR_INTERNAL, "a wrong password was accepted");
        }
    }
    *cpu_us_out = target_cpu_us(target) - cpu_us;
    return OK;
}

struct err row_costs(struct row_run *run)
{
    struct target *target = run->target;
    if (target->pid == 0) {
        return OK;
    }
    size_t count = repetitions(run), first = target->user_count;
    int64_t cpu_us = target_cpu_us(target), hash_us = 0;
    TRY(target_need_users(target, first + count));
    cpu_us = target_cpu_us(target) - cpu_us;
    TRY(failed_logins(run, &hash_us));
    report_cost(run, "server CPU: registration less the hash", cpu_us - hash_us, 0.5);

    size_t *owners = arena_array(target->arena, count, sizeof *owners);
    struct slice *rooms = arena_array(target->arena, count, sizeof *rooms);
    struct target_join *joins = arena_array(target->arena, count, sizeof *joins);
    for (size_t i = 0; i < count; i++) {
        owners[i] = first + i;
    }
    cpu_us = target_cpu_us(target);
    TRY(target_make_rooms(target, owners, count, rooms));
    report_cost(run, "server CPU: room creation", target_cpu_us(target) - cpu_us, 1);
    for (size_t i = 0; i < count; i++) {
        joins[i] = (struct target_join){.user = first + (i + 1) % count, .room = rooms[i]};
    }
    cpu_us = target_cpu_us(target);
    TRY(target_join_all(target, joins, count));
    report_cost(run, "server CPU: join", target_cpu_us(target) - cpu_us, 0.5);
    return OK;
}

static void report_memory(struct row_run *run, const char *row, const char *what, double goal)
{
    report_add(run->report, (struct report_figure){
                                row, what, "MB", (double)probe_memory_bytes(run->target->pid) / 1e6,
                                goal, REPORT_LOWER, "proportional set size"});
}

struct err row_fresh(struct row_run *run)
{
    struct target *target = run->target;
    if (target->started_ms >= 0) {
        report_add(run->report, (struct report_figure){"fresh", "start to first answer, fresh", "s",
                                                       (double)target->started_ms / 1000, 0.03,
                                                       REPORT_LOWER, NULL});
    }
    if (target->pid > 0) {
        nanosleep(&(struct timespec){1, 0}, NULL);
        report_memory(run, "fresh", "memory of a fresh server", 15);
    }
    return OK;
}

/* Stops and starts the server and reports how long its first answer took. */
static struct err restart(struct row_run *run, struct report_figure figure)
{
    int64_t ms = 0;
    target_stop(run->target);
    TRY(target_start(run->target, &ms));
    figure.value = (double)ms / 1000;
    report_add(run->report, figure);
    return OK;
}

struct err row_loaded(struct row_run *run)
{
    if (run->target->pid > 0) {
        report_memory(run, "loaded", "memory after the load of this run", 60);
    }
    if (!run->target->start_command) {
        return OK;
    }
    return restart(run, (struct report_figure){.row = "loaded",
                                               .what = "start to first answer, with its data",
                                               .unit = "s",
                                               .goal = 0.05,
                                               .better = REPORT_LOWER});
}

struct err row_million(struct row_run *run)
{
    struct target *target = run->target;
    if (!target->start_command || target->is_peer) {
        return OK;
    }
    TRY(target_need_users(target, 8));
    struct slice room;
    TRY(target_make_rooms(target, &(size_t){0}, 1, &room));
    struct arena *kept = target->arena;
    struct err err = OK;
    for (size_t sent = 0; sent < MILLION && err.code == 0; sent += CHUNK) {
        target->arena = arena_new(); /* the replies of a chunk are not kept */
        err = target_send_messages(target, 0, room, CHUNK);
        if (err.code != 0) {
            err.text = arena_cstr(kept, slice_of(err.text));
        }
        arena_free(&target->arena);
    }
    target->arena = kept;
    TRY(err);
    return restart(run, (struct report_figure){.row = "million",
                                               .what = "start with 1,000,000 events stored",
                                               .unit = "s",
                                               .goal = 0.5,
                                               .better = REPORT_LOWER});
}
