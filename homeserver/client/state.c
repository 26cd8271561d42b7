/* Spec: client-server, "Getting events for a room": state, members, single events, context. */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/remote.h"
#include "homeserver/sync/filter.h"

static struct err begin_view(struct cs_room_call *call, void *app, struct ctx *ctx,
                             const struct http_request *request, struct http_reply *reply,
                             struct room_view *view)
{
    TRY(cs_room_begin(call, app, ctx, request, reply));
    return hs_room_view(call->hs, ctx, call->room, call->actor.user, view);
}

static struct err begin_whole_view(struct cs_room_call *call, void *app, struct ctx *ctx,
                                   const struct http_request *request, struct http_reply *reply,
                                   struct room_view *view)
{
    TRY(cs_room_begin(call, app, ctx, request, reply));
    return cs_room_whole_view(call, view);
}

static struct err write_state_of(struct cs_room_call *call, uint64_t root)
{
    struct state_entries entries;
    TRY(state_read(call->hs->states, call->ctx, hs_room_info(call->room).number, root, &entries));
    json_out_array(&call->out);
    for (size_t i = 0; i < entries.count; i++) {
        struct stored_event event;
        bool found = false;
        TRY(hs_event_load(call->hs, call->ctx, call->room, entries.items[i].event, &event, &found));
        if (found) {
            TRY(hs_write_event(call->hs, call->ctx, call->room, &call->viewer, &event, VIEW_ROOM_ID,
                               &call->out));
        }
    }
    json_out_array_end(&call->out);
    return OK;
}

static struct err get_state(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct cs_room_call call;
    struct room_view view;
    TRY(begin_whole_view(&call, app, ctx, request, reply, &view));
    return write_state_of(&call, view.root);
}

static struct err get_state_event(void *app, struct ctx *ctx, const struct http_request *request,
                                  struct http_reply *reply)
{
    struct cs_room_call call;
    struct room_view view;
    struct stored_event event;
    bool found = false;
    struct slice format = http_query_get(ctx, request, LIT("format"));
    struct slice key = request->params[2].ptr ? request->params[2] : LIT("");
    TRY(begin_view(&call, app, ctx, request, reply, &view));
    if (format.ptr && !slice_eq(format, LIT("content")) && !slice_eq(format, LIT("event"))) {
        return err_public(ERR_M_INVALID_PARAM, "`format` must be content or event.");
    }
    TRY(hs_state_event(call.hs, ctx, call.room, view.root, request->params[1], key, &event,
                       &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "The room has no state of this type and key.");
    }
    if (slice_eq(format, LIT("event"))) {
        return hs_write_event(call.hs, ctx, call.room, &call.viewer, &event, VIEW_ROOM_ID,
                              &call.out);
    }
    json_out_raw(&call.out, event.event.content_json);
    return OK;
}

/* --- members --- */

static struct err read_member_query(struct cs_room_call *call, struct room_view *view,
                                    struct slice *only_out, struct slice *not_out)
{
    struct slice at = http_query_get(call->ctx, call->request, LIT("at"));
    *only_out = http_query_get(call->ctx, call->request, LIT("membership"));
    *not_out = http_query_get(call->ctx, call->request, LIT("not_membership"));
    if (at.ptr) {
        int64_t number = 0;
        struct stored_events events;
        TRY(hs_token_to_number(call->hs, call->ctx, call->room, at, &number));
        struct event_range range = {.from = number, .limit = 1, .order = EVENTS_REVERSE};
        TRY(hs_events_read(call->hs, call->ctx, call->room, range, &events));
        if (events.count == 0) {
            /* Before the first event there is no room: its beginning is the creator's join. */
            range = (struct event_range){.from = 0, .to = 3, .limit = 2};
            TRY(hs_events_read(call->hs, call->ctx, call->room, range, &events));
            if (events.count == 2) {
                events.items[0] = events.items[1];
            }
        }
        if (events.count && events.items[0].number < view->number) {
            view->root = events.items[0].state_after;
        }
    }
    return OK;
}

