/* Transactions of other servers. One of an origin runs at a time, the next ones wait their turn
 * without a thread; so an origin holds one thread at most, and each comes in order. The answer to
 * a transaction is remembered for when the origin asks again.
 *
 * An event that cites what is not here is written down (staged.c) before the answer leaves, and is
 * seen to afterwards: nobody waits for third servers meanwhile.
 * Spec: server-server, "Transactions". */
#include "federation/fed_priv.h"
#include "federation/receipt.h"
#include "federation/routes.h"
#include "federation/staged.h"
#include "federation/turns.h"
#include "homeserver/base/mem.h"

enum {
    SEND_BODY_BYTES = 12 << 20,
    PARK_MS = 90 * 1000, /* a sender gives up after a minute or so, and asks again */
    HOLD_MS = 1000,      /* for what the transaction's events lack */
};

struct transaction {
    struct hs *hs;
    struct ctx *ctx;
    struct slice origin, txn_id;
    const struct json *body;
    struct received *received;
    size_t count;
    uint64_t waiting_room; /* number of one in which an event of it waits; 0 = none */
};

/* --- one transaction --- */
static bool is_ours(struct err err)
{
    return err.code == ERR_IO || err.code == ERR_CANCELLED || err.code == ERR_WAITS;
}

static struct err wait_for_missing(struct transaction *txn, const struct receipt *receipt,
                                   struct received *received)
{
    struct staged_event event = {
        .room = received->room, .origin = txn->origin, .event = &received->event};
    struct err err = staged_add(txn->hs->fed->staged, txn->ctx, &event);
    if (err.code == ERR_LIMIT) {
        receipt_refuse(
            receipt, received, RECEIPT_MISSING,
            err_public(ERR_M_LIMIT_EXCEEDED, "Too many events wait here for what they cite."));
        return OK;
    }
    return err;
}

static struct err take_pdus(struct transaction *txn, const struct receipt *receipt)
{
    for (size_t i = 0; i < txn->count; i++) {
        struct received *one = &txn->received[i];
        if (one->step != RECEIPT_NONE) {
            continue;
        }
        struct err err = receipt_take(receipt, one);
        if (err.code != 0 && is_ours(err)) {
            return err;
        }
        if (err.code != 0) {
            receipt_refuse(receipt, one, RECEIPT_ROOM, err);
            continue;
        }
        if (one->waits) {
            TRY(wait_for_missing(txn, receipt, one));
            txn->waiting_room = hs_room_info(one->room).number;
        } else {
            staged_kick(txn->hs->fed->staged, hs_room_info(one->room).number);
        }
    }
    return OK;
}

static struct err take_edus(struct transaction *txn)
{
    const struct json *edus = json_get_array(txn->body, LIT("edus"));
    for (uint32_t i = 0; edus && i < edus->count; i++) {
        struct err err = fed_edu_receive(txn->hs->fed, txn->ctx, txn->origin, &edus->items[i]);
        if (err.code != 0 && is_ours(err)) {
            return err;
        }
        if (err.code != 0) {
            log_info(txn->ctx->log, "edu_refused", .origin = txn->origin,
                     .err = err.is_public ? slice_of(err.text) : (struct slice){0});
        }
    }
    return OK;
}

/* A soft failure is nothing the sender did wrong, and what a state that lacks members refuses may
 * yet stand by the whole one. */
static bool is_told(const struct received *one)
{
    if (one->step == RECEIPT_NONE || one->report.result == INTAKE_SOFT_FAILED) {
        return false;
    }
    return one->report.result != INTAKE_REJECTED || !one->room || !hs_room_is_partial(one->room);
}

static void write_results(const struct transaction *txn, struct buf *out)
{
    struct json_out json = json_out_to(out);
    json_out_object(&json);
    json_out_key_object(&json, LIT("pdus"));
    for (size_t i = 0; i < txn->count; i++) {
        const struct received *one = &txn->received[i];
        bool told = one->event_id.len == 0;
        for (size_t k = 0; k < i && !told; k++) {
            told = slice_eq(txn->received[k].event_id, one->event_id);
        }
        if (told) {
            continue;
        }
        json_out_key_object(&json, one->event_id);
        if (is_told(one)) {
            const char *text = one->err.is_public ? one->err.text : "The event was refused.";
            json_out_key_string(&json, LIT("error"), slice_of(text));
        }
        json_out_object_end(&json);
    }
    json_out_object_end(&json);
    json_out_object_end(&json);
}

