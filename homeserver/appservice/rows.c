#include "homeserver/appservice/rows.h"

/* First bytes of the keys. */
enum row {
    ROW_STATE = 's',
    ROW_TXN = 't',
    ROW_EVENT = 'e', /* be64 position: packed room, number */
    ROW_USER = 'u',  /* be64 user: packed looks, position */
    ROW_INBOX = 'd', /* be64 user, device id: packed position */
};

enum { SMALL_ROW_BYTES_MAX = 1024, TXN_BYTES_MAX = 64 << 20, INBOXES_MAX = 100000 };

static struct store_object object_of(struct slice id)
{
    return (struct store_object){STORE_APPSERVICE, id};
}

static struct slice key_of(struct ctx *ctx, enum row row, uint64_t number, struct slice more)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, STORE_KEY_BYTES_MAX);
    buf_add_byte(&key, (char)row);
    pack_be64(&key, number);
    buf_add(&key, more);
    return buf_slice(&key);
}

struct store_update *as_rows_update(struct ctx *ctx, struct slice id)
{
    return store_update_new(ctx, object_of(id));
}

/* --- state --- */

struct err as_state_load(struct hs *hs, struct ctx *ctx, struct slice id,
                         struct as_state *state_out)
{
    struct slice row;
    bool found = false;
    *state_out = (struct as_state){0};
    TRY(store_get(hs->store, ctx, object_of(id), LIT("s"), &row, &found));
    if (!found) {
        return OK;
    }
    struct unpack in = unpack_of(row);
    state_out->next_txn = unpack_u64(&in);
    state_out->sent_pos = unpack_u64(&in);
    state_out->last_success_ms = unpack_i64(&in);
    state_out->failed_since_ms = unpack_i64(&in);
    state_out->failures = (uint32_t)unpack_u64(&in);
    state_out->failure = unpack_bytes(&in);
    return unpack_check(&in);
}

void as_state_put(struct ctx *ctx, struct store_update *update, const struct as_state *state)
{
    struct buf row;
    buf_init_arena(&row, ctx->arena, SMALL_ROW_BYTES_MAX);
    pack_u64(&row, state->next_txn);
    pack_u64(&row, state->sent_pos);
    pack_i64(&row, state->last_success_ms);
    pack_i64(&row, state->failed_since_ms);
    pack_u64(&row, state->failures);
    pack_bytes(&row, slice_sub(state->failure, 0, SMALL_ROW_BYTES_MAX / 2));
    store_put(update, LIT("s"), buf_slice(&row));
}

/* --- events --- */

void as_event_put(struct ctx *ctx, struct store_update *update, const struct as_event_row *row)
{
    struct buf value;
    buf_init_arena(&value, ctx->arena, 32);
    pack_u64(&value, row->room);
    pack_i64(&value, row->number);
    store_put(update, key_of(ctx, ROW_EVENT, row->pos, (struct slice){0}), buf_slice(&value));
}

void as_event_delete(struct ctx *ctx, struct store_update *update, uint64_t pos)
{
    store_delete(update, key_of(ctx, ROW_EVENT, pos, (struct slice){0}));
}

static struct err read_rows(struct hs *hs, struct ctx *ctx, struct slice id,
                            struct store_range range, struct store_rows *rows_out)
{
    return store_read_range(hs->store, ctx, object_of(id), range, rows_out);
}

struct err as_events_read(struct hs *hs, struct ctx *ctx, struct slice id, uint64_t upto,
                          size_t limit, struct as_event_row **rows_out, size_t *count_out)
{
    struct store_rows rows;
    struct store_range range = {.from = key_of(ctx, ROW_EVENT, 0, (struct slice){0}),
                                .to = key_of(ctx, ROW_EVENT, upto + 1, (struct slice){0}),
                                .limit = limit};
    TRY(read_rows(hs, ctx, id, range, &rows));
    *rows_out = arena_array(ctx->arena, rows.count + 1, sizeof **rows_out);
    *count_out = rows.count;
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack key = unpack_of(slice_from(rows.rows[i].key, 1));
        struct unpack in = unpack_of(rows.rows[i].value);
        (*rows_out)[i].pos = unpack_be64(&key);
        (*rows_out)[i].room = unpack_u64(&in);
        (*rows_out)[i].number = unpack_i64(&in);
        TRY(unpack_check(&key));
        TRY(unpack_check(&in));
    }
    return OK;
}

struct err as_events_count(struct hs *hs, struct ctx *ctx, struct slice id, size_t *count_out)
{
    struct store_rows rows;
    struct store_range range = {.from = LIT("e"), .to = LIT("f")};
    TRY(read_rows(hs, ctx, id, range, &rows));
    *count_out = rows.count;
    return OK;
}

/* --- users --- */

static struct slice user_value(struct ctx *ctx, const struct as_user_row *row)
{
    struct buf value;
    buf_init_arena(&value, ctx->arena, 32);
    pack_u64(&value, row->looks);
    pack_u64(&value, row->pos);
    return buf_slice(&value);
}

