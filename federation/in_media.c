/* This server's files, for other servers. Spec: server-server, "Content Repository". */
#include "federation/fed.h"
#include "federation/routes.h"
#include "homeserver/media/media.h"

enum { TIMEOUT_DEFAULT_MS = 20000, TIMEOUT_MAX_MS = 60000 };

static struct err serve(void *app, struct ctx *ctx, const struct http_request *request,
                        struct http_reply *reply, struct media_view *view)
{
    int64_t timeout_ms = TIMEOUT_DEFAULT_MS;
    view->media_id = request->params[0];
    view->is_multipart = true;
    TRY(http_query_int(ctx, request, LIT("timeout_ms"), TIMEOUT_DEFAULT_MS, &timeout_ms));
    if (!media_id_is_own(view->media_id)) {
        return err_public(ERR_M_NOT_FOUND, "There is no media of this id.");
    }
    return media_serve(app, ctx, request, reply, view,
                       timeout_ms > TIMEOUT_MAX_MS ? TIMEOUT_MAX_MS : timeout_ms);
}

static struct err get_download(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct media_view view = {0};
    return serve(app, ctx, request, reply, &view);
}

static struct err get_thumbnail(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct media_view view = {0};
    TRY(media_size_parse(ctx, request, &view.thumbnail));
    return serve(app, ctx, request, reply, &view);
}

#define V1 "/_matrix/federation/v1/media/"
#define ASKED HTTP_AUTH_SERVER, HTTP_RATE_FEDERATION, HTTP_BODY_NONE, HTTP_LANE_NONE, 0

static const struct http_route routes[] = {
    {HTTP_GET, V1 "download/{mediaId}", ASKED, get_download, "Content Repository", NULL,
     HTTP_NO_FORMAT},
    {HTTP_GET, V1 "thumbnail/{mediaId}", ASKED, get_thumbnail, "Content Repository", NULL,
     HTTP_NO_FORMAT},
};
const struct http_route_table ss_media_routes = {routes, COUNT_OF(routes)};
