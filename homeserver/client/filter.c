/* Stored filters. Spec: client-server, "Filtering". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/prefs.h"
#include "homeserver/sync/filter.h"

static struct err require_self(const struct http_request *request)
{
    return slice_eq(request->params[0], request->requester->user_id)
               ? OK
               : err_public(ERR_M_FORBIDDEN, "Filters can be kept and read for yourself only.");
}

static struct err post_filter(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    struct sync_filter filter;
    struct slice filter_id;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(require_self(request));
    TRY(sync_filter_parse(ctx->arena, &request->json, &filter));
    struct slice json = json_canonical(ctx->arena, &request->json);
    TRY(hs_filter_put(call.hs, ctx, call.actor.user, json, &filter_id));
    json_out_object(&call.out);
    json_out_key_string(&call.out, LIT("filter_id"), filter_id);
    json_out_object_end(&call.out);
    return OK;
}

static struct err get_filter(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    struct slice json;
    bool found = false;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(require_self(request));
    TRY(hs_filter_get(call.hs, ctx, call.actor.user, request->params[1], &json, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "There is no filter of this id.");
    }
    json_out_raw(&call.out, json);
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_POST, "/_matrix/client/v3/user/{userId}/filter", HTTP_AUTH_USER, HTTP_RATE_WRITE,
     HTTP_BODY_JSON, HTTP_LANE_NONE, SYNC_FILTER_BYTES_MAX, post_filter, "Filtering", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, "/_matrix/client/v3/user/{userId}/filter/{filterId}", HTTP_AUTH_USER, HTTP_RATE_NONE,
     HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_filter, "Filtering", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_filter_routes = {routes, COUNT_OF(routes)};
