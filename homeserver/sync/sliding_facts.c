#include "homeserver/sync/sliding_facts.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <pthread.h>

struct facts {
    uint64_t active_pos, changed_pos;
    uint64_t root; /* the state of which is_encrypted speaks; 0 = none */
    uint64_t type;
    uint64_t bump_pos;
    int64_t bump_number; /* looked at up to here; 0 = not yet */
    bool is_active_read, is_type_read, is_encrypted;
};

struct sliding_facts {
    struct hs *hs;
    pthread_mutex_t lock; /* protects all below; leaf */
    struct map *rooms;    /* number -> struct facts */
    bool forgotten;       /* some were: what happened in their rooms is not known any more */
};

/* --- the table, under the lock --- */

static void drop_all(struct sliding_facts *facts)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(facts->rooms, &cursor, &key, &value)) {
        mem_free((void *)(uintptr_t)value);
    }
    map_free(&facts->rooms);
    facts->rooms = map_new();
}

static struct facts *open_room(struct sliding_facts *facts, uint64_t room)
{
    struct facts *known = map_get_ptr(facts->rooms, map_key_u64(&room));
    if (known) {
        return known;
    }
    if (map_count(facts->rooms) >= SLIDING_FACTS_MAX) {
        drop_all(facts);
        facts->forgotten = true;
    }
    known = mem_alloc(sizeof *known);
    map_set_ptr(facts->rooms, map_key_u64(&room), known);
    return known;
}

/* A copy; an entry is there from now on, so that changes reach it. */
static struct facts read_room(struct sliding_facts *facts, uint64_t room)
{
    pthread_mutex_lock(&facts->lock);
    struct facts copy = *open_room(facts, room);
    pthread_mutex_unlock(&facts->lock);
    return copy;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* --- changes --- */

static void on_change(void *arg, const struct change *change)
{
    struct sliding_facts *facts = arg;
    if (change->room == 0) {
        return;
    }
    pthread_mutex_lock(&facts->lock);
    struct facts *known = map_get_ptr(facts->rooms, map_key_u64(&change->room));
    if (known) {
        known->changed_pos = larger(known->changed_pos, change->pos);
        if (change->kind == CHANGE_EVENT) {
            known->active_pos = larger(known->active_pos, change->pos);
        }
    }
    pthread_mutex_unlock(&facts->lock);
}

/* --- life --- */

struct sliding_facts *sync_sliding_facts_new(struct hs *hs)
{
    struct sliding_facts *facts = mem_alloc(sizeof *facts);
    facts->hs = hs;
    pthread_mutex_init(&facts->lock, NULL);
    facts->rooms = map_new();
    positions_listen(hs->positions, on_change, facts);
    return facts;
}

void sync_sliding_facts_free(struct sliding_facts **facts)
{
    if (*facts == NULL) {
        return;
    }
    drop_all(*facts);
    map_free(&(*facts)->rooms);
    pthread_mutex_destroy(&(*facts)->lock);
    mem_free(*facts);
    *facts = NULL;
}

/* --- activity --- */

struct err sync_sliding_activity(struct sliding_facts *facts, struct ctx *ctx, uint64_t room,
                                 struct sliding_activity *activity_out)
{
    struct facts copy = read_room(facts, room);
    if (!copy.is_active_read) {
        uint64_t published = positions_published(facts->hs->positions);
        uint64_t pos = 0;
        TRY(hs_room_active_pos(facts->hs, ctx, room, &pos));
        pthread_mutex_lock(&facts->lock);
        struct facts *known = open_room(facts, room);
        known->is_active_read = true;
        known->active_pos = larger(known->active_pos, pos);
        known->changed_pos =
            larger(larger(known->changed_pos, pos), facts->forgotten ? published : 0);
        copy = *known;
        pthread_mutex_unlock(&facts->lock);
    }
    *activity_out =
        (struct sliding_activity){.active_pos = copy.active_pos, .changed_pos = copy.changed_pos};
    return OK;
}

/* --- kind --- */

uint64_t sync_sliding_type_hash(struct slice type)
{
    uint64_t hash = slice_hash(type);
    return type.len == 0 ? 0 : hash ? hash : 1;
}

static struct err read_type(struct sliding_facts *facts, struct ctx *ctx, struct room *room,
                            uint64_t root, uint64_t *type_out)
{
    struct stored_event create;
    bool found = false;
    TRY(hs_state_event(facts->hs, ctx, room, root, LIT("m.room.create"), LIT(""), &create, &found));
    struct slice type = {0};
    if (found) {
        type = json_get_string(create.event.content, LIT("type"));
    }
    *type_out = sync_sliding_type_hash(type);
    return OK;
}

static struct err read_encryption(struct sliding_facts *facts, struct ctx *ctx, struct room *room,
                                  uint64_t root, bool *is_encrypted_out)
{
    uint64_t key = 0;
    int64_t number = 0;
    *is_encrypted_out = false;
    TRY(hs_state_key_find(facts->hs, ctx, room, LIT("m.room.encryption"), LIT(""), &key,
                          is_encrypted_out));
    return *is_encrypted_out && root ? state_get(facts->hs->states, ctx, hs_room_info(room).number,
                                                 root, key, &number, is_encrypted_out)
                                     : OK;
}

struct err sync_sliding_kind(struct sliding_facts *facts, struct ctx *ctx, uint64_t number,
                             struct sliding_kind *kind_out)
{
    struct facts copy = read_room(facts, number);
    struct room *room = NULL;
    TRY(hs_room_get(facts->hs, ctx, number, &room));
    uint64_t root = hs_room_head(room).root;
    if (!copy.is_type_read || copy.root != root) {
        if (!copy.is_type_read) {
            TRY(read_type(facts, ctx, room, root, &copy.type));
        }
        TRY(read_encryption(facts, ctx, room, root, &copy.is_encrypted));
        pthread_mutex_lock(&facts->lock);
        struct facts *known = open_room(facts, number);
        known->is_type_read = root != 0;
        known->type = copy.type;
        known->root = root;
        known->is_encrypted = copy.is_encrypted;
        pthread_mutex_unlock(&facts->lock);
    }
    *kind_out = (struct sliding_kind){copy.type, copy.is_encrypted};
    return OK;
}

/* --- bump stamps --- */

/* Spec: MSC4186, "RoomResult": which events are proper activity. */
static bool bumps(struct slice type)
{
    static const struct slice types[] = {
        {"m.room.create", 13},
        {"m.room.message", 14},
        {"m.room.encrypted", 16},
        {"m.sticker", 9},
        {"m.call.invite", 13},
        {"m.poll.start", 12},
        {"m.beacon_info", 13},
        {"org.matrix.msc3381.poll.start", 29},
        {"org.matrix.msc3672.beacon_info", 30},
    };
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        if (slice_eq(type, types[i])) {
            return true;
        }
    }
    return false;
}

