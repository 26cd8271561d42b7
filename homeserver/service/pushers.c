#include "homeserver/service/pushers.h"

#include "homeserver/base/mem.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/push_queue.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/users.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const struct store_object by_key = {STORE_SERVER, {"pushers", 7}};

/* Begins a row's value behind the device; older rows have the JSON there. */
enum { ROW_VERSION = 1, FEW = 64 };

/* --- who has pushers --- */

struct hs_pushers {
    pthread_mutex_t lock; /* a leaf */
    struct map *users;    /* number -> how many */
};

struct hs_pushers *hs_pushers_new(struct hs *hs)
{
    struct hs_pushers *pushers = mem_alloc(sizeof *pushers);
    (void)hs;
    pthread_mutex_init(&pushers->lock, NULL);
    pushers->users = map_new();
    return pushers;
}

void hs_pushers_free(struct hs_pushers **pushers)
{
    if (*pushers) {
        map_free(&(*pushers)->users);
        pthread_mutex_destroy(&(*pushers)->lock);
        mem_free(*pushers);
        *pushers = NULL;
    }
}

/* In the account's lane; a program that does not serve has no use for it. */
static void note_count(struct hs *hs, uint64_t user, size_t count)
{
    if (!hs->pushers) {
        return;
    }
    pthread_mutex_lock(&hs->pushers->lock);
    if (count) {
        map_set(hs->pushers->users, map_key_u64(&user), count);
    } else {
        map_remove(hs->pushers->users, map_key_u64(&user));
    }
    pthread_mutex_unlock(&hs->pushers->lock);
}

