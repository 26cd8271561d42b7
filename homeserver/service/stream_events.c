#include "homeserver/service/stream_events.h"

#include "homeserver/base/mem.h"

#include <stdlib.h>

enum { PAGE = 100 };

struct reading {
    struct hs *hs;
    uint64_t since;
    stream_wants_fn wants;
    void *arg;
    struct stream_events found;
};

static int by_pos(const void *a, const void *b)
{
    uint64_t left = ((const struct stream_event *)a)->pos;
    uint64_t right = ((const struct stream_event *)b)->pos;
    return (left > right) - (left < right);
}

static void add(struct reading *reading, uint64_t room, const struct stored_event *event)
{
    struct stream_events *found = &reading->found;
    if (event->pos == 0 || (reading->wants && !reading->wants(reading->arg, event))) {
        return;
    }
    if (found->count == found->cap) {
        found->cap = found->cap ? found->cap * 2 : 256;
        found->items_owned = mem_grow(found->items_owned, found->cap * sizeof *found->items_owned);
    }
    found->items_owned[found->count++] = (struct stream_event){room, event->number, event->pos};
}

/* A page in memory of its own. `next` becomes 0 when nothing of the room is left to read. */
static struct err read_page(struct reading *reading, struct ctx *ctx, struct room *room,
                            int64_t *next)
{
    struct stored_events events;
    struct event_range range = {
        .from = *next, .limit = PAGE, .order = EVENTS_REVERSE, .form = EVENTS_SCANNED};
    TRY(hs_events_read(reading->hs, ctx, room, range, &events));
    for (size_t i = 0; i < events.count; i++) {
        if (events.items[i].pos != 0 && events.items[i].pos <= reading->since) {
            *next = 0;
            return OK;
        }
        add(reading, hs_room_info(room).number, &events.items[i]);
        *next = events.items[i].number;
    }
    *next = events.count < PAGE ? 0 : *next;
    return OK;
}

static struct err read_room(struct reading *reading, struct ctx *page, uint64_t number)
{
    struct room *room = NULL;
    struct err err = hs_room_get(reading->hs, page, number, &room);
    if (err.code != 0) { /* a broken room keeps nobody else back */
        return err.code == ERR_IO ? err : OK;
    }
    struct room_head head = hs_room_head(room);
    int64_t next = head.pos > reading->since ? head.number + 1 : 0;
    while (next != 0) {
        TRY(read_page(reading, page, room, &next));
    }
    return OK;
}

struct err hs_stream_events_since(struct hs *hs, struct ctx *ctx, uint64_t since,
                                  stream_wants_fn wants, void *arg,
                                  struct stream_events *events_out)
{
    struct reading reading = {.hs = hs, .since = since, .wants = wants, .arg = arg};
    struct store_rows rooms;
    struct ctx page = *ctx;
    struct err err = OK;
    *events_out = (struct stream_events){0};
    struct store_object numbers = {STORE_ROOM_IDS, LIT("numbers")};
    TRY(store_read_range(hs->store, ctx, numbers, (struct store_range){0}, &rooms));
    page.arena = arena_new();
    page.deferred = NULL;
    for (size_t i = 0; i < rooms.count && err.code == 0; i++) {
        struct unpack key = unpack_of(rooms.rows[i].key);
        err = read_room(&reading, &page, unpack_be64(&key));
        ctx_finish(&page);
        arena_reset(page.arena);
    }
    arena_free(&page.arena);
    if (err.code != 0) {
        mem_free(reading.found.items_owned);
        return err;
    }
    if (reading.found.count > 1) {
        qsort(reading.found.items_owned, reading.found.count, sizeof *reading.found.items_owned,
              by_pos);
    }
    *events_out = reading.found;
    return OK;
}
