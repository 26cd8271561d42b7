/* Snapshots of one room or of all: what clients asked for before /sync, and what those who peek ask
 * for still. Spec: client-server, "Syncing", "Room previews". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/client/sync_priv.h"
#include "homeserver/service/directory.h"
#include "homeserver/service/invite_filter.h"
#include "homeserver/service/prefs.h"
#include "homeserver/sync/sync.h"

enum { MESSAGES_DEFAULT = 10, MESSAGES_MAX = 1000 };

/* What is shown of the rooms, the same moment for all. */
struct snapshot {
    struct cs_room_call *call;
    uint64_t pos;
    size_t limit;
    struct account_data account;
};

/* The room as it was at the snapshot, or when the caller left it. */
struct room_snapshot {
    struct room *room;
    enum membership membership;
    int64_t number;
    uint64_t root;
    struct slice end; /* token behind the newest message */
};

static struct err begin_snapshot(struct cs_room_call *call, struct snapshot *snapshot)
{
    int64_t limit = 0;
    TRY(cs_sync_catch_up(call->hs, call->ctx, call->actor.user));
    *snapshot = (struct snapshot){.call = call, .pos = positions_published(call->hs->positions)};
    TRY(http_query_int(call->ctx, call->request, LIT("limit"), MESSAGES_DEFAULT, &limit));
    snapshot->limit = limit > MESSAGES_MAX ? MESSAGES_MAX : (size_t)limit;
    return hs_account_data_since(call->hs, call->ctx, call->actor.user, 0, snapshot->pos,
                                 &snapshot->account);
}

static struct slice token_at(const struct snapshot *snapshot)
{
    struct sync_token token = {snapshot->pos, snapshot->pos};
    return sync_token_encode(snapshot->call->ctx->arena, token);
}

/* --- parts of a room --- */

static void write_account_data(const struct snapshot *snapshot, uint64_t room)
{
    struct json_out *out = &snapshot->call->out;
    json_out_key_array(out, LIT("account_data"));
    for (size_t i = 0; i < snapshot->account.count; i++) {
        const struct account_datum *datum = &snapshot->account.items[i];
        if (datum->room == room) {
            json_out_object(out);
            json_out_key_string(out, LIT("type"), datum->type);
            json_out_key_raw(out, LIT("content"), datum->content);
            json_out_object_end(out);
        }
    }
    json_out_array_end(out);
}

static struct err write_messages(const struct snapshot *snapshot, const struct room_snapshot *shown)
{
    struct cs_room_call *call = snapshot->call;
    struct stored_events events = {0};
    struct event_range range = {
        .from = shown->number + 1, .limit = snapshot->limit, .order = EVENTS_REVERSE};
    if (snapshot->limit > 0) {
        TRY(hs_events_read(call->hs, call->ctx, shown->room, range, &events));
    }
    int64_t oldest = events.count ? events.items[events.count - 1].number : shown->number + 1;
    TRY(hs_keep_visible(call->hs, call->ctx, shown->room, &call->viewer, &events));
    TRY(hs_drop_ignored(call->hs, call->ctx, call->viewer.user, &events));
    json_out_key_object(&call->out, LIT("messages"));
    json_out_key_string(&call->out, LIT("start"), hs_token_of_number(call->ctx, oldest));
    json_out_key_string(&call->out, LIT("end"), shown->end);
    json_out_key_array(&call->out, LIT("chunk"));
    for (size_t i = events.count; i > 0; i--) {
        TRY(hs_write_event(call->hs, call->ctx, shown->room, &call->viewer, &events.items[i - 1],
                           VIEW_ROOM_ID, &call->out));
    }
    json_out_array_end(&call->out);
    json_out_object_end(&call->out);
    return OK;
}

static struct err write_state(const struct snapshot *snapshot, const struct room_snapshot *shown)
{
    struct cs_room_call *call = snapshot->call;
    struct state_entries entries;
    TRY(state_read(call->hs->states, call->ctx, hs_room_info(shown->room).number, shown->root,
                   &entries));
    json_out_key_array(&call->out, LIT("state"));
    for (size_t i = 0; i < entries.count; i++) {
        struct stored_event event;
        bool found = false;
        TRY(hs_event_load(call->hs, call->ctx, shown->room, entries.items[i].event, &event,
                          &found));
        if (found) {
            TRY(hs_write_event(call->hs, call->ctx, shown->room, &call->viewer, &event,
                               VIEW_ROOM_ID, &call->out));
        }
    }
    json_out_array_end(&call->out);
    return OK;
}

static struct err write_room(const struct snapshot *snapshot, const struct room_snapshot *shown)
{
    struct cs_room_call *call = snapshot->call;
    struct room_info info = hs_room_info(shown->room);
    bool is_public = false;
    TRY(hs_public_get(call->hs, call->ctx, info.number, &is_public));
    json_out_object(&call->out);
    json_out_key_string(&call->out, LIT("room_id"), info.room_id);
    if (shown->membership != MEMBERSHIP_NONE) {
        json_out_key_string(&call->out, LIT("membership"), membership_word(shown->membership));
    }
    json_out_key_string(&call->out, LIT("visibility"), is_public ? LIT("public") : LIT("private"));
    TRY(write_messages(snapshot, shown));
    TRY(write_state(snapshot, shown));
    write_account_data(snapshot, info.number);
    json_out_object_end(&call->out);
    return OK;
}

