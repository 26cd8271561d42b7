#include "federation/call_start.h"

#include "federation/call_priv.h"

enum stage { STAGE_FINDING, STAGE_HOST, STAGE_WELLKNOWN, STAGE_SRV, STAGE_ADDRESSES, STAGE_SENT };

/* Lives in its own arena. One job, or one question of the fetcher, has it at a time. */
struct fed_sending {
    struct fed *fed;
    struct ctx ctx;
    struct fed_call call;
    struct fed_called done;
    struct fed_outgoing out;
    struct fed_finding finding;
    size_t target;
    struct err err; /* of the last target */
    enum stage stage;
    size_t questions;
    bool is_told;
    struct http_fetching *fetching;
    struct http_fetch_request wellknown;
    struct http_dns_answer answer;
};

/* .well-known, SRV twice, and once more when the cache was emptied meanwhile */
enum { QUESTIONS_MAX = 4 };

static void conclude(struct fed_sending *sending, struct err err,
                     const struct http_fetch_reply *reply)
{
    struct fed_answer answer = {0};
    struct arena *arena = sending->ctx.arena;
    if (err.code == 0) {
        fed_call_read(&sending->ctx, 0, reply, &answer);
    }
    sending->done.fn(sending->done.arg, &sending->ctx, err, &answer);
    ctx_finish(&sending->ctx);
    arena_free(&arena);
}

/* The end of a request that was to reach the server. */
static void end(struct fed_sending *sending, struct err err, const struct http_fetch_reply *reply)
{
    fed_call_note(sending->fed, &sending->ctx, &sending->out, err, reply);
    conclude(sending, err, reply);
}

static void run(void *sending);

/* From here on the sending may be another thread's. */
static void go_on_later(void *arg)
{
    struct fed_sending *sending = arg;
    bool queued = workers_submit(sending->fed->senders, 0, run, sending);
    ASSERT(queued); /* its queue has no practical end */
}

static void on_dns(void *arg, const struct http_dns_answer *answer)
{
    struct fed_sending *sending = arg;
    sending->answer = http_dns_answer_copy(sending->ctx.arena, answer);
    go_on_later(sending);
}

/* --- each starts one question and touches nothing afterwards --- */

static void tell_started(void *arg)
{
    struct fed_sending *sending = arg;
    if (sending->done.started && !sending->is_told) {
        sending->is_told = true;
        sending->done.started(sending->done.arg);
    }
}

static void start_fetch(struct fed_sending *sending, enum stage stage,
                        const struct http_fetch_request *request)
{
    const struct http_fetch_watcher watcher = {tell_started, go_on_later, sending};
    const struct http_fetch_reply none = {0};
    sending->stage = stage;
    struct err err = http_fetch_start(sending->fed->net.unwatched, &sending->ctx, request, &watcher,
                                      &sending->fetching);
    if (err.code) {
        conclude(sending, err, &none);
    }
}

static void start_question(struct fed_sending *sending, enum stage stage,
                           const struct http_fetch_question *question)
{
    struct http_fetcher *fetcher = sending->fed->net.unwatched;
    sending->stage = stage;
    sending->answer = (struct http_dns_answer){0};
    if (http_fetch_knows(fetcher, sending->ctx.arena, question, &sending->answer)) {
        go_on_later(sending);
    } else {
        tell_started(sending);
        http_fetch_ask(fetcher, sending->ctx.arena, question, on_dns, sending);
    }
}

/* Its host's addresses are in `answer`. */
static void ask_wellknown(struct fed_sending *sending)
{
    struct fed_finding *finding = &sending->finding;
    struct http_fetch_request *request = &sending->wellknown;
    *request = fed_destination_wellknown(sending->fed, sending->ctx.arena, finding);
    request->addresses = sending->answer.addresses.items;
    request->address_count = sending->answer.addresses.count;
    start_fetch(sending, STAGE_WELLKNOWN, request);
}

static void ask_way(struct fed_sending *sending)
{
    const struct fed_finding *finding = &sending->finding;
    if (finding->need == FED_NEED_WELLKNOWN) {
        const struct http_fetch_question host = {.kind = HTTP_DNS_ADDRESSES, .name = finding->name};
        start_question(sending, STAGE_HOST, &host);
        return;
    }
    const struct http_fetch_question question = {
        .kind = HTTP_DNS_SRV, .service = finding->service, .name = finding->name};
    start_question(sending, STAGE_SRV, &question);
}

static void send_to_target(struct fed_sending *sending)
{
    const struct fed_target *target = &sending->finding.targets[sending->target];
    fed_call_aim(&sending->ctx, &sending->out, target, &sending->answer.addresses);
    start_fetch(sending, STAGE_SENT, &sending->out.request);
}

/* --- what follows an answer --- */

