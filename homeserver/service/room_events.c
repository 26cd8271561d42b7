#include "homeserver/service/room_priv.h"

/* All but the event itself. */
static struct err fill_from_row(struct ctx *ctx, int64_t number, struct slice row,
                                struct room_record *record_out, struct stored_event *event_out)
{
    struct room_record record;
    TRY(room_record_decode(ctx->arena, row, &record));
    struct stored_event stored = {.number = number,
                                  .pos = record.pos,
                                  .flags = record.flags,
                                  .state_before = record.state_before,
                                  .state_after = record.state_after,
                                  .room_root = record.room_root,
                                  .later_pos = record.later_pos,
                                  .later_root = record.later_root,
                                  .replaces = record.replaces,
                                  .redacted_by = record.redacted_by,
                                  .sender = record.sender,
                                  .device_id = record.device_id,
                                  .txn_id = record.txn_id};
    *event_out = stored;
    *record_out = record;
    return OK;
}

static struct err skim_row(struct ctx *ctx, const struct room *room, int64_t number,
                           struct slice row, struct stored_event *event_out)
{
    struct room_record record;
    TRY(fill_from_row(ctx, number, row, &record, event_out));
    event_out->event = (struct event){
        .rules = room->rules, .id = ids_trust_event(record.event_id), .json = record.json};
    return OK;
}

static struct err scan_row(struct ctx *ctx, const struct room *room, int64_t number,
                           struct slice row, struct stored_event *event_out)
{
    struct room_record record;
    TRY(fill_from_row(ctx, number, row, &record, event_out));
    return event_scan_stored(ctx->arena, room->rules, record.json, ids_trust_event(record.event_id),
                             &event_out->event);
}

/* A row that leads to where the event is now. Such rows are not kept in memory. */
static bool is_forward(struct slice row)
{
    int64_t number = 0;
    return room_forward_decode(row, &number);
}

struct err room_row_find(struct hs *hs, struct ctx *ctx, const struct room *room,
                         int64_t *number_io, struct slice *row_out, bool *found_out)
{
    int64_t asked = *number_io;
    struct store_object log = room_object(ctx, room->number);
    TRY(store_get(hs->store, ctx, log, key_i64(ctx, ROOM_KEY_EVENT, asked), row_out, found_out));
    if (!*found_out || !room_forward_decode(*row_out, number_io)) {
        return OK;
    }
    return store_get(hs->store, ctx, log, key_i64(ctx, ROOM_KEY_EVENT, *number_io), row_out,
                     found_out);
}

/* --- rows in memory --- */

/* The event of a held row: scanned by the first who wants it, for all. */
static struct err event_of_held(struct hs *hs, struct ctx *ctx, const struct room *room,
                                struct cached_row *row, const struct stored_event **event_out)
{
    *event_out = cached_row_event(row);
    if (!*event_out) {
        struct stored_event event;
        TRY(scan_row(ctx, room, cached_row_number(row), cached_row_bytes(row), &event));
        *event_out = cached_row_give_event(hs->rooms->rows_owned, row, ctx->arena, &event);
    }
    return OK;
}

/* From memory only; the row is held until the job ends. */
static struct err scan_cached_row(struct hs *hs, struct ctx *ctx, const struct room *room,
                                  int64_t number, struct stored_event *event_out, bool *found_out)
{
    struct cached_row *row = row_cache_hold(hs->rooms->rows_owned, room->number, number);
    *found_out = row != NULL;
    if (!row) {
        return OK;
    }
    const struct stored_event *event = cached_row_event(row);
    row_cache_release_later(ctx, row);
    if (!event && ctx->reads_once) {
        return scan_row(ctx, room, number, cached_row_bytes(row), event_out);
    }
    TRY(event_of_held(hs, ctx, room, row, &event));
    *event_out = *event;
    return OK;
}

static struct err facts_of(struct hs *hs, struct ctx *ctx, const struct known_event *known,
                           const struct event_facts **facts_out)
{
    size_t bytes = 0;
    *facts_out = cached_row_facts(known->row);
    if (!*facts_out) {
        struct stored_event event = *known->event;
        TRY(hs_event_parse_content(ctx, &event));
        struct event_facts *facts = event_facts_new(hs->rooms->everybody, &event.event, &bytes);
        *facts_out = cached_row_give_facts(hs->rooms->rows_owned, known->row, facts, bytes);
    }
    return OK;
}

