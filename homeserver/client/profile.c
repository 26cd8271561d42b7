/* Spec: client-server, "Profiles". */
#include "homeserver/client/account_priv.h"
#include "homeserver/service/profiles.h"

static struct err load(void *app, struct ctx *ctx, const struct http_request *request,
                       struct json *profile_out)
{
    if (!ids_is_user(request->params[0])) {
        return err_public(ERR_M_INVALID_PARAM, "The user id is not valid.");
    }
    return hs_profile_get(app, ctx, request->params[0], profile_out);
}

static struct err get_profile(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct json profile;
    TRY(load(app, ctx, request, &profile));
    json_write_canonical(&reply->body, &profile);
    return OK;
}

static struct err get_field(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct json profile;
    TRY(load(app, ctx, request, &profile));
    const struct json *value = json_get(&profile, request->params[1]);
    if (!value) {
        return err_public(ERR_M_NOT_FOUND, "The user has not set this profile field.");
    }
    struct json_out out = json_out_to(&reply->body);
    json_out_object(&out);
    json_out_key(&out, request->params[1]);
    json_out_value(&out, value);
    json_out_object_end(&out);
    return OK;
}

/* Whose profile it is: one's own, or for administrators anybody's on this server. */
static struct err writable_user(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                                uint64_t *user_out)
{
    const struct requester *requester = request->requester;
    bool found = false;
    *user_out = requester->user;
    if (requester->is_guest && !slice_eq(request->params[1], LIT("displayname"))) {
        return err_make(ERR_M_GUEST_ACCESS_FORBIDDEN, "profile field of a guest");
    }
    if (slice_eq(request->params[0], requester->user_id)) {
        return OK;
    }
    if (!requester->is_admin || !hs_user_is_local(hs, request->params[0])) {
        return err_public(ERR_M_FORBIDDEN, "You can only change your own profile.");
    }
    TRY(hs_user_find(hs, ctx, request->params[0], user_out, &found));
    return found ? OK : err_public(ERR_M_NOT_FOUND, "There is no such user.");
}

static struct err put_field(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    uint64_t user = 0;
    const struct json *value = json_get(&request->json, request->params[1]);
    TRY(writable_user(app, ctx, request, &user));
    if (request->params[1].len > PROFILE_KEY_BYTES_MAX) {
        return err_make(ERR_M_KEY_TOO_LARGE, "profile key");
    }
    if (!value) {
        return err_public(ERR_M_MISSING_PARAM, "The body lacks the member named in the path.");
    }
    TRY(hs_profile_set(app, ctx, user, request->params[1], value));
    http_reply_empty(reply);
    return OK;
}

static struct err delete_field(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    uint64_t user = 0;
    TRY(writable_user(app, ctx, request, &user));
    TRY(hs_profile_set(app, ctx, user, request->params[1], NULL));
    http_reply_empty(reply);
    return OK;
}

#define PROFILE "/_matrix/client/v3/profile/{userId}"
#define FIELD PROFILE "/{keyName}"
enum { FIELD_BODY_BYTES_MAX = 256 * 1024 };

static const struct http_route routes[] = {
    {HTTP_GET, PROFILE, HTTP_AUTH_NONE, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     get_profile, "Profiles", NULL, 0},
    {HTTP_GET, FIELD, HTTP_AUTH_NONE, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_field,
     "Profiles", NULL, 0},
    {HTTP_PUT, FIELD, HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON, HTTP_LANE_NONE,
     FIELD_BODY_BYTES_MAX, put_field, "Profiles", NULL, HTTP_ALLOW_GUEST},
    {HTTP_DELETE, FIELD, HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     delete_field, "Profiles", NULL, HTTP_ALLOW_GUEST},
};
const struct http_route_table cs_profile_routes = {routes, COUNT_OF(routes)};
