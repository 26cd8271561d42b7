/* One message to thousands of servers: over new connections and over kept ones, to all, to half of
 * them in a room of their own, and to all after the other half has died. How long the living wait
 * for it beside the dead and without them is what the row is about. The servers are played by
 * processes of this program and join rooms like any other. */
#include "homeserver/base/now.h"
#include "homeserver/room/event.h"
#include "tools/myelin-bench/made_up.h"
#include "tools/myelin-bench/probe.h"
#include "tools/myelin-bench/rows.h"

#include <stdio.h>
#include <time.h>

enum {
    DESTINATIONS = 1000,
    PEER_DESTINATIONS = 50,
    PDUS_MAX = 50, /* of a transaction */
    ROUNDS = 5,
    ROUND_TIMEOUT_US = 180000000,
    QUIET_US = 2000000,
    SETTLE_TIMEOUT_US = 120000000,
    STEP_US = 10000,
    AFTERWARDS_US = 5000000,
};

enum crowd_room { EVERYBODY, THE_LIVING, CROWD_ROOMS };

/* Messages of one kind. */
enum wave {
    WAVE_NEW,
    WAVE_KEPT,
    WAVE_ALONE,
    WAVE_HALF_DEAD,
    WAVE_LATER,
    WAVE_ALONE_NEW,
    WAVE_REVIVED,
    WAVE_HALF_DEAD_NEW,
    WAVES,
};
static const struct wave_row {
    const char *what;
    enum crowd_room room;
    size_t rounds;
    bool is_for_all; /* the dead live, or revive */
} WAVE_ROWS[WAVES] = {
    [WAVE_NEW] = {"all live, new connections", EVERYBODY, 1, true},
    [WAVE_KEPT] = {"all live, kept connections", EVERYBODY, ROUNDS, true},
    [WAVE_ALONE] = {"a living half alone, kept", THE_LIVING, ROUNDS, false},
    [WAVE_HALF_DEAD] = {"the other half just died, kept", EVERYBODY, 1, false},
    [WAVE_LATER] = {"the same, later", EVERYBODY, ROUNDS, false},
    [WAVE_ALONE_NEW] = {"a living half alone, new", THE_LIVING, 1, false},
    [WAVE_REVIVED] = {"all came back", EVERYBODY, 1, true},
    [WAVE_HALF_DEAD_NEW] = {"the other half just died, new", EVERYBODY, 1, false},
};

/* Until half of the living have a message, 99 of 100, and all; medians of the rounds. */
struct wave_times {
    double p50_us, p99_us, last_us;
    double cpu_us; /* of the sender, for each server */
};

struct crowd {
    struct target *target;
    struct made_up *made_up;
    size_t count;
    struct slice room_ids[CROWD_ROOMS];
    enum crowd_room room; /* that is being filled */
    const struct room_rules *rules;
    struct json draft; /* of the next guest's join */
    int64_t joined_us; /* how long all the joins took */
    size_t messages;
    struct wave_times times[WAVES];
    int64_t memory_peak, idle_cpu_us;
};

static void rest(int64_t us)
{
    struct timespec pause = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&pause, NULL);
}

/* A signed request of a made-up server; the answer lives in the target's arena. */
static struct err signed_call(struct crowd *crowd, size_t index, struct wire_request request,
                              const struct json *content, struct slice *answer_out)
{
    struct arena *arena = crowd->target->arena;
    struct json object = json_object();
    json_set(arena, &object, LIT("method"), json_string(request.method));
    json_set(arena, &object, LIT("uri"), json_string(request.path));
    json_set(arena, &object, LIT("destination"), json_string(target_server_name(crowd->target)));
    if (content) {
        json_set(arena, &object, LIT("content"), *content);
        request.body = json_canonical(arena, content);
    }
    request.authorization = made_up_authorization(crowd->made_up, arena, index, &object);
    struct target_call call = {.request = request};
    TRY(target_calls(crowd->target, &call, 1, 1));
    *answer_out = call.reply;
    return OK;
}

/* The guest's join, by what the first one's template says of the room. */
static struct err seal_join(struct crowd *crowd, size_t index, struct event *event_out)
{
    struct arena *arena = crowd->target->arena;
    struct now now = now_system();
    struct slice name = made_up_name(crowd->made_up, index);
    struct json_signer signer = made_up_signer(crowd->made_up, index);
    struct json user = json_string(arena_printf(arena, "@guest:%.*s", (int)name.len, name.ptr));
    json_set(arena, &crowd->draft, LIT("sender"), user);
    json_set(arena, &crowd->draft, LIT("state_key"), user);
    json_set(arena, &crowd->draft, LIT("origin"), json_string(name));
    json_set(arena, &crowd->draft, LIT("origin_server_ts"), json_int(now_wall_ms(&now)));
    return event_seal(arena, crowd->rules, &crowd->draft, &signer, event_out);
}

