/* Where what is here of a room's graph ends: prev events that are missing. */
#include "homeserver/service/intake_priv.h"

struct slice room_edge_key(struct ctx *ctx, struct slice missing, int64_t citing)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, SIZE_MAX / 2);
    buf_add_byte(&key, DERIVED_KEY_EDGE);
    buf_add(&key, missing);
    buf_add_byte(&key, '\0');
    pack_be_i64(&key, citing);
    return buf_slice(&key);
}

/* Nobody misses the event any more. */
static struct err fill(struct derive *d)
{
    struct store_rows rows;
    struct store_range range = {.from = room_edge_key(d->ctx, d->event->id.s, INT64_MIN),
                                .to = room_edge_key(d->ctx, d->event->id.s, INT64_MAX)};
    TRY(store_read_range(d->hs->store, d->ctx, room_derived_object(d->ctx, d->room->number), range,
                         &rows));
    for (size_t i = 0; i < rows.count; i++) {
        store_delete(d->derived, rows.rows[i].key);
    }
    return OK;
}

struct err room_event_has_place(struct hs *hs, struct ctx *ctx, struct room *room,
                                struct event_id id, bool *has_place_out)
{
    struct stored_event event;
    uint64_t other = 0;
    int64_t number = 0;
    TRY(hs_event_locate(hs, ctx, id.s, &other, &number, has_place_out));
    *has_place_out = *has_place_out && other == room->number;
    if (*has_place_out) {
        TRY(hs_event_scan(hs, ctx, room, number, &event, has_place_out));
    }
    *has_place_out = *has_place_out && !(event.flags & EVENT_OUTLIER);
    return OK;
}

struct err room_edges_derive(struct derive *d, uint32_t flags)
{
    bool may_miss = (flags & EVENT_AFTER_GAP) != 0;
    if (!d->is_foreign) {
        return OK;
    }
    TRY(fill(d));
    for (size_t i = 0; may_miss && i < d->event->prev_event_count; i++) {
        struct event_id prev = d->event->prev_events[i];
        bool here = false;
        TRY(room_event_has_place(d->hs, d->ctx, d->room, prev, &here));
        if (!here && prev.s.len <= STORE_ID_BYTES_MAX) {
            struct buf depth;
            buf_init_arena(&depth, d->ctx->arena, 16);
            pack_i64(&depth, d->event->depth);
            store_put(d->derived, room_edge_key(d->ctx, prev.s, d->number), buf_slice(&depth));
        }
    }
    return OK;
}

struct err hs_intake_edges(struct hs *hs, struct ctx *ctx, struct room *room,
                           struct intake_edge **edges_out, size_t *count_out)
{
    struct store_rows rows;
    struct store_range range = {.from = key_bytes(ctx, DERIVED_KEY_EDGE, (struct slice){0}),
                                .to = key_bytes(ctx, DERIVED_KEY_EDGE + 1, (struct slice){0})};
    TRY(store_read_range(hs->store, ctx, room_derived_object(ctx, room->number), range, &rows));
    struct intake_edge *edges = arena_array(ctx->arena, rows.count + 1, sizeof *edges);
    for (size_t i = 0; i < rows.count; i++) {
        struct slice key = rows.rows[i].key;
        struct unpack number = unpack_of(slice_from(key, key.len - 8));
        struct unpack depth = unpack_of(rows.rows[i].value);
        edges[i].missing = ids_trust_event(slice_sub(key, 1, key.len - 10));
        edges[i].cited_by = unpack_be_i64(&number);
        edges[i].depth = unpack_i64(&depth);
    }
    *edges_out = edges;
    *count_out = rows.count;
    return OK;
}
