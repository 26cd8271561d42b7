/* Two servers that federate: many events from one to the other, and joining small rooms. */
#include "homeserver/base/mem.h"
#include "homeserver/base/now.h"
#include "tools/myelin-bench/listen.h"
#include "tools/myelin-bench/rows.h"

#include <stdio.h>
#include <string.h>

enum {
    BURST_ROOMS = 8,
    BURST_EVENTS = 20000,
    BURST_PEER_EVENTS = 400,
    BURST_CLIENTS_MAX = 256,
    QUIET_US = 10000000, /* nothing more arrives after so long */
    PAGE = 500,
    JOINS = 50,
    PEER_JOINS = 8,
};

static const char MARKER[] = "\"bench_number\":";
static const char FILTER[] = "%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A1000%7D%7D%7D";

/* --- many events --- */

struct burst {
    struct target *from, *to;
    struct slice rooms[BURST_ROOMS]; /* encoded */
    size_t total, sent, answered, failed;
    unsigned char *seen; /* by the sync of `to`, or found in its history afterwards */
    size_t seen_count;
    int64_t began_us, sent_us, last_us;
};

/* Marks what the text holds; returns how many were new. */
static size_t mark(struct burst *burst, struct slice json)
{
    const char *at = json.ptr, *end = json.ptr + json.len;
    size_t fresh = 0;
    while ((at = memmem(at, (size_t)(end - at), MARKER, sizeof MARKER - 1))) {
        size_t number = 0;
        at += sizeof MARKER - 1;
        while (at < end && (*at == ' ' || (*at >= '0' && *at <= '9'))) {
            number = *at == ' ' ? number : number * 10 + (size_t)(*at - '0');
            at++;
        }
        if (number < burst->total && !burst->seen[number]) {
            burst->seen[number] = 1;
            fresh++;
        }
    }
    burst->seen_count += fresh;
    return fresh;
}

static void heard(void *arg, struct slice json)
{
    struct burst *burst = arg;
    if (mark(burst, json) > 0) {
        burst->last_us = now_mono_us();
    }
}

struct burst_client {
    struct burst *burst;
    struct wire_conn *conn;
    size_t number;
};

static void send_next(struct burst_client *client);

static void answered(void *arg, const struct wire_reply *reply)
{
    struct burst_client *client = arg;
    client->burst->failed += reply->status != 200;
    client->burst->sent_us = now_mono_us();
    client->burst->answered++;
    send_next(client);
}

static void send_next(struct burst_client *client)
{
    struct burst *burst = client->burst;
    if (burst->sent >= burst->total) {
        return;
    }
    size_t number = burst->sent++;
    struct slice room = burst->rooms[client->number % BURST_ROOMS];
    char path[1024], body[256];
    int path_len =
        snprintf(path, sizeof path, "/_matrix/client/v3/rooms/%.*s/send/m.room.message/f%.*s-%llu",
                 (int)room.len, room.ptr, (int)burst->from->run.len, burst->from->run.ptr,
                 (unsigned long long)++burst->from->serial);
    int body_len = snprintf(body, sizeof body,
                            "{\"msgtype\":\"m.text\",\"body\":\"a message of usual length, as "
                            "people write them\",%s%zu}",
                            MARKER, number);
    struct wire_request request = {
        .method = LIT("PUT"),
        .path = {path, (size_t)path_len},
        .token = burst->from->users[client->number % BURST_ROOMS].token,
        .body = {body, (size_t)body_len},
    };
    wire_send(client->conn, &request, answered, client);
}

static struct err burst_stage(struct burst *burst)
{
    size_t owners[BURST_ROOMS];
    struct slice ids[BURST_ROOMS];
    struct target_join joins[BURST_ROOMS];
    TRY(target_need_users(burst->from, BURST_ROOMS));
    TRY(target_need_users(burst->to, 1));
    for (size_t i = 0; i < BURST_ROOMS; i++) {
        owners[i] = i;
    }
    TRY(target_make_rooms(burst->from, owners, BURST_ROOMS, ids));
    for (size_t i = 0; i < BURST_ROOMS; i++) {
        joins[i] = (struct target_join){0, ids[i], target_server_name(burst->from)};
        burst->rooms[i] = target_encode(burst->from->arena, ids[i]);
    }
    return target_join_all(burst->to, joins, BURST_ROOMS);
}

static void burst_run(struct burst *burst, size_t width)
{
    struct burst_client clients[BURST_CLIENTS_MAX];
    width = width > BURST_CLIENTS_MAX ? BURST_CLIENTS_MAX : width;
    burst->began_us = burst->last_us = burst->sent_us = now_mono_us();
    for (size_t i = 0; i < width; i++) {
        clients[i] = (struct burst_client){burst, wire_open(burst->from->wire), i};
        send_next(&clients[i]);
    }
    while (burst->answered < burst->total || burst->seen_count < burst->total) {
        int64_t now_us = now_mono_us();
        if (now_us - burst->last_us > QUIET_US && now_us - burst->sent_us > QUIET_US) {
            break;
        }
        wire_poll(burst->from->wire, now_us + 100000);
    }
    for (size_t i = 0; i < width; i++) {
        wire_close(&clients[i].conn);
    }
}