/* Newest first, down to `floor`. */
static struct err scan(struct sliding_facts *facts, struct ctx *ctx, struct room *room,
                       int64_t newest, int64_t floor, uint64_t *pos_io)
{
    enum { PAGE_MIN = 2, PAGE_MAX = 64, SCAN_MAX = 400 };
    int64_t from = newest + 1;
    size_t page = PAGE_MIN;
    for (size_t scanned = 0; scanned < SCAN_MAX;) {
        struct stored_events events;
        struct event_range range = {.from = from,
                                    .to = floor,
                                    .limit = page,
                                    .order = EVENTS_REVERSE,
                                    .form = EVENTS_SCANNED};
        TRY(hs_events_read(facts->hs, ctx, room, range, &events));
        for (size_t i = 0; i < events.count; i++) {
            from = events.items[i].number;
            if (events.items[i].pos > 0 && bumps(events.items[i].event.type)) {
                *pos_io = events.items[i].pos;
                return OK;
            }
        }
        scanned += events.count;
        if (events.count < page) {
            break;
        }
        page = page < PAGE_MAX ? page * 2 : page;
    }
    return OK;
}

struct err sync_sliding_bump(struct sliding_facts *facts, struct ctx *ctx, struct room *room,
                             uint64_t *pos_out)
{
    uint64_t number = hs_room_info(room).number;
    struct facts copy = read_room(facts, number);
    int64_t newest = hs_room_head(room).number;
    *pos_out = copy.bump_pos;
    if (newest <= copy.bump_number) {
        return OK;
    }
    TRY(scan(facts, ctx, room, newest, copy.bump_number, pos_out));
    pthread_mutex_lock(&facts->lock);
    struct facts *known = open_room(facts, number);
    if (newest > known->bump_number) {
        known->bump_number = newest;
        known->bump_pos = *pos_out;
    }
    pthread_mutex_unlock(&facts->lock);
    return OK;
}
