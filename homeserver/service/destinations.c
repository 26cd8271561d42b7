#include "homeserver/service/destinations.h"

/* Keys of (STORE_DESTINATION, server). */
enum {
    ROW_STATE = 'a',
    ROW_EDU = 'e',     /* be64 order -> JSON */
    ROW_MARK = 'r',    /* be64 room -> number, position */
    ROW_TXN = 't',     /* the transaction under way */
    ROW_REFUSED = 'x', /* be64 order -> what the server did not take */
};
enum { ROW_BYTES_MAX = 64 << 20, EDUS_COUNTED_MAX = 10000 };

static struct store_object object_of(struct slice server)
{
    return (struct store_object){.kind = STORE_DESTINATION, .id = server};
}

static struct slice row_key(struct ctx *ctx, char row, uint64_t number)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, 16);
    buf_add_byte(&key, row);
    pack_be64(&key, number);
    return buf_slice(&key);
}

static uint64_t number_of(struct slice key)
{
    struct unpack in = unpack_of(slice_from(key, 1));
    return unpack_be64(&in);
}

static struct err read_rows(struct hs *hs, struct ctx *ctx, struct slice server,
                            struct store_range range, struct store_rows *rows_out)
{
    return store_read_range(hs->store, ctx, object_of(server), range, rows_out);
}

/* --- reading --- */

struct err hs_destination_load(struct hs *hs, struct ctx *ctx, struct slice server,
                               struct destination_state *state_out, bool *found_out)
{
    struct slice row;
    *state_out = (struct destination_state){0};
    TRY(store_get(hs->store, ctx, object_of(server), LIT("a"), &row, found_out));
    if (!*found_out) {
        return OK;
    }
    struct unpack in = unpack_of(row);
    state_out->acknowledged = unpack_u64(&in);
    state_out->last_success_ms = unpack_i64(&in);
    state_out->failed_since_ms = unpack_i64(&in);
    state_out->next_try_ms = unpack_i64(&in);
    state_out->failures = (uint32_t)unpack_u64(&in);
    state_out->failure = unpack_bytes(&in);
    return unpack_check(&in);
}

static struct err decode_event(struct unpack *in, struct destination_event *event_out)
{
    event_out->number = unpack_i64(in);
    event_out->pos = unpack_u64(in);
    return unpack_check(in);
}

struct err hs_destination_marks(struct hs *hs, struct ctx *ctx, struct slice server,
                                struct destination_events *marks_out)
{
    struct store_rows rows;
    struct store_range range = {.from = LIT("r"), .to = LIT("s")};
    *marks_out = (struct destination_events){0};
    TRY(read_rows(hs, ctx, server, range, &rows));
    marks_out->items = arena_array(ctx->arena, rows.count + 1, sizeof *marks_out->items);
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack in = unpack_of(rows.rows[i].value);
        marks_out->items[i].room = number_of(rows.rows[i].key);
        TRY(decode_event(&in, &marks_out->items[i]));
    }
    marks_out->count = rows.count;
    return OK;
}

struct err hs_destination_edus(struct hs *hs, struct ctx *ctx, struct slice server, size_t limit,
                               struct destination_edu **edus_out, size_t *count_out)
{
    struct store_rows rows;
    struct store_range range = {.from = LIT("e"), .to = LIT("f"), .limit = limit};
    TRY(read_rows(hs, ctx, server, range, &rows));
    *edus_out = arena_array(ctx->arena, rows.count + 1, sizeof **edus_out);
    for (size_t i = 0; i < rows.count; i++) {
        (*edus_out)[i] = (struct destination_edu){number_of(rows.rows[i].key), rows.rows[i].value};
    }
    *count_out = rows.count;
    return OK;
}

static struct err decode_txn(struct ctx *ctx, struct slice row, struct destination_txn *txn_out)
{
    struct unpack in = unpack_of(row);
    struct destination_txn txn = {.id = unpack_u64(&in)};
    txn.ts_ms = unpack_i64(&in);
    uint64_t events = unpack_u64(&in);
    uint64_t stored = unpack_u64(&in);
    if (events > row.len || stored > row.len) {
        return err_make(ERR_CORRUPT, "a stored transaction is malformed");
    }
    txn.events.items = arena_array(ctx->arena, events + 1, sizeof *txn.events.items);
    for (; txn.events.count < events; txn.events.count++) {
        struct destination_event *event = &txn.events.items[txn.events.count];
        event->room = unpack_u64(&in);
        TRY(decode_event(&in, event));
    }
    uint64_t *orders = arena_array(ctx->arena, stored + 1, sizeof *orders);
    for (; txn.stored_count < stored; txn.stored_count++) {
        orders[txn.stored_count] = unpack_u64(&in);
    }
    txn.stored = orders;
    txn.edu_count = unpack_u64(&in);
    txn.edus = unpack_bytes(&in);
    *txn_out = txn;
    return unpack_check(&in);
}

struct err hs_destination_txn(struct hs *hs, struct ctx *ctx, struct slice server,
                              struct destination_txn *txn_out, bool *found_out)
{
    struct slice row;
    *txn_out = (struct destination_txn){0};
    TRY(store_get(hs->store, ctx, object_of(server), LIT("t"), &row, found_out));
    return *found_out ? decode_txn(ctx, row, txn_out) : OK;
}

