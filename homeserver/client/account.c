/* Spec: client-server, "Current account information", "Password management", "Account
 * deactivation", "Adding Account Administrative Contact Information". */
#include "homeserver/client/account_priv.h"
#include "homeserver/service/devices.h"

static struct err whoami(void *app, struct ctx *ctx, const struct http_request *request,
                         struct http_reply *reply)
{
    const struct requester *requester = request->requester;
    struct json_out out = json_out_to(&reply->body);
    (void)app;
    (void)ctx;
    json_out_object(&out);
    json_out_key_string(&out, LIT("user_id"), requester->user_id);
    if (requester->device_id.ptr) {
        json_out_key_string(&out, LIT("device_id"), requester->device_id);
    }
    json_out_key_bool(&out, LIT("is_guest"), requester->is_guest);
    json_out_object_end(&out);
    return OK;
}

/* The new password takes force first: were the server to stop in between, sessions that should have
 * ended would remain, but nobody could make new ones with the old password. */
static struct err change_password(void *app, struct ctx *ctx, const struct http_request *request,
                                  struct http_reply *reply)
{
    struct hs *hs = app;
    struct slice password;
    bool logout_devices = true;
    struct uia_result result;
    TRY(cs_body_string(request, LIT("new_password"), &password));
    TRY(cs_body_bool(request, LIT("logout_devices"), true, &logout_devices));
    if (password.ptr) {
        TRY(cs_check_new_password(hs, password));
    }
    TRY(cs_ask_password(hs, ctx, request, reply, &result));
    if (!result.complete) {
        return OK;
    }
    if (!password.ptr) {
        return err_public(ERR_M_MISSING_PARAM, "new_password is missing.");
    }
    TRY(hs_account_set_password(hs, ctx, result.user, password));
    if (logout_devices) {
        struct slice keep = request->requester ? request->requester->device_id : (struct slice){0};
        TRY(hs_devices_delete_others(hs, ctx, result.user, keep));
    }
    http_reply_empty(reply);
    return OK;
}

static struct err deactivate(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    bool erase = false;
    struct uia_result result;
    TRY(cs_body_bool(request, LIT("erase"), false, &erase));
    TRY(cs_ask_password(app, ctx, request, reply, &result));
    if (!result.complete) {
        return OK;
    }
    TRY(hs_account_deactivate(app, ctx, result.user, erase ? ACCOUNT_ERASE : ACCOUNT_KEEP_CONTENT));
    /* No contact address was ever bound, so all of them are unbound. */
    buf_add(&reply->body, LIT("{\"id_server_unbind_result\":\"success\"}"));
    return OK;
}

static struct err get_contacts(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    (void)app;
    (void)ctx;
    (void)request;
    buf_add(&reply->body, LIT("{\"threepids\":[]}"));
    return OK;
}

#define V3 "/_matrix/client/v3/"
static const struct http_route routes[] = {
    {HTTP_GET, V3 "account/whoami", HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE,
     0, whoami, "Current account information", NULL, HTTP_ALLOW_GUEST},
    {HTTP_POST, V3 "account/password", HTTP_AUTH_OPTIONAL, HTTP_RATE_LOGIN, HTTP_BODY_OPTIONAL_JSON,
     HTTP_LANE_NONE, CS_ACCOUNT_BODY_BYTES_MAX, change_password, "Password management", NULL,
     HTTP_ALLOW_SUSPENDED},
    {HTTP_POST, V3 "account/deactivate", HTTP_AUTH_OPTIONAL, HTTP_RATE_LOGIN,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, CS_ACCOUNT_BODY_BYTES_MAX, deactivate,
     "Account deactivation", NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, V3 "account/3pid", HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     get_contacts, "Adding Account Administrative Contact Information", NULL, 0},
};
const struct http_route_table cs_account_routes = {routes, COUNT_OF(routes)};
