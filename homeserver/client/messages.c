/* Spec: client-server, "Getting events for a room": GET messages. */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/remote.h"
#include "homeserver/sync/filter.h"

enum { MESSAGES_MAX = 1000, SCAN_PAGES_MAX = 20, FETCHES_MAX = 3 };

struct page {
    struct sync_event_filter filter;
    bool forward;
    int64_t from; /* place: before this number */
    int64_t to;   /* place, 0 = none */
    int64_t last; /* newest number that may be seen */
    size_t limit;
    struct stored_events events;
    int64_t next; /* place to go on from */
    bool has_more;
    /* Where events are missing: place of the nearest gap below, and of one that nobody could fill.
     */
    int64_t gap, unfilled;
    int fetches;
};

static struct err read_places(struct cs_room_call *call, const struct room_view *view,
                              struct page *page)
{
    struct slice from = http_query_get(call->ctx, call->request, LIT("from"));
    struct slice to = http_query_get(call->ctx, call->request, LIT("to"));
    page->last = view->number;
    page->from = page->forward ? INT64_MIN + 2 : view->number + 1;
    if (from.len) {
        TRY(hs_token_to_number(call->hs, call->ctx, call->room, from, &page->from));
    }
    if (!page->forward && page->from > view->number + 1) {
        page->from = view->number + 1;
    }
    if (to.len) {
        TRY(hs_token_to_number(call->hs, call->ctx, call->room, to, &page->to));
    }
    return OK;
}

static struct err read_query(struct cs_room_call *call, struct page *page)
{
    int64_t limit = 0;
    struct slice dir = http_query_get(call->ctx, call->request, LIT("dir"));
    struct slice filter = http_query_get(call->ctx, call->request, LIT("filter"));
    if (!dir.ptr) {
        return err_public(ERR_M_MISSING_PARAM, "`dir` is required: b or f.");
    }
    if (!slice_eq(dir, LIT("b")) && !slice_eq(dir, LIT("f"))) {
        return err_public(ERR_M_INVALID_PARAM, "`dir` must be b or f.");
    }
    page->forward = slice_eq(dir, LIT("f"));
    TRY(http_query_int(call->ctx, call->request, LIT("limit"), 10, &limit));
    page->limit = limit > MESSAGES_MAX ? MESSAGES_MAX : (size_t)(limit < 1 ? 1 : limit);
    page->filter = (struct sync_event_filter){.takes_all = true};
    if (filter.ptr) {
        struct json tree;
        TRY(json_parse(call->ctx->arena, filter, &tree));
        TRY(sync_filter_parse_events(call->ctx->arena, &tree, &page->filter));
    }
    return OK;
}

static struct event_range range_of(const struct page *page)
{
    struct event_range range = {.limit = page->limit - page->events.count};
    if (page->forward) {
        range.order = EVENTS_FORWARD;
        range.from = page->next - 1;
        range.to = page->to ? page->to : page->last + 1;
        range.to = page->gap < range.to ? page->gap : range.to;
    } else {
        range.order = EVENTS_REVERSE;
        range.from = page->next;
        range.to = page->to ? page->to - 1 : INT64_MIN + 1;
        range.to = page->gap > range.to ? page->gap - 1 : range.to;
    }
    return range;
}

/* Adds what may be shown of a piece of the timeline. */
static struct err take(struct cs_room_call *call, struct page *page, struct stored_events *events)
{
    TRY(hs_keep_visible(call->hs, call->ctx, call->room, &call->viewer, events));
    TRY(hs_drop_ignored(call->hs, call->ctx, call->viewer.user, events));
    for (size_t i = 0; i < events->count; i++) {
        const struct event *event = &events->items[i].event;
        if (sync_filter_takes_event(&page->filter, event->type, event->sender.s, event->content)) {
            page->events.items[page->events.count++] = events->items[i];
        }
    }
    return OK;
}

/* Where events are missing: whether right before the place, and the nearest gap below it. */
static struct err find_gaps(struct cs_room_call *call, struct page *page, bool *is_here_out)
{
    struct intake_edge *edges = NULL;
    size_t count = 0;
    page->gap = page->forward ? INT64_MAX : INT64_MIN;
    *is_here_out = false;
    TRY(hs_intake_edges(call->hs, call->ctx, call->room, &edges, &count));
    for (size_t i = 0; i < count; i++) {
        int64_t at = edges[i].cited_by;
        if (at == page->unfilled) {
            continue;
        }
        if (page->forward) {
            page->gap = at > page->from && at >= page->next && at < page->gap ? at : page->gap;
        } else {
            *is_here_out = *is_here_out || at == page->next;
            page->gap = at < page->next && at > page->gap ? at : page->gap;
        }
    }
    return OK;
}

/* Whoever reads back to where events are missing has them fetched, as far as others give them.
 * is_open_out: enough was fetched for one page, and there may be more right here. */
