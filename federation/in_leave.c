/* Users of other servers leave: they reject an invite, take back a knock, or go.
 * Spec: server-server, "Leaving Rooms (Rejecting Invites)". */
#include "federation/resident.h"
#include "federation/routes.h"

static struct err make_leave(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct resident_call call = {.membership = MEMBERSHIP_LEAVE};
    struct json content = json_object();
    TRY(resident_begin(&call, app, ctx, request, reply));
    TRY(resident_check_user(&call));
    json_set(ctx->arena, &content, LIT("membership"), json_string(LIT("leave")));
    return resident_reply_template(&call, &content);
}

static struct err take_leave(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct resident_call call = {.membership = MEMBERSHIP_LEAVE};
    struct event event;
    TRY(resident_begin(&call, app, ctx, request, reply));
    TRY(resident_read_event(&call, &event));
    return resident_accept(&call, &event);
}

static struct err send_leave_v2(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    TRY(take_leave(app, ctx, request, reply));
    http_reply_empty(reply);
    return OK;
}

/* The old form, which servers of old rooms still use. */
static struct err send_leave_v1(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    TRY(take_leave(app, ctx, request, reply));
    buf_add(&reply->body, LIT("[200,{}]"));
    return OK;
}

enum { EVENT_BODY_BYTES_MAX = 1 << 17 };

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/federation/v1/make_leave/{roomId}/{userId}", HTTP_AUTH_SERVER,
     HTTP_RATE_FEDERATION, HTTP_BODY_NONE, HTTP_LANE_NONE, 0, make_leave,
     "Leaving Rooms (Rejecting Invites)", NULL, 0},
    {HTTP_PUT, "/_matrix/federation/v1/send_leave/{roomId}/{eventId}", HTTP_AUTH_SERVER,
     HTTP_RATE_FEDERATION, HTTP_BODY_JSON, HTTP_LANE_NONE, EVENT_BODY_BYTES_MAX, send_leave_v1,
     "Leaving Rooms (Rejecting Invites)", NULL, 0},
    {HTTP_PUT, "/_matrix/federation/v2/send_leave/{roomId}/{eventId}", HTTP_AUTH_SERVER,
     HTTP_RATE_FEDERATION, HTTP_BODY_JSON, HTTP_LANE_NONE, EVENT_BODY_BYTES_MAX, send_leave_v2,
     "Leaving Rooms (Rejecting Invites)", NULL, 0},
};
const struct http_route_table ss_leave_routes = {routes, COUNT_OF(routes)};
