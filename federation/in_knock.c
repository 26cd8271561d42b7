/* Users of other servers knock. Spec: server-server, "Knocking upon a room". */
#include "federation/resident.h"
#include "federation/routes.h"

static struct err make_knock(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct resident_call call = {.membership = MEMBERSHIP_KNOCK};
    struct json content = json_object();
    TRY(resident_begin(&call, app, ctx, request, reply));
    TRY(resident_check_user(&call));
    if (!resident_check_version(&call)) {
        return OK;
    }
    json_set(ctx->arena, &content, LIT("membership"), json_string(LIT("knock")));
    return resident_reply_template(&call, &content);
}

static struct err send_knock(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct resident_call call = {.membership = MEMBERSHIP_KNOCK};
    struct event event;
    struct json state;
    struct json_out out = json_out_to(&reply->body);
    TRY(resident_begin(&call, app, ctx, request, reply));
    TRY(resident_read_event(&call, &event));
    TRY(resident_accept(&call, &event));
    TRY(resident_room_state(call.hs, ctx, call.room, &state));
    json_out_object(&out);
    json_out_key(&out, LIT("knock_room_state"));
    json_out_value(&out, &state);
    json_out_object_end(&out);
    return OK;
}

enum { EVENT_BODY_BYTES_MAX = 1 << 17 };

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/federation/v1/make_knock/{roomId}/{userId}", HTTP_AUTH_SERVER,
     HTTP_RATE_FEDERATION, HTTP_BODY_NONE, HTTP_LANE_NONE, 0, make_knock, "Knocking upon a room",
     NULL, 0},
    {HTTP_PUT, "/_matrix/federation/v1/send_knock/{roomId}/{eventId}", HTTP_AUTH_SERVER,
     HTTP_RATE_FEDERATION, HTTP_BODY_JSON, HTTP_LANE_NONE, EVENT_BODY_BYTES_MAX, send_knock,
     "Knocking upon a room", NULL, 0},
};
const struct http_route_table ss_knock_routes = {routes, COUNT_OF(routes)};
