/* Spec: client-server, "Room membership": joining, inviting, leaving, kicking, banning, knocking,
 * forgetting. */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/entering.h"

enum { VIA_MAX = 32 };

/* A signed third-party invite travels in the join's content. */
static void add_signed(struct cs_room_call *call, struct json *extra)
{
    const struct json *proof = json_get_object(&call->request->json, LIT("third_party_signed"));
    if (proof) {
        struct json wrapped = json_object();
        json_set(call->ctx->arena, &wrapped, LIT("signed"), *proof);
        json_set(call->ctx->arena, extra, LIT("third_party_invite"), wrapped);
    }
}

/* Spec: `via`, and `server_name` as older clients call it. */
static size_t read_via(struct cs_room_call *call, struct slice names_out[VIA_MAX])
{
    size_t count = http_query_all(call->ctx, call->request, LIT("via"), names_out, VIA_MAX);
    return count + http_query_all(call->ctx, call->request, LIT("server_name"), names_out + count,
                                  VIA_MAX - count);
}

static void reply_version(struct cs_room_call *call, struct err err, struct slice version)
{
    struct buf extra;
    buf_init_arena(&extra, call->ctx->arena, SIZE_MAX / 2);
    buf_add(&extra, LIT("\"room_version\":"));
    json_write_string(&extra, version);
    http_reply_error(call->reply, err, buf_slice(&extra));
}

/* The room named by path parameter 0, a room id or an alias. */
static struct err enter(struct cs_room_call *call, enum membership membership)
{
    static const struct slice drop[] = {{"reason", 6},
                                        {"third_party_signed", 18},
                                        {"third_party_invite", 18},
                                        {"membership", 10},
                                        {"join_authorised_via_users_server", 32},
                                        {"via", 3}};
    struct ctx *ctx = call->ctx;
    struct slice via[VIA_MAX];
    struct slice reason;
    struct slice room_id;
    struct slice version = {0};
    struct slice name = call->request->params[0];
    if (!ids_is_room(name) && !ids_is_alias(name)) {
        return err_public(ERR_M_INVALID_PARAM, "Neither a room id nor a room alias.");
    }
    TRY(cs_body_string(call->request, LIT("reason"), &reason));
    /* Members beyond those of the specification travel in the member event. */
    struct json extra = json_without(ctx->arena, &call->request->json, drop, COUNT_OF(drop));
    add_signed(call, &extra);
    struct hs_entering entering = {.actor = &call->actor,
                                   .name = name,
                                   .membership = membership,
                                   .via = via,
                                   .via_count = read_via(call, via),
                                   .reason = reason,
                                   .extra = extra.count ? &extra : NULL,
                                   .version_out = &version};
    struct err err = hs_room_enter(call->hs, ctx, &entering, &room_id);
    if (err.code == ERR_M_INCOMPATIBLE_ROOM_VERSION && version.len) {
        reply_version(call, err, version);
    }
    TRY(err);
    json_out_object(&call->out);
    json_out_key_string(&call->out, LIT("room_id"), room_id);
    json_out_object_end(&call->out);
    return OK;
}

static struct err join(void *app, struct ctx *ctx, const struct http_request *request,
                       struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    return enter(&call, MEMBERSHIP_JOIN);
}

static struct err join_by_id(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    return ids_is_room(request->params[0])
               ? join(app, ctx, request, reply)
               : err_public(ERR_M_INVALID_PARAM, "The room id is not valid.");
}

static struct err knock(void *app, struct ctx *ctx, const struct http_request *request,
                        struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    return enter(&call, MEMBERSHIP_KNOCK);
}

static struct err read_target(const struct http_request *request, struct slice *target_out,
                              struct slice *reason_out)
{
    TRY(cs_body_string(request, LIT("reason"), reason_out));
    TRY(cs_body_required(request, LIT("user_id"), target_out));
    if (!ids_is_user(*target_out)) {
        return err_public(ERR_M_INVALID_PARAM, "`user_id` is not a valid user id.");
    }
    return OK;
}

static struct err set_other(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply, enum membership membership)
{
    struct cs_room_call call;
    struct hs_sent sent;
    struct member_change change = {.membership = membership};
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    TRY(read_target(request, &change.target, &change.reason));
    TRY(hs_member_set(call.hs, ctx, call.room, &call.actor, &change, &sent));
    http_reply_empty(reply);
    return OK;
}

