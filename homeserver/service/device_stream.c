#include "homeserver/service/device_stream.h"

#include "crypto/sha256.h"
#include "homeserver/service/cross_signing.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/keys_priv.h"

/* Keys of (STORE_DEVICE_CHANGES, user): "s" number of the last update; "d" device id, "c" -> hash
 * of what was told. */

static struct store_object told_object(struct ctx *ctx, uint64_t user)
{
    return (struct store_object){.kind = STORE_DEVICE_CHANGES,
                                 .id = store_id_u64(ctx->arena, user)};
}

static struct slice hash_of(struct ctx *ctx, struct slice a, struct slice b)
{
    struct buf text;
    buf_init_arena(&text, ctx->arena, SIZE_MAX / 2);
    pack_bytes(&text, a);
    buf_add_byte(&text, b.ptr ? 1 : 0);
    pack_bytes(&text, b);
    struct sha256 hash = sha256_of(buf_slice(&text));
    return arena_copy(ctx->arena, (struct slice){(const char *)hash.bytes, sizeof hash.bytes});
}

static struct err read_cross(struct hs *hs, struct ctx *ctx, uint64_t user, enum cross_key key,
                             struct slice *json_out)
{
    bool found = false;
    struct cross_view view = {.user = user, .key = key};
    *json_out = (struct slice){0};
    return hs_cross_signing_get(hs, ctx, view, json_out, &found);
}

static struct slice name_of(const struct devices *devices, struct slice device_id)
{
    for (size_t i = 0; i < devices->count; i++) {
        if (slice_eq(devices->items[i].device_id, device_id)) {
            return devices->items[i].display_name;
        }
    }
    return (struct slice){0};
}

static struct err read_stream_id(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t *id_out)
{
    struct slice row;
    bool found = false;
    *id_out = 0;
    TRY(store_get(hs->store, ctx, told_object(ctx, user), LIT("s"), &row, &found));
    struct unpack in = unpack_of(row);
    *id_out = found ? unpack_u64(&in) : 0;
    return found ? unpack_check(&in) : OK;
}

static bool is_listed(const struct device_stream_state *state, struct slice device_id)
{
    for (size_t i = 0; i < state->count; i++) {
        if (slice_eq(state->items[i].device_id, device_id)) {
            return true;
        }
    }
    return false;
}

/* The number is read first: an update that comes meanwhile is told again, never left out. */
struct err hs_device_stream_state(struct hs *hs, struct ctx *ctx, uint64_t user,
                                  struct device_stream_state *state_out)
{
    struct store_rows rows;
    struct devices devices = {0};
    struct device_stream_state state = {0};
    TRY(read_stream_id(hs, ctx, user, &state.stream_id));
    TRY(keys_rows(hs, ctx, user, keys_key(ctx, KEYS_ROW_DEVICE, LIT("")), 0, &rows));
    TRY(hs_devices_list(hs, ctx, user, &devices));
    state.items = arena_array(ctx->arena, rows.count + devices.count + 1, sizeof *state.items);
    for (size_t i = 0; i < rows.count; i++) {
        struct slice device_id = slice_from(rows.rows[i].key, 1);
        state.items[state.count++] =
            (struct device_news){.device_id = device_id,
                                 .display_name = name_of(&devices, device_id),
                                 .keys = rows.rows[i].value};
    }
    for (size_t i = 0; i < devices.count; i++) {
        const struct device *device = &devices.items[i];
        if (!is_listed(&state, device->device_id)) {
            state.items[state.count++] = (struct device_news){.device_id = device->device_id,
                                                              .display_name = device->display_name};
        }
    }
    TRY(read_cross(hs, ctx, user, CROSS_MASTER, &state.master_key));
    TRY(read_cross(hs, ctx, user, CROSS_SELF_SIGNING, &state.self_signing_key));
    *state_out = state;
    return OK;
}

/* --- the difference to what was told --- */

struct telling {
    struct hs *hs;
    struct ctx *ctx;
    struct device_stream_state now;
    struct store_rows told;
    struct device_stream_news *news;
    uint64_t stream_id;
};

static struct slice told_hash(const struct telling *t, struct slice key)
{
    for (size_t i = 0; i < t->told.count; i++) {
        if (slice_eq(t->told.rows[i].key, key)) {
            return t->told.rows[i].value;
        }
    }
    return (struct slice){0};
}

static void add_news(struct telling *t, struct device_news news)
{
    news.prev_id = t->stream_id;
    news.stream_id = ++t->stream_id;
    t->news->items[t->news->count++] = news;
}

static void tell_present(struct telling *t)
{
    for (size_t i = 0; i < t->now.count; i++) {
        const struct device_news *device = &t->now.items[i];
        struct slice key = arena_concat(t->ctx->arena, LIT("d"), device->device_id);
        struct slice hash = hash_of(t->ctx, device->keys, device->display_name);
        if (!slice_eq(hash, told_hash(t, key))) {
            add_news(t, *device);
            store_put(t->news->told, key, hash);
        }
    }
}

static bool is_present(const struct telling *t, struct slice device_id)
{
    for (size_t i = 0; i < t->now.count; i++) {
        if (slice_eq(t->now.items[i].device_id, device_id)) {
            return true;
        }
    }
    return false;
}

static void tell_gone(struct telling *t)
{
    for (size_t i = 0; i < t->told.count; i++) {
        struct slice key = t->told.rows[i].key;
        struct slice device_id = slice_from(key, 1);
        if (key.ptr[0] == 'd' && !is_present(t, device_id)) {
            add_news(t, (struct device_news){.device_id = device_id, .is_gone = true});
            store_delete(t->news->told, key);
        }
    }
}

static void tell_cross(struct telling *t)
{
    bool none = t->now.master_key.len == 0 && t->now.self_signing_key.len == 0;
    struct slice before = told_hash(t, LIT("c"));
    struct slice hash = hash_of(t->ctx, t->now.master_key, t->now.self_signing_key);
    if (slice_eq(before, hash) || (none && before.len == 0)) {
        return;
    }
    t->news->cross_changed = true;
    t->news->master_key = t->now.master_key;
    t->news->self_signing_key = t->now.self_signing_key;
    store_put(t->news->told, LIT("c"), hash);
}

struct err hs_device_stream_next(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 struct device_stream_news *news_out)
{
    struct telling t = {.hs = hs, .ctx = ctx, .news = news_out};
    *news_out = (struct device_stream_news){0};
    TRY(hs_device_stream_state(hs, ctx, user, &t.now));
    TRY(store_read_range(hs->store, ctx, told_object(ctx, user), (struct store_range){0}, &t.told));
    t.stream_id = t.now.stream_id;
    news_out->told = store_update_new(ctx, told_object(ctx, user));
    news_out->items =
        arena_array(ctx->arena, t.now.count + t.told.count + 1, sizeof *news_out->items);
    tell_present(&t);
    tell_gone(&t);
    tell_cross(&t);
    if (news_out->count > 0) {
        struct buf row;
        buf_init_arena(&row, ctx->arena, 16);
        pack_u64(&row, t.stream_id);
        store_put(news_out->told, LIT("s"), buf_slice(&row));
    }
    return OK;
}
