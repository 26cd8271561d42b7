/* The parsed power levels of a room, shared by all who ask while the state stays what it is: every
 * notification count looks at them. */
#include "homeserver/base/mem.h"
#include "homeserver/service/room_priv.h"

#include <stdatomic.h>

struct room_levels {
    _Atomic int refs;
    struct room_head head; /* root and redaction count */
    struct arena *arena_owned;
    struct ctx own; /* holds what the levels were read from */
    struct event create, event;
    struct power_levels levels;
};

static void release(void *owner, void *thing)
{
    struct room_levels *levels = thing;
    (void)owner;
    if (levels && atomic_fetch_sub(&levels->refs, 1) == 1) {
        ctx_finish(&levels->own);
        arena_free(&levels->arena_owned);
        mem_free(levels);
    }
}

void room_levels_drop(struct room *room)
{
    release(NULL, room->levels_owned);
    room->levels_owned = NULL;
}

static struct err load(struct hs *hs, const struct ctx *ctx, struct room *room,
                       struct room_levels *levels)
{
    struct ctx *own = &levels->own;
    *own = (struct ctx){.arena = levels->arena_owned, .now = ctx->now};
    struct stored_event create;
    struct stored_event event;
    bool has_create = false;
    bool has_event = false;
    TRY(hs_state_event(hs, own, room, levels->head.root, LIT("m.room.create"), LIT(""), &create,
                       &has_create));
    TRY(hs_state_event(hs, own, room, levels->head.root, LIT("m.room.power_levels"), LIT(""),
                       &event, &has_event));
    levels->create = has_create ? create.event : levels->create;
    levels->event = has_event ? event.event : levels->event;
    levels->levels = power_load(room->rules, has_create ? &levels->create : NULL,
                                has_event ? &levels->event : NULL);
    return OK;
}

static struct room_levels *take(struct room *room, const struct room_head *head)
{
    pthread_mutex_lock(&room->lock);
    struct room_levels *levels = room->levels_owned;
    bool fits =
        levels && levels->head.root == head->root && levels->head.redaction == head->redaction;
    levels = fits ? levels : NULL;
    if (levels) {
        atomic_fetch_add(&levels->refs, 1);
    }
    pthread_mutex_unlock(&room->lock);
    return levels;
}

static void keep(struct room *room, struct room_levels *levels)
{
    pthread_mutex_lock(&room->lock);
    struct room_levels *old = room->levels_owned;
    room->levels_owned = levels;
    pthread_mutex_unlock(&room->lock);
    release(NULL, old);
}

struct err room_levels_get(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct room_head *head, const struct power_levels **levels_out)
{
    struct room_levels *levels = take(room, head);
    if (!levels) {
        levels = mem_alloc(sizeof *levels);
        levels->head = *head;
        levels->arena_owned = arena_new();
        atomic_init(&levels->refs, 1);
        struct err err = load(hs, ctx, room, levels);
        if (err.code != 0) {
            release(NULL, levels);
            return err;
        }
        atomic_fetch_add(&levels->refs, 1);
        keep(room, levels);
    }
    ctx_defer(ctx, release, NULL, levels);
    *levels_out = &levels->levels;
    return OK;
}