/* Spec: membership and not_membership together are alternatives. */
static bool is_wanted(struct slice membership, struct slice only, struct slice excluded)
{
    bool passes_only = only.ptr && slice_eq(membership, only);
    bool passes_not = excluded.ptr && !slice_eq(membership, excluded);
    return (!only.ptr && !excluded.ptr) || passes_only || passes_not;
}

static struct err write_member(struct cs_room_call *call, int64_t number, struct slice only,
                               struct slice excluded)
{
    struct stored_event event;
    bool found = false;
    TRY(hs_event_load(call->hs, call->ctx, call->room, number, &event, &found));
    if (!found || !slice_eq(event.event.type, LIT("m.room.member"))) {
        return OK;
    }
    struct slice membership = json_get_string(event.event.content, LIT("membership"));
    if (is_wanted(membership, only, excluded)) {
        TRY(hs_write_event(call->hs, call->ctx, call->room, &call->viewer, &event, VIEW_ROOM_ID,
                           &call->out));
    }
    return OK;
}

static struct err get_members(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    struct room_view view;
    struct slice only;
    struct slice excluded;
    struct state_entries entries;
    TRY(begin_whole_view(&call, app, ctx, request, reply, &view));
    TRY(read_member_query(&call, &view, &only, &excluded));
    TRY(state_read(call.hs->states, ctx, hs_room_info(call.room).number, view.root, &entries));
    json_out_object(&call.out);
    json_out_key_array(&call.out, LIT("chunk"));
    for (size_t i = 0; i < entries.count; i++) {
        TRY(write_member(&call, entries.items[i].event, only, excluded));
    }
    json_out_array_end(&call.out);
    json_out_object_end(&call.out);
    return OK;
}

/* Clients look for both keys, so a name that is not set is null. */
static void write_name(struct json_out *out, struct slice key, struct slice name)
{
    json_out_key(out, key);
    if (name.ptr) {
        json_out_string(out, name);
    } else {
        json_out_null(out);
    }
}

static struct err write_joined_member(void *arg, struct ctx *page, const struct room_member *member)
{
    struct json_out *out = arg;
    (void)page;
    if (member->membership == MEMBERSHIP_JOIN) {
        json_out_key_object(out, member->user_id);
        write_name(out, LIT("display_name"), member->display_name);
        write_name(out, LIT("avatar_url"), member->avatar_url);
        json_out_object_end(out);
    }
    return OK;
}

static struct err get_joined_members(void *app, struct ctx *ctx, const struct http_request *request,
                                     struct http_reply *reply)
{
    struct cs_room_call call;
    struct room_view view;
    TRY(begin_whole_view(&call, app, ctx, request, reply, &view));
    if (view.membership != MEMBERSHIP_JOIN) {
        return err_public(ERR_M_FORBIDDEN, "You are not in this room.");
    }
    json_out_object(&call.out);
    json_out_key_object(&call.out, LIT("joined"));
    TRY(hs_room_members_each(call.hs, ctx, call.room, write_joined_member, &call.out));
    json_out_object_end(&call.out);
    json_out_object_end(&call.out);
    return OK;
}

/* --- single events and their surroundings --- */

/* A visible event of the room; M_NOT_FOUND also for those the caller may not see. */
static struct err find_visible(struct cs_room_call *call, struct slice event_id,
                               struct stored_event *event_out)
{
    bool found = false;
    bool visible = false;
    TRY(hs_event_find(call->hs, call->ctx, call->room, event_id, event_out, &found));
    if (found) {
        TRY(hs_can_see(call->hs, call->ctx, call->room, &call->viewer, event_out, &visible));
    }
    return visible ? OK : err_public(ERR_M_NOT_FOUND, "Event not found.");
}

/* Unknown rooms and invisible events look the same. */
static struct err begin_event(struct cs_room_call *call, void *app, struct ctx *ctx,
                              const struct http_request *request, struct http_reply *reply)
{
    cs_call_begin(call, app, ctx, request, reply);
    struct err err = hs_room_get_by_id(call->hs, ctx, request->params[0], &call->room);
    return err.code == ERR_M_NOT_FOUND ? err_public(ERR_M_NOT_FOUND, "Event not found.") : err;
}

