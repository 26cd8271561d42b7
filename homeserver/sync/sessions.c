#include "homeserver/sync/sessions.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "homeserver/sync/holds.h"
#include "homeserver/sync/marks.h"

#include <pthread.h>
#include <string.h>

/* A subscription. */
struct user_room {
    uint64_t room;
    uint64_t member_pos; /* newest change of the user's membership seen here; 0 = none */
};

struct sync_user {
    uint64_t number;
    struct user_room *rooms_owned; /* by room number */
    size_t room_count, room_cap;
    struct sync_marks marks;
    uint64_t last_pos; /* newest change of any kind for this user */
    uint64_t account_pos, device_pos;
    struct sync_waiter *armed; /* list */
    struct sync_user *newer, *older;
    bool loading; /* subscriptions are being read; do not evict */
};

struct room_subscribers {
    struct sync_user **items_owned;
    size_t count, cap;
};

struct fanout {
    uint64_t users[SYNC_FANOUT_MAX];
    size_t count;
    bool all; /* too many: tell everybody */
    bool scheduled;
};

struct sync_sessions {
    struct sync_sessions_config config;
    pthread_mutex_t lock;              /* protects all below; leaf */
    struct map *users;                 /* number -> sync_user */
    struct map *rooms;                 /* number -> room_subscribers */
    struct sync_user *newest, *oldest; /* by last use */
    struct sync_waiter *ready_first, *ready_last;
    size_t armed_count;
    uint64_t seen_pos;   /* newest change listened to */
    uint64_t shared_pos; /* newest change of presence or device lists */
    struct fanout fanout;
    struct sync_holds *holds; /* of its own lock */
};

/* --- room index --- */

static void subscribers_add(struct sync_sessions *sessions, uint64_t room, struct sync_user *user)
{
    struct room_subscribers *list = map_get_ptr(sessions->rooms, map_key_u64(&room));
    if (list == NULL) {
        list = mem_alloc(sizeof *list);
        map_set_ptr(sessions->rooms, map_key_u64(&room), list);
    }
    if (list->count == list->cap) {
        list->cap = list->cap == 0 ? 2 : list->cap * 2;
        list->items_owned = mem_grow(list->items_owned, list->cap * sizeof(struct sync_user *));
    }
    list->items_owned[list->count++] = user;
}

static void subscribers_remove(struct sync_sessions *sessions, uint64_t room,
                               const struct sync_user *user)
{
    struct room_subscribers *list = map_get_ptr(sessions->rooms, map_key_u64(&room));
    ASSERT(list != NULL);
    for (size_t i = 0; i < list->count; i++) {
        if (list->items_owned[i] == user) {
            list->items_owned[i] = list->items_owned[--list->count];
            break;
        }
    }
    if (list->count == 0) {
        map_remove(sessions->rooms, map_key_u64(&room));
        mem_free(list->items_owned);
        mem_free(list);
    }
}

/* --- a user's subscriptions --- */

