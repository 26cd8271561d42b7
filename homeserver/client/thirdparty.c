/* What clients ask application services, and what application services ask about themselves.
 * Spec: client-server, "Third-party Networks"; application-service, "Pinging", "Published room
 * directories". */
#include "homeserver/appservice/ask.h"
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/directory.h"

enum { BODY_BYTES_MAX = 1 << 16 };

/* --- protocols --- */

static struct err get_protocols(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct hs *hs = app;
    struct json protocols;
    (void)request;
    TRY(as_protocols(hs->as, ctx, (struct slice){0}, &protocols));
    json_write_canonical(&reply->body, &protocols);
    return OK;
}

static struct err get_protocol(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct hs *hs = app;
    struct json protocols;
    TRY(as_protocols(hs->as, ctx, request->params[0], &protocols));
    const struct json *protocol = json_get_object(&protocols, request->params[0]);
    if (!protocol) {
        return err_public(ERR_M_NOT_FOUND, "No application service bridges this protocol.");
    }
    json_write_canonical(&reply->body, protocol);
    return OK;
}

/* --- users and places --- */

/* Who asks is not the service's business. */
static bool is_private(struct slice parameter, bool by_service)
{
    struct slice name;
    slice_cut(parameter, '=', &name);
    return slice_eq(name, LIT("access_token")) ||
           (by_service && (slice_eq(name, LIT("user_id")) || slice_eq(name, LIT("device_id"))));
}

static struct slice public_query(struct ctx *ctx, const struct http_request *request)
{
    struct buf kept;
    struct slice rest = request->query;
    buf_init_arena(&kept, ctx->arena, request->query.len + 1);
    while (rest.len > 0) {
        struct slice parameter;
        rest = slice_cut(rest, '&', &parameter);
        if (parameter.len > 0 && !is_private(parameter, request->requester->is_appservice)) {
            if (kept.len > 0) {
                buf_add_byte(&kept, '&');
            }
            buf_add(&kept, parameter);
        }
    }
    return buf_slice(&kept);
}

static struct err look_up(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                          struct as_lookup *lookup, struct http_reply *reply)
{
    struct json results;
    lookup->query = public_query(ctx, request);
    TRY(as_lookup(hs->as, ctx, lookup, &results));
    json_write_canonical(&reply->body, &results);
    return OK;
}

static struct err get_users(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct as_lookup lookup = {.kind = "user", .protocol = request->params[0]};
    return look_up(app, ctx, request, &lookup, reply);
}

static struct err get_locations(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct as_lookup lookup = {.kind = "location", .protocol = request->params[0]};
    return look_up(app, ctx, request, &lookup, reply);
}

static struct err require(struct ctx *ctx, const struct http_request *request, struct slice name)
{
    return http_query_get(ctx, request, name).ptr
               ? OK
               : err_publicf(ctx->arena, ERR_M_MISSING_PARAM, "`%.*s` is missing.", (int)name.len,
                             name.ptr);
}

static struct err get_user(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct as_lookup lookup = {.kind = "user"};
    TRY(require(ctx, request, LIT("userid")));
    return look_up(app, ctx, request, &lookup, reply);
}

static struct err get_location(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct as_lookup lookup = {.kind = "location"};
    TRY(require(ctx, request, LIT("alias")));
    return look_up(app, ctx, request, &lookup, reply);
}

/* --- for services alone --- */

static struct err find_service(struct hs *hs, const struct http_request *request,
                               const struct appservice **service_out)
{
    *service_out = hs_appservice_by_id(hs, request->requester->appservice);
    return *service_out ? OK
                        : err_public(ERR_M_FORBIDDEN, "This is for application services; use the "
                                                      "as_token of a registration.");
}

static void write_bad_status(struct http_reply *reply, struct err err,
                             const struct http_fetch_reply *answer)
{
    struct buf extra;
    buf_init_arena(&extra, reply->body.arena, BODY_BYTES_MAX);
    struct json_out out = json_out_to(&extra);
    json_out_key_int(&out, LIT("status"), answer->status);
    if (slice_is_utf8(answer->body) && answer->body.len < BODY_BYTES_MAX / 8) {
        json_out_key_string(&out, LIT("body"), answer->body);
    }
    http_reply_error(reply, err, buf_slice(&extra));
}

static struct err ping(void *app, struct ctx *ctx, const struct http_request *request,
                       struct http_reply *reply)
{
    struct hs *hs = app;
    struct as_ping ping = {0};
    struct json_out out = json_out_to(&reply->body);
    TRY(find_service(hs, request, &ping.service));
    if (!slice_eq(ping.service->id, request->params[0])) {
        return err_public(ERR_M_FORBIDDEN, "An application service may ping itself alone.");
    }
    TRY(cs_body_string(request, LIT("transaction_id"), &ping.transaction_id));
    struct err err = as_ping_service(hs->as, ctx, &ping);
    if (err.code == ERR_M_BAD_STATUS) {
        write_bad_status(reply, err, &ping.reply);
        return OK;
    }
    TRY(err);
    json_out_object(&out);
    json_out_key_int(&out, LIT("duration_ms"), ping.duration_ms);
    json_out_object_end(&out);
    return OK;
}

static struct err put_network(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct hs *hs = app;
    const struct appservice *service = NULL;
    struct slice visibility;
    struct room *room = NULL;
    TRY(find_service(hs, request, &service));
    TRY(cs_body_required(request, LIT("visibility"), &visibility));
    bool is_public = slice_eq(visibility, LIT("public"));
    if (!is_public && !slice_eq(visibility, LIT("private"))) {
        return err_public(ERR_M_INVALID_PARAM, "`visibility` must be public or private.");
    }
    if (request->params[0].len == 0 || request->params[0].len > STORE_ID_BYTES_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "The network's id is longer than 255 bytes.");
    }
    struct room_network network = {service->id, request->params[0]};
    TRY(hs_room_get_by_id(hs, ctx, request->params[1], &room));
    TRY(hs_network_set(hs, ctx, network, hs_room_info(room).number, is_public));
    http_reply_empty(reply);
    return OK;
}

#define V3 "/_matrix/client/v3/"
#define ASKED HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0
static const struct http_route routes[] = {
    {HTTP_GET, V3 "thirdparty/protocols", ASKED, get_protocols, "Third-party Networks", NULL,
     HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, V3 "thirdparty/protocol/{protocol}", ASKED, get_protocol, "Third-party Networks",
     NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, V3 "thirdparty/user/{protocol}", ASKED, get_users, "Third-party Networks", NULL,
     HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, V3 "thirdparty/location/{protocol}", ASKED, get_locations, "Third-party Networks",
     NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, V3 "thirdparty/user", ASKED, get_user, "Third-party Networks", NULL,
     HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, V3 "thirdparty/location", ASKED, get_location, "Third-party Networks", NULL,
     HTTP_ALLOW_SUSPENDED},
    {HTTP_POST, "/_matrix/client/v1/appservice/{appserviceId}/ping", HTTP_AUTH_USER,
     HTTP_RATE_WRITE, HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, ping, "Pinging",
     NULL, 0},
    {HTTP_PUT, V3 "directory/list/appservice/{networkId}/{roomId}", HTTP_AUTH_USER, HTTP_RATE_WRITE,
     HTTP_BODY_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, put_network, "Published room directory", NULL,
     0},
};
const struct http_route_table cs_thirdparty_routes = {routes, COUNT_OF(routes)};
