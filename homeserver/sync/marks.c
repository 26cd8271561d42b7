#include "homeserver/sync/marks.h"

#include "homeserver/base/mem.h"

#include <string.h>

enum { CAP_MIN = 4 };

void sync_marks_deinit(struct sync_marks *marks)
{
    mem_free(marks->items_owned);
    *marks = (struct sync_marks){0};
}

static void remove_at(struct sync_marks *marks, uint32_t at)
{
    marks->count--;
    memmove(&marks->items_owned[at], &marks->items_owned[at + 1],
            (marks->count - at) * sizeof *marks->items_owned);
}

/* Index of the room, or count; rooms that changed lately are likely to change again. */
static uint32_t find_room(const struct sync_marks *marks, uint64_t room)
{
    for (uint32_t i = marks->count; i > 0; i--) {
        if (marks->items_owned[i - 1].room == room) {
            return i - 1;
        }
    }
    return marks->count;
}

static void make_place(struct sync_marks *marks, uint32_t max)
{
    if (marks->count == max) {
        marks->complete_since = marks->items_owned[0].pos;
        remove_at(marks, 0);
    }
    if (marks->count == marks->cap) {
        marks->cap = marks->cap == 0 ? CAP_MIN : marks->cap * 2;
        marks->items_owned = mem_grow(marks->items_owned, marks->cap * sizeof *marks->items_owned);
    }
}

void sync_marks_add(struct sync_marks *marks, uint64_t room, uint64_t pos, uint32_t max)
{
    uint32_t at = find_room(marks, room);
    if (at < marks->count) {
        remove_at(marks, at);
    } else {
        make_place(marks, max);
    }
    marks->items_owned[marks->count++] = (struct sync_mark){room, pos};
}

size_t sync_marks_after(const struct sync_marks *marks, struct arena *arena, uint64_t since,
                        uint64_t **rooms_out)
{
    uint32_t first = marks->count;
    while (first > 0 && marks->items_owned[first - 1].pos > since) {
        first--;
    }
    size_t count = marks->count - first;
    *rooms_out = arena_array(arena, count, sizeof **rooms_out);
    for (size_t i = 0; i < count; i++) {
        (*rooms_out)[i] = marks->items_owned[first + i].room;
    }
    return count;
}
