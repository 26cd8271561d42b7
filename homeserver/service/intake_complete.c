/* The end of a room's partial time: the whole state before the join is here. What was accepted
 * meanwhile is judged again by it, in order; the rows of members of other servers are written; then
 * the room's state moves in one write, which also says that the room is whole. Until that write
 * everything may begin anew; what is to be done after it is written down with it. */
#include "homeserver/base/map.h"
#include "homeserver/service/intake_priv.h"

#include <string.h>

enum {
    EVENTS_PER_PAGE = 100,
    REFUSED_DEPTH_MAX = 500, /* refused events that follow one another */
};

struct completing {
    struct hs *hs;
    struct ctx *ctx;
    struct ctx page; /* memory of the events at hand */
    struct room *room;
    struct room_partial partial;
    uint64_t root;    /* the state before the join */
    struct map *ends; /* event id -> index into `kept` + 1 */
    struct extremity *kept;
    size_t kept_count, kept_cap;
    int64_t last; /* newest event that stands */
};

/* --- forward extremities --- */

static struct err keep_end(struct completing *c, const struct stored_event *event, uint64_t root)
{
    struct room_cited cited;
    TRY(room_cited_load(c->hs, &c->page, c->room, &event->event, &cited));
    if (event->flags & EVENT_RESTART) {
        map_free(&c->ends);
        c->ends = map_new();
    }
    for (size_t i = 0; i < cited.count; i++) {
        map_remove(c->ends, cited.ids[i].s);
    }
    if (c->kept_count == c->kept_cap) {
        size_t cap = c->kept_cap ? c->kept_cap * 2 : 64;
        c->kept = arena_grow(c->ctx->arena, c->kept, c->kept_cap * sizeof *c->kept,
                             cap * sizeof *c->kept);
        c->kept_cap = cap;
    }
    struct extremity *end = &c->kept[c->kept_count++];
    *end = (struct extremity){.number = event->number, .root = root, .depth = event->event.depth};
    memcpy(end->event_id, event->event.id.s.ptr, event->event.id.s.len);
    map_set(c->ends, event->event.id.s, c->kept_count);
    c->last = event->number;
    return OK;
}

static struct extremities ends_of(const struct completing *c)
{
    struct extremities ends = {0};
    size_t cursor = 0;
    struct slice id;
    uint64_t at = 0;
    ends.items = arena_array(c->ctx->arena, map_count(c->ends) + 1, sizeof *ends.items);
    while (map_next(c->ends, &cursor, &id, &at)) {
        ends.items[ends.count++] = c->kept[at - 1];
    }
    return ends;
}

/* --- one event --- */

/* The states after the prev events as they are now: rows before this one are rewritten already. */
static struct err find_before(struct completing *c, const struct stored_event *event,
                              uint64_t *before_out)
{
    uint64_t *roots = arena_array(c->page.arena, event->event.prev_event_count + 1, sizeof *roots);
    size_t count = 0;
    *before_out = event->number == c->partial.join ? c->root : event->state_before;
    if (event->flags & EVENT_AFTER_GAP) {
        return OK;
    }
    for (size_t i = 0; i < event->event.prev_event_count; i++) {
        struct stored_event prev;
        bool found = false;
        TRY(hs_event_find(c->hs, &c->page, c->room, event->event.prev_events[i].s, &prev, &found));
        if (!found || (prev.flags & EVENT_OUTLIER)) {
            return OK;
        }
        if (room_state_is_known(c->room, &prev)) {
            roots[count++] = prev.flags & EVENT_REJECTED ? prev.state_before : prev.state_after;
        }
    }
    if (count == 0) { /* it follows on a stay that was never whole */
        roots[count++] = c->root;
    }
    struct room_states states = {.roots = roots, .count = count};
    return room_resolve(c->hs, &c->page, c->room, &states, before_out);
}

static struct err stands(struct completing *c, const struct stored_event *event, uint64_t before,
                         bool *stands_out)
{
    struct judging judging = {
        .hs = c->hs, .ctx = &c->page, .room = c->room, .event = &event->event};
    struct auth_verdict verdict;
    TRY(judging_by_state(&judging, before, &verdict));
    *stands_out = verdict.allowed;
    return OK;
}

