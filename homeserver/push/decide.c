/* Whom a change concerns: on the tail's thread. */
#include "homeserver/push/push_priv.h"

#include "homeserver/base/stats.h"
#include "homeserver/service/invite_filter.h"
#include "homeserver/service/users.h"
#include "homeserver/service/verdicts.h"

enum { TRIM_ROWS = 100 };

/* What one change brings to the pushers of users: rows, written at once, and then wishes. */
struct dispatch {
    struct push *push;
    struct ctx *ctx;
    const struct change *change;
    int64_t number;
    struct store_update **updates;
    struct push_wish *wishes;
    size_t update_count, wish_count, wish_cap;
};

static void add_wish(struct dispatch *d, const struct push_wish *wish)
{
    if (d->wish_count == d->wish_cap) {
        size_t cap = d->wish_cap ? d->wish_cap * 2 : 16;
        d->wishes = arena_grow(d->ctx->arena, d->wishes, d->wish_cap * sizeof *d->wishes,
                               cap * sizeof *d->wishes);
        d->wish_cap = cap;
    }
    d->wishes[d->wish_count++] = *wish;
}

/* What a run before this one has sent is not sent again. */
static struct err was_sent(struct dispatch *d, uint64_t user, struct slice name, bool *sent_out)
{
    struct push_mark mark;
    *sent_out = false;
    if (d->change->pos > d->push->replay_upto) {
        return OK;
    }
    TRY(hs_push_mark_get(d->push->hs, d->ctx, user, name, &mark));
    *sent_out = mark.pos >= d->change->pos;
    return OK;
}

/* Rows for all pushers of a user. */
static struct err add_rows(struct dispatch *d, uint64_t user, struct slice actions)
{
    struct pushers pushers;
    struct pusher_data data;
    struct store_update *update = hs_push_update(d->ctx, user);
    size_t before = d->wish_count;
    struct push_item item = {.pos = d->change->pos,
                             .room = d->change->room,
                             .number = d->number,
                             .queued_ms = now_wall_ms(d->ctx->now),
                             .actions = actions};
    TRY(hs_pushers_list(d->push->hs, d->ctx, user, &pushers));
    for (size_t i = 0; i < pushers.count; i++) {
        const struct pusher *pusher = &pushers.items[i];
        struct slice name = hs_pusher_name(d->ctx, pusher->app_id, pusher->pushkey);
        bool sent = false;
        push_read_pusher(d->ctx->arena, pusher, &data);
        TRY(was_sent(d, user, name, &sent));
        if (data.is_enabled && !sent) {
            hs_push_put(d->ctx, update, name, &item);
            add_wish(d, &(struct push_wish){
                            .user = user, .pusher = pusher, .has_items = true, .queued = 1});
        }
    }
    if (d->wish_count > before) {
        d->updates[d->update_count++] = update;
    }
    return OK;
}

/* Who hears of nothing new may have read something: the count that was sent last may be too high.
 */
static struct err add_badges(struct dispatch *d, uint64_t user)
{
    struct pushers pushers;
    TRY(hs_pushers_list(d->push->hs, d->ctx, user, &pushers));
    for (size_t i = 0; i < pushers.count; i++) {
        const struct pusher *pusher = &pushers.items[i];
        struct push_mark mark;
        TRY(hs_push_mark_get(d->push->hs, d->ctx, user,
                             hs_pusher_name(d->ctx, pusher->app_id, pusher->pushkey), &mark));
        if (mark.badge > 0) {
            add_wish(d, &(struct push_wish){.user = user, .pusher = pusher, .wants_badge = true});
        }
    }
    return OK;
}

/* A gateway that is away for long: the oldest of what waits is given up. */
static struct err trim(struct dispatch *d, const struct push_wish *wish)
{
    struct push_items items;
    struct slice name = hs_pusher_name(d->ctx, wish->pusher->app_id, wish->pusher->pushkey);
    struct store_update *update = hs_push_update(d->ctx, wish->user);
    struct push_wish less = *wish;
    TRY(hs_push_read(d->push->hs, d->ctx, wish->user, name, TRIM_ROWS, &items));
    for (size_t i = 0; i < items.count; i++) {
        hs_push_delete(d->ctx, update, name, items.items[i].pos);
    }
    less.queued = 0;
    less.dropped = items.count;
    TRY(store_write(d->push->hs->store, d->ctx, &update, 1));
    stats_add(d->push->hs->stats, STAT_push_dropped_total, items.count);
    push_wish(d->push, d->ctx, &less, NULL);
    return OK;
}

