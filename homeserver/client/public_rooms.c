/* Spec: client-server, "Published room directory". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/remote.h"
#include "homeserver/service/room_summary.h"

static struct err check_access(const struct cs_room_call *call)
{
    return call->request->requester || call->hs->conf->room_directory_public_without_auth
               ? OK
               : err_public(ERR_M_MISSING_TOKEN, "An access token is required.");
}

/* The list of the server that `server` names, or of this one. */
static struct err write_list(struct cs_room_call *call, const struct json *body)
{
    struct public_rooms_query query;
    struct slice server = http_query_get(call->ctx, call->request, LIT("server"));
    struct json answer;
    TRY(hs_public_rooms_query_parse(body, &query));
    if (!server.len || hs_is_local(call->hs, server)) {
        return hs_public_rooms_write(call->hs, call->ctx, &query, &call->out);
    }
    if (!ids_is_server_name(server)) {
        return err_public(ERR_M_INVALID_PARAM, "`server` is not a server name.");
    }
    if (!call->hs->remote) {
        return err_public(ERR_M_FORBIDDEN, "This server does not talk to other servers.");
    }
    TRY(call->hs->remote->public_rooms(call->hs, call->ctx, server, body, &answer));
    json_out_value(&call->out, &answer);
    return OK;
}

static struct err get_public_rooms(void *app, struct ctx *ctx, const struct http_request *request,
                                   struct http_reply *reply)
{
    struct cs_room_call call;
    struct json body = json_object();
    int64_t limit = 0;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(check_access(&call));
    TRY(http_query_int(ctx, request, LIT("limit"), 0, &limit));
    struct slice since = http_query_get(ctx, request, LIT("since"));
    if (limit) {
        json_set(ctx->arena, &body, LIT("limit"), json_int(limit));
    }
    if (since.len) {
        json_set(ctx->arena, &body, LIT("since"), json_string(since));
    }
    return write_list(&call, &body);
}

static struct err post_public_rooms(void *app, struct ctx *ctx, const struct http_request *request,
                                    struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(check_access(&call));
    return write_list(&call, &request->json);
}

enum { BODY_BYTES_MAX = 1 << 16 };

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/client/v3/publicRooms", HTTP_AUTH_OPTIONAL, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_public_rooms, "Published room directory", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
    {HTTP_POST, "/_matrix/client/v3/publicRooms", HTTP_AUTH_OPTIONAL, HTTP_RATE_READ,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, post_public_rooms,
     "Published room directory", NULL, HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_public_rooms_routes = {routes, COUNT_OF(routes)};