static struct err put_after(struct completing *c, const struct stored_event *event,
                            struct room_record *record, struct store_update *state)
{
    struct state_entry change = {.event = event->number};
    int64_t replaced = 0;
    bool found = false;
    record->state_after = record->state_before;
    if (!event->event.has_state_key || (record->flags & EVENT_REJECTED)) {
        return OK;
    }
    TRY(hs_state_key_find(c->hs, &c->page, c->room, event->event.type, event->event.state_key,
                          &change.key, &found));
    if (record->state_before) {
        TRY(state_get(c->hs->states, &c->page, c->room->number, record->state_before, change.key,
                      &replaced, &found));
    }
    record->replaces = found ? replaced : 0;
    return state_apply(c->hs->states, &c->page, c->room->number, record->state_before, &change, 1,
                       state, &record->state_after);
}

static void put_ends(const struct completing *c, struct room_record *record)
{
    struct extremities ends = ends_of(c);
    int64_t *numbers = arena_array(c->page.arena, ends.count + 1, sizeof *numbers);
    for (size_t i = 0; i < ends.count; i++) {
        numbers[i] = ends.items[i].number;
    }
    record->extremities = numbers;
    record->extremity_count = ends.count;
}

/* What clients were told of the room's state stays on record (room_root): the rest comes to them as
 * a change. */
static struct err rewrite(struct completing *c, const struct stored_event *event, uint64_t before,
                          bool rejected)
{
    struct slice row;
    struct room_record record;
    struct buf bytes;
    bool found = false;
    struct store_object log = room_object(&c->page, c->room->number);
    struct slice key = key_i64(&c->page, ROOM_KEY_EVENT, event->number);
    struct store_update *updates[] = {
        store_update_new(&c->page, room_state_object(&c->page, c->room->number)),
        store_update_new(&c->page, log)};
    TRY(store_get(c->hs->store, &c->page, log, key, &row, &found));
    if (!found) {
        return err_make(ERR_CORRUPT, "an event of a partial room is missing");
    }
    TRY(room_record_decode(c->page.arena, row, &record));
    record.flags &= ~(uint32_t)(EVENT_PARTIAL | EVENT_FORKED | EVENT_REJECTED);
    record.flags |= rejected ? EVENT_REJECTED : 0;
    record.state_before = before;
    TRY(put_after(c, event, &record, updates[0]));
    record.flags |= record.room_root == record.state_after ? 0 : EVENT_FORKED;
    if (!rejected) {
        TRY(keep_end(c, event, record.state_after));
        put_ends(c, &record);
    }
    buf_init_arena(&bytes, c->page.arena, SIZE_MAX / 2);
    room_record_encode(&bytes, &record);
    store_put(updates[1], key, buf_slice(&bytes));
    TRY(store_write(c->hs->store, &c->page, updates, COUNT_OF(updates)));
    row_cache_drop(c->hs->rooms->rows_owned, c->room->number, event->number);
    return OK;
}

/* --- what an event follows that was refused meanwhile --- */

/* A refused event stands apart, and is not judged again yet; but what follows it follows the state
 * before it, so that state must be the whole one first. */
static struct err find_refused(struct completing *c, const struct stored_event *event,
                               int64_t *number_out, bool *found_out)
{
    *found_out = false;
    for (size_t i = 0; i < event->event.prev_event_count && !*found_out; i++) {
        struct stored_event prev;
        TRY(hs_event_find(c->hs, &c->page, c->room, event->event.prev_events[i].s, &prev,
                          found_out));
        *found_out = *found_out && (prev.flags & EVENT_PARTIAL) &&
                     (prev.flags & (EVENT_REJECTED | EVENT_SOFT_FAILED)) &&
                     !(prev.flags & EVENT_OUTLIER);
        *number_out = *found_out ? prev.number : 0;
    }
    return OK;
}

/* What the whole state allows counts in what follows it; it gets its place with the other events
 * that are taken again. */
static struct err is_allowed_now(struct completing *c, const struct stored_event *event,
                                 uint64_t before, bool *allowed_out)
{
    struct event_id *missing = NULL;
    size_t missing_count = 0;
    struct auth_verdict verdict = {0};
    struct judging judging = {
        .hs = c->hs, .ctx = &c->page, .room = c->room, .event = &event->event};
    TRY(judging_load_cited(&judging, &missing, &missing_count));
    if (missing_count == 0) {
        TRY(judging_by_cited(&judging, &verdict));
    }
    if (verdict.allowed) {
        TRY(judging_by_state(&judging, before, &verdict));
    }
    *allowed_out = verdict.allowed;
    return OK;
}

