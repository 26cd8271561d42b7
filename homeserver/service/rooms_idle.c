/* Rooms that nobody holds keep what composing and counting want at hand - state events, power
 * levels - as long as they are among those used last: it is most of what a room takes. The rest of
 * a room leaves memory when there are too many, or when nobody has used it for a while. */
#include "homeserver/service/room_priv.h"

enum { IDLE_WARM_MAX = 256, EVICTED_AT_ONCE = 64, UNUSED_MS = 600000 };

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

/* Takes rooms from the table that nobody holds and nobody has used since. Lock held; they are to be
 * freed. */
static size_t take_idle(struct hs_rooms *rooms, uint64_t oldest, struct room **idle_out)
{
    size_t count = 0;
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (count < EVICTED_AT_ONCE && map_next(rooms->by_number, &cursor, &key, &value)) {
        struct room *room = (struct room *)(uintptr_t)value;
        if (room->refs == 0 && room->used_tick < oldest) {
            idle_out[count++] = room;
        }
    }
    for (size_t i = 0; i < count; i++) {
        map_remove(rooms->by_number, map_key_u64(&idle_out[i]->number));
        rooms_idle_forget(rooms, idle_out[i]);
    }
    return count;
}

static void free_all(struct room **idle, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        room_free(idle[i]);
    }
}

void rooms_evict_some(struct hs_rooms *rooms)
{
    struct room *idle[EVICTED_AT_ONCE];
    size_t count = EVICTED_AT_ONCE;
    if (map_count(rooms->by_number) < rooms->rooms_max) {
        return;
    }
    uint64_t oldest = rooms->tick - rooms->rooms_max * 3 / 4;
    while (count == EVICTED_AT_ONCE) {
        count = take_idle(rooms, oldest, idle);
        free_all(idle, count);
    }
}

void hs_rooms_tend(struct hs *hs)
{
    struct hs_rooms *rooms = hs->rooms;
    struct room *idle[EVICTED_AT_ONCE];
    size_t count = EVICTED_AT_ONCE;
    int64_t now = now_mono_ms(hs->now);
    if (now - rooms->tended_mono_ms < UNUSED_MS) {
        return;
    }
    uint64_t used_then = rooms->tended_tick;
    rooms->tended_mono_ms = now;
    pthread_mutex_lock(&rooms->lock);
    rooms->tended_tick = rooms->tick;
    pthread_mutex_unlock(&rooms->lock);
    while (count == EVICTED_AT_ONCE) {
        pthread_mutex_lock(&rooms->lock);
        count = take_idle(rooms, used_then + 1, idle);
        pthread_mutex_unlock(&rooms->lock);
        free_all(idle, count);
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
