#include "homeserver/sync/peek.h"

#include "homeserver/base/mem.h"
#include "homeserver/service/memberships.h"
#include "homeserver/sync/priv.h"

#include <stdlib.h>
#include <string.h>

/* An event and the room it belongs to. */
struct found {
    struct room *room;
    struct stored_event event;
};

struct gathering {
    struct sync *sync;
    struct ctx *ctx;
    const struct sync_peek *peek;
    struct viewer viewer;
    struct view_memo memo;
    uint64_t upto;
    uint64_t cut; /* a room had more than were read: nothing after this position; 0 = none */
    struct found *items;
    size_t count, cap;
};

static void add(struct gathering *g, struct room *room, const struct stored_event *event)
{
    if (g->count == g->cap) {
        size_t cap = g->cap ? g->cap * 2 : SYNC_PEEK_EVENTS_MAX;
        struct found *items = arena_array(g->ctx->arena, cap, sizeof *items);
        if (g->count > 0) {
            memcpy(items, g->items, g->count * sizeof *items);
        }
        g->items = items;
        g->cap = cap;
    }
    g->items[g->count++] = (struct found){room, *event};
}

/* Events of one room in (since, upto], the oldest ones first; none after number `last`. */
static struct err gather_room(struct gathering *g, struct room *room, int64_t last)
{
    struct hs *hs = g->sync->hs;
    struct stored_events events;
    int64_t number = 0;
    uint64_t root = 0;
    if (hs_room_head(room).pos <= g->peek->since) {
        return OK;
    }
    TRY(hs_room_at(hs, g->ctx, room, g->peek->since, &number, &root));
    struct event_range range = {.from = number,
                                .to = last < INT64_MAX ? last + 1 : 0,
                                .limit = SYNC_PEEK_EVENTS_MAX,
                                .order = EVENTS_FORWARD,
                                .form = EVENTS_SCANNED};
    TRY(hs_events_read(hs, g->ctx, room, range, &events));
    if (events.count == SYNC_PEEK_EVENTS_MAX) {
        uint64_t pos = events.items[events.count - 1].pos;
        g->cut = g->cut == 0 || pos < g->cut ? pos : g->cut;
    }
    TRY(hs_keep_visible(hs, g->ctx, room, &g->viewer, &events));
    TRY(hs_drop_ignored(hs, g->ctx, g->viewer.user, &events));
    for (size_t i = 0; i < events.count; i++) {
        if (events.items[i].pos > g->peek->since && events.items[i].pos <= g->upto) {
            add(g, room, &events.items[i]);
        }
    }
    return OK;
}

/* A room that may be looked into, by a member or by anybody. */
static struct err gather_one(struct gathering *g)
{
    struct room *room = NULL;
    struct room_view view;
    TRY(hs_room_get(g->sync->hs, g->ctx, g->peek->room, &room));
    TRY(hs_room_view(g->sync->hs, g->ctx, room, g->peek->user, &view));
    bool sees_all = view.membership == MEMBERSHIP_JOIN || view.world_readable;
    return gather_room(g, room, sees_all ? INT64_MAX : view.number);
}

static struct err gather_entry(struct gathering *g, const struct user_room *entry)
{
    struct room *room = NULL;
    bool is_in = entry->membership == MEMBERSHIP_JOIN;
    if (!is_in && (entry->left_number == 0 || entry->pos <= g->peek->since || entry->forgotten)) {
        return OK;
    }
    TRY(hs_room_get(g->sync->hs, g->ctx, entry->room, &room));
    return gather_room(g, room, is_in ? INT64_MAX : entry->left_number);
}

static struct err gather_all(struct gathering *g, const struct sync_look *look)
{
    struct hs *hs = g->sync->hs;
    struct user_rooms rooms = {0};
    if (look->nothing) {
        return OK;
    }
    if (!look->complete) {
        TRY(hs_user_rooms(hs, g->ctx, g->peek->user, &rooms));
    }
    for (size_t i = 0; i < rooms.count; i++) {
        TRY(gather_entry(g, &rooms.items[i]));
    }
    for (size_t i = 0; look->complete && i < look->room_count; i++) {
        struct user_room entry = {0};
        bool found = false;
        TRY(hs_user_room(hs, g->ctx, g->peek->user, look->rooms[i], &entry, &found));
        entry.room = look->rooms[i];
        if (found) {
            TRY(gather_entry(g, &entry));
        }
    }
    return OK;
}

static int by_position(const void *a, const void *b)
{
    uint64_t left = ((const struct found *)a)->event.pos;
    uint64_t right = ((const struct found *)b)->event.pos;
    return left < right ? -1 : left > right;
}

/* What was left out comes next: the end lies behind the last event that is shown. */
static void cut_to_size(struct gathering *g)
{
    if (g->count > 0) {
        qsort(g->items, g->count, sizeof *g->items, by_position);
    }
    if (g->cut) {
        g->upto = g->cut;
    }
    if (g->count > SYNC_PEEK_EVENTS_MAX) {
        uint64_t last = g->items[SYNC_PEEK_EVENTS_MAX - 1].event.pos;
        g->upto = last < g->upto ? last : g->upto;
    }
    while (g->count > 0 && g->items[g->count - 1].event.pos > g->upto) {
        g->count--;
    }
}