static struct err run(struct transaction *txn, struct buf *out)
{
    struct receipt receipt = {
        .fed = txn->hs->fed, .hs = txn->hs, .ctx = txn->ctx, .origin = txn->origin};
    const struct json *pdus = json_get_array(txn->body, LIT("pdus"));
    txn->count = pdus ? pdus->count : 0;
    txn->received = arena_array(txn->ctx->arena, txn->count + 1, sizeof *txn->received);
    TRY(receipt_check(&receipt, pdus, txn->received));
    TRY(take_pdus(txn, &receipt));
    TRY(take_edus(txn));
    write_results(txn, out);
    return OK;
}

static struct err check_body(const struct json *body)
{
    const struct json *pdus = json_get(body, LIT("pdus"));
    const struct json *edus = json_get(body, LIT("edus"));
    if ((pdus && pdus->type != JSON_ARRAY) || (edus && edus->type != JSON_ARRAY)) {
        return err_public(ERR_M_BAD_JSON, "`pdus` and `edus` must be lists.");
    }
    if ((pdus && pdus->count > LIMIT_PDUS) || (edus && edus->count > LIMIT_EDUS)) {
        return err_public(ERR_M_INVALID_PARAM, "A transaction holds at most 50 PDUs and 100 EDUs.");
    }
    return OK;
}

/* Runs it, or gives the answer of before; then it is the turn of the origin's next one. */
static struct err answer(struct transaction *txn, struct http_reply *reply)
{
    struct turns *turns = txn->hs->fed->turns;
    uint64_t ticket = 0;
    if (turns_recall(turns, txn->origin, txn->txn_id, &reply->body, &ticket)) {
        txn->ctx->write_ticket = txn->ctx->write_ticket > ticket ? txn->ctx->write_ticket : ticket;
        return OK;
    }
    TRY(run(txn, &reply->body));
    turns_remember(turns, txn->origin, txn->txn_id, buf_slice(&reply->body),
                   txn->ctx->write_ticket);
    return OK;
}

/* --- one that waits for its turn --- */
struct parked_transaction {
    struct turn turn; /* first */
    struct hs *hs;
    struct http_parked *parked;
    struct arena *arena_owned;
    struct slice origin, txn_id, body;
};

static void free_parked(struct parked_transaction *one)
{
    arena_free(&one->arena_owned);
    mem_free(one);
}

static struct err run_parked(struct parked_transaction *one, struct ctx *ctx,
                             struct http_reply *reply)
{
    struct json body;
    TRY(json_parse_deep(ctx->arena, one->body, &body));
    struct transaction txn = {
        .hs = one->hs, .ctx = ctx, .origin = one->origin, .txn_id = one->txn_id, .body = &body};
    return answer(&txn, reply);
}

static struct err resume(void *arg, struct ctx *ctx, struct http_reply *reply)
{
    struct parked_transaction *one = arg;
    struct err err = run_parked(one, ctx, reply);
    if (err.code == ERR_WAITS) {
        return err; /* runs again where it may wait, still in its turn */
    }
    turns_leave(one->hs->fed->turns, one->origin);
    free_parked(one);
    return err;
}

static struct err resume_too_late(void *arg, struct ctx *ctx, struct http_reply *reply)
{
    (void)ctx;
    (void)reply;
    free_parked(arg);
    return err_public(ERR_M_UNAVAILABLE, "Earlier transactions took too long; send it again.");
}

static bool wake(struct turn *turn)
{
    struct parked_transaction *one = (struct parked_transaction *)turn;
    return http_unpark(one->parked, resume, one);
}

static void expired(void *arg)
{
    struct parked_transaction *one = arg;
    if (turns_withdraw(one->hs->fed->turns, one->origin, &one->turn)) {
        http_unpark(one->parked, resume_too_late, one);
    }
}