/* What comes next stands behind this event. */
static void go_on_behind(struct crowd *crowd, const struct event *event)
{
    struct arena *arena = crowd->target->arena;
    struct json ends = json_array();
    json_push(arena, &ends, json_string(event->id.s));
    json_set(arena, &crowd->draft, LIT("prev_events"), ends);
    json_set(arena, &crowd->draft, LIT("depth"), json_int(event->depth + 1));
}

/* The first guest joins as servers do. */
static struct err join_first(struct crowd *crowd)
{
    struct arena *arena = crowd->target->arena;
    struct slice name = made_up_name(crowd->made_up, 0), answer;
    struct slice room = target_encode(arena, crowd->room_ids[crowd->room]);
    struct slice user =
        target_encode(arena, arena_printf(arena, "@guest:%.*s", (int)name.len, name.ptr));
    struct wire_request request = {
        .method = LIT("GET"),
        .path =
            arena_printf(arena, "/_matrix/federation/v1/make_join/%.*s/%.*s?ver=10&ver=11&ver=12",
                         (int)room.len, room.ptr, (int)user.len, user.ptr),
    };
    struct event event;
    struct json json;
    TRY(signed_call(crowd, 0, request, NULL, &answer));
    TRY(json_parse(arena, answer, &json));
    const struct json *template = json_get_object(&json, LIT("event"));
    crowd->rules = room_rules_get(json_get_string(&json, LIT("room_version")));
    if (!template || !crowd->rules) {
        return err_public(ERR_IO, "make_join: no template of a known room version");
    }
    crowd->draft = *template;
    TRY(seal_join(crowd, 0, &event));
    struct slice id = target_encode(arena, event.id.s);
    request.method = LIT("PUT");
    request.path =
        arena_printf(arena, "/_matrix/federation/v2/send_join/%.*s/%.*s?omit_members=true",
                     (int)room.len, room.ptr, (int)id.len, id.ptr);
    go_on_behind(crowd, &event);
    return signed_call(crowd, 0, request, event_tree(arena, &event), &answer);
}

/* The first guest's server passes on the joins of the others, so that the sender need not tell each
 * of them about all the rest: that would be half a million requests before the measurement. */
static struct err pass_on_joins(struct crowd *crowd, size_t from, size_t to)
{
    struct arena *arena = crowd->target->arena;
    struct now now = now_system();
    struct json transaction = json_object(), pdus = json_array();
    struct slice answer;
    for (size_t i = from; i < to; i++) {
        struct event event;
        if (crowd->room == THE_LIVING && made_up_is_mortal(i)) {
            continue;
        }
        TRY(seal_join(crowd, i, &event));
        go_on_behind(crowd, &event);
        json_push(arena, &pdus, *event_tree(arena, &event));
    }
    json_set(arena, &transaction, LIT("origin"), json_string(made_up_name(crowd->made_up, 0)));
    json_set(arena, &transaction, LIT("origin_server_ts"), json_int(now_wall_ms(&now)));
    json_set(arena, &transaction, LIT("pdus"), pdus);
    struct wire_request request = {
        .method = LIT("PUT"),
        .path =
            arena_printf(arena, "/_matrix/federation/v1/send/joins-%d-%zu", (int)crowd->room, from),
    };
    TRY(signed_call(crowd, 0, request, &transaction, &answer));
    return slice_contains(answer, LIT("\"error\""))
               ? err_publicf(arena, ERR_IO, "joins were refused: %.300s", arena_cstr(arena, answer))
               : OK;
}

/* Until the sender has told everybody of the joins. */
static void settle(struct crowd *crowd)
{
    int64_t began_us = now_mono_us(), quiet_us = began_us;
    for (uint64_t before = 0; now_mono_us() - quiet_us < QUIET_US;) {
        uint64_t after = made_up_transactions(crowd->made_up);
        quiet_us = after == before ? quiet_us : now_mono_us();
        before = after;
        if (now_mono_us() - began_us > SETTLE_TIMEOUT_US) {
            break;
        }
        rest(STEP_US * 10);
    }
}

static struct err fill_room(struct crowd *crowd, enum crowd_room room)
{
    crowd->room = room;
    TRY(target_make_rooms(crowd->target, &(size_t){0}, 1, &crowd->room_ids[room]));
    TRY(join_first(crowd));
    for (size_t i = 1; i < crowd->count; i += PDUS_MAX) {
        TRY(pass_on_joins(crowd, i, i + PDUS_MAX < crowd->count ? i + PDUS_MAX : crowd->count));
    }
    return OK;
}

