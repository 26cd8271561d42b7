/* Joining a room of 50,000 members over federation: when it can be used, when its state is whole,
 * and how much memory the joiner takes meanwhile. */
#include "homeserver/base/now.h"
#include "tools/myelin-bench/probe.h"
#include "tools/myelin-bench/rows.h"

#include <string.h>
#include <time.h>

enum {
    MEMBERS = 50000,
    PEER_MEMBERS = 1000,
    MESSAGES = 30,
    SAMPLE_US = 50000,
    WHOLE_TIMEOUT_US = 600000000,
};

struct entry {
    struct target *home, *joiner;
    size_t members;
    struct slice room; /* encoded */
    int64_t began_us, joined_us, usable_us, whole_us;
    int64_t memory_before, memory_peak, cpu_us;
};

struct waiting {
    bool done;
    int status;
    struct slice body;
    struct arena *arena;
};

static void answered(void *arg, const struct wire_reply *reply)
{
    struct waiting *waiting = arg;
    waiting->done = true;
    waiting->status = reply->status;
    waiting->body = arena_copy(waiting->arena, reply->body);
}

/* A request during which the joiner's memory is watched. `body_out` may hold an error's JSON. */
static int watched_call(struct entry *entry, const struct wire_request *request,
                        struct arena *arena, struct slice *body_out)
{
    struct waiting waiting = {.arena = arena};
    struct wire_conn *conn = wire_open(entry->joiner->wire);
    wire_send(conn, request, answered, &waiting);
    while (!waiting.done) {
        wire_poll(entry->joiner->wire, now_mono_us() + SAMPLE_US);
        if (entry->joiner->pid > 0) {
            int64_t bytes = probe_memory_bytes(entry->joiner->pid);
            entry->memory_peak = bytes > entry->memory_peak ? bytes : entry->memory_peak;
        }
    }
    wire_close(&conn);
    *body_out = waiting.body;
    return waiting.status;
}

static struct err make_room(struct entry *entry)
{
    struct target *home = entry->home;
    struct slice id;
    TRY(target_need_users(home, entry->members));
    TRY(target_need_users(entry->joiner, 1));
    TRY(target_make_rooms(home, &(size_t){0}, 1, &id));
    entry->room = target_encode(home->arena, id);
    struct target_join *joins = arena_array(home->arena, entry->members, sizeof *joins);
    for (size_t i = 1; i < entry->members; i++) {
        joins[i - 1] = (struct target_join){.user = i, .room = id};
    }
    TRY(target_join_all(home, joins, entry->members - 1));
    return target_send_messages(home, 0, id, MESSAGES);
}

static struct err join(struct entry *entry, struct arena *arena)
{
    struct slice via = target_encode(arena, target_server_name(entry->home)), body;
    struct wire_request request = {
        .method = LIT("POST"),
        .path = arena_printf(arena, "/_matrix/client/v3/join/%.*s?server_name=%.*s&via=%.*s",
                             (int)entry->room.len, entry->room.ptr, (int)via.len, via.ptr,
                             (int)via.len, via.ptr),
        .token = entry->joiner->users[0].token,
        .body = LIT("{}"),
    };
    entry->began_us = now_mono_us();
    int status = watched_call(entry, &request, arena, &body);
    entry->joined_us = now_mono_us();
    return status == 200 ? OK
                         : err_publicf(entry->home->arena, ERR_IO, "the join ended with %d: %.*s",
                                       status, (int)body.len, body.ptr);
}

static void rest(int64_t us)
{
    struct timespec pause = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&pause, NULL);
}

/* Whether the answer of a sync shows the room with an event in its timeline. */
static bool shows_room(struct arena *arena, struct slice body, struct slice room)
{
    struct json json;
    if (json_parse(arena, body, &json).code != 0) {
        return false;
    }
    const struct json *rooms = json_get_object(json_get_object(&json, LIT("rooms")), LIT("join"));
    for (uint32_t i = 0; rooms && i < rooms->count; i++) {
        const struct json *timeline = json_get_object(&rooms->members[i].value, LIT("timeline"));
        const struct json *events = json_get_array(timeline, LIT("events"));
        if (slice_eq(target_encode(arena, rooms->members[i].key), room)) {
            return events && events->count > 0;
        }
    }
    return false;
}

/* Of a client with lazy members. */
static struct wire_request lazy_sync(const struct entry *entry)
{
    return (struct wire_request){
        .method = LIT("GET"),
        .path = LIT("/_matrix/client/v3/sync?timeout=0&filter=%7B%22room%22%3A%7B%22state%22%3A%7B"
                    "%22lazy_load_members%22%3Atrue%7D%7D%7D"),
        .token = entry->joiner->users[0].token,
    };
}

