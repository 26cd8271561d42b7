#include "homeserver/service/delayed_rows.h"

#include <stdlib.h>

/* Keys of the object:
 *   "d" delay id                     the record
 *   "s" delay id                     scheduled: be64 user, then the record's times and room
 *   "u" be64 user, delay id          scheduled, of this user
 *   "f" be64 user, be64 when, id     final since then
 *   "t" be64 user, device NUL room NUL type NUL txn   delay id
 * The record names its transaction's key, so that both go together. */
static const struct store_object rows_object = {STORE_SERVER, {"delayed", 7}};

enum {
    KEPT_MS = 7 * 24 * 3600 * 1000, /* how long what is final can be asked for */
    KEPT_MAX = 1000,                /* of one user */
    DROPPED_AT_ONCE = 16,
};

/* --- keys --- */

static struct slice plain_key(struct ctx *ctx, char letter, struct slice delay_id)
{
    return arena_printf(ctx->arena, "%c%.*s", letter, (int)delay_id.len, delay_id.ptr);
}

static struct slice user_key(struct ctx *ctx, char letter, uint64_t user, struct slice rest)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, STORE_KEY_BYTES_MAX);
    buf_add_byte(&key, letter);
    pack_be64(&key, user);
    buf_add(&key, rest);
    return buf_slice(&key);
}

static struct slice final_key(struct ctx *ctx, const struct delayed_event *event)
{
    struct buf rest;
    buf_init_arena(&rest, ctx->arena, STORE_KEY_BYTES_MAX);
    pack_be64(&rest, (uint64_t)event->finalised_ms);
    buf_add(&rest, event->delay_id);
    return user_key(ctx, 'f', event->user, buf_slice(&rest));
}

static struct slice txn_key(struct ctx *ctx, const struct delayed_event *event,
                            const struct delayed_txn *txn)
{
    const struct slice parts[] = {txn->device_id, event->room_id, event->type, txn->txn_id};
    struct buf rest;
    buf_init_arena(&rest, ctx->arena, SIZE_MAX / 2);
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        buf_add(&rest, parts[i]);
        buf_add_byte(&rest, 0);
    }
    return user_key(ctx, 't', event->user, buf_slice(&rest));
}

/* --- the record --- */

static void pack_optional(struct buf *out, struct slice s)
{
    pack_u64(out, s.ptr != NULL);
    pack_bytes(out, s);
}

static struct slice unpack_optional(struct unpack *in)
{
    bool is_set = unpack_u64(in) != 0;
    struct slice s = unpack_bytes(in);
    return is_set ? (struct slice){s.ptr ? s.ptr : "", s.len} : (struct slice){0};
}

static struct slice encode(struct ctx *ctx, const struct delayed_event *event, struct slice txn)
{
    struct buf row;
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    pack_u64(&row, event->state);
    pack_u64(&row, event->user);
    pack_bytes(&row, event->user_id);
    pack_bytes(&row, event->room_id);
    pack_bytes(&row, event->type);
    pack_optional(&row, event->state_key);
    pack_bytes(&row, event->content);
    pack_i64(&row, event->delay_ms);
    pack_i64(&row, event->scheduled_ms);
    pack_i64(&row, event->origin_server_ts);
    pack_u64(&row, event->is_appservice);
    pack_i64(&row, event->finalised_ms);
    pack_bytes(&row, event->event_id);
    pack_bytes(&row, event->error);
    pack_bytes(&row, txn);
    return buf_slice(&row);
}

static struct err decode(struct slice row, struct delayed_event *event, struct slice *txn_out)
{
    struct unpack in = unpack_of(row);
    uint64_t state = unpack_u64(&in);
    event->user = unpack_u64(&in);
    event->user_id = unpack_bytes(&in);
    event->room_id = unpack_bytes(&in);
    event->type = unpack_bytes(&in);
    event->state_key = unpack_optional(&in);
    event->content = unpack_bytes(&in);
    event->delay_ms = unpack_i64(&in);
    event->scheduled_ms = unpack_i64(&in);
    event->origin_server_ts = unpack_i64(&in);
    event->is_appservice = unpack_u64(&in) != 0;
    event->finalised_ms = unpack_i64(&in);
    event->event_id = unpack_bytes(&in);
    event->error = unpack_bytes(&in);
    *txn_out = unpack_bytes(&in);
    TRY(unpack_check(&in));
    if (state > DELAYED_CANCELLED) {
        return err_make(ERR_CORRUPT, "a delayed event is in no known state");
    }
    event->state = (enum delayed_state)state;
    return OK;
}

