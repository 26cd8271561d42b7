#include "homeserver/service/requester.h"

#include "homeserver/service/appservices.h"
#include "homeserver/service/tokens.h"
#include "homeserver/service/users_priv.h"

static struct err refuse(struct http_reply *reply, struct err err, struct slice extra)
{
    http_reply_error(reply, err, extra);
    return err;
}

static struct err refuse_token(struct http_reply *reply, enum token_state state)
{
    if (state == TOKEN_EXPIRED) {
        return refuse(reply,
                      err_public(ERR_M_UNKNOWN_TOKEN, "The access token has expired; refresh it."),
                      LIT("\"soft_logout\":true"));
    }
    return refuse(reply, err_make(ERR_M_UNKNOWN_TOKEN, "unknown access token"),
                  LIT("\"soft_logout\":false"));
}

/* What the state of the account forbids. Spec: client-server, "Account locking", "Account
 * suspension", "Guest Access". */
static struct err check_account(const struct http_request *request, struct http_reply *reply,
                                const struct requester *requester)
{
    uint32_t flags = request->route->flags;
    if (requester->is_locked && !(flags & HTTP_ALLOW_LOCKED)) {
        return refuse(reply, err_make(ERR_M_USER_LOCKED, "locked account"),
                      LIT("\"soft_logout\":true"));
    }
    if (requester->is_suspended && request->method != HTTP_GET && !(flags & HTTP_ALLOW_SUSPENDED)) {
        return refuse(reply, err_make(ERR_M_USER_SUSPENDED, "suspended account"),
                      (struct slice){0});
    }
    if (requester->is_guest && !(flags & HTTP_ALLOW_GUEST)) {
        return refuse(reply, err_make(ERR_M_GUEST_ACCESS_FORBIDDEN, "guest"), (struct slice){0});
    }
    if (request->route->auth == HTTP_AUTH_ADMIN && !requester->is_admin) {
        return refuse(reply,
                      err_public(ERR_M_FORBIDDEN, "This is for administrators of the server."),
                      (struct slice){0});
    }
    return OK;
}

/* --- application services --- */

/* Spec: application-service, "Identity assertion": user_id is in a namespace, or the sender is
 * meant. */
static struct err find_persona(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                               const struct appservice *service, struct requester *requester)
{
    uint32_t flags = 0;
    bool found = false;
    struct slice user_id = http_query_get(ctx, request, LIT("user_id"));
    requester->user_id = user_id.ptr ? user_id : service->sender;
    if (!hs_appservice_has_user(hs, service, requester->user_id)) {
        return err_public(ERR_M_FORBIDDEN,
                          "The application service may not act as this user: it is in none of its "
                          "namespaces.");
    }
    TRY(hs_user_find(hs, ctx, requester->user_id, &requester->user, &found));
    if (found) {
        TRY(hs_account_flags(hs, ctx, requester->user, &flags, &found));
    }
    if (!found) {
        return err_public(ERR_M_FORBIDDEN, "The application service has not registered this user.");
    }
    if (flags & ACCOUNT_DEACTIVATED) {
        return err_make(ERR_M_USER_DEACTIVATED, "use of a deactivated account");
    }
    requester->is_admin = flags & ACCOUNT_ADMIN;
    requester->is_locked = flags & ACCOUNT_LOCKED;
    requester->is_suspended = flags & ACCOUNT_SUSPENDED;
    return OK;
}

/* Spec: application-service, "Identity assertion": a device of that user. */
static struct err find_device(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                              struct requester *requester)
{
    struct device device;
    bool found = false;
    struct slice device_id = http_query_get(ctx, request, LIT("device_id"));
    device_id = device_id.ptr ? device_id
                              : http_query_get(ctx, request, LIT("org.matrix.msc3202.device_id"));
    if (!device_id.ptr) {
        return OK;
    }
    if (device_id.len > 0 && device_id.len <= DEVICE_ID_BYTES_MAX) {
        TRY(hs_device_get(hs, ctx, requester->user, device_id, &device, &found));
    }
    requester->device_id = device_id;
    return found ? OK
                 : err_public(ERR_M_UNKNOWN_DEVICE, "The user has no such device; make it with PUT "
                                                    "/devices/{deviceId}.");
}

