/* Account data, global and per room, and tags, which are account data of a room with endpoints of
 * their own. Spec: client-server, "Client Config", "Room Tagging". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/prefs.h"

enum { DATUM_BYTES_MAX = 1 << 20, TAG_BYTES_MAX = 255 };

/* Begins a call whose path names the user, who must be the caller, and perhaps a room. */
static struct err begin(struct cs_room_call *call, void *app, struct ctx *ctx,
                        const struct http_request *request, struct http_reply *reply)
{
    cs_call_begin(call, app, ctx, request, reply);
    return slice_eq(request->params[0], request->requester->user_id)
               ? OK
               : err_public(ERR_M_FORBIDDEN, "You can only reach your own account data.");
}

static struct err begin_room(struct cs_room_call *call, void *app, struct ctx *ctx,
                             const struct http_request *request, struct http_reply *reply)
{
    TRY(begin(call, app, ctx, request, reply));
    if (!ids_is_room(request->params[1])) {
        return err_public(ERR_M_INVALID_PARAM, "The room id is not valid.");
    }
    return hs_room_get_by_id(call->hs, ctx, request->params[1], &call->room);
}

static uint64_t room_number(const struct cs_room_call *call)
{
    return call->room ? hs_room_info(call->room).number : 0;
}

/* Spec: "Servers MUST reject setting account data for event types that the server manages by using
 * a 405 error response." */
static struct err check_type(struct slice type, const struct room *room)
{
    bool is_managed =
        slice_eq(type, LIT("m.fully_read")) || (!room && slice_eq(type, LIT("m.push_rules")));
    return is_managed ? err_make(ERR_M_METHOD_BAD_JSON, "managed account data") : OK;
}

static struct err put(struct cs_room_call *call, struct slice type)
{
    TRY(check_type(type, call->room));
    struct slice content = json_canonical(call->ctx->arena, &call->request->json);
    TRY(hs_account_data_put(call->hs, call->ctx, call->actor.user, room_number(call), type,
                            content));
    http_reply_empty(call->reply);
    return OK;
}

static struct err get(struct cs_room_call *call, struct slice type)
{
    struct slice content;
    bool found = false;
    if (!call->room && slice_eq(type, LIT("m.push_rules"))) {
        struct json rules;
        TRY(hs_push_rules_read(call->hs, call->ctx, call->actor.user, &rules));
        json_out_value(&call->out, &rules);
        return OK;
    }
    TRY(hs_account_data_get(call->hs, call->ctx, call->actor.user, room_number(call), type,
                            &content, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "There is no account data of this type.");
    }
    json_out_raw(&call->out, content);
    return OK;
}

static struct err put_global(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    TRY(begin(&call, app, ctx, request, reply));
    return put(&call, request->params[1]);
}

static struct err get_global(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    TRY(begin(&call, app, ctx, request, reply));
    return get(&call, request->params[1]);
}

static struct err put_of_room(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    TRY(begin_room(&call, app, ctx, request, reply));
    return put(&call, request->params[2]);
}

static struct err get_of_room(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    TRY(begin_room(&call, app, ctx, request, reply));
    return get(&call, request->params[2]);
}

/* --- tags --- */

/* {"tags": {...}}, empty when none is set. */
static struct err load_tags(struct cs_room_call *call, struct json *tags_out)
{
    struct slice content;
    struct json datum;
    bool found = false;
    *tags_out = json_object();
    TRY(hs_account_data_get(call->hs, call->ctx, call->actor.user, room_number(call), LIT("m.tag"),
                            &content, &found));
    if (!found) {
        return OK;
    }
    TRY(json_parse(call->ctx->arena, content, &datum));
    const struct json *tags = json_get_object(&datum, LIT("tags"));
    *tags_out = tags ? *tags : json_object();
    return OK;
}

static struct err save_tags(struct cs_room_call *call, const struct json *tags)
{
    struct json datum = json_object();
    json_set(call->ctx->arena, &datum, LIT("tags"), *tags);
    TRY(hs_account_data_put(call->hs, call->ctx, call->actor.user, room_number(call), LIT("m.tag"),
                            json_canonical(call->ctx->arena, &datum)));
    http_reply_empty(call->reply);
    return OK;
}

static struct err get_tags(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct cs_room_call call;
    struct json tags;
    TRY(begin_room(&call, app, ctx, request, reply));
    TRY(load_tags(&call, &tags));
    json_out_object(&call.out);
    json_out_key(&call.out, LIT("tags"));
    json_out_value(&call.out, &tags);
    json_out_object_end(&call.out);
    return OK;
}

static struct err put_tag(void *app, struct ctx *ctx, const struct http_request *request,
                          struct http_reply *reply)
{
    struct cs_room_call call;
    struct json tags;
    const struct json *order = json_get(&request->json, LIT("order"));
    TRY(begin_room(&call, app, ctx, request, reply));
    if (request->params[2].len > TAG_BYTES_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "A tag has at most 255 bytes.");
    }
    if (order && order->type != JSON_INT && order->type != JSON_NUMBER) {
        return err_public(ERR_M_BAD_JSON, "`order` must be a number.");
    }
    TRY(load_tags(&call, &tags));
    json_set(ctx->arena, &tags, request->params[2], request->json);
    return save_tags(&call, &tags);
}

static struct err delete_tag(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    struct json tags;
    TRY(begin_room(&call, app, ctx, request, reply));
    TRY(load_tags(&call, &tags));
    json_remove(&tags, request->params[2]);
    return save_tags(&call, &tags);
}

#define USER "/_matrix/client/v3/user/{userId}"
#define ROOM USER "/rooms/{roomId}"
enum { ALLOW = HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED };

static const struct http_route routes[] = {
    {HTTP_PUT, USER "/account_data/{type}", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON,
     HTTP_LANE_USER, DATUM_BYTES_MAX, put_global, "Client Config", NULL, ALLOW},
    {HTTP_GET, USER "/account_data/{type}", HTTP_AUTH_USER, HTTP_RATE_NONE, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_global, "Client Config", NULL, ALLOW},
    {HTTP_PUT, ROOM "/account_data/{type}", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON,
     HTTP_LANE_USER, DATUM_BYTES_MAX, put_of_room, "Client Config", NULL, ALLOW},
    {HTTP_GET, ROOM "/account_data/{type}", HTTP_AUTH_USER, HTTP_RATE_NONE, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_of_room, "Client Config", NULL, ALLOW},
    {HTTP_GET, ROOM "/tags", HTTP_AUTH_USER, HTTP_RATE_NONE, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     get_tags, "Room Tagging", NULL, ALLOW},
    {HTTP_PUT, ROOM "/tags/{tag}", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON, HTTP_LANE_USER,
     DATUM_BYTES_MAX, put_tag, "Room Tagging", NULL, ALLOW},
    {HTTP_DELETE, ROOM "/tags/{tag}", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_NONE,
     HTTP_LANE_USER, 0, delete_tag, "Room Tagging", NULL, ALLOW},
};
const struct http_route_table cs_account_data_routes = {routes, COUNT_OF(routes)};