/* Where the room stands or would stand. */
static size_t find_room(const struct sync_user *user, uint64_t room)
{
    size_t low = 0;
    size_t high = user->room_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (user->rooms_owned[middle].room < room) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool has_room_at(const struct sync_user *user, size_t at, uint64_t room)
{
    return at < user->room_count && user->rooms_owned[at].room == room;
}

static void subscribe(struct sync_sessions *sessions, struct sync_user *user, uint64_t room,
                      uint64_t member_pos)
{
    size_t at = find_room(user, room);
    if (has_room_at(user, at, room)) {
        if (member_pos > user->rooms_owned[at].member_pos) {
            user->rooms_owned[at].member_pos = member_pos;
        }
        return;
    }
    if (user->room_count == user->room_cap) {
        user->room_cap = user->room_cap == 0 ? 4 : user->room_cap * 2;
        user->rooms_owned = mem_grow(user->rooms_owned, user->room_cap * sizeof(struct user_room));
    }
    memmove(&user->rooms_owned[at + 1], &user->rooms_owned[at],
            (user->room_count - at) * sizeof(struct user_room));
    user->rooms_owned[at] = (struct user_room){room, member_pos};
    user->room_count++;
    subscribers_add(sessions, room, user);
}

static void unsubscribe_at(struct sync_sessions *sessions, struct sync_user *user, size_t at)
{
    subscribers_remove(sessions, user->rooms_owned[at].room, user);
    user->room_count--;
    memmove(&user->rooms_owned[at], &user->rooms_owned[at + 1],
            (user->room_count - at) * sizeof(struct user_room));
}

/* --- users, by last use --- */

static struct sync_user *find_user(struct sync_sessions *sessions, uint64_t number)
{
    return map_get_ptr(sessions->users, map_key_u64(&number));
}

static void unlink_user(struct sync_sessions *sessions, struct sync_user *user)
{
    *(user->newer ? &user->newer->older : &sessions->newest) = user->older;
    *(user->older ? &user->older->newer : &sessions->oldest) = user->newer;
    user->newer = NULL;
    user->older = NULL;
}

static void link_newest(struct sync_sessions *sessions, struct sync_user *user)
{
    user->older = sessions->newest;
    *(sessions->newest ? &sessions->newest->newer : &sessions->oldest) = user;
    sessions->newest = user;
}

static void drop_user(struct sync_sessions *sessions, struct sync_user *user)
{
    while (user->room_count > 0) {
        unsubscribe_at(sessions, user, user->room_count - 1);
    }
    unlink_user(sessions, user);
    map_remove(sessions->users, map_key_u64(&user->number));
    sync_marks_deinit(&user->marks);
    mem_free(user->rooms_owned);
    mem_free(user);
}

/* Whoever waits is in use, however long ago it came. */
static void evict(struct sync_sessions *sessions)
{
    enum { TRIES_MAX = 8 };
    struct sync_user *user = sessions->oldest;
    for (int i = 0; i < TRIES_MAX && user != NULL; i++) {
        struct sync_user *next = user->newer;
        if (map_count(sessions->users) <= sessions->config.users_max) {
            return;
        }
        if (user->armed == NULL && !user->loading) {
            drop_user(sessions, user);
        }
        user = next;
    }
}

/* --- waking --- */

static void unlink_armed(struct sync_sessions *sessions, struct sync_waiter *waiter)
{
    *(waiter->prev ? &waiter->prev->next : &waiter->user->armed) = waiter->next;
    if (waiter->next) {
        waiter->next->prev = waiter->prev;
    }
    waiter->next = NULL;
    waiter->prev = NULL;
    waiter->user = NULL;
    sessions->armed_count--;
}

static void push_ready(struct sync_sessions *sessions, struct sync_waiter *waiter)
{
    waiter->state = SYNC_WAITER_READY;
    waiter->next = NULL;
    *(sessions->ready_last ? &sessions->ready_last->next : &sessions->ready_first) = waiter;
    sessions->ready_last = waiter;
}

/* Of a device id, cut as in changes. */
static uint64_t hash_device(struct slice device_id)
{
    size_t len = device_id.len < SYNC_DEVICE_BYTES_MAX ? device_id.len : SYNC_DEVICE_BYTES_MAX - 1;
    return slice_hash(slice_sub(device_id, 0, len));
}

/* device NULL = whatever the device. */
static void wake_waiters(struct sync_sessions *sessions, struct sync_user *user, const char *device)
{
    uint64_t hash = device ? hash_device(slice_of(device)) : 0;
    struct sync_waiter *next = NULL;
    for (struct sync_waiter *waiter = user->armed; waiter != NULL; waiter = next) {
        next = waiter->next;
        if (device == NULL || hash == waiter->device) {
            unlink_armed(sessions, waiter);
            push_ready(sessions, waiter);
        }
    }
}

static bool is_held(struct sync_sessions *sessions, uint64_t user)
{
    return sync_holds_limit(sessions->holds, user, UINT64_MAX) != UINT64_MAX;
}

/* While something is held back from the user there is nothing new to see; the end of the hold
 * wakes. */
static void wake_user(struct sync_sessions *sessions, struct sync_user *user, const char *device)
{
    if (user->armed != NULL && !is_held(sessions, user->number)) {
        wake_waiters(sessions, user, device);
    }
}

static void run_waiter(void *arg)
{
    struct sync_waiter *waiter = arg;
    waiter->wake(waiter->arg);
}

/* Hands ready waiters to the workers. When their queue is full the rest goes with the next run; at
 * worst the poll's own time-out answers it. */
static void release_ready(struct sync_sessions *sessions)
{
    for (;;) {
        pthread_mutex_lock(&sessions->lock);
        struct sync_waiter *waiter = sessions->ready_first;
        if (waiter != NULL) {
            sessions->ready_first = waiter->next;
            sessions->ready_last = waiter->next ? sessions->ready_last : NULL;
            waiter->state = SYNC_WAITER_IDLE;
            waiter->next = NULL;
        }
        pthread_mutex_unlock(&sessions->lock);
        if (waiter == NULL) {
            return;
        }
        if (!workers_submit(sessions->config.workers, 0, run_waiter, waiter)) {
            pthread_mutex_lock(&sessions->lock);
            push_ready(sessions, waiter);
            pthread_mutex_unlock(&sessions->lock);
            return;
        }
    }
}

/* --- changes --- */

static void mark_room(struct sync_sessions *sessions, const struct change *change)
{
    const struct room_subscribers *list = map_get_ptr(sessions->rooms, map_key_u64(&change->room));
    for (size_t i = 0; list != NULL && i < list->count; i++) {
        struct sync_user *user = list->items_owned[i];
        sync_marks_add(&user->marks, change->room, change->pos, SYNC_MARKS_MAX);
        user->last_pos = change->pos;
        wake_user(sessions, user, NULL);
    }
}

static void mark_membership(struct sync_sessions *sessions, const struct change *change)
{
    struct sync_user *user = find_user(sessions, change->user);
    if (user != NULL) {
        subscribe(sessions, user, change->room, change->pos);
    }
    mark_room(sessions, change);
}

/* A member event names the local user whose membership it changes. */
static void mark_event(struct sync_sessions *sessions, const struct change *change)
{
    if (change->user != 0) {
        mark_membership(sessions, change);
    } else {
        mark_room(sessions, change);
    }
}

static void mark_account(struct sync_sessions *sessions, const struct change *change)
{
    struct sync_user *user = find_user(sessions, change->user);
    if (user == NULL) {
        return;
    }
    if (change->room != 0) {
        sync_marks_add(&user->marks, change->room, change->pos, SYNC_MARKS_MAX);
    }
    user->account_pos = change->pos;
    user->last_pos = change->pos;
    wake_user(sessions, user, NULL);
}

static void mark_device(struct sync_sessions *sessions, const struct change *change)
{
    struct sync_user *user = find_user(sessions, change->user);
    if (user == NULL) {
        return;
    }
    user->device_pos = change->pos;
    user->last_pos = change->pos;
    wake_user(sessions, user, change->device_id);
}

/* Whom it concerns takes the store to find out: a job tells them (fan_out). */
static void mark_shared(struct sync_sessions *sessions, const struct change *change)
{
    struct fanout *fanout = &sessions->fanout;
    sessions->shared_pos = change->pos;
    if (sessions->armed_count == 0 ||
        (fanout->count > 0 && fanout->users[fanout->count - 1] == change->user)) {
        return;
    }
    if (fanout->count == SYNC_FANOUT_MAX) {
        fanout->all = true;
        return;
    }
    fanout->users[fanout->count++] = change->user;
}

static void on_change(void *arg, const struct change *change)
{
    struct sync_sessions *sessions = arg;
    pthread_mutex_lock(&sessions->lock);
    sessions->seen_pos = change->pos;
    if (change->gate != NULL) {
        sync_holds_add(sessions->holds, change->gate, change->pos);
    }
    switch (change->kind) {
    case CHANGE_EVENT:
        mark_event(sessions, change);
        break;
    case CHANGE_STATE_ONLY:
    case CHANGE_RECEIPT:
    case CHANGE_TYPING:
        mark_room(sessions, change);
        break;
    case CHANGE_MEMBERSHIP:
        mark_membership(sessions, change);
        break;
    case CHANGE_ACCOUNT_DATA:
    case CHANGE_PUSH_RULES:
        mark_account(sessions, change);
        break;
    case CHANGE_TO_DEVICE:
    case CHANGE_KEY_COUNTS:
        mark_device(sessions, change);
        break;
    case CHANGE_DEVICE_KEYS:
    case CHANGE_PRESENCE:
    case CHANGE_PROFILE:
        mark_shared(sessions, change);
        break;
    }
    pthread_mutex_unlock(&sessions->lock);
}

/* --- presence, profiles and device lists: telling those who share a room --- */

static void wake_neighbour(struct sync_sessions *sessions, uint64_t number)
{
    struct sync_user *user = find_user(sessions, number);
    if (user != NULL) {
        wake_user(sessions, user, NULL);
    }
}

static void wake_everybody(struct sync_sessions *sessions)
{
    for (struct sync_user *user = sessions->newest; user != NULL; user = user->older) {
        wake_user(sessions, user, NULL);
    }
}

static void tell_neighbours(struct sync_sessions *sessions, uint64_t number)
{
    struct ctx ctx = {
        .arena = arena_new(), .now = sessions->config.now, .log = sessions->config.log};
    const struct sync_source *source = &sessions->config.source;
    uint64_t *users = NULL;
    size_t count = 0;
    struct err err = source->users_sharing(source->arg, &ctx, number, &users, &count);
    pthread_mutex_lock(&sessions->lock);
    wake_neighbour(sessions, number);
    for (size_t i = 0; i < count; i++) {
        wake_neighbour(sessions, users[i]);
    }
    if (err.code != 0) {
        wake_everybody(sessions);
    }
    pthread_mutex_unlock(&sessions->lock);
    arena_free(&ctx.arena);
}

static void fan_out(void *arg)
{
    struct sync_sessions *sessions = arg;
    for (;;) {
        pthread_mutex_lock(&sessions->lock);
        struct fanout *fanout = &sessions->fanout;
        if (fanout->all) {
            fanout->all = false;
            fanout->count = 0;
            wake_everybody(sessions);
        }
        bool more = fanout->count > 0;
        uint64_t number = more ? fanout->users[--fanout->count] : 0;
        fanout->scheduled = more;
        pthread_mutex_unlock(&sessions->lock);
        if (!more) {
            break;
        }
        tell_neighbours(sessions, number);
    }
    release_ready(sessions);
}

static void on_published(void *arg, uint64_t pos)
{
    struct sync_sessions *sessions = arg;
    (void)pos;
    release_ready(sessions);
    pthread_mutex_lock(&sessions->lock);
    bool schedule = sessions->fanout.count > 0 && !sessions->fanout.scheduled;
    sessions->fanout.scheduled = sessions->fanout.scheduled || schedule;
    pthread_mutex_unlock(&sessions->lock);
    if (schedule && !workers_submit(sessions->config.workers, 0, fan_out, sessions)) {
        pthread_mutex_lock(&sessions->lock);
        sessions->fanout.scheduled = false;
        pthread_mutex_unlock(&sessions->lock);
    }
}

/* The user's requests that held something back are answered. */
static void on_hold_ended(void *arg, uint64_t number)
{
    struct sync_sessions *sessions = arg;
    pthread_mutex_lock(&sessions->lock);
    struct sync_user *user = find_user(sessions, number);
    if (user != NULL) {
        wake_waiters(sessions, user, NULL);
    }
    pthread_mutex_unlock(&sessions->lock);
    release_ready(sessions);
}

/* --- life --- */

struct sync_sessions *sync_sessions_new(const struct sync_sessions_config *config)
{
    struct sync_sessions *sessions = mem_alloc(sizeof *sessions);
    sessions->config = *config;
    pthread_mutex_init(&sessions->lock, NULL);
    sessions->users = map_new();
    sessions->rooms = map_new();
    sessions->seen_pos = positions_published(config->positions);
    sessions->shared_pos = sessions->seen_pos;
    sessions->holds = sync_holds_new(on_hold_ended, sessions);
    positions_listen(config->positions, on_change, sessions);
    positions_on_published(config->positions, on_published, sessions);
    return sessions;
}

void sync_sessions_free(struct sync_sessions **sessions)
{
    if (*sessions == NULL) {
        return;
    }
    sync_holds_free(&(*sessions)->holds);
    while ((*sessions)->newest != NULL) {
        drop_user(*sessions, (*sessions)->newest);
    }
    map_free(&(*sessions)->users);
    map_free(&(*sessions)->rooms);
    pthread_mutex_destroy(&(*sessions)->lock);
    mem_free(*sessions);
    *sessions = NULL;
}

/* --- looking --- */

static void add_user(struct sync_sessions *sessions, uint64_t number)
{
    struct sync_user *user = mem_alloc(sizeof *user);
    user->number = number;
    user->loading = true;
    user->marks.complete_since = UINT64_MAX;
    map_set_ptr(sessions->users, map_key_u64(&number), user);
    link_newest(sessions, user);
    evict(sessions);
}

static void finish_loading(struct sync_sessions *sessions, struct sync_user *user, struct err err)
{
    user->loading = false;
    if (err.code != 0) {
        drop_user(sessions, user);
        return;
    }
    user->marks.complete_since = sessions->seen_pos;
    user->last_pos = sessions->seen_pos;
    user->account_pos = sessions->seen_pos;
    user->device_pos = sessions->seen_pos;
}

/* Changes of the user's own memberships reach the entry from the moment it exists; so the rooms
 * read here may lack none in which the user is afterwards. Before this moment nothing is known. */
static struct err load_user(struct sync_sessions *sessions, struct ctx *ctx, uint64_t number)
{
    const struct sync_source *source = &sessions->config.source;
    uint64_t *rooms = NULL;
    size_t count = 0;
    struct err err = source->rooms_joined(source->arg, ctx, number, &rooms, &count);
    pthread_mutex_lock(&sessions->lock);
    struct sync_user *user = find_user(sessions, number);
    for (size_t i = 0; user != NULL && err.code == 0 && i < count; i++) {
        subscribe(sessions, user, rooms[i], 0);
    }
    if (user != NULL && user->loading) {
        finish_loading(sessions, user, err);
    }
    pthread_mutex_unlock(&sessions->lock);
    return err;
}

/* The user's entry, made when missing; the lock is held afterwards unless there is an error. */
static struct err open_user(struct sync_sessions *sessions, struct ctx *ctx, uint64_t number,
                            struct sync_user **user_out)
{
    pthread_mutex_lock(&sessions->lock);
    struct sync_user *user = find_user(sessions, number);
    if (user == NULL || user->loading) {
        if (ctx->on_loop) {
            pthread_mutex_unlock(&sessions->lock);
            return err_make(ERR_WAITS, "the user's rooms are read");
        }
        if (user == NULL) {
            add_user(sessions, number);
        }
        pthread_mutex_unlock(&sessions->lock);
        TRY(load_user(sessions, ctx, number));
        pthread_mutex_lock(&sessions->lock);
        user = find_user(sessions, number);
    }
    *user_out = user;
    if (user == NULL) {
        pthread_mutex_unlock(&sessions->lock);
        return err_make(ERR_UNAVAILABLE, "too many users are syncing");
    }
    return OK;
}

struct err sync_sessions_look(struct sync_sessions *sessions, struct ctx *ctx, uint64_t number,
                              uint64_t since, struct sync_look *look_out)
{
    struct sync_user *user = NULL;
    *look_out = (struct sync_look){0};
    TRY(open_user(sessions, ctx, number, &user));
    unlink_user(sessions, user);
    link_newest(sessions, user);
    /* Listeners run before a position is published: all up to here is marked. */
    look_out->upto =
        sync_holds_limit(sessions->holds, number, positions_published(sessions->config.positions));
    look_out->complete = since >= user->marks.complete_since;
    look_out->nothing = user->last_pos <= since && sessions->shared_pos <= since;
    look_out->account_pos = user->account_pos;
    look_out->device_pos = user->device_pos;
    look_out->shared_pos = sessions->shared_pos;
    if (look_out->complete && !look_out->nothing) {
        look_out->room_count = sync_marks_after(&user->marks, ctx->arena, since, &look_out->rooms);
    }
    pthread_mutex_unlock(&sessions->lock);
    return OK;
}

void sync_sessions_leave(struct sync_sessions *sessions, uint64_t number, uint64_t room,
                         uint64_t upto)
{
    pthread_mutex_lock(&sessions->lock);
    struct sync_user *user = find_user(sessions, number);
    if (user != NULL) {
        size_t at = find_room(user, room);
        if (has_room_at(user, at, room) && user->rooms_owned[at].member_pos <= upto) {
            unsubscribe_at(sessions, user, at);
        }
    }
    pthread_mutex_unlock(&sessions->lock);
}

/* --- waiting --- */

void sync_waiter_init(struct sync_waiter *waiter, struct slice device_id, void (*wake)(void *arg),
                      void *arg)
{
    *waiter = (struct sync_waiter){.wake = wake, .arg = arg, .device = hash_device(device_id)};
}

/* Changes beyond `upto` that are not published yet cannot be read: the waiter is woken with them.
 * Those that are held back wake it when the hold ends. */
static bool arm(struct sync_sessions *sessions, struct sync_user *user, uint64_t upto,
                struct sync_waiter *waiter)
{
    bool changed = user->last_pos > upto || sessions->shared_pos > upto;
    /* Read once: whoever is not woken by the next publication must not miss this one. */
    uint64_t published = positions_published(sessions->config.positions);
    if (changed && sync_holds_limit(sessions->holds, user->number, published) > upto) {
        return false;
    }
    if (changed && published <= upto) {
        push_ready(sessions, waiter);
        return true;
    }
    waiter->state = SYNC_WAITER_ARMED;
    waiter->user = user;
    waiter->prev = NULL;
    waiter->next = user->armed;
    if (user->armed) {
        user->armed->prev = waiter;
    }
    user->armed = waiter;
    sessions->armed_count++;
    return true;
}

bool sync_sessions_wait(struct sync_sessions *sessions, uint64_t number, uint64_t upto,
                        struct sync_waiter *waiter)
{
    pthread_mutex_lock(&sessions->lock);
    struct sync_user *user = find_user(sessions, number);
    /* Evicted since the look: look again. */
    bool armed = user != NULL && !user->loading && arm(sessions, user, upto, waiter);
    pthread_mutex_unlock(&sessions->lock);
    return armed;
}

static void unlink_ready(struct sync_sessions *sessions, struct sync_waiter *waiter)
{
    struct sync_waiter *before = NULL;
    for (struct sync_waiter *at = sessions->ready_first; at != waiter; at = at->next) {
        before = at;
    }
    *(before ? &before->next : &sessions->ready_first) = waiter->next;
    if (sessions->ready_last == waiter) {
        sessions->ready_last = before;
    }
}

bool sync_sessions_cancel(struct sync_sessions *sessions, struct sync_waiter *waiter)
{
    pthread_mutex_lock(&sessions->lock);
    bool waits = waiter->state != SYNC_WAITER_IDLE;
    if (waiter->state == SYNC_WAITER_ARMED) {
        unlink_armed(sessions, waiter);
    } else if (waiter->state == SYNC_WAITER_READY) {
        unlink_ready(sessions, waiter);
    }
    waiter->state = SYNC_WAITER_IDLE;
    pthread_mutex_unlock(&sessions->lock);
    return waits;
}

bool sync_sessions_settled(struct sync_sessions *sessions, uint64_t user)
{
    return !is_held(sessions, user);
}

void sync_sessions_settle(struct sync_sessions *sessions, uint64_t user)
{
    if (is_held(sessions, user)) {
        workers_pause();
        sync_holds_wait(sessions->holds, user);
        workers_resume();
    }
}

void sync_sessions_get_stats(struct sync_sessions *sessions, struct sync_sessions_stats *stats_out)
{
    pthread_mutex_lock(&sessions->lock);
    *stats_out = (struct sync_sessions_stats){.users = map_count(sessions->users),
                                              .rooms = map_count(sessions->rooms),
                                              .armed = sessions->armed_count};
    pthread_mutex_unlock(&sessions->lock);
}
