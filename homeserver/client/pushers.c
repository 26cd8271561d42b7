/* Spec: client-server, "Push Notifications"; MSC3881 for `enabled`, MSC4174 for web push. */
#include "homeserver/service/pushers.h"

#include "crypto/token.h"
#include "crypto/webpush.h"
#include "homeserver/client/account_priv.h"
#include "homeserver/client/push_priv.h"
#include "homeserver/push/push.h"

enum {
    PUSHER_BYTES_MAX = 65536,
    ACK_LIFE_MS = 5 * 60 * 1000,
};

#define ENABLED LIT("org.matrix.msc3881.enabled")
#define WEBPUSH LIT("org.matrix.msc4174.webpush")

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

/* --- data --- */

/* HTTPS alone; plain http serves test gateways of servers that are allowed to reach their own
 * network. */
static struct err cut_scheme(struct hs *hs, struct slice *url_io)
{
    if (slice_has_prefix(*url_io, LIT("https://"))) {
        *url_io = slice_from(*url_io, 8);
    } else if (hs->conf->network_allow_private_addresses &&
               slice_has_prefix(*url_io, LIT("http://"))) {
        *url_io = slice_from(*url_io, 7);
    } else {
        return err_public(ERR_M_INVALID_PARAM, "`data.url` must be an https URL.");
    }
    return OK;
}

/* Spec: push-gateway, "Push Gateway API": that one path. */
static struct err check_gateway(struct hs *hs, const struct json *data)
{
    struct slice rest = json_get_string(data, LIT("url"));
    struct slice host;
    if (!rest.ptr) {
        return err_public(ERR_M_MISSING_PARAM, "An http pusher needs `data.url`.");
    }
    TRY(cut_scheme(hs, &rest));
    struct slice path = slice_cut(rest, '/', &host);
    if (host.len == 0 || !slice_eq(path, LIT("_matrix/push/v1/notify"))) {
        return err_public(ERR_M_INVALID_PARAM,
                          "`data.url` must have the path /_matrix/push/v1/notify.");
    }
    return OK;
}

static struct err check_subscription(struct hs *hs, struct slice pushkey, const struct json *data)
{
    struct webpush_subscriber subscriber;
    struct slice rest = json_get_string(data, LIT("url"));
    struct slice auth = json_get_string(data, LIT("auth"));
    struct slice host;
    unsigned char vapid[P256_PUBLIC_BYTES];
    if (!push_vapid_public(hs->push, vapid)) {
        return err_public(ERR_M_INVALID_PARAM, "This server does not send web push.");
    }
    if (!rest.ptr || !auth.ptr) {
        return err_public(ERR_M_MISSING_PARAM,
                          "A web push pusher needs `data.url` and `data.auth`.");
    }
    TRY(cut_scheme(hs, &rest));
    slice_cut(rest, '/', &host);
    if (host.len == 0) {
        return err_public(ERR_M_INVALID_PARAM, "`data.url` names no host.");
    }
    if (!webpush_parse_subscriber(pushkey, auth, &subscriber)) {
        return err_public(ERR_M_INVALID_PARAM,
                          "`pushkey` must be a P-256 public key in uncompressed form, and "
                          "`data.auth` 16 bytes, both in URL-safe base64.");
    }
    return OK;
}

static struct err read_data(struct hs *hs, const struct http_request *request, bool is_web,
                            struct slice pushkey)
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
    return is_web ? check_subscription(hs, pushkey, data) : check_gateway(hs, data);
}

/* --- a pusher --- */

struct setting {
    struct cs_room_call call;
    struct pusher pusher;
    struct json json; /* as GET /pushers will list it */
    bool is_web, append;
    bool needs_ack;
};

