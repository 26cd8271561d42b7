/* What clients tell about where a user stands in a room: receipts, read markers, typing.
 * Spec: client-server, "Receipts", "Fully read markers", "Typing Notifications". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/signals.h"

static struct err post_receipt(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct cs_room_call call;
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    struct receipt_request receipt = {.type = request->params[1],
                                      .event_id = request->params[2],
                                      .thread_id = json_get(&request->json, LIT("thread_id"))};
    TRY(hs_receipt_request(call.hs, ctx, call.room, &call.actor, &receipt));
    http_reply_empty(reply);
    return OK;
}

static const struct slice marker_types[] = {LIT("m.fully_read"), LIT("m.read"),
                                            LIT("m.read.private")};

static struct err post_read_markers(void *app, struct ctx *ctx, const struct http_request *request,
                                    struct http_reply *reply)
{
    struct cs_room_call call;
    struct slice event_ids[COUNT_OF(marker_types)];
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    for (size_t i = 0; i < COUNT_OF(marker_types); i++) {
        TRY(cs_body_string(request, marker_types[i], &event_ids[i]));
        if (event_ids[i].ptr && !ids_is_event(event_ids[i])) {
            return err_public(ERR_M_INVALID_PARAM, "A marker is not a valid event id.");
        }
    }
    for (size_t i = 0; i < COUNT_OF(marker_types); i++) {
        struct receipt_request receipt = {.type = marker_types[i], .event_id = event_ids[i]};
        if (event_ids[i].ptr) {
            TRY(hs_receipt_request(call.hs, ctx, call.room, &call.actor, &receipt));
        }
    }
    http_reply_empty(reply);
    return OK;
}

/* The time for which the user is to be shown as typing; 0 = has stopped. */
static struct err read_timeout(const struct http_request *request, int64_t *timeout_ms_out)
{
    const struct json *typing = json_get(&request->json, LIT("typing"));
    const struct json *timeout = json_get(&request->json, LIT("timeout"));
    if (!typing) {
        return err_public(ERR_M_MISSING_PARAM, "`typing` is missing.");
    }
    if (typing->type != JSON_BOOL) {
        return err_public(ERR_M_BAD_JSON, "`typing` must be true or false.");
    }
    *timeout_ms_out = HS_TYPING_DEFAULT_MS;
    if (timeout && timeout->type != JSON_NULL) {
        if (timeout->type != JSON_INT || timeout->integer < 0) {
            return err_public(ERR_M_BAD_JSON, "`timeout` must be a number of milliseconds.");
        }
        *timeout_ms_out = timeout->integer;
    }
    *timeout_ms_out = typing->boolean ? *timeout_ms_out : 0;
    return OK;
}

static struct err put_typing(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    int64_t timeout_ms = 0;
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    if (!slice_eq(request->params[1], call.actor.user_id)) {
        return err_public(ERR_M_FORBIDDEN, "You can say of yourself only that you are typing.");
    }
    TRY(read_timeout(request, &timeout_ms));
    TRY(hs_typing_request(call.hs, ctx, call.room, &call.actor, timeout_ms));
    http_reply_empty(reply);
    return OK;
}

#define ROOM "/_matrix/client/v3/rooms/{roomId}/"
enum { BODY_BYTES_MAX = 8192, OPEN = HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED };

static const struct http_route routes[] = {
    {HTTP_POST, ROOM "receipt/{receiptType}/{eventId}", HTTP_AUTH_USER, HTTP_RATE_WRITE,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, post_receipt, "Receipts", NULL, OPEN},
    {HTTP_POST, ROOM "read_markers", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON,
     HTTP_LANE_NONE, BODY_BYTES_MAX, post_read_markers, "Fully read markers", NULL, OPEN},
    {HTTP_PUT, ROOM "typing/{userId}", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON,
     HTTP_LANE_NONE, BODY_BYTES_MAX, put_typing, "Typing Notifications", NULL, HTTP_ALLOW_GUEST},
};
const struct http_route_table cs_receipts_routes = {routes, COUNT_OF(routes)};
