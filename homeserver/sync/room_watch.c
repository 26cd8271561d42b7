#include "homeserver/sync/room_watch.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <pthread.h>

struct sync_room_watch {
    struct positions *positions;
    struct workers *workers;
    pthread_mutex_t lock;
    struct map *rooms; /* room -> the first watcher */
    struct sync_watcher *ready;
    size_t count;
    uint64_t seen_pos; /* newest change heard of */
};

/* --- lists, under the lock --- */

static struct sync_watcher *first_of(struct sync_room_watch *watch, uint64_t room)
{
    return map_get_ptr(watch->rooms, map_key_u64(&room));
}

static void set_first(struct sync_room_watch *watch, uint64_t room, struct sync_watcher *first)
{
    if (first) {
        map_set_ptr(watch->rooms, map_key_u64(&room), first);
    } else {
        map_remove(watch->rooms, map_key_u64(&room));
    }
}

static void take_out(struct sync_room_watch *watch, struct sync_watcher *watcher)
{
    if (watcher->prev) {
        watcher->prev->next = watcher->next;
    } else {
        set_first(watch, watcher->room, watcher->next);
    }
    if (watcher->next) {
        watcher->next->prev = watcher->prev;
    }
    watcher->next = watcher->prev = NULL;
    watch->count--;
}

/* --- changes --- */

static void on_change(void *arg, const struct change *change)
{
    struct sync_room_watch *watch = arg;
    pthread_mutex_lock(&watch->lock);
    watch->seen_pos = change->pos;
    bool concerns = change->room && watch->count > 0 &&
                    (change->kind == CHANGE_EVENT || change->kind == CHANGE_STATE_ONLY);
    struct sync_watcher *watcher = concerns ? first_of(watch, change->room) : NULL;
    while (watcher) {
        struct sync_watcher *next = watcher->next;
        take_out(watch, watcher);
        watcher->state = SYNC_WATCHER_READY;
        watcher->next = watch->ready;
        watch->ready = watcher;
        watcher = next;
    }
    pthread_mutex_unlock(&watch->lock);
}

/* When the queue of the workers is full the rest goes with the next run; at worst the time of the
 * request's wait is over. */
static void on_published(void *arg, uint64_t pos)
{
    struct sync_room_watch *watch = arg;
    (void)pos;
    for (;;) {
        pthread_mutex_lock(&watch->lock);
        struct sync_watcher *watcher = watch->ready;
        if (watcher) {
            watch->ready = watcher->next;
            watcher->next = NULL;
            watcher->state = SYNC_WATCHER_IDLE;
        }
        pthread_mutex_unlock(&watch->lock);
        if (!watcher) {
            return;
        }
        if (!workers_submit(watch->workers, 0, watcher->wake, watcher->arg)) {
            pthread_mutex_lock(&watch->lock);
            watcher->state = SYNC_WATCHER_READY;
            watcher->next = watch->ready;
            watch->ready = watcher;
            pthread_mutex_unlock(&watch->lock);
            return;
        }
    }
}

/* --- public --- */

struct sync_room_watch *sync_room_watch_new(struct positions *positions, struct workers *workers)
{
    struct sync_room_watch *watch = mem_alloc(sizeof *watch);
    watch->positions = positions;
    watch->workers = workers;
    watch->rooms = map_new();
    watch->seen_pos = positions_published(positions);
    pthread_mutex_init(&watch->lock, NULL);
    positions_listen(positions, on_change, watch);
    positions_on_published(positions, on_published, watch);
    return watch;
}

void sync_room_watch_free(struct sync_room_watch **watch)
{
    if (*watch == NULL) {
        return;
    }
    map_free(&(*watch)->rooms);
    pthread_mutex_destroy(&(*watch)->lock);
    mem_free(*watch);
    *watch = NULL;
}

bool sync_room_watch_wait(struct sync_room_watch *watch, struct sync_watcher *watcher,
                          uint64_t changed_pos, uint64_t upto)
{
    pthread_mutex_lock(&watch->lock);
    bool is_late = changed_pos > upto && changed_pos <= watch->seen_pos;
    if (!is_late) {
        struct sync_watcher *first = first_of(watch, watcher->room);
        watcher->next = first;
        watcher->prev = NULL;
        if (first) {
            first->prev = watcher;
        }
        set_first(watch, watcher->room, watcher);
        watcher->state = SYNC_WATCHER_ARMED;
        watch->count++;
    }
    pthread_mutex_unlock(&watch->lock);
    return !is_late;
}

bool sync_room_watch_cancel(struct sync_room_watch *watch, struct sync_watcher *watcher)
{
    pthread_mutex_lock(&watch->lock);
    bool was_armed = watcher->state == SYNC_WATCHER_ARMED;
    if (was_armed) {
        take_out(watch, watcher);
        watcher->state = SYNC_WATCHER_IDLE;
    }
    pthread_mutex_unlock(&watch->lock);
    return was_armed;
}
