/* From the rooms' logs to the destinations: who hears of an event, what waits, and the marks that
 * say so after a crash. All on the tail thread. */
#include "federation/outbox_priv.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/users.h"

#include <stdlib.h>
#include <string.h>

enum { WALK_MAX = 1000, WALK_PAGE = 100 };

static int by_pos(const void *a, const void *b)
{
    uint64_t left = ((const struct destination_event *)a)->pos;
    uint64_t right = ((const struct destination_event *)b)->pos;
    return (left > right) - (left < right);
}

/* --- who hears of an event --- */

/* Events of this server's users, and those that it took in for others to hear of. A join through
 * another server is told by that one. */
bool outbox_tells(const struct outbox *outbox, const struct stored_event *event)
{
    const struct hs *hs = outbox->hs;
    uint32_t kept_back = EVENT_HIDDEN | EVENT_RESTART | EVENT_HISTORY;
    bool ours = hs_user_is_local(hs, event->event.sender.s) || (event->flags & EVENT_FORWARD);
    return ours && event->pos != 0 && !(event->flags & kept_back);
}

static struct slice server_of(struct slice user_id)
{
    return ids_user_domain(ids_trust_user(user_id)).s;
}

/* The server of a user who is taken out of the room, which may have had no member in it (an invite
 * that is withdrawn, a knock that is refused). */
static struct err member_server(struct outbox *outbox, struct ctx *ctx, struct stored_event *event,
                                struct slice *server_out)
{
    *server_out = (struct slice){0};
    if (!event->event.has_state_key || !slice_eq(event->event.type, LIT("m.room.member"))) {
        return OK;
    }
    TRY(hs_event_parse_content(ctx, event));
    enum membership membership = membership_of(&event->event);
    bool out = membership == MEMBERSHIP_LEAVE || membership == MEMBERSHIP_BAN;
    struct slice server = server_of(event->event.state_key);
    if (out && event->replaces != 0 && server.len > 0 && !hs_is_local(outbox->hs, server)) {
        *server_out = server;
    }
    return OK;
}

/* Good until the next call. */
static struct err hearers(struct outbox *outbox, struct ctx *ctx, struct room *room,
                          struct stored_event *event, struct server_names *names_out)
{
    struct slice also;
    TRY(room_servers_at(outbox->servers, ctx, room, event->state_before, names_out));
    TRY(member_server(outbox, ctx, event, &also));
    if (also.len > 0 && !server_names_has(*names_out, also)) {
        struct slice *all = arena_array(ctx->arena, names_out->count + 1, sizeof *all);
        if (names_out->count > 0) {
            memcpy(all, names_out->items, names_out->count * sizeof *all);
        }
        all[names_out->count] = also;
        *names_out = (struct server_names){all, names_out->count + 1};
    }
    return OK;
}

static bool is_among(struct server_names names, struct slice server)
{
    for (size_t i = 0; i < names.count; i++) {
        if (slice_eq(names.items[i], server)) {
            return true;
        }
    }
    return false;
}

/* --- what waits in memory --- */

static void grow_events(struct dest *dest)
{
    if (dest->first > 0) {
        memmove(dest->events, dest->events + dest->first, dest->count * sizeof *dest->events);
        dest->first = 0;
    }
    if (dest->count == dest->cap) {
        dest->cap = dest->cap ? dest->cap * 2 : 4;
        dest->events = mem_grow(dest->events, dest->cap * sizeof *dest->events);
    }
}

static void clear_events(struct dest *dest)
{
    mem_free(dest->events);
    dest->events = NULL;
    dest->first = 0;
    dest->count = 0;
    dest->cap = 0;
}

/* Lock held; false when the server has it already. */
static bool add_event(struct dest *dest, const struct destination_event *event)
{
    uint64_t last = dest->count ? dest->events[dest->first + dest->count - 1].pos : 0;
    if (event->pos <= dest->acknowledged || event->pos <= last) {
        return false;
    }
    if (dest->first + dest->count == dest->cap) {
        grow_events(dest);
    }
    dest->events[dest->first + dest->count++] = *event;
    return true;
}

static void make_dirty(struct outbox *outbox, struct dest *dest)
{
    if (!dest->is_dirty) {
        dest->is_dirty = true;
        dest_list_add(&outbox->dirty, dest);
    }
}

