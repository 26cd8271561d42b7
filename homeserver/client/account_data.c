/* Spec: client-server, "Client Config". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/prefs.h"

#include <stdlib.h>

static struct err require_self(const struct http_request *request)
{
    return slice_eq(request->params[0], request->requester->user_id)
               ? OK
               : err_public(ERR_M_FORBIDDEN, "Account data is kept and read for yourself only.");
}

/* m.fully_read is set through its own endpoints, m.push_rules through /pushrules. */
static struct err require_settable(struct slice type)
{
    bool managed = slice_eq(type, LIT("m.fully_read")) || slice_eq(type, LIT("m.push_rules"));
    return managed ? err_public(ERR_M_METHOD_BAD_JSON,
                                "This type is controlled by the server; it has its own endpoints.")
                   : OK;
}

static struct err find_room(struct cs_room_call *call, uint64_t *room_out)
{
    bool found = false;
    struct slice room_id = call->request->params[1];
    if (!ids_is_room(room_id)) {
        return err_public(ERR_M_INVALID_PARAM, "The room id is not valid.");
    }
    TRY(hs_room_find(call->hs, call->ctx, room_id, room_out, &found));
    return found ? OK : err_public(ERR_M_NOT_FOUND, "This room is not known here.");
}

/* --- one datum, global or of a room --- */

typedef struct err (*datum_fn)(struct cs_room_call *call, uint64_t room, struct slice type);

static struct err on_global(struct cs_room_call *call, datum_fn fn)
{
    TRY(require_self(call->request));
    return fn(call, 0, call->request->params[1]);
}

static struct err on_room(struct cs_room_call *call, datum_fn fn)
{
    uint64_t room = 0;
    TRY(require_self(call->request));
    TRY(find_room(call, &room));
    return fn(call, room, call->request->params[2]);
}

static struct err put_datum(struct cs_room_call *call, uint64_t room, struct slice type)
{
    TRY(require_settable(type));
    TRY(hs_account_data_put(call->hs, call->ctx, call->actor.user, room, type,
                            json_canonical(call->ctx->arena, &call->request->json)));
    http_reply_empty(call->reply);
    return OK;
}

static struct err get_datum(struct cs_room_call *call, uint64_t room, struct slice type)
{
    struct slice content;
    struct json rules;
    bool found = false;
    if (room == 0 && slice_eq(type, LIT("m.push_rules"))) {
        TRY(hs_push_rules_read(call->hs, call->ctx, call->actor.user, &rules));
        json_out_value(&call->out, &rules);
        return OK;
    }
    TRY(hs_account_data_get(call->hs, call->ctx, call->actor.user, room, type, &content, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "There is no account data of this type.");
    }
    json_out_raw(&call->out, content);
    return OK;
}

static struct err empty_datum(void *arg, struct ctx *ctx, struct slice old,
                              struct slice *content_out)
{
    (void)arg;
    (void)ctx;
    if (old.ptr) {
        *content_out = LIT("{}");
    }
    return OK;
}

/* MSC3391. */
static struct err delete_datum(struct cs_room_call *call, uint64_t room, struct slice type)
{
    struct account_data_edit edit = {
        .user = call->actor.user, .room = room, .type = type, .make = empty_datum};
    TRY(require_settable(type));
    TRY(hs_account_data_edit(call->hs, call->ctx, &edit));
    http_reply_empty(call->reply);
    return OK;
}

static struct err put_global(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    return on_global(&call, put_datum);
}

static struct err put_in_room(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    return on_room(&call, put_datum);
}

static struct err get_global(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    return on_global(&call, get_datum);
}

static struct err get_in_room(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    return on_room(&call, get_datum);
}

static struct err delete_global(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    return on_global(&call, delete_datum);
}

static struct err delete_in_room(void *app, struct ctx *ctx, const struct http_request *request,
                                 struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    return on_room(&call, delete_datum);
}

/* --- tags: one datum, m.tag, of which each request changes one member --- */

enum { TAG_BYTES_MAX = 255 };

struct tag_edit {
    struct slice tag;
    const struct json *info; /* NULL = remove */
};

static struct err edit_tags(void *arg, struct ctx *ctx, struct slice old, struct slice *content_out)
{
    const struct tag_edit *edit = arg;
    struct json content = json_object();
    struct json tags = json_object();
    if (old.ptr) {
        TRY(json_parse(ctx->arena, old, &content));
    }
    if (json_get_object(&content, LIT("tags"))) {
        tags = *json_get_object(&content, LIT("tags"));
    }
    if (!edit->info && !json_get(&tags, edit->tag)) {
        return OK;
    }
    if (edit->info) {
        json_set(ctx->arena, &tags, edit->tag, *edit->info);
    } else {
        json_remove(&tags, edit->tag);
    }
    json_set(ctx->arena, &content, LIT("tags"), tags);
    *content_out = json_canonical(ctx->arena, &content);
    return OK;
}

