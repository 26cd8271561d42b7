/* Who waits for events of one room without being in it: those who peek. One mutex, a leaf; a change
 * costs a lookup when nobody watches its room. There are no more of them than connections. Spec:
 * client-server, "Room previews". */
#pragma once
#include "homeserver/base/workers.h"
#include "store/positions.h"

struct sync_room_watch;

/* Listens to the positions: before the first reserve. */
struct sync_room_watch *sync_room_watch_new(struct positions *positions, struct workers *workers);
/* Positions and workers must have stopped, watchers be cancelled. */
void sync_room_watch_free(struct sync_room_watch **watch);

/* The owner's memory, which must live until wake has run or sync_room_watch_cancel said true. */
struct sync_watcher {
    void (*wake)(void *arg); /* on a worker, once per sync_room_watch_wait */
    void *arg;
    uint64_t room; /* the rest belongs to room_watch.c */
    struct sync_watcher *next, *prev;
    enum { SYNC_WATCHER_IDLE, SYNC_WATCHER_ARMED, SYNC_WATCHER_READY } state;
};

/* Arms for changes of the room after `upto`. `changed_pos` is the position of its newest change, as
 * read before this call. False, and not armed, when that one has been seen already: look again. */
bool sync_room_watch_wait(struct sync_room_watch *watch, struct sync_watcher *watcher,
                          uint64_t changed_pos, uint64_t upto);
/* True: wake will not be called. False: it was or will be. */
bool sync_room_watch_cancel(struct sync_room_watch *watch, struct sync_watcher *watcher);
