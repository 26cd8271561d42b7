#include "homeserver/service/thread_subs.h"

#include "homeserver/service/room_priv.h"
#include "homeserver/service/users.h"

#include <stdlib.h>

static struct slice row_key(struct ctx *ctx, uint64_t room, struct slice root)
{
    return arena_concat(ctx->arena, key_u64(ctx, USER_ROW_THREAD, room), root);
}

static struct slice encode(struct ctx *ctx, const struct thread_sub *sub)
{
    struct buf row;
    buf_init_arena(&row, ctx->arena, 64);
    pack_u64(&row, sub->pos);
    pack_u64(&row, sub->subscribed);
    pack_u64(&row, sub->automatic);
    pack_i64(&row, sub->unsubscribed_at);
    return buf_slice(&row);
}

/* `key` is the row's. */
static struct err load(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice key,
                       struct thread_sub *sub_out, bool *found_out)
{
    struct user_row_of_room row;
    TRY(user_row_of_room_load(hs, ctx, user, key, &row, found_out));
    if (!*found_out) {
        return OK;
    }
    *sub_out = (struct thread_sub){.room = row.room, .root = row.name};
    sub_out->pos = unpack_u64(&row.value);
    sub_out->subscribed = unpack_u64(&row.value) != 0;
    sub_out->automatic = unpack_u64(&row.value) != 0;
    sub_out->unsubscribed_at = unpack_i64(&row.value);
    return unpack_check(&row.value);
}

struct err hs_thread_sub_get(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t room,
                             struct slice root, struct thread_sub *sub_out, bool *found_out)
{
    return load(hs, ctx, user, row_key(ctx, room, root), sub_out, found_out);
}

/* --- changing --- */

/* Writes it under a new position and publishes that. */
static struct err save(struct hs *hs, struct ctx *ctx, uint64_t user, struct thread_sub *sub)
{
    uint64_t old_pos = sub->pos;
    struct slice key = row_key(ctx, sub->room, sub->root);
    struct store_update *update = store_update_new(ctx, user_object(ctx, user));
    sub->pos = positions_reserve(hs->positions);
    store_put(update, key, encode(ctx, sub));
    store_put(update, key_u64(ctx, USER_ROW_THREAD_POS, sub->pos), slice_from(key, 1));
    if (old_pos) {
        store_delete(update, key_u64(ctx, USER_ROW_THREAD_POS, old_pos));
    }
    struct err err = store_write(hs->store, ctx, &update, 1);
    if (err.code != 0) {
        positions_abandon(hs->positions, sub->pos);
        return err;
    }
    struct change change = {.pos = sub->pos, .kind = CHANGE_ACCOUNT_DATA, .user = user};
    positions_complete(hs->positions, &change, ctx->write_ticket);
    return OK;
}

static struct err subscribe_in_lane(struct hs *hs, struct ctx *ctx,
                                    const struct thread_sub_wish *wish)
{
    struct thread_sub sub = {0};
    bool found = false;
    TRY(hs_thread_sub_get(hs, ctx, wish->user, wish->room, wish->root, &sub, &found));
    bool is_automatic = wish->cause != 0;
    if (is_automatic && found && !sub.subscribed && wish->cause <= sub.unsubscribed_at) {
        return err_public(ERR_M_CONFLICTING_UNSUBSCRIPTION,
                          "The thread was unsubscribed from after this event.");
    }
    if (sub.subscribed && (is_automatic || !sub.automatic)) {
        return OK;
    }
    sub.room = wish->room;
    sub.root = wish->root;
    sub.subscribed = true;
    sub.automatic = is_automatic;
    return save(hs, ctx, wish->user, &sub);
}

static struct err unsubscribe_in_lane(struct hs *hs, struct ctx *ctx,
                                      const struct thread_sub_wish *wish)
{
    struct thread_sub sub = {0};
    bool found = false;
    TRY(hs_thread_sub_get(hs, ctx, wish->user, wish->room, wish->root, &sub, &found));
    if (!sub.subscribed) {
        return OK;
    }
    sub.subscribed = false;
    sub.automatic = false;
    sub.unsubscribed_at = wish->cause;
    return save(hs, ctx, wish->user, &sub);
}