static struct err change_tag(struct cs_room_call *call, const struct json *info)
{
    uint64_t room = 0;
    struct tag_edit tag = {.tag = call->request->params[2], .info = info};
    TRY(require_self(call->request));
    TRY(find_room(call, &room));
    if (tag.tag.len == 0 || tag.tag.len > TAG_BYTES_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "A tag has 1 to 255 bytes.");
    }
    struct account_data_edit edit = {.user = call->actor.user,
                                     .room = room,
                                     .type = LIT("m.tag"),
                                     .make = edit_tags,
                                     .arg = &tag};
    TRY(hs_account_data_edit(call->hs, call->ctx, &edit));
    http_reply_empty(call->reply);
    return OK;
}

/* Spec: client-server, "Room Tagging": `order` is a number between 0 and 1. */
static struct err check_order(struct ctx *ctx, const struct json *info)
{
    const struct json *order = json_get(info, LIT("order"));
    double value = 0;
    if (!order || order->type == JSON_NULL) {
        return OK;
    }
    if (order->type == JSON_NUMBER) {
        value = strtod(arena_cstr(ctx->arena, order->text), NULL);
    } else if (order->type == JSON_INT) {
        value = (double)order->integer;
    } else {
        return err_public(ERR_M_BAD_JSON, "`order` must be a number.");
    }
    return value >= 0 && value <= 1
               ? OK
               : err_public(ERR_M_INVALID_PARAM, "`order` must be between 0 and 1.");
}

static struct err put_tag(void *app, struct ctx *ctx, const struct http_request *request,
                          struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(require_self(request));
    TRY(check_order(ctx, &request->json));
    return change_tag(&call, &request->json);
}

static struct err delete_tag(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    return change_tag(&call, NULL);
}

static struct err get_tags(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct cs_room_call call;
    struct slice content;
    struct json stored = json_object();
    struct json tags = json_object();
    uint64_t room = 0;
    bool found = false;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(require_self(request));
    TRY(find_room(&call, &room));
    TRY(hs_account_data_get(call.hs, ctx, call.actor.user, room, LIT("m.tag"), &content, &found));
    if (found) {
        TRY(json_parse(ctx->arena, content, &stored));
    }
    const struct json *kept = json_get_object(&stored, LIT("tags"));
    json_out_object(&call.out);
    json_out_key(&call.out, LIT("tags"));
    json_out_value(&call.out, kept ? kept : &tags);
    json_out_object_end(&call.out);
    return OK;
}

#define USER "/_matrix/client/v3/user/{userId}/"
#define IN_ROOM USER "rooms/{roomId}/"
#define READ HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0
#define WRITE HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON, HTTP_LANE_NONE, DATA_BYTES_MAX
#define GONE HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_NONE, HTTP_LANE_NONE, 0
#define REMOVE "/_matrix/client/unstable/org.matrix.msc3391/user/{userId}/"
enum { DATA_BYTES_MAX = 1 << 19, OPEN = HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED };

static const struct http_route routes[] = {
    {HTTP_PUT, USER "account_data/{type}", WRITE, put_global, "Client Config", NULL, OPEN},
    {HTTP_GET, USER "account_data/{type}", READ, get_global, "Client Config", NULL, OPEN},
    {HTTP_PUT, IN_ROOM "account_data/{type}", WRITE, put_in_room, "Client Config", NULL, OPEN},
    {HTTP_GET, IN_ROOM "account_data/{type}", READ, get_in_room, "Client Config", NULL, OPEN},
    {HTTP_DELETE, REMOVE "account_data/{type}", GONE, delete_global, "Client Config", NULL, OPEN},
    {HTTP_DELETE, REMOVE "rooms/{roomId}/account_data/{type}", GONE, delete_in_room,
     "Client Config", NULL, OPEN},
    {HTTP_GET, IN_ROOM "tags", READ, get_tags, "Room Tagging", NULL, OPEN},
    {HTTP_PUT, IN_ROOM "tags/{tag}", WRITE, put_tag, "Room Tagging", NULL, OPEN},
    {HTTP_DELETE, IN_ROOM "tags/{tag}", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, delete_tag, "Room Tagging", NULL, OPEN},
};
const struct http_route_table cs_account_data_routes = {routes, COUNT_OF(routes)};