static struct err fill_gap(struct cs_room_call *call, struct page *page, bool *is_open_out)
{
    const struct hs_remote *remote = call->hs->remote;
    bool is_here = false;
    page->gap = page->forward ? INT64_MAX : INT64_MIN;
    *is_open_out = false;
    if (!remote || !remote->backfill) {
        return OK;
    }
    TRY(find_gaps(call, page, &is_here));
    for (; is_here && page->fetches < FETCHES_MAX; page->fetches++) {
        bool added = false;
        TRY(remote->backfill(call->hs, call->ctx, call->room, page->next, page->limit, &added));
        page->unfilled = added ? page->unfilled : page->next;
        TRY(find_gaps(call, page, &is_here));
    }
    *is_open_out = is_here && page->next != page->from;
    return OK;
}

/* Reading forwards, a gap is filled from its far end: as far as it can be, then it is passed. */
static struct err cross_gap(struct cs_room_call *call, struct page *page)
{
    bool added = false;
    page->has_more = true;
    if (page->fetches++ < FETCHES_MAX) {
        TRY(call->hs->remote->backfill(call->hs, call->ctx, call->room, page->gap, page->limit,
                                       &added));
    }
    page->unfilled = added ? page->unfilled : page->gap;
    return OK;
}

/* One piece, to the next gap at most. */
static struct err fill_piece(struct cs_room_call *call, struct page *page)
{
    struct stored_events events;
    struct event_range range = range_of(page);
    TRY(hs_events_read(call->hs, call->ctx, call->room, range, &events));
    page->has_more = events.count == range.limit;
    if (events.count) {
        int64_t edge = events.items[events.count - 1].number;
        page->next = page->forward ? edge + 1 : edge;
    }
    if (!page->has_more && !page->forward && page->gap > INT64_MIN && range.to == page->gap - 1) {
        page->next = page->gap;
        page->has_more = true;
    }
    TRY(take(call, page, &events));
    return !page->has_more && page->forward && range.to == page->gap ? cross_gap(call, page) : OK;
}

/* Reads on until the page is full, the timeline ends, or enough was looked through. */
static struct err fill(struct cs_room_call *call, struct page *page)
{
    page->events.items = arena_array(call->ctx->arena, page->limit, sizeof *page->events.items);
    page->next = page->from;
    page->has_more = true;
    for (int i = 0; i < SCAN_PAGES_MAX && page->has_more && page->events.count < page->limit; i++) {
        bool is_open = false;
        TRY(fill_gap(call, page, &is_open));
        if (is_open) {
            break;
        }
        TRY(fill_piece(call, page));
    }
    return OK;
}

/* Lazily loaded members: the senders' member events, as of the newest event of the page. */
static struct err write_members(struct cs_room_call *call, const struct page *page, uint64_t root)
{
    json_out_key_array(&call->out, LIT("state"));
    for (size_t i = 0; page->filter.lazy_load_members && i < page->events.count; i++) {
        struct slice sender = page->events.items[i].event.sender.s;
        struct stored_event member;
        bool found = false;
        bool seen = false;
        for (size_t j = 0; j < i && !seen; j++) {
            seen = slice_eq(page->events.items[j].event.sender.s, sender);
        }
        if (seen) {
            continue;
        }
        TRY(hs_state_event(call->hs, call->ctx, call->room, root, LIT("m.room.member"), sender,
                           &member, &found));
        if (found) {
            TRY(hs_write_event(call->hs, call->ctx, call->room, &call->viewer, &member,
                               VIEW_ROOM_ID, &call->out));
        }
    }
    json_out_array_end(&call->out);
    return OK;
}

static struct err write_page(struct cs_room_call *call, const struct page *page, uint64_t root)
{
    struct slice from = http_query_get(call->ctx, call->request, LIT("from"));
    json_out_object(&call->out);
    json_out_key_string(&call->out, LIT("start"),
                        from.len ? from : hs_token_of_number(call->ctx, page->from));
    /* A filtered page always says where to go on from: clients take a page shorter than the limit
     * for one that the filter thinned out. The page after the last event is empty and ends it. */
    bool is_thinned = !page->filter.takes_all && page->events.count > 0;
    if (page->has_more || is_thinned) {
        json_out_key_string(&call->out, LIT("end"), hs_token_of_number(call->ctx, page->next));
    }
    json_out_key_array(&call->out, LIT("chunk"));
    for (size_t i = 0; i < page->events.count; i++) {
        TRY(hs_write_event(call->hs, call->ctx, call->room, &call->viewer, &page->events.items[i],
                           VIEW_ROOM_ID | VIEW_BUNDLE, &call->out));
    }
    json_out_array_end(&call->out);
    if (page->filter.lazy_load_members) {
        TRY(write_members(call, page, root));
    }
    json_out_object_end(&call->out);
    return OK;
}

static struct err get_messages(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct cs_room_call call;
    struct room_view view;
    struct page page = {0};
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    TRY(hs_room_view(call.hs, ctx, call.room, call.actor.user, &view));
    TRY(read_query(&call, &page));
    TRY(read_places(&call, &view, &page));
    page.unfilled = INT64_MIN;
    TRY(fill(&call, &page));
    /* A filter may have hidden what lies ahead: whoever filters learns of the end by an empty page.
     */
    page.has_more = page.has_more || (!page.filter.takes_all && page.events.count > 0);
    return write_page(&call, &page, view.root);
}

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/client/v3/rooms/{roomId}/messages", HTTP_AUTH_USER, HTTP_RATE_READ,
     HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_messages, "Getting events for a room", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_messages_routes = {routes, COUNT_OF(routes)};
