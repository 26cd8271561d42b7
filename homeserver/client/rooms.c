/* Spec: client-server, "Creation", "Room membership" (joined_rooms). */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/directory.h"
#include "homeserver/service/room_create.h"

static struct err create_room(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct actor actor = cs_actor(request);
    struct slice room_id;
    struct json_out out = json_out_to(&reply->body);
    TRY(hs_room_create(app, ctx, &actor, &request->json, &room_id));
    json_out_object(&out);
    json_out_key_string(&out, LIT("room_id"), room_id);
    json_out_object_end(&out);
    return OK;
}

static struct err joined_rooms(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct user_rooms rooms;
    struct json_out out = json_out_to(&reply->body);
    TRY(hs_user_rooms(app, ctx, request->requester->user, &rooms));
    json_out_object(&out);
    json_out_key_array(&out, LIT("joined_rooms"));
    for (size_t i = 0; i < rooms.count; i++) {
        struct room *room = NULL;
        if (rooms.items[i].membership == MEMBERSHIP_JOIN) {
            TRY(hs_room_get(app, ctx, rooms.items[i].room, &room));
            json_out_string(&out, hs_room_info(room).room_id);
        }
    }
    json_out_array_end(&out);
    json_out_object_end(&out);
    return OK;
}

static struct err room_aliases(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct cs_room_call call;
    struct room_view view;
    struct slice *aliases = NULL;
    size_t count = 0;
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    TRY(hs_room_view(call.hs, ctx, call.room, call.actor.user, &view));
    if (view.membership != MEMBERSHIP_JOIN && !view.world_readable) {
        return err_public(ERR_M_FORBIDDEN, "Only members may list the aliases of this room.");
    }
    TRY(hs_aliases_of(call.hs, ctx, hs_room_info(call.room).number, &aliases, &count));
    json_out_object(&call.out);
    json_out_key_array(&call.out, LIT("aliases"));
    for (size_t i = 0; i < count; i++) {
        json_out_string(&call.out, aliases[i]);
    }
    json_out_array_end(&call.out);
    json_out_object_end(&call.out);
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_POST, "/_matrix/client/v3/createRoom", HTTP_AUTH_USER, HTTP_RATE_JOIN, HTTP_BODY_JSON,
     HTTP_LANE_NONE, 1 << 20, create_room, "Creation", NULL, 0},
    {HTTP_GET, "/_matrix/client/v3/joined_rooms", HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, joined_rooms, "Room membership", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, "/_matrix/client/v3/rooms/{roomId}/aliases", HTTP_AUTH_USER, HTTP_RATE_READ,
     HTTP_BODY_NONE, HTTP_LANE_NONE, 0, room_aliases, "Room aliases", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_rooms_routes = {routes, COUNT_OF(routes)};
