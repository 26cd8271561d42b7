/* Walks a room's log in order and compares all that derives from it. */
#include "homeserver/base/mem.h"
#include "homeserver/service/check_priv.h"
#include "homeserver/service/users.h"

#include <stdlib.h>
#include <string.h>

/* What has no place in the graph: neither state nor relations follow from it. */
enum { ASIDE = EVENT_OUTLIER | EVENT_REJECTED | EVENT_SOFT_FAILED };
enum { CITED_MAX = 1000 };

static const struct store_object event_ids = {STORE_EVENT_IDS, {"ids", 3}};

struct err check_record_load(struct checker *c, uint64_t room, int64_t number,
                             struct room_record *record_out, bool *found_out)
{
    struct slice row;
    struct store_object log = room_object(&c->page, room);
    TRY(store_get(c->hs->store, &c->page, log, key_i64(&c->page, ROOM_KEY_EVENT, number), &row,
                  found_out));
    if (*found_out && room_forward_decode(row, &number)) {
        TRY(store_get(c->hs->store, &c->page, log, key_i64(&c->page, ROOM_KEY_EVENT, number), &row,
                      found_out));
    }
    if (*found_out) {
        struct err err = room_record_decode(c->page.arena, row, record_out);
        *found_out = err.code == 0;
    }
    return OK;
}

struct err check_event_load(struct room_walk *w, int64_t number, struct event *event_out,
                            bool *found_out)
{
    struct room_record record;
    TRY(check_record_load(w->c, w->shape.number, number, &record, found_out));
    if (*found_out) {
        struct err err = event_parse_stored(w->c->page.arena, w->shape.rules, record.json,
                                            ids_trust_event(record.event_id), event_out);
        *found_out = err.code == 0;
    }
    return OK;
}

/* --- what stands in other objects for one event --- */

static struct err check_own_rows(struct room_walk *w)
{
    struct checker *c = w->c;
    struct buf where;
    buf_init_arena(&where, c->page.arena, 32);
    pack_u64(&where, w->shape.number);
    pack_i64(&where, w->number);
    struct check_place id = {CHECK_EVENT_IDS, event_ids, w->record.event_id};
    if (!(w->record.flags & EVENT_LOOSE)) {
        TRY(check_row_is(c, id, buf_slice(&where)));
    }
    if (!w->record.txn_id.ptr || w->record.txn_id.len == 0) {
        return OK;
    }
    struct buf answer;
    buf_init_arena(&answer, c->page.arena, 300);
    pack_i64(&answer, w->number);
    pack_u64(&answer, w->record.pos);
    buf_add(&answer, w->record.event_id);
    struct slice scope = state_pair(&c->page, w->record.device_id, w->event.type);
    struct check_place txn = {
        CHECK_TRANSACTIONS, w->log,
        key_bytes(&c->page, ROOM_KEY_TXN, state_pair(&c->page, scope, w->record.txn_id))};
    return check_row_is(c, txn, buf_slice(&answer));
}

static struct err visit_txn(struct checker *c, void *arg, const struct store_row *row)
{
    struct room_walk *w = arg;
    struct unpack in = unpack_of(row->value);
    int64_t number = unpack_i64(&in);
    struct room_record record;
    bool found = false;
    TRY(check_record_load(c, w->shape.number, number, &record, &found));
    if (found && record.txn_id.len && unpack_u64(&in) == record.pos &&
        slice_eq(in.rest, record.event_id)) {
        return OK;
    }
    return check_row_stray(c, (struct check_place){CHECK_TRANSACTIONS, w->log, row->key});
}

static struct err check_sender(struct room_walk *w)
{
    uint64_t sender = 0;
    bool found = false;
    TRY(hs_user_find(w->c->hs, &w->c->page, w->event.sender.s, &sender, &found));
    if (!found || sender != w->record.sender) {
        check_report(w->c, CHECK_LOG, (struct slice){0}, "names another sender by number", false);
    }
    return OK;
}

/* --- the timeline --- */

static struct err check_order(struct room_walk *w)
{
    TRY(check_position(w->c, w->record.pos));
    if (w->record.pos <= w->last_pos) {
        check_report(w->c, CHECK_POSITIONS, (struct slice){0},
                     "does not come after the position of the event before it", false);
    }
    w->last_pos = w->record.pos;
    if (w->record.flags & EVENT_LATER) {
        TRY(check_position(w->c, w->record.later_pos));
        w->last_pos = w->record.later_pos;
    }
    return OK;
}

