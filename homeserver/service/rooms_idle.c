/* Rooms that nobody holds keep what composing and counting want at hand - state events, power
 * levels - as long as they are among those used last: it is most of what a room takes. */
#include "homeserver/service/room_priv.h"

enum { IDLE_WARM_MAX = 256 };

void rooms_idle_forget(struct hs_rooms *rooms, struct room *room)
{
    if (!room->is_warm) {
        return;
    }
    *(room->warm_older ? &room->warm_older->warm_newer : &rooms->warm_oldest) = room->warm_newer;
    *(room->warm_newer ? &room->warm_newer->warm_older : &rooms->warm_newest) = room->warm_older;
    room->is_warm = false;
    rooms->warm_count--;
}

static void append(struct hs_rooms *rooms, struct room *room)
{
    room->warm_older = rooms->warm_newest;
    room->warm_newer = NULL;
    *(rooms->warm_newest ? &rooms->warm_newest->warm_newer : &rooms->warm_oldest) = room;
    rooms->warm_newest = room;
    room->is_warm = true;
    rooms->warm_count++;
}

void rooms_idle_note(struct hs_rooms *rooms, struct room *room)
{
    rooms_idle_forget(rooms, room);
    if (map_count(room->state_cache_owned) > 0 || room->levels_owned) {
        append(rooms, room);
    }
    while (rooms->warm_count > IDLE_WARM_MAX) {
        struct room *oldest = rooms->warm_oldest;
        rooms_idle_forget(rooms, oldest);
        if (oldest->refs == 0) { /* so no job is in its lane; whoever holds it notes it again */
            room_state_cache_clear(oldest);
            room_levels_drop(oldest);
        }
    }
}

void hs_rooms_get_figures(const struct hs *hs, struct hs_rooms_figures *figures_out)
{
    struct hs_rooms *rooms = hs->rooms;
    pthread_mutex_lock(&rooms->lock);
    size_t count = map_count(rooms->by_number);
    pthread_mutex_unlock(&rooms->lock);
    *figures_out = (struct hs_rooms_figures){.room_count = count,
                                             .row_bytes = row_cache_bytes(rooms->rows_owned)};
}
