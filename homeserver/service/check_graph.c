/* The graph of events: citations, in rooms that keep an index of them (cites.c); prev events that
 * are missing (intake_edges.c); redactions that wait for their targets (derive.c). */
#include "homeserver/service/check_priv.h"

struct err check_cites_begin(struct room_walk *w)
{
    struct slice row;
    return store_get(w->c->hs->store, &w->c->page, w->log,
                     key_bytes(&w->c->page, ROOM_KEY_CITES, (struct slice){0}), &row,
                     &w->keeps_cites);
}

static struct err is_there(struct room_walk *w, struct slice key, bool *there_out)
{
    struct slice row;
    return store_get(w->c->hs->store, &w->c->page, w->derived, key, &row, there_out);
}

/* The row stands under the number that the cited event has, or had when the row was made. */
static struct err check_cited(struct room_walk *w, struct event_id id, struct slice value)
{
    struct ctx *page = &w->c->page;
    struct room_record record;
    uint64_t room = 0;
    int64_t cited = 0;
    bool found = false;
    bool there = false;
    TRY(hs_event_locate(w->c->hs, page, id.s, &room, &cited, &found));
    if (!found || room != w->shape.number) {
        return OK;
    }
    TRY(check_record_load(w->c, room, cited, &record, &found));
    if (found && (record.flags & EVENT_ADOPTED)) {
        TRY(is_there(w, room_citing_key(page, record.adopted_from, w->number), &there));
    }
    struct check_place place = {CHECK_CITES, w->derived, room_citing_key(page, cited, w->number)};
    return there ? OK : check_row_is(w->c, place, value);
}

struct err check_cites(struct room_walk *w)
{
    struct ctx *page = &w->c->page;
    struct slice key;
    bool found = false;
    if (!w->keeps_cites || !w->event.has_state_key || (w->record.flags & EVENT_LOOSE)) {
        return OK;
    }
    struct slice pair = state_pair(page, w->event.type, w->event.state_key);
    TRY(store_get(w->c->hs->store, page, w->log, key_bytes(page, ROOM_KEY_STATE_KEY, pair), &key,
                  &found));
    for (size_t i = 0; found && i < w->event.auth_event_count; i++) {
        TRY(check_cited(w, w->event.auth_events[i], key));
    }
    return OK;
}

static struct err has_place(struct room_walk *w, struct event_id id, bool *has_place_out)
{
    struct room_record record;
    uint64_t room = 0;
    int64_t number = 0;
    TRY(hs_event_locate(w->c->hs, &w->c->page, id.s, &room, &number, has_place_out));
    if (*has_place_out) {
        TRY(check_record_load(w->c, room, number, &record, has_place_out));
    }
    *has_place_out = *has_place_out && !(record.flags & EVENT_OUTLIER);
    return OK;
}

struct err check_edges(struct room_walk *w)
{
    struct ctx *page = &w->c->page;
    bool may_miss = (w->record.flags & (EVENT_AFTER_GAP | EVENT_HISTORY)) != 0;
    struct buf depth;
    check_compared(w->c, CHECK_EDGES);
    buf_init_arena(&depth, page->arena, 16);
    pack_i64(&depth, w->event.depth);
    for (size_t i = 0; may_miss && i < w->event.prev_event_count; i++) {
        struct slice prev = w->event.prev_events[i].s;
        bool here = false;
        TRY(has_place(w, w->event.prev_events[i], &here));
        if (!here && prev.len <= STORE_ID_BYTES_MAX) {
            struct check_place place = {CHECK_EDGES, w->derived,
                                        room_edge_key(page, prev, w->number)};
            TRY(check_row_is(w->c, place, buf_slice(&depth)));
        }
    }
    return OK;
}

struct err check_waiting(struct room_walk *w)
{
    struct ctx *page = &w->c->page;
    struct slice target = w->event.redacts.s;
    bool here = false;
    bool waits =
        (w->record.flags & EVENT_WITHHELD) && target.len > 0 && target.len <= STORE_ID_BYTES_MAX;
    if (waits) {
        TRY(has_place(w, w->event.redacts, &here));
    }
    struct check_place place = {CHECK_EDGES, w->derived,
                                waits ? room_redaction_key(page, target, w->number) : target};
    return waits && !here ? check_row_is(w->c, place, (struct slice){0}) : OK;
}