static void aim(struct fed_sending *sending)
{
    const struct http_fetch_reply none = {0};
    struct http_fetcher *fetcher = sending->fed->net.unwatched;
    for (; sending->target < sending->finding.count; sending->target++) {
        const struct fed_target *target = &sending->finding.targets[sending->target];
        const struct http_fetch_question question = {.kind = HTTP_DNS_ADDRESSES,
                                                     .name = target->host};
        if (!http_fetch_knows(fetcher, sending->ctx.arena, &question, &sending->answer)) {
            start_question(sending, STAGE_ADDRESSES, &question);
            return;
        }
        sending->err = fed_call_check_target(target, &sending->answer);
        if (!sending->err.code) {
            send_to_target(sending);
            return;
        }
    }
    end(sending, sending->err, &none);
}

static void find(struct fed_sending *sending)
{
    const struct http_fetch_reply none = {0};
    struct err err = fed_destination_look(sending->fed, &sending->ctx, &sending->finding);
    if (!err.code && sending->finding.need == FED_NEED_NOTHING) {
        aim(sending);
    } else if (!err.code && sending->questions++ < QUESTIONS_MAX) {
        ask_way(sending);
    } else {
        err = err.code ? err : err_make(ERR_UNAVAILABLE, "the way to the server was not found");
        end(sending, err, &none);
    }
}

static void take_way(struct fed_sending *sending, struct err err)
{
    const struct http_fetch_reply none = {0};
    if (err.code) {
        conclude(sending, err, &none);
    } else {
        find(sending);
    }
}

static void take_wellknown(struct fed_sending *sending, struct err err,
                           const struct http_fetch_reply *reply)
{
    take_way(sending, fed_destination_take_wellknown(sending->fed, &sending->ctx, &sending->finding,
                                                     err, reply));
}

static void take_host(struct fed_sending *sending)
{
    const struct http_fetch_reply none = {0};
    const struct http_dns_answer *answer = &sending->answer;
    if (answer->err.code) {
        take_wellknown(sending, answer->err, &none);
    } else if (!answer->is_needless && !answer->addresses.count) {
        take_wellknown(sending, err_make(ERR_UNAVAILABLE, "no address"), &none);
    } else {
        ask_wellknown(sending);
    }
}

static void take_services(struct fed_sending *sending)
{
    take_way(sending, fed_destination_take_srv(sending->fed, &sending->ctx, &sending->finding,
                                               sending->answer.err, &sending->answer.srvs));
}

static void take_addresses(struct fed_sending *sending)
{
    sending->err =
        fed_call_check_target(&sending->finding.targets[sending->target], &sending->answer);
    if (!sending->err.code) {
        send_to_target(sending);
        return;
    }
    sending->target++;
    aim(sending);
}

static void take_reply(struct fed_sending *sending)
{
    struct http_fetch_reply reply;
    sending->err = http_fetch_end(&sending->fetching, sending->ctx.arena, &reply);
    if (fed_call_may_go_on(sending->err) && sending->target + 1 < sending->finding.count) {
        sending->target++;
        aim(sending);
        return;
    }
    end(sending, sending->err, &reply);
}

static void run(void *arg)
{
    struct fed_sending *sending = arg;
    struct http_fetch_reply reply;
    struct err err = OK;
    switch (sending->stage) {
    case STAGE_FINDING:
        find(sending);
        break;
    case STAGE_HOST:
        take_host(sending);
        break;
    case STAGE_WELLKNOWN:
        err = http_fetch_end(&sending->fetching, sending->ctx.arena, &reply);
        take_wellknown(sending, err, &reply);
        break;
    case STAGE_SRV:
        take_services(sending);
        break;
    case STAGE_ADDRESSES:
        take_addresses(sending);
        break;
    case STAGE_SENT:
        take_reply(sending);
        break;
    }
}

/* --- public --- */

static void call_blocking(struct fed_sending *sending)
{
    struct fed_answer answer = {0};
    struct arena *arena = sending->ctx.arena;
    struct err err = fed_call(sending->fed, &sending->ctx, &sending->call, &answer);
    sending->done.fn(sending->done.arg, &sending->ctx, err, &answer);
    ctx_finish(&sending->ctx);
    arena_free(&arena);
}

void fed_call_start(struct fed *fed, const struct fed_call *call, const struct fed_called *done)
{
    struct arena *arena = arena_new();
    struct fed_sending *sending = arena_alloc(arena, sizeof *sending);
    const struct http_fetch_reply none = {0};
    *sending = (struct fed_sending){
        .fed = fed,
        .ctx = {.arena = arena, .now = fed->hs->now, .log = fed->hs->log, .may_wait = true},
        .call = *call,
        .done = *done};
    sending->call.destination = arena_copy(arena, call->destination);
    sending->call.path = arena_copy(arena, call->path);
    sending->call.method = arena_copy(arena, call->method);
    if (call->content_json.ptr) {
        sending->call.content_json = arena_copy(arena, call->content_json);
    }
    sending->finding.server = sending->call.destination;
    if (!fed->net.unwatched) {
        call_blocking(sending);
        return;
    }
    struct err err = fed_call_check(fed, &sending->ctx, &sending->call);
    if (err.code) {
        conclude(sending, err, &none);
        return;
    }
    fed_call_compose(fed, &sending->ctx, &sending->call, &sending->out);
    find(sending);
}
