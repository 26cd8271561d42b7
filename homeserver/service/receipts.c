/* Receipts: (STORE_ROOM_DERIVED, room) holds, for each user, type and thread, the present receipt,
 * and an index of them by position. They are written in the room's lane.
 * Spec: client-server, "Receipts", "Threaded read receipts". */
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/users.h"

/* be64 user, type, then 1 + thread (or nothing when unthreaded). */
static struct slice receipt_name(struct ctx *ctx, const struct receipt *receipt)
{
    struct buf name;
    buf_init_arena(&name, ctx->arena, SIZE_MAX / 2);
    pack_be64(&name, receipt->user);
    buf_add_byte(&name, (char)receipt->type);
    if (receipt->thread.ptr) {
        buf_add_byte(&name, 1);
        buf_add(&name, receipt->thread);
    }
    return buf_slice(&name);
}

static struct slice encode_row(struct ctx *ctx, const struct receipt *receipt)
{
    struct buf row;
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    pack_u64(&row, receipt->pos);
    pack_i64(&row, receipt->number);
    pack_i64(&row, receipt->ts_ms);
    buf_add(&row, receipt->event_id);
    return buf_slice(&row);
}

static struct err decode_row(struct slice name, struct slice row, struct receipt *receipt_out)
{
    struct unpack key = unpack_of(name);
    struct unpack in = unpack_of(row);
    struct receipt receipt = {.user = unpack_be64(&key)};
    if (key.rest.len == 0) {
        return err_make(ERR_CORRUPT, "stored receipt is malformed");
    }
    receipt.type = key.rest.ptr[0] == RECEIPT_READ ? RECEIPT_READ : RECEIPT_READ_PRIVATE;
    if (key.rest.len > 1) {
        receipt.thread = slice_from(key.rest, 2);
    }
    receipt.pos = unpack_u64(&in);
    receipt.number = unpack_i64(&in);
    receipt.ts_ms = unpack_i64(&in);
    receipt.event_id = in.rest;
    *receipt_out = receipt;
    return unpack_check(&in);
}

static struct err write_receipt(struct hs *hs, struct ctx *ctx, struct room *room,
                                const struct receipt *receipt, const struct receipt *old)
{
    struct slice name = receipt_name(ctx, receipt);
    struct store_update *update = store_update_new(ctx, room_derived_object(ctx, room->number));
    store_put(update, key_bytes(ctx, DERIVED_KEY_RECEIPT, name), encode_row(ctx, receipt));
    store_put(update, key_u64(ctx, DERIVED_KEY_RECEIPT_POS, receipt->pos), name);
    if (old) {
        store_delete(update, key_u64(ctx, DERIVED_KEY_RECEIPT_POS, old->pos));
    }
    return store_write(hs->store, ctx, &update, 1);
}

static struct err set_in_lane(struct hs *hs, struct ctx *ctx, struct room *room,
                              const struct receipt *wanted)
{
    struct receipt receipt = *wanted;
    struct receipt old;
    struct slice row;
    bool found = false;
    struct slice name = receipt_name(ctx, wanted);
    TRY(room_check_there(room));
    TRY(store_get(hs->store, ctx, room_derived_object(ctx, room->number),
                  key_bytes(ctx, DERIVED_KEY_RECEIPT, name), &row, &found));
    if (found) {
        TRY(decode_row(name, row, &old));
        /* An event that is not known here does not outdo one that is. */
        if (old.number && (!receipt.number || old.number >= receipt.number)) {
            return OK;
        }
    }
    receipt.pos = positions_reserve(hs->positions);
    struct err err = write_receipt(hs, ctx, room, &receipt, found ? &old : NULL);
    if (err.code != 0) {
        positions_abandon(hs->positions, receipt.pos);
        return err;
    }
    hs_room_set_receipt_pos(room, receipt.pos);
    struct change change = {
        .pos = receipt.pos, .kind = CHANGE_RECEIPT, .room = room->number, .user = receipt.user};
    positions_complete(hs->positions, &change, ctx->write_ticket);
    return OK;
}

struct err hs_receipt_set(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct receipt *receipt)
{
    uint64_t lane = lane_of_room(room->number);
    workers_lane_enter(hs->workers, lane);
    struct err err = set_in_lane(hs, ctx, room, receipt);
    workers_lane_leave(hs->workers, lane);
    return err;
}

struct err hs_receipts_since(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t viewer,
                             uint64_t since, uint64_t upto, struct receipts *receipts_out)
{
    struct store_rows rows;
    struct receipts receipts = {0};
    struct store_object derived = room_derived_object(ctx, room->number);
    struct store_range range = {.from = key_u64(ctx, DERIVED_KEY_RECEIPT_POS, since + 1),
                                .to = key_u64(ctx, DERIVED_KEY_RECEIPT_POS, upto + 1)};
    *receipts_out = receipts;
    if (hs_room_head(room).receipt_pos <= since) {
        return OK;
    }
    TRY(store_read_range(hs->store, ctx, derived, range, &rows));
    receipts.items = arena_array(ctx->arena, rows.count, sizeof *receipts.items);
    for (size_t i = 0; i < rows.count; i++) {
        struct receipt *receipt = &receipts.items[receipts.count];
        struct slice row;
        bool found = false;
        TRY(store_get(hs->store, ctx, derived,
                      key_bytes(ctx, DERIVED_KEY_RECEIPT, rows.rows[i].value), &row, &found));
        if (!found) {
            continue;
        }
        TRY(decode_row(rows.rows[i].value, row, receipt));
        if (receipt->type == RECEIPT_READ_PRIVATE && receipt->user != viewer) {
            continue;
        }
        TRY(hs_user_id_of(hs, ctx, receipt->user, &receipt->user_id));
        receipts.count++;
    }
    *receipts_out = receipts;
    return OK;
}

struct err hs_receipts_of_user(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t user,
                               struct receipts *receipts_out)
{
    struct store_rows rows;
    struct receipts receipts = {0};
    struct store_range range = {.from = key_u64(ctx, DERIVED_KEY_RECEIPT, user),
                                .to = key_u64(ctx, DERIVED_KEY_RECEIPT, user + 1)};
    TRY(store_read_range(hs->store, ctx, room_derived_object(ctx, room->number), range, &rows));
    receipts.items = arena_array(ctx->arena, rows.count, sizeof *receipts.items);
    for (size_t i = 0; i < rows.count; i++) {
        TRY(decode_row(slice_from(rows.rows[i].key, 1), rows.rows[i].value,
                       &receipts.items[receipts.count]));
        receipts.count++;
    }
    *receipts_out = receipts;
    return OK;
}
