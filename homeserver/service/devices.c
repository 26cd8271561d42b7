#include "homeserver/service/users_priv.h"

#include <string.h>

enum { ROW_VERSION = 1, ROW_BYTES_MAX = 8192 };

/* --- rows --- */

static struct err decode(struct slice value, struct device_row *row_out)
{
    struct unpack in = unpack_of(value);
    if (unpack_u64(&in) != ROW_VERSION) {
        return err_make(ERR_CORRUPT, "a device row has an unknown version");
    }
    bool named = unpack_u64(&in) != 0;
    struct slice name = unpack_bytes(&in);
    row_out->display_name = named ? name : (struct slice){0};
    row_out->created_ms = unpack_i64(&in);
    row_out->token_count = (size_t)unpack_u64(&in);
    if (row_out->token_count > DEVICE_TOKENS_MAX) {
        return err_make(ERR_CORRUPT, "a device row has too many tokens");
    }
    for (size_t i = 0; i < row_out->token_count; i++) {
        struct device_token *token = &row_out->tokens[i];
        token->kind = unpack_u64(&in) ? DEVICE_TOKEN_REFRESH : DEVICE_TOKEN_ACCESS;
        token->generation = unpack_u64(&in);
        token->expires_ms = unpack_i64(&in);
        struct slice hash = unpack_bytes(&in);
        if (hash.len != SHA256_BYTES) {
            return err_make(ERR_CORRUPT, "a device row has a malformed token");
        }
        memcpy(token->hash.bytes, hash.ptr, SHA256_BYTES);
    }
    return unpack_check(&in);
}

struct err device_row_load(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                           struct device_row *row_out, bool *found_out)
{
    struct slice value;
    *row_out = (struct device_row){0};
    *found_out = false;
    if (device_id.len == 0 || device_id.len > DEVICE_ID_BYTES_MAX) {
        return OK;
    }
    TRY(store_get(hs->store, ctx, users_object(ctx, user),
                  users_row_key(ctx, USER_ROW_DEVICE, device_id), &value, found_out));
    return *found_out ? decode(value, row_out) : OK;
}

void device_row_put(struct ctx *ctx, struct store_update *update, struct slice device_id,
                    const struct device_row *row)
{
    struct buf out;
    buf_init_arena(&out, ctx->arena, ROW_BYTES_MAX);
    pack_u64(&out, ROW_VERSION);
    pack_u64(&out, row->display_name.ptr ? 1 : 0);
    pack_bytes(&out, row->display_name);
    pack_i64(&out, row->created_ms);
    pack_u64(&out, row->token_count);
    for (size_t i = 0; i < row->token_count; i++) {
        const struct device_token *token = &row->tokens[i];
        pack_u64(&out, token->kind == DEVICE_TOKEN_REFRESH ? 1 : 0);
        pack_u64(&out, token->generation);
        pack_i64(&out, token->expires_ms);
        pack_bytes(&out, sha256_slice(&token->hash));
    }
    store_put(update, users_row_key(ctx, USER_ROW_DEVICE, device_id), buf_slice(&out));
}

/* --- reading --- */

static void decode_seen(struct slice value, struct device *device)
{
    struct unpack in = unpack_of(value);
    device->last_seen_ms = unpack_i64(&in);
    device->last_seen_ip = unpack_bytes(&in);
    device->user_agent = unpack_bytes(&in);
}

struct err hs_devices_list(struct hs *hs, struct ctx *ctx, uint64_t user,
                           struct devices *devices_out)
{
    struct store_rows rows;
    struct store_rows seen;
    TRY(users_rows(hs, ctx, user, USER_ROW_DEVICE, &rows));
    TRY(users_rows(hs, ctx, user, USER_ROW_DEVICE_SEEN, &seen));
    devices_out->items = arena_array(ctx->arena, rows.count + 1, sizeof *devices_out->items);
    devices_out->count = rows.count;
    for (size_t i = 0, at = 0; i < rows.count; i++) {
        struct device *device = &devices_out->items[i];
        struct device_row row = {0};
        TRY(decode(rows.rows[i].value, &row));
        device->device_id = slice_from(rows.rows[i].key, 1);
        device->display_name = row.display_name;
        device->created_ms = row.created_ms;
        /* Both lists are in order of the device id. */
        while (at < seen.count &&
               slice_cmp(slice_from(seen.rows[at].key, 1), device->device_id) < 0) {
            at++;
        }
        if (at < seen.count && slice_eq(slice_from(seen.rows[at].key, 1), device->device_id)) {
            decode_seen(seen.rows[at].value, device);
        }
    }
    return OK;
}

struct err hs_device_get(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                         struct device *device_out, bool *found_out)
{
    struct device_row row;
    struct slice seen;
    bool was_seen = false;
    TRY(device_row_load(hs, ctx, user, device_id, &row, found_out));
    *device_out = (struct device){
        .device_id = device_id, .display_name = row.display_name, .created_ms = row.created_ms};
    if (!*found_out) {
        return OK;
    }
    TRY(store_get(hs->store, ctx, users_object(ctx, user),
                  users_row_key(ctx, USER_ROW_DEVICE_SEEN, device_id), &seen, &was_seen));
    if (was_seen) {
        decode_seen(seen, device_out);
    }
    return OK;
}

/* --- changing --- */

static void add_hook(hs_device_fn *hooks, hs_device_fn fn)
{
    size_t i = 0;
    while (i < HOOKS_MAX && hooks[i]) {
        i++;
    }
    ASSERT(i < HOOKS_MAX);
    hooks[i] = fn;
}

void hs_on_device_removed(struct hs *hs, hs_device_fn fn)
{
    add_hook(hs->users->on_device_removed, fn);
}