static struct err get_event(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct cs_room_call call;
    struct stored_event event;
    TRY(begin_event(&call, app, ctx, request, reply));
    TRY(find_visible(&call, request->params[1], &event));
    return hs_write_event(call.hs, ctx, call.room, &call.viewer, &event, VIEW_ROOM_ID | VIEW_BUNDLE,
                          &call.out);
}

struct context {
    struct sync_event_filter filter;
    struct stored_events before, after;
    struct stored_event target;
};

static struct err read_side(struct cs_room_call *call, const struct context *context,
                            struct event_range range, struct stored_events *events_out)
{
    size_t kept = 0;
    TRY(hs_events_read(call->hs, call->ctx, call->room, range, events_out));
    TRY(hs_keep_visible(call->hs, call->ctx, call->room, &call->viewer, events_out));
    TRY(hs_drop_ignored(call->hs, call->ctx, call->viewer.user, events_out));
    for (size_t i = 0; i < events_out->count; i++) {
        const struct event *event = &events_out->items[i].event;
        if (sync_filter_takes_event(&context->filter, event->type, event->sender.s,
                                    event->content)) {
            events_out->items[kept++] = events_out->items[i];
        }
    }
    events_out->count = kept;
    return OK;
}

/* The places right below which events are missing, on both sides of the target: what lies beyond is
 * not its neighbourhood. */
struct gaps {
    int64_t below, above;
};

static struct err find_gaps(struct cs_room_call *call, int64_t target, struct gaps *gaps_out)
{
    struct intake_edge *edges = NULL;
    size_t count = 0;
    *gaps_out = (struct gaps){INT64_MIN + 2, 0};
    TRY(hs_intake_edges(call->hs, call->ctx, call->room, &edges, &count));
    for (size_t i = 0; i < count; i++) {
        int64_t at = edges[i].cited_by;
        if (at <= target) {
            gaps_out->below = at > gaps_out->below ? at : gaps_out->below;
        } else {
            gaps_out->above = !gaps_out->above || at < gaps_out->above ? at : gaps_out->above;
        }
    }
    return OK;
}

/* Events before the target, fetched from other servers where they are missing. */
static struct err read_before(struct cs_room_call *call, struct context *context,
                              struct event_range back)
{
    const struct hs_remote *remote = call->hs->remote;
    struct gaps gaps;
    bool added = false;
    TRY(find_gaps(call, context->target.number, &gaps));
    back.to = gaps.below - 1;
    TRY(read_side(call, context, back, &context->before));
    bool cut = gaps.below > INT64_MIN + 2 && context->before.count < back.limit;
    if (!cut || !remote || !remote->backfill) {
        return OK;
    }
    TRY(remote->backfill(call->hs, call->ctx, call->room, gaps.below, back.limit, &added));
    if (added) {
        TRY(find_gaps(call, context->target.number, &gaps));
        back.to = gaps.below - 1;
        TRY(read_side(call, context, back, &context->before));
    }
    return OK;
}

static struct err read_context(struct cs_room_call *call, struct context *context)
{
    int64_t limit = 0;
    struct slice filter = http_query_get(call->ctx, call->request, LIT("filter"));
    TRY(http_query_int(call->ctx, call->request, LIT("limit"), 10, &limit));
    limit = limit > 200 ? 200 : limit;
    context->filter = (struct sync_event_filter){.takes_all = true};
    if (filter.ptr) {
        struct json tree;
        TRY(json_parse(call->ctx->arena, filter, &tree));
        TRY(sync_filter_parse_events(call->ctx->arena, &tree, &context->filter));
    }
    size_t half = (size_t)limit / 2;
    struct event_range back = {
        .from = context->target.number, .limit = half, .order = EVENTS_REVERSE};
    struct event_range on = {
        .from = context->target.number, .limit = (size_t)limit - half, .order = EVENTS_FORWARD};
    struct gaps gaps;
    TRY(find_gaps(call, context->target.number, &gaps));
    on.to = gaps.above;
    TRY(read_before(call, context, back));
    return read_side(call, context, on, &context->after);
}