struct err room_event_known(struct hs *hs, struct ctx *ctx, const struct room *room, int64_t number,
                            struct known_event *known_out)
{
    struct known_event known = {.row = row_cache_hold(hs->rooms->rows_owned, room->number, number)};
    *known_out = (struct known_event){0};
    if (!known.row) {
        return OK;
    }
    struct err err = event_of_held(hs, ctx, room, known.row, &known.event);
    if (err.code == 0) {
        err = facts_of(hs, ctx, &known, &known.facts);
    }
    if (err.code != 0) {
        row_cache_release(known.row);
        return err;
    }
    *known_out = known;
    return OK;
}

struct read_row {
    uint64_t room;
    int64_t number;
    struct slice bytes;
    uint64_t version; /* of the cache, before it was read */
};

static void keep_row(struct hs *hs, const struct ctx *ctx, const struct read_row *row)
{
    if (!ctx->reads_once) {
        row_cache_offer(hs->rooms->rows_owned, row->room, row->number, row->bytes, row->version);
    }
}

/* From memory or the store; *number_io becomes where the event is now, if that is elsewhere. */
static struct err scan_here(struct hs *hs, struct ctx *ctx, struct room *room,
                            struct stored_event *event_out, bool *found_out, int64_t *number_io)
{
    struct row_cache *cache = hs->rooms->rows_owned;
    struct slice row;
    int64_t number = *number_io;
    TRY(scan_cached_row(hs, ctx, room, number, event_out, found_out));
    if (*found_out) {
        return OK;
    }
    uint64_t version = row_cache_version(cache);
    TRY(store_get(hs->store, ctx, room_object(ctx, room->number),
                  key_i64(ctx, ROOM_KEY_EVENT, number), &row, found_out));
    if (!*found_out || room_forward_decode(row, number_io)) {
        return OK;
    }
    keep_row(hs, ctx, &(struct read_row){room->number, number, row, version});
    return scan_row(ctx, room, number, row, event_out);
}

struct err hs_event_scan(struct hs *hs, struct ctx *ctx, struct room *room, int64_t number,
                         struct stored_event *event_out, bool *found_out)
{
    int64_t now = number;
    TRY(scan_here(hs, ctx, room, event_out, found_out, &now));
    return now == number ? OK : scan_here(hs, ctx, room, event_out, found_out, &now);
}

struct err hs_event_scan_once(struct hs *hs, struct ctx *ctx, struct room *room, int64_t number,
                              struct stored_event *event_out, bool *found_out)
{
    bool before = ctx->reads_once;
    ctx->reads_once = true;
    struct err err = hs_event_scan(hs, ctx, room, number, event_out, found_out);
    ctx->reads_once = before;
    return err;
}

struct err room_event_once(struct hs *hs, struct ctx *ctx, struct room *room, int64_t number,
                           struct stored_event *event_out, bool *found_out)
{
    bool before = ctx->reads_once;
    ctx->reads_once = true;
    struct err err = hs_event_load(hs, ctx, room, number, event_out, found_out);
    ctx->reads_once = before;
    return err;
}

struct err hs_event_load(struct hs *hs, struct ctx *ctx, struct room *room, int64_t number,
                         struct stored_event *event_out, bool *found_out)
{
    TRY(hs_event_scan(hs, ctx, room, number, event_out, found_out));
    return *found_out ? hs_event_parse_content(ctx, event_out) : OK;
}

/* --- many at once --- */

enum { RUN_GAP_MAX = 4, RUN_COUNT_MIN = 3 };

/* How many of the numbers from `at` on stand so close together that reading over the gaps is
 * cheaper than looking each up. */
static size_t run_length(struct event_numbers numbers, size_t at)
{
    size_t end = at + 1;
    while (end < numbers.count && numbers.items[end] - numbers.items[end - 1] <= RUN_GAP_MAX) {
        end++;
    }
    return end - at;
}

/* Those of the run that are in memory, up to the first that is not (*at_io). */
static struct err scan_cached(struct hs *hs, struct ctx *ctx, struct room *room,
                              struct event_numbers run, size_t *at_io, struct stored_events *events)
{
    for (; *at_io < run.count; ++*at_io) {
        bool found = false;
        TRY(scan_cached_row(hs, ctx, room, run.items[*at_io], &events->items[events->count],
                            &found));
        if (!found) {
            break;
        }
        events->count++;
    }
    return OK;
}

