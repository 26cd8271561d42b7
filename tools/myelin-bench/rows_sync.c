/* First syncs of many users at once, and syncs with nothing new. */
#include "homeserver/base/mem.h"
#include "homeserver/base/now.h"
#include "tools/myelin-bench/rows.h"

enum { IDLE_ROOMS = 50, IDLE_ROOMS_MANY = 2000, IDLE_SYNCS = 2000, IDLE_SYNCS_PEER = 200 };

static const char FIRST_SYNC[] =
    "/_matrix/client/v3/sync?timeout=0&filter=%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A"
    "20%7D%2C%22state%22%3A%7B%22lazy_load_members%22%3Atrue%7D%7D%7D";

struct first_sync {
    struct wire_conn *conn;
    size_t *left;
    size_t *failed;
    int64_t done_us;
    uint64_t bytes;
};

static void first_sync_done(void *arg, const struct wire_reply *reply)
{
    struct first_sync *sync = arg;
    sync->done_us = reply->done_us;
    sync->bytes = reply->body.len;
    *sync->failed += reply->status != 200;
    --*sync->left;
}

/* Users 0..members of each room; all are in all rooms. */
static struct err fill_rooms(struct row_run *run)
{
    const struct row_options *options = run->options;
    struct target *target = run->target;
    size_t members = options->sync_members;
    TRY(target_need_users(target, members > options->sync_users ? members : options->sync_users));
    size_t *owners = arena_array(target->arena, options->sync_rooms, sizeof *owners);
    struct slice *rooms = arena_array(target->arena, options->sync_rooms, sizeof *rooms);
    struct target_join *joins = arena_array(target->arena, members, sizeof *joins);
    TRY(target_make_rooms(target, owners, options->sync_rooms, rooms));
    for (size_t room = 0; room < options->sync_rooms; room++) {
        size_t count = 0;
        for (size_t user = 1; user < members; user++) {
            joins[count++] = (struct target_join){.user = user, .room = rooms[room]};
        }
        TRY(target_join_all(target, joins, count));
        TRY(target_send_messages(target, room % members, rooms[room], options->sync_events));
    }
    return OK;
}

static struct err sync_at_once(struct row_run *run, int64_t *us_out, uint64_t *bytes_out)
{
    struct target *target = run->target;
    size_t users = run->options->sync_users, left = users, failed = 0;
    struct first_sync *syncs = arena_array(target->arena, users, sizeof *syncs);
    int64_t began_us = now_mono_us(), last_us = began_us;
    for (size_t i = 0; i < users; i++) {
        struct wire_request request = {
            .method = LIT("GET"), .path = slice_of(FIRST_SYNC), .token = target->users[i].token};
        syncs[i] = (struct first_sync){wire_open(target->wire), &left, &failed, 0, 0};
        wire_send(syncs[i].conn, &request, first_sync_done, &syncs[i]);
    }
    while (left > 0 && now_mono_us() - began_us < INT64_C(600000000)) {
        wire_poll(target->wire, now_mono_us() + 1000000);
    }
    *bytes_out = 0;
    for (size_t i = 0; i < users; i++) {
        last_us = syncs[i].done_us > last_us ? syncs[i].done_us : last_us;
        *bytes_out += syncs[i].bytes;
        wire_close(&syncs[i].conn);
    }
    *us_out = last_us - began_us;
    return left + failed > 0
               ? err_publicf(target->arena, ERR_IO, "%zu first syncs failed, %zu were not answered",
                             failed, left)
               : OK;
}

struct err row_initial_sync(struct row_run *run)
{
    const struct row_options *options = run->options;
    struct arena *arena = run->target->arena;
    TRY(fill_rooms(run));
    int64_t cpu_us = target_cpu_us(run->target), us = 0;
    uint64_t bytes = 0;
    TRY(sync_at_once(run, &us, &bytes));
    cpu_us = target_cpu_us(run->target) - cpu_us;
    const char *what = arena_cstr(
        arena, arena_printf(arena, "%zu first syncs at once, %zu rooms x %zu", options->sync_users,
                            options->sync_rooms, options->sync_members));
    bool usual = options->sync_users == 20 && options->sync_rooms == 50;
    const char *note =
        arena_cstr(arena, arena_printf(arena, "%.0f KB each",
                                       (double)bytes / 1000 / (double)options->sync_users));
    report_add(run->report, (struct report_figure){"initial-sync", what, "s", (double)us / 1e6,
                                                   0.05, usual ? REPORT_LOWER : REPORT_FACT, note});
    if (run->target->pid > 0) {
        report_add(run->report,
                   (struct report_figure){"initial-sync", "server CPU of each", "ms",
                                          (double)cpu_us / 1000 / (double)options->sync_users, 3,
                                          usual ? REPORT_LOWER : REPORT_FACT, NULL});
    }
    return OK;
}

/* A user of their own, in `room_count` rooms, syncs again and again with nothing new. */
static struct err sync_idle_in(struct row_run *run, size_t room_count)
{
    struct target *target = run->target;
    size_t user = target->user_count;
    TRY(target_need_users(target, user + 1));
    size_t *owners = arena_array(target->arena, room_count, sizeof *owners);
    struct slice *rooms = arena_array(target->arena, room_count, sizeof *rooms);
    for (size_t i = 0; i < room_count; i++) {
        owners[i] = user;
    }
    TRY(target_make_rooms(target, owners, room_count, rooms));
    struct slice since;
    TRY(target_sync_token(target, user, &since));
    size_t count = target->is_peer ? IDLE_SYNCS_PEER : IDLE_SYNCS;
    struct target_call *calls = arena_array(target->arena, count, sizeof *calls);
    for (size_t i = 0; i < count; i++) {
        calls[i].request = (struct wire_request){
            .method = LIT("GET"),
            .path = arena_printf(target->arena, "/_matrix/client/v3/sync?timeout=0&since=%.*s",
                                 (int)since.len, since.ptr),
            .token = target->users[user].token,
        };
    }
    target_settle(target);
    int64_t cpu_us = target_cpu_us(target), began_us = now_mono_us();
    TRY(target_calls(target, calls, count, 1));
    cpu_us = target_cpu_us(target) - cpu_us;
    struct slice what = arena_printf(target->arena, "sync with nothing new, %zu rooms", room_count);
    bool known = target->pid > 0;
    double us = (double)(known ? cpu_us : now_mono_us() - began_us);
    report_add(run->report, (struct report_figure){"sync-idle", arena_cstr(target->arena, what),
                                                   "ms", us / 1000 / (double)count, 0.04,
                                                   known ? REPORT_LOWER : REPORT_FACT,
                                                   known ? "server CPU" : "time to the answer"});
    return OK;
}

struct err row_sync_idle(struct row_run *run)
{
    TRY(sync_idle_in(run, IDLE_ROOMS));
    if (run->target->is_peer && run->options->size != ROW_FULL) {
        return OK;
    }
    return sync_idle_in(run, IDLE_ROOMS_MANY);
}