static struct err gather(struct crowd *crowd)
{
    int64_t began_us = now_mono_us();
    TRY(target_need_users(crowd->target, 1));
    TRY(fill_room(crowd, EVERYBODY));
    TRY(fill_room(crowd, THE_LIVING));
    crowd->joined_us = now_mono_us() - began_us;
    settle(crowd);
    return OK;
}

/* --- messages --- */

static void look_at_memory(struct crowd *crowd)
{
    int64_t bytes = crowd->target->pid > 0 ? probe_memory_bytes(crowd->target->pid) : 0;
    crowd->memory_peak = bytes > crowd->memory_peak ? bytes : crowd->memory_peak;
}

struct samples {
    int64_t p50_us[ROUNDS], p99_us[ROUNDS], last_us[ROUNDS];
};

static struct err send_round(struct crowd *crowd, const struct wave_row *row, size_t round,
                             struct samples *samples)
{
    struct target *target = crowd->target;
    struct arena *arena = target->arena;
    size_t audience = row->is_for_all ? crowd->count : made_up_living(crowd->made_up);
    struct slice text = arena_printf(arena, "a message to all, %.*s-%zu", (int)target->run.len,
                                     target->run.ptr, crowd->messages++);
    made_up_expect(crowd->made_up, text);
    struct target_call call = {
        .request = {.method = LIT("PUT"),
                    .path = target_send_path(target, arena, crowd->room_ids[row->room]),
                    .token = target->users[0].token,
                    .body = arena_printf(arena, "{\"msgtype\":\"m.text\",\"body\":\"%.*s\"}",
                                         (int)text.len, text.ptr)}};
    int64_t began_us = now_mono_us();
    TRY(target_calls(target, &call, 1, 1));
    while (made_up_arrived(crowd->made_up) < audience &&
           now_mono_us() - began_us < ROUND_TIMEOUT_US) {
        rest(STEP_US);
    }
    int64_t *times = arena_array(arena, crowd->count, sizeof *times);
    size_t arrived = made_up_arrivals(crowd->made_up, times, crowd->count);
    if (arrived < audience) {
        return err_publicf(arena, ERR_TIMEOUT, "%s: %zu of %zu servers got the message", row->what,
                           arrived, audience);
    }
    samples->p50_us[round] = (int64_t)report_quantile(times, arrived, 0.5) - began_us;
    samples->p99_us[round] = (int64_t)report_quantile(times, arrived, 0.99) - began_us;
    samples->last_us[round] = (int64_t)report_quantile(times, arrived, 1) - began_us;
    return OK;
}

static struct err send_wave(struct crowd *crowd, enum wave wave)
{
    const struct wave_row *row = &WAVE_ROWS[wave];
    struct wave_times *times = &crowd->times[wave];
    struct samples samples = {0};
    size_t audience = row->is_for_all ? crowd->count : made_up_living(crowd->made_up);
    int64_t cpu_us = target_cpu_us(crowd->target);
    for (size_t i = 0; i < row->rounds; i++) {
        TRY(send_round(crowd, row, i, &samples));
        rest(QUIET_US / 4); /* the last answers are taken */
    }
    cpu_us = target_cpu_us(crowd->target) - cpu_us;
    look_at_memory(crowd);
    times->p50_us = report_quantile(samples.p50_us, row->rounds, 0.5);
    times->p99_us = report_quantile(samples.p99_us, row->rounds, 0.5);
    times->last_us = report_quantile(samples.last_us, row->rounds, 0.5);
    times->cpu_us = (double)cpu_us / (double)(row->rounds * audience);
    return OK;
}

/* Nobody has a connection, and half of those who had an answer never give another. */
static struct err send_over_new(struct crowd *crowd)
{
    TRY(made_up_restart(crowd->made_up, MADE_UP_THE_LIVING));
    TRY(send_wave(crowd, WAVE_ALONE_NEW));
    TRY(made_up_restart(crowd->made_up, MADE_UP_ALL));
    TRY(send_wave(crowd, WAVE_REVIVED));
    settle(crowd);
    TRY(made_up_kill_half(crowd->made_up));
    TRY(made_up_restart(crowd->made_up, MADE_UP_THE_LIVING));
    return send_wave(crowd, WAVE_HALF_DEAD_NEW);
}

