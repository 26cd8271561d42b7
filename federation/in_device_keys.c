/* Devices and keys of this server's users, for other servers. Spec: server-server, "Device
 * Management", "End-to-End Encryption". */
#include "federation/fed_priv.h"
#include "federation/routes.h"
#include "homeserver/service/cross_signing.h"
#include "homeserver/service/device_stream.h"
#include "homeserver/service/users.h"

enum { BODY_BYTES_MAX = 1 << 20 };

/* A user of this server; found false: there is none of that name. */
static struct err find_own(struct hs *hs, struct ctx *ctx, struct slice user_id, uint64_t *user_out,
                           bool *found_out)
{
    *found_out = false;
    return hs_user_is_local(hs, user_id) ? hs_user_find(hs, ctx, user_id, user_out, found_out) : OK;
}

/* --- devices --- */

static void write_device(struct json_out *out, const struct device_news *device)
{
    json_out_object(out);
    json_out_key_string(out, LIT("device_id"), device->device_id);
    if (device->display_name.ptr) {
        json_out_key_string(out, LIT("device_display_name"), device->display_name);
    }
    json_out_key_raw(out, LIT("keys"), device->keys);
    json_out_object_end(out);
}

static struct err user_devices(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct device_stream_state state;
    struct slice user_id = request->params[0];
    struct json_out out = json_out_to(&reply->body);
    uint64_t user = 0;
    bool found = false;
    if (!ids_is_user(user_id) || !hs_user_is_local(app, user_id)) {
        return err_public(ERR_M_INVALID_PARAM, "Ask the user's own server for its devices.");
    }
    TRY(find_own(app, ctx, user_id, &user, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "There is no such user.");
    }
    TRY(hs_device_stream_state(app, ctx, user, &state));
    json_out_object(&out);
    json_out_key_array(&out, LIT("devices"));
    for (size_t i = 0; i < state.count; i++) {
        if (state.items[i].keys.len > 0) {
            write_device(&out, &state.items[i]);
        }
    }
    json_out_array_end(&out);
    if (state.master_key.len > 0) {
        json_out_key_raw(&out, LIT("master_key"), state.master_key);
    }
    if (state.self_signing_key.len > 0) {
        json_out_key_raw(&out, LIT("self_signing_key"), state.self_signing_key);
    }
    json_out_key_int(&out, LIT("stream_id"), (int64_t)state.stream_id);
    json_out_key_string(&out, LIT("user_id"), user_id);
    json_out_object_end(&out);
    return OK;
}

/* --- query --- */

static const struct json *wanted_of(const struct http_request *request, struct slice key,
                                    struct err *err_out)
{
    const struct json *wanted = json_get_object(&request->json, key);
    *err_out =
        wanted ? OK
               : err_public(ERR_M_BAD_JSON, "The body needs an object of users in device_keys or "
                                            "one_time_keys.");
    return wanted;
}

static struct err write_cross(struct hs *hs, struct ctx *ctx, const struct json *wanted,
                              enum cross_key key, struct json_out *out)
{
    json_out_key_object(out, arena_concat(ctx->arena, hs_cross_key_usage(key), LIT("_keys")));
    for (uint32_t i = 0; i < wanted->count; i++) {
        struct cross_view view = {.key = key};
        struct slice json;
        bool found = false;
        TRY(find_own(hs, ctx, wanted->members[i].key, &view.user, &found));
        if (found) {
            TRY(hs_cross_signing_get(hs, ctx, view, &json, &found));
        }
        if (found) {
            json_out_key_raw(out, wanted->members[i].key, json);
        }
    }
    json_out_object_end(out);
    return OK;
}

static struct err query(void *app, struct ctx *ctx, const struct http_request *request,
                        struct http_reply *reply)
{
    struct err err;
    struct json_out out = json_out_to(&reply->body);
    const struct json *wanted = wanted_of(request, LIT("device_keys"), &err);
    TRY(err);
    json_out_object(&out);
    json_out_key_object(&out, LIT("device_keys"));
    for (uint32_t i = 0; i < wanted->count; i++) {
        const struct json_member *member = &wanted->members[i];
        uint64_t user = 0;
        bool found = false;
        if (member->value.type != JSON_ARRAY) {
            return err_public(ERR_M_BAD_JSON, "device_keys maps user ids to lists of device ids.");
        }
        TRY(find_own(app, ctx, member->key, &user, &found));
        if (found) {
            json_out_key(&out, member->key);
            TRY(hs_keys_write_devices(app, ctx, user, &member->value, &out));
        }
    }
    json_out_object_end(&out);
    TRY(write_cross(app, ctx, wanted, CROSS_MASTER, &out));
    TRY(write_cross(app, ctx, wanted, CROSS_SELF_SIGNING, &out));
    json_out_object_end(&out);
    return OK;
}

/* --- claim --- */

static struct err claim(void *app, struct ctx *ctx, const struct http_request *request,
                        struct http_reply *reply)
{
    struct err err;
    struct json_out out = json_out_to(&reply->body);
    const struct json *wanted = wanted_of(request, LIT("one_time_keys"), &err);
    TRY(err);
    TRY(hs_keys_check_claims(wanted));
    json_out_object(&out);
    json_out_key_object(&out, LIT("one_time_keys"));
    for (uint32_t i = 0; i < wanted->count; i++) {
        TRY(hs_keys_write_claims(app, ctx, &wanted->members[i], &out));
    }
    json_out_object_end(&out);
    json_out_object_end(&out);
    return OK;
}

#define FED "/_matrix/federation/v1/user/"
#define SERVER HTTP_AUTH_SERVER, HTTP_RATE_FEDERATION
static const struct http_route routes[] = {
    {HTTP_GET, FED "devices/{userId}", SERVER, HTTP_BODY_NONE, HTTP_LANE_NONE, 0, user_devices,
     "Device Management", NULL, 0},
    {HTTP_POST, FED "keys/query", SERVER, HTTP_BODY_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, query,
     "End-to-End Encryption", NULL, 0},
    {HTTP_POST, FED "keys/claim", SERVER, HTTP_BODY_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, claim,
     "End-to-End Encryption", NULL, 0},
};
const struct http_route_table ss_device_keys_routes = {routes, COUNT_OF(routes)};
