/* Spec: client-server, "Presence". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/users.h"

static const struct slice words[] = {[PRESENCE_OFFLINE] = LIT("offline"),
                                     [PRESENCE_UNAVAILABLE] = LIT("unavailable"),
                                     [PRESENCE_ONLINE] = LIT("online")};

static struct err parse_presence(struct slice word, enum presence *presence_out)
{
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        if (slice_eq(word, words[i])) {
            *presence_out = (enum presence)i;
            return OK;
        }
    }
    return err_public(ERR_M_INVALID_PARAM, "`presence` must be online, unavailable or offline.");
}

static struct err put_status(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    struct slice word;
    struct slice status_msg;
    enum presence presence = PRESENCE_OFFLINE;
    cs_call_begin(&call, app, ctx, request, reply);
    if (!slice_eq(request->params[0], call.actor.user_id)) {
        return err_public(ERR_M_FORBIDDEN, "You can set your own presence only.");
    }
    TRY(cs_body_required(request, LIT("presence"), &word));
    TRY(cs_body_string(request, LIT("status_msg"), &status_msg));
    TRY(parse_presence(word, &presence));
    hs_presence_set(call.hs, call.actor.user, presence, status_msg);
    http_reply_empty(reply);
    return OK;
}

/* Only those who share a room are told. */
static struct err find_visible(struct cs_room_call *call, uint64_t *user_out)
{
    bool found = false;
    bool visible = false;
    TRY(hs_user_find(call->hs, call->ctx, call->request->params[0], user_out, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "Nothing is known of this user's presence.");
    }
    visible = *user_out == call->actor.user;
    if (!visible) {
        TRY(hs_users_share_room(call->hs, call->ctx, call->actor.user, *user_out, &visible));
    }
    return visible ? OK : err_public(ERR_M_FORBIDDEN, "You do not share a room with this user.");
}

static struct err get_status(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    struct presence_state state = {.presence = PRESENCE_OFFLINE, .last_active_ago_ms = -1};
    uint64_t user = 0;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(find_visible(&call, &user));
    if (!hs_presence_get(call.hs, ctx, user, &state)) {
        state = (struct presence_state){.presence = PRESENCE_OFFLINE, .last_active_ago_ms = -1};
    }
    json_out_object(&call.out);
    json_out_key_string(&call.out, LIT("presence"), words[state.presence]);
    if (state.last_active_ago_ms >= 0) {
        json_out_key_int(&call.out, LIT("last_active_ago"), state.last_active_ago_ms);
    }
    if (state.status_msg.ptr) {
        json_out_key_string(&call.out, LIT("status_msg"), state.status_msg);
    }
    if (state.presence == PRESENCE_ONLINE) {
        json_out_key_bool(&call.out, LIT("currently_active"), state.currently_active);
    }
    json_out_object_end(&call.out);
    return OK;
}

#define STATUS "/_matrix/client/v3/presence/{userId}/status"
enum { BODY_BYTES_MAX = 8192, OPEN = HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED };

static const struct http_route routes[] = {
    {HTTP_PUT, STATUS, HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON, HTTP_LANE_NONE,
     BODY_BYTES_MAX, put_status, "Presence", NULL, OPEN},
    {HTTP_GET, STATUS, HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     get_status, "Presence", NULL, OPEN},
};
const struct http_route_table cs_presence_routes = {routes, COUNT_OF(routes)};
