/* Spec: client-server, "Login", "Refreshing access tokens", "Logging out". */
#include "homeserver/client/account_priv.h"
#include "homeserver/service/appservices.h"
#include "homeserver/service/devices.h"

static struct err get_flows(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    (void)app;
    (void)ctx;
    (void)request;
    buf_add(&reply->body, LIT("{\"flows\":[{\"type\":\"m.login.password\"},"
                              "{\"type\":\"m.login.token\",\"get_login_token\":true},"
                              "{\"type\":\"m.login.application_service\"}]}"));
    return OK;
}

static struct err wrong_credentials(void)
{
    return err_public(ERR_M_FORBIDDEN, "The user name or password is wrong.");
}

/* Who wants to sign in: `identifier`, or the older `user`. */
static struct err read_name(const struct http_request *request, struct slice *name_out)
{
    const struct json *identifier = json_get(&request->json, LIT("identifier"));
    if (!identifier) {
        struct err err = cs_body_required(request, LIT("user"), name_out);
        /* The third-party identifiers of old clients: none is known here. */
        return err.code != 0 && json_get(&request->json, LIT("address")) ? wrong_credentials()
                                                                         : err;
    }
    if (identifier->type != JSON_OBJECT) {
        return err_public(ERR_M_BAD_JSON, "identifier must be an object.");
    }
    struct slice type = json_get_string(identifier, LIT("type"));
    if (slice_eq(type, LIT("m.id.thirdparty")) || slice_eq(type, LIT("m.id.phone"))) {
        return wrong_credentials();
    }
    if (!slice_eq(type, LIT("m.id.user"))) {
        return err_public(ERR_M_UNKNOWN_400, "The type of the identifier is not known.");
    }
    *name_out = json_get_string(identifier, LIT("user"));
    return name_out->ptr ? OK : err_public(ERR_M_MISSING_PARAM, "identifier.user is missing.");
}

static struct err check_password(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                                 uint64_t *user_out)
{
    struct slice name;
    struct slice password;
    struct slice user_id;
    bool found = false;
    bool right = false;
    TRY(read_name(request, &name));
    TRY(cs_body_required(request, LIT("password"), &password));
    *user_out = 0;
    if (hs_user_resolve_login(hs, ctx, name, &user_id).code == 0) {
        TRY(hs_user_find(hs, ctx, user_id, user_out, &found));
    }
    TRY(hs_account_check_password(hs, ctx, *user_out, password, &right));
    return right ? OK : wrong_credentials();
}

static struct err check_token(struct hs *hs, const struct http_request *request, uint64_t *user_out)
{
    struct slice token;
    TRY(cs_body_required(request, LIT("token"), &token));
    return hs_login_token_take(hs, token, user_out)
               ? OK
               : err_public(ERR_M_FORBIDDEN, "The login token is not valid (any more).");
}

/* Spec: application-service, "Server admin style permissions": no password, but the as_token. */
static struct err check_service(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                                uint64_t *user_out)
{
    const struct appservice *service = NULL;
    struct slice name;
    struct slice user_id;
    bool found = false;
    TRY(hs_authenticate_appservice(hs, request, &service));
    TRY(read_name(request, &name));
    TRY(hs_user_resolve_login(hs, ctx, name, &user_id));
    if (!hs_appservice_has_user(hs, service, user_id)) {
        return err_public(ERR_M_EXCLUSIVE, "This user is in no namespace of the application "
                                           "service; name it in the registration.");
    }
    TRY(hs_user_find(hs, ctx, user_id, user_out, &found));
    return found ? OK : err_public(ERR_M_FORBIDDEN, "There is no such user; register it first.");
}

