/* Which events of a room's timeline an answer shows. Read newest first, so that the cost is what is
 * shown, not what the room holds. Spec: client-server, "Syncing". */
#include "homeserver/service/intake.h"
#include "homeserver/sync/priv.h"

enum {
    PAGE_MIN = 2,
    SCAN_EXTRA = 400, /* events read beyond the limit to find ones that a filter takes */
};

struct scan {
    struct sync_job *job;
    struct sync_room *room;
    size_t limit;
    size_t scanned;
    struct stored_event *kept; /* newest first, limit + 1 places */
    size_t kept_count;
    bool has_end;
    bool reached;                              /* met the last event that the client knows */
    bool stopped;                              /* no need to read on */
    bool cut;                                  /* met a change of state that is not shown */
    bool at_create;                            /* the oldest event read is the room's first */
    struct slice ignored_sender, heard_sender; /* last answers of hs_is_ignored */
};

/* Events during the caller's stay need no look at the state. */
static struct err is_visible(struct scan *scan, const struct stored_event *event, bool *visible_out)
{
    const struct user_room *entry = &scan->room->entry;
    bool in_stay = entry->joined_number > 0 && event->number >= entry->joined_number;
    /* The event that ends the stay is the caller's own. What came after it, up to a later ban or
     * invite, is none of theirs. */
    bool too_late = scan->room->standing == SYNC_LEFT && event->number > entry->left_number;
    *visible_out = in_stay && !too_late;
    if (in_stay || too_late) {
        return OK;
    }
    return hs_can_see(scan->job->hs, scan->job->room_ctx, scan->room->room, &scan->job->viewer,
                      event, visible_out);
}

/* Spec: client-server, "Ignoring Users": their state events are shown all the same. */
static struct err is_ignored(struct scan *scan, const struct stored_event *event, bool *ignored_out)
{
    struct slice sender = event->event.sender.s;
    *ignored_out = false;
    if ((event->flags & EVENT_STATE) || event->sender == scan->job->viewer.user ||
        slice_eq(sender, scan->heard_sender)) {
        return OK;
    }
    *ignored_out = slice_eq(sender, scan->ignored_sender);
    if (*ignored_out) {
        return OK;
    }
    TRY(hs_is_ignored(scan->job->hs, scan->job->room_ctx, scan->job->viewer.user, sender,
                      ignored_out));
    *(*ignored_out ? &scan->ignored_sender : &scan->heard_sender) = sender;
    return OK;
}

/* Whether one of the later events, which are shown, sets the same piece of state; or there is none
 * yet, and so nothing to cut off. */
static bool is_changed_again(const struct scan *scan, const struct stored_event *event)
{
    bool again = scan->kept_count == 0;
    for (size_t i = 0; i < scan->kept_count && !again; i++) {
        again = event_is(&scan->kept[i].event, event->event.type, event->event.state_key);
    }
    return again;
}

static struct err is_shown(struct scan *scan, struct stored_event *event, bool *shown_out)
{
    const struct sync_event_filter *filter = &scan->job->filter->room_timeline;
    bool ignored = false;
    *shown_out = false;
    if (filter->needs_content) {
        TRY(hs_event_parse_content(scan->job->room_ctx, event));
    }
    if (!sync_filter_takes_room(filter, scan->room->info.room_id) ||
        !sync_filter_takes_event(filter, event->event.type, event->event.sender.s,
                                 event->event.content)) {
        return OK;
    }
    TRY(is_visible(scan, event, shown_out));
    /* A change that the caller must not see: older values of what it changed, shown after the
     * `state` that holds the new one, would undo it. So the timeline begins behind it. */
    scan->cut = !*shown_out && (event->flags & EVENT_STATE) && !is_changed_again(scan, event);
    if (*shown_out) {
        TRY(is_ignored(scan, event, &ignored));
        *shown_out = !ignored;
    }
    return OK;
}

static void note_end(struct scan *scan, const struct stored_event *event)
{
    struct sync_room *room = scan->room;
    scan->has_end = true;
    room->end_number = event->number;
    /* What no timeline shows may have changed the state behind the newest event that it shows. */
    bool is_now = room->head.pos <= scan->job->upto && room->standing != SYNC_LEFT;
    room->end_root = is_now ? room->head.root : hs_room_root_at(event, scan->job->upto);
}

