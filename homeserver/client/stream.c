/* The WebSocket stream of spec/stream.md. */
#include "homeserver/sync/stream.h"

#include "homeserver/client/routes_priv.h"

static struct err open_stream(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct hs *hs = app;
    return sync_stream_open(hs->sync, ctx, request, reply);
}

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/client/unstable/io.myelin.stream/v1", HTTP_AUTH_OPTIONAL, HTTP_RATE_NONE,
     HTTP_BODY_NONE, HTTP_LANE_NONE, 0, open_stream, "Syncing", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED | HTTP_WEBSOCKET},
};
const struct http_route_table cs_stream_routes = {routes, COUNT_OF(routes)};