static struct err load(struct hs *hs, struct ctx *ctx, struct slice delay_id,
                       struct delayed_event *event_out, struct slice *txn_out, bool *found_out)
{
    struct slice row;
    *event_out = (struct delayed_event){.delay_id = delay_id};
    TRY(store_get(hs->store, ctx, rows_object, plain_key(ctx, 'd', delay_id), &row, found_out));
    return *found_out ? decode(row, event_out, txn_out) : OK;
}

/* --- reading --- */

struct err delayed_row_find(struct hs *hs, struct ctx *ctx, struct slice delay_id,
                            struct delayed_event *event_out, bool *found_out)
{
    struct slice txn;
    *found_out = false;
    if (delay_id.len == 0 || delay_id.len > STORE_ID_BYTES_MAX) {
        return OK;
    }
    return load(hs, ctx, delay_id, event_out, &txn, found_out);
}

struct err delayed_txn_find(struct hs *hs, struct ctx *ctx, const struct delayed_event *event,
                            const struct delayed_txn *txn, struct slice *delay_id_out,
                            bool *found_out)
{
    *found_out = false;
    if (!txn->txn_id.ptr) {
        return OK;
    }
    return store_get(hs->store, ctx, rows_object, txn_key(ctx, event, txn), delay_id_out,
                     found_out);
}

static int by_due(const void *a, const void *b)
{
    const struct delayed_event *left = a;
    const struct delayed_event *right = b;
    int64_t left_ms = left->scheduled_ms + left->delay_ms;
    int64_t right_ms = right->scheduled_ms + right->delay_ms;
    return left_ms < right_ms ? -1 : left_ms > right_ms;
}

static void sort_by_due(struct delayed_events *events)
{
    if (events->count > 0) {
        qsort(events->items, events->count, sizeof *events->items, by_due);
    }
}

struct err delayed_rows_of_user(struct hs *hs, struct ctx *ctx, uint64_t user,
                                struct delayed_events *events_out)
{
    struct store_rows rows;
    struct slice from = user_key(ctx, 'u', user, (struct slice){0});
    struct store_range range = {.from = from,
                                .to = user_key(ctx, 'u', user + 1, (struct slice){0})};
    TRY(store_read_range(hs->store, ctx, rows_object, range, &rows));
    *events_out = (struct delayed_events){
        .items = arena_array(ctx->arena, rows.count, sizeof *events_out->items)};
    for (size_t i = 0; i < rows.count; i++) {
        bool found = false;
        TRY(delayed_row_find(hs, ctx, slice_from(rows.rows[i].key, from.len),
                             &events_out->items[events_out->count], &found));
        events_out->count += found ? 1 : 0;
    }
    sort_by_due(events_out);
    return OK;
}

struct err delayed_rows_scheduled(struct hs *hs, struct ctx *ctx, struct delayed_events *events_out)
{
    struct store_rows rows;
    struct store_range range = {.from = LIT("s"), .to = LIT("t")};
    TRY(store_read_range(hs->store, ctx, rows_object, range, &rows));
    *events_out = (struct delayed_events){
        .items = arena_array(ctx->arena, rows.count, sizeof *events_out->items),
        .count = rows.count};
    for (size_t i = 0; i < rows.count; i++) {
        struct delayed_event *event = &events_out->items[i];
        struct unpack in = unpack_of(rows.rows[i].value);
        *event = (struct delayed_event){.delay_id = slice_from(rows.rows[i].key, 1)};
        event->user = unpack_u64(&in);
        event->delay_ms = unpack_i64(&in);
        event->scheduled_ms = unpack_i64(&in);
        event->room_id = unpack_bytes(&in);
        TRY(unpack_check(&in));
    }
    sort_by_due(events_out);
    return OK;
}

