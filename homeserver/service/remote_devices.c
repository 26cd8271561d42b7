#include "homeserver/service/remote_devices.h"

#include "homeserver/service/devices.h"
#include "homeserver/service/keys_priv.h"
#include "homeserver/service/rooms.h"
#include "homeserver/service/users.h"

/* --- how far a list is followed --- */

struct err hs_remote_list_get(struct hs *hs, struct ctx *ctx, uint64_t user,
                              struct remote_list *list_out)
{
    struct slice row;
    *list_out = (struct remote_list){0};
    TRY(store_get(hs->store, ctx, keys_object(ctx, user), keys_key(ctx, KEYS_ROW_FOLLOWED, LIT("")),
                  &row, &list_out->is_followed));
    if (!list_out->is_followed) {
        return OK;
    }
    struct unpack in = unpack_of(row);
    list_out->is_stale = unpack_u64(&in) != 0;
    list_out->stream_id = unpack_u64(&in);
    list_out->news = unpack_u64(&in);
    return unpack_check(&in);
}

static void put_list(struct keys_write *write, const struct remote_list *list)
{
    struct buf row;
    buf_init_arena(&row, write->ctx->arena, 32);
    pack_u64(&row, list->is_stale ? 1 : 0);
    pack_u64(&row, list->stream_id);
    pack_u64(&row, list->news);
    store_put(write->update, keys_key(write->ctx, KEYS_ROW_FOLLOWED, LIT("")), buf_slice(&row));
}

struct err hs_remote_is_shared(struct hs *hs, struct ctx *ctx, uint64_t user, bool *is_out)
{
    struct user_rooms rooms;
    *is_out = false;
    TRY(hs_user_rooms(hs, ctx, user, &rooms));
    for (size_t i = 0; i < rooms.count && !*is_out; i++) {
        struct room *room = NULL;
        if (rooms.items[i].membership != MEMBERSHIP_JOIN) {
            continue;
        }
        struct err err = hs_room_get(hs, ctx, rooms.items[i].room, &room);
        if (err.code == ERR_M_NOT_FOUND) {
            continue;
        }
        TRY(err);
        *is_out = hs_room_is_resident(room);
    }
    return OK;
}

static struct err unfollow_in_lane(struct hs *hs, struct ctx *ctx, uint64_t user)
{
    struct remote_list list;
    TRY(hs_remote_list_get(hs, ctx, user, &list));
    if (!list.is_followed) {
        return OK;
    }
    struct keys_write write = keys_write_of(hs, ctx, user);
    store_delete_range(write.update, LIT(""), LIT(""));
    return keys_write_commit(&write);
}

struct err hs_remote_devices_unfollow(struct hs *hs, struct ctx *ctx, uint64_t user)
{
    bool is_shared = false;
    struct slice user_id;
    TRY(hs_user_id_of(hs, ctx, user, &user_id));
    if (hs_user_is_local(hs, user_id)) {
        return OK;
    }
    TRY(hs_remote_is_shared(hs, ctx, user, &is_shared));
    if (is_shared) {
        return OK;
    }
    hs_user_lane_enter(hs, user);
    struct err err = unfollow_in_lane(hs, ctx, user);
    hs_user_lane_leave(hs, user);
    return err;
}

/* --- rows --- */

/* Spec: client-server, "Device keys": the keys name their user and device. */
static bool keys_fit(const struct remote_device *device, struct slice user_id)
{
    return device->keys && device->keys->type == JSON_OBJECT &&
           slice_eq(json_get_string(device->keys, LIT("user_id")), user_id) &&
           slice_eq(json_get_string(device->keys, LIT("device_id")), device->device_id) &&
           json_check_canonical(device->keys).code == 0;
}

static bool id_fits(struct slice device_id)
{
    return device_id.len > 0 && device_id.len <= DEVICE_ID_BYTES_MAX;
}

/* The name goes where clients look for it. */
static void put_device(struct keys_write *write, const struct remote_device *device,
                       struct slice user_id)
{
    static const struct slice left_out[] = {{"unsigned", 8}};
    struct arena *arena = write->ctx->arena;
    struct slice key = keys_key(write->ctx, KEYS_ROW_DEVICE, device->device_id);
    if (!keys_fit(device, user_id)) {
        store_delete(write->update, key);
        return;
    }
    struct json keys = json_without(arena, device->keys, left_out, 1);
    if (device->display_name.ptr && device->display_name.len <= DEVICE_NAME_BYTES_MAX) {
        struct json more = json_object();
        json_set(arena, &more, LIT("device_display_name"), json_string(device->display_name));
        json_set(arena, &keys, LIT("unsigned"), more);
    }
    struct slice json = json_canonical(arena, &keys);
    if (json.len <= KEYS_KEY_BYTES_MAX) {
        store_put(write->update, key, json);
    } else {
        store_delete(write->update, key);
    }
}

static void put_cross(struct keys_write *write, const char *letter, const struct json *key,
                      struct slice user_id)
{
    bool fits = key && key->type == JSON_OBJECT &&
                slice_eq(json_get_string(key, LIT("user_id")), user_id) &&
                json_get_object(key, LIT("keys")) && json_check_canonical(key).code == 0;
    struct slice json = fits ? json_canonical(write->ctx->arena, key) : (struct slice){0};
    if (fits && json.len <= KEYS_KEY_BYTES_MAX) {
        store_put(write->update, keys_key(write->ctx, KEYS_ROW_CROSS, slice_of(letter)), json);
    }
}

