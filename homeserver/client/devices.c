/* Spec: client-server, "Device Management". */
#include "homeserver/client/account_priv.h"
#include "homeserver/service/devices.h"

static void write_device(struct json_out *out, const struct device *device)
{
    json_out_object(out);
    json_out_key_string(out, LIT("device_id"), device->device_id);
    if (device->display_name.ptr) {
        json_out_key_string(out, LIT("display_name"), device->display_name);
    }
    if (device->last_seen_ms != 0) {
        json_out_key_string(out, LIT("last_seen_ip"), device->last_seen_ip);
        json_out_key_int(out, LIT("last_seen_ts"), device->last_seen_ms);
    }
    json_out_object_end(out);
}

static struct err list_devices(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct devices devices;
    struct json_out out = json_out_to(&reply->body);
    TRY(hs_devices_list(app, ctx, request->requester->user, &devices));
    json_out_object(&out);
    json_out_key_array(&out, LIT("devices"));
    for (size_t i = 0; i < devices.count; i++) {
        write_device(&out, &devices.items[i]);
    }
    json_out_array_end(&out);
    json_out_object_end(&out);
    return OK;
}

static struct err no_such_device(void)
{
    return err_public(ERR_M_NOT_FOUND, "You have no such device.");
}

static struct err get_device(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct device device;
    bool found = false;
    struct json_out out = json_out_to(&reply->body);
    TRY(hs_device_get(app, ctx, request->requester->user, request->params[0], &device, &found));
    if (!found) {
        return no_such_device();
    }
    write_device(&out, &device);
    return OK;
}

/* Only application services may make devices here. */
static struct err put_device(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    const struct requester *requester = request->requester;
    struct slice name;
    struct device device;
    bool found = false;
    TRY(cs_body_string(request, LIT("display_name"), &name));
    TRY(hs_device_get(app, ctx, requester->user, request->params[0], &device, &found));
    if (!found && !requester->is_appservice) {
        return no_such_device();
    }
    if (!found) {
        TRY(hs_device_create(app, ctx, requester->user, request->params[0], name));
        reply->status = 201;
    } else if (name.ptr) {
        TRY(hs_device_rename(app, ctx, requester->user, request->params[0], name));
    }
    http_reply_empty(reply);
    return OK;
}

/* Application services have no password to ask for. */
static struct err prove(void *app, struct ctx *ctx, const struct http_request *request,
                        struct http_reply *reply, bool *proven_out)
{
    struct uia_result result = {.complete = true};
    if (!request->requester->is_appservice) {
        TRY(cs_ask_password(app, ctx, request, reply, &result));
    }
    *proven_out = result.complete;
    return OK;
}

static struct err delete_device(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    bool proven = false;
    TRY(prove(app, ctx, request, reply, &proven));
    if (proven) {
        TRY(hs_devices_delete(app, ctx, request->requester->user, &request->params[0], 1));
        http_reply_empty(reply);
    }
    return OK;
}

static struct err delete_devices(void *app, struct ctx *ctx, const struct http_request *request,
                                 struct http_reply *reply)
{
    bool proven = false;
    const struct json *devices = json_get(&request->json, LIT("devices"));
    if (!devices) {
        return err_public(ERR_M_MISSING_PARAM, "devices is missing.");
    }
    if (devices->type != JSON_ARRAY) {
        return err_public(ERR_M_BAD_JSON, "devices must be a list of device ids.");
    }
    struct slice *ids = arena_array(ctx->arena, devices->count + 1, sizeof *ids);
    for (size_t i = 0; i < devices->count; i++) {
        if (devices->items[i].type != JSON_STRING) {
            return err_public(ERR_M_BAD_JSON, "devices must be a list of device ids.");
        }
        ids[i] = devices->items[i].text;
    }
    TRY(prove(app, ctx, request, reply, &proven));
    if (proven) {
        TRY(hs_devices_delete(app, ctx, request->requester->user, ids, devices->count));
        http_reply_empty(reply);
    }
    return OK;
}

#define V3 "/_matrix/client/v3/"
static const struct http_route routes[] = {
    {HTTP_GET, V3 "devices", HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     list_devices, "Device Management", NULL, HTTP_ALLOW_GUEST},
    {HTTP_GET, V3 "devices/{deviceId}", HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_device, "Device Management", NULL, HTTP_ALLOW_GUEST},
    {HTTP_PUT, V3 "devices/{deviceId}", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON,
     HTTP_LANE_NONE, CS_ACCOUNT_BODY_BYTES_MAX, put_device, "Device Management", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
    {HTTP_DELETE, V3 "devices/{deviceId}", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_OPTIONAL_JSON,
     HTTP_LANE_NONE, CS_ACCOUNT_BODY_BYTES_MAX, delete_device, "Device Management", NULL,
     HTTP_ALLOW_SUSPENDED},
    {HTTP_POST, V3 "delete_devices", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON,
     HTTP_LANE_NONE, CS_ACCOUNT_BODY_BYTES_MAX, delete_devices, "Device Management", NULL,
     HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_devices_routes = {routes, COUNT_OF(routes)};