/* What a limited timeline left out of the sync is looked for in the room's history. */
static struct err burst_page(struct burst *burst, struct slice room)
{
    struct slice from = {0};
    for (size_t pages = 0; pages <= burst->total / PAGE + 2; pages++) {
        struct slice path =
            arena_printf(burst->to->arena, "/_matrix/client/v3/rooms/%.*s/messages?dir=b&limit=%d",
                         (int)room.len, room.ptr, PAGE);
        if (from.len > 0) {
            path = arena_printf(burst->to->arena, "%.*s&from=%.*s", (int)path.len, path.ptr,
                                (int)from.len, from.ptr);
        }
        struct target_call call = {
            .request = {.method = LIT("GET"), .path = path, .token = burst->to->users[0].token}};
        TRY(target_calls(burst->to, &call, 1, 1));
        mark(burst, call.reply);
        struct slice end = target_find(call.reply, LIT("end"));
        if (end.len == 0) {
            break;
        }
        from = target_encode(burst->to->arena, end);
    }
    return OK;
}

static void burst_report(struct row_run *run, const struct burst *burst, int64_t cpu_us)
{
    struct arena *arena = run->target->arena;
    double seconds = (double)(burst->last_us - burst->began_us) / 1e6;
    double sending_s = (double)(burst->sent_us - burst->began_us) / 1e6;
    struct slice note = arena_printf(arena, "%zu events in %d rooms; sent in %.1f s, all in %.1f s",
                                     burst->total, BURST_ROOMS, sending_s, seconds);
    report_add(run->report,
               (struct report_figure){"fed-burst", "events that reach the other's sync", "/s",
                                      (double)burst->seen_count / (seconds > 0 ? seconds : 1), 3000,
                                      REPORT_HIGHER, arena_cstr(arena, note)});
    report_add(run->report,
               (struct report_figure){"fed-burst", "share of the events that arrive", "%",
                                      100.0 * (double)burst->seen_count / (double)burst->total, 100,
                                      REPORT_HIGHER, NULL});
    if (cpu_us > 0) {
        report_add(run->report,
                   (struct report_figure){"fed-burst", "CPU of both servers per event", "ms",
                                          (double)cpu_us / 1000 / (double)burst->total, 0,
                                          REPORT_FACT, NULL});
    }
}

static struct err burst_measure(struct row_run *run, struct burst *burst)
{
    TRY(burst_stage(burst));
    struct listener listener = {
        .target = burst->to, .filter = slice_of(FILTER), .fn = heard, .arg = burst};
    struct slice token;
    TRY(target_sync_token(burst->to, 0, &token));
    listen_start(&listener, token);
    struct err err = listen_wait_ready(burst->to, &listener, 1);
    int64_t cpu_us = target_cpu_us(burst->from) + target_cpu_us(burst->to);
    if (err.code == 0) {
        burst_run(burst, run->options->clients);
    }
    listen_stop(&listener);
    TRY(err);
    cpu_us = target_cpu_us(burst->from) + target_cpu_us(burst->to) - cpu_us;
    for (size_t i = 0; i < BURST_ROOMS && burst->seen_count < burst->total; i++) {
        TRY(burst_page(burst, burst->rooms[i]));
    }
    burst_report(run, burst, cpu_us);
    return burst->failed == 0
               ? OK
               : err_publicf(run->target->arena, ERR_IO, "%zu sends failed", burst->failed);
}

struct err row_fed_burst(struct row_run *run)
{
    struct burst burst = {
        .from = run->target,
        .to = run->target->beside,
        .total = run->target->is_peer ? BURST_PEER_EVENTS : BURST_EVENTS,
    };
    burst.seen = mem_alloc(burst.total);
    struct err err = burst_measure(run, &burst);
    mem_free(burst.seen);
    return err;
}

/* --- joining small rooms --- */

struct err row_fed_join(struct row_run *run)
{
    struct target *home = run->target, *joiner = run->target->beside;
    size_t count = home->is_peer ? PEER_JOINS : JOINS;
    size_t owners[JOINS] = {0};
    struct slice ids[JOINS];
    int64_t samples[JOINS];
    TRY(target_need_users(home, 1));
    TRY(target_need_users(joiner, 1));
    TRY(target_make_rooms(home, owners, count, ids));
    struct slice via = target_encode(home->arena, target_server_name(home));
    int64_t cpu_us = target_cpu_us(home) + target_cpu_us(joiner);
    for (size_t i = 0; i < count; i++) {
        struct slice room = target_encode(home->arena, ids[i]);
        struct target_call call = {
            .request = {.method = LIT("POST"),
                        .path = arena_printf(home->arena,
                                             "/_matrix/client/v3/join/%.*s?server_name=%.*s"
                                             "&via=%.*s",
                                             (int)room.len, room.ptr, (int)via.len, via.ptr,
                                             (int)via.len, via.ptr),
                        .token = joiner->users[0].token,
                        .body = LIT("{}")}};
        TRY(target_calls(joiner, &call, 1, 1));
        samples[i] = call.us;
    }
    cpu_us = target_cpu_us(home) + target_cpu_us(joiner) - cpu_us;
    struct slice note = arena_printf(home->arena, "%zu rooms, one after the other; slowest %.0f ms",
                                     count, report_quantile(samples, count, 1) / 1000);
    report_add(run->report, (struct report_figure){"fed-join", "joining a small room, p50", "ms",
                                                   report_quantile(samples, count, 0.5) / 1000, 20,
                                                   REPORT_LOWER, arena_cstr(home->arena, note)});
    if (cpu_us > 0) {
        report_add(run->report, (struct report_figure){"fed-join", "CPU of both servers per join",
                                                       "ms", (double)cpu_us / 1000 / (double)count,
                                                       0, REPORT_FACT, NULL});
    }
    return OK;
}
