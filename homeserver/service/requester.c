#include "homeserver/service/requester.h"

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

static struct err authenticate_token(struct hs *hs, struct ctx *ctx, struct http_request *request,
                                     struct http_reply *reply)
{
    enum token_state state = TOKEN_UNKNOWN;
    struct requester *requester = arena_alloc(ctx->arena, sizeof *requester);
    TRY(hs_token_find(hs, ctx, request->token, requester, &state));
    if (state != TOKEN_VALID) {
        return refuse_token(reply, state);
    }
    TRY(check_account(request, reply, requester));
    request->requester = requester;
    ctx->author = requester->user;
    if (tokens_seen_is_due(hs, requester, now_wall_ms(ctx->now))) {
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