static struct err carry_out(struct dispatch *d)
{
    size_t queued = 0;
    if (d->update_count) {
        TRY(store_write(d->push->hs->store, d->ctx, d->updates, d->update_count));
    }
    for (size_t i = 0; i < d->wish_count; i++) {
        push_wish(d->push, d->ctx, &d->wishes[i], &queued);
        if (queued > PUSH_QUEUE_MAX) {
            TRY(trim(d, &d->wishes[i]));
        }
    }
    return OK;
}

/* --- events --- */

/* The local user whom a member event is about, when he is not among the joined; 0 = nobody. */
static struct err find_subject(struct dispatch *d, struct room *room, uint64_t *user_out)
{
    struct hs *hs = d->push->hs;
    struct stored_event event;
    bool found = false;
    *user_out = d->change->user;
    if (*user_out || d->change->pos > d->push->replay_upto) {
        return OK;
    }
    TRY(hs_event_scan(hs, d->ctx, room, d->change->number, &event, &found));
    if (found && slice_eq(event.event.type, LIT("m.room.member")) &&
        hs_user_is_local(hs, event.event.state_key)) {
        TRY(hs_user_find(hs, d->ctx, event.event.state_key, user_out, &found));
    }
    return OK;
}

static size_t add_user(uint64_t *users, size_t count, uint64_t user)
{
    for (size_t i = 0; i < count; i++) {
        if (users[i] == user) {
            return count;
        }
    }
    users[count] = user;
    return user ? count + 1 : count;
}

static bool contains(const uint64_t *users, size_t count, uint64_t user)
{
    for (size_t i = 0; i < count; i++) {
        if (users[i] == user) {
            return true;
        }
    }
    return false;
}

/* Those with pushers among the joined, and whom the event is about. */
static struct err find_users(struct dispatch *d, struct room *room, uint64_t **users_out,
                             size_t *count_out)
{
    uint64_t *joined = NULL;
    uint64_t subject = 0;
    size_t count = hs_room_local_users(d->ctx, room, &joined);
    count = hs_pushers_keep(d->push->hs, joined, count);
    TRY(find_subject(d, room, &subject));
    subject = hs_pushers_keep(d->push->hs, &subject, 1) ? subject : 0;
    if (subject) {
        joined =
            arena_grow(d->ctx->arena, joined, count * sizeof *joined, (count + 1) * sizeof *joined);
        count = add_user(joined, count, subject);
    }
    *users_out = joined;
    *count_out = count;
    return OK;
}

static struct err decide_event(struct dispatch *d)
{
    struct hs *hs = d->push->hs;
    struct room *room = NULL;
    struct hs_verdicts verdicts;
    uint64_t *users = NULL;
    size_t count = 0;
    TRY(hs_room_get(hs, d->ctx, d->change->room, &room));
    TRY(find_users(d, room, &users, &count));
    if (count == 0) {
        return OK;
    }
    struct hs_verdict_request request = {room, d->change->number, users, count};
    TRY(hs_verdicts_of(hs, d->ctx, &request, &verdicts));
    d->number = d->change->number;
    d->updates = arena_array(d->ctx->arena, verdicts.count + 1, sizeof(struct store_update *));
    for (size_t i = 0; i < verdicts.count; i++) {
        TRY(add_rows(d, verdicts.items[i].user, verdicts.items[i].verdict.actions));
    }
    if (contains(users, count, verdicts.sender)) { /* who speaks has read */
        TRY(add_badges(d, verdicts.sender));
    }
    return carry_out(d);
}

/* --- what is no event --- */

/* An invite to a room that this server is not in. */
static struct err decide_invite(struct dispatch *d)
{
    struct hs *hs = d->push->hs;
    struct room *room = NULL;
    struct user_room entry;
    struct stored_event event;
    struct push_verdict verdict;
    bool found = false;
    bool hidden = false;
    TRY(hs_user_room(hs, d->ctx, d->change->user, d->change->room, &entry, &found));
    if (!found || entry.membership != MEMBERSHIP_INVITE || entry.pos != d->change->pos) {
        return add_badges(d, d->change->user);
    }
    TRY(hs_room_get(hs, d->ctx, d->change->room, &room));
    TRY(hs_event_load(hs, d->ctx, room, entry.number, &event, &found));
    if (!found) {
        return OK;
    }
    TRY(hs_invite_is_hidden(hs, d->ctx, d->change->user, event.event.sender.s, &hidden));
    TRY(hs_verdict_of(hs, d->ctx, room, d->change->user, &event, &verdict));
    if (hidden || !verdict.notify) {
        return OK;
    }
    d->number = entry.number;
    d->updates = arena_array(d->ctx->arena, 1, sizeof(struct store_update *));
    return add_rows(d, d->change->user, verdict.actions);
}

