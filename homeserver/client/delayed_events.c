/* Events to be sent later, and what becomes of them: MSC4140 under its unstable names.
 * Spec: spec/delayed-events.md. */
#include "homeserver/client/delayed_events.h"

#include "homeserver/service/delayed.h"

/* --- scheduling --- */

static struct err schedule(struct cs_room_call *call, struct delayed_wish *wish)
{
    int64_t retry_after_ms = 0;
    struct slice delay_id;
    wish->retry_after_ms_out = &retry_after_ms;
    wish->event.user = call->actor.user;
    wish->event.user_id = call->actor.user_id;
    wish->event.room_id = call->request->params[0];
    wish->event.is_appservice = call->request->requester->is_appservice;
    wish->txn.device_id = call->viewer.device_id;
    if (wish->event.delay_ms <= 0) {
        return err_public(ERR_M_INVALID_PARAM, "The delay must be above 0 ms.");
    }
    struct err err = hs_delayed_schedule(call->hs, call->ctx, wish, &delay_id);
    if (err.code == ERR_M_LIMIT_EXCEEDED) {
        http_reply_header(
            call->reply, LIT("Retry-After"),
            arena_printf(call->ctx->arena, "%lld", (long long)(retry_after_ms + 999) / 1000));
        http_reply_error(
            call->reply, err,
            arena_printf(call->ctx->arena, "\"retry_after_ms\":%lld", (long long)retry_after_ms));
    }
    TRY(err);
    json_out_object(&call->out);
    json_out_key_string(&call->out, LIT("delay_id"), delay_id);
    json_out_object_end(&call->out);
    return OK;
}

bool cs_wants_delay(struct ctx *ctx, const struct http_request *request)
{
    return http_query_get(ctx, request, CS_DELAY_PARAM).ptr != NULL;
}

struct err cs_delay_event(struct cs_room_call *call, const struct send_request *send)
{
    struct delayed_wish wish = {
        .event = {.type = send->type,
                  .state_key = send->state_key,
                  .origin_server_ts = send->origin_server_ts},
        .txn = {.txn_id = send->txn_id},
    };
    if (call->request->body.len > 0) {
        wish.event.content = json_canonical(call->ctx->arena, send->content);
    }
    TRY(http_query_int(call->ctx, call->request, CS_DELAY_PARAM, 0, &wish.event.delay_ms));
    return schedule(call, &wish);
}

/* The form of the proposal's newer text: everything in the body. */
static struct err put_delayed_event(void *app, struct ctx *ctx, const struct http_request *request,
                                    struct http_reply *reply)
{
    struct cs_room_call call;
    struct delayed_wish wish = {
        .event = {.type = request->params[1]},
        .txn = {.txn_id = request->params[2]},
    };
    const struct json *content = json_get_object(&request->json, LIT("content"));
    const struct json *delay = json_get(&request->json, LIT("delay_ms"));
    cs_call_begin(&call, app, ctx, request, reply);
    if (!content) {
        return err_public(ERR_M_MISSING_PARAM, "`content` must be an object.");
    }
    if (!delay || delay->type != JSON_INT) {
        return err_public(ERR_M_MISSING_PARAM, "`delay_ms` must be a number of milliseconds.");
    }
    TRY(cs_body_string(request, LIT("state_key"), &wish.event.state_key));
    if (call.request->requester->is_appservice) {
        TRY(http_query_int(ctx, request, LIT("ts"), 0, &wish.event.origin_server_ts));
    }
    wish.event.delay_ms = delay->integer;
    wish.event.content = json_canonical(ctx->arena, content);
    return schedule(&call, &wish);
}

/* --- looking at them --- */

static void write_delayed(struct json_out *out, const struct delayed_event *event)
{
    json_out_object(out);
    json_out_key_string(out, LIT("delay_id"), event->delay_id);
    json_out_key_string(out, LIT("room_id"), event->room_id);
    json_out_key_string(out, LIT("type"), event->type);
    if (event->state_key.ptr) {
        json_out_key_string(out, LIT("state_key"), event->state_key);
    }
    json_out_key_int(out, LIT("delay_ms"), event->delay_ms);
    json_out_key_int(out, LIT("scheduled_at"), event->scheduled_ms);
    /* what the two were called before */
    json_out_key_int(out, LIT("delay"), event->delay_ms);
    json_out_key_int(out, LIT("running_since"), event->scheduled_ms);
    json_out_key_raw(out, LIT("content"), event->content);
    if (event->state != DELAYED_SCHEDULED) {
        json_out_key_int(out, LIT("finalised_ts"), event->finalised_ms);
    }
    if (event->state == DELAYED_SENT) {
        json_out_key_string(out, LIT("event_id"), event->event_id);
    }
    if (event->state == DELAYED_FAILED) {
        json_out_key_raw(out, LIT("error"), event->error);
    }
    json_out_object_end(out);
}

