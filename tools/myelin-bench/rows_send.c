/* Durable sends: clients that each send the next message when the last one was answered. */
#include "homeserver/base/mem.h"
#include "homeserver/base/now.h"
#include "tools/myelin-bench/rows.h"

#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 300, SHARED_ROOMS = 4, WARM_UP_US = 1000000, SAMPLES_MAX = 4000000 };

struct load {
    struct target *target;
    int64_t measured_from_us, end_us;
    int64_t *samples;
    size_t count, failed, running;
    struct slice body;
};

struct sender {
    struct load *load;
    struct wire_conn *conn;
    struct slice token, room;
};

static void send_next(struct sender *sender);

static void sent(void *arg, const struct wire_reply *reply)
{
    struct sender *sender = arg;
    struct load *load = sender->load;
    if (reply->status != 200) {
        load->failed++;
    } else if (reply->sent_us >= load->measured_from_us && load->count < SAMPLES_MAX) {
        load->samples[load->count++] = reply->done_us - reply->sent_us;
    }
    if (reply->done_us < load->end_us && load->failed < 100) {
        send_next(sender);
    } else {
        load->running--;
    }
}

static void send_next(struct sender *sender)
{
    struct target *target = sender->load->target;
    char path[1024];
    int len =
        snprintf(path, sizeof path, "/_matrix/client/v3/rooms/%.*s/send/m.room.message/s%.*s-%llu",
                 (int)sender->room.len, sender->room.ptr, (int)target->run.len, target->run.ptr,
                 (unsigned long long)++target->serial);
    struct wire_request request = {.method = LIT("PUT"),
                                   .path = {path, (size_t)len},
                                   .token = sender->token,
                                   .body = sender->load->body};
    wire_send(sender->conn, &request, sent, sender);
}

static struct slice message(struct arena *arena)
{
    static const char head[] = "{\"msgtype\":\"m.text\",\"body\":\"";
    char *text = arena_alloc(arena, MESSAGE_BYTES + 1);
    memset(text, 'm', MESSAGE_BYTES);
    memcpy(text, head, sizeof head - 1);
    memcpy(text + MESSAGE_BYTES - 2, "\"}", 2);
    return (struct slice){text, MESSAGE_BYTES};
}

struct figures {
    const char *row;
    double rate_goal;
};

static void report(struct row_run *run, struct load *load, struct figures figures, double seconds,
                   int64_t cpu_us)
{
    double rate = (double)load->count / seconds;
    report_add(run->report, (struct report_figure){figures.row, "durable sends a second", "1/s",
                                                   rate, figures.rate_goal, REPORT_HIGHER, NULL});
    report_add(run->report,
               (struct report_figure){figures.row, "answer to a send, p50", "ms",
                                      report_quantile(load->samples, load->count, 0.5) / 1000, 0,
                                      REPORT_FACT, NULL});
    report_add(run->report,
               (struct report_figure){figures.row, "answer to a send, p99", "ms",
                                      report_quantile(load->samples, load->count, 0.99) / 1000, 20,
                                      REPORT_LOWER, NULL});
    if (run->target->pid > 0 && load->count > 0) {
        report_add(run->report, (struct report_figure){figures.row, "server CPU per send", "ms",
                                                       (double)cpu_us / 1000 / (double)load->count,
                                                       0.08, REPORT_LOWER, NULL});
    }
}

/* Runs the senders through warm-up and measurement; CPU is read over the measurement alone. */
static void run_load(struct row_run *run, struct load *load, int64_t *cpu_us_out)
{
    bool measuring = false;
    int64_t cpu_us = 0;
    while (load->running > 0) {
        wire_poll(load->target->wire, now_mono_us() + 100000);
        if (!measuring && now_mono_us() >= load->measured_from_us) {
            measuring = true;
            cpu_us = target_cpu_us(run->target);
        }
    }
    *cpu_us_out = target_cpu_us(run->target) - cpu_us;
}

static struct err sends(struct row_run *run, size_t room_count, struct figures figures)
{
    struct target *target = run->target;
    size_t clients = run->options->clients;
    TRY(target_need_users(target, clients));
    size_t *owners = arena_array(target->arena, room_count, sizeof *owners);
    struct slice *rooms = arena_array(target->arena, room_count, sizeof *rooms);
    for (size_t i = 0; i < room_count; i++) {
        owners[i] = i;
    }
    TRY(target_make_rooms(target, owners, room_count, rooms));
    struct target_join *joins = arena_array(target->arena, clients, sizeof *joins);
    size_t join_count = 0;
    for (size_t i = room_count; i < clients; i++) {
        joins[join_count++] = (struct target_join){.user = i, .room = rooms[i % room_count]};
    }
    TRY(target_join_all(target, joins, join_count));
    int64_t now_us = now_mono_us();
    int64_t length_us = (int64_t)(run->options->seconds * 1e6);
    struct load load = {
        .target = target,
        .measured_from_us = now_us + WARM_UP_US,
        .end_us = now_us + WARM_UP_US + length_us,
        .samples = mem_alloc_raw(SAMPLES_MAX * sizeof *load.samples),
        .running = clients,
        .body = message(target->arena),
    };
    struct sender *senders = arena_array(target->arena, clients, sizeof *senders);
    for (size_t i = 0; i < clients; i++) {
        senders[i] = (struct sender){&load, wire_open(target->wire), target->users[i].token,
                                     target_encode(target->arena, rooms[i % room_count])};
        send_next(&senders[i]);
    }
    int64_t cpu_us = 0;
    run_load(run, &load, &cpu_us);
    for (size_t i = 0; i < clients; i++) {
        wire_close(&senders[i].conn);
    }
    report(run, &load, figures, (double)length_us / 1e6, cpu_us);
    mem_free(load.samples);
    return load.failed > 0 ? err_publicf(target->arena, ERR_IO, "%zu sends failed", load.failed)
                           : OK;
}

struct err row_sends_own(struct row_run *run)
{
    return sends(run, run->options->clients, (struct figures){"sends-own", 12000});
}

struct err row_sends_shared(struct row_run *run)
{
    return sends(run, SHARED_ROOMS, (struct figures){"sends-shared", 10000});
}
