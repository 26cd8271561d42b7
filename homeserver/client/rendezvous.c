/* Where two devices meet when one signs the other in by a QR code: MSC4108 as clients speak it, and
 * MSC4388, each under its unstable names. Spec: spec/rendezvous.md. */
#include "homeserver/service/rendezvous.h"

#include "homeserver/client/account_priv.h"

#include <time.h>

static struct err check_enabled(const struct hs *hs)
{
    return hs->conf->rendezvous_enabled
               ? OK
               : err_public(ERR_M_UNRECOGNIZED, "This server offers no place to meet.");
}

static bool may_open(const struct hs *hs, const struct http_request *request)
{
    return request->requester || hs->conf->rendezvous_anonymous;
}

static struct err check_opener(const struct hs *hs, const struct http_request *request)
{
    TRY(check_enabled(hs));
    return may_open(hs, request)
               ? OK
               : err_public(ERR_M_FORBIDDEN, "Only a device that is signed in can do this.");
}

/* --- MSC4108: the body is text, its version an ETag --- */

static struct slice http_date(struct ctx *ctx, int64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm parts;
    char text[64];
    gmtime_r(&seconds, &parts);
    size_t len = strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    return arena_copy(ctx->arena, (struct slice){text, len});
}

static struct slice etag_of(struct ctx *ctx, struct slice version)
{
    return arena_printf(ctx->arena, "\"%.*s\"", (int)version.len, version.ptr);
}

static void write_headers(struct ctx *ctx, struct http_reply *reply, const struct rendezvous *r)
{
    http_reply_header(reply, LIT("ETag"), etag_of(ctx, r->version));
    http_reply_header(reply, LIT("Expires"),
                      http_date(ctx, now_wall_ms(ctx->now) + r->expires_in_ms));
    http_reply_header(reply, LIT("Last-Modified"), http_date(ctx, r->changed_wall_ms));
    http_reply_header(reply, LIT("Cache-Control"), LIT("no-store"));
    http_reply_header(reply, LIT("Pragma"), LIT("no-cache"));
}

static struct slice version_of_header(struct slice etag)
{
    struct slice text = slice_trim(etag);
    bool is_quoted = text.len >= 2 && text.ptr[0] == '"' && text.ptr[text.len - 1] == '"';
    return is_quoted ? slice_sub(text, 1, text.len - 2) : text;
}

static struct err read_text(const struct http_request *request, struct rendezvous *draft)
{
    struct slice type = request->content_type;
    struct slice essence = slice_trim(slice_sub(type, 0, slice_find(type, ';')));
    if (!type.len) {
        return err_public(ERR_M_MISSING_PARAM, "The Content-Type header is missing.");
    }
    if (!slice_eq_nocase(essence, LIT("text/plain"))) {
        return err_public(ERR_M_INVALID_PARAM, "The content must be text/plain.");
    }
    draft->kind = RENDEZVOUS_TEXT;
    draft->data = request->body;
    draft->content_type = type;
    return OK;
}

static struct err post_text(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct hs *hs = app;
    struct rendezvous draft = {0};
    struct rendezvous opened;
    TRY(check_opener(hs, request));
    TRY(read_text(request, &draft));
    TRY(hs_rendezvous_open(hs->rendezvous, ctx, &draft, &opened));
    struct slice base = cs_base_url(hs, ctx);
    struct json_out out = json_out_to(&reply->body);
    write_headers(ctx, reply, &opened);
    reply->status = 201;
    json_out_object(&out);
    json_out_key_string(&out, LIT("url"),
                        arena_printf(ctx->arena, "%.*s%s/%.*s", (int)base.len, base.ptr,
                                     "/_matrix/client/unstable/org.matrix.msc4108/rendezvous",
                                     (int)opened.id.len, opened.id.ptr));
    json_out_object_end(&out);
    return OK;
}

static struct err get_text(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct hs *hs = app;
    struct rendezvous found;
    TRY(check_enabled(hs));
    TRY(hs_rendezvous_get(hs->rendezvous, ctx, RENDEZVOUS_TEXT, request->params[0], &found));
    write_headers(ctx, reply, &found);
    reply->content_type = found.content_type;
    if (slice_eq(version_of_header(request->if_none_match), found.version)) {
        reply->status = 304;
        return OK;
    }
    buf_add(&reply->body, found.data);
    return OK;
}

static struct err put_text(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct hs *hs = app;
    struct rendezvous draft = {.id = request->params[0]};
    struct rendezvous written = {0};
    TRY(check_enabled(hs));
    if (!request->if_match.len) {
        return err_public(ERR_M_MISSING_PARAM, "The If-Match header is missing.");
    }
    TRY(read_text(request, &draft));
    draft.version = version_of_header(request->if_match);
    struct err err = hs_rendezvous_put(hs->rendezvous, ctx, &draft, &written);
    if (err.code == ERR_M_CONCURRENT_WRITE) {
        write_headers(ctx, reply, &written);
        err.code = ERR_M_CONCURRENT_WRITE_412;
        http_reply_error(reply, err, LIT("\"org.matrix.msc4108.errcode\":\"M_CONCURRENT_WRITE\""));
    }
    TRY(err);
    write_headers(ctx, reply, &written);
    reply->status = 202;
    return OK;
}

static struct err delete_text(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct hs *hs = app;
    TRY(check_enabled(hs));
    TRY(hs_rendezvous_close(hs->rendezvous, ctx, RENDEZVOUS_TEXT, request->params[0]));
    reply->status = 204;
    return OK;
}