static struct err list_delayed(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct cs_room_call call;
    struct delayed_events events;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(delayed_rows_of_user(call.hs, ctx, call.actor.user, &events));
    json_out_object(&call.out);
    json_out_key_array(&call.out, LIT("delayed_events"));
    for (size_t i = 0; i < events.count; i++) {
        write_delayed(&call.out, &events.items[i]);
    }
    json_out_array_end(&call.out);
    json_out_object_end(&call.out);
    return OK;
}

static struct err get_delayed(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    struct delayed_event event;
    bool found = false;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(delayed_row_find(call.hs, ctx, request->params[0], &event, &found));
    if (!found || event.user != call.actor.user) {
        return err_public(ERR_M_NOT_FOUND, "There is no delayed event of this id.");
    }
    write_delayed(&call.out, &event);
    return OK;
}

/* --- managing them --- */

/* Whoever knows the id may: clients hand it to what watches over a call's connection. */
static struct err act(struct hs *hs, struct ctx *ctx, struct slice delay_id, struct slice action,
                      struct http_reply *reply)
{
    static const struct {
        struct slice name;
        struct err (*run)(struct hs *hs, struct ctx *ctx, struct slice delay_id);
    } actions[] = {{{"cancel", 6}, hs_delayed_cancel},
                   {{"restart", 7}, hs_delayed_restart},
                   {{"send", 4}, hs_delayed_send}};
    for (size_t i = 0; i < COUNT_OF(actions); i++) {
        if (slice_eq(action, actions[i].name)) {
            TRY(actions[i].run(hs, ctx, delay_id));
            http_reply_empty(reply);
            return OK;
        }
    }
    return err_public(ERR_M_INVALID_PARAM, "`action` must be cancel, restart or send.");
}

static struct err cancel_delayed(void *app, struct ctx *ctx, const struct http_request *request,
                                 struct http_reply *reply)
{
    return act(app, ctx, request->params[0], LIT("cancel"), reply);
}

static struct err restart_delayed(void *app, struct ctx *ctx, const struct http_request *request,
                                  struct http_reply *reply)
{
    return act(app, ctx, request->params[0], LIT("restart"), reply);
}

static struct err send_delayed(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    return act(app, ctx, request->params[0], LIT("send"), reply);
}

static struct err update_delayed(void *app, struct ctx *ctx, const struct http_request *request,
                                 struct http_reply *reply)
{
    struct slice action;
    TRY(cs_body_required(request, LIT("action"), &action));
    return act(app, ctx, request->params[0], action, reply);
}

#define BASE "/_matrix/client/unstable/org.matrix.msc4140/"
#define EVENTS BASE "delayed_events"
#define MANAGE                                                                                     \
    HTTP_AUTH_OPTIONAL, HTTP_RATE_WRITE, HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX
#define READ HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0
#define SECTION "Sending events to a room"
enum { BODY_BYTES_MAX = 1 << 17 };

static const struct http_route routes[] = {
    {HTTP_PUT, BASE "rooms/{roomId}/delayed_event/{eventType}/{txnId}", HTTP_AUTH_USER,
     HTTP_RATE_MESSAGE, HTTP_BODY_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, put_delayed_event, SECTION,
     NULL, HTTP_ALLOW_GUEST},
    {HTTP_GET, EVENTS, READ, list_delayed, SECTION, NULL, HTTP_ALLOW_GUEST},
    {HTTP_GET, EVENTS "/{delayId}", READ, get_delayed, SECTION, NULL, HTTP_ALLOW_GUEST},
    {HTTP_POST, EVENTS "/{delayId}", MANAGE, update_delayed, SECTION, NULL, HTTP_ALLOW_GUEST},
    {HTTP_POST, EVENTS "/{delayId}/cancel", MANAGE, cancel_delayed, SECTION, NULL,
     HTTP_ALLOW_GUEST},
    {HTTP_POST, EVENTS "/{delayId}/restart", MANAGE, restart_delayed, SECTION, NULL,
     HTTP_ALLOW_GUEST},
    {HTTP_POST, EVENTS "/{delayId}/send", MANAGE, send_delayed, SECTION, NULL, HTTP_ALLOW_GUEST},
};
const struct http_route_table cs_delayed_events_routes = {routes, COUNT_OF(routes)};
