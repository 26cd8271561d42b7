/* Which state events cite which events in auth_events: from an event up to those whose auth chains
 * hold it. Kept from the first resolution that asks; rooms that never fork do without. */
#include "homeserver/service/room_priv.h"

enum { CITING_PER_PAGE = 64, EVENTS_PER_PAGE = 500 };

struct slice room_citing_key(struct ctx *ctx, int64_t cited, int64_t citing)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, 24);
    buf_add_byte(&key, DERIVED_KEY_CITING);
    pack_be_i64(&key, cited);
    pack_be_i64(&key, citing);
    return buf_slice(&key);
}

struct err room_cites_put(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct room_citing *citing, struct store_update *derived)
{
    struct buf value;
    buf_init_arena(&value, ctx->arena, 16);
    pack_u64(&value, citing->key);
    for (size_t i = 0; i < citing->event->auth_event_count; i++) {
        uint64_t other = 0;
        int64_t cited = 0;
        bool found = false;
        TRY(hs_event_locate(hs, ctx, citing->event->auth_events[i].s, &other, &cited, &found));
        if (found && other == room->number) {
            store_put(derived, room_citing_key(ctx, cited, citing->number), buf_slice(&value));
        }
    }
    return OK;
}

struct err room_cites_add(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct room_citing *citing, struct store_update *derived)
{
    return room->keeps_cites ? room_cites_put(hs, ctx, room, citing, derived) : OK;
}

/* --- making them --- */

static struct err put_row(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct store_row *row, struct store_update *derived)
{
    struct room_record record;
    struct event event;
    struct unpack key = unpack_of(slice_from(row->key, 1));
    struct room_citing citing = {.event = &event, .number = unpack_be_i64(&key)};
    int64_t elsewhere = 0;
    bool found = false;
    if (room_forward_decode(row->value, &elsewhere)) {
        return OK;
    }
    TRY(room_record_decode(ctx->arena, row->value, &record));
    TRY(event_parse_stored(ctx->arena, room->rules, record.json, ids_trust_event(record.event_id),
                           &event));
    if (!event.has_state_key || (record.flags & EVENT_LOOSE)) {
        return OK;
    }
    TRY(hs_state_key_find(hs, ctx, room, event.type, event.state_key, &citing.key, &found));
    return found ? room_cites_put(hs, ctx, room, &citing, derived) : OK;
}

static struct err put_mark(struct hs *hs, struct ctx *ctx, struct room *room)
{
    struct store_update *log = store_update_new(ctx, room_object(ctx, room->number));
    store_put(log, key_bytes(ctx, ROOM_KEY_CITES, (struct slice){0}), (struct slice){0});
    return store_write(hs->store, ctx, &log, 1);
}