struct err hs_thread_subscribe(struct hs *hs, struct ctx *ctx, const struct thread_sub_wish *wish)
{
    hs_user_lane_enter(hs, wish->user);
    struct err err = subscribe_in_lane(hs, ctx, wish);
    hs_user_lane_leave(hs, wish->user);
    return err;
}

struct err hs_thread_unsubscribe(struct hs *hs, struct ctx *ctx, const struct thread_sub_wish *wish)
{
    hs_user_lane_enter(hs, wish->user);
    struct err err = unsubscribe_in_lane(hs, ctx, wish);
    hs_user_lane_leave(hs, wish->user);
    return err;
}

/* --- telling --- */

struct err hs_thread_subs_changed(struct hs *hs, struct ctx *ctx, uint64_t user,
                                  struct thread_sub_window window, struct thread_subs *subs_out)
{
    struct store_rows rows;
    struct store_range range = {.from = key_u64(ctx, USER_ROW_THREAD_POS, window.since + 1),
                                .to = key_u64(ctx, USER_ROW_THREAD_POS, window.upto + 1),
                                .limit = window.limit,
                                .order = STORE_REVERSE};
    *subs_out = (struct thread_subs){0};
    if (window.since >= window.upto) {
        return OK;
    }
    TRY(store_read_range(hs->store, ctx, user_object(ctx, user), range, &rows));
    subs_out->items = arena_array(ctx->arena, rows.count, sizeof *subs_out->items);
    for (size_t i = 0; i < rows.count; i++) {
        bool found = false;
        const char letter = USER_ROW_THREAD;
        struct slice key = arena_concat(ctx->arena, (struct slice){&letter, 1}, rows.rows[i].value);
        TRY(load(hs, ctx, user, key, &subs_out->items[subs_out->count], &found));
        subs_out->count += found ? 1 : 0;
    }
    return OK;
}

static int by_room(const void *a, const void *b)
{
    const struct thread_sub *left = a;
    const struct thread_sub *right = b;
    return left->room < right->room ? -1 : left->room > right->room;
}

static void write_thread(const struct thread_sub *sub, struct json_out *out)
{
    json_out_key_object(out, sub->root);
    if (sub->subscribed) {
        json_out_key_bool(out, LIT("automatic"), sub->automatic);
    }
    json_out_key_int(out, LIT("bump_stamp"), (int64_t)sub->pos);
    json_out_object_end(out);
}

/* Those of one kind, which are together by room. */
static struct err write_kind(struct hs *hs, struct ctx *ctx, const struct thread_subs *subs,
                             bool subscribed, struct json_out *out)
{
    uint64_t open = 0;
    for (size_t i = 0; i < subs->count; i++) {
        const struct thread_sub *sub = &subs->items[i];
        struct room *room = NULL;
        if (sub->subscribed != subscribed) {
            continue;
        }
        if (!open) {
            json_out_key_object(out, subscribed ? LIT("subscribed") : LIT("unsubscribed"));
        }
        if (open != sub->room) {
            if (open) {
                json_out_object_end(out);
            }
            TRY(hs_room_get(hs, ctx, sub->room, &room));
            json_out_key_object(out, hs_room_info(room).room_id);
            open = sub->room;
        }
        write_thread(sub, out);
    }
    if (open) {
        json_out_object_end(out);
        json_out_object_end(out);
    }
    return OK;
}

/* Threads of rooms that were purged are left out. */
static struct err keep_known(struct hs *hs, struct ctx *ctx, struct thread_subs *subs)
{
    size_t kept = 0;
    for (size_t i = 0; i < subs->count; i++) {
        struct room *room = NULL;
        struct err err = hs_room_get(hs, ctx, subs->items[i].room, &room);
        if (err.code == 0) {
            subs->items[kept++] = subs->items[i];
        } else if (err.code != ERR_M_NOT_FOUND) {
            return err;
        }
    }
    subs->count = kept;
    return OK;
}

struct err hs_thread_subs_write(struct hs *hs, struct ctx *ctx, const struct thread_subs *subs,
                                struct json_out *out)
{
    struct thread_subs sorted = *subs;
    if (subs->count == 0) {
        return OK;
    }
    TRY(keep_known(hs, ctx, &sorted));
    qsort(sorted.items, sorted.count, sizeof *sorted.items, by_room);
    TRY(write_kind(hs, ctx, &sorted, true, out));
    return write_kind(hs, ctx, &sorted, false, out);
}