static struct err write_events(struct cs_room_call *call, struct slice key,
                               const struct stored_events *events)
{
    json_out_key_array(&call->out, key);
    for (size_t i = 0; i < events->count; i++) {
        TRY(hs_write_event(call->hs, call->ctx, call->room, &call->viewer, &events->items[i],
                           VIEW_ROOM_ID | VIEW_BUNDLE, &call->out));
    }
    json_out_array_end(&call->out);
    return OK;
}

static bool is_sender(const struct context *context, struct slice user_id)
{
    const struct stored_events *sides[] = {&context->before, &context->after};
    for (size_t side = 0; side < COUNT_OF(sides); side++) {
        for (size_t i = 0; i < sides[side]->count; i++) {
            if (slice_eq(sides[side]->items[i].event.sender.s, user_id)) {
                return true;
            }
        }
    }
    return slice_eq(context->target.event.sender.s, user_id);
}

/* The state at the last event returned; with lazy loading only members who speak here. */
static struct err write_context_state(struct cs_room_call *call, const struct context *context)
{
    struct state_entries entries;
    const struct stored_event *last =
        context->after.count ? &context->after.items[context->after.count - 1] : &context->target;
    TRY(state_read(call->hs->states, call->ctx, hs_room_info(call->room).number, last->state_after,
                   &entries));
    json_out_key_array(&call->out, LIT("state"));
    for (size_t i = 0; i < entries.count; i++) {
        struct stored_event event;
        bool found = false;
        TRY(hs_event_load(call->hs, call->ctx, call->room, entries.items[i].event, &event, &found));
        bool skip = found && context->filter.lazy_load_members &&
                    slice_eq(event.event.type, LIT("m.room.member")) &&
                    !is_sender(context, event.event.state_key);
        if (found && !skip) {
            TRY(hs_write_event(call->hs, call->ctx, call->room, &call->viewer, &event, VIEW_ROOM_ID,
                               &call->out));
        }
    }
    json_out_array_end(&call->out);
    return OK;
}

static struct err get_context(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    struct context context = {0};
    TRY(begin_event(&call, app, ctx, request, reply));
    TRY(find_visible(&call, request->params[1], &context.target));
    TRY(read_context(&call, &context));
    int64_t first = context.before.count ? context.before.items[context.before.count - 1].number
                                         : context.target.number;
    int64_t last = context.after.count ? context.after.items[context.after.count - 1].number
                                       : context.target.number;
    json_out_object(&call.out);
    json_out_key_string(&call.out, LIT("start"), hs_token_of_number(ctx, first));
    json_out_key_string(&call.out, LIT("end"), hs_token_of_number(ctx, last + 1));
    TRY(write_events(&call, LIT("events_before"), &context.before));
    json_out_key(&call.out, LIT("event"));
    TRY(hs_write_event(call.hs, ctx, call.room, &call.viewer, &context.target,
                       VIEW_ROOM_ID | VIEW_BUNDLE, &call.out));
    TRY(write_events(&call, LIT("events_after"), &context.after));
    TRY(write_context_state(&call, &context));
    json_out_object_end(&call.out);
    return OK;
}

#define ROOM "/_matrix/client/v3/rooms/{roomId}/"
#define READ HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0
enum { OPEN = HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED };

static const struct http_route routes[] = {
    {HTTP_GET, ROOM "state", READ, get_state, "Getting events for a room", NULL, OPEN},
    {HTTP_GET, ROOM "state/{eventType}/{stateKey}", READ, get_state_event,
     "Getting events for a room", NULL, OPEN},
    {HTTP_GET, ROOM "state/{eventType}/", READ, get_state_event, "Getting events for a room", NULL,
     OPEN},
    {HTTP_GET, ROOM "state/{eventType}", READ, get_state_event, "Getting events for a room", NULL,
     OPEN},
    {HTTP_GET, ROOM "members", READ, get_members, "Getting events for a room", NULL, OPEN},
    {HTTP_GET, ROOM "joined_members", READ, get_joined_members, "Getting events for a room", NULL,
     OPEN},
    {HTTP_GET, ROOM "event/{eventId}", READ, get_event, "Getting events for a room", NULL, OPEN},
    {HTTP_GET, ROOM "context/{eventId}", READ, get_context, "Event Context", NULL, OPEN},
};
const struct http_route_table cs_state_routes = {routes, COUNT_OF(routes)};