struct err hs_destination_refusals(struct hs *hs, struct ctx *ctx, struct slice server,
                                   struct destination_refused **items_out, size_t *count_out)
{
    struct store_rows rows;
    struct store_range range = {.from = LIT("x"), .to = LIT("y"), .order = STORE_REVERSE};
    TRY(read_rows(hs, ctx, server, range, &rows));
    *items_out = arena_array(ctx->arena, rows.count + 1, sizeof **items_out);
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack in = unpack_of(rows.rows[i].value);
        struct destination_refused *item = &(*items_out)[i];
        item->ts_ms = unpack_i64(&in);
        item->what = unpack_bytes(&in);
        item->room_id = unpack_bytes(&in);
        item->reason = unpack_bytes(&in);
        TRY(unpack_check(&in));
    }
    *count_out = rows.count;
    return OK;
}

/* --- writing --- */

struct store_update *hs_destination_update(struct ctx *ctx, struct slice server)
{
    return store_update_new(ctx, object_of(server));
}

void hs_destination_put_state(struct ctx *ctx, struct store_update *update,
                              const struct destination_state *state)
{
    struct buf row;
    buf_init_arena(&row, ctx->arena, ROW_BYTES_MAX);
    pack_u64(&row, state->acknowledged);
    pack_i64(&row, state->last_success_ms);
    pack_i64(&row, state->failed_since_ms);
    pack_i64(&row, state->next_try_ms);
    pack_u64(&row, state->failures);
    pack_bytes(&row, state->failure);
    store_put(update, LIT("a"), buf_slice(&row));
}

static void encode_event(struct buf *out, const struct destination_event *event)
{
    pack_i64(out, event->number);
    pack_u64(out, event->pos);
}

void hs_destination_put_mark(struct ctx *ctx, struct store_update *update,
                             const struct destination_event *mark)
{
    struct buf row;
    buf_init_arena(&row, ctx->arena, 32);
    encode_event(&row, mark);
    store_put(update, row_key(ctx, ROW_MARK, mark->room), buf_slice(&row));
}

void hs_destination_delete_marks(struct store_update *update)
{
    store_delete_range(update, LIT("r"), LIT("s"));
}

void hs_destination_put_edu(struct ctx *ctx, struct store_update *update,
                            const struct destination_edu *edu)
{
    store_put(update, row_key(ctx, ROW_EDU, edu->order), edu->json);
}

void hs_destination_put_txn(struct ctx *ctx, struct store_update *update,
                            const struct destination_txn *txn)
{
    struct buf row;
    buf_init_arena(&row, ctx->arena, ROW_BYTES_MAX);
    pack_u64(&row, txn->id);
    pack_i64(&row, txn->ts_ms);
    pack_u64(&row, txn->events.count);
    pack_u64(&row, txn->stored_count);
    for (size_t i = 0; i < txn->events.count; i++) {
        pack_u64(&row, txn->events.items[i].room);
        encode_event(&row, &txn->events.items[i]);
    }
    for (size_t i = 0; i < txn->stored_count; i++) {
        pack_u64(&row, txn->stored[i]);
    }
    pack_u64(&row, txn->edu_count);
    pack_bytes(&row, txn->edus);
    store_put(update, LIT("t"), buf_slice(&row));
}

void hs_destination_give_up_txn(struct store_update *update)
{
    store_delete(update, LIT("t"));
}

void hs_destination_delete_txn(struct ctx *ctx, struct store_update *update,
                               const struct destination_txn *txn)
{
    store_delete(update, LIT("t"));
    for (size_t i = 0; i < txn->stored_count; i++) {
        store_delete(update, row_key(ctx, ROW_EDU, txn->stored[i]));
    }
}

struct err hs_destination_put_refused(struct hs *hs, struct ctx *ctx, struct slice server,
                                      struct store_update *update,
                                      const struct destination_refused *refused)
{
    struct buf row;
    struct store_rows rows;
    struct store_range range = {.from = LIT("x"), .to = LIT("y"), .order = STORE_REVERSE};
    TRY(read_rows(hs, ctx, server, range, &rows));
    for (size_t i = DESTINATION_REFUSED_MAX - 1; i < rows.count; i++) {
        store_delete(update, rows.rows[i].key);
    }
    buf_init_arena(&row, ctx->arena, ROW_BYTES_MAX);
    pack_i64(&row, refused->ts_ms);
    pack_bytes(&row, refused->what);
    pack_bytes(&row, refused->room_id);
    pack_bytes(&row, refused->reason);
    store_put(update, row_key(ctx, ROW_REFUSED, hs_outbound_order(hs)), buf_slice(&row));
    return OK;
}

/* --- the whole --- */

uint64_t hs_outbound_order(struct hs *hs)
{
    uint64_t order = positions_reserve(hs->positions);
    positions_abandon(hs->positions, order);
    return order;
}

struct err hs_destination_waiting(struct hs *hs, struct ctx *ctx, struct slice server,
                                  const struct destination_state *state,
                                  struct destination_waiting *waiting_out)
{
    struct destination_events marks;
    struct destination_edu *edus = NULL;
    struct destination_txn txn;
    struct destination_waiting waiting = {0};
    TRY(hs_destination_marks(hs, ctx, server, &marks));
    TRY(hs_destination_edus(hs, ctx, server, EDUS_COUNTED_MAX, &edus, &waiting.edus));
    TRY(hs_destination_txn(hs, ctx, server, &txn, &waiting.has_txn));
    for (size_t i = 0; i < marks.count; i++) {
        waiting.rooms += marks.items[i].pos > state->acknowledged ? 1 : 0;
    }
    waiting.txn_events = txn.events.count;
    waiting.txn_edus = (size_t)txn.edu_count;
    *waiting_out = waiting;
    return OK;
}
