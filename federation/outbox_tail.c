/* The outbox as a consumer of the stream of changes: what it is handed, and what it does between.
 */
#include "federation/outbox_priv.h"
#include "homeserver/base/mem.h"
#include "homeserver/base/pause.h"
#include "homeserver/service/device_keys.h"

enum { AGAIN_MS = 1000 };

static void complain(struct outbox *outbox, const char *step, struct err err)
{
    if (err.code != 0) {
        log_error(outbox->hs->log, "outbox", .step = slice_of(step), .err = slice_of(err.text));
    }
}

/* --- changes --- */

static bool is_member(const struct stored_event *event)
{
    return slice_eq(event->event.type, LIT("m.room.member"));
}

/* Who comes and goes says which servers are told of devices and presence. */
static bool wants(void *outbox, const struct stored_event *event)
{
    return is_member(event) || outbox_tells(outbox, event);
}

static struct err handle_event(struct outbox *outbox, struct ctx *ctx, const struct change *change)
{
    struct stored_event event;
    struct room *room = NULL;
    bool found = false;
    TRY(outbox_give_event(outbox, ctx, change, &event, &found));
    if (!found || !is_member(&event)) {
        return OK;
    }
    TRY(hs_room_get(outbox->hs, ctx, change->room, &room));
    TRY(hs_event_parse_content(ctx, &event));
    return edus_out_member(outbox->edus, ctx, room, &event);
}

/* Rows that vanish under a room that is purged or taken back are no fault of the store. */
static bool is_room_gone(struct outbox *outbox, struct ctx *ctx, struct err err, uint64_t number)
{
    struct room *room = NULL;
    return (err.code == ERR_CORRUPT || err.code == ERR_M_NOT_FOUND) &&
           hs_room_get(outbox->hs, ctx, number, &room).code == ERR_M_NOT_FOUND;
}

static struct err handle(void *arg, struct ctx *ctx, const struct change *change)
{
    struct outbox *outbox = arg;
    if (change->kind != CHANGE_EVENT) {
        struct err err = edus_out_change(outbox->edus, ctx, change);
        return err.code == ERR_M_NOT_FOUND ? OK : err;
    }
    struct err err = handle_event(outbox, ctx, change);
    return is_room_gone(outbox, ctx, err, change->room) ? OK : err;
}

/* Of what is no event only device lists outlive a crash. */
static struct err lost(void *arg, struct ctx *ctx)
{
    struct outbox *outbox = arg;
    uint64_t *users = NULL;
    size_t count = 0;
    uint64_t since = hs_tail_position(outbox->tail);
    uint64_t upto = positions_newest(outbox->hs->positions);
    TRY(hs_device_changes(outbox->hs, ctx, since, upto, &users, &count));
    for (size_t i = 0; i < count; i++) {
        TRY(device_lists_publish(outbox, ctx, users[i]));
    }
    return OK;
}

static struct err flush(void *outbox, struct ctx *ctx)
{
    return outbox_flush(outbox, ctx);
}

/* --- between them --- */

/* Its events are there, or have to be read later. */
static void end_reload(struct outbox *outbox, struct dest *dest, struct err err)
{
    pthread_mutex_lock(&outbox->lock);
    if (err.code != 0) {
        outbox_wait(outbox, dest, now_wall_ms(outbox->hs->now) + AGAIN_MS);
    } else {
        dest->state = DEST_IDLE;
        if (dest_has_work(dest)) {
            outbox_wake(outbox, dest);
        }
    }
    pthread_mutex_unlock(&outbox->lock);
}

/* A destination that failed gives its memory back; one that needs its events gets them. */
static void do_chore(struct outbox *outbox, struct ctx *ctx, struct dest *dest)
{
    pthread_mutex_lock(&outbox->lock);
    dest->has_chore = false;
    bool reload = dest->state == DEST_CHORE;
    pthread_mutex_unlock(&outbox->lock);
    struct err err = reload ? outbox_reload(outbox, ctx, dest) : outbox_spill(outbox, ctx, dest);
    complain(outbox, reload ? "reload" : "spill", err);
    if (reload) {
        end_reload(outbox, dest, err);
    }
}

/* Each sees what the one before has written. */
static void do_chores(struct outbox *outbox, const struct dest_list *chores)
{
    struct arena *arena = arena_new();
    for (size_t i = 0; i < chores->count; i++) {
        struct ctx ctx = {.arena = arena, .now = outbox->hs->now, .log = outbox->hs->log};
        do_chore(outbox, &ctx, chores->items[i]);
        ctx_finish(&ctx);
        arena_reset(arena);
    }
    arena_free(&arena);
}

static struct err refresh(struct outbox *outbox, struct ctx *ctx)
{
    int64_t due_ms = edus_out_next(outbox->edus);
    bool is_due = due_ms != 0 && due_ms <= now_wall_ms(outbox->hs->now);
    return is_due ? edus_out_refresh(outbox->edus, ctx) : OK;
}

static struct err rest(void *arg, struct ctx *ctx, int64_t *next_wall_ms)
{
    struct outbox *outbox = arg;
    if (!outbox->is_resumed) {
        TRY(outbox_resume(outbox, ctx));
        outbox->is_resumed = true;
    }
    pthread_mutex_lock(&outbox->lock);
    struct dest_list chores = outbox->chores;
    outbox->chores = (struct dest_list){0};
    outbox->is_busy = true;
    outbox_run_timers(outbox, now_wall_ms(outbox->hs->now));
    pthread_mutex_unlock(&outbox->lock);
    do_chores(outbox, &chores);
    mem_free(chores.items);
    struct err err = refresh(outbox, ctx);
    outbox_drop_idle(outbox);
    outbox_pump(outbox);
    pthread_mutex_lock(&outbox->lock);
    outbox->is_busy = false;
    int64_t next_ms = outbox->timers.count > 0 ? outbox->timers.items[0]->next_try_ms : 0;
    pthread_cond_broadcast(&outbox->calm);
    pthread_mutex_unlock(&outbox->lock);
    *next_wall_ms = pause_earlier(next_ms, edus_out_next(outbox->edus));
    return err;
}

struct hs_tail *outbox_tail_new(struct outbox *outbox)
{
    static const struct hs_tail_place place = {.object = "outbound", .key = "w"};
    const struct hs_tail_port port = {
        .name = "outbox",
        .place = &place,
        .kinds = TAIL_KIND(CHANGE_EVENT) | TAIL_KIND(CHANGE_RECEIPT) | TAIL_KIND(CHANGE_TYPING) |
                 TAIL_KIND(CHANGE_PRESENCE) | TAIL_KIND(CHANGE_DEVICE_KEYS),
        .start = TAIL_FROM_NOW,
        .arg = outbox,
        .handle = handle,
        .wants = wants,
        .rest = rest,
        .flush = flush,
        .lost = lost,
    };
    return hs_tail_new(outbox->hs, &port);
}
