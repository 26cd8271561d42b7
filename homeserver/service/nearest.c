#include "homeserver/service/nearest.h"

#include "homeserver/service/timeline.h"

enum { WINDOW = 200, PAGES_MAX = 50 };

struct search {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    struct nearest_query query;
    struct stored_event best;
    bool found;
};

static struct err read_page(struct search *s, struct event_range range,
                            struct stored_events *page_out)
{
    range.form = EVENTS_SCANNED;
    return hs_events_read(s->hs, s->ctx, s->room, range, page_out);
}

/* The lowest number of an event that is at or after the moment, if times grew with numbers. */
static struct err find_place(struct search *s, int64_t *place_out)
{
    struct stored_events one;
    int64_t high = hs_room_head(s->room).number + 1;
    TRY(read_page(s, (struct event_range){.from = INT64_MIN + 2, .limit = 1}, &one));
    int64_t low = one.count ? one.items[0].number : high;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        TRY(read_page(s, (struct event_range){.from = middle - 1, .limit = 1}, &one));
        bool beyond = one.count == 0 || one.items[0].number >= high;
        if (beyond || one.items[0].event.origin_server_ts >= s->query.ts_ms) {
            high = middle;
        } else {
            low = one.items[0].number + 1;
        }
    }
    *place_out = low;
    return OK;
}

/* Of events of one moment the one that comes first on the way. */
static bool is_better(const struct search *s, const struct stored_event *event)
{
    int64_t ts = event->event.origin_server_ts;
    int64_t best = s->best.event.origin_server_ts;
    if (s->query.direction == NEAREST_AFTER) {
        return ts >= s->query.ts_ms &&
               (!s->found || ts < best || (ts == best && event->number < s->best.number));
    }
    return ts <= s->query.ts_ms &&
           (!s->found || ts > best || (ts == best && event->number > s->best.number));
}

static struct err may_be_shown(struct search *s, const struct stored_event *event, bool *may_out)
{
    *may_out = true;
    return s->query.viewer ? hs_can_see(s->hs, s->ctx, s->room, s->query.viewer, event, may_out)
                           : OK;
}

static struct err take(struct search *s, const struct stored_events *page)
{
    for (size_t i = 0; i < page->count; i++) {
        bool takes = is_better(s, &page->items[i]);
        if (takes) {
            TRY(may_be_shown(s, &page->items[i], &takes));
        }
        if (takes) {
            s->best = page->items[i];
            s->found = true;
        }
    }
    return OK;
}

/* Looks on from a place until something was found, then no further than a page. */
static struct err look(struct search *s, struct event_range range)
{
    range.limit = WINDOW;
    for (int page = 0; page < PAGES_MAX; page++) {
        struct stored_events events;
        bool had = s->found;
        TRY(read_page(s, range, &events));
        TRY(take(s, &events));
        if (had || events.count < WINDOW) {
            return OK;
        }
        range.from = events.items[events.count - 1].number;
    }
    return OK;
}

struct err hs_event_nearest(struct hs *hs, struct ctx *ctx, struct room *room,
                            struct nearest_query query, struct stored_event *event_out,
                            bool *found_out)
{
    struct search s = {.hs = hs, .ctx = ctx, .room = room, .query = query};
    int64_t place = 0;
    TRY(find_place(&s, &place));
    struct event_range up = {.from = place - 1, .order = EVENTS_FORWARD};
    struct event_range down = {.from = place, .to = INT64_MIN + 1, .order = EVENTS_REVERSE};
    bool after = query.direction == NEAREST_AFTER;
    TRY(look(&s, after ? up : down));
    TRY(look(&s, after ? down : up));
    *event_out = s.best;
    *found_out = s.found;
    return OK;
}
