#include "homeserver/service/notifications.h"

enum {
    SCAN_EVENTS_MAX = 4000, /* of one request */
    PAGE = 32,
};

/* Where the reader stands in one room. */
struct reading_place {
    struct room *room;
    int64_t joined_number;
    int64_t number; /* events below are still to be read */
    struct stored_events page;
    size_t at;    /* in the page */
    uint64_t pos; /* of the event at hand; before a page was read, no less than that */
    bool has_receipts;
    struct receipts receipts;
};

struct listing {
    struct hs *hs;
    struct ctx *ctx;
    const struct notifications_request *request;
    struct reading_place *places; /* a heap: the newest event first */
    size_t count;
    size_t scanned;
    struct notifications *out;
};

static void sift_down(struct listing *l, size_t at)
{
    struct reading_place place = l->places[at];
    for (;;) {
        size_t child = at * 2 + 1;
        if (child + 1 < l->count && l->places[child + 1].pos > l->places[child].pos) {
            child++;
        }
        if (child >= l->count || l->places[child].pos <= place.pos) {
            break;
        }
        l->places[at] = l->places[child];
        at = child;
    }
    l->places[at] = place;
}

static void drop_first(struct listing *l)
{
    l->places[0] = l->places[--l->count];
    if (l->count) {
        sift_down(l, 0);
    }
}

static struct err add_room(struct listing *l, const struct user_room *entry)
{
    struct reading_place *place = &l->places[l->count];
    *place = (struct reading_place){.joined_number = entry->joined_number};
    struct err err = hs_room_get(l->hs, l->ctx, entry->room, &place->room);
    if (err.code == ERR_M_NOT_FOUND) { /* purged meanwhile */
        return OK;
    }
    TRY(err);
    struct room_head head = hs_room_head(place->room);
    uint64_t before = l->request->before;
    place->number = head.number + 1;
    place->pos = head.pos;
    if (before && head.pos >= before) {
        uint64_t root = 0;
        TRY(hs_room_at(l->hs, l->ctx, place->room, before - 1, &place->number, &root));
        place->number++;
        place->pos = before - 1;
    }
    l->count += place->number > place->joined_number + 1 ? 1 : 0;
    return OK;
}

static struct err open_rooms(struct listing *l)
{
    struct user_rooms rooms;
    TRY(hs_user_rooms(l->hs, l->ctx, l->request->user, &rooms));
    l->places = arena_array(l->ctx->arena, rooms.count + 1, sizeof *l->places);
    for (size_t i = 0; i < rooms.count; i++) {
        if (rooms.items[i].membership == MEMBERSHIP_JOIN) {
            TRY(add_room(l, &rooms.items[i]));
        }
    }
    for (size_t i = l->count / 2; i-- > 0;) {
        sift_down(l, i);
    }
    return OK;
}

/* The event at hand, or none when the room is read to where the user joined. */
static struct err read_page(struct listing *l, struct reading_place *place)
{
    struct event_range range = {.from = place->number,
                                .to = place->joined_number,
                                .limit = PAGE,
                                .order = EVENTS_REVERSE,
                                .form = EVENTS_SCANNED};
    TRY(hs_events_read(l->hs, l->ctx, place->room, range, &place->page));
    place->at = 0;
    if (place->page.count > 0) {
        place->number = place->page.items[place->page.count - 1].number;
    }
    return OK;
}

static struct err is_read(struct listing *l, struct reading_place *place,
                          const struct stored_event *event, bool *read_out)
{
    if (!place->has_receipts) {
        TRY(hs_receipts_of_user(l->hs, l->ctx, place->room, l->request->user, &place->receipts));
        place->has_receipts = true;
    }
    return hs_event_is_read(l->hs, l->ctx, place->room, &place->receipts, event, read_out);
}

static struct err weigh(struct listing *l, struct reading_place *place, struct stored_event *event)
{
    struct notification found = {.room = place->room};
    bool ignored = false;
    l->scanned++;
    if ((event->flags & (EVENT_HIDDEN | EVENT_REDACTED | EVENT_HISTORY)) ||
        event->sender == l->request->user) {
        return OK;
    }
    TRY(hs_is_ignored(l->hs, l->ctx, l->request->user, event->event.sender.s, &ignored));
    if (ignored) {
        return OK;
    }
    TRY(hs_event_parse_content(l->ctx, event));
    TRY(hs_verdict_of(l->hs, l->ctx, place->room, l->request->user, event, &found.verdict));
    if (!found.verdict.notify || (l->request->only_highlights && !found.verdict.highlight)) {
        return OK;
    }
    found.event = *event;
    TRY(is_read(l, place, event, &found.is_read));
    l->out->items[l->out->count++] = found;
    return OK;
}

/* One step in the room whose event at hand is the newest. */
static struct err step(struct listing *l)
{
    struct reading_place *place = &l->places[0];
    if (place->at < place->page.count && place->page.items[place->at].pos == place->pos) {
        TRY(weigh(l, place, &place->page.items[place->at]));
        place->at++;
    }
    if (place->at >= place->page.count) {
        TRY(read_page(l, place));
    }
    if (place->at >= place->page.count || place->page.items[place->at].pos == 0) {
        drop_first(l);
        return OK;
    }
    place->pos = place->page.items[place->at].pos;
    sift_down(l, 0);
    return OK;
}

struct err hs_notifications_list(struct hs *hs, struct ctx *ctx,
                                 const struct notifications_request *request,
                                 struct notifications *notifications_out)
{
    struct listing l = {.hs = hs, .ctx = ctx, .request = request, .out = notifications_out};
    *notifications_out = (struct notifications){
        .items = arena_array(ctx->arena, request->limit + 1, sizeof(struct notification))};
    TRY(open_rooms(&l));
    while (l.count > 0 && l.out->count < request->limit && l.scanned < SCAN_EVENTS_MAX) {
        TRY(step(&l));
    }
    l.out->next = l.count > 0 ? l.places[0].pos + 1 : 0;
    return OK;
}