static struct err scan_run(struct hs *hs, struct ctx *ctx, struct room *room,
                           struct event_numbers run, struct stored_events *events)
{
    struct row_cache *cache = hs->rooms->rows_owned;
    struct store_rows rows;
    size_t at = 0;
    TRY(scan_cached(hs, ctx, room, run, &at, events));
    if (at == run.count) {
        return OK;
    }
    uint64_t version = row_cache_version(cache);
    struct store_range range = {
        .from = key_i64(ctx, ROOM_KEY_EVENT, run.items[at]),
        .to = key_i64(ctx, ROOM_KEY_EVENT, run.items[run.count - 1] + 1),
    };
    TRY(store_read_range(hs->store, ctx, room_object(ctx, room->number), range, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack key = unpack_of(slice_from(rows.rows[i].key, 1));
        int64_t number = unpack_be_i64(&key);
        while (at < run.count && run.items[at] < number) {
            at++;
        }
        if (at < run.count && run.items[at] == number) {
            struct stored_event *event = &events->items[events->count];
            bool found = true;
            if (is_forward(rows.rows[i].value)) {
                TRY(hs_event_scan(hs, ctx, room, number, event, &found));
            } else {
                TRY(scan_row(ctx, room, number, rows.rows[i].value, event));
                keep_row(hs, ctx,
                         &(struct read_row){room->number, number, rows.rows[i].value, version});
            }
            events->count += found ? 1 : 0;
        }
    }
    return OK;
}

struct err hs_events_scan_many(struct hs *hs, struct ctx *ctx, struct room *room,
                               struct event_numbers numbers, struct stored_events *events_out)
{
    struct stored_events events = {0};
    events.items = arena_array(ctx->arena, numbers.count, sizeof *events.items);
    for (size_t at = 0; at < numbers.count;) {
        size_t count = run_length(numbers, at);
        struct event_numbers run = {numbers.items + at, count};
        bool found = false;
        if (count >= RUN_COUNT_MIN) {
            TRY(scan_run(hs, ctx, room, run, &events));
            at += count;
            continue;
        }
        TRY(hs_event_scan(hs, ctx, room, numbers.items[at], &events.items[events.count], &found));
        events.count += found ? 1 : 0;
        at++;
    }
    *events_out = events;
    return OK;
}

struct err hs_event_finish(struct ctx *ctx, struct room *room, struct stored_event *event)
{
    if (event->event.type.ptr) {
        return OK;
    }
    return event_scan_stored(ctx->arena, room->rules, event->event.json, event->event.id,
                             &event->event);
}

struct err hs_event_parse_content(struct ctx *ctx, struct stored_event *event)
{
    if (event->event.content) {
        return OK;
    }
    struct json *content = arena_alloc(ctx->arena, sizeof *content);
    struct err err = json_parse(ctx->arena, event->event.content_json, content);
    if (err.code != 0 || content->type != JSON_OBJECT) {
        return err_make(ERR_CORRUPT, "the content of a stored event does not parse");
    }
    event->event.content = content;
    return OK;
}

struct err hs_event_locate(struct hs *hs, struct ctx *ctx, struct slice event_id,
                           uint64_t *room_out, int64_t *number_out, bool *found_out)
{
    struct slice row;
    struct store_object ids = {STORE_EVENT_IDS, LIT("ids")};
    *found_out = false;
    if (event_id.len == 0 || event_id.len > STORE_ID_BYTES_MAX) {
        return OK;
    }
    TRY(store_get(hs->store, ctx, ids, event_id, &row, found_out));
    if (!*found_out) {
        return OK;
    }
    struct unpack in = unpack_of(row);
    *room_out = unpack_u64(&in);
    *number_out = unpack_i64(&in);
    return unpack_check(&in);
}

struct err hs_event_find(struct hs *hs, struct ctx *ctx, struct room *room, struct slice event_id,
                         struct stored_event *event_out, bool *found_out)
{
    uint64_t room_number = 0;
    int64_t number = 0;
    TRY(hs_event_locate(hs, ctx, event_id, &room_number, &number, found_out));
    if (!*found_out || room_number != room->number) {
        *found_out = false;
        return OK;
    }
    return hs_event_load(hs, ctx, room, number, event_out, found_out);
}

enum { ROWS_KEPT = 64 };

static bool is_hidden(const struct stored_event *event)
{
    return (event->flags & EVENT_HIDDEN) != 0;
}

static struct store_range rows_of(struct ctx *ctx, const struct event_range *range)
{
    bool forward = range->order == EVENTS_FORWARD;
    int64_t low = forward ? range->from : (range->to ? range->to : EVENT_APART_LAST);
    int64_t high = forward ? (range->to ? range->to : INT64_MAX) : range->from;
    low = low < EVENT_APART_LAST ? EVENT_APART_LAST : low;
    /* Both ends are exclusive; rows are [from, to). */
    return (struct store_range){
        .from = key_i64(ctx, ROOM_KEY_EVENT, low + 1),
        .to = high == INT64_MAX ? key_bytes(ctx, ROOM_KEY_EVENT + 1, (struct slice){0})
                                : key_i64(ctx, ROOM_KEY_EVENT, high),
        .order = forward ? STORE_FORWARD : STORE_REVERSE,
    };
}

/* Keeps the event just read into its place if it is a visible one; moves range->from to it. */
static struct err take(struct ctx *ctx, struct event_range *range, struct stored_events *events)
{
    struct stored_event *event = &events->items[events->count];
    range->from = event->number;
    if (is_hidden(event)) {
        return OK;
    }
    events->count++;
    return range->form == EVENTS_PARSED ? hs_event_parse_content(ctx, event) : OK;
}

/* Takes neighbours from memory as far as they are there. */
static struct err take_cached(struct hs *hs, struct ctx *ctx, const struct room *room,
                              struct event_range *range, struct stored_events *events)
{
    bool forward = range->order == EVENTS_FORWARD;
    while (events->count < range->limit && range->from < INT64_MAX && range->from > INT64_MIN) {
        int64_t number = range->from + (forward ? 1 : -1);
        bool beyond = range->to && (forward ? number >= range->to : number <= range->to);
        bool found = false;
        if (!beyond) {
            TRY(scan_cached_row(hs, ctx, room, number, &events->items[events->count], &found));
        }
        if (!found) {
            break;
        }
        TRY(take(ctx, range, events));
    }
    return OK;
}

/* Only the newest rows of a room are kept: who reads history reads it alone. */
static struct err take_stored(struct hs *hs, struct ctx *ctx, struct room *room,
                              struct event_range *range, struct stored_events *events)
{
    struct row_cache *cache = hs->rooms->rows_owned;
    uint64_t version = row_cache_version(cache);
    int64_t keep_from = hs_room_head(room).number - ROWS_KEPT;
    struct store_rows rows;
    struct store_range page = rows_of(ctx, range);
    page.limit = range->limit - events->count;
    if (slice_cmp(page.from, page.to) >= 0) {
        range->limit = events->count;
        return OK;
    }
    TRY(store_read_range(hs->store, ctx, room_object(ctx, room->number), page, &rows));
    for (size_t i = 0; i < rows.count && events->count < range->limit; i++) {
        struct unpack key = unpack_of(slice_from(rows.rows[i].key, 1));
        int64_t number = unpack_be_i64(&key);
        struct stored_event *event = &events->items[events->count];
        TRY(range->form == EVENTS_SKIMMED ? skim_row(ctx, room, number, rows.rows[i].value, event)
                                          : scan_row(ctx, room, number, rows.rows[i].value, event));
        TRY(take(ctx, range, events));
        if (number > keep_from) {
            row_cache_offer(cache, room->number, number, rows.rows[i].value, version);
        }
    }
    if (rows.count < page.limit) {
        range->limit = events->count; /* there are no more */
    }
    return OK;
}

struct err hs_events_read(struct hs *hs, struct ctx *ctx, struct room *room,
                          struct event_range range, struct stored_events *events_out)
{
    struct stored_events events = {0};
    events.items = arena_array(ctx->arena, range.limit + 1, sizeof *events.items);
    TRY(take_cached(hs, ctx, room, &range, &events));
    while (events.count < range.limit) {
        TRY(take_stored(hs, ctx, room, &range, &events));
    }
    *events_out = events;
    return OK;
}

/* The position of an event row, or of the nearest timeline row at or below it. */
static struct err timeline_row_at_or_below(struct hs *hs, struct ctx *ctx, struct room *room,
                                           int64_t number, struct stored_event *event_out,
                                           bool *found_out)
{
    struct stored_events one;
    struct event_range range = {
        .from = number + 1, .limit = 1, .order = EVENTS_REVERSE, .form = EVENTS_SCANNED};
    TRY(hs_events_read(hs, ctx, room, range, &one));
    *found_out = one.count != 0;
    if (one.count) {
        *event_out = one.items[0];
    }
    return OK;
}

uint64_t hs_room_root_at(const struct stored_event *event, uint64_t pos)
{
    return (event->flags & EVENT_LATER) && event->later_pos <= pos ? event->later_root
                                                                   : event->room_root;
}

struct err hs_room_at(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t pos,
                      int64_t *number_out, uint64_t *root_out)
{
    struct room_head head = hs_room_head(room);
    *number_out = head.number;
    *root_out = head.root;
    if (head.pos <= pos) {
        return OK;
    }
    *number_out = 0;
    *root_out = 0;
    /* Positions grow with live numbers: binary search for the last one at or below pos. */
    int64_t low = 0;
    int64_t high = head.number;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        struct stored_event event;
        bool found = false;
        TRY(timeline_row_at_or_below(hs, ctx, room, middle, &event, &found));
        if (!found || event.number <= low) {
            low = middle;
        } else if (event.pos <= pos) {
            low = middle;
            *number_out = event.number;
            *root_out = hs_room_root_at(&event, pos);
        } else {
            high = event.number;
        }
    }
    return OK;
}
