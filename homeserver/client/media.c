/* Uploads and downloads, with authentication and on the old paths without.
 * Spec: client-server, "Content repository". */
#include "homeserver/base/mem.h"
#include "homeserver/client/account_priv.h"
#include "homeserver/client/rooms_priv.h"
#include "homeserver/media/media.h"
#include "homeserver/service/remote.h"

enum { TIMEOUT_DEFAULT_MS = 20000, TIMEOUT_MAX_MS = 60000 };

/* --- uploading --- */

struct upload {
    struct media_upload media;
};

static bool fills_announced(const struct http_request *request)
{
    return request->method == HTTP_PUT;
}

static struct err check_mxc(struct hs *hs, const struct http_request *request)
{
    bool good = hs_is_local(hs, request->params[0]) && media_id_is_valid(request->params[1]);
    return good ? OK : err_public(ERR_M_NOT_FOUND, "This media id was not announced here.");
}

/* Spec: client-server, "Common error codes": with M_USER_LIMIT_EXCEEDED goes an `info_uri`. */
static struct err explain_limit(struct hs *hs, struct ctx *ctx, struct http_reply *reply,
                                struct err err)
{
    struct slice uri = hs->conf->media_quota_info_uri;
    struct buf extra;
    if (err.code != ERR_M_USER_LIMIT_EXCEEDED) {
        return err;
    }
    buf_init_arena(&extra, ctx->arena, 4096);
    buf_add(&extra, LIT("\"info_uri\":"));
    struct json_out out = json_out_to(&extra);
    json_out_string(&out, uri.len ? uri : cs_base_url(hs, ctx));
    http_reply_error(reply, err, buf_slice(&extra));
    return err;
}

/* The files of bridges are those of many people; they count, and are let in. */
static bool has_quota(const struct http_request *request)
{
    return !request->requester->is_appservice;
}

static struct err begin_upload(void *app, struct ctx *ctx, struct http_request *request,
                               struct http_reply *reply)
{
    struct hs *hs = app;
    int64_t bytes = request->content_length > 0 ? request->content_length : 1;
    if (request->content_length > hs->conf->limits_upload_bytes) {
        return err_make(ERR_M_TOO_LARGE, "upload");
    }
    if (fills_announced(request)) {
        TRY(check_mxc(hs, request));
        TRY(media_check_fill(hs, ctx, request->requester->user, request->params[1]));
    }
    if (has_quota(request)) {
        TRY(explain_limit(hs, ctx, reply,
                          media_quota_check(hs, ctx, request->requester->user, bytes)));
    }
    struct upload *upload = mem_alloc(sizeof *upload);
    struct err err = media_upload_begin(hs, &upload->media);
    if (err.code != 0) {
        mem_free(upload);
        return err;
    }
    upload->media.quota = has_quota(request) ? MEDIA_QUOTA_HOLDS : MEDIA_QUOTA_WAIVED;
    request->stream = upload;
    return OK;
}

static struct err append_piece(void *stream, struct slice bytes)
{
    struct upload *upload = stream;
    return media_upload_append(&upload->media, bytes);
}

static void abort_upload(void *stream)
{
    struct upload *upload = stream;
    media_upload_abort(&upload->media);
    mem_free(upload);
}

static const struct http_stream_hooks upload_hooks = {begin_upload, append_piece, abort_upload};

static struct err finish(void *app, struct ctx *ctx, const struct http_request *request,
                         struct media *media_out)
{
    struct upload *upload = request->stream;
    struct slice name = http_query_get(ctx, request, LIT("filename"));
    struct media draft = {.uploader = request->requester->user,
                          .content_type = media_clean_type(request->content_type),
                          .file_name = media_clean_name(name)};
    if (fills_announced(request)) {
        draft.media_id = request->params[1];
    }
    struct err err = media_upload_finish(app, ctx, &upload->media, &draft, media_out);
    mem_free(upload);
    return err;
}

