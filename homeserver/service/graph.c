/* Reading the graph of events for other servers. */
#include "homeserver/service/intake.h"
#include "homeserver/service/room_priv.h"

struct chain {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    struct map *seen;
    struct event_id *ids;
    size_t count, cap;
};

static void push(struct chain *chain, struct event_id id)
{
    uint64_t there = 0;
    if (map_get(chain->seen, id.s, &there)) {
        return;
    }
    map_set(chain->seen, id.s, 1);
    if (chain->count == chain->cap) {
        size_t cap = chain->cap ? chain->cap * 2 : 64;
        chain->ids = arena_grow(chain->ctx->arena, chain->ids, chain->cap * sizeof *chain->ids,
                                cap * sizeof *chain->ids);
        chain->cap = cap;
    }
    chain->ids[chain->count++] = (struct event_id){arena_copy(chain->ctx->arena, id.s)};
}

static struct err push_cited(struct chain *chain, struct ctx *page, struct event_id id)
{
    struct stored_event event;
    uint64_t room = 0;
    int64_t number = 0;
    bool found = false;
    TRY(hs_event_locate(chain->hs, page, id.s, &room, &number, &found));
    if (found && room == chain->room->number) {
        TRY(hs_event_scan(chain->hs, page, chain->room, number, &event, &found));
        for (size_t i = 0; found && i < event.event.auth_event_count; i++) {
            push(chain, event.event.auth_events[i]);
        }
    }
    return OK;
}

/* Spec: room version 12, the create event is not selected for auth_events, because "the room_id
 * implies this instead". So it is an auth event of all others, and servers that join look for it
 * in the chain. */
static void push_implied(struct chain *chain, const struct event_id *from, size_t count)
{
    struct slice room_id = hs_room_info(chain->room).room_id;
    struct slice create =
        arena_printf(chain->ctx->arena, "$%.*s", (int)room_id.len - 1, room_id.ptr + 1);
    bool has_others = false;
    for (size_t i = 0; i < count; i++) {
        has_others = has_others || !slice_eq(from[i].s, create);
    }
    if (has_others) {
        push(chain, ids_trust_event(create));
    }
}

/* The events are read into memory of their own: only their ids stay. */
static struct err walk(struct chain *chain, struct ctx *page, const struct event_id *from,
                       size_t count)
{
    if (chain->room->rules->hash_room_id) {
        push_implied(chain, from, count);
    }
    for (size_t i = 0; i < count; i++) {
        TRY(push_cited(chain, page, from[i]));
    }
    for (size_t i = 0; i < chain->count; i++) {
        TRY(push_cited(chain, page, chain->ids[i]));
        room_page_next(page);
    }
    return OK;
}

struct err hs_auth_chain(struct hs *hs, struct ctx *ctx, struct room *room,
                         const struct event_id *from, size_t count, struct event_id **chain_out,
                         size_t *chain_count_out)
{
    struct chain chain = {.hs = hs, .ctx = ctx, .room = room, .seen = map_new()};
    struct ctx page = room_page_begin(ctx);
    struct err err = room_page_end(ctx, &page, walk(&chain, &page, from, count));
    map_free(&chain.seen);
    *chain_out = chain.ids;
    *chain_count_out = chain.count;
    return err;
}