static struct err authenticate_service(struct hs *hs, struct ctx *ctx, struct http_request *request,
                                       struct http_reply *reply, const struct appservice *service)
{
    struct requester *requester = arena_alloc(ctx->arena, sizeof *requester);
    *requester = (struct requester){
        .appservice = service->id, .is_appservice = true, .token_hash = service->as_token_hash};
    hs_appservice_seen(hs, service);
    TRY(find_persona(hs, ctx, request, service, requester));
    TRY(find_device(hs, ctx, request, requester));
    requester->is_unlimited =
        !service->is_rate_limited || slice_eq(requester->user_id, service->sender);
    TRY(check_account(request, reply, requester));
    request->requester = requester;
    ctx->author = requester->user;
    return OK;
}

struct err hs_authenticate_appservice(struct hs *hs, const struct http_request *request,
                                      const struct appservice **service_out)
{
    if (request->token.len == 0) {
        return err_make(ERR_M_MISSING_TOKEN, "no token of an application service");
    }
    *service_out = hs_appservice_by_token(hs, request->token);
    if (!*service_out) {
        return err_public(ERR_M_UNKNOWN_TOKEN,
                          "This is not the as_token of an application service of this server.");
    }
    hs_appservice_seen(hs, *service_out);
    return OK;
}

/* --- everybody --- */

static struct err authenticate_token(struct hs *hs, struct ctx *ctx, struct http_request *request,
                                     struct http_reply *reply)
{
    enum token_state state = TOKEN_UNKNOWN;
    const struct appservice *service = hs_appservice_by_token(hs, request->token);
    if (service) {
        return authenticate_service(hs, ctx, request, reply, service);
    }
    struct requester *requester = arena_alloc(ctx->arena, sizeof *requester);
    TRY(hs_token_find(hs, ctx, request->token, requester, &state));
    if (state != TOKEN_VALID) {
        return refuse_token(reply, state);
    }
    TRY(check_account(request, reply, requester));
    request->requester = requester;
    ctx->author = requester->user;
    if (tokens_seen_is_due(hs, ctx, requester)) {
        if (ctx->on_loop) {
            return err_make(ERR_WAITS, "when the device was seen is written down");
        }
        struct seen seen = {request->remote_address, request->user_agent};
        TRY(hs_device_seen(hs, ctx, requester->user, requester->device_id, &seen));
    }
    return OK;
}

struct err hs_authenticate(void *app, struct ctx *ctx, struct http_request *request,
                           struct http_reply *reply)
{
    struct hs *hs = app;
    request->requester = NULL;
    switch (request->route->auth) {
    case HTTP_AUTH_NONE:
        return OK;
    case HTTP_AUTH_OPTIONAL:
        return request->token.len > 0 ? authenticate_token(hs, ctx, request, reply) : OK;
    case HTTP_AUTH_USER:
    case HTTP_AUTH_ADMIN:
        if (request->token.len == 0) {
            return refuse(reply, err_make(ERR_M_MISSING_TOKEN, "no access token"),
                          (struct slice){0});
        }
        return authenticate_token(hs, ctx, request, reply);
    case HTTP_AUTH_SERVER:
        if (hs->authenticate_server) {
            return hs->authenticate_server(hs->fed, ctx, request, reply);
        }
        break;
    }
    return refuse(reply, err_make(ERR_M_UNAUTHORIZED, "no X-Matrix signature"), (struct slice){0});
}

uint64_t hs_lane_of_requester(void *app, const struct http_request *request)
{
    (void)app;
    return request->requester ? lane_of_user(request->requester->user) : 0;
}
