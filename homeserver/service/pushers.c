#include "homeserver/service/pushers.h"

#include "homeserver/service/devices.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/users.h"

static const struct store_object by_key = {STORE_SERVER, {"pushers", 7}};

/* No name is the beginning of another. */
static struct slice name_of(struct ctx *ctx, struct slice app_id, struct slice pushkey)
{
    struct buf name;
    buf_init_arena(&name, ctx->arena, SIZE_MAX / 2);
    pack_bytes(&name, app_id);
    pack_bytes(&name, pushkey);
    return buf_slice(&name);
}

static struct slice index_key(struct ctx *ctx, struct slice name, uint64_t user)
{
    return arena_concat(ctx->arena, name, store_id_u64(ctx->arena, user));
}

static struct err decode(struct store_row row, struct pusher *pusher_out)
{
    struct unpack name = unpack_of(slice_from(row.key, 1));
    struct unpack in = unpack_of(row.value);
    pusher_out->app_id = unpack_bytes(&name);
    pusher_out->pushkey = unpack_bytes(&name);
    pusher_out->device_id = unpack_bytes(&in);
    pusher_out->json = in.rest;
    TRY(unpack_check(&name));
    return unpack_check(&in);
}

static struct err remove_row(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice name)
{
    struct store_update *updates[] = {store_update_new(ctx, user_object(ctx, user)),
                                      store_update_new(ctx, by_key)};
    store_delete(updates[0], key_bytes(ctx, USER_ROW_PUSHER, name));
    store_delete(updates[1], index_key(ctx, name, user));
    return store_write(hs->store, ctx, updates, COUNT_OF(updates));
}

static struct err put_in_lane(struct hs *hs, struct ctx *ctx, uint64_t user,
                              const struct pusher *pusher)
{
    struct pushers present;
    bool is_new = true;
    TRY(hs_pushers_list(hs, ctx, user, &present));
    for (size_t i = 0; i < present.count; i++) {
        is_new = is_new && !(slice_eq(present.items[i].app_id, pusher->app_id) &&
                             slice_eq(present.items[i].pushkey, pusher->pushkey));
    }
    if (is_new && present.count >= PUSHERS_OF_USER_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "There are too many pushers; remove some first.");
    }
    struct slice name = name_of(ctx, pusher->app_id, pusher->pushkey);
    struct store_update *updates[] = {store_update_new(ctx, user_object(ctx, user)),
                                      store_update_new(ctx, by_key)};
    struct buf row;
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    pack_bytes(&row, pusher->device_id);
    buf_add(&row, pusher->json);
    store_put(updates[0], key_bytes(ctx, USER_ROW_PUSHER, name), buf_slice(&row));
    store_put(updates[1], index_key(ctx, name, user), (struct slice){0});
    return store_write(hs->store, ctx, updates, COUNT_OF(updates));
}

/* A key that came to another user's device no longer speaks for the one before. */
static struct err remove_others(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice name)
{
    struct store_rows rows;
    struct store_range range = {.from = index_key(ctx, name, 0),
                                .to = index_key(ctx, name, UINT64_MAX)};
    TRY(store_read_range(hs->store, ctx, by_key, range, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack in = unpack_of(slice_from(rows.rows[i].key, name.len));
        uint64_t other = unpack_be64(&in);
        TRY(unpack_check(&in));
        if (other != user) {
            hs_user_lane_enter(hs, other);
            struct err err = remove_row(hs, ctx, other, name);
            hs_user_lane_leave(hs, other);
            TRY(err);
        }
    }
    return OK;
}

struct err hs_pusher_set(struct hs *hs, struct ctx *ctx, uint64_t user, const struct pusher *pusher,
                         enum pusher_mode mode)
{
    hs_user_lane_enter(hs, user);
    struct err err = put_in_lane(hs, ctx, user, pusher);
    hs_user_lane_leave(hs, user);
    TRY(err);
    return mode == PUSHER_REPLACE
               ? remove_others(hs, ctx, user, name_of(ctx, pusher->app_id, pusher->pushkey))
               : OK;
}

struct err hs_pusher_delete(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice app_id,
                            struct slice pushkey)
{
    hs_user_lane_enter(hs, user);
    struct err err = remove_row(hs, ctx, user, name_of(ctx, app_id, pushkey));
    hs_user_lane_leave(hs, user);
    return err;
}

struct err hs_pushers_list(struct hs *hs, struct ctx *ctx, uint64_t user,
                           struct pushers *pushers_out)
{
    struct store_rows rows;
    struct store_range range = {.from = key_bytes(ctx, USER_ROW_PUSHER, (struct slice){0}),
                                .to = key_bytes(ctx, USER_ROW_PUSHER + 1, (struct slice){0})};
    struct pushers pushers = {0};
    TRY(store_read_range(hs->store, ctx, user_object(ctx, user), range, &rows));
    pushers.items = arena_array(ctx->arena, rows.count, sizeof *pushers.items);
    for (; pushers.count < rows.count; pushers.count++) {
        TRY(decode(rows.rows[pushers.count], &pushers.items[pushers.count]));
    }
    *pushers_out = pushers;
    return OK;
}

/* In the account's lane. */
static struct err remove_with_device(struct hs *hs, struct ctx *ctx, uint64_t user,
                                     struct slice device_id)
{
    struct pushers pushers;
    TRY(hs_pushers_list(hs, ctx, user, &pushers));
    for (size_t i = 0; i < pushers.count; i++) {
        const struct pusher *pusher = &pushers.items[i];
        if (slice_eq(pusher->device_id, device_id)) {
            TRY(remove_row(hs, ctx, user, name_of(ctx, pusher->app_id, pusher->pushkey)));
        }
    }
    return OK;
}

void hs_pushers_hook(struct hs *hs)
{
    hs_on_device_removed(hs, remove_with_device);
}