static struct err read_json(struct setting *s, struct slice kind)
{
    static const struct slice required[] = {LIT("app_display_name"), LIT("device_display_name"),
                                            LIT("lang")};
    struct arena *arena = s->call.ctx->arena;
    const struct http_request *request = s->call.request;
    struct slice text;
    bool enabled = true;
    s->json = json_object();
    for (size_t i = 0; i < COUNT_OF(required); i++) {
        TRY(cs_body_required(request, required[i], &text));
        json_set(arena, &s->json, required[i], json_string(text));
    }
    TRY(cs_body_string(request, LIT("profile_tag"), &text));
    if (text.ptr) {
        json_set(arena, &s->json, LIT("profile_tag"), json_string(text));
    }
    TRY(cs_body_bool(request, ENABLED, true, &enabled));
    TRY(read_data(s->call.hs, request, s->is_web, s->pusher.pushkey));
    json_set(arena, &s->json, LIT("kind"), json_string(kind));
    json_set(arena, &s->json, LIT("app_id"), json_string(s->pusher.app_id));
    json_set(arena, &s->json, LIT("pushkey"), json_string(s->pusher.pushkey));
    json_set(arena, &s->json, LIT("data"), *json_get(&request->json, LIT("data")));
    json_set(arena, &s->json, ENABLED, json_bool(enabled));
    return OK;
}

/* The URL and the secret are what they were, and the client has proved that it gets what is sent
 * there. */
static bool stays_active(const struct setting *s, const struct json *before)
{
    const struct json *old = json_get_object(before, LIT("data"));
    const struct json *new = json_get_object(&s->json, LIT("data"));
    return json_get_bool(before, LIT("activated"), false) &&
           slice_eq(json_get_string(old, LIT("url")), json_get_string(new, LIT("url"))) &&
           slice_eq(json_get_string(old, LIT("auth")), json_get_string(new, LIT("auth")));
}

/* What a pusher keeps when it is set again. Who switches it on or off from another device
 * (MSC3881) does not take it over. */
static struct err compare(struct setting *s)
{
    struct ctx *ctx = s->call.ctx;
    struct pusher present;
    struct json before = json_object();
    bool found = false;
    struct slice name = hs_pusher_name(ctx, s->pusher.app_id, s->pusher.pushkey);
    TRY(hs_pusher_get(s->call.hs, ctx, s->call.actor.user, name, &present, &found));
    if (found && json_parse(ctx->arena, present.json, &before).code != 0) {
        found = false;
    }
    s->pusher.set_ms = now_wall_ms(ctx->now);
    if (found && json_get(&s->call.request->json, ENABLED)) {
        s->pusher.device_id = present.device_id;
    }
    if (s->is_web) {
        s->needs_ack = !found || !stays_active(s, &before);
        s->pusher.ack_token = s->needs_ack ? token_uuid(ctx->arena) : present.ack_token;
        s->pusher.ack_until_ms =
            s->needs_ack ? s->pusher.set_ms + ACK_LIFE_MS : present.ack_until_ms;
        json_set(ctx->arena, &s->json, LIT("activated"), json_bool(!s->needs_ack));
    }
    return OK;
}

static struct err save(struct setting *s)
{
    struct hs *hs = s->call.hs;
    struct ctx *ctx = s->call.ctx;
    uint64_t user = s->call.actor.user;
    TRY(compare(s));
    if (s->pusher.device_id.len) {
        json_set(ctx->arena, &s->json, LIT("org.matrix.msc3881.device_id"),
                 json_string(s->pusher.device_id));
    }
    s->pusher.json = json_canonical(ctx->arena, &s->json);
    TRY(hs_pusher_set(hs, ctx, user, &s->pusher, s->append ? PUSHER_APPEND : PUSHER_REPLACE));
    return s->needs_ack ? push_activation(hs->push, ctx, user, &s->pusher) : OK;
}

