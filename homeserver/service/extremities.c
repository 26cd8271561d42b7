/* Forward extremities: the events that nothing here cites yet. The room's state is what their
 * states resolve to. Spec: server-server, "Room State Resolution". */
#include "homeserver/base/mem.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/room_priv.h"

#include <stdlib.h>
#include <string.h>

static void add_id(struct ctx *ctx, struct room_cited *cited, struct event_id id)
{
    for (size_t i = 0; i < cited->count; i++) {
        if (ids_event_eq(cited->ids[i], id)) {
            return;
        }
    }
    if (cited->count == cited->cap) {
        size_t cap = cited->cap ? cited->cap * 2 : 32;
        cited->ids = arena_grow(ctx->arena, cited->ids, cited->cap * sizeof id, cap * sizeof id);
        cited->cap = cap;
    }
    cited->ids[cited->count++] = id;
}

struct err room_cited_load(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct event *event, struct room_cited *cited_out)
{
    enum { CITED_MAX = 1000 };
    struct room_cited cited = {0};
    for (size_t i = 0; i < event->prev_event_count; i++) {
        add_id(ctx, &cited, event->prev_events[i]);
    }
    for (size_t i = 0; i < cited.count && cited.count < CITED_MAX; i++) {
        struct stored_event prev;
        bool found = false;
        TRY(hs_event_find(hs, ctx, room, cited.ids[i].s, &prev, &found));
        bool aside = found && (prev.flags & (EVENT_SOFT_FAILED | EVENT_REJECTED));
        for (size_t j = 0; aside && j < prev.event.prev_event_count; j++) {
            add_id(ctx, &cited, prev.event.prev_events[j]);
        }
    }
    *cited_out = cited;
    return OK;
}

static bool is_cited(const struct room_cited *cited, const struct extremity *extremity)
{
    struct slice id = slice_of(extremity->event_id);
    for (size_t i = 0; i < cited->count; i++) {
        if (slice_eq(cited->ids[i].s, id)) {
            return true;
        }
    }
    return false;
}

static int by_number(const void *a, const void *b)
{
    const struct extremity *left = a;
    const struct extremity *right = b;
    return (left->number > right->number) - (left->number < right->number);
}

/* Gives up the one of lowest depth, but not the newest. */
static void drop_lowest(struct extremities *ends)
{
    size_t lowest = 0;
    for (size_t i = 1; i + 1 < ends->count; i++) {
        lowest = ends->items[i].depth < ends->items[lowest].depth ? i : lowest;
    }
    memmove(&ends->items[lowest], &ends->items[lowest + 1],
            (ends->count - lowest - 1) * sizeof *ends->items);
    ends->count--;
}

void room_extremities_after(struct ctx *ctx, const struct room *room,
                            const struct room_cited *cited, const struct extremity *own,
                            struct extremities *after_out)
{
    struct extremities after = {0};
    after.items = arena_array(ctx->arena, room->extremity_count + 1, sizeof *after.items);
    for (size_t i = 0; i < room->extremity_count && cited; i++) {
        if (!is_cited(cited, &room->extremities_owned[i])) {
            after.items[after.count++] = room->extremities_owned[i];
        }
    }
    after.items[after.count++] = *own;
    if (after.count > ROOM_EXTREMITIES_MAX) {
        drop_lowest(&after);
    }
    qsort(after.items, after.count, sizeof *after.items, by_number);
    *after_out = after;
}

void room_extremities_set(struct room *room, const struct extremities *extremities)
{
    if (extremities->count > 1 || room->extremity_count > 1 || !room->extremities_owned) {
        size_t count = extremities->count ? extremities->count : 1; /* room for one at least */
        room->extremities_owned =
            mem_grow(room->extremities_owned, count * sizeof(struct extremity));
    }
    memcpy(room->extremities_owned, extremities->items,
           extremities->count * sizeof(struct extremity));
    room->extremity_count = extremities->count;
}

struct err room_extremities_root(struct hs *hs, struct ctx *ctx, struct room *room,
                                 const struct extremities *extremities, uint64_t *root_out)
{
    struct room_states states = {
        .count = extremities->count, .event = extremities->event, .number = extremities->number};
    uint64_t *roots = arena_array(ctx->arena, extremities->count + 1, sizeof *roots);
    for (size_t i = 0; i < extremities->count; i++) {
        roots[i] = extremities->items[i].root;
    }
    states.roots = roots;
    return room_resolve(hs, ctx, room, &states, root_out);
}

struct err hs_room_extremities(struct hs *hs, struct ctx *ctx, struct room *room,
                               struct event_id **ids_out, size_t *count_out)
{
    uint64_t lane = lane_of_room(room->number);
    workers_lane_enter(hs->workers, lane);
    *ids_out = arena_array(ctx->arena, room->extremity_count + 1, sizeof **ids_out);
    *count_out = room->extremity_count;
    for (size_t i = 0; i < room->extremity_count; i++) {
        struct slice id = slice_of(room->extremities_owned[i].event_id);
        (*ids_out)[i] = ids_trust_event(arena_copy(ctx->arena, id));
    }
    workers_lane_leave(hs->workers, lane);
    return OK;
}