/* --- MSC4388: JSON --- */

static struct err discover(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct hs *hs = app;
    struct json_out out = json_out_to(&reply->body);
    (void)ctx;
    TRY(check_enabled(hs));
    json_out_object(&out);
    json_out_key_bool(&out, LIT("create_available"), may_open(hs, request));
    json_out_object_end(&out);
    return OK;
}

static void write_meeting(struct http_reply *reply, const struct rendezvous *r, struct slice key,
                          struct slice text)
{
    struct json_out out = json_out_to(&reply->body);
    json_out_object(&out);
    json_out_key_string(&out, key, text);
    json_out_key_string(&out, LIT("sequence_token"), r->version);
    json_out_key_int(&out, LIT("expires_in_ms"), r->expires_in_ms);
    json_out_object_end(&out);
}

static struct err post_json(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct hs *hs = app;
    struct rendezvous draft = {.kind = RENDEZVOUS_JSON};
    struct rendezvous opened;
    TRY(check_opener(hs, request));
    TRY(cs_body_required(request, LIT("data"), &draft.data));
    TRY(hs_rendezvous_open(hs->rendezvous, ctx, &draft, &opened));
    write_meeting(reply, &opened, LIT("id"), opened.id);
    return OK;
}

/* What strangers wrote is no page: a browser that goes there is turned away. */
static struct err get_json(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct hs *hs = app;
    struct rendezvous found;
    TRY(check_enabled(hs));
    if (slice_eq(request->fetch_mode, LIT("navigate"))) {
        return err_public(ERR_M_FORBIDDEN, "This is for programs alone.");
    }
    TRY(hs_rendezvous_get(hs->rendezvous, ctx, RENDEZVOUS_JSON, request->params[0], &found));
    write_meeting(reply, &found, LIT("data"), found.data);
    return OK;
}

static struct err put_json(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct hs *hs = app;
    struct rendezvous draft = {.kind = RENDEZVOUS_JSON, .id = request->params[0]};
    struct rendezvous written = {0};
    struct json_out out = json_out_to(&reply->body);
    TRY(check_enabled(hs));
    TRY(cs_body_required(request, LIT("sequence_token"), &draft.version));
    TRY(cs_body_required(request, LIT("data"), &draft.data));
    struct err err = hs_rendezvous_put(hs->rendezvous, ctx, &draft, &written);
    if (err.code == ERR_M_CONCURRENT_WRITE) {
        /* The same write again, whose answer was lost, has been done already. */
        err = slice_eq(written.data, draft.data)
                  ? OK
                  : err_public(ERR_M_RENDEZVOUS_WRITE, "The other device has written meanwhile.");
    }
    TRY(err);
    json_out_object(&out);
    json_out_key_string(&out, LIT("sequence_token"), written.version);
    json_out_object_end(&out);
    return OK;
}

static struct err delete_json(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct hs *hs = app;
    TRY(check_enabled(hs));
    TRY(hs_rendezvous_close(hs->rendezvous, ctx, RENDEZVOUS_JSON, request->params[0]));
    http_reply_empty(reply);
    return OK;
}

#define TEXT "/_matrix/client/unstable/org.matrix.msc4108/rendezvous"
#define JSON "/_matrix/client/unstable/io.element.msc4388/rendezvous"
#define SECTION "Login"
enum { TEXT_BYTES_MAX = RENDEZVOUS_BYTES_MAX, JSON_BYTES_MAX = 8 * RENDEZVOUS_BYTES_MAX };

static const struct http_route routes[] = {
    {HTTP_POST, TEXT, HTTP_AUTH_OPTIONAL, HTTP_RATE_LOGIN, HTTP_BODY_BYTES, HTTP_LANE_NONE,
     TEXT_BYTES_MAX, post_text, SECTION, NULL, 0},
    {HTTP_GET, TEXT "/{id}", HTTP_AUTH_NONE, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     get_text, SECTION, NULL, HTTP_NO_FORMAT},
    {HTTP_PUT, TEXT "/{id}", HTTP_AUTH_NONE, HTTP_RATE_WRITE, HTTP_BODY_BYTES, HTTP_LANE_NONE,
     TEXT_BYTES_MAX, put_text, SECTION, NULL, HTTP_NO_FORMAT},
    {HTTP_DELETE, TEXT "/{id}", HTTP_AUTH_NONE, HTTP_RATE_WRITE, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     delete_text, SECTION, NULL, HTTP_NO_FORMAT},
    {HTTP_GET, JSON, HTTP_AUTH_OPTIONAL, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     discover, SECTION, NULL, 0},
    {HTTP_POST, JSON, HTTP_AUTH_OPTIONAL, HTTP_RATE_LOGIN, HTTP_BODY_JSON, HTTP_LANE_NONE,
     JSON_BYTES_MAX, post_json, SECTION, NULL, 0},
    {HTTP_GET, JSON "/{id}", HTTP_AUTH_NONE, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     get_json, SECTION, NULL, 0},
    {HTTP_PUT, JSON "/{id}", HTTP_AUTH_NONE, HTTP_RATE_WRITE, HTTP_BODY_JSON, HTTP_LANE_NONE,
     JSON_BYTES_MAX, put_json, SECTION, NULL, 0},
    {HTTP_DELETE, JSON "/{id}", HTTP_AUTH_NONE, HTTP_RATE_WRITE, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     delete_json, SECTION, NULL, 0},
};
const struct http_route_table cs_rendezvous_routes = {routes, COUNT_OF(routes)};