static struct err set_pusher(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct setting s = {.pusher = {.device_id = request->requester->device_id}};
    const struct json *kind = json_get(&request->json, LIT("kind"));
    cs_call_begin(&s.call, app, ctx, request, reply);
    TRY(read_ids(request, &s.pusher));
    TRY(cs_body_bool(request, LIT("append"), false, &s.append));
    if (!kind) {
        return err_public(ERR_M_MISSING_PARAM, "`kind` is missing.");
    }
    if (kind->type == JSON_NULL) {
        http_reply_empty(reply);
        return hs_pusher_delete(s.call.hs, ctx, s.call.actor.user, s.pusher.app_id,
                                s.pusher.pushkey);
    }
    s.is_web = json_is_string(kind, WEBPUSH) || json_is_string(kind, LIT("webpush"));
    if (!s.is_web && !json_is_string(kind, LIT("http"))) {
        return err_public(ERR_M_INVALID_PARAM,
                          "`kind` must be \"http\" or \"org.matrix.msc4174.webpush\", or null to "
                          "remove the pusher.");
    }
    TRY(read_json(&s, kind->text));
    TRY(save(&s));
    reply->status = s.needs_ack ? 201 : 0; /* MSC4174: it is set, but needs to be activated */
    http_reply_empty(reply);
    return OK;
}

/* --- MSC4174: the client shows that it gets what is sent --- */

static struct err activate(struct hs *hs, struct ctx *ctx, uint64_t user,
                           const struct pusher *pusher)
{
    struct pusher active = *pusher;
    struct json json;
    TRY(json_parse(ctx->arena, pusher->json, &json));
    json_set(ctx->arena, &json, LIT("activated"), json_bool(true));
    active.json = json_canonical(ctx->arena, &json);
    return hs_pusher_set(hs, ctx, user, &active, PUSHER_APPEND);
}

static struct err find_and_activate(struct hs *hs, struct ctx *ctx, uint64_t user,
                                    const struct pusher *wanted)
{
    struct pushers pushers;
    bool knows_app = false;
    TRY(hs_pushers_list(hs, ctx, user, &pushers));
    for (size_t i = 0; i < pushers.count; i++) {
        const struct pusher *pusher = &pushers.items[i];
        if (!slice_eq(pusher->app_id, wanted->app_id)) {
            continue;
        }
        knows_app = true;
        if (pusher->ack_token.len == 0 || !token_eq(pusher->ack_token, wanted->ack_token)) {
            continue;
        }
        if (pusher->ack_until_ms < now_wall_ms(ctx->now)) {
            return err_public(ERR_M_EXPIRED_ACTIVATION_TOKEN,
                              "The token has expired; set the pusher again.");
        }
        return activate(hs, ctx, user, pusher);
    }
    return knows_app ? err_public(ERR_M_UNKNOWN_ACTIVATION_TOKEN,
                                  "No pusher of this `app_id` waits for this token.")
                     : err_public(ERR_M_NOT_FOUND, "There is no pusher of this `app_id`.");
}

static struct err ack_pusher(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    struct pusher wanted = {0};
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(cs_body_required(request, LIT("app_id"), &wanted.app_id));
    TRY(cs_body_required(request, LIT("ack_token"), &wanted.ack_token));
    http_reply_empty(reply);
    hs_user_lane_enter(call.hs, call.actor.user);
    struct err err = find_and_activate(call.hs, ctx, call.actor.user, &wanted);
    hs_user_lane_leave(call.hs, call.actor.user);
    return err;
}

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/client/v3/pushers", HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_pushers, "Push Notifications", NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_POST, "/_matrix/client/v3/pushers/set", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON,
     HTTP_LANE_NONE, PUSHER_BYTES_MAX, set_pusher, "Push Notifications", NULL,
     HTTP_ALLOW_SUSPENDED},
    {HTTP_POST, "/_matrix/client/unstable/org.matrix.msc4174/pushers/ack", HTTP_AUTH_USER,
     HTTP_RATE_WRITE, HTTP_BODY_JSON, HTTP_LANE_NONE, PUSHER_BYTES_MAX, ack_pusher,
     "Push Notifications", NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, "/_matrix/client/v3/notifications", HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, cs_get_notifications, "Listing Notifications", NULL, HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_pushers_routes = {routes, COUNT_OF(routes)};
