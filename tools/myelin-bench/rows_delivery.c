/* How long a message takes to the other client, and what it costs, by long poll and by stream; and
 * one message into a room of many parked clients. */
#include "homeserver/base/mem.h"
#include "homeserver/base/now.h"
#include "tools/myelin-bench/listen.h"
#include "tools/myelin-bench/rows.h"

#include <stdio.h>
#include <string.h>

enum { FED_RATE = 100, FED_PEER_RATE = 10 }; /* messages a second between servers */

enum {
    PAIRS = 20,
    SENDERS = 64,
    QUEUE_MAX = 65536,
    SAMPLES_MAX = 1000000,
    DRAIN_US = 3000000,
    FANOUT_ROUNDS = 10,
};

static const char MARKER[] = "\"bench_us\":";

struct delivery {
    struct target *target;
    struct slice rooms[PAIRS];
    int64_t *samples;
    size_t count, expected, failed;
    /* messages that are due and wait for a free connection */
    struct {
        int64_t due_us;
        size_t pair;
    } * queue;
    size_t queue_head, queue_tail;
    struct wire_conn *senders[SENDERS];
};

/* Calls fn with each time stamp in the answer. */
static void each_stamp(struct slice json, void (*fn)(void *arg, int64_t stamp_us), void *arg)
{
    const char *at = json.ptr, *end = json.ptr + json.len;
    while ((at = memmem(at, (size_t)(end - at), MARKER, sizeof MARKER - 1))) {
        int64_t stamp = 0;
        at += sizeof MARKER - 1;
        while (at < end && (*at == ' ' || (*at >= '0' && *at <= '9'))) {
            stamp = *at == ' ' ? stamp : stamp * 10 + (*at - '0');
            at++;
        }
        fn(arg, stamp);
    }
}

static void arrived(void *arg, int64_t stamp_us)
{
    struct delivery *delivery = arg;
    if (delivery->count < SAMPLES_MAX) {
        delivery->samples[delivery->count++] = now_mono_us() - stamp_us;
    }
}

static void heard(void *arg, struct slice json)
{
    each_stamp(json, arrived, arg);
}

static void sent(void *arg, const struct wire_reply *reply)
{
    struct delivery *delivery = arg;
    delivery->failed += reply->status != 200;
}

static void send_stamped(struct delivery *delivery, struct wire_conn *conn, size_t pair,
                         int64_t stamp_us)
{
    struct target *target = delivery->target;
    char path[1024], body[256];
    int path_len =
        snprintf(path, sizeof path, "/_matrix/client/v3/rooms/%.*s/send/m.room.message/d%.*s-%llu",
                 (int)delivery->rooms[pair].len, delivery->rooms[pair].ptr, (int)target->run.len,
                 target->run.ptr, (unsigned long long)++target->serial);
    int body_len = snprintf(body, sizeof body,
                            "{\"msgtype\":\"m.text\",\"body\":\"a message of usual length, as "
                            "people write them\",%s%lld}",
                            MARKER, (long long)stamp_us);
    struct wire_request request = {.method = LIT("PUT"),
                                   .path = {path, (size_t)path_len},
                                   .token = target->users[pair * 2].token,
                                   .body = {body, (size_t)body_len}};
    wire_send(conn, &request, sent, delivery);
    delivery->expected++;
}

static void send_due(struct delivery *delivery)
{
    for (size_t i = 0; i < SENDERS && delivery->queue_head < delivery->queue_tail; i++) {
        if (!wire_busy(delivery->senders[i])) {
            size_t at = delivery->queue_head++ % QUEUE_MAX;
            send_stamped(delivery, delivery->senders[i], delivery->queue[at].pair,
                         delivery->queue[at].due_us);
        }
    }
}

