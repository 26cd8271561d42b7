/* This server's public rooms and spaces, for other servers.
 * Spec: server-server, "Published Room Directory", "Spaces". */
#include "federation/fed.h"
#include "federation/routes.h"
#include "homeserver/service/room_summary.h"

/* --- public rooms --- */

static struct err write_list(struct hs *hs, struct ctx *ctx, const struct json *body,
                             struct http_reply *reply)
{
    struct public_rooms_query query;
    struct json_out out = json_out_to(&reply->body);
    if (!hs->conf->room_directory_public_over_federation) {
        return err_public(ERR_M_FORBIDDEN, "This server does not show its rooms to other servers.");
    }
    TRY(hs_public_rooms_query_parse(body, &query));
    return hs_public_rooms_write(hs, ctx, &query, &out);
}

static struct err get_public_rooms(void *app, struct ctx *ctx, const struct http_request *request,
                                   struct http_reply *reply)
{
    struct json body = json_object();
    int64_t limit = 0;
    struct slice since = http_query_get(ctx, request, LIT("since"));
    TRY(http_query_int(ctx, request, LIT("limit"), 0, &limit));
    json_set(ctx->arena, &body, LIT("limit"), json_int(limit));
    if (since.ptr) {
        json_set(ctx->arena, &body, LIT("since"), json_string(since));
    }
    return write_list(app, ctx, &body, reply);
}

static struct err post_public_rooms(void *app, struct ctx *ctx, const struct http_request *request,
                                    struct http_reply *reply)
{
    return write_list(app, ctx, &request->json, reply);
}

/* --- spaces --- */

struct shown_room {
    struct room *room;
    struct room_summary summary;
};

/* A room of this server's users that the asking server may look at; is_here: the first half. */
static struct err find_room(struct hs *hs, struct ctx *ctx, struct slice room_id,
                            struct slice origin, struct shown_room *shown, bool *is_here_out,
                            bool *visible_out)
{
    uint64_t number = 0;
    *is_here_out = false;
    *visible_out = false;
    TRY(hs_room_find(hs, ctx, room_id, &number, is_here_out));
    if (!*is_here_out) {
        return OK;
    }
    TRY(hs_room_get(hs, ctx, number, &shown->room));
    *is_here_out = hs_room_is_resident(shown->room);
    if (!*is_here_out) {
        return OK;
    }
    TRY(hs_summary_read(hs, ctx, shown->room, &shown->summary));
    return hs_summary_visible_to_server(hs, ctx, shown->room, origin, &shown->summary, visible_out);
}

struct telling {
    struct hs *hs;
    struct ctx *ctx;
    struct slice origin;
    struct json_out out;
};

/* Children that are here and may be seen; the ids of those that may not go into `hidden`. */
static struct err write_children(struct telling *t, const struct space_children *children,
                                 struct json *hidden)
{
    for (size_t i = 0; i < children->count; i++) {
        struct shown_room shown;
        bool here = false;
        bool visible = false;
        struct slice room_id = children->items[i].room_id;
        TRY(find_room(t->hs, t->ctx, room_id, t->origin, &shown, &here, &visible));
        if (visible) {
            json_out_object(&t->out);
            hs_summary_write(&t->out, &shown.summary, SUMMARY_FULL);
            json_out_object_end(&t->out);
        } else if (here) {
            json_push(t->ctx->arena, hidden, json_string(room_id));
        }
    }
    return OK;
}

static struct err get_hierarchy(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct telling t = {app, ctx, fed_origin(request), json_out_to(&reply->body)};
    struct shown_room shown;
    struct space_children children;
    struct json hidden = json_array();
    bool suggested_only = false;
    bool here = false;
    bool visible = false;
    TRY(http_query_bool(ctx, request, LIT("suggested_only"), false, &suggested_only));
    TRY(find_room(t.hs, ctx, request->params[0], t.origin, &shown, &here, &visible));
    if (!visible) {
        return err_public(ERR_M_NOT_FOUND, "The room is not known, or your server may not see it.");
    }
    TRY(hs_space_children(t.hs, ctx, shown.room, suggested_only, &children));
    json_out_object(&t.out);
    json_out_key_object(&t.out, LIT("room"));
    hs_summary_write(&t.out, &shown.summary, SUMMARY_FULL);
    hs_space_children_write(&t.out, &children);
    json_out_object_end(&t.out);
    json_out_key_array(&t.out, LIT("children"));
    TRY(write_children(&t, &children, &hidden));
    json_out_array_end(&t.out);
    json_out_key(&t.out, LIT("inaccessible_children"));
    json_out_value(&t.out, &hidden);
    json_out_object_end(&t.out);
    return OK;
}

#define V1 "/_matrix/federation/v1/"
#define ASKED(body, max) HTTP_AUTH_SERVER, HTTP_RATE_FEDERATION, body, HTTP_LANE_NONE, max

static const struct http_route routes[] = {
    {HTTP_GET, V1 "publicRooms", ASKED(HTTP_BODY_NONE, 0), get_public_rooms,
     "Published Room Directory", NULL, 0},
    {HTTP_POST, V1 "publicRooms", ASKED(HTTP_BODY_OPTIONAL_JSON, 1 << 16), post_public_rooms,
     "Published Room Directory", NULL, 0},
    {HTTP_GET, V1 "hierarchy/{roomId}", ASKED(HTTP_BODY_NONE, 0), get_hierarchy, "Spaces", NULL, 0},
};
const struct http_route_table ss_rooms_routes = {routes, COUNT_OF(routes)};