static struct err give(struct outbox *outbox, struct ctx *ctx, struct slice server,
                       const struct destination_event *event)
{
    struct dest *dest = NULL;
    bool is_near = outbox_sees_near(outbox, server);
    TRY(outbox_dest(outbox, ctx, server, &dest));
    pthread_mutex_lock(&outbox->lock);
    dest->is_near = is_near;
    if (add_event(dest, event)) {
        bool is_down = dest->state == DEST_WAITING;
        make_dirty(outbox, dest);
        outbox_wake(outbox, dest);
        if (dest->count > (is_down ? OUTBOX_CATCH_UP : OUTBOX_LIVE_MAX)) {
            outbox_chore(outbox, dest);
        }
    }
    pthread_mutex_unlock(&outbox->lock);
    return OK;
}

struct err outbox_give_event(struct outbox *outbox, struct ctx *ctx, const struct change *change,
                             struct stored_event *event_out, bool *found_out)
{
    struct room *room = NULL;
    struct server_names names;
    struct destination_event event = {change->room, change->number, change->pos};
    *found_out = false;
    TRY(hs_room_get(outbox->hs, ctx, change->room, &room));
    if (room_servers_none(outbox->servers, room, change->before)) {
        return OK;
    }
    TRY(hs_event_scan(outbox->hs, ctx, room, change->number, event_out, found_out));
    if (!*found_out || !outbox_tells(outbox, event_out)) {
        return OK;
    }
    TRY(hearers(outbox, ctx, room, event_out, &names));
    struct slice origin = server_of(event_out->event.sender.s);
    for (size_t i = 0; i < names.count; i++) {
        if (!slice_eq(names.items[i], origin)) {
            TRY(give(outbox, ctx, names.items[i], &event));
        }
    }
    outbox_pump(outbox);
    return OK;
}

/* --- marks --- */

/* The newest waiting event of each room, from memory. Lock held. */
static struct destination_events newest_of_rooms(struct ctx *ctx, const struct dest *dest)
{
    struct map *rooms = map_new();
    struct destination_events marks = {0};
    marks.items = arena_array(ctx->arena, dest->count + 1, sizeof *marks.items);
    for (size_t i = dest->first; i < dest->first + dest->count; i++) {
        const struct destination_event *event = &dest->events[i];
        uint64_t at = 0;
        if (event->pos <= dest->acknowledged) {
            continue;
        }
        if (!map_get(rooms, map_key_u64(&event->room), &at)) {
            at = marks.count++;
            map_set(rooms, map_key_u64(&event->room), at);
        }
        marks.items[at] = *event;
    }
    map_free(&rooms);
    return marks;
}

static struct err write_marks(struct outbox *outbox, struct ctx *ctx, struct dest *dest)
{
    struct store_update *update = hs_destination_update(ctx, dest_name(dest));
    pthread_mutex_lock(&outbox->lock);
    struct destination_events marks = newest_of_rooms(ctx, dest);
    bool drop = dest->has_marks && marks.count == 0 && !dest->reload;
    bool none = marks.count == 0 && !drop;
    dest->has_marks = (dest->has_marks && !drop) || marks.count > 0;
    pthread_mutex_unlock(&outbox->lock);
    if (none) {
        return OK;
    }
    if (drop) {
        hs_destination_delete_marks(update);
    }
    for (size_t i = 0; i < marks.count; i++) {
        hs_destination_put_mark(ctx, update, &marks.items[i]);
    }
    return store_write(outbox->hs->store, ctx, &update, 1);
}

struct err outbox_flush(struct outbox *outbox, struct ctx *ctx)
{
    for (size_t i = 0; i < outbox->dirty.count; i++) {
        TRY(write_marks(outbox, ctx, outbox->dirty.items[i]));
    }
    for (size_t i = 0; i < outbox->dirty.count; i++) {
        outbox->dirty.items[i]->is_dirty = false;
    }
    outbox->dirty.count = 0;
    return OK;
}

struct err outbox_spill(struct outbox *outbox, struct ctx *ctx, struct dest *dest)
{
    pthread_mutex_lock(&outbox->lock);
    bool is_down = dest->state == DEST_WAITING;
    bool has_events = dest->count > 0;
    bool too_many = dest->count > OUTBOX_LIVE_MAX;
    pthread_mutex_unlock(&outbox->lock);
    if (!has_events || (!is_down && !too_many)) {
        return OK;
    }
    TRY(write_marks(outbox, ctx, dest));
    pthread_mutex_lock(&outbox->lock);
    clear_events(dest);
    dest->reload = true;
    pthread_mutex_unlock(&outbox->lock);
    return OK;
}

/* --- from the marks back to events --- */

struct reload {
    struct outbox *outbox;
    struct ctx *ctx;
    struct dest *dest;
    uint64_t acknowledged;
    struct destination_event *items;
    size_t count, cap;
    size_t walked;
    bool too_many;
};