static void drive(struct delivery *delivery, double rate, double seconds)
{
    int64_t began_us = now_mono_us(), end_us = began_us + (int64_t)(seconds * 1e6);
    size_t made = 0;
    for (int64_t now_us = began_us; now_us < end_us; now_us = now_mono_us()) {
        size_t due = (size_t)((double)(now_us - began_us) / 1e6 * rate);
        for (; made < due; made++) {
            if (delivery->queue_tail - delivery->queue_head < QUEUE_MAX) {
                size_t at = delivery->queue_tail++ % QUEUE_MAX;
                delivery->queue[at].due_us = now_us;
                delivery->queue[at].pair = made % PAIRS;
            }
        }
        send_due(delivery);
        wire_poll(delivery->target->wire, began_us + (int64_t)((double)(made + 1) / rate * 1e6));
    }
    end_us = now_mono_us() + DRAIN_US;
    while (now_mono_us() < end_us &&
           (delivery->count < delivery->expected || delivery->queue_head < delivery->queue_tail)) {
        send_due(delivery);
        wire_poll(delivery->target->wire, now_mono_us() + 10000);
    }
}

/* The even users send; the odd ones listen, or as many users of the server beside. */
static struct err set_stage(struct delivery *delivery, struct target *beside)
{
    struct target *target = delivery->target;
    size_t owners[PAIRS];
    struct slice ids[PAIRS];
    struct target_join joins[PAIRS];
    TRY(target_need_users(target, PAIRS * 2));
    if (beside) {
        TRY(target_need_users(beside, PAIRS * 2));
    }
    for (size_t i = 0; i < PAIRS; i++) {
        owners[i] = i * 2;
    }
    TRY(target_make_rooms(target, owners, PAIRS, ids));
    for (size_t i = 0; i < PAIRS; i++) {
        joins[i] = (struct target_join){.user = i * 2 + 1, .room = ids[i]};
        if (beside) {
            joins[i].via = target_server_name(target);
        }
        delivery->rooms[i] = target_encode(target->arena, ids[i]);
    }
    return target_join_all(beside ? beside : target, joins, PAIRS);
}

static struct err start_listeners(struct target *target, struct listener *listeners, size_t count)
{
    struct slice *tokens = arena_array(target->arena, count, sizeof *tokens);
    TRY(listen_tokens(target, listeners, count, tokens));
    for (size_t i = 0; i < count; i++) {
        listen_start(&listeners[i], tokens[i]);
    }
    return listen_wait_ready(target, listeners, count);
}

struct spent {
    int64_t cpu_us;
    uint64_t bytes;
    double rate;
};

struct delivery_goal {
    const char *row;
    double p50_ms, p99_ms;
};

static void report(struct row_run *run, struct delivery *delivery, const struct delivery_goal *goal,
                   struct spent spent)
{
    const char *row = goal->row;
    double count = delivery->count > 0 ? (double)delivery->count : 1;
    const char *note =
        arena_cstr(delivery->target->arena,
                   arena_printf(delivery->target->arena, "at %.0f/s, %zu of %zu arrived",
                                spent.rate, delivery->count, delivery->expected));
    report_add(run->report, (struct report_figure){
                                row, "send to the other client, p50", "ms",
                                report_quantile(delivery->samples, delivery->count, 0.5) / 1000,
                                goal->p50_ms, REPORT_LOWER, note});
    report_add(run->report, (struct report_figure){
                                row, "send to the other client, p99", "ms",
                                report_quantile(delivery->samples, delivery->count, 0.99) / 1000,
                                goal->p99_ms, REPORT_LOWER, NULL});
    if (spent.bytes > 0) {
        report_add(run->report,
                   (struct report_figure){row, "bytes both ways per message", "B",
                                          (double)spent.bytes / count, 0, REPORT_FACT, NULL});
    }
    if (run->target->pid > 0) {
        report_add(run->report, (struct report_figure){row, "server CPU per message sent and heard",
                                                       "ms", (double)spent.cpu_us / 1000 / count, 0,
                                                       REPORT_FACT, NULL});
    }
}