bool hs_pushers_any(struct hs *hs)
{
    pthread_mutex_lock(&hs->pushers->lock);
    bool any = map_count(hs->pushers->users) > 0;
    pthread_mutex_unlock(&hs->pushers->lock);
    return any;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Lock held. Few have pushers, and many stand in the list. */
static size_t keep_few(const struct hs_pushers *pushers, uint64_t *users, size_t count)
{
    uint64_t kept[FEW];
    size_t cursor = 0, kept_count = 0;
    struct slice key;
    uint64_t user = 0, value = 0;
    while (map_next(pushers->users, &cursor, &key, &value)) {
        memcpy(&user, key.ptr, sizeof user);
        if (bsearch(&user, users, count, sizeof user, compare)) {
            kept[kept_count++] = user;
        }
    }
    qsort(kept, kept_count, sizeof *kept, compare);
    if (kept_count) {
        memcpy(users, kept, kept_count * sizeof *kept);
    }
    return kept_count;
}

size_t hs_pushers_keep(struct hs *hs, uint64_t *users, size_t count)
{
    size_t kept = 0;
    uint64_t value = 0;
    pthread_mutex_lock(&hs->pushers->lock);
    if (map_count(hs->pushers->users) <= FEW && count > FEW) {
        kept = keep_few(hs->pushers, users, count);
        count = 0;
    }
    for (size_t i = 0; i < count; i++) {
        if (map_get(hs->pushers->users, map_key_u64(&users[i]), &value)) {
            users[kept++] = users[i];
        }
    }
    pthread_mutex_unlock(&hs->pushers->lock);
    return kept;
}

size_t hs_pushers_users(struct hs *hs, struct ctx *ctx, uint64_t **users_out)
{
    size_t cursor = 0, count = 0;
    struct slice key;
    uint64_t value = 0;
    pthread_mutex_lock(&hs->pushers->lock);
    *users_out = arena_array(ctx->arena, map_count(hs->pushers->users) + 1, sizeof **users_out);
    while (map_next(hs->pushers->users, &cursor, &key, &value)) {
        memcpy(&(*users_out)[count++], key.ptr, sizeof **users_out);
    }
    pthread_mutex_unlock(&hs->pushers->lock);
    return count;
}

struct err hs_pushers_load(struct hs *hs, struct ctx *ctx)
{
    struct store_rows rows;
    TRY(store_read_range(hs->store, ctx, by_key, (struct store_range){0}, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        struct slice key = rows.rows[i].key;
        if (key.len <= sizeof(uint64_t)) {
            return err_make(ERR_CORRUPT, "a row of the index of pushers is too short");
        }
        struct unpack in = unpack_of(slice_from(key, key.len - sizeof(uint64_t)));
        uint64_t user = unpack_be64(&in), count = 0;
        map_get(hs->pushers->users, map_key_u64(&user), &count);
        map_set(hs->pushers->users, map_key_u64(&user), count + 1);
    }
    return OK;
}

/* --- rows --- */

struct slice hs_pusher_name(struct ctx *ctx, struct slice app_id, struct slice pushkey)
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
    *pusher_out = (struct pusher){.device_id = unpack_bytes(&in)};
    if (in.rest.len > 0 && in.rest.ptr[0] == ROW_VERSION) {
        in.rest = slice_from(in.rest, 1);
        pusher_out->set_ms = unpack_i64(&in);
        pusher_out->ack_token = unpack_bytes(&in);
        pusher_out->ack_until_ms = unpack_i64(&in);
    }
    pusher_out->app_id = unpack_bytes(&name);
    pusher_out->pushkey = unpack_bytes(&name);
    pusher_out->json = in.rest;
    TRY(unpack_check(&name));
    return unpack_check(&in);
}

/* In the account's lane. */
static struct err remove_row(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice name)
{
    struct store_update *updates[] = {store_update_new(ctx, user_object(ctx, user)),
                                      store_update_new(ctx, by_key), hs_push_update(ctx, user)};
    struct pushers left;
    store_delete(updates[0], key_bytes(ctx, USER_ROW_PUSHER, name));
    store_delete(updates[1], index_key(ctx, name, user));
    hs_push_forget(ctx, updates[2], name);
    TRY(store_write(hs->store, ctx, updates, COUNT_OF(updates)));
    TRY(hs_pushers_list(hs, ctx, user, &left));
    note_count(hs, user, left.count);
    return OK;
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
    struct slice name = hs_pusher_name(ctx, pusher->app_id, pusher->pushkey);
    struct store_update *updates[] = {store_update_new(ctx, user_object(ctx, user)),
                                      store_update_new(ctx, by_key)};
    struct buf row;
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    pack_bytes(&row, pusher->device_id);
    buf_add_byte(&row, ROW_VERSION);
    pack_i64(&row, pusher->set_ms);
    pack_bytes(&row, pusher->ack_token);
    pack_i64(&row, pusher->ack_until_ms);
    buf_add(&row, pusher->json);
    store_put(updates[0], key_bytes(ctx, USER_ROW_PUSHER, name), buf_slice(&row));
    store_put(updates[1], index_key(ctx, name, user), (struct slice){0});
    TRY(store_write(hs->store, ctx, updates, COUNT_OF(updates)));
    note_count(hs, user, present.count + (is_new ? 1 : 0));
    return OK;
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
               ? remove_others(hs, ctx, user, hs_pusher_name(ctx, pusher->app_id, pusher->pushkey))
               : OK;
}

struct err hs_pusher_delete(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice app_id,
                            struct slice pushkey)
{
    hs_user_lane_enter(hs, user);
    struct err err = remove_row(hs, ctx, user, hs_pusher_name(ctx, app_id, pushkey));
    hs_user_lane_leave(hs, user);
    return err;
}

/* In the account's lane. */
static struct err delete_if_old(struct hs *hs, struct ctx *ctx, uint64_t user,
                                const struct pusher *pusher)
{
    struct slice name = hs_pusher_name(ctx, pusher->app_id, pusher->pushkey);
    struct pusher present;
    bool found = false;
    TRY(hs_pusher_get(hs, ctx, user, name, &present, &found));
    return found && present.set_ms == pusher->set_ms ? remove_row(hs, ctx, user, name) : OK;
}

struct err hs_pusher_delete_old(struct hs *hs, struct ctx *ctx, uint64_t user,
                                const struct pusher *pusher)
{
    hs_user_lane_enter(hs, user);
    struct err err = delete_if_old(hs, ctx, user, pusher);
    hs_user_lane_leave(hs, user);
    return err;
}

struct err hs_pusher_get(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice name,
                         struct pusher *pusher_out, bool *found_out)
{
    struct store_row row = {.key = key_bytes(ctx, USER_ROW_PUSHER, name)};
    TRY(store_get(hs->store, ctx, user_object(ctx, user), row.key, &row.value, found_out));
    return *found_out ? decode(row, pusher_out) : OK;
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
            TRY(remove_row(hs, ctx, user, hs_pusher_name(ctx, pusher->app_id, pusher->pushkey)));
        }
    }
    return OK;
}

void hs_pushers_hook(struct hs *hs)
{
    hs_on_device_removed(hs, remove_with_device);
}
