/* Rows of a user's keys, and the one write that all key services share. */
#include "homeserver/service/keys_priv.h"

#include <string.h>

enum { KEY_MAX = 2048 };

struct store_object keys_object(struct ctx *ctx, uint64_t user)
{
    return (struct store_object){.kind = STORE_USER_KEYS, .id = store_id_u64(ctx->arena, user)};
}

void keys_key_begin(struct ctx *ctx, struct buf *key, enum keys_row row)
{
    buf_init_arena(key, ctx->arena, KEY_MAX);
    buf_add_byte(key, (char)row);
}

void keys_key_name(struct buf *key, struct slice name)
{
    ASSERT(name.len <= UINT8_MAX);
    buf_add_byte(key, (char)(unsigned char)name.len);
    buf_add(key, name);
}

struct slice keys_key(struct ctx *ctx, enum keys_row row, struct slice rest)
{
    struct buf key;
    keys_key_begin(ctx, &key, row);
    buf_add(&key, rest);
    return buf_slice(&key);
}

struct slice keys_after(struct ctx *ctx, struct slice prefix)
{
    struct slice copy = arena_copy(ctx->arena, prefix);
    char *bytes = (char *)(uintptr_t)copy.ptr;
    while (copy.len > 0 && (unsigned char)bytes[copy.len - 1] == UINT8_MAX) {
        copy.len--;
    }
    ASSERT(copy.len > 0);
    bytes[copy.len - 1] = (char)((unsigned char)bytes[copy.len - 1] + 1);
    return copy;
}

struct err keys_rows(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice prefix,
                     size_t limit, struct store_rows *rows_out)
{
    struct store_range range = {
        .from = prefix, .to = keys_after(ctx, prefix), .limit = limit, .order = STORE_FORWARD};
    return store_read_range(hs->store, ctx, keys_object(ctx, user), range, rows_out);
}

/* --- writing --- */

struct keys_write keys_write_of(struct hs *hs, struct ctx *ctx, uint64_t user)
{
    return (struct keys_write){.hs = hs,
                               .ctx = ctx,
                               .user = user,
                               .update = store_update_new(ctx, keys_object(ctx, user))};
}

static void *grown(struct ctx *ctx, void *items, size_t *cap, size_t size)
{
    size_t old = *cap;
    *cap = old ? old * 2 : 4;
    return arena_grow(ctx->arena, items, old * size, *cap * size);
}

void keys_write_list(struct keys_write *write, uint64_t user, uint64_t viewer)
{
    if (write->list_count == write->list_cap) {
        write->lists = grown(write->ctx, write->lists, &write->list_cap, sizeof *write->lists);
    }
    write->lists[write->list_count++] = (struct list_change){user, viewer};
}

void keys_write_counts(struct keys_write *write, struct slice device_id)
{
    for (size_t i = 0; i < write->counted_count; i++) {
        if (slice_eq(write->counted[i], device_id)) {
            return;
        }
    }
    if (write->counted_count == write->counted_cap) {
        write->counted =
            grown(write->ctx, write->counted, &write->counted_cap, sizeof *write->counted);
    }
    write->counted[write->counted_count++] = device_id;
}

/* Reserves a position for each change and adds its rows. */
static struct err stage(struct keys_write *write, struct store_update *lists,
                        struct change *changes, size_t *count)
{
    struct ctx *ctx = write->ctx;
    for (size_t i = 0; i < write->counted_count; i++) {
        struct change *change = &changes[(*count)++];
        struct slice device_id = write->counted[i];
        *change = (struct change){.pos = positions_reserve(write->hs->positions),
                                  .kind = CHANGE_KEY_COUNTS,
                                  .user = write->user};
        size_t len =
            device_id.len < sizeof change->device_id ? device_id.len : sizeof change->device_id - 1;
        memcpy(change->device_id, device_id.ptr, len);
        store_put(write->update, keys_key(ctx, KEYS_ROW_COUNTED, device_id),
                  store_id_u64(ctx->arena, change->pos));
    }
    for (size_t i = 0; i < write->list_count; i++) {
        struct list_change listed = write->lists[i];
        changes[*count] = (struct change){.pos = positions_reserve(write->hs->positions),
                                          .kind = CHANGE_DEVICE_KEYS,
                                          .user = listed.viewer ? listed.viewer : listed.user};
        uint64_t pos = changes[(*count)++].pos;
        TRY(lists_put(write->hs, ctx, lists, (struct recent_change){pos, listed}));
    }
    return OK;
}

static void publish(struct keys_write *write, const struct change *changes, size_t count)
{
    for (size_t i = 0; i < write->counted_count; i++) {
        counts_forget(write->hs, write->ctx, write->user, write->counted[i]);
    }
    for (size_t i = 0; i < write->list_count; i++) {
        uint64_t pos = changes[write->counted_count + i].pos;
        recent_add(&write->hs->keys->recent, (struct recent_change){pos, write->lists[i]});
    }
    for (size_t i = 0; i < count; i++) {
        positions_complete(write->hs->positions, &changes[i], write->ctx->write_ticket);
    }
}

/* A write without changes still takes a ticket: the same request may have written just before, and
 * its reply may be lost. The user's keys come first: who learns of a change finds it. */
struct err keys_write_commit(struct keys_write *write)
{
    struct ctx *ctx = write->ctx;
    size_t count = 0;
    struct store_update *updates[] = {write->update, store_update_new(ctx, lists_object(ctx))};
    struct change *changes =
        arena_array(ctx->arena, write->counted_count + write->list_count + 1, sizeof *changes);
    struct err err = stage(write, updates[1], changes, &count);
    if (err.code == 0) {
        err = store_write(write->hs->store, ctx, updates, write->list_count ? 2 : 1);
    }
    if (err.code != 0) {
        for (size_t i = 0; i < count; i++) {
            positions_abandon(write->hs->positions, changes[i].pos);
        }
        return err;
    }
    publish(write, changes, count);
    return OK;
}