static struct err send_all(struct crowd *crowd)
{
    TRY(made_up_restart(crowd->made_up, MADE_UP_ALL)); /* whose keys were asked for */
    TRY(send_wave(crowd, WAVE_NEW));
    TRY(send_wave(crowd, WAVE_KEPT));
    TRY(send_wave(crowd, WAVE_ALONE));
    TRY(made_up_kill_half(crowd->made_up));
    TRY(send_wave(crowd, WAVE_HALF_DEAD));
    TRY(send_wave(crowd, WAVE_LATER));
    int64_t cpu_us = target_cpu_us(crowd->target);
    rest(AFTERWARDS_US);
    crowd->idle_cpu_us = target_cpu_us(crowd->target) - cpu_us;
    /* A peer may leave the dead alone for hours. */
    return crowd->target->is_peer ? OK : send_over_new(crowd);
}

/* --- figures --- */

static void add_figure(struct row_run *run, const struct report_figure *figure)
{
    struct report_figure fact = *figure;
    fact.row = "fed-destinations";
    fact.better = REPORT_FACT;
    report_add(run->report, fact);
}

static void report_wave(struct row_run *run, const struct crowd *crowd, enum wave wave)
{
    struct arena *arena = run->target->arena;
    const struct wave_times *times = &crowd->times[wave];
    if (times->last_us == 0) { /* not sent, or not to all */
        return;
    }
    struct slice note =
        arena_printf(arena, "p50 %.0f, p99 %.0f ms; sender's CPU %.2f ms a server",
                     times->p50_us / 1000, times->p99_us / 1000, times->cpu_us / 1000);
    add_figure(run, &(struct report_figure){.what = WAVE_ROWS[wave].what,
                                            .unit = "ms",
                                            .value = times->last_us / 1000,
                                            .note = arena_cstr(arena, note)});
}

/* How much longer the living wait because of the dead. */
static void report_delay(struct row_run *run, const struct crowd *crowd, enum wave beside,
                         enum wave alone, const char *what)
{
    struct arena *arena = run->target->arena;
    const struct wave_times *slow = &crowd->times[beside], *base = &crowd->times[alone];
    if (slow->last_us == 0 || base->last_us == 0) {
        return;
    }
    struct slice note =
        arena_printf(arena, "half of them: %.2f times as long", slow->p50_us / base->p50_us);
    add_figure(run, &(struct report_figure){.what = what,
                                            .unit = "times",
                                            .value = slow->last_us / base->last_us,
                                            .note = arena_cstr(arena, note)});
}

static void report(struct row_run *run, const struct crowd *crowd)
{
    struct arena *arena = run->target->arena;
    struct slice note =
        arena_printf(arena, "%zu servers; the dead refuse, are gone, or hang; all joined in %.1f s",
                     crowd->count, (double)crowd->joined_us / 1e6);
    add_figure(run, &(struct report_figure){.what = "servers",
                                            .value = (double)crowd->count,
                                            .unit = "",
                                            .note = arena_cstr(arena, note)});
    for (size_t i = 0; i < WAVES; i++) {
        report_wave(run, crowd, (enum wave)i);
    }
    report_delay(run, crowd, WAVE_HALF_DEAD, WAVE_ALONE, "the living wait for the dead, kept");
    report_delay(run, crowd, WAVE_HALF_DEAD_NEW, WAVE_ALONE_NEW, "the same, new");
    if (run->target->pid == 0) {
        return;
    }
    add_figure(
        run, &(struct report_figure){.what = "sender's CPU 5 s later, of a core",
                                     .unit = "%",
                                     .value = 100.0 * (double)crowd->idle_cpu_us / AFTERWARDS_US});
    add_figure(run, &(struct report_figure){.what = "sender's memory, highest",
                                            .unit = "MB",
                                            .value = (double)crowd->memory_peak / 1e6});
}

struct err row_fed_destinations(struct row_run *run)
{
    const struct row_options *options = run->options;
    if (options->made_up_port == 0) {
        return err_public(ERR_IO, "give --made-up, or use tools/bench-federation");
    }
    bool chosen = options->destinations > 0 && !run->target->is_peer;
    struct crowd crowd = {
        .target = run->target,
        .count = chosen                 ? options->destinations
                 : run->target->is_peer ? PEER_DESTINATIONS
                                        : DESTINATIONS,
    };
    struct made_up_config config = {options->made_up_certificate, options->made_up_key,
                                    options->made_up_port, crowd.count,
                                    run->target->is_peer ? MADE_UP_BY_ADDRESS : MADE_UP_BY_NAME};
    struct err err = made_up_new(&config, &crowd.made_up);
    if (err.code == 0) {
        err = gather(&crowd);
    }
    if (err.code == 0) {
        err = send_all(&crowd);
        report(run, &crowd); /* as far as it came */
    }
    made_up_free(&crowd.made_up);
    return err;
}