static struct err renew_refused(struct completing *c, const struct stored_event *event)
{
    struct apart_rows rows;
    struct apart apart = {.event = &event->event, .number = event->number};
    bool allowed = false;
    TRY(find_before(c, event, &apart.state_before));
    TRY(is_allowed_now(c, event, apart.state_before, &allowed));
    apart.flags = allowed ? EVENT_SOFT_FAILED : EVENT_REJECTED;
    apart_rows_begin(&c->page, c->room, &rows);
    TRY(apart_put(c->hs, &c->page, c->room, &apart, &rows));
    return apart_write(c->hs, &c->page, c->room, &rows);
}

/* Refused events may follow each other: the ones furthest back first. */
static struct err renew_all_refused(struct completing *c, const struct stored_event *event)
{
    int64_t waiting[REFUSED_DEPTH_MAX];
    size_t count = 0;
    for (;;) {
        struct stored_event top = *event;
        int64_t number = 0;
        bool found = true;
        if (count) {
            TRY(hs_event_load(c->hs, &c->page, c->room, waiting[count - 1], &top, &found));
        }
        if (!found) {
            return err_make(ERR_CORRUPT, "a refused event is missing");
        }
        TRY(find_refused(c, &top, &number, &found));
        if (found && count < REFUSED_DEPTH_MAX) {
            waiting[count++] = number;
        } else if (count) {
            TRY(renew_refused(c, &top));
            count--;
        } else {
            return OK;
        }
    }
}

static struct err judge_again(struct completing *c, const struct stored_event *event)
{
    uint64_t before = 0;
    bool is_standing = false;
    TRY(renew_all_refused(c, event));
    TRY(find_before(c, event, &before));
    TRY(stands(c, event, before, &is_standing));
    is_standing = is_standing || event->number == c->partial.join;
    return rewrite(c, event, before, !is_standing);
}

/* --- all since the join --- */

static struct err judge_page(struct completing *c, int64_t *from_io, bool *more_out)
{
    struct store_rows rows;
    struct store_range range = {.from = key_i64(&c->page, ROOM_KEY_EVENT, *from_io),
                                .to = key_bytes(&c->page, ROOM_KEY_EVENT + 1, (struct slice){0}),
                                .limit = EVENTS_PER_PAGE};
    TRY(store_read_range(c->hs->store, &c->page, room_object(&c->page, c->room->number), range,
                         &rows));
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack key = unpack_of(slice_from(rows.rows[i].key, 1));
        struct stored_event event;
        *from_io = unpack_be_i64(&key);
        bool found = false;
        TRY(hs_event_load(c->hs, &c->page, c->room, *from_io, &event, &found));
        if (found && !(event.flags & EVENT_HISTORY)) {
            TRY(judge_again(c, &event));
        }
    }
    ++*from_io;
    *more_out = rows.count == EVENTS_PER_PAGE;
    return OK;
}

static struct err judge_all(struct completing *c)
{
    int64_t from = c->partial.join;
    bool more = true;
    struct err err = OK;
    c->page = room_page_begin(c->ctx);
    while (more && err.code == 0) {
        err = judge_page(c, &from, &more);
        if (err.code == 0) {
            room_page_next(&c->page);
        }
    }
    return room_page_end(c->ctx, &c->page, err);
}

/* --- what was refused or held back meanwhile --- */

/* Events that failed by a state that lacked members may stand now. */
static struct err take_again(struct completing *c, const struct stored_event *event)
{
    struct intake intake = {.event = &event->event};
    struct intake_report report;
    return intake_again(c->hs, c->ctx, c->room, &intake, &report);
}

static bool is_failed(const struct stored_event *event, int64_t number)
{
    return (event->flags & (EVENT_SOFT_FAILED | EVENT_REJECTED)) &&
           !(event->flags & EVENT_OUTLIER) && event->number == number;
}

/* One that was taken with another is no longer a failed one. */
static struct err take_failed_again(struct completing *c, const int64_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct stored_event event;
        bool found = false;
        TRY(hs_event_load(c->hs, c->ctx, c->room, numbers[i], &event, &found));
        if (found && is_failed(&event, numbers[i])) {
            TRY(take_again(c, &event));
        }
    }
    return OK;
}