static void reply_uri(struct cs_room_call *call, const struct media *media)
{
    struct slice server = call->hs->server_name;
    struct slice uri = arena_printf(call->ctx->arena, "mxc://%.*s/%.*s", (int)server.len,
                                    server.ptr, (int)media->media_id.len, media->media_id.ptr);
    json_out_object(&call->out);
    json_out_key_string(&call->out, LIT("content_uri"), uri);
    if (!media->is_ready) {
        json_out_key_int(&call->out, LIT("unused_expires_at"), media->expires_ms);
    }
    json_out_object_end(&call->out);
}

static struct err post_upload(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    struct media media;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(explain_limit(app, ctx, reply, finish(app, ctx, request, &media)));
    reply_uri(&call, &media);
    return OK;
}

static struct err put_upload(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct media media;
    TRY(explain_limit(app, ctx, reply, finish(app, ctx, request, &media)));
    http_reply_empty(reply);
    return OK;
}

static struct err post_create(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    struct media media;
    cs_call_begin(&call, app, ctx, request, reply);
    if (has_quota(request)) {
        TRY(explain_limit(app, ctx, reply, media_quota_check(app, ctx, call.actor.user, 1)));
    }
    TRY(media_announce(call.hs, ctx, call.actor.user, &media));
    reply_uri(&call, &media);
    return OK;
}

/* --- downloading --- */

static struct err no_such_media(void)
{
    return err_public(ERR_M_NOT_FOUND, "There is no media of this id.");
}

struct asked_file {
    struct slice server, media_id;
    bool allow_remote;
    int64_t timeout_ms;
};

/* Where the file is kept; a file of another server is fetched first when it is not here. */
static struct err find_file(struct hs *hs, struct ctx *ctx, const struct asked_file *asked,
                            struct slice *kept_id_out)
{
    struct media media;
    bool found = false;
    if (!media_id_is_valid(asked->media_id) || !ids_is_server_name(asked->server)) {
        return no_such_media();
    }
    *kept_id_out = asked->media_id;
    if (hs_is_local(hs, asked->server)) {
        return media_id_is_own(asked->media_id) ? OK : no_such_media();
    }
    *kept_id_out = media_remote_id(ctx->arena, asked->server, asked->media_id);
    TRY(media_find(hs, ctx, *kept_id_out, &media, &found));
    if (found) {
        return OK;
    }
    return asked->allow_remote && hs->remote
               ? hs->remote->media(hs, ctx, asked->server, asked->media_id, asked->timeout_ms)
               : no_such_media();
}

static struct err serve(void *app, struct ctx *ctx, const struct http_request *request,
                        struct http_reply *reply, struct media_view *view)
{
    struct hs *hs = app;
    struct asked_file asked = {.server = request->params[0], .media_id = request->params[1]};
    bool is_old = request->requester == NULL;
    if (is_old && !hs->conf->media_legacy_paths) {
        return err_public(ERR_M_NOT_FOUND, "Media is served on the authenticated paths.");
    }
    TRY(http_query_bool(ctx, request, LIT("allow_remote"), true, &asked.allow_remote));
    /* Spec: client-server, "Content repository": what is fetched anew is none of the old media that
     * still go out without authentication; nobody makes this server fetch files unknown. */
    asked.allow_remote = asked.allow_remote && !is_old;
    TRY(http_query_int(ctx, request, LIT("timeout_ms"), TIMEOUT_DEFAULT_MS, &asked.timeout_ms));
    asked.timeout_ms = asked.timeout_ms > TIMEOUT_MAX_MS ? TIMEOUT_MAX_MS : asked.timeout_ms;
    TRY(find_file(hs, ctx, &asked, &view->media_id));
    view->if_none_match = request->if_none_match;
    if (request->method == HTTP_GET) {
        view->range = request->range;
    }
    return media_serve(hs, ctx, request, reply, view, asked.timeout_ms);
}

static struct err get_download(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct media_view view = {0};
    return serve(app, ctx, request, reply, &view);
}

static struct err get_named_download(void *app, struct ctx *ctx, const struct http_request *request,
                                     struct http_reply *reply)
{
    struct media_view view = {.file_name = media_clean_name(request->params[2])};
    return serve(app, ctx, request, reply, &view);
}

