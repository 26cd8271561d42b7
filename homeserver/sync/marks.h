/* The rooms in which something changed lately for one user, each once, in order of their last
 * change; bounded. From the position `complete_since` on the list is complete. */
#pragma once
#include "homeserver/base/arena.h"

struct sync_mark {
    uint64_t room, pos;
};

struct sync_marks {
    struct sync_mark *items_owned; /* ascending by pos */
    uint32_t count, cap;
    uint64_t complete_since;
};

void sync_marks_deinit(struct sync_marks *marks);
/* Something changed in the room at `pos`, which is not below any position marked before. Beyond
 * `max` rooms the one marked longest ago is forgotten. */
void sync_marks_add(struct sync_marks *marks, uint64_t room, uint64_t pos, uint32_t max);
/* Rooms changed after `since`, in the arena; only complete when since >= complete_since. */
size_t sync_marks_after(const struct sync_marks *marks, struct arena *arena, uint64_t since,
                        uint64_t **rooms_out);
