#include "homeserver/service/push_queue.h"

#include "homeserver/service/room_priv.h"

enum push_row { PUSH_ROW_ITEM = 'q', PUSH_ROW_MARK = 'm' };

static struct store_object pushes_object(struct ctx *ctx, uint64_t user)
{
    return (struct store_object){STORE_PUSHES, store_id_u64(ctx->arena, user)};
}

static struct slice row_key(struct ctx *ctx, enum push_row row, struct slice name)
{
    return key_bytes(ctx, (char)row, name);
}

static struct slice item_key(struct ctx *ctx, struct slice name, uint64_t pos)
{
    return arena_concat(ctx->arena, row_key(ctx, PUSH_ROW_ITEM, name),
                        store_id_u64(ctx->arena, pos));
}

struct store_update *hs_push_update(struct ctx *ctx, uint64_t user)
{
    return store_update_new(ctx, pushes_object(ctx, user));
}

void hs_push_put(struct ctx *ctx, struct store_update *update, struct slice name,
                 const struct push_item *item)
{
    struct buf row;
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    pack_u64(&row, item->room);
    pack_i64(&row, item->number);
    pack_i64(&row, item->queued_ms);
    pack_bytes(&row, item->actions);
    store_put(update, item_key(ctx, name, item->pos), buf_slice(&row));
}

void hs_push_delete(struct ctx *ctx, struct store_update *update, struct slice name, uint64_t pos)
{
    store_delete(update, item_key(ctx, name, pos));
}

void hs_push_put_mark(struct ctx *ctx, struct store_update *update, struct slice name,
                      const struct push_mark *mark)
{
    struct buf row;
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    pack_u64(&row, mark->pos);
    pack_u64(&row, mark->badge);
    store_put(update, row_key(ctx, PUSH_ROW_MARK, name), buf_slice(&row));
}

void hs_push_forget(struct ctx *ctx, struct store_update *update, struct slice name)
{
    struct slice last = item_key(ctx, name, UINT64_MAX);
    store_delete_range(update, item_key(ctx, name, 0), last);
    store_delete(update, last);
    store_delete(update, row_key(ctx, PUSH_ROW_MARK, name));
}

static struct err decode_item(struct store_row row, struct push_item *item)
{
    struct unpack pos = unpack_of(slice_from(row.key, row.key.len - sizeof item->pos));
    struct unpack in = unpack_of(row.value);
    item->pos = unpack_be64(&pos);
    item->room = unpack_u64(&in);
    item->number = unpack_i64(&in);
    item->queued_ms = unpack_i64(&in);
    item->actions = unpack_bytes(&in);
    return unpack_check(&in);
}

struct err hs_push_read(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice name,
                        size_t limit, struct push_items *items_out)
{
    struct store_rows rows;
    struct store_range range = {
        .from = item_key(ctx, name, 0), .to = item_key(ctx, name, UINT64_MAX), .limit = limit};
    TRY(store_read_range(hs->store, ctx, pushes_object(ctx, user), range, &rows));
    *items_out = (struct push_items){
        .items = arena_array(ctx->arena, rows.count + 1, sizeof(struct push_item))};
    for (; items_out->count < rows.count; items_out->count++) {
        TRY(decode_item(rows.rows[items_out->count], &items_out->items[items_out->count]));
    }
    return OK;
}

struct err hs_push_mark_get(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice name,
                            struct push_mark *mark_out)
{
    struct slice row;
    bool found = false;
    *mark_out = (struct push_mark){0};
    TRY(store_get(hs->store, ctx, pushes_object(ctx, user), row_key(ctx, PUSH_ROW_MARK, name), &row,
                  &found));
    if (!found) {
        return OK;
    }
    struct unpack in = unpack_of(row);
    mark_out->pos = unpack_u64(&in);
    mark_out->badge = (uint32_t)unpack_u64(&in);
    return unpack_check(&in);
}

struct err hs_push_waiting(struct hs *hs, struct ctx *ctx, uint64_t user,
                           struct push_names *names_out)
{
    struct slice from = row_key(ctx, PUSH_ROW_ITEM, (struct slice){0});
    struct slice to = row_key(ctx, PUSH_ROW_ITEM + 1, (struct slice){0});
    *names_out = (struct push_names){
        .items = arena_array(ctx->arena, PUSHERS_OF_USER_MAX * 2, sizeof(struct slice))};
    while (names_out->count < PUSHERS_OF_USER_MAX * 2) {
        struct store_rows rows;
        struct store_range range = {.from = from, .to = to, .limit = 1};
        TRY(store_read_range(hs->store, ctx, pushes_object(ctx, user), range, &rows));
        if (rows.count == 0 || rows.rows[0].key.len < 1 + sizeof(uint64_t)) {
            break;
        }
        struct slice key = rows.rows[0].key;
        struct slice name = slice_sub(key, 1, key.len - 1 - sizeof(uint64_t));
        names_out->items[names_out->count++] = name;
        from = item_key(ctx, name, UINT64_MAX);
    }
    return OK;
}

struct each_user {
    struct ctx *ctx;
    hs_push_user_fn visit;
    void *arg;
};

static struct err visit_object(void *arg, struct slice id)
{
    struct each_user *each = arg;
    struct unpack in = unpack_of(id);
    uint64_t user = unpack_be64(&in);
    TRY(unpack_check(&in));
    return each->visit(each->arg, each->ctx, user);
}

struct err hs_push_each_user(struct hs *hs, struct ctx *ctx, hs_push_user_fn visit, void *arg)
{
    struct each_user each = {ctx, visit, arg};
    return store_each_object(hs->store, ctx, STORE_PUSHES, visit_object, &each);
}