static struct err get_thumbnail(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct media_view view = {0};
    TRY(media_size_parse(ctx, request, &view.thumbnail));
    return serve(app, ctx, request, reply, &view);
}

static struct err get_config(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    json_out_object(&call.out);
    json_out_key_int(&call.out, LIT("m.upload.size"), call.hs->conf->limits_upload_bytes);
    json_out_object_end(&call.out);
    return OK;
}

static struct err get_preview(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct hs *hs = app;
    struct slice json;
    int64_t ts = 0;
    struct slice url = http_query_get(ctx, request, LIT("url"));
    if (!hs->conf->url_previews_enabled || !hs->sandbox) {
        return err_public(ERR_M_UNRECOGNIZED, "This server previews no pages.");
    }
    if (!url.ptr) {
        return err_public(ERR_M_MISSING_PARAM, "`url` is missing.");
    }
    TRY(http_query_int(ctx, request, LIT("ts"), 0, &ts));
    TRY(media_preview(hs, ctx, url, &json));
    buf_add(&reply->body, json);
    return OK;
}

#define SECTION "Content repository"
#define OLD "/_matrix/media/v3/"
#define NEW "/_matrix/client/v1/media/"
#define FILE_PATH "{serverName}/{mediaId}"
enum { ALLOW = HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED, FILES = ALLOW | HTTP_NO_FORMAT };
#define GET_ROUTE(path, auth, handler)                                                             \
    {                                                                                              \
        HTTP_GET, path, auth, HTTP_RATE_MEDIA, HTTP_BODY_NONE, HTTP_LANE_NONE, 0, handler,         \
            SECTION, NULL, FILES                                                                   \
    }

static const struct http_route routes[] = {
    {HTTP_POST, OLD "upload", HTTP_AUTH_USER, HTTP_RATE_MEDIA, HTTP_BODY_STREAM, HTTP_LANE_NONE,
     UINT32_MAX, post_upload, SECTION, &upload_hooks, HTTP_ALLOW_GUEST},
    {HTTP_PUT, OLD "upload/" FILE_PATH, HTTP_AUTH_USER, HTTP_RATE_MEDIA, HTTP_BODY_STREAM,
     HTTP_LANE_USER, UINT32_MAX, put_upload, SECTION, &upload_hooks, HTTP_ALLOW_GUEST},
    {HTTP_POST, "/_matrix/media/v1/create", HTTP_AUTH_USER, HTTP_RATE_MEDIA,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_USER, 65536, post_create, SECTION, NULL, HTTP_ALLOW_GUEST},
    GET_ROUTE(NEW "config", HTTP_AUTH_USER, get_config),
    GET_ROUTE(OLD "config", HTTP_AUTH_USER, get_config),
    {HTTP_GET, NEW "preview_url", HTTP_AUTH_USER, HTTP_RATE_MEDIA, HTTP_BODY_NONE, HTTP_LANE_NONE,
     0, get_preview, SECTION, NULL, 0},
    {HTTP_GET, OLD "preview_url", HTTP_AUTH_USER, HTTP_RATE_MEDIA, HTTP_BODY_NONE, HTTP_LANE_NONE,
     0, get_preview, SECTION, NULL, 0},
    GET_ROUTE(NEW "download/" FILE_PATH, HTTP_AUTH_USER, get_download),
    GET_ROUTE(NEW "download/" FILE_PATH "/{fileName}", HTTP_AUTH_USER, get_named_download),
    GET_ROUTE(NEW "thumbnail/" FILE_PATH, HTTP_AUTH_USER, get_thumbnail),
    GET_ROUTE(OLD "download/" FILE_PATH, HTTP_AUTH_OPTIONAL, get_download),
    GET_ROUTE(OLD "download/" FILE_PATH "/{fileName}", HTTP_AUTH_OPTIONAL, get_named_download),
    GET_ROUTE(OLD "thumbnail/" FILE_PATH, HTTP_AUTH_OPTIONAL, get_thumbnail),
};
const struct http_route_table cs_media_routes = {routes, COUNT_OF(routes)};