static void reload_add(struct reload *r, const struct destination_event *event)
{
    if (r->count == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 64;
        r->items =
            arena_grow(r->ctx->arena, r->items, r->cap * sizeof *r->items, cap * sizeof *r->items);
        r->cap = cap;
    }
    r->items[r->count++] = *event;
}

/* An event between the two marks: was it for this server? */
static struct err reload_event(struct reload *r, struct room *room, struct stored_event *event)
{
    struct server_names names;
    if (!outbox_tells(r->outbox, event)) {
        return OK;
    }
    TRY(hearers(r->outbox, r->ctx, room, event, &names));
    if (is_among(names, dest_name(r->dest))) {
        struct destination_event found = {hs_room_info(room).number, event->number, event->pos};
        reload_add(r, &found);
        r->too_many = r->count > OUTBOX_CATCH_UP;
    }
    return OK;
}

/* A page of a room's log, newest first; `next_out` 0 when all above the mark is read. */
static struct err reload_page(struct reload *r, struct room *room, int64_t from, int64_t *next_out)
{
    struct stored_events events;
    struct event_range range = {
        .from = from, .limit = WALK_PAGE, .order = EVENTS_REVERSE, .form = EVENTS_SCANNED};
    TRY(hs_events_read(r->outbox->hs, r->ctx, room, range, &events));
    *next_out = 0;
    for (size_t i = 0; i < events.count && !r->too_many; i++) {
        if (events.items[i].pos <= r->acknowledged) {
            return OK;
        }
        TRY(reload_event(r, room, &events.items[i]));
        *next_out = events.items[i].number;
    }
    r->walked += events.count;
    r->too_many = r->too_many || r->walked > WALK_MAX;
    *next_out = events.count == WALK_PAGE ? *next_out : 0;
    return OK;
}

static struct err reload_room(struct reload *r, const struct destination_event *mark)
{
    struct room *room = NULL;
    int64_t from = mark->number + 1;
    struct err err = hs_room_get(r->outbox->hs, r->ctx, mark->room, &room);
    if (err.code == ERR_M_NOT_FOUND) { /* purged */
        return OK;
    }
    TRY(err);
    while (from != 0 && !r->too_many) {
        TRY(reload_page(r, room, from, &from));
    }
    return OK;
}

static struct err reload_all(struct reload *r)
{
    struct destination_events marks;
    TRY(hs_destination_marks(r->outbox->hs, r->ctx, dest_name(r->dest), &marks));
    for (size_t i = 0; i < marks.count && !r->too_many; i++) {
        if (marks.items[i].pos > r->acknowledged) {
            TRY(reload_room(r, &marks.items[i]));
        }
    }
    if (r->too_many) { /* the peer fetches what lies between */
        r->count = 0;
        for (size_t i = 0; i < marks.count; i++) {
            if (marks.items[i].pos > r->acknowledged) {
                reload_add(r, &marks.items[i]);
            }
        }
    }
    if (r->count > 1) {
        qsort(r->items, r->count, sizeof *r->items, by_pos);
    }
    return OK;
}

struct err outbox_reload(struct outbox *outbox, struct ctx *ctx, struct dest *dest)
{
    struct reload r = {.outbox = outbox, .ctx = ctx, .dest = dest};
    TRY(write_marks(outbox, ctx, dest));
    pthread_mutex_lock(&outbox->lock);
    r.acknowledged = dest->acknowledged;
    pthread_mutex_unlock(&outbox->lock);
    TRY(reload_all(&r));
    pthread_mutex_lock(&outbox->lock);
    clear_events(dest);
    for (size_t i = 0; i < r.count; i++) {
        add_event(dest, &r.items[i]);
    }
    dest->reload = false;
    make_dirty(outbox, dest); /* its marks go when it has got all */
    pthread_mutex_unlock(&outbox->lock);
    return OK;
}

/* --- after a start --- */

static struct err resume_dest(void *arg, struct slice id)
{
    struct reload *r = arg;
    struct dest *dest = NULL;
    TRY(outbox_dest(r->outbox, r->ctx, id, &dest));
    pthread_mutex_lock(&r->outbox->lock);
    if (dest_has_work(dest)) {
        outbox_wake(r->outbox, dest);
    }
    pthread_mutex_unlock(&r->outbox->lock);
    return OK;
}

struct err outbox_resume(struct outbox *outbox, struct ctx *ctx)
{
    struct reload r = {.outbox = outbox, .ctx = ctx};
    return store_each_object(outbox->hs->store, ctx, STORE_DESTINATION, resume_dest, &r);
}