static struct err park(struct transaction *txn, const struct http_request *request,
                       struct http_reply *reply)
{
    struct parked_transaction *one = mem_alloc(sizeof *one);
    one->hs = txn->hs;
    one->arena_owned = arena_new();
    one->turn.wake = wake;
    one->turn.bytes = request->body.len;
    one->origin = arena_copy(one->arena_owned, txn->origin);
    one->txn_id = arena_copy(one->arena_owned, txn->txn_id);
    one->body = arena_copy(one->arena_owned, request->body);
    one->parked = http_park(txn->ctx, request, reply, PARK_MS, expired, one);
    if (turns_queue(txn->hs->fed->turns, one->origin, &one->turn)) {
        return OK;
    }
    reply->parked = false;
    free_parked(one);
    return err_public(ERR_M_LIMIT_EXCEEDED, "Send one transaction after the other.");
}

/* --- an answer that waits for what was lacking --- */

/* The origin sends the next one when this is answered: so what it sent before has been looked for
 * by then, and its transactions are no faster than that. */
struct held_answer {
    struct staged_wait wait; /* first */
    struct hs *hs;
    struct http_parked *parked;
    struct arena *arena_owned;
    struct slice origin, body;
    uint64_t ticket, room;
};

static struct err give_held(void *arg, struct ctx *ctx, struct http_reply *reply)
{
    struct held_answer *held = arg;
    buf_add(&reply->body, held->body);
    ctx->write_ticket = held->ticket;
    turns_leave(held->hs->fed->turns, held->origin);
    arena_free(&held->arena_owned);
    mem_free(held);
    return OK;
}

static void wake_held(struct staged_wait *wait)
{
    struct held_answer *held = (struct held_answer *)wait;
    http_unpark(held->parked, give_held, held);
}

static void expire_held(void *arg)
{
    struct held_answer *held = arg;
    if (staged_withdraw(held->hs->fed->staged, held->room, &held->wait)) {
        http_unpark(held->parked, give_held, held);
    }
}

/* Whether the answer waits, without a thread; the origin's turn goes on until it is given. */
static bool hold(struct transaction *txn, const struct http_request *request,
                 struct http_reply *reply)
{
    if (!txn->waiting_room || !request->connection) {
        return false;
    }
    struct held_answer *held = mem_alloc(sizeof *held);
    held->wait.wake = wake_held;
    held->hs = txn->hs;
    held->arena_owned = arena_new();
    held->origin = arena_copy(held->arena_owned, txn->origin);
    held->body = arena_copy(held->arena_owned, buf_slice(&reply->body));
    held->ticket = txn->ctx->write_ticket;
    held->room = txn->waiting_room;
    held->parked = http_park(txn->ctx, request, reply, HOLD_MS, expire_held, held);
    if (staged_await(txn->hs->fed->staged, held->room, &held->wait)) {
        return true;
    }
    reply->parked = false;
    arena_free(&held->arena_owned);
    mem_free(held);
    return false;
}

static struct err send_transaction(void *app, struct ctx *ctx, const struct http_request *request,
                                   struct http_reply *reply)
{
    struct transaction txn = {.hs = app,
                              .ctx = ctx,
                              .origin = fed_origin(request),
                              .txn_id = request->params[0],
                              .body = &request->json};
    TRY(check_body(txn.body));
    if (!turns_enter(txn.hs->fed->turns, txn.origin)) {
        return park(&txn, request, reply);
    }
    struct err err = answer(&txn, reply);
    if (err.code == 0 && hold(&txn, request, reply)) {
        return OK;
    }
    turns_leave(txn.hs->fed->turns, txn.origin);
    return err;
}

static const struct http_route routes[] = {
    {HTTP_PUT, "/_matrix/federation/v1/send/{txnId}", HTTP_AUTH_SERVER, HTTP_RATE_FEDERATION,
     HTTP_BODY_JSON, HTTP_LANE_NONE, SEND_BODY_BYTES, send_transaction, "Transactions", NULL,
     HTTP_DEEP_JSON},
};
const struct http_route_table ss_send_routes = {routes, COUNT_OF(routes)};
