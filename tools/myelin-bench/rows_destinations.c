/* One message to thousands of servers, half of which are dead: when the living have it, and what
 * that costs the sender. The servers are played by this program and join a room like any other. */
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
    ROUNDS = 10,
    ROUND_TIMEOUT_US = 120000000,
    QUIET_US = 2000000,
    SETTLE_TIMEOUT_US = 120000000,
    STEP_US = 10000,
    AFTERWARDS_US = 5000000,
};

struct crowd {
    struct target *target;
    struct made_up *made_up;
    size_t count;
    struct slice room_id;
    const struct room_rules *rules;
    struct json draft; /* of the next guest's join */
    int64_t joined_us; /* how long all the joins took */
    int64_t samples[ROUNDS], before_us;
    double first_p50_us, first_p99_us; /* of the living servers */
    int64_t memory_peak, cpu_us, idle_cpu_us;
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
    struct slice room = target_encode(arena, crowd->room_id);
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
        TRY(seal_join(crowd, i, &event));
        go_on_behind(crowd, &event);
        json_push(arena, &pdus, *event_tree(arena, &event));
    }
    json_set(arena, &transaction, LIT("origin"), json_string(made_up_name(crowd->made_up, 0)));
    json_set(arena, &transaction, LIT("origin_server_ts"), json_int(now_wall_ms(&now)));
    json_set(arena, &transaction, LIT("pdus"), pdus);
    struct wire_request request = {
        .method = LIT("PUT"),
        .path = arena_printf(arena, "/_matrix/federation/v1/send/joins-%zu", from),
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

static struct err gather(struct crowd *crowd)
{
    int64_t began_us = now_mono_us();
    TRY(target_need_users(crowd->target, 1));
    TRY(target_make_rooms(crowd->target, &(size_t){0}, 1, &crowd->room_id));
    TRY(join_first(crowd));
    for (size_t i = 1; i < crowd->count; i += PDUS_MAX) {
        TRY(pass_on_joins(crowd, i, i + PDUS_MAX < crowd->count ? i + PDUS_MAX : crowd->count));
    }
    crowd->joined_us = now_mono_us() - began_us;
    settle(crowd);
    return OK;
}

static struct err send_round(struct crowd *crowd, size_t round, size_t audience, int64_t *us_out)
{
    struct target *target = crowd->target;
    struct slice text = arena_printf(target->arena, "a message to all, %.*s-%zu",
                                     (int)target->run.len, target->run.ptr, round);
    made_up_expect(crowd->made_up, text);
    struct target_call call = {
        .request = {.method = LIT("PUT"),
                    .path = target_send_path(target, target->arena, crowd->room_id),
                    .token = target->users[0].token,
                    .body =
                        arena_printf(target->arena, "{\"msgtype\":\"m.text\",\"body\":\"%.*s\"}",
                                     (int)text.len, text.ptr)}};
    int64_t began_us = now_mono_us(), last_us = 0;
    size_t arrived = 0;
    TRY(target_calls(target, &call, 1, 1));
    while ((arrived = made_up_arrived(crowd->made_up, &last_us)) < audience &&
           now_mono_us() - began_us < ROUND_TIMEOUT_US) {
        rest(STEP_US);
        int64_t bytes = target->pid > 0 ? probe_memory_bytes(target->pid) : 0;
        crowd->memory_peak = bytes > crowd->memory_peak ? bytes : crowd->memory_peak;
    }
    *us_out = last_us - began_us;
    if (round == 0) {
        int64_t *times = arena_array(target->arena, arrived + 1, sizeof *times);
        for (size_t i = 0; i < arrived; i++) {
            times[i] = made_up_arrivals(crowd->made_up)[i] - began_us;
        }
        crowd->first_p50_us = report_quantile(times, arrived, 0.5);
        crowd->first_p99_us = report_quantile(times, arrived, 0.99);
    }
    return arrived == audience ? OK
                               : err_publicf(target->arena, ERR_TIMEOUT,
                                             "%zu of %zu living servers got message %zu", arrived,
                                             audience, round + 1);
}

static struct err send_all(struct crowd *crowd)
{
    size_t living = made_up_living(crowd->made_up);
    TRY(send_round(crowd, ROUNDS, crowd->count, &crowd->before_us));
    TRY(made_up_kill_half(crowd->made_up));
    int64_t cpu_us = target_cpu_us(crowd->target);
    for (size_t i = 0; i < ROUNDS; i++) {
        TRY(send_round(crowd, i, living, &crowd->samples[i]));
        rest(QUIET_US / 4);
    }
    crowd->cpu_us = target_cpu_us(crowd->target) - cpu_us;
    cpu_us = target_cpu_us(crowd->target);
    rest(AFTERWARDS_US);
    crowd->idle_cpu_us = target_cpu_us(crowd->target) - cpu_us;
    return OK;
}

static void report(struct row_run *run, struct crowd *crowd)
{
    struct arena *arena = run->target->arena;
    const char *row = "fed-destinations";
    struct slice note = arena_printf(
        arena, "%zu servers, of the dead half refuse and half are silent; all joined in %.1f s",
        crowd->count, (double)crowd->joined_us / 1e6);
    report_add(run->report, (struct report_figure){row, "message while all live: the last has it",
                                                   "ms", (double)crowd->before_us / 1000, 0,
                                                   REPORT_FACT, arena_cstr(arena, note)});
    report_add(run->report,
               (struct report_figure){row, "first message after: living have it, p50", "ms",
                                      crowd->first_p50_us / 1000, 0, REPORT_FACT, NULL});
    report_add(run->report,
               (struct report_figure){row, "the same, p99", "ms", crowd->first_p99_us / 1000, 0,
                                      REPORT_FACT, NULL});
    report_add(run->report,
               (struct report_figure){row, "the same, last", "ms", (double)crowd->samples[0] / 1000,
                                      0, REPORT_FACT, NULL});
    report_add(run->report,
               (struct report_figure){row, "later messages: the same, p50", "ms",
                                      report_quantile(crowd->samples + 1, ROUNDS - 1, 0.5) / 1000,
                                      0, REPORT_FACT, NULL});
    if (run->target->pid == 0) {
        return;
    }
    double deliveries = (double)made_up_living(crowd->made_up) * ROUNDS;
    report_add(run->report, (struct report_figure){
                                row, "sender's CPU per living server and message", "ms",
                                (double)crowd->cpu_us / 1000 / deliveries, 0, REPORT_FACT, NULL});
    report_add(run->report,
               (struct report_figure){row, "sender's CPU afterwards, of a core", "%",
                                      100.0 * (double)crowd->idle_cpu_us / AFTERWARDS_US, 0,
                                      REPORT_FACT, NULL});
    report_add(run->report,
               (struct report_figure){row, "sender's memory, highest", "MB",
                                      (double)crowd->memory_peak / 1e6, 0, REPORT_FACT, NULL});
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
    }
    if (err.code == 0) {
        report(run, &crowd);
    }
    made_up_free(&crowd.made_up);
    return err;
}
