/* Snapshots of states that other servers told. */
#include "homeserver/service/intake_priv.h"

#include <string.h>

struct told {
    struct map *by_key; /* key -> number */
    struct event_id *missing;
    size_t missing_count, missing_cap;
};

static void miss(struct ctx *ctx, struct told *told, struct event_id id)
{
    if (told->missing_count == told->missing_cap) {
        size_t cap = told->missing_cap ? told->missing_cap * 2 : 16;
        told->missing =
            arena_grow(ctx->arena, told->missing, told->missing_cap * sizeof id, cap * sizeof id);
        told->missing_cap = cap;
    }
    told->missing[told->missing_count++] = id;
}

/* One event, read into memory that the caller frees: only its key and number stay. */
static struct err take(struct hs *hs, struct ctx *page, struct room *room, struct event_id id,
                       struct told *told, bool *here_out)
{
    struct stored_event event;
    uint64_t other = 0;
    uint64_t key = 0;
    int64_t number = 0;
    TRY(hs_event_locate(hs, page, id.s, &other, &number, here_out));
    *here_out = *here_out && other == room->number;
    if (*here_out) {
        TRY(hs_event_scan(hs, page, room, number, &event, here_out));
    }
    if (!*here_out || !event.event.has_state_key || (event.flags & EVENT_REJECTED)) {
        return OK;
    }
    bool named = false;
    TRY(hs_state_key_find(hs, page, room, event.event.type, event.event.state_key, &key, &named));
    if (named) {
        map_set(told->by_key, map_key_u64(&key), (uint64_t)event.number);
    }
    return OK;
}

static struct err take_all(struct hs *hs, struct ctx *ctx, struct room *room,
                           struct state_wanted wanted, struct told *told)
{
    struct ctx page = room_page_begin(ctx);
    struct err err = OK;
    for (size_t i = 0; i < wanted.count && err.code == 0; i++) {
        bool here = false;
        err = take(hs, &page, room, wanted.ids[i], told, &here);
        if (err.code == 0 && !here) {
            miss(ctx, told, wanted.ids[i]);
        }
        if (err.code == 0) {
            room_page_next(&page);
        }
    }
    return room_page_end(ctx, &page, err);
}

static struct err write_difference(struct hs *hs, struct ctx *ctx, struct room *room,
                                   struct told *told, uint64_t *root_out)
{
    struct state_entries present = {0};
    uint64_t base = room->head.root;
    size_t cursor = 0;
    size_t count = 0;
    struct slice key;
    uint64_t number = 0;
    if (base) {
        TRY(state_read(hs->states, ctx, room->number, base, &present));
    }
    struct state_entry *changes =
        arena_array(ctx->arena, present.count + map_count(told->by_key) + 1, sizeof *changes);
    for (size_t i = 0; i < present.count; i++) {
        const struct state_entry *entry = &present.items[i];
        if (!map_get(told->by_key, map_key_u64(&entry->key), &number)) {
            changes[count++] = (struct state_entry){.key = entry->key};
        }
    }
    while (map_next(told->by_key, &cursor, &key, &number)) {
        struct state_entry *change = &changes[count++];
        change->event = (int64_t)number;
        memcpy(&change->key, key.ptr, sizeof change->key);
    }
    struct store_update *state = store_update_new(ctx, room_state_object(ctx, room->number));
    TRY(state_apply(hs->states, ctx, room->number, base, changes, count, state, root_out));
    return *root_out == base ? OK : store_write(hs->store, ctx, &state, 1);
}

struct err intake_state_of(struct hs *hs, struct ctx *ctx, struct room *room,
                           struct state_wanted wanted, uint64_t *root_out,
                           struct event_id **missing_out, size_t *missing_count_out)
{
    struct told told = {.by_key = map_new()};
    *root_out = 0;
    struct err err = take_all(hs, ctx, room, wanted, &told);
    if (err.code == 0 && told.missing_count == 0) {
        err = write_difference(hs, ctx, room, &told, root_out);
    }
    map_free(&told.by_key);
    *missing_out = told.missing;
    *missing_count_out = told.missing_count;
    return err;
}