static struct err drive_listened(struct delivery *delivery, struct target *hearing,
                                 enum listen_mode mode, double rate, double seconds)
{
    struct listener *listeners = arena_array(hearing->arena, PAIRS, sizeof *listeners);
    for (size_t i = 0; i < PAIRS; i++) {
        listeners[i] = (struct listener){
            .target = hearing, .user = i * 2 + 1, .mode = mode, .fn = heard, .arg = delivery};
    }
    TRY(start_listeners(hearing, listeners, PAIRS));
    for (size_t i = 0; i < SENDERS; i++) {
        delivery->senders[i] = wire_open(delivery->target->wire);
    }
    drive(delivery, rate, seconds);
    for (size_t i = 0; i < SENDERS; i++) {
        wire_close(&delivery->senders[i]);
    }
    for (size_t i = 0; i < PAIRS; i++) {
        listen_stop(&listeners[i]);
    }
    return delivery->failed > 0 || delivery->count == 0
               ? err_publicf(hearing->arena, ERR_IO, "%zu sends failed, %zu messages arrived",
                             delivery->failed, delivery->count)
               : OK;
}

static struct err measure(struct row_run *run, struct delivery *delivery, enum listen_mode mode)
{
    struct target *target = run->target;
    const struct delivery_goal goal = {mode == LISTEN_POLL ? "delivery-poll" : "delivery-stream", 1,
                                       5};
    TRY(set_stage(delivery, NULL));
    struct spent spent = {
        .rate = target->is_peer ? run->options->peer_rate : run->options->rate,
        .cpu_us = target_cpu_us(target),
        .bytes = wire_bytes(target->wire),
    };
    struct err err = drive_listened(delivery, target, mode, spent.rate, run->options->seconds);
    spent.cpu_us = target_cpu_us(target) - spent.cpu_us;
    spent.bytes = wire_bytes(target->wire) - spent.bytes;
    report(run, delivery, &goal, spent);
    return err;
}

/* From one server to the one beside it, by long poll. */
static struct err measure_federated(struct row_run *run, struct delivery *delivery)
{
    struct target *target = run->target, *beside = target->beside;
    const struct delivery_goal goal = {"fed-delivery", 3, 8};
    TRY(set_stage(delivery, beside));
    struct spent spent = {
        .rate = target->is_peer ? FED_PEER_RATE : FED_RATE,
        .cpu_us = target_cpu_us(target) + target_cpu_us(beside),
    };
    struct err err =
        drive_listened(delivery, beside, LISTEN_POLL, spent.rate, run->options->seconds);
    spent.cpu_us = target_cpu_us(target) + target_cpu_us(beside) - spent.cpu_us;
    report(run, delivery, &goal, spent);
    return err;
}

enum delivery_kind { BY_POLL, BY_STREAM, BETWEEN_SERVERS };

static struct err delivery(struct row_run *run, enum delivery_kind kind)
{
    struct delivery *delivery = mem_alloc(sizeof *delivery);
    delivery->target = run->target;
    delivery->samples = mem_alloc_raw(SAMPLES_MAX * sizeof *delivery->samples);
    delivery->queue = mem_alloc(QUEUE_MAX * sizeof *delivery->queue);
    struct err err = kind == BETWEEN_SERVERS
                         ? measure_federated(run, delivery)
                         : measure(run, delivery, kind == BY_POLL ? LISTEN_POLL : LISTEN_STREAM);
    mem_free(delivery->samples);
    mem_free(delivery->queue);
    mem_free(delivery);
    return err;
}

struct err row_delivery_poll(struct row_run *run)
{
    return delivery(run, BY_POLL);
}

struct err row_delivery_stream(struct row_run *run)
{
    return run->target->is_peer ? OK : delivery(run, BY_STREAM);
}

struct err row_fed_delivery(struct row_run *run)
{
    return delivery(run, BETWEEN_SERVERS);
}