/* Whether the event comes after the one forward extremity, so that all of its state follows. */
static bool follows_the_last(const struct room_walk *w)
{
    uint64_t there = 0;
    if (w->record.flags & (EVENT_AFTER_GAP | EVENT_RESTART | EVENT_FORKED | EVENT_LATER)) {
        return false;
    }
    if (w->was_forked) { /* what follows it need not follow the room's state */
        return false;
    }
    if (w->last_number == 0) {
        return w->event.prev_event_count == 0;
    }
    return w->event.prev_event_count == 1 && map_count(w->extremities) == 1 &&
           map_get(w->extremities, w->event.prev_events[0].s, &there);
}

static int by_number(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

/* The ends of the graph after this event, ascending. */
/* Where there are too many, the record says which one was given up. */
static void drop_untold(struct room_walk *w)
{
    size_t cursor = 0;
    struct slice id;
    uint64_t value = 0;
    while (map_next(w->extremities, &cursor, &id, &value)) {
        bool told = false;
        for (size_t i = 0; i < w->record.extremity_count && !told; i++) {
            told = w->record.extremities[i] == (int64_t)value;
        }
        if (!told) {
            map_remove(w->extremities, arena_copy(w->c->page.arena, id));
            return;
        }
    }
}

/* An event that is cited is no end; one that does not count is followed further. */
static struct err cite(struct room_walk *w, struct event_id id, struct map *seen,
                       struct event *events, size_t *count_io)
{
    struct room_record record;
    uint64_t room = 0;
    int64_t number = 0;
    bool found = false;
    map_remove(w->extremities, id.s);
    if (map_get(seen, id.s, &room) || *count_io == CITED_MAX) {
        return OK;
    }
    map_set(seen, id.s, 1);
    TRY(hs_event_locate(w->c->hs, &w->c->page, id.s, &room, &number, &found));
    if (found && room == w->shape.number) {
        TRY(check_record_load(w->c, room, number, &record, &found));
        /* One that came to count later did not count then. */
        if (found &&
            ((record.flags & (EVENT_SOFT_FAILED | EVENT_REJECTED)) || number > w->number)) {
            TRY(check_event_load(w, number, &events[*count_io], &found));
            *count_io += found ? 1 : 0;
        }
    }
    return OK;
}

/* As room_cited_load does it: through events that do not count, what these cite. */
static struct err remove_cited(struct room_walk *w)
{
    struct checker *c = w->c;
    struct map *queue = map_new();
    const struct event *event = &w->event;
    struct event *events = arena_array(c->page.arena, CITED_MAX, sizeof *events);
    size_t count = 0;
    struct err err = OK;
    for (size_t at = 0; event && err.code == 0; at++) {
        for (size_t i = 0; i < event->prev_event_count && err.code == 0; i++) {
            err = cite(w, event->prev_events[i], queue, events, &count);
        }
        event = at < count ? &events[at] : NULL;
    }
    map_free(&queue);
    return err;
}

static size_t ends_of(struct room_walk *w, int64_t **ends_out)
{
    size_t cursor = 0;
    size_t count = 0;
    struct slice id;
    uint64_t value = 0;
    map_set(w->extremities, w->event.id.s, (uint64_t)w->number);
    if (map_count(w->extremities) > ROOM_EXTREMITIES_MAX) {
        drop_untold(w);
    }
    *ends_out = arena_array(w->c->page.arena, map_count(w->extremities), sizeof **ends_out);
    while (map_next(w->extremities, &cursor, &id, &value)) {
        (*ends_out)[count++] = (int64_t)value;
    }
    qsort(*ends_out, count, sizeof **ends_out, by_number);
    return count;
}

static struct err check_extremities(struct room_walk *w)
{
    int64_t *ends = NULL;
    if (w->record.flags & EVENT_RESTART) {
        map_free(&w->extremities);
        w->extremities = map_new();
    } else if (w->is_linear && w->last_number) {
        map_remove(w->extremities, w->event.prev_events[0].s);
    } else {
        TRY(remove_cited(w));
    }
    size_t count = ends_of(w, &ends);
    struct room_record *record = &w->record;
    size_t told_count = record->extremity_count ? record->extremity_count : 1;
    int64_t *told = arena_array(w->c->page.arena, told_count, sizeof *told);
    memcpy(told, record->extremity_count ? record->extremities : &w->number,
           told_count * sizeof *told);
    qsort(told, told_count, sizeof *told, by_number);
    check_compared(w->c, CHECK_EXTREMITIES);
    if (told_count == count && memcmp(told, ends, count * sizeof *told) == 0) {
        return OK;
    }
    w->wrong |= RECORD_EXTREMITIES;
    record->extremities = ends;
    record->extremity_count = count == 1 && ends[0] == w->number ? 0 : count;
    check_report(w->c, CHECK_EXTREMITIES, (struct slice){0}, "differ", w->c->mode == CHECK_REBUILD);
    return OK;
}

static void check_counts(struct room_walk *w)
{
    check_compared(w->c, CHECK_COUNTS);
    if (w->record.joined_count == w->joined_count && w->record.invited_count == w->invited_count) {
        return;
    }
    w->record.joined_count = w->joined_count;
    w->record.invited_count = w->invited_count;
    w->wrong |= RECORD_COUNTS;
    check_report(w->c, CHECK_COUNTS, (struct slice){0}, "differ", w->c->mode == CHECK_REBUILD);
}

static struct err check_timeline(struct room_walk *w)
{
    TRY(check_order(w));
    w->is_linear = follows_the_last(w);
    TRY(check_state(w));
    check_counts(w);
    TRY(check_extremities(w));
    if (w->wrong && w->c->mode == CHECK_REBUILD) {
        TRY(rebuild_record(w));
    }
    w->last_number = w->number;
    w->was_forked = (w->record.flags & EVENT_FORKED) != 0;
    return OK;
}

/* --- the walk --- */

static struct err read_event(struct room_walk *w, const struct store_row *row)
{
    struct unpack key = unpack_of(slice_from(row->key, 1));
    w->number = unpack_be_i64(&key);
    w->c->number = w->number;
    w->wrong = 0;
    TRY(unpack_check(&key));
    TRY(room_record_decode(w->c->page.arena, row->value, &w->record));
    w->c->event_id = w->record.event_id;
    if (w->record.event_id.len == 0 || w->record.event_id.len > STORE_ID_BYTES_MAX) {
        return err_make(ERR_CORRUPT, "an event has no id");
    }
    return event_parse_stored(w->c->page.arena, w->shape.rules, w->record.json,
                              ids_trust_event(w->record.event_id), &w->event);
}

/* The number that an event had before it got its place: it leads there. */
static struct err check_forward(struct room_walk *w, const struct store_row *row, int64_t moved)
{
    struct room_record record;
    bool found = false;
    TRY(check_record_load(w->c, w->shape.number, moved, &record, &found));
    if (!found) {
        check_report(w->c, CHECK_LOG, row->key, "leads to an event that is not there", false);
    }
    return OK;
}

static struct err visit_event(struct checker *c, void *arg, const struct store_row *row)
{
    struct room_walk *w = arg;
    int64_t moved = 0;
    c->event_id = (struct slice){0};
    check_compared(c, CHECK_LOG);
    if (room_forward_decode(row->value, &moved)) {
        return check_forward(w, row, moved);
    }
    struct err err = read_event(w, row);
    if (check_is_damage(err)) {
        check_report(c, CHECK_LOG, row->key, "cannot be read", false);
        return OK;
    }
    TRY(err);
    c->result->events++;
    if (((w->record.flags & EVENT_REDACTED) != 0) != (w->record.redacted_by != 0)) {
        check_report(c, CHECK_LOG, row->key, "is redacted by nothing or not redacted", false);
    }
    TRY(check_own_rows(w));
    TRY(check_sender(w));
    if (c->options->deep) {
        check_event_deep(w);
    }
    TRY(check_cites(w));
    if (w->record.flags & ASIDE) {
        return OK;
    }
    TRY(check_relation(w));
    TRY(check_edges(w));
    TRY(check_waiting(w));
    return w->record.flags & EVENT_HISTORY ? OK : check_timeline(w);
}

static struct err walk_room(struct room_walk *w)
{
    struct checker *c = w->c;
    struct check_by_position receipts = {.index = CHECK_RECEIPTS,
                                         .object = w->derived,
                                         .letter = DERIVED_KEY_RECEIPT,
                                         .index_letter = DERIVED_KEY_RECEIPT_POS};
    TRY(check_state_keys(w));
    TRY(check_cites_begin(w));
    TRY(check_each_row(c, w->log, ROOM_KEY_EVENT, visit_event, w));
    c->event_id = (struct slice){0};
    c->number = 0;
    TRY(check_state_head(w));
    TRY(check_each_row(c, w->log, ROOM_KEY_TXN, visit_txn, w));
    TRY(check_members(w));
    TRY(check_relations(w));
    TRY(check_by_position(c, &receipts));
    return w->state_was_healed ? rebuild_sweep(w) : OK;
}

struct err check_room(struct checker *c, const struct check_room *room)
{
    struct room_walk walk = {.c = c,
                             .shape = {.number = room->number, .rules = room->rules},
                             .log = room_object(&c->room, room->number),
                             .derived = room_derived_object(&c->room, room->number),
                             .state = map_new(),
                             .memberships = map_new(),
                             .members = map_new(),
                             .threads = map_new(),
                             .extremities = map_new(),
                             .next_key = 1};
    struct map **maps[] = {&walk.state, &walk.memberships, &walk.members, &walk.threads,
                           &walk.extremities};
    struct err err = walk_room(&walk);
    for (size_t i = 0; i < COUNT_OF(maps); i++) {
        map_free(maps[i]);
    }
    state_forget(c->hs->states, room->number);
    return err;
}