/* --- updates --- */

static bool follows(const struct remote_list *list, const struct json *prev_ids)
{
    bool all = list->is_followed && !list->is_stale && list->stream_id != 0 && prev_ids &&
               prev_ids->count > 0;
    for (uint32_t i = 0; all && i < prev_ids->count; i++) {
        const struct json *id = &prev_ids->items[i];
        all = id->type == JSON_INT && id->integer >= 0 && (uint64_t)id->integer == list->stream_id;
    }
    return all;
}

/* Whoever shares a room asks for the keys anew; they are fetched until the list is whole again. */
static struct err make_stale(struct keys_write *write, struct remote_list *list)
{
    list->is_stale = true;
    list->news++;
    put_list(write, list);
    keys_write_list(write, write->user, 0);
    return keys_write_commit(write);
}

static struct err update_in_lane(struct hs *hs, struct ctx *ctx, const struct remote_update *update,
                                 bool *missed_out)
{
    struct remote_list list;
    struct keys_write write = keys_write_of(hs, ctx, update->user);
    TRY(hs_remote_list_get(hs, ctx, update->user, &list));
    uint64_t stream_id = (uint64_t)update->stream_id;
    bool is_known = list.is_followed && !list.is_stale && stream_id == list.stream_id;
    bool refers = update->prev_ids && update->prev_ids->count > 0;
    *missed_out = false;
    if (is_known && refers) { /* once more */
        return OK;
    }
    if (!follows(&list, update->prev_ids)) {
        *missed_out = true;
        return make_stale(&write, &list);
    }
    list.stream_id = stream_id;
    put_list(&write, &list);
    put_device(&write, &update->device, update->user_id);
    keys_write_list(&write, update->user, 0);
    return keys_write_commit(&write);
}

struct err hs_remote_devices_update(struct hs *hs, struct ctx *ctx,
                                    const struct remote_update *update, bool *missed_out)
{
    if (!id_fits(update->device.device_id) || update->stream_id < 0) {
        return err_make(ERR_M_INVALID_PARAM, "the device id or stream_id is not valid");
    }
    hs_user_lane_enter(hs, update->user);
    struct err err = update_in_lane(hs, ctx, update, missed_out);
    hs_user_lane_leave(hs, update->user);
    return err;
}

static struct err cross_in_lane(struct hs *hs, struct ctx *ctx, const struct remote_cross *cross,
                                bool *missed_out)
{
    struct remote_list list;
    struct keys_write write = keys_write_of(hs, ctx, cross->user);
    TRY(hs_remote_list_get(hs, ctx, cross->user, &list));
    *missed_out = !list.is_followed || list.is_stale;
    if (*missed_out) {
        return make_stale(&write, &list);
    }
    put_cross(&write, "m", cross->master_key, cross->user_id);
    put_cross(&write, "s", cross->self_signing_key, cross->user_id);
    keys_write_list(&write, cross->user, 0);
    return keys_write_commit(&write);
}

struct err hs_remote_cross_update(struct hs *hs, struct ctx *ctx, const struct remote_cross *cross,
                                  bool *missed_out)
{
    hs_user_lane_enter(hs, cross->user);
    struct err err = cross_in_lane(hs, ctx, cross, missed_out);
    hs_user_lane_leave(hs, cross->user);
    return err;
}

/* --- the whole list --- */

static struct err replace_in_lane(struct hs *hs, struct ctx *ctx, const struct remote_whole *whole,
                                  bool *kept_out)
{
    struct remote_list list;
    uint64_t user = whole->cross.user;
    struct keys_write write = keys_write_of(hs, ctx, user);
    TRY(hs_remote_list_get(hs, ctx, user, &list));
    *kept_out = list.news == whole->asked.news && list.stream_id == whole->asked.stream_id &&
                list.is_followed == whole->asked.is_followed;
    if (!*kept_out) {
        return OK;
    }
    struct slice devices = keys_key(ctx, KEYS_ROW_DEVICE, LIT(""));
    struct slice crosses = keys_key(ctx, KEYS_ROW_CROSS, LIT(""));
    store_delete_range(write.update, devices, keys_after(ctx, devices));
    store_delete_range(write.update, crosses, keys_after(ctx, crosses));
    for (size_t i = 0; i < whole->count; i++) {
        if (id_fits(whole->devices[i].device_id)) {
            put_device(&write, &whole->devices[i], whole->cross.user_id);
        }
    }
    put_cross(&write, "m", whole->cross.master_key, whole->cross.user_id);
    put_cross(&write, "s", whole->cross.self_signing_key, whole->cross.user_id);
    list.is_stale = false;
    list.stream_id = whole->stream_id > 0 ? (uint64_t)whole->stream_id : 0;
    put_list(&write, &list);
    return keys_write_commit(&write);
}

struct err hs_remote_devices_replace(struct hs *hs, struct ctx *ctx,
                                     const struct remote_whole *whole, bool *kept_out)
{
    bool is_shared = false;
    *kept_out = false;
    TRY(hs_remote_is_shared(hs, ctx, whole->cross.user, &is_shared));
    if (!is_shared || whole->count > REMOTE_DEVICES_MAX) {
        *kept_out = !is_shared;
        return OK;
    }
    hs_user_lane_enter(hs, whole->cross.user);
    struct err err = replace_in_lane(hs, ctx, whole, kept_out);
    hs_user_lane_leave(hs, whole->cross.user);
    return err;
}