static struct err user_decode(struct slice value, struct as_user_row *row)
{
    struct unpack in = unpack_of(value);
    row->looks = (uint32_t)unpack_u64(&in);
    row->pos = unpack_u64(&in);
    return unpack_check(&in);
}

void as_user_put(struct ctx *ctx, struct store_update *update, const struct as_user_row *row)
{
    store_put(update, key_of(ctx, ROW_USER, row->user, (struct slice){0}), user_value(ctx, row));
}

void as_user_take(struct ctx *ctx, struct store_update *update, const struct as_user_row *row)
{
    struct slice key = key_of(ctx, ROW_USER, row->user, (struct slice){0});
    store_expect(update, key, user_value(ctx, row));
    store_delete(update, key);
}

struct err as_user_read(struct hs *hs, struct ctx *ctx, struct slice id, uint64_t user,
                        struct as_user_row *row_out, bool *found_out)
{
    struct slice value;
    *row_out = (struct as_user_row){.user = user};
    TRY(store_get(hs->store, ctx, object_of(id), key_of(ctx, ROW_USER, user, (struct slice){0}),
                  &value, found_out));
    return *found_out ? user_decode(value, row_out) : OK;
}

struct err as_users_read(struct hs *hs, struct ctx *ctx, struct slice id, size_t limit,
                         struct as_user_row **rows_out, size_t *count_out)
{
    struct store_rows rows;
    struct store_range range = {.from = LIT("u"), .to = LIT("v"), .limit = limit};
    TRY(read_rows(hs, ctx, id, range, &rows));
    *rows_out = arena_array(ctx->arena, rows.count + 1, sizeof **rows_out);
    *count_out = rows.count;
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack key = unpack_of(slice_from(rows.rows[i].key, 1));
        (*rows_out)[i].user = unpack_be64(&key);
        TRY(unpack_check(&key));
        TRY(user_decode(rows.rows[i].value, &(*rows_out)[i]));
    }
    return OK;
}

/* --- inboxes --- */

void as_inbox_mark_put(struct ctx *ctx, struct store_update *update,
                       const struct as_inbox_mark *mark)
{
    struct buf value;
    buf_init_arena(&value, ctx->arena, 32);
    pack_u64(&value, mark->pos);
    store_put(update, key_of(ctx, ROW_INBOX, mark->user, mark->device_id), buf_slice(&value));
}

struct err as_inbox_mark_read(struct hs *hs, struct ctx *ctx, struct slice id, uint64_t user,
                              struct slice device_id, uint64_t *pos_out)
{
    struct slice value;
    bool found = false;
    *pos_out = 0;
    TRY(store_get(hs->store, ctx, object_of(id), key_of(ctx, ROW_INBOX, user, device_id), &value,
                  &found));
    if (!found) {
        return OK;
    }
    struct unpack in = unpack_of(value);
    *pos_out = unpack_u64(&in);
    return unpack_check(&in);
}

/* --- the transaction --- */

void as_txn_put(struct ctx *ctx, struct store_update *update, const struct as_txn *txn)
{
    struct buf row;
    buf_init_arena(&row, ctx->arena, TXN_BYTES_MAX);
    pack_u64(&row, txn->id);
    pack_u64(&row, txn->event_count);
    pack_u64(&row, txn->other_count);
    pack_bytes(&row, txn->body);
    pack_u64(&row, txn->inbox_count);
    for (size_t i = 0; i < txn->inbox_count; i++) {
        pack_u64(&row, txn->inboxes[i].user);
        pack_bytes(&row, txn->inboxes[i].device_id);
        pack_u64(&row, txn->inboxes[i].pos);
    }
    store_put(update, LIT("t"), buf_slice(&row));
}

void as_txn_delete(struct store_update *update)
{
    store_delete(update, LIT("t"));
}

struct err as_txn_load(struct hs *hs, struct ctx *ctx, struct slice id, struct as_txn *txn_out,
                       bool *found_out)
{
    struct slice row;
    *txn_out = (struct as_txn){0};
    TRY(store_get(hs->store, ctx, object_of(id), LIT("t"), &row, found_out));
    if (!*found_out) {
        return OK;
    }
    struct unpack in = unpack_of(row);
    txn_out->id = unpack_u64(&in);
    txn_out->event_count = unpack_u64(&in);
    txn_out->other_count = unpack_u64(&in);
    txn_out->body = unpack_bytes(&in);
    uint64_t count = unpack_u64(&in);
    if (count > INBOXES_MAX) {
        return err_make(ERR_CORRUPT, "a transaction of an application service");
    }
    txn_out->inboxes = arena_array(ctx->arena, (size_t)count + 1, sizeof *txn_out->inboxes);
    for (; txn_out->inbox_count < count && !in.bad; txn_out->inbox_count++) {
        struct as_inbox_mark *mark = &txn_out->inboxes[txn_out->inbox_count];
        mark->user = unpack_u64(&in);
        mark->device_id = unpack_bytes(&in);
        mark->pos = unpack_u64(&in);
    }
    return unpack_check(&in);
}