static struct err login(void *app, struct ctx *ctx, const struct http_request *request,
                        struct http_reply *reply)
{
    struct hs *hs = app;
    struct slice type;
    struct slice user_id;
    struct issued_tokens tokens;
    uint64_t user = 0;
    uint32_t flags = 0;
    bool found = false;
    TRY(cs_body_required(request, LIT("type"), &type));
    if (slice_eq(type, LIT("m.login.password"))) {
        TRY(check_password(hs, ctx, request, &user));
    } else if (slice_eq(type, LIT("m.login.token"))) {
        TRY(check_token(hs, request, &user));
    } else if (slice_eq(type, LIT("m.login.application_service"))) {
        TRY(check_service(hs, ctx, request, &user));
    } else {
        return err_public(ERR_M_UNKNOWN_400, "This login type is not offered.");
    }
    TRY(hs_account_flags(hs, ctx, user, &flags, &found));
    if (!found || (flags & ACCOUNT_DEACTIVATED)) {
        return err_make(ERR_M_USER_DEACTIVATED, "sign-in of a deactivated account");
    }
    if (flags & ACCOUNT_LOCKED) {
        http_reply_error(reply, err_make(ERR_M_USER_LOCKED, "sign-in of a locked account"),
                         LIT("\"soft_logout\":true"));
        return OK;
    }
    TRY(hs_user_id_of(hs, ctx, user, &user_id));
    TRY(cs_sign_in(hs, ctx, request, user, &tokens));
    struct cs_signed_in in = {user_id, &tokens};
    cs_reply_signed_in(hs, reply, &in);
    return OK;
}

static struct err get_token(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct hs *hs = app;
    struct uia_result result;
    struct slice token;
    TRY(cs_ask_password(hs, ctx, request, reply, &result));
    if (!result.complete) {
        return OK;
    }
    TRY(hs_login_token_make(hs, ctx, request->requester->user, &token));
    struct json_out out = json_out_to(&reply->body);
    json_out_object(&out);
    json_out_key_string(&out, LIT("login_token"), token);
    json_out_key_int(&out, LIT("expires_in_ms"), hs->conf->tokens_login_life);
    json_out_object_end(&out);
    return OK;
}

static struct err refresh(void *app, struct ctx *ctx, const struct http_request *request,
                          struct http_reply *reply)
{
    struct hs *hs = app;
    struct slice token;
    struct issued_tokens tokens;
    TRY(cs_body_required(request, LIT("refresh_token"), &token));
    struct err err = hs_token_refresh(hs, ctx, token, &tokens);
    if (err.code == ERR_M_UNKNOWN_TOKEN) {
        http_reply_error(reply, err, LIT("\"soft_logout\":false"));
        return OK;
    }
    TRY(err);
    struct json_out out = json_out_to(&reply->body);
    json_out_object(&out);
    json_out_key_string(&out, LIT("access_token"), tokens.access_token);
    json_out_key_string(&out, LIT("refresh_token"), tokens.refresh_token);
    json_out_key_int(&out, LIT("expires_in_ms"), tokens.expires_in_ms);
    json_out_object_end(&out);
    return OK;
}

static struct err logout(void *app, struct ctx *ctx, const struct http_request *request,
                         struct http_reply *reply)
{
    const struct requester *requester = request->requester;
    if (requester->device_id.ptr) {
        TRY(hs_devices_delete(app, ctx, requester->user, &requester->device_id, 1));
    }
    http_reply_empty(reply);
    return OK;
}

static struct err logout_all(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    TRY(hs_devices_delete_others(app, ctx, request->requester->user, (struct slice){0}));
    http_reply_empty(reply);
    return OK;
}

#define V3 "/_matrix/client/v3/"
enum { EVERYBODY = HTTP_ALLOW_LOCKED | HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED };

static const struct http_route routes[] = {
    {HTTP_GET, V3 "login", HTTP_AUTH_NONE, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     get_flows, "Login", NULL, 0},
    {HTTP_POST, V3 "login", HTTP_AUTH_NONE, HTTP_RATE_LOGIN, HTTP_BODY_JSON, HTTP_LANE_NONE,
     CS_ACCOUNT_BODY_BYTES_MAX, login, "Login", NULL, 0},
    {HTTP_POST, "/_matrix/client/v1/login/get_token", HTTP_AUTH_USER, HTTP_RATE_LOGIN,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, CS_ACCOUNT_BODY_BYTES_MAX, get_token, "Login", NULL,
     HTTP_ALLOW_SUSPENDED},
    {HTTP_POST, V3 "refresh", HTTP_AUTH_NONE, HTTP_RATE_LOGIN, HTTP_BODY_JSON, HTTP_LANE_NONE,
     CS_ACCOUNT_BODY_BYTES_MAX, refresh, "Refreshing access tokens", NULL, 0},
    {HTTP_POST, V3 "logout", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     logout, "Login", NULL, EVERYBODY},
    {HTTP_POST, V3 "logout/all", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     logout_all, "Login", NULL, EVERYBODY},
};
const struct http_route_table cs_login_routes = {routes, COUNT_OF(routes)};