static bool has_pushers(struct push *push, uint64_t user)
{
    return hs_pushers_keep(push->hs, &user, 1) > 0;
}

struct err push_on_change(void *arg, struct ctx *ctx, const struct change *change)
{
    struct push *push = arg;
    struct dispatch d = {.push = push, .ctx = ctx, .change = change};
    if (change->kind == CHANGE_EVENT) {
        return hs_pushers_any(push->hs) ? decide_event(&d) : OK;
    }
    if (!has_pushers(push, change->user)) {
        return OK;
    }
    TRY(change->kind == CHANGE_MEMBERSHIP ? decide_invite(&d) : add_badges(&d, change->user));
    return carry_out(&d);
}

/* --- after a crash --- */

/* Invites that came since, and counts that may have fallen. */
static struct err look_again(struct push *push, struct ctx *ctx, uint64_t user, uint64_t since)
{
    struct user_rooms rooms;
    struct change change = {.kind = CHANGE_RECEIPT, .user = user};
    TRY(push_on_change(push, ctx, &change));
    TRY(hs_user_rooms(push->hs, ctx, user, &rooms));
    change.kind = CHANGE_MEMBERSHIP;
    for (size_t i = 0; i < rooms.count; i++) {
        const struct user_room *entry = &rooms.items[i];
        if (entry->membership == MEMBERSHIP_INVITE && entry->invite_state.len &&
            entry->pos > since) {
            change.room = entry->room;
            change.pos = entry->pos;
            TRY(push_on_change(push, ctx, &change));
        }
    }
    return OK;
}

struct err push_on_lost(void *arg, struct ctx *ctx)
{
    struct push *push = arg;
    uint64_t *users = NULL;
    uint64_t since = hs_tail_position(push->tail);
    size_t count = hs_pushers_users(push->hs, ctx, &users);
    struct arena *arena = arena_new();
    struct err err = OK;
    for (size_t i = 0; i < count && err.code == 0; i++) {
        struct ctx page = {.arena = arena, .now = ctx->now, .log = ctx->log};
        err = look_again(push, &page, users[i], since);
        ctx_finish(&page);
        err.text = err.text ? arena_cstr(ctx->arena, slice_of(err.text)) : NULL;
        arena_reset(arena);
    }
    arena_free(&arena);
    return err;
}

static struct err resume_user(void *arg, struct ctx *ctx, uint64_t user)
{
    struct push *push = arg;
    struct push_names names;
    TRY(hs_push_waiting(push->hs, ctx, user, &names));
    for (size_t i = 0; i < names.count; i++) {
        struct pusher pusher;
        struct push_items items;
        bool found = false;
        TRY(hs_pusher_get(push->hs, ctx, user, names.items[i], &pusher, &found));
        if (!found) {
            struct store_update *update = hs_push_update(ctx, user);
            hs_push_forget(ctx, update, names.items[i]);
            TRY(store_write(push->hs->store, ctx, &update, 1));
            continue;
        }
        TRY(hs_push_read(push->hs, ctx, user, names.items[i], PUSH_QUEUE_MAX, &items));
        struct push_wish wish = {
            .user = user, .pusher = &pusher, .has_items = true, .queued = items.count};
        push_wish(push, ctx, &wish, NULL);
    }
    return OK;
}

static struct err resume_page(void *arg, struct ctx *ctx, uint64_t user)
{
    struct arena *arena = arena_new();
    struct ctx page = {.arena = arena, .now = ctx->now, .log = ctx->log};
    struct err err = resume_user(arg, &page, user);
    ctx_finish(&page);
    err.text = err.text ? arena_cstr(ctx->arena, slice_of(err.text)) : NULL;
    arena_free(&arena);
    return err;
}

struct err push_resume(struct push *push, struct ctx *ctx)
{
    return hs_push_each_user(push->hs, ctx, resume_page, push);
}
