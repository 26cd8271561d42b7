/* Spec: client-server, "Room Upgrades". */
#include "homeserver/service/room_upgrade.h"

#include "homeserver/client/rooms_priv.h"

static struct err post_upgrade(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct cs_room_call call;
    struct slice room_id;
    struct room_upgrade upgrade = {0};
    const struct json *creators = json_get(&request->json, LIT("additional_creators"));
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    TRY(cs_body_required(request, LIT("new_version"), &upgrade.new_version));
    if (creators && creators->type != JSON_ARRAY) {
        return err_public(ERR_M_BAD_JSON, "`additional_creators` must be a list.");
    }
    upgrade.additional_creators = creators;
    TRY(hs_room_upgrade(call.hs, ctx, call.room, &call.actor, &upgrade, &room_id));
    json_out_object(&call.out);
    json_out_key_string(&call.out, LIT("replacement_room"), room_id);
    json_out_object_end(&call.out);
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_POST, "/_matrix/client/v3/rooms/{roomId}/upgrade", HTTP_AUTH_USER, HTTP_RATE_JOIN,
     HTTP_BODY_JSON, HTTP_LANE_NONE, 1 << 20, post_upgrade, "Room Upgrades", NULL, 0},
};
const struct http_route_table cs_room_upgrade_routes = {routes, COUNT_OF(routes)};