static struct err invite(void *app, struct ctx *ctx, const struct http_request *request,
                         struct http_reply *reply)
{
    if (json_get(&request->json, LIT("medium")) || json_get(&request->json, LIT("address"))) {
        return err_public(ERR_M_THREEPID_DENIED, "Invites by address are not offered here.");
    }
    return set_other(app, ctx, request, reply, MEMBERSHIP_INVITE);
}

static struct err ban(void *app, struct ctx *ctx, const struct http_request *request,
                      struct http_reply *reply)
{
    return set_other(app, ctx, request, reply, MEMBERSHIP_BAN);
}

typedef struct err (*remove_fn)(struct hs *hs, struct ctx *ctx, struct room *room,
                                const struct actor *actor, struct slice target,
                                struct slice reason);

static struct err remove_other(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply, remove_fn fn)
{
    struct cs_room_call call;
    struct slice target;
    struct slice reason;
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    TRY(read_target(request, &target, &reason));
    TRY(fn(call.hs, ctx, call.room, &call.actor, target, reason));
    http_reply_empty(reply);
    return OK;
}

static struct err kick(void *app, struct ctx *ctx, const struct http_request *request,
                       struct http_reply *reply)
{
    return remove_other(app, ctx, request, reply, hs_member_kick);
}

static struct err unban(void *app, struct ctx *ctx, const struct http_request *request,
                        struct http_reply *reply)
{
    return remove_other(app, ctx, request, reply, hs_member_unban);
}

static struct err leave(void *app, struct ctx *ctx, const struct http_request *request,
                        struct http_reply *reply)
{
    struct cs_room_call call;
    struct slice reason;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(cs_body_string(request, LIT("reason"), &reason));
    TRY(hs_room_leave(call.hs, ctx, &call.actor, request->params[0], reason));
    http_reply_empty(reply);
    return OK;
}

static struct err forget(void *app, struct ctx *ctx, const struct http_request *request,
                         struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(hs_room_get_by_id(call.hs, ctx, request->params[0], &call.room));
    TRY(hs_room_forget(call.hs, ctx, call.room, &call.actor));
    http_reply_empty(reply);
    return OK;
}

#define ROOM "/_matrix/client/v3/rooms/{roomId}/"
enum { BODY_BYTES_MAX = 1 << 16 };

static const struct http_route routes[] = {
    {HTTP_POST, "/_matrix/client/v3/join/{roomIdOrAlias}", HTTP_AUTH_USER, HTTP_RATE_JOIN,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, join, "Joining rooms", NULL,
     HTTP_ALLOW_GUEST},
    {HTTP_POST, ROOM "join", HTTP_AUTH_USER, HTTP_RATE_JOIN, HTTP_BODY_OPTIONAL_JSON,
     HTTP_LANE_NONE, BODY_BYTES_MAX, join_by_id, "Joining rooms", NULL, HTTP_ALLOW_GUEST},
    {HTTP_POST, "/_matrix/client/v3/knock/{roomIdOrAlias}", HTTP_AUTH_USER, HTTP_RATE_JOIN,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, knock, "Knocking on rooms", NULL, 0},
    {HTTP_POST, ROOM "invite", HTTP_AUTH_USER, HTTP_RATE_INVITE, HTTP_BODY_JSON, HTTP_LANE_NONE,
     BODY_BYTES_MAX, invite, "Joining rooms", NULL, 0},
    {HTTP_POST, ROOM "ban", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON, HTTP_LANE_NONE,
     BODY_BYTES_MAX, ban, "Banning users in a room", NULL, 0},
    {HTTP_POST, ROOM "unban", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON, HTTP_LANE_NONE,
     BODY_BYTES_MAX, unban, "Banning users in a room", NULL, 0},
    {HTTP_POST, ROOM "kick", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON, HTTP_LANE_NONE,
     BODY_BYTES_MAX, kick, "Leaving rooms", NULL, 0},
    {HTTP_POST, ROOM "leave", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_OPTIONAL_JSON,
     HTTP_LANE_NONE, BODY_BYTES_MAX, leave, "Leaving rooms", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
    {HTTP_POST, ROOM "forget", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_OPTIONAL_JSON,
     HTTP_LANE_NONE, BODY_BYTES_MAX, forget, "Leaving rooms", NULL, HTTP_ALLOW_GUEST},
};
const struct http_route_table cs_membership_routes = {routes, COUNT_OF(routes)};
