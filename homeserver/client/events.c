/* The event stream from before /sync, which is how rooms are peeked into, and single events without
 * their room's id. Spec: client-server, "Syncing", "Room previews". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/sync/peek.h"

enum { TIMEOUT_MS_MAX = 5 * 60 * 1000 };

static struct err read_from(struct cs_room_call *call, struct sync_peek *peek)
{
    struct slice from = http_query_get(call->ctx, call->request, LIT("from"));
    uint64_t newest = positions_published(call->hs->positions);
    struct sync_token token = {newest, newest};
    if (from.len) {
        TRY(sync_token_check(from, newest, &token));
    }
    peek->since = token.pos;
    return OK;
}

static struct err find_room(struct cs_room_call *call, struct sync_peek *peek)
{
    struct slice room_id = http_query_get(call->ctx, call->request, LIT("room_id"));
    bool found = false;
    if (!room_id.ptr) {
        /* Spec: client-server, "Guest Access": guests see one room at a time here. */
        return call->actor.is_guest
                   ? err_public(ERR_M_GUEST_ACCESS_FORBIDDEN, "Guests must give a `room_id`.")
                   : OK;
    }
    TRY(hs_room_find(call->hs, call->ctx, room_id, &peek->room, &found));
    return found ? OK : err_public(ERR_M_FORBIDDEN, "You cannot look into this room.");
}

static struct err get_events(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    struct sync_peek peek = {0};
    int64_t timeout_ms = 0;
    uint64_t upto = 0;
    bool news = false;
    cs_call_begin(&call, app, ctx, request, reply);
    peek.user = call.actor.user;
    peek.user_id = call.actor.user_id;
    peek.device_id = call.viewer.device_id;
    TRY(http_query_int(ctx, request, LIT("timeout"), 0, &timeout_ms));
    TRY(read_from(&call, &peek));
    TRY(find_room(&call, &peek));
    TRY(sync_peek_respond(call.hs->sync, ctx, &peek, &reply->body, &news, &upto));
    if (!news && timeout_ms > 0) {
        struct sync_waiting_start start = {
            .upto = upto, .timeout_ms = timeout_ms > TIMEOUT_MS_MAX ? TIMEOUT_MS_MAX : timeout_ms};
        buf_clear(&reply->body);
        return sync_peek_park(call.hs->sync, ctx, &peek, &start, request, reply);
    }
    return OK;
}

/* Events that the caller may not see are not told from those that do not exist. */
static struct err get_event(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct cs_room_call call;
    struct stored_event event;
    uint64_t room = 0;
    int64_t number = 0;
    bool found = false;
    bool visible = false;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(hs_event_locate(call.hs, ctx, request->params[0], &room, &number, &found));
    if (found) {
        TRY(hs_room_get(call.hs, ctx, room, &call.room));
        TRY(hs_event_load(call.hs, ctx, call.room, number, &event, &found));
    }
    if (found) {
        TRY(hs_can_see(call.hs, ctx, call.room, &call.viewer, &event, &visible));
    }
    if (!visible) {
        return err_public(ERR_M_NOT_FOUND, "Event not found.");
    }
    return hs_write_event(call.hs, ctx, call.room, &call.viewer, &event, VIEW_ROOM_ID | VIEW_BUNDLE,
                          &call.out);
}

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/client/v3/events", HTTP_AUTH_USER, HTTP_RATE_NONE, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_events, "Syncing", NULL, HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, "/_matrix/client/v3/events/{eventId}", HTTP_AUTH_USER, HTTP_RATE_READ,
     HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_event, "Getting events for a room", NULL,
     HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_events_routes = {routes, COUNT_OF(routes)};
