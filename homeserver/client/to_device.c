/* Spec: client-server, "Send-to-Device messaging". */
#include "homeserver/client/routes_priv.h"
#include "homeserver/service/requester.h"
#include "homeserver/service/to_device.h"

enum { BODY_BYTES_MAX = 2 << 20 };

static struct err bad_messages(void)
{
    return err_public(ERR_M_BAD_JSON,
                      "messages must map user ids to device ids and these to objects.");
}

static struct err count_items(const struct json *messages, size_t *count_out)
{
    *count_out = 0;
    for (uint32_t i = 0; i < messages->count; i++) {
        const struct json *devices = &messages->members[i].value;
        if (devices->type != JSON_OBJECT) {
            return bad_messages();
        }
        if (!ids_is_user(messages->members[i].key)) {
            return err_public(ERR_M_INVALID_PARAM, "messages holds an invalid user id.");
        }
        *count_out += devices->count;
    }
    return OK;
}

static struct err read_items(struct ctx *ctx, const struct json *messages,
                             struct to_device_send *send)
{
    size_t max = 0;
    TRY(count_items(messages, &max));
    send->items = arena_array(ctx->arena, max + 1, sizeof *send->items);
    for (uint32_t i = 0; i < messages->count; i++) {
        const struct json *devices = &messages->members[i].value;
        for (uint32_t j = 0; j < devices->count; j++) {
            if (devices->members[j].value.type != JSON_OBJECT) {
                return bad_messages();
            }
            send->items[send->count++] =
                (struct to_device_item){.user_id = messages->members[i].key,
                                        .device_id = devices->members[j].key,
                                        .content = &devices->members[j].value};
        }
    }
    return OK;
}

static struct err send_to_device(void *app, struct ctx *ctx, const struct http_request *request,
                                 struct http_reply *reply)
{
    const struct requester *requester = request->requester;
    const struct json *messages = json_get(&request->json, LIT("messages"));
    struct to_device_send send = {.sender = requester->user_id,
                                  .type = request->params[0],
                                  .user = requester->user,
                                  .device_id = requester->device_id,
                                  .txn_id = request->params[1]};
    if (!messages) {
        return err_public(ERR_M_MISSING_PARAM, "messages is missing.");
    }
    if (messages->type != JSON_OBJECT) {
        return bad_messages();
    }
    TRY(read_items(ctx, messages, &send));
    TRY(hs_to_device_send(app, ctx, &send));
    http_reply_empty(reply);
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_PUT, "/_matrix/client/v3/sendToDevice/{eventType}/{txnId}", HTTP_AUTH_USER,
     HTTP_RATE_NONE, HTTP_BODY_JSON, HTTP_LANE_USER, BODY_BYTES_MAX, send_to_device,
     "Send-to-Device messaging", NULL, HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_to_device_routes = {routes, COUNT_OF(routes)};
