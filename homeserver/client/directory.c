/* Spec: client-server, "Room aliases", "Published room directory". */
#include "homeserver/service/directory.h"

#include "homeserver/client/rooms_priv.h"
#include "homeserver/room/join_rules.h"
#include "homeserver/room/power.h"
#include "homeserver/service/appservices.h"
#include "homeserver/service/entering.h"
#include "homeserver/service/sending.h"
#include "homeserver/service/users.h"

/* --- aliases --- */

static struct err check_alias(const struct http_request *request)
{
    return ids_is_alias(request->params[0])
               ? OK
               : err_public(ERR_M_INVALID_PARAM, "An alias must have the form #name:server.");
}

/* Aliases that strangers give to a room would be a way to find out which rooms there are. */
static struct err require_member(struct cs_room_call *call)
{
    const struct requester *requester = call->request->requester;
    enum membership membership = MEMBERSHIP_NONE;
    TRY(hs_membership_at(call->hs, call->ctx, call->room, hs_room_head(call->room).root,
                         call->actor.user_id, &membership));
    return membership == MEMBERSHIP_JOIN || requester->is_admin || requester->is_appservice
               ? OK
               : err_public(ERR_M_FORBIDDEN, "Only members may give this room an alias.");
}

static struct err put_alias(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct cs_room_call call;
    struct slice room_id;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(check_alias(request));
    TRY(cs_body_required(request, LIT("room_id"), &room_id));
    struct room_alias alias = ids_trust_alias(request->params[0]);
    if (!hs_is_local(call.hs, ids_alias_domain(alias).s)) {
        return err_public(ERR_M_INVALID_PARAM, "The alias belongs to another server.");
    }
    if (!ids_is_room(room_id)) {
        return err_public(ERR_M_INVALID_PARAM, "`room_id` is not a valid room id.");
    }
    TRY(hs_appservice_check_alias(call.hs, call.actor.appservice, alias.s));
    TRY(hs_room_get_by_id(call.hs, ctx, room_id, &call.room));
    TRY(require_member(&call));
    TRY(hs_alias_set(call.hs, ctx, alias.s, hs_room_info(call.room).number, call.actor.user));
    http_reply_empty(reply);
    return OK;
}

static struct err get_alias(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct json answer;
    struct json_out out = json_out_to(&reply->body);
    TRY(check_alias(request));
    TRY(hs_alias_resolve(app, ctx, request->params[0], &answer));
    const struct json *servers = json_get_array(&answer, LIT("servers"));
    json_out_object(&out);
    json_out_key_string(&out, LIT("room_id"), json_get_string(&answer, LIT("room_id")));
    json_out_key_array(&out, LIT("servers"));
    for (uint32_t i = 0; servers && i < servers->count; i++) {
        if (servers->items[i].type == JSON_STRING) {
            json_out_string(&out, servers->items[i].text);
        }
    }
    json_out_array_end(&out);
    json_out_object_end(&out);
    return OK;
}

/* The caller's power for an event type in the room now. */
static struct err has_power(struct cs_room_call *call, struct slice type, bool *has_out)
{
    struct power_levels levels;
    enum membership membership = MEMBERSHIP_NONE;
    uint64_t root = hs_room_head(call->room).root;
    *has_out = false;
    TRY(hs_membership_at(call->hs, call->ctx, call->room, root, call->actor.user_id, &membership));
    if (membership != MEMBERSHIP_JOIN) {
        return OK;
    }
    TRY(hs_room_power(call->hs, call->ctx, call->room, &levels));
    *has_out = power_of_user(&levels, ids_trust_user(call->actor.user_id)) >=
               power_needed_for(&levels, type, POWER_STATE);
    return OK;
}

/* The room no longer names an alias that goes; whoever may delete but not write this state
 * leaves it as it is. */
static struct err drop_from_canonical(struct cs_room_call *call, struct slice alias)
{
    struct stored_event current;
    struct hs_sent sent;
    bool found = false;
    TRY(hs_state_event(call->hs, call->ctx, call->room, hs_room_head(call->room).root,
                       LIT("m.room.canonical_alias"), LIT(""), &current, &found));
    if (!found) {
        return OK;
    }
    struct json content = json_without(call->ctx->arena, current.event.content, NULL, 0);
    const struct json *others = json_get_array(&content, LIT("alt_aliases"));
    struct json kept = json_array();
    bool named = json_is_string(json_get(&content, LIT("alias")), alias);
    for (uint32_t i = 0; others && i < others->count; i++) {
        if (json_is_string(&others->items[i], alias)) {
            named = true;
        } else {
            json_push(call->ctx->arena, &kept, others->items[i]);
        }
    }
    if (!named) {
        return OK;
    }
    if (json_is_string(json_get(&content, LIT("alias")), alias)) {
        json_remove(&content, LIT("alias"));
    }
    if (others) {
        json_set(call->ctx->arena, &content, LIT("alt_aliases"), kept);
    }
    struct send_request send = {.actor = &call->actor,
                                .type = LIT("m.room.canonical_alias"),
                                .state_key = LIT(""),
                                .content = &content};
    struct err err = hs_send_state(call->hs, call->ctx, call->room, &send, &sent);
    return err.code == ERR_M_FORBIDDEN ? OK : err;
}