static struct err put_page(struct hs *hs, struct ctx *ctx, struct room *room, int64_t *next_io,
                           bool *more_out)
{
    struct store_rows rows;
    struct store_range range = {.from = key_i64(ctx, ROOM_KEY_EVENT, *next_io),
                                .to = key_bytes(ctx, ROOM_KEY_EVENT + 1, (struct slice){0}),
                                .limit = EVENTS_PER_PAGE};
    struct store_update *derived = store_update_new(ctx, room_derived_object(ctx, room->number));
    TRY(store_read_range(hs->store, ctx, room_object(ctx, room->number), range, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        TRY(put_row(hs, ctx, room, &rows.rows[i], derived));
    }
    *more_out = rows.count == range.limit;
    if (*more_out) {
        struct unpack key = unpack_of(slice_from(rows.rows[rows.count - 1].key, 1));
        *next_io = unpack_be_i64(&key) + 1;
    }
    TRY(store_write(hs->store, ctx, &derived, 1));
    return *more_out ? OK : put_mark(hs, ctx, room);
}

struct err room_cites_build(struct hs *hs, struct ctx *ctx, struct room *room)
{
    int64_t next = INT64_MIN;
    struct ctx page = room_page_begin(ctx);
    bool more = true;
    struct err err = OK;
    while (more && err.code == 0) {
        err = put_page(hs, &page, room, &next, &more);
        if (err.code == 0) {
            room_page_next(&page);
        }
    }
    err = room_page_end(ctx, &page, err);
    room->keeps_cites = err.code == 0;
    return err;
}

struct err room_cites_begin(struct hs *hs, struct ctx *ctx, struct room *room)
{
    TRY(put_mark(hs, ctx, room));
    room->keeps_cites = true;
    return OK;
}

struct err room_cites_load(struct hs *hs, struct ctx *ctx, struct room *room)
{
    struct slice row;
    return store_get(hs->store, ctx, room_object(ctx, room->number),
                     key_bytes(ctx, ROOM_KEY_CITES, (struct slice){0}), &row, &room->keeps_cites);
}

/* --- walking up --- */

struct climb {
    struct hs *hs;
    struct ctx *ctx;
    const struct room_cites_query *query;
    struct map *seen;
    int64_t *queue;
    size_t count, cap;
    bool found;
};

static void push(struct climb *climb, int64_t number)
{
    uint64_t there = 0;
    struct slice key = map_key_u64((uint64_t *)&number);
    if (map_get(climb->seen, key, &there)) {
        return;
    }
    map_set(climb->seen, key, 1);
    if (climb->count == climb->cap) {
        size_t cap = climb->cap ? climb->cap * 2 : 32;
        climb->queue = arena_grow(climb->ctx->arena, climb->queue,
                                  climb->cap * sizeof *climb->queue, cap * sizeof *climb->queue);
        climb->cap = cap;
    }
    climb->queue[climb->count++] = number;
}

/* The event under its other number, if it has been adopted. */
static struct err push_alias(struct climb *climb, int64_t number)
{
    struct ctx *ctx = climb->ctx;
    struct room *room = climb->query->room;
    struct slice row;
    struct room_record record;
    bool found = false;
    int64_t now = 0;
    TRY(store_get(climb->hs->store, ctx, room_object(ctx, room->number),
                  key_i64(ctx, ROOM_KEY_EVENT, number), &row, &found));
    if (!found) {
        return OK;
    }
    if (room_forward_decode(row, &now)) {
        push(climb, now);
        return OK;
    }
    TRY(room_record_decode(ctx->arena, row, &record));
    if (record.flags & EVENT_ADOPTED) {
        push(climb, record.adopted_from);
    }
    return OK;
}

/* Newest first: they are the likeliest to stand in the state. */
static struct err visit_citing(struct climb *climb, int64_t number)
{
    struct ctx *ctx = climb->ctx;
    struct store_rows rows = {.count = CITING_PER_PAGE};
    struct store_range range = {.from = room_citing_key(ctx, number, INT64_MIN),
                                .to = room_citing_key(ctx, number, INT64_MAX),
                                .limit = CITING_PER_PAGE,
                                .order = STORE_REVERSE};
    while (rows.count == CITING_PER_PAGE && !climb->found) {
        TRY(store_read_range(climb->hs->store, ctx,
                             room_derived_object(ctx, climb->query->room->number), range, &rows));
        for (size_t i = 0; i < rows.count && !climb->found; i++) {
            struct unpack key = unpack_of(slice_from(rows.rows[i].key, 9));
            struct unpack value = unpack_of(rows.rows[i].value);
            int64_t citing = unpack_be_i64(&key);
            TRY(climb->query->matches(climb->query->arg, unpack_u64(&value), citing,
                                      &climb->found));
            push(climb, citing);
            range.to = rows.rows[i].key;
        }
    }
    return OK;
}

static struct err visit_itself(struct climb *climb)
{
    const struct room_cites_query *query = climb->query;
    struct stored_event event;
    uint64_t key = 0;
    bool found = false;
    TRY(hs_event_load(climb->hs, climb->ctx, query->room, query->number, &event, &found));
    if (found && event.event.has_state_key) {
        TRY(hs_state_key_find(climb->hs, climb->ctx, query->room, event.event.type,
                              event.event.state_key, &key, &found));
    }
    for (size_t i = 0; found && i < climb->count && !climb->found; i++) {
        TRY(query->matches(query->arg, key, climb->queue[i], &climb->found));
    }
    return OK;
}

static struct err run_climb(struct climb *climb)
{
    push(climb, climb->query->number);
    TRY(push_alias(climb, climb->query->number));
    TRY(visit_itself(climb));
    for (size_t i = 0; i < climb->count && !climb->found; i++) {
        TRY(push_alias(climb, climb->queue[i]));
        TRY(visit_citing(climb, climb->queue[i]));
    }
    return OK;
}

struct err room_cites_find(struct hs *hs, struct ctx *ctx, const struct room_cites_query *query,
                           bool *found_out)
{
    struct climb climb = {.hs = hs, .ctx = ctx, .query = query, .seen = map_new()};
    struct err err = run_climb(&climb);
    map_free(&climb.seen);
    *found_out = climb.found;
    return err;
}
