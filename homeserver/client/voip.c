/* Credentials for a TURN server that shares a secret with this one (the "TURN REST API" that coturn
 * speaks with use-auth-secret), or fixed ones. Spec: client-server, "Voice over IP". */
#include "crypto/token.h"
#include "homeserver/client/rooms_priv.h"

struct turn_login {
    struct slice username, password;
};

static struct turn_login make_login(struct cs_room_call *call)
{
    struct ctx *ctx = call->ctx;
    const struct conf *conf = call->hs->conf;
    struct turn_login login = {conf->turn_username, conf->turn_password};
    if (conf->turn_shared_secret.len) {
        int64_t end = (now_wall_ms(ctx->now) + conf->turn_credentials_life) / 1000;
        login.username = arena_printf(ctx->arena, "%lld:%.*s", (long long)end,
                                      (int)call->actor.user_id.len, call->actor.user_id.ptr);
        login.password =
            token_hmac_sha1_base64(ctx->arena, conf->turn_shared_secret, login.username);
    }
    return login;
}

static struct err turn_server(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    const struct conf *conf = ((struct hs *)app)->conf;
    cs_call_begin(&call, app, ctx, request, reply);
    if (conf->turn_uris.count == 0) { /* none is offered; clients then use what they know */
        http_reply_empty(reply);
        return OK;
    }
    if (call.actor.is_guest && !conf->turn_guests) {
        return err_public(ERR_M_FORBIDDEN, "Guests may not use the TURN server.");
    }
    struct turn_login login = make_login(&call);
    json_out_object(&call.out);
    json_out_key_string(&call.out, LIT("username"), login.username);
    json_out_key_string(&call.out, LIT("password"), login.password);
    json_out_key_int(&call.out, LIT("ttl"), conf->turn_credentials_life / 1000);
    json_out_key_array(&call.out, LIT("uris"));
    for (size_t i = 0; i < conf->turn_uris.count; i++) {
        json_out_string(&call.out, conf->turn_uris.items[i]);
    }
    json_out_array_end(&call.out);
    json_out_object_end(&call.out);
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/client/v3/voip/turnServer", HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, turn_server, "Voice over IP", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_voip_routes = {routes, COUNT_OF(routes)};