static struct err delete_alias(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct cs_room_call call;
    uint64_t room = 0;
    uint64_t creator = 0;
    bool found = false;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(check_alias(request));
    TRY(hs_alias_get(call.hs, ctx, request->params[0], &room, &creator, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "The room alias does not exist.");
    }
    bool is_admin = request->requester->is_admin;
    bool allowed = creator == call.actor.user || is_admin || request->requester->is_appservice;
    if (!is_admin) {
        TRY(hs_appservice_check_alias(call.hs, call.actor.appservice, request->params[0]));
    }
    TRY(hs_room_get(call.hs, ctx, room, &call.room));
    if (!allowed) {
        TRY(has_power(&call, LIT("m.room.canonical_alias"), &allowed));
    }
    if (!allowed) {
        return err_public(ERR_M_FORBIDDEN,
                          "Only who made the alias, or may change the room's main alias, may "
                          "delete it.");
    }
    /* The alias goes last: when something fails before, it is still there to be deleted. */
    TRY(drop_from_canonical(&call, request->params[0]));
    TRY(hs_alias_delete(call.hs, ctx, request->params[0]));
    http_reply_empty(reply);
    return OK;
}

/* --- the list of public rooms --- */

static struct err get_visibility(void *app, struct ctx *ctx, const struct http_request *request,
                                 struct http_reply *reply)
{
    struct cs_room_call call;
    bool is_public = false;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(hs_room_get_by_id(call.hs, ctx, request->params[0], &call.room));
    TRY(hs_public_get(call.hs, ctx, hs_room_info(call.room).number, &is_public));
    json_out_object(&call.out);
    json_out_key_string(&call.out, LIT("visibility"), is_public ? LIT("public") : LIT("private"));
    json_out_object_end(&call.out);
    return OK;
}

static struct err put_visibility(void *app, struct ctx *ctx, const struct http_request *request,
                                 struct http_reply *reply)
{
    struct cs_room_call call;
    struct slice visibility;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(hs_room_get_by_id(call.hs, ctx, request->params[0], &call.room));
    TRY(cs_body_string(request, LIT("visibility"), &visibility));
    bool is_public = !visibility.ptr || slice_eq(visibility, LIT("public"));
    bool allowed = request->requester->is_admin;
    if (!is_public && !slice_eq(visibility, LIT("private"))) {
        return err_public(ERR_M_INVALID_PARAM, "`visibility` must be public or private.");
    }
    if (!allowed) {
        TRY(has_power(&call, LIT("m.room.canonical_alias"), &allowed));
    }
    if (!allowed) {
        return err_public(ERR_M_FORBIDDEN, "You do not have the power to list this room.");
    }
    TRY(hs_public_set(call.hs, ctx, hs_room_info(call.room).number, is_public));
    http_reply_empty(reply);
    return OK;
}

enum { BODY_BYTES_MAX = 1 << 16 };

static const struct http_route routes[] = {
    {HTTP_PUT, "/_matrix/client/v3/directory/room/{roomAlias}", HTTP_AUTH_USER, HTTP_RATE_WRITE,
     HTTP_BODY_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, put_alias, "Room aliases", NULL, 0},
    {HTTP_GET, "/_matrix/client/v3/directory/room/{roomAlias}", HTTP_AUTH_NONE, HTTP_RATE_READ,
     HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_alias, "Room aliases", NULL, 0},
    {HTTP_DELETE, "/_matrix/client/v3/directory/room/{roomAlias}", HTTP_AUTH_USER, HTTP_RATE_WRITE,
     HTTP_BODY_NONE, HTTP_LANE_NONE, 0, delete_alias, "Room aliases", NULL, 0},
    {HTTP_GET, "/_matrix/client/v3/directory/list/room/{roomId}", HTTP_AUTH_NONE, HTTP_RATE_READ,
     HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_visibility, "Published room directory", NULL, 0},
    {HTTP_PUT, "/_matrix/client/v3/directory/list/room/{roomId}", HTTP_AUTH_USER, HTTP_RATE_WRITE,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, put_visibility,
     "Published room directory", NULL, 0},
};
const struct http_route_table cs_directory_routes = {routes, COUNT_OF(routes)};