static struct err await_usable(struct entry *entry, struct arena *arena)
{
    struct wire_request request = lazy_sync(entry);
    while (now_mono_us() - entry->began_us < WHOLE_TIMEOUT_US) {
        struct slice body;
        int status = watched_call(entry, &request, arena, &body);
        entry->usable_us = now_mono_us();
        if (status == 200 && shows_room(arena, body, entry->room)) {
            return OK;
        }
        rest(SAMPLE_US);
    }
    return err_public(ERR_TIMEOUT, "the room did not come with the sync");
}

/* The number of members in the summary of the largest room. */
static size_t count_members(struct slice body)
{
    static const char name[] = "\"m.joined_member_count\":";
    const char *end = body.ptr + body.len;
    const char *at = body.ptr;
    size_t largest = 0;
    while ((at = memmem(at, (size_t)(end - at), name, sizeof name - 1)) != NULL) {
        size_t count = 0;
        for (at += sizeof name - 1; at < end && *at >= '0' && *at <= '9'; at++) {
            count = count * 10 + (size_t)(*at - '0');
        }
        largest = count > largest ? count : largest;
    }
    return largest;
}

/* By the summary that a client with lazy members gets: an answer with all members in it takes
 * memory of its own. */
static struct err await_whole(struct entry *entry)
{
    struct arena *arena = arena_new();
    size_t count = 0;
    bool whole = false;
    while (!whole && now_mono_us() - entry->began_us < WHOLE_TIMEOUT_US) {
        struct wire_request request = lazy_sync(entry);
        struct slice body;
        int status = watched_call(entry, &request, arena, &body);
        entry->whole_us = now_mono_us();
        count = status == 200 ? count_members(body) : count;
        whole = count >= entry->members + 1;
        arena_reset(arena);
        rest(whole ? 0 : SAMPLE_US * 2);
    }
    arena_free(&arena);
    return whole ? OK
                 : err_publicf(entry->home->arena, ERR_TIMEOUT, "%zu of %zu members arrived", count,
                               entry->members + 1);
}

static struct err enter(struct entry *entry)
{
    TRY(make_room(entry));
    entry->cpu_us = target_cpu_us(entry->joiner);
    entry->memory_before = entry->joiner->pid > 0 ? probe_memory_bytes(entry->joiner->pid) : 0;
    struct arena *arena = arena_new();
    struct err err = join(entry, arena);
    if (err.code == 0) {
        err = await_usable(entry, arena);
    }
    arena_free(&arena);
    TRY(err);
    TRY(await_whole(entry));
    entry->cpu_us = target_cpu_us(entry->joiner) - entry->cpu_us;
    return OK;
}

static void report(struct row_run *run, const struct entry *entry)
{
    struct arena *arena = run->target->arena;
    const char *row = "fed-join-large";
    struct slice note =
        arena_printf(arena, "%zu members; the join was answered after %.2f s", entry->members,
                     (double)(entry->joined_us - entry->began_us) / 1e6);
    report_add(run->report,
               (struct report_figure){row, "join and first timeline", "s",
                                      (double)(entry->usable_us - entry->began_us) / 1e6, 2,
                                      REPORT_LOWER, arena_cstr(arena, note)});
    report_add(run->report,
               (struct report_figure){row, "whole state", "s",
                                      (double)(entry->whole_us - entry->began_us) / 1e6, 60,
                                      REPORT_LOWER, NULL});
    if (entry->joiner->pid == 0) {
        return;
    }
    note = arena_printf(arena, "before: %.0f MB", (double)entry->memory_before / 1e6);
    report_add(run->report, (struct report_figure){row, "memory of the joiner, highest", "MB",
                                                   (double)entry->memory_peak / 1e6, 0, REPORT_FACT,
                                                   arena_cstr(arena, note)});
    report_add(run->report,
               (struct report_figure){row, "CPU of the joiner", "s", (double)entry->cpu_us / 1e6, 0,
                                      REPORT_FACT, NULL});
}

struct err row_fed_join_large(struct row_run *run)
{
    size_t usual = run->target->is_peer && run->options->size != ROW_FULL ? PEER_MEMBERS : MEMBERS;
    bool chosen = run->options->members > 0 && !run->target->is_peer;
    struct entry entry = {
        .home = run->target,
        .joiner = run->target->beside,
        .members = chosen ? run->options->members : usual,
    };
    TRY(enter(&entry));
    report(run, &entry);
    return OK;
}
