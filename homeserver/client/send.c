/* Spec: client-server, "Sending events to a room", "Redactions". */
#include "homeserver/client/delayed_events.h"

/* The sender's device scopes its transaction ids; application services without one share a scope.
 */
static struct send_request request_of(struct cs_room_call *call, struct slice type,
                                      struct slice txn_id)
{
    return (struct send_request){.actor = &call->actor,
                                 .device_id = call->viewer.device_id,
                                 .txn_id = txn_id,
                                 .type = type,
                                 .content = &call->request->json};
}

/* Application services may send events of another time. */
static struct err read_ts(struct cs_room_call *call, struct send_request *send)
{
    if (!call->request->requester->is_appservice) {
        return OK;
    }
    return http_query_int(call->ctx, call->request, LIT("ts"), 0, &send->origin_server_ts);
}

/* An event that is to be sent later may come without its content, when its transaction is known. */
static struct err check_body(const struct http_request *request)
{
    return request->body.len > 0 ? OK : err_public(ERR_M_NOT_JSON, "The request has no body.");
}

static struct err send_event(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    struct hs_sent sent;
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    struct send_request send = request_of(&call, request->params[1], request->params[2]);
    TRY(read_ts(&call, &send));
    if (cs_wants_delay(ctx, request)) {
        return cs_delay_event(&call, &send);
    }
    TRY(check_body(request));
    TRY(hs_send_message(call.hs, ctx, call.room, &send, &sent));
    cs_reply_event_id(&call, sent.event_id);
    return OK;
}

/* Spec: client-server, "Account suspension": events of one's own may be redacted, no others. */
static struct err check_suspended(struct cs_room_call *call, struct slice event_id)
{
    struct stored_event target;
    bool found = false;
    if (!call->request->requester->is_suspended) {
        return OK;
    }
    TRY(hs_event_find(call->hs, call->ctx, call->room, event_id, &target, &found));
    return found && slice_eq(target.event.sender.s, call->actor.user_id)
               ? OK
               : err_make(ERR_M_USER_SUSPENDED, "redaction by a suspended account");
}

static struct err redact(void *app, struct ctx *ctx, const struct http_request *request,
                         struct http_reply *reply)
{
    struct cs_room_call call;
    struct hs_sent sent;
    struct slice reason;
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    TRY(cs_body_string(request, LIT("reason"), &reason));
    TRY(check_suspended(&call, request->params[1]));
    struct send_request send = request_of(&call, LIT("m.room.redaction"), request->params[2]);
    TRY(read_ts(&call, &send));
    TRY(hs_redact(call.hs, ctx, call.room, &send, request->params[1], &sent));
    cs_reply_event_id(&call, sent.event_id);
    return OK;
}

static struct err put_state(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct cs_room_call call;
    struct hs_sent sent;
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    struct send_request send = request_of(&call, request->params[1], (struct slice){0});
    send.state_key = request->params[2].ptr ? request->params[2] : LIT("");
    TRY(read_ts(&call, &send));
    if (cs_wants_delay(ctx, request)) {
        return cs_delay_event(&call, &send);
    }
    TRY(check_body(request));
    TRY(hs_send_state(call.hs, ctx, call.room, &send, &sent));
    if (!sent.event_id.ptr) {
        struct stored_event current;
        bool found = false;
        TRY(hs_state_event(call.hs, ctx, call.room, hs_room_head(call.room).root, send.type,
                           send.state_key, &current, &found));
        sent.event_id = found ? current.event.id.s : LIT("");
    }
    cs_reply_event_id(&call, sent.event_id);
    return OK;
}

#define ROOM "/_matrix/client/v3/rooms/{roomId}/"
enum { EVENT_BODY_BYTES_MAX = 1 << 17 };

static const struct http_route routes[] = {
    {HTTP_PUT, ROOM "send/{eventType}/{txnId}", HTTP_AUTH_USER, HTTP_RATE_MESSAGE,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, EVENT_BODY_BYTES_MAX, send_event,
     "Sending events to a room", NULL, HTTP_ALLOW_GUEST},
    {HTTP_PUT, ROOM "redact/{eventId}/{txnId}", HTTP_AUTH_USER, HTTP_RATE_MESSAGE,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, EVENT_BODY_BYTES_MAX, redact, "Redactions", NULL,
     HTTP_ALLOW_SUSPENDED},
    {HTTP_PUT, ROOM "state/{eventType}/{stateKey}", HTTP_AUTH_USER, HTTP_RATE_MESSAGE,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, EVENT_BODY_BYTES_MAX, put_state,
     "Sending events to a room", NULL, HTTP_ALLOW_GUEST},
    {HTTP_PUT, ROOM "state/{eventType}/", HTTP_AUTH_USER, HTTP_RATE_MESSAGE,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, EVENT_BODY_BYTES_MAX, put_state,
     "Sending events to a room", NULL, HTTP_ALLOW_GUEST},
    {HTTP_PUT, ROOM "state/{eventType}", HTTP_AUTH_USER, HTTP_RATE_MESSAGE, HTTP_BODY_OPTIONAL_JSON,
     HTTP_LANE_NONE, EVENT_BODY_BYTES_MAX, put_state, "Sending events to a room", NULL,
     HTTP_ALLOW_GUEST},
};
const struct http_route_table cs_send_routes = {routes, COUNT_OF(routes)};
