/* Spec: client-server, "Push Notifications". */
#include "homeserver/service/pushers.h"

#include "homeserver/client/account_priv.h"

static struct err get_pushers(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    struct pushers pushers;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(hs_pushers_list(call.hs, ctx, call.actor.user, &pushers));
    json_out_object(&call.out);
    json_out_key_array(&call.out, LIT("pushers"));
    for (size_t i = 0; i < pushers.count; i++) {
        json_out_raw(&call.out, pushers.items[i].json);
    }
    json_out_array_end(&call.out);
    json_out_object_end(&call.out);
    return OK;
}

static size_t count_chars(struct slice text)
{
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++) {
        count += ((unsigned char)text.ptr[i] & 0xC0) != 0x80;
    }
    return count;
}

static struct err read_ids(const struct http_request *request, struct pusher *pusher)
{
    TRY(cs_body_required(request, LIT("app_id"), &pusher->app_id));
    TRY(cs_body_required(request, LIT("pushkey"), &pusher->pushkey));
    if (count_chars(pusher->app_id) > PUSHER_APP_ID_CHARS_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "`app_id` has at most 64 characters.");
    }
    if (pusher->pushkey.len > PUSHER_KEY_BYTES_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "`pushkey` has at most 512 bytes.");
    }
    return OK;
}

/* Spec: push-gateway, "Push Gateway API": https alone, and that one path. Plain http serves test
 * gateways of servers that are allowed to reach their own network. */
static struct err check_url(struct hs *hs, const struct json *data)
{
    struct slice rest = json_get_string(data, LIT("url"));
    struct slice host;
    if (!rest.ptr) {
        return err_public(ERR_M_MISSING_PARAM, "An http pusher needs `data.url`.");
    }
    if (slice_has_prefix(rest, LIT("https://"))) {
        rest = slice_from(rest, 8);
    } else if (hs->conf->network_allow_private_addresses &&
               slice_has_prefix(rest, LIT("http://"))) {
        rest = slice_from(rest, 7);
    } else {
        return err_public(ERR_M_INVALID_PARAM, "`data.url` must be an https URL.");
    }
    struct slice path = slice_cut(rest, '/', &host);
    if (host.len == 0 || !slice_eq(path, LIT("_matrix/push/v1/notify"))) {
        return err_public(ERR_M_INVALID_PARAM,
                          "`data.url` must have the path /_matrix/push/v1/notify.");
    }
    return OK;
}

static struct err read_data(struct hs *hs, const struct http_request *request)
{
    const struct json *data = json_get(&request->json, LIT("data"));
    if (!data) {
        return err_public(ERR_M_MISSING_PARAM, "`data` is missing.");
    }
    if (data->type != JSON_OBJECT) {
        return err_public(ERR_M_BAD_JSON, "`data` must be an object.");
    }
    const struct json *format = json_get(data, LIT("format"));
    if (format && format->type != JSON_STRING) {
        return err_public(ERR_M_BAD_JSON, "`data.format` must be a string.");
    }
    return check_url(hs, data);
}

/* The object as GET /pushers will list it. */
static struct err read_pusher(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                              struct pusher *pusher)
{
    static const struct slice required[] = {LIT("app_display_name"), LIT("device_display_name"),
                                            LIT("lang")};
    struct json json = json_object();
    struct slice text;
    for (size_t i = 0; i < COUNT_OF(required); i++) {
        TRY(cs_body_required(request, required[i], &text));
        json_set(ctx->arena, &json, required[i], json_string(text));
    }
    TRY(cs_body_string(request, LIT("profile_tag"), &text));
    if (text.ptr) {
        json_set(ctx->arena, &json, LIT("profile_tag"), json_string(text));
    }
    TRY(read_data(hs, request));
    json_set(ctx->arena, &json, LIT("kind"), json_string(LIT("http")));
    json_set(ctx->arena, &json, LIT("app_id"), json_string(pusher->app_id));
    json_set(ctx->arena, &json, LIT("pushkey"), json_string(pusher->pushkey));
    json_set(ctx->arena, &json, LIT("data"), *json_get(&request->json, LIT("data")));
    pusher->json = json_canonical(ctx->arena, &json);
    return OK;
}

static struct err set_pusher(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    struct pusher pusher = {.device_id = request->requester->device_id};
    const struct json *kind = json_get(&request->json, LIT("kind"));
    bool append = false;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(read_ids(request, &pusher));
    TRY(cs_body_bool(request, LIT("append"), false, &append));
    if (!kind) {
        return err_public(ERR_M_MISSING_PARAM, "`kind` is missing.");
    }
    http_reply_empty(reply);
    if (kind->type == JSON_NULL) {
        return hs_pusher_delete(call.hs, ctx, call.actor.user, pusher.app_id, pusher.pushkey);
    }
    if (!json_is_string(kind, LIT("http"))) {
        return err_public(ERR_M_INVALID_PARAM, "`kind` must be \"http\", or null to remove.");
    }
    TRY(read_pusher(call.hs, ctx, request, &pusher));
    return hs_pusher_set(call.hs, ctx, call.actor.user, &pusher,
                         append ? PUSHER_APPEND : PUSHER_REPLACE);
}

enum { PUSHER_BYTES_MAX = 65536 };

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/client/v3/pushers", HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_pushers, "Push Notifications", NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_POST, "/_matrix/client/v3/pushers/set", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON,
     HTTP_LANE_NONE, PUSHER_BYTES_MAX, set_pusher, "Push Notifications", NULL,
     HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_pushers_routes = {routes, COUNT_OF(routes)};
