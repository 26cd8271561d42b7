#include "homeserver/service/dehydrated.h"

#include "homeserver/service/devices.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/users.h"

/* The row of a user. `passing` are devices that are no longer, or not yet, the one: being made or
 * deleted when something failed; the next change deletes them. */
struct row {
    struct dehydrated present; /* device_id.len 0 = none */
    struct slice passing[2];
};

static const struct slice row_key = {(const char[]){USER_ROW_DEHYDRATED}, 1};

static struct err load(struct hs *hs, struct ctx *ctx, uint64_t user, struct row *row_out)
{
    struct slice value;
    bool found = false;
    *row_out = (struct row){0};
    TRY(store_get(hs->store, ctx, user_object(ctx, user), row_key, &value, &found));
    if (!found) {
        return OK;
    }
    struct unpack in = unpack_of(value);
    row_out->present.device_id = unpack_bytes(&in);
    row_out->present.data = unpack_bytes(&in);
    row_out->passing[0] = unpack_bytes(&in);
    row_out->passing[1] = unpack_bytes(&in);
    return unpack_check(&in);
}

static struct err save(struct hs *hs, struct ctx *ctx, uint64_t user, const struct row *row)
{
    struct store_update *update = store_update_new(ctx, user_object(ctx, user));
    struct buf value;
    buf_init_arena(&value, ctx->arena, SIZE_MAX / 2);
    pack_bytes(&value, row->present.device_id);
    pack_bytes(&value, row->present.data);
    pack_bytes(&value, row->passing[0]);
    pack_bytes(&value, row->passing[1]);
    store_put(update, row_key, buf_slice(&value));
    return store_write(hs->store, ctx, &update, 1);
}

/* Deletes the devices that are passing, and notes that they are gone. */
static struct err clear_passing(struct hs *hs, struct ctx *ctx, uint64_t user, struct row *row)
{
    struct slice gone[2];
    size_t count = 0;
    for (size_t i = 0; i < COUNT_OF(row->passing); i++) {
        if (row->passing[i].len > 0) {
            gone[count++] = row->passing[i];
        }
    }
    if (count == 0) {
        return OK;
    }
    TRY(hs_devices_delete(hs, ctx, user, gone, count));
    row->passing[0] = row->passing[1] = (struct slice){0};
    return save(hs, ctx, user, row);
}

static struct err check_free(struct hs *hs, struct ctx *ctx, const struct key_upload *keys)
{
    struct device device;
    bool found = false;
    TRY(hs_device_get(hs, ctx, keys->user, keys->device_id, &device, &found));
    return found ? err_public(ERR_M_INVALID_PARAM, "Another device of yours has this id.") : OK;
}

/* The device is made aside, with its keys; only a whole one takes the place of the one before. */
static struct err put_in_lane(struct hs *hs, struct ctx *ctx, const struct dehydrated_draft *draft)
{
    struct row row;
    uint64_t user = draft->keys.user;
    TRY(load(hs, ctx, user, &row));
    TRY(clear_passing(hs, ctx, user, &row));
    if (slice_eq(row.present.device_id, draft->keys.device_id)) {
        row = (struct row){.passing = {row.present.device_id}};
        TRY(save(hs, ctx, user, &row));
        TRY(clear_passing(hs, ctx, user, &row));
    }
    TRY(check_free(hs, ctx, &draft->keys));
    row.passing[0] = draft->keys.device_id;
    TRY(save(hs, ctx, user, &row));
    TRY(hs_device_create(hs, ctx, user, draft->keys.device_id, draft->display_name));
    struct err err = hs_keys_upload(hs, ctx, &draft->keys);
    if (err.code != 0) {
        TRY(clear_passing(hs, ctx, user, &row));
        return err;
    }
    row.passing[0] = row.present.device_id;
    row.present = (struct dehydrated){.device_id = draft->keys.device_id,
                                      .data = json_canonical(ctx->arena, draft->data)};
    TRY(save(hs, ctx, user, &row));
    return clear_passing(hs, ctx, user, &row);
}

struct err hs_dehydrated_put(struct hs *hs, struct ctx *ctx, const struct dehydrated_draft *draft)
{
    hs_user_lane_enter(hs, draft->keys.user);
    struct err err = put_in_lane(hs, ctx, draft);
    hs_user_lane_leave(hs, draft->keys.user);
    return err;
}

/* It may have been deleted by the ways of other devices. */
struct err hs_dehydrated_get(struct hs *hs, struct ctx *ctx, uint64_t user,
                             struct dehydrated *device_out, bool *found_out)
{
    struct row row;
    struct device device;
    *found_out = false;
    TRY(load(hs, ctx, user, &row));
    *device_out = row.present;
    return row.present.device_id.len == 0
               ? OK
               : hs_device_get(hs, ctx, user, row.present.device_id, &device, found_out);
}

static struct err delete_in_lane(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 struct slice *device_id_out, bool *found_out)
{
    struct row row;
    struct dehydrated present;
    TRY(hs_dehydrated_get(hs, ctx, user, &present, found_out));
    TRY(load(hs, ctx, user, &row));
    TRY(clear_passing(hs, ctx, user, &row));
    if (!*found_out) {
        return OK;
    }
    *device_id_out = present.device_id;
    row = (struct row){.passing = {present.device_id}};
    TRY(save(hs, ctx, user, &row));
    return clear_passing(hs, ctx, user, &row);
}

struct err hs_dehydrated_delete(struct hs *hs, struct ctx *ctx, uint64_t user,
                                struct slice *device_id_out, bool *found_out)
{
    hs_user_lane_enter(hs, user);
    struct err err = delete_in_lane(hs, ctx, user, device_id_out, found_out);
    hs_user_lane_leave(hs, user);
    return err;
}