/* Those of a page of numbers. */
static struct err list_failed(struct completing *c, int64_t first, size_t count, int64_t *failed,
                              size_t *failed_count_out)
{
    int64_t numbers[EVENTS_PER_PAGE];
    struct stored_events events;
    *failed_count_out = 0;
    for (size_t i = 0; i < count; i++) {
        numbers[i] = first + (int64_t)i;
    }
    c->page.reads_once = true;
    TRY(hs_events_scan_many(c->hs, &c->page, c->room, (struct event_numbers){numbers, count},
                            &events));
    for (size_t i = 0; i < events.count; i++) {
        int64_t number = events.items[i].number;
        bool here = number >= first && number < first + (int64_t)count;
        if (here && is_failed(&events.items[i], number)) {
            failed[(*failed_count_out)++] = number;
        }
    }
    return OK;
}

/* Most of these are the state's, and let go of page by page. */
static struct err take_all_again(struct completing *c)
{
    int64_t first = c->partial.apart;
    int64_t end = c->room->next_apart;
    while (first < end) {
        int64_t failed[EVENTS_PER_PAGE];
        size_t failed_count = 0;
        size_t count = end - first < EVENTS_PER_PAGE ? (size_t)(end - first) : EVENTS_PER_PAGE;
        c->page = room_page_begin(c->ctx);
        struct err err = list_failed(c, first, count, failed, &failed_count);
        TRY(room_page_end(c->ctx, &c->page, err));
        TRY(take_failed_again(c, failed, failed_count));
        first += (int64_t)count;
        end = c->room->next_apart; /* what is refused again may get a new number */
    }
    return OK;
}

static struct err take_rest_again(struct completing *c, struct room_rest *rest)
{
    struct store_update *updates[2];
    if (rest->apart >= c->room->next_apart) {
        return OK;
    }
    c->partial.apart = rest->apart;
    TRY(take_all_again(c));
    rest->apart = c->room->next_apart;
    room_rest_put(c->ctx, c->room, rest, updates);
    return store_write(c->hs->store, c->ctx, updates, COUNT_OF(updates));
}

static struct err take_again_in_lane(struct completing *c)
{
    struct room_rest rest;
    bool found = false;
    TRY(room_check_there(c->room));
    if (c->room->is_partial) {
        return OK;
    }
    TRY(hs_room_rest(c->hs, c->ctx, c->room, &rest, &found));
    return found ? take_rest_again(c, &rest) : OK;
}

static struct err complete_in_lane(struct completing *c, const struct intake_whole *whole)
{
    TRY(room_check_there(c->room));
    if (!c->room->is_partial) {
        return OK;
    }
    TRY(room_partial_get(c->hs, c->ctx, c->room, &c->partial));
    TRY(intake_state_of_numbers(c->hs, c->ctx, c->room, whole, &c->root));
    TRY(judge_all(c));
    struct room_move move = {
        .ends = ends_of(c), .number = c->last, .completes = true, .more_count = 2};
    TRY(room_extremities_root(c->hs, c->ctx, c->room, &move.ends, &move.root));
    struct room_rest rest = {.apart = c->partial.apart,
                             .before = c->room->head.root,
                             .servers = whole->servers,
                             .server_count = whole->server_count};
    room_rest_put(c->ctx, c->room, &rest, move.more);
    TRY(room_move(c->hs, c->ctx, c->room, &move));
    return take_rest_again(c, &rest);
}

struct err hs_room_take_again(struct hs *hs, struct ctx *ctx, struct room *room)
{
    struct completing completing = {.hs = hs, .ctx = ctx, .room = room};
    uint64_t lane = lane_of_room(room->number);
    workers_lane_enter(hs->workers, lane);
    struct err err = take_again_in_lane(&completing);
    if (err.code != 0 && err.code < ERR_MATRIX_FIRST) {
        room_mark_broken(hs, room);
    }
    workers_lane_leave(hs->workers, lane);
    return err;
}

struct err hs_room_complete(struct hs *hs, struct ctx *ctx, struct room *room,
                            const struct intake_whole *whole)
{
    struct completing completing = {.hs = hs, .ctx = ctx, .room = room, .ends = map_new()};
    uint64_t lane = lane_of_room(room->number);
    workers_lane_enter(hs->workers, lane);
    struct err err = complete_in_lane(&completing, whole);
    if (err.code != 0 && err.code < ERR_MATRIX_FIRST) {
        room_mark_broken(hs, room);
    }
    workers_lane_leave(hs->workers, lane);
    map_free(&completing.ends);
    return err;
}
