/* Receipts, read markers and typing. Spec: client-server, "Receipts", "Read and fully read
 * markers", "Typing Notifications". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/signals.h"

enum { BODY_BYTES_MAX = 65536 };

static struct err post_receipt(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct cs_room_call call;
    struct receipt_request receipt = {.type = request->params[1],
                                      .event_id = request->params[2],
                                      .thread_id = json_get(&request->json, LIT("thread_id"))};
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    TRY(hs_receipt_request(call.hs, ctx, call.room, &call.actor, &receipt));
    http_reply_empty(reply);
    return OK;
}

static struct err post_read_markers(void *app, struct ctx *ctx, const struct http_request *request,
                                    struct http_reply *reply)
{
    static const struct slice types[] = {LIT("m.fully_read"), LIT("m.read"), LIT("m.read.private")};
    struct cs_room_call call;
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        struct receipt_request receipt = {.type = types[i]};
        TRY(cs_body_string(request, types[i], &receipt.event_id));
        if (receipt.event_id.ptr) {
            TRY(hs_receipt_request(call.hs, ctx, call.room, &call.actor, &receipt));
        }
    }
    http_reply_empty(reply);
    return OK;
}

static struct err put_typing(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    const struct json *typing = json_get(&request->json, LIT("typing"));
    int64_t timeout_ms = HS_TYPING_DEFAULT_MS;
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    if (!slice_eq(request->params[1], call.actor.user_id)) {
        return err_public(ERR_M_FORBIDDEN, "You can only say that you are typing yourself.");
    }
    if (!typing || typing->type != JSON_BOOL) {
        return err_public(ERR_M_BAD_JSON, "`typing` must be a boolean.");
    }
    if (!json_get_int(&request->json, LIT("timeout"), &timeout_ms) || timeout_ms < 0) {
        timeout_ms = HS_TYPING_DEFAULT_MS;
    }
    TRY(hs_typing_request(call.hs, ctx, call.room, &call.actor, typing->boolean ? timeout_ms : 0));
    http_reply_empty(reply);
    return OK;
}

#define ROOM "/_matrix/client/v3/rooms/{roomId}"

static const struct http_route routes[] = {
    {HTTP_POST, ROOM "/receipt/{receiptType}/{eventId}", HTTP_AUTH_USER, HTTP_RATE_WRITE,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, post_receipt, "Receipts", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
    {HTTP_POST, ROOM "/read_markers", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON,
     HTTP_LANE_NONE, BODY_BYTES_MAX, post_read_markers, "Read and fully read markers", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
    {HTTP_PUT, ROOM "/typing/{userId}", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON,
     HTTP_LANE_NONE, BODY_BYTES_MAX, put_typing, "Typing Notifications", NULL, HTTP_ALLOW_GUEST},
};
const struct http_route_table cs_receipts_routes = {routes, COUNT_OF(routes)};