/* --- writing --- */

static void put_scheduled(struct ctx *ctx, struct store_update *update,
                          const struct delayed_event *event)
{
    struct buf row;
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    pack_u64(&row, event->user);
    pack_i64(&row, event->delay_ms);
    pack_i64(&row, event->scheduled_ms);
    pack_bytes(&row, event->room_id);
    store_put(update, plain_key(ctx, 's', event->delay_id), buf_slice(&row));
    store_put(update, user_key(ctx, 'u', event->user, event->delay_id), (struct slice){0});
}

struct err delayed_row_add(struct hs *hs, struct ctx *ctx, const struct delayed_event *event,
                           const struct delayed_txn *txn)
{
    struct store_update *update = store_update_new(ctx, rows_object);
    struct slice key = txn->txn_id.ptr ? txn_key(ctx, event, txn) : (struct slice){0};
    store_put(update, plain_key(ctx, 'd', event->delay_id), encode(ctx, event, key));
    put_scheduled(ctx, update, event);
    if (key.len > 0) {
        store_put(update, key, event->delay_id);
    }
    return store_write(hs->store, ctx, &update, 1);
}

/* Writes the record again; it keeps its transaction. */
static struct err replace(struct hs *hs, struct ctx *ctx, struct store_update *update,
                          const struct delayed_event *event)
{
    struct delayed_event old;
    struct slice txn;
    bool found = false;
    TRY(load(hs, ctx, event->delay_id, &old, &txn, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "There is no delayed event of this id.");
    }
    store_put(update, plain_key(ctx, 'd', event->delay_id), encode(ctx, event, txn));
    return OK;
}

struct err delayed_row_restart(struct hs *hs, struct ctx *ctx, const struct delayed_event *event)
{
    struct store_update *update = store_update_new(ctx, rows_object);
    TRY(replace(hs, ctx, update, event));
    put_scheduled(ctx, update, event);
    return store_write(hs->store, ctx, &update, 1);
}

static struct err drop(struct hs *hs, struct ctx *ctx, struct store_update *update,
                       struct slice key)
{
    struct delayed_event event;
    struct slice txn = {0};
    struct slice delay_id = slice_from(key, 1 + 8 + 8);
    bool found = false;
    TRY(load(hs, ctx, delay_id, &event, &txn, &found));
    store_delete(update, key);
    store_delete(update, plain_key(ctx, 'd', delay_id));
    if (found && txn.len > 0) {
        store_delete(update, txn);
    }
    return OK;
}

/* Oldest first: what is too old, and what is more than can be kept. */
static struct err drop_old(struct hs *hs, struct ctx *ctx, struct store_update *update,
                           uint64_t user)
{
    struct store_rows rows;
    struct store_range range = {.from = user_key(ctx, 'f', user, (struct slice){0}),
                                .to = user_key(ctx, 'f', user + 1, (struct slice){0}),
                                .limit = KEPT_MAX + DROPPED_AT_ONCE};
    int64_t oldest_ms = now_wall_ms(ctx->now) - KEPT_MS;
    TRY(store_read_range(hs->store, ctx, rows_object, range, &rows));
    for (size_t i = 0; i < rows.count && i < DROPPED_AT_ONCE; i++) {
        struct unpack in = unpack_of(slice_from(rows.rows[i].key, 1 + 8));
        bool is_old = (int64_t)unpack_be64(&in) < oldest_ms;
        if (!is_old && rows.count - i < KEPT_MAX) {
            break;
        }
        TRY(drop(hs, ctx, update, rows.rows[i].key));
    }
    return OK;
}

struct err delayed_row_finalise(struct hs *hs, struct ctx *ctx, const struct delayed_event *event)
{
    struct store_update *update = store_update_new(ctx, rows_object);
    TRY(replace(hs, ctx, update, event));
    store_delete(update, plain_key(ctx, 's', event->delay_id));
    store_delete(update, user_key(ctx, 'u', event->user, event->delay_id));
    TRY(drop_old(hs, ctx, update, event->user));
    store_put(update, final_key(ctx, event), (struct slice){0});
    return store_write(hs->store, ctx, &update, 1);
}
