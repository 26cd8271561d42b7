/* What other servers ask about this one's aliases, users and tokens.
 * Spec: server-server, "Querying for information", "OpenID". */
#include "federation/fed.h"
#include "federation/routes.h"
#include "homeserver/service/directory.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/openid.h"
#include "homeserver/service/profiles.h"
#include "homeserver/service/users.h"

static struct err get_directory(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct hs *hs = app;
    struct room *room = NULL;
    struct slice *servers = NULL;
    size_t count = 0;
    struct slice alias = http_query_get(ctx, request, LIT("room_alias"));
    struct json_out out = json_out_to(&reply->body);
    if (!ids_is_alias(alias)) {
        return err_public(ERR_M_INVALID_PARAM, "`room_alias` is missing or no alias.");
    }
    if (!hs_is_local(hs, ids_alias_domain(ids_trust_alias(alias)).s)) {
        return err_public(ERR_M_NOT_FOUND, "The alias belongs to another server.");
    }
    TRY(hs_alias_find_room(hs, ctx, alias, &room));
    TRY(hs_room_servers(hs, ctx, room, &servers, &count));
    json_out_object(&out);
    json_out_key_string(&out, LIT("room_id"), hs_room_info(room).room_id);
    json_out_key_array(&out, LIT("servers"));
    json_out_string(&out, hs->server_name);
    for (size_t i = 0; i < count; i++) {
        json_out_string(&out, servers[i]);
    }
    json_out_array_end(&out);
    json_out_object_end(&out);
    return OK;
}

static struct err get_profile(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct hs *hs = app;
    struct json profile;
    struct slice user_id = http_query_get(ctx, request, LIT("user_id"));
    struct slice field = http_query_get(ctx, request, LIT("field"));
    if (!ids_is_user(user_id) || !hs_user_is_local(hs, user_id)) {
        return err_public(ERR_M_INVALID_PARAM, "`user_id` must be a user of this server.");
    }
    TRY(hs_profile_get(hs, ctx, user_id, &profile));
    if (field.len) {
        const struct json *value = json_get(&profile, field);
        struct json only = json_object();
        if (value) {
            json_set(ctx->arena, &only, field, *value);
        }
        profile = only;
    }
    json_write_canonical(&reply->body, &profile);
    return OK;
}

/* Spec: "Query for information": the kinds that this server knows have routes of their own. */
static struct err get_unknown(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    (void)app;
    (void)ctx;
    (void)request;
    (void)reply;
    return err_public(ERR_M_UNRECOGNIZED, "This kind of query is not known.");
}

static struct err get_userinfo(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct slice user_id;
    bool found = false;
    struct json_out out = json_out_to(&reply->body);
    struct slice token = http_query_get(ctx, request, LIT("access_token"));
    if (!token.len) {
        return err_public(ERR_M_MISSING_TOKEN, "`access_token` is missing.");
    }
    TRY(hs_openid_find(app, ctx, token, &user_id, &found));
    if (!found) {
        return err_public(ERR_M_UNKNOWN_TOKEN, "The token is not known or has expired.");
    }
    json_out_object(&out);
    json_out_key_string(&out, LIT("sub"), user_id);
    json_out_object_end(&out);
    return OK;
}

#define V1 "/_matrix/federation/v1/"
#define ASKED HTTP_AUTH_SERVER, HTTP_RATE_FEDERATION, HTTP_BODY_NONE, HTTP_LANE_NONE, 0

static const struct http_route routes[] = {
    {HTTP_GET, V1 "query/directory", ASKED, get_directory, "Querying for information", NULL, 0},
    {HTTP_GET, V1 "query/profile", ASKED, get_profile, "Querying for information", NULL, 0},
    {HTTP_GET, V1 "query/{queryType}", ASKED, get_unknown, "Querying for information", NULL, 0},
    {HTTP_GET, V1 "openid/userinfo", HTTP_AUTH_NONE, HTTP_RATE_FEDERATION, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_userinfo, "OpenID", NULL, 0},
};
const struct http_route_table ss_query_routes = {routes, COUNT_OF(routes)};