void hs_on_device_renamed(struct hs *hs, hs_device_fn fn)
{
    add_hook(hs->users->on_device_renamed, fn);
}

static struct err run_hooks(struct hs *hs, struct ctx *ctx, const hs_device_fn *hooks,
                            uint64_t user, struct slice device_id)
{
    for (size_t i = 0; i < HOOKS_MAX && hooks[i]; i++) {
        TRY(hooks[i](hs, ctx, user, device_id));
    }
    return OK;
}

static struct err rename_in_lane(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 struct slice device_id, struct slice display_name)
{
    struct device_row row;
    bool found = false;
    TRY(device_row_load(hs, ctx, user, device_id, &row, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "There is no such device.");
    }
    struct store_update *update = store_update_new(ctx, users_object(ctx, user));
    row.display_name = display_name;
    device_row_put(ctx, update, device_id, &row);
    TRY(store_write(hs->store, ctx, &update, 1));
    return run_hooks(hs, ctx, hs->users->on_device_renamed, user, device_id);
}

static struct err check_name(struct slice display_name)
{
    return display_name.len > DEVICE_NAME_BYTES_MAX
               ? err_public(ERR_M_INVALID_PARAM, "The device name is too long.")
               : OK;
}

struct err hs_device_rename(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                            struct slice display_name)
{
    TRY(check_name(display_name));
    hs_user_lane_enter(hs, user);
    struct err err = rename_in_lane(hs, ctx, user, device_id, display_name);
    hs_user_lane_leave(hs, user);
    return err;
}

static struct err create_in_lane(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 struct slice device_id, struct slice display_name)
{
    struct device_row row;
    bool found = false;
    TRY(device_row_load(hs, ctx, user, device_id, &row, &found));
    if (found) {
        return OK;
    }
    struct store_update *update = store_update_new(ctx, users_object(ctx, user));
    row = (struct device_row){.display_name = display_name, .created_ms = now_wall_ms(ctx->now)};
    device_row_put(ctx, update, device_id, &row);
    return store_write(hs->store, ctx, &update, 1);
}

struct err hs_device_create(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                            struct slice display_name)
{
    TRY(check_name(display_name));
    if (device_id.len == 0 || device_id.len > DEVICE_ID_BYTES_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "A device id has 1 to 255 bytes.");
    }
    hs_user_lane_enter(hs, user);
    struct err err = create_in_lane(hs, ctx, user, device_id, display_name);
    hs_user_lane_leave(hs, user);
    return err;
}

/* What belongs to the device goes first: were the server to stop in between, the device would still
 * be there to be removed, and nobody would see keys of a device that is gone. */
static struct err remove_one(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id)
{
    struct store_update *updates[DEVICE_TOKENS_MAX + 1];
    struct device_row row;
    bool found = false;
    TRY(device_row_load(hs, ctx, user, device_id, &row, &found));
    if (!found) {
        return OK;
    }
    TRY(run_hooks(hs, ctx, hs->users->on_device_removed, user, device_id));
    updates[0] = store_update_new(ctx, users_object(ctx, user));
    store_delete(updates[0], users_row_key(ctx, USER_ROW_DEVICE, device_id));
    store_delete(updates[0], users_row_key(ctx, USER_ROW_DEVICE_SEEN, device_id));
    size_t count = 1 + tokens_end(hs, ctx, row.tokens, row.token_count, updates + 1);
    TRY(store_write(hs->store, ctx, updates, count));
    /* A lookup may have read the row just before it went: take it out of the cache once more. */
    tokens_end(hs, ctx, row.tokens, row.token_count, updates + 1);
    return OK;
}

struct err devices_remove(struct hs *hs, struct ctx *ctx, uint64_t user,
                          const struct slice *device_ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        TRY(remove_one(hs, ctx, user, device_ids[i]));
    }
    return OK;
}

struct err hs_devices_delete(struct hs *hs, struct ctx *ctx, uint64_t user,
                             const struct slice *device_ids, size_t count)
{
    hs_user_lane_enter(hs, user);
    struct err err = devices_remove(hs, ctx, user, device_ids, count);
    hs_user_lane_leave(hs, user);
    return err;
}

static struct err delete_others_in_lane(struct hs *hs, struct ctx *ctx, uint64_t user,
                                        struct slice keep)
{
    struct store_rows rows;
    TRY(users_rows(hs, ctx, user, USER_ROW_DEVICE, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        struct slice device_id = slice_from(rows.rows[i].key, 1);
        if (!keep.ptr || !slice_eq(device_id, keep)) {
            TRY(remove_one(hs, ctx, user, device_id));
        }
    }
    return OK;
}

struct err hs_devices_delete_others(struct hs *hs, struct ctx *ctx, uint64_t user,
                                    struct slice keep)
{
    hs_user_lane_enter(hs, user);
    struct err err = delete_others_in_lane(hs, ctx, user, keep);
    hs_user_lane_leave(hs, user);
    return err;
}

/* When a device was seen is no promise to anybody: the reply does not wait for this write. */
struct err hs_device_seen(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                          const struct seen *seen)
{
    uint64_t ticket = ctx->write_ticket;
    struct store_update *update = store_update_new(ctx, users_object(ctx, user));
    struct buf value;
    buf_init_arena(&value, ctx->arena, 1024);
    pack_i64(&value, now_wall_ms(ctx->now));
    pack_bytes(&value, slice_sub(seen->ip, 0, 64));
    pack_bytes(&value, slice_sub(seen->user_agent, 0, 512));
    store_put(update, users_row_key(ctx, USER_ROW_DEVICE_SEEN, device_id), buf_slice(&value));
    struct err err = store_write(hs->store, ctx, &update, 1);
    ctx->write_ticket = ticket;
    return err;
}
