/* One message to 1,000 servers, half of which are dead: when the living have it, and what that
 * costs the sender. The servers are played by this program and join a room like any other. */
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
    int64_t joined_us; /* how long all the joins took */
    int64_t samples[ROUNDS];
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

static struct err complete(struct crowd *crowd, size_t index, struct slice answer,
                           struct event *event_out)
{
    struct arena *arena = crowd->target->arena;
    struct now now = now_system();
    struct json json;
    TRY(json_parse(arena, answer, &json));
    const struct json *template = json_get_object(&json, LIT("event"));
    const struct room_rules *rules = room_rules_get(json_get_string(&json, LIT("room_version")));
    if (!template || !rules) {
        return err_public(ERR_IO, "make_join: no template of a known room version");
    }
    struct json draft = *template;
    struct json_signer signer = made_up_signer(crowd->made_up, index);
    json_set(arena, &draft, LIT("origin"), json_string(made_up_name(crowd->made_up, index)));
    json_set(arena, &draft, LIT("origin_server_ts"), json_int(now_wall_ms(&now)));
    return event_seal(arena, rules, &draft, &signer, event_out);
}

static struct err join_one(struct crowd *crowd, size_t index)
{
    struct arena *arena = crowd->target->arena;
    struct slice name = made_up_name(crowd->made_up, index), answer;
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
    TRY(signed_call(crowd, index, request, NULL, &answer));
    TRY(complete(crowd, index, answer, &event));
    struct slice id = target_encode(arena, event.id.s);
    request.method = LIT("PUT");
    request.path =
        arena_printf(arena, "/_matrix/federation/v2/send_join/%.*s/%.*s?omit_members=true",
                     (int)room.len, room.ptr, (int)id.len, id.ptr);
    return signed_call(crowd, index, request, event_tree(arena, &event), &answer);
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
    for (size_t i = 0; i < crowd->count; i++) {
        TRY(join_one(crowd, i));
    }
    crowd->joined_us = now_mono_us() - began_us;
    settle(crowd);
    return made_up_kill_half(crowd->made_up);
}

static struct err send_round(struct crowd *crowd, size_t round)
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
    size_t living = made_up_living(crowd->made_up), arrived = 0;
    TRY(target_calls(target, &call, 1, 1));
    while ((arrived = made_up_arrived(crowd->made_up, &last_us)) < living &&
           now_mono_us() - began_us < ROUND_TIMEOUT_US) {
        rest(STEP_US);
        int64_t bytes = target->pid > 0 ? probe_memory_bytes(target->pid) : 0;
        crowd->memory_peak = bytes > crowd->memory_peak ? bytes : crowd->memory_peak;
    }
    crowd->samples[round] = last_us - began_us;
    return arrived == living ? OK
                             : err_publicf(target->arena, ERR_TIMEOUT,
                                           "%zu of %zu living servers got message %zu", arrived,
                                           living, round + 1);
}

static struct err send_all(struct crowd *crowd)
{
    int64_t cpu_us = target_cpu_us(crowd->target);
    for (size_t i = 0; i < ROUNDS; i++) {
        TRY(send_round(crowd, i));
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
    report_add(run->report, (struct report_figure){row, "first message: last living server has it",
                                                   "ms", (double)crowd->samples[0] / 1000, 0,
                                                   REPORT_FACT, arena_cstr(arena, note)});
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
                                    options->made_up_port, crowd.count};
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