/* Events are missing before this one. Who was there before the gap learns of it in any case; a
 * newcomer is shown what has been fetched for it since. */
static struct err is_at_gap(struct scan *scan, const struct stored_event *event, bool *gap_out)
{
    struct sync_job *job = scan->job;
    struct intake_edge *edges = NULL;
    size_t count = 0;
    *gap_out = (event->flags & EVENT_AFTER_GAP) != 0;
    if (!scan->room->fresh || !(event->flags & (EVENT_AFTER_GAP | EVENT_HISTORY))) {
        return OK;
    }
    *gap_out = false;
    TRY(hs_intake_edges(job->hs, job->room_ctx, scan->room->room, &edges, &count));
    for (size_t i = 0; i < count && !*gap_out; i++) {
        *gap_out = edges[i].cited_by == event->number;
    }
    return OK;
}

static struct err take(struct scan *scan, struct stored_event *event)
{
    struct sync_room *room = scan->room;
    bool shown = false;
    if (event->pos > scan->job->upto) {
        return OK;
    }
    if (!scan->has_end) {
        note_end(scan, event);
    }
    if (!room->fresh && event->pos <= scan->job->since) {
        room->since_number = event->number;
        room->since_root = hs_room_root_at(event, scan->job->since);
        scan->reached = true;
        scan->stopped = true;
        return OK;
    }
    TRY(is_shown(scan, event, &shown));
    if (shown) {
        scan->kept[scan->kept_count++] = *event;
    }
    scan->scanned++;
    scan->at_create = event_is(&event->event, LIT("m.room.create"), LIT(""));
    /* Spec: client-server, "Syncing": a gap in what the server knows is a limited timeline. */
    bool gap = false;
    TRY(is_at_gap(scan, event, &gap));
    if (gap || scan->cut || scan->kept_count > scan->limit ||
        scan->scanned > scan->limit + SCAN_EXTRA) {
        room->limited = true;
        scan->stopped = true;
    }
    return OK;
}

static struct err read_pages(struct scan *scan)
{
    struct sync_job *job = scan->job;
    struct sync_room *room = scan->room;
    int64_t from =
        room->standing == SYNC_LEFT ? room->entry.left_number + 1 : room->head.number + 1;
    size_t page = room->fresh ? scan->limit + 2 : PAGE_MIN;
    while (!scan->stopped) {
        struct stored_events events;
        struct event_range range = {
            .from = from, .limit = page, .order = EVENTS_REVERSE, .form = EVENTS_SCANNED};
        TRY(hs_events_read(job->hs, job->room_ctx, room->room, range, &events));
        for (size_t i = 0; i < events.count && !scan->stopped; i++) {
            TRY(take(scan, &events.items[i]));
            from = events.items[i].number;
        }
        if (events.count < page) {
            break;
        }
        page = page < 128 ? page * 2 : page;
    }
    return OK;
}

static void reverse(struct stored_events *events)
{
    for (size_t i = 0; i < events->count / 2; i++) {
        struct stored_event event = events->items[i];
        events->items[i] = events->items[events->count - 1 - i];
        events->items[events->count - 1 - i] = event;
    }
}

struct err sync_room_timeline(struct sync_job *job, struct sync_room *room)
{
    const struct sync_event_filter *filter = &job->filter->room_timeline;
    struct scan scan = {.job = job, .room = room};
    scan.limit = filter->limit_given ? filter->limit : SYNC_TIMELINE_DEFAULT;
    scan.kept = arena_array(job->room_ctx->arena, scan.limit + 2, sizeof *scan.kept);
    TRY(read_pages(&scan));
    if (!room->fresh && !scan.reached) {
        TRY(hs_room_at(job->hs, job->room_ctx, room->room, job->since, &room->since_number,
                       &room->since_root));
    }
    /* A room joined elsewhere begins here with the join: there is more to be had from others. And
     * what a filter or the history visibility keeps back from a newcomer is a gap as well. */
    bool whole = scan.at_create && (job->request->initial || scan.kept_count == scan.scanned);
    room->limited = room->limited || (room->fresh && !whole);
    size_t count = scan.kept_count > scan.limit ? scan.limit : scan.kept_count;
    room->timeline = (struct stored_events){scan.kept, count};
    reverse(&room->timeline);
    return OK;
}