/* --- one message to many --- */

struct fanout {
    int64_t sent_us, last_us;
    size_t heard;
};

static void fanout_stamp(void *arg, int64_t stamp_us)
{
    struct fanout *fanout = arg;
    if (stamp_us == fanout->sent_us) {
        fanout->heard++;
        fanout->last_us = now_mono_us();
    }
}

static void fanout_heard(void *arg, struct slice json)
{
    each_stamp(json, fanout_stamp, arg);
}

static struct err fanout_round(struct delivery *delivery, struct fanout *fanout, size_t clients)
{
    struct target *target = delivery->target;
    fanout->heard = 0;
    fanout->sent_us = now_mono_us();
    send_stamped(delivery, delivery->senders[0], 0, fanout->sent_us);
    int64_t end_us = fanout->sent_us + 30000000;
    while (fanout->heard < clients && now_mono_us() < end_us) {
        wire_poll(target->wire, end_us);
    }
    /* All ask again before the next message. */
    for (int64_t rest_us = now_mono_us() + 300000; now_mono_us() < rest_us;) {
        wire_poll(target->wire, rest_us);
    }
    return fanout->heard < clients
               ? err_publicf(target->arena, ERR_TIMEOUT, "%zu of %zu clients heard the message",
                             fanout->heard, clients)
               : OK;
}

static struct err fanout_to(struct row_run *run, size_t clients, enum listen_mode mode, double goal)
{
    struct target *target = run->target;
    struct delivery *delivery = arena_alloc(target->arena, sizeof *delivery);
    struct fanout fanout = {0};
    delivery->target = target;
    TRY(target_need_users(target, clients + 1));
    struct slice room;
    TRY(target_make_rooms(target, &(size_t){0}, 1, &room));
    delivery->rooms[0] = target_encode(target->arena, room);
    struct target_join *joins = arena_array(target->arena, clients, sizeof *joins);
    struct listener *listeners = arena_array(target->arena, clients, sizeof *listeners);
    for (size_t i = 0; i < clients; i++) {
        joins[i] = (struct target_join){.user = i + 1, .room = room};
        listeners[i] = (struct listener){
            .target = target, .user = i + 1, .mode = mode, .fn = fanout_heard, .arg = &fanout};
    }
    TRY(target_join_all(target, joins, clients));
    TRY(start_listeners(target, listeners, clients));
    delivery->senders[0] = wire_open(target->wire);
    int64_t samples[FANOUT_ROUNDS];
    struct err err = OK;
    for (size_t i = 0; i < FANOUT_ROUNDS && err.code == 0; i++) {
        err = fanout_round(delivery, &fanout, clients);
        samples[i] = fanout.last_us - fanout.sent_us;
    }
    for (size_t i = 0; i < clients; i++) {
        listen_stop(&listeners[i]);
    }
    wire_close(&delivery->senders[0]);
    TRY(err);
    struct slice what = arena_printf(target->arena, "last of %zu clients has it (%s)", clients,
                                     mode == LISTEN_POLL ? "long poll" : "stream");
    report_add(run->report,
               (struct report_figure){"fanout", arena_cstr(target->arena, what), "ms",
                                      report_quantile(samples, FANOUT_ROUNDS, 0.5) / 1000, goal,
                                      REPORT_LOWER, NULL});
    return OK;
}

struct err row_fanout(struct row_run *run)
{
    TRY(fanout_to(run, 200, LISTEN_POLL, 6));
    if (run->target->is_peer) {
        return run->options->size == ROW_FULL ? fanout_to(run, 1000, LISTEN_POLL, 30) : OK;
    }
    TRY(fanout_to(run, 200, LISTEN_STREAM, 6));
    TRY(fanout_to(run, 1000, LISTEN_POLL, 30));
    return fanout_to(run, 1000, LISTEN_STREAM, 30);
}
