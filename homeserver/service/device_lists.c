/* The stream of device list changes. Only the newest change of a user stands in it: whoever asks
 * for an older one finds the newer one as soon as that is published.
 * Spec: client-server, "Tracking the device list for a user". */
#include "homeserver/base/mem.h"
#include "homeserver/service/keys_priv.h"

#include <stdlib.h>

/* --- the newest ones in memory --- */

void recent_init(struct recent_changes *recent, uint64_t floor)
{
    pthread_mutex_init(&recent->lock, NULL);
    recent->items = mem_alloc(KEYS_RECENT_MAX * sizeof *recent->items);
    recent->floor = floor;
}

void recent_deinit(struct recent_changes *recent)
{
    mem_free(recent->items);
    pthread_mutex_destroy(&recent->lock);
}

static struct recent_change *item(struct recent_changes *recent, size_t index)
{
    return &recent->items[(recent->first + index) % KEYS_RECENT_MAX];
}

/* Changes come nearly in order: the place is near the end. */
void recent_add(struct recent_changes *recent, struct recent_change change)
{
    pthread_mutex_lock(&recent->lock);
    if (recent->count == KEYS_RECENT_MAX) {
        recent->floor = item(recent, 0)->pos;
        recent->first = (recent->first + 1) % KEYS_RECENT_MAX;
        recent->count--;
    }
    if (change.pos > recent->floor) {
        size_t at = recent->count++;
        while (at > 0 && item(recent, at - 1)->pos > change.pos) {
            *item(recent, at) = *item(recent, at - 1);
            at--;
        }
        *item(recent, at) = change;
    }
    pthread_mutex_unlock(&recent->lock);
}

static bool is_for(struct list_change change, uint64_t viewer)
{
    return change.viewer == 0 || change.viewer == viewer;
}

static size_t first_after(struct recent_changes *recent, uint64_t since)
{
    size_t low = 0;
    size_t high = recent->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (item(recent, middle)->pos > since) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

/* False when memory does not reach back to `since`. */
static bool recent_read(struct recent_changes *recent, struct ctx *ctx, struct change_window window,
                        uint64_t **users_out, size_t *count_out)
{
    pthread_mutex_lock(&recent->lock);
    bool known = window.since >= recent->floor;
    if (known) {
        size_t from = first_after(recent, window.since);
        size_t to = first_after(recent, window.upto);
        *users_out = arena_array(ctx->arena, to - from + 1, sizeof **users_out);
        for (size_t i = from; i < to; i++) {
            if (is_for(item(recent, i)->change, window.viewer)) {
                (*users_out)[(*count_out)++] = item(recent, i)->change.user;
            }
        }
    }
    pthread_mutex_unlock(&recent->lock);
    return known;
}

/* --- the stored stream --- */

struct store_object lists_object(struct ctx *ctx)
{
    return (struct store_object){.kind = STORE_DEVICE_CHANGES, .id = store_id_u64(ctx->arena, 0)};
}

struct slice lists_key_pos(struct ctx *ctx, uint64_t pos)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, 32);
    buf_add_byte(&key, LISTS_ROW_BY_POS);
    pack_be64(&key, pos);
    return buf_slice(&key);
}

struct slice lists_key_user(struct ctx *ctx, struct list_change change)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, 32);
    buf_add_byte(&key, LISTS_ROW_BY_USER);
    pack_be64(&key, change.user);
    pack_be64(&key, change.viewer);
    return buf_slice(&key);
}

struct slice lists_encode(struct ctx *ctx, struct list_change change)
{
    struct buf value;
    buf_init_arena(&value, ctx->arena, 32);
    pack_u64(&value, change.user);
    pack_u64(&value, change.viewer);
    return buf_slice(&value);
}

struct err lists_decode(struct slice row, struct list_change *change_out)
{
    struct unpack in = unpack_of(row);
    change_out->user = unpack_u64(&in);
    change_out->viewer = unpack_u64(&in);
    return unpack_check(&in);
}

struct err lists_put(struct hs *hs, struct ctx *ctx, struct store_update *update,
                     struct recent_change change)
{
    struct slice by_user = lists_key_user(ctx, change.change);
    struct slice older;
    bool found = false;
    TRY(store_get(hs->store, ctx, lists_object(ctx), by_user, &older, &found));
    if (found) {
        store_delete(update, arena_concat(ctx->arena, LIT("p"), older));
    }
    store_put(update, lists_key_pos(ctx, change.pos), lists_encode(ctx, change.change));
    store_put(update, by_user, store_id_u64(ctx->arena, change.pos));
    return OK;
}

static struct err stored_read(struct hs *hs, struct ctx *ctx, struct change_window window,
                              uint64_t **users_out, size_t *count_out)
{
    struct store_rows rows;
    struct store_range range = {.from = lists_key_pos(ctx, window.since + 1),
                                .to = lists_key_pos(ctx, window.upto + 1)};
    TRY(store_read_range(hs->store, ctx, lists_object(ctx), range, &rows));
    *users_out = arena_array(ctx->arena, rows.count + 1, sizeof **users_out);
    for (size_t i = 0; i < rows.count; i++) {
        struct list_change change;
        TRY(lists_decode(rows.rows[i].value, &change));
        if (is_for(change, window.viewer)) {
            (*users_out)[(*count_out)++] = change.user;
        }
    }
    return OK;
}

/* --- public --- */

static int by_number(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static size_t sorted_once(uint64_t *users, size_t count)
{
    size_t kept = 0;
    if (count > 1) {
        qsort(users, count, sizeof *users, by_number);
    }
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || users[kept - 1] != users[i]) {
            users[kept++] = users[i];
        }
    }
    return kept;
}

struct err hs_device_changes_for(struct hs *hs, struct ctx *ctx, struct change_window window,
                                 uint64_t **users_out, size_t *count_out)
{
    *users_out = NULL;
    *count_out = 0;
    if (window.upto <= window.since) {
        return OK;
    }
    if (!recent_read(&hs->keys->recent, ctx, window, users_out, count_out)) {
        TRY(stored_read(hs, ctx, window, users_out, count_out));
    }
    *count_out = sorted_once(*users_out, *count_out);
    return OK;
}

struct err hs_device_changes(struct hs *hs, struct ctx *ctx, uint64_t since, uint64_t upto,
                             uint64_t **users_out, size_t *count_out)
{
    struct change_window window = {.since = since, .upto = upto};
    return hs_device_changes_for(hs, ctx, window, users_out, count_out);
}

struct err hs_device_list_changed(struct hs *hs, struct ctx *ctx, uint64_t user)
{
    struct keys_write write = keys_write_of(hs, ctx, user);
    keys_write_list(&write, user, 0);
    return keys_write_commit(&write);
}