static struct err write_chunk(struct gathering *g, struct buf *body)
{
    struct json_out out = json_out_to(body);
    struct arena *arena = g->ctx->arena;
    struct sync_token start = {g->peek->since, g->peek->since};
    struct sync_token end = {g->upto, g->upto};
    json_out_object(&out);
    json_out_key_string(&out, LIT("start"), sync_token_encode(arena, start));
    json_out_key_string(&out, LIT("end"), sync_token_encode(arena, end));
    json_out_key_array(&out, LIT("chunk"));
    for (size_t i = 0; i < g->count; i++) {
        TRY(hs_write_event(g->sync->hs, g->ctx, g->items[i].room, &g->viewer, &g->items[i].event,
                           VIEW_ROOM_ID, &out));
    }
    json_out_array_end(&out);
    json_out_object_end(&out);
    return buf_check(body);
}

struct err sync_peek_respond(struct sync *sync, struct ctx *ctx, const struct sync_peek *peek,
                             struct buf *body, bool *news_out, uint64_t *upto_out)
{
    struct gathering g = {.sync = sync, .ctx = ctx, .peek = peek};
    struct sync_look look = {0};
    g.viewer = (struct viewer){.user = peek->user,
                               .user_id = peek->user_id,
                               .device_id = peek->device_id,
                               .memo = &g.memo};
    if (peek->room) {
        look.upto = positions_published(sync->hs->positions);
    } else {
        TRY(sync_sessions_look(sync->sessions, ctx, peek->user, peek->since, &look));
    }
    g.upto = look.upto > peek->since ? look.upto : peek->since;
    TRY(peek->room ? gather_one(&g) : gather_all(&g, &look));
    cut_to_size(&g);
    *news_out = g.count > 0 || g.cut != 0;
    *upto_out = g.upto;
    return write_chunk(&g, body);
}

/* --- waiting --- */

struct parked_peek {
    struct sync *sync;
    struct sync_peek peek;
    char *text_owned;
    struct sync_waiter waiter;   /* of all rooms */
    struct sync_watcher watcher; /* of one */
};

static struct err peek_respond(void *arg, struct ctx *ctx, struct buf *body, bool *news_out,
                               uint64_t *upto_out)
{
    struct parked_peek *parked = arg;
    return sync_peek_respond(parked->sync, ctx, &parked->peek, body, news_out, upto_out);
}

static uint64_t newest_change(struct parked_peek *parked)
{
    struct hs *hs = parked->sync->hs;
    struct ctx ctx = {.arena = arena_new(), .now = hs->now, .log = hs->log};
    struct room *room = NULL;
    struct err err = hs_room_get(hs, &ctx, parked->peek.room, &room);
    uint64_t pos = err.code ? 0 : hs_room_head(room).pos;
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return pos;
}

static bool peek_wait(void *arg, uint64_t upto)
{
    struct parked_peek *parked = arg;
    struct sync *sync = parked->sync;
    if (parked->peek.room) {
        return sync_room_watch_wait(sync->watch, &parked->watcher, newest_change(parked), upto);
    }
    return sync_sessions_wait(sync->sessions, parked->peek.user, upto, &parked->waiter);
}

static bool peek_cancel(void *arg)
{
    struct parked_peek *parked = arg;
    return parked->peek.room ? sync_room_watch_cancel(parked->sync->watch, &parked->watcher)
                             : sync_sessions_cancel(parked->sync->sessions, &parked->waiter);
}

static void peek_free(void *arg)
{
    struct parked_peek *parked = arg;
    mem_free(parked->text_owned);
    mem_free(parked);
}

static const struct sync_waiting_driver driver = {peek_respond, peek_wait, peek_cancel, peek_free};

static void copy_peek(struct parked_peek *parked, const struct sync_peek *peek)
{
    size_t id_len = peek->user_id.len;
    parked->peek = *peek;
    parked->text_owned = mem_alloc_raw(id_len + peek->device_id.len + 1);
    memcpy(parked->text_owned, peek->user_id.ptr, id_len);
    if (peek->device_id.len > 0) {
        memcpy(parked->text_owned + id_len, peek->device_id.ptr, peek->device_id.len);
    }
    parked->peek.user_id.ptr = parked->text_owned;
    parked->peek.device_id.ptr = parked->text_owned + id_len;
}

struct err sync_peek_park(struct sync *sync, struct ctx *ctx, const struct sync_peek *peek,
                          const struct sync_waiting_start *start, const struct http_request *http,
                          struct http_reply *reply)
{
    struct parked_peek *parked = mem_alloc(sizeof *parked);
    struct sync_waiting *waiting = sync_waiting_new(sync->hs, &driver, parked);
    parked->sync = sync;
    copy_peek(parked, peek);
    parked->watcher =
        (struct sync_watcher){.wake = sync_waiting_wake, .arg = waiting, .room = parked->peek.room};
    sync_waiter_init(&parked->waiter, parked->peek.device_id, sync_waiting_wake, waiting);
    return sync_waiting_park(waiting, ctx, start, http, reply);
}
