/* Snapshots of states that other servers told. They may be as large as the room: events are read,
 * and snapshots written, piece by piece; what stays of each event are its key and its number. */
#include "homeserver/base/mem.h"
#include "homeserver/service/intake_priv.h"

#include <stdlib.h>
#include <string.h>

enum { EVENTS_PER_PAGE = 100, CHANGES_PER_WRITE = 2000 };

struct told_entry {
    struct state_entry entry;
    size_t at; /* of several for one key the last one counts */
};

struct told {
    struct told_entry *entries_owned;
    size_t count, cap;
    struct event_id *missing;
    size_t missing_count, missing_cap;
    size_t absent_count; /* of numbers */
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

static void add(struct told *told, struct state_entry entry)
{
    if (told->count == told->cap) {
        told->cap = told->cap ? told->cap + told->cap / 2 : 64;
        told->entries_owned = mem_grow(told->entries_owned, told->cap * sizeof(struct told_entry));
    }
    told->entries_owned[told->count] = (struct told_entry){entry, told->count};
    told->count++;
}

/* --- reading --- */

static struct err take_event(struct hs *hs, struct ctx *page, struct room *room,
                             const struct stored_event *event, struct told *told)
{
    uint64_t key = 0;
    bool named = false;
    if (!event->event.has_state_key || (event->flags & EVENT_REJECTED)) {
        return OK;
    }
    TRY(hs_state_key_find(hs, page, room, event->event.type, event->event.state_key, &key, &named));
    if (named) {
        add(told, (struct state_entry){.key = key, .event = event->number});
    }
    return OK;
}

static struct err take_id(struct hs *hs, struct ctx *page, struct room *room, struct event_id id,
                          struct told *told, bool *here_out)
{
    struct stored_event event;
    uint64_t other = 0;
    int64_t number = 0;
    TRY(hs_event_locate(hs, page, id.s, &other, &number, here_out));
    *here_out = *here_out && other == room->number;
    if (*here_out) {
        TRY(hs_event_scan(hs, page, room, number, &event, here_out));
    }
    return *here_out ? take_event(hs, page, room, &event, told) : OK;
}

static struct err take_ids(struct hs *hs, struct ctx *ctx, struct room *room,
                           struct state_wanted wanted, struct told *told)
{
    struct ctx page = room_page_begin(ctx);
    struct err err = OK;
    for (size_t i = 0; i < wanted.count && err.code == 0; i++) {
        bool here = false;
        err = take_id(hs, &page, room, wanted.ids[i], told, &here);
        if (err.code == 0 && !here) {
            miss(ctx, told, wanted.ids[i]);
        }
        if (err.code == 0) {
            room_page_next(&page);
        }
    }
    return room_page_end(ctx, &page, err);
}

static struct err take_run(struct hs *hs, struct ctx *page, struct room *room,
                           struct event_numbers numbers, struct told *told)
{
    struct stored_events events;
    TRY(hs_events_scan_many(hs, page, room, numbers, &events));
    for (size_t i = 0; i < events.count; i++) {
        TRY(take_event(hs, page, room, &events.items[i], told));
    }
    told->absent_count += numbers.count - events.count;
    return OK;
}

static struct err take_numbers(struct hs *hs, struct ctx *ctx, struct room *room,
                               struct event_numbers numbers, struct told *told)
{
    struct ctx page = room_page_begin(ctx);
    struct err err = OK;
    page.reads_once = true;
    for (size_t at = 0; at < numbers.count && err.code == 0; at += EVENTS_PER_PAGE) {
        size_t left = numbers.count - at;
        struct event_numbers run = {numbers.items + at,
                                    left < EVENTS_PER_PAGE ? left : EVENTS_PER_PAGE};
        err = take_run(hs, &page, room, run, told);
        if (err.code == 0) {
            room_page_next(&page);
        }
    }
    return room_page_end(ctx, &page, err);
}

/* --- putting it in order --- */

static int by_key_then_place(const void *a, const void *b)
{
    const struct told_entry *left = a;
    const struct told_entry *right = b;
    if (left->entry.key != right->entry.key) {
        return left->entry.key < right->entry.key ? -1 : 1;
    }
    return (left->at > right->at) - (left->at < right->at);
}

static void put_in_order(struct told *told)
{
    struct told_entry *entries = told->entries_owned;
    size_t kept = 0;
    if (told->count) {
        qsort(entries, told->count, sizeof *entries, by_key_then_place);
    }
    for (size_t i = 0; i < told->count; i++) {
        if (i + 1 == told->count || entries[i + 1].entry.key != entries[i].entry.key) {
            entries[kept++] = entries[i];
        }
    }
    told->count = kept;
}

static int by_key(const void *key, const void *item)
{
    uint64_t wanted = *(const uint64_t *)key;
    uint64_t found = ((const struct told_entry *)item)->entry.key;
    return (wanted > found) - (wanted < found);
}

static bool tells_of(const struct told *told, uint64_t key)
{
    return told->count &&
           bsearch(&key, told->entries_owned, told->count, sizeof *told->entries_owned, by_key);
}

/* --- writing --- */

static struct err apply(struct hs *hs, struct ctx *page, struct room *room,
                        struct state_entries changes, uint64_t *root_io)
{
    struct store_update *update = store_update_new(page, room_state_object(page, room->number));
    uint64_t before = *root_io;
    if (changes.count == 0) {
        return OK;
    }
    TRY(state_apply(hs->states, page, room->number, before, changes.items, changes.count, update,
                    root_io));
    return *root_io == before ? OK : store_write(hs->store, page, &update, 1);
}

/* What the state has now and the told one has not. */
static struct err remove_untold(struct hs *hs, struct ctx *page, struct room *room,
                                const struct told *told, uint64_t *root_io)
{
    struct state_page state = {.right = *root_io, .limit = CHANGES_PER_WRITE, .more = true};
    while (state.more) {
        struct state_entries gone = {0};
        TRY(state_diff_page(hs->states, page, room->number, &state));
        gone.items = arena_array(page->arena, state.count + 1, sizeof *gone.items);
        for (size_t i = 0; i < state.count; i++) {
            if (!tells_of(told, state.items[i].key)) {
                gone.items[gone.count++] = (struct state_entry){.key = state.items[i].key};
            }
        }
        TRY(apply(hs, page, room, gone, root_io));
        room_page_next(page);
    }
    return OK;
}

static struct err put_told(struct hs *hs, struct ctx *page, struct room *room,
                           const struct told *told, uint64_t *root_io)
{
    for (size_t at = 0; at < told->count;) {
        struct state_entries changes = {
            .items = arena_array(page->arena, CHANGES_PER_WRITE, sizeof *changes.items)};
        while (at < told->count && changes.count < CHANGES_PER_WRITE) {
            changes.items[changes.count++] = told->entries_owned[at++].entry;
        }
        TRY(apply(hs, page, room, changes, root_io));
        room_page_next(page);
    }
    return OK;
}

static struct err write_difference(struct hs *hs, struct ctx *ctx, struct room *room,
                                   struct told *told, uint64_t *root_out)
{
    struct ctx page = room_page_begin(ctx);
    put_in_order(told);
    *root_out = room->head.root;
    struct err err = remove_untold(hs, &page, room, told, root_out);
    if (err.code == 0) {
        err = put_told(hs, &page, room, told, root_out);
    }
    return room_page_end(ctx, &page, err);
}

struct err intake_state_of(struct hs *hs, struct ctx *ctx, struct room *room,
                           struct state_wanted wanted, uint64_t *root_out,
                           struct event_id **missing_out, size_t *missing_count_out)
{
    struct told told = {0};
    *root_out = 0;
    struct err err = take_ids(hs, ctx, room, wanted, &told);
    if (err.code == 0 && told.missing_count == 0) {
        err = write_difference(hs, ctx, room, &told, root_out);
    }
    mem_free(told.entries_owned);
    *missing_out = told.missing;
    *missing_count_out = told.missing_count;
    return err;
}

struct err intake_state_of_numbers(struct hs *hs, struct ctx *ctx, struct room *room,
                                   const struct intake_whole *whole, uint64_t *root_out)
{
    struct told told = {0};
    *root_out = 0;
    struct event_numbers numbers = {whole->numbers, whole->count};
    struct err err = take_numbers(hs, ctx, room, numbers, &told);
    if (err.code == 0 && whole->on_top) {
        err = take_numbers(hs, ctx, room, (struct event_numbers){&whole->on_top, 1}, &told);
    }
    if (err.code == 0 && told.absent_count) {
        err = err_public(ERR_M_NOT_FOUND, "Events of the state before the join are missing.");
    }
    if (err.code == 0) {
        err = write_difference(hs, ctx, room, &told, root_out);
    }
    mem_free(told.entries_owned);
    return err;
}

struct err intake_state_put(struct hs *hs, struct ctx *ctx, struct room *room,
                            struct state_entries entries, uint64_t *root_out)
{
    struct ctx page = room_page_begin(ctx);
    struct err err = OK;
    *root_out = 0;
    for (size_t at = 0; at < entries.count && err.code == 0; at += CHANGES_PER_WRITE) {
        size_t left = entries.count - at;
        struct state_entries some = {entries.items + at,
                                     left < CHANGES_PER_WRITE ? left : CHANGES_PER_WRITE};
        err = apply(hs, &page, room, some, root_out);
        if (err.code == 0) {
            room_page_next(&page);
        }
    }
    return room_page_end(ctx, &page, err);
}