/* A member's or a peeker's room stands at the snapshot, that of one who left at the leave. */
static struct err place(const struct snapshot *snapshot, const struct room_view *view,
                        struct room_snapshot *shown)
{
    struct cs_room_call *call = snapshot->call;
    shown->membership = view->membership;
    shown->number = view->number;
    shown->root = view->root;
    shown->end = hs_token_of_number(call->ctx, view->number + 1);
    if (view->membership != MEMBERSHIP_JOIN && !view->world_readable) {
        return OK;
    }
    shown->end = token_at(snapshot);
    return hs_room_at(call->hs, call->ctx, shown->room, snapshot->pos, &shown->number,
                      &shown->root);
}

/* --- one room --- */

static struct err get_room(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct cs_room_call call;
    struct snapshot snapshot;
    struct room_view view;
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    TRY(cs_room_whole_view(&call, &view));
    TRY(begin_snapshot(&call, &snapshot));
    struct room_snapshot shown = {.room = call.room};
    TRY(place(&snapshot, &view, &shown));
    return write_room(&snapshot, &shown);
}

/* --- all rooms --- */

/* Of a room that the caller is invited to only the invite is shown, which is here unless the room
 * is elsewhere. */
static struct err write_invited(const struct snapshot *snapshot, const struct user_room *entry)
{
    struct cs_room_call *call = snapshot->call;
    struct room *room = NULL;
    struct stored_event own;
    bool found = false;
    bool hidden = false;
    TRY(hs_room_get(call->hs, call->ctx, entry->room, &room));
    TRY(hs_event_load(call->hs, call->ctx, room, entry->number, &own, &found));
    TRY(hs_invite_is_hidden(call->hs, call->ctx, call->actor.user,
                            found ? own.event.sender.s : (struct slice){0}, &hidden));
    if (hidden) {
        return OK;
    }
    json_out_object(&call->out);
    json_out_key_string(&call->out, LIT("room_id"), hs_room_info(room).room_id);
    json_out_key_string(&call->out, LIT("membership"), membership_word(entry->membership));
    if (found) {
        json_out_key(&call->out, LIT("invite"));
        TRY(hs_write_event(call->hs, call->ctx, room, &call->viewer, &own, VIEW_ROOM_ID,
                           &call->out));
    }
    json_out_object_end(&call->out);
    return OK;
}

static struct err write_entry(const struct snapshot *snapshot, const struct user_room *entry,
                              bool archived)
{
    struct cs_room_call *call = snapshot->call;
    struct room_snapshot shown = {0};
    struct room_view view;
    bool is_in = entry->membership == MEMBERSHIP_JOIN;
    bool is_left = entry->left_number && !entry->forgotten && archived;
    if (entry->pos <= snapshot->pos && entry->membership == MEMBERSHIP_INVITE) {
        return write_invited(snapshot, entry);
    }
    if (entry->pos > snapshot->pos || (!is_in && !is_left)) {
        return OK;
    }
    TRY(hs_room_get(call->hs, call->ctx, entry->room, &shown.room));
    TRY(hs_room_view(call->hs, call->ctx, shown.room, call->actor.user, &view));
    TRY(place(snapshot, &view, &shown));
    return write_room(snapshot, &shown);
}

static struct err get_all(void *app, struct ctx *ctx, const struct http_request *request,
                          struct http_reply *reply)
{
    struct cs_room_call call;
    struct snapshot snapshot;
    struct user_rooms rooms;
    bool archived = false;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(http_query_bool(ctx, request, LIT("archived"), false, &archived));
    TRY(begin_snapshot(&call, &snapshot));
    TRY(hs_user_rooms(call.hs, ctx, call.actor.user, &rooms));
    json_out_object(&call.out);
    json_out_key_string(&call.out, LIT("end"), token_at(&snapshot));
    json_out_key(&call.out, LIT("presence"));
    TRY(sync_write_everyones_presence(call.hs->sync, ctx, call.actor.user, &call.out));
    json_out_key_array(&call.out, LIT("rooms"));
    for (size_t i = 0; i < rooms.count; i++) {
        TRY(write_entry(&snapshot, &rooms.items[i], archived));
    }
    json_out_array_end(&call.out);
    write_account_data(&snapshot, 0);
    json_out_object_end(&call.out);
    return OK;
}

#define READ HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/client/v3/rooms/{roomId}/initialSync", READ, get_room, "Room previews",
     NULL, HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, "/_matrix/client/v3/initialSync", READ, get_all, "Syncing", NULL,
     HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_initial_sync_routes = {routes, COUNT_OF(routes)};
