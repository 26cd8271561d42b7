/* The dehydrated device: MSC3814 under its unstable names. Spec: spec/dehydrated-devices.md. */
#include "homeserver/service/dehydrated.h"

#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/to_device.h"

enum { BATCH_MAX = 100, BODY_BYTES_MAX = 1 << 20 };

static void write_device_id(struct cs_room_call *call, struct slice device_id)
{
    json_out_object(&call->out);
    json_out_key_string(&call->out, LIT("device_id"), device_id);
    json_out_object_end(&call->out);
}

static struct err read_draft(const struct cs_room_call *call, struct dehydrated_draft *draft)
{
    const struct http_request *request = call->request;
    *draft = (struct dehydrated_draft){
        .keys = {.user = call->actor.user,
                 .user_id = call->actor.user_id,
                 .device_keys = json_get_object(&request->json, LIT("device_keys")),
                 .one_time_keys = json_get(&request->json, LIT("one_time_keys")),
                 .fallback_keys = json_get(&request->json, LIT("fallback_keys"))},
        .data = json_get_object(&request->json, LIT("device_data"))};
    TRY(cs_body_required(request, LIT("device_id"), &draft->keys.device_id));
    TRY(cs_body_string(request, LIT("initial_device_display_name"), &draft->display_name));
    if (!draft->data || !json_get_string(draft->data, LIT("algorithm")).ptr) {
        return err_public(ERR_M_MISSING_PARAM, "`device_data` must name its `algorithm`.");
    }
    if (!draft->keys.device_keys) {
        return err_public(ERR_M_MISSING_PARAM, "A dehydrated device needs `device_keys`.");
    }
    return draft->display_name.len > DEVICE_NAME_BYTES_MAX
               ? err_public(ERR_M_TOO_LARGE, "The name of the device is too long.")
               : OK;
}

static struct err put_device(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    struct dehydrated_draft draft;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(read_draft(&call, &draft));
    TRY(hs_dehydrated_put(call.hs, ctx, &draft));
    write_device_id(&call, draft.keys.device_id);
    return OK;
}

static struct err get_device(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    struct dehydrated device;
    bool found = false;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(hs_dehydrated_get(call.hs, ctx, call.actor.user, &device, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "There is no dehydrated device.");
    }
    json_out_object(&call.out);
    json_out_key_string(&call.out, LIT("device_id"), device.device_id);
    json_out_key_raw(&call.out, LIT("device_data"), device.data);
    json_out_object_end(&call.out);
    return OK;
}

static struct err delete_device(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct cs_room_call call;
    struct slice device_id;
    bool found = false;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(hs_dehydrated_delete(call.hs, ctx, call.actor.user, &device_id, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "There is no dehydrated device.");
    }
    write_device_id(&call, device_id);
    return OK;
}

/* --- its messages --- */

static struct err read_from(struct slice from, uint64_t *since_out)
{
    *since_out = 0;
    if (from.len == 0 || (from.ptr[0] == 'd' && slice_parse_u64(slice_from(from, 1), since_out))) {
        return OK;
    }
    return err_public(ERR_M_INVALID_PARAM, "This is no token of a batch of these messages.");
}

static struct err check_device(struct cs_room_call *call)
{
    struct dehydrated device;
    bool found = false;
    TRY(hs_dehydrated_get(call->hs, call->ctx, call->actor.user, &device, &found));
    return found && slice_eq(device.device_id, call->request->params[0])
               ? OK
               : err_public(ERR_M_FORBIDDEN, "This is not your dehydrated device.");
}

enum token { TOKEN_WHEN_MORE, TOKEN_ALWAYS };

/* Nothing is deleted by being read: whoever begins anew finds it all. */
static struct err write_events(struct cs_room_call *call, struct slice from, enum token token)
{
    struct to_device_messages messages;
    struct inbox_range range = {.upto = positions_published(call->hs->positions),
                                .limit = BATCH_MAX};
    TRY(check_device(call));
    TRY(read_from(from, &range.since));
    TRY(hs_inbox_read(call->hs, call->ctx, call->actor.user, call->request->params[0], range,
                      &messages));
    uint64_t last = messages.count ? messages.items[messages.count - 1].pos : range.since;
    json_out_object(&call->out);
    json_out_key_array(&call->out, LIT("events"));
    for (size_t i = 0; i < messages.count; i++) {
        json_out_raw(&call->out, messages.items[i].json);
    }
    json_out_array_end(&call->out);
    if (token == TOKEN_ALWAYS || messages.count == BATCH_MAX) {
        json_out_key_string(&call->out, LIT("next_batch"),
                            arena_printf(call->ctx->arena, "d%llu", (unsigned long long)last));
    }
    json_out_object_end(&call->out);
    return OK;
}

static struct err get_events(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    return write_events(&call, http_query_get(ctx, request, LIT("from")), TOKEN_WHEN_MORE);
}

/* The form of the proposal's older text, which clients use: they ask until a batch is empty. */
static struct err post_events(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    struct slice from;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(cs_body_string(request, LIT("next_batch"), &from));
    return write_events(&call, from, TOKEN_ALWAYS);
}

#define DEVICE "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
#define READ HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0
#define WRITE(body) HTTP_AUTH_USER, HTTP_RATE_WRITE, body, HTTP_LANE_NONE, BODY_BYTES_MAX
#define SECTION "End-to-End Encryption"

static const struct http_route routes[] = {
    {HTTP_PUT, DEVICE, WRITE(HTTP_BODY_JSON), put_device, SECTION, NULL, 0},
    {HTTP_GET, DEVICE, READ, get_device, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_DELETE, DEVICE, WRITE(HTTP_BODY_OPTIONAL_JSON), delete_device, SECTION, NULL, 0},
    {HTTP_GET, DEVICE "/{deviceId}/events", READ, get_events, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_POST, DEVICE "/{deviceId}/events", WRITE(HTTP_BODY_OPTIONAL_JSON), post_events, SECTION,
     NULL, HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_dehydrated_routes = {routes, COUNT_OF(routes)};
