/* Spec: client-server, "OpenID". */
#include "homeserver/service/openid.h"

#include "homeserver/client/rooms_priv.h"

static struct err request_token(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct cs_room_call call;
    struct slice token;
    cs_call_begin(&call, app, ctx, request, reply);
    if (!slice_eq(request->params[0], call.actor.user_id)) {
        return err_public(ERR_M_FORBIDDEN, "A token can be had for your own user id only.");
    }
    TRY(hs_openid_issue(call.hs, ctx, call.actor.user, &token));
    json_out_object(&call.out);
    json_out_key_string(&call.out, LIT("access_token"), token);
    json_out_key_string(&call.out, LIT("token_type"), LIT("Bearer"));
    json_out_key_string(&call.out, LIT("matrix_server_name"), call.hs->server_name);
    json_out_key_int(&call.out, LIT("expires_in"), OPENID_LIFE_MS / 1000);
    json_out_object_end(&call.out);
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_POST, "/_matrix/client/v3/user/{userId}/openid/request_token", HTTP_AUTH_USER,
     HTTP_RATE_WRITE, HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, 1 << 16, request_token, "OpenID",
     NULL, 0},
};
const struct http_route_table cs_openid_routes = {routes, COUNT_OF(routes)};
