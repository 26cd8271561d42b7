#include "homeserver/base/mem.h"
#include "homeserver/service/check_priv.h"
#include "homeserver/service/room_priv.h"
#include "spec/room_rules.h"

#include <string.h>

enum { ROWS_BYTES_MAX = 8 << 20, ENTRIES_MAX = 1024 };

bool hs_is_local(const struct hs *hs, struct slice server_name)
{
    return slice_eq(hs->server_name, server_name);
}

struct store_object room_object(struct ctx *ctx, uint64_t room)
{
    return (struct store_object){STORE_ROOM, store_id_u64(ctx->arena, room)};
}

struct store_object room_derived_object(struct ctx *ctx, uint64_t room)
{
    return (struct store_object){STORE_ROOM_DERIVED, store_id_u64(ctx->arena, room)};
}

struct store_object room_state_object(struct ctx *ctx, uint64_t room)
{
    return (struct store_object){STORE_ROOM_STATE, store_id_u64(ctx->arena, room)};
}

struct store_object user_object(struct ctx *ctx, uint64_t user)
{
    return (struct store_object){STORE_USER, store_id_u64(ctx->arena, user)};
}

struct slice key_bytes(struct ctx *ctx, char prefix, struct slice bytes)
{
    return arena_concat(ctx->arena, (struct slice){&prefix, 1}, bytes);
}

struct slice key_u64(struct ctx *ctx, char prefix, uint64_t number)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, 16);
    buf_add_byte(&key, prefix);
    pack_be64(&key, number);
    return buf_slice(&key);
}

struct slice key_i64(struct ctx *ctx, char prefix, int64_t number)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, 16);
    buf_add_byte(&key, prefix);
    pack_be_i64(&key, number);
    return buf_slice(&key);
}

struct slice state_pair(struct ctx *ctx, struct slice type, struct slice state_key)
{
    struct buf pair;
    buf_init_arena(&pair, ctx->arena, SIZE_MAX / 2);
    buf_add(&pair, type);
    buf_add_byte(&pair, '\0');
    buf_add(&pair, state_key);
    return buf_slice(&pair);
}

/* --- the cache --- */

struct hs_rooms *hs_rooms_new(struct hs *hs, size_t rooms_max)
{
    struct hs_rooms *rooms = mem_alloc(sizeof *rooms);
    rooms->hs = hs;
    rooms->rooms_max = rooms_max;
    rooms->by_number = map_new();
    rooms->numbers = map_new();
    rooms->rows_owned = row_cache_new(ROWS_BYTES_MAX);
    rooms->arena_owned = arena_new();
    rooms->everybody = push_rules_of_everybody(rooms->arena_owned);
    pthread_mutex_init(&rooms->lock, NULL);
    return rooms;
}

static void drop_entries(struct room *room)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (room->entries_owned && map_next(room->entries_owned, &cursor, &key, &value)) {
        mem_free((void *)(uintptr_t)value);
    }
    map_free(&room->entries_owned);
}

void room_free(struct room *room)
{
    room_state_cache_clear(room);
    room_levels_drop(room);
    drop_entries(room);
    map_free(&room->state_cache_owned);
    map_free(&room->keys_owned);
    map_free(&room->servers_owned);
    mem_free(room->room_id_owned);
    mem_free(room->local_users_owned);
    mem_free(room->extremities_owned);
    pthread_mutex_destroy(&room->lock);
    mem_free(room);
}

void hs_rooms_free(struct hs_rooms **rooms)
{
    if (!*rooms) {
        return;
    }
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next((*rooms)->by_number, &cursor, &key, &value)) {
        room_free((struct room *)(uintptr_t)value);
    }
    map_free(&(*rooms)->by_number);
    map_free(&(*rooms)->numbers);
    row_cache_free(&(*rooms)->rows_owned);
    arena_free(&(*rooms)->arena_owned);
    pthread_mutex_destroy(&(*rooms)->lock);
    mem_free(*rooms);
    *rooms = NULL;
}

static struct room *room_alloc(uint64_t number, struct slice room_id,
                               const struct room_rules *rules)
{
    struct room *room = mem_alloc(sizeof *room);
    room->number = number;
    room->room_id_owned = mem_alloc_raw(room_id.len + 1);
    memcpy(room->room_id_owned, room_id.ptr, room_id.len);
    room->room_id_owned[room_id.len] = '\0';
    room->room_id_len = room_id.len;
    room->rules = rules;
    room->next_key = 1;
    room->next_apart = EVENT_APART_FIRST;
    room->keys_owned = map_new();
    room->state_cache_owned = map_new();
    pthread_mutex_init(&room->lock, NULL);
    return room;
}

/* A job has ended that held the room. */
static void release(void *owner, void *thing)
{
    struct hs_rooms *rooms = owner;
    struct room *room = thing;
    pthread_mutex_lock(&rooms->lock);
    ASSERT(room->refs > 0);
    room->refs--;
    if (room->broken && room->refs == 0) {
        map_remove(rooms->by_number, map_key_u64(&room->number));
        rooms_idle_forget(rooms, room);
        room_free(room);
    } else if (room->refs == 0) {
        rooms_idle_note(rooms, room);
    }
    pthread_mutex_unlock(&rooms->lock);
}

struct store_object rooms_purged_object(void)
{
    return (struct store_object){STORE_ROOM_IDS, LIT("purged")};
}

void rooms_drop(struct hs *hs, uint64_t number, struct slice room_id)
{
    struct hs_rooms *rooms = hs->rooms;
    row_cache_drop_room(rooms->rows_owned, number);
    pthread_mutex_lock(&rooms->lock);
    struct room *room = map_get_ptr(rooms->by_number, map_key_u64(&number));
    map_remove(rooms->numbers, room_id);
    row_cache_drop_room(rooms->rows_owned, number);
    if (room) {
        room->broken = true;
    }
    if (room && room->refs == 0) {
        map_remove(rooms->by_number, map_key_u64(&number));
        rooms_idle_forget(rooms, room);
        room_free(room);
    }
    pthread_mutex_unlock(&rooms->lock);
}

void room_mark_broken(struct hs *hs, struct room *room)
{
    pthread_mutex_lock(&hs->rooms->lock);
    room->broken = true;
    pthread_mutex_unlock(&hs->rooms->lock);
}

struct err room_check_there(const struct room *room)
{
    return room->is_purged ? err_public(ERR_M_NOT_FOUND, "The room was removed.") : OK;
}

/* Adds a loaded room, or gives back the one that another thread added first. */
static struct room *cache_insert(struct ctx *ctx, struct hs_rooms *rooms, struct room *room)
{
    pthread_mutex_lock(&rooms->lock);
    struct room *other = map_get_ptr(rooms->by_number, map_key_u64(&room->number));
    if (other) {
        room_free(room);
        room = other;
    } else {
        rooms_evict_some(rooms);
        room->entries_version = ++rooms->tick << 24; /* not one of an earlier stay in memory */
        map_set_ptr(rooms->by_number, map_key_u64(&room->number), room);
    }
    room->refs++;
    room->used_tick = ++rooms->tick;
    pthread_mutex_unlock(&rooms->lock);
    ctx_defer(ctx, release, rooms, room);
    return room;
}

struct room *rooms_adopt(struct hs *hs, struct ctx *ctx, uint64_t number, struct slice room_id,
                         const struct room_rules *rules)
{
    return cache_insert(ctx, hs->rooms, room_alloc(number, room_id, rules));
}

/* --- loading --- */

/* (STORE_ROOM_IDS, "numbers"): be64 number -> version NUL room id. */
static struct store_object numbers_object(void)
{
    return (struct store_object){STORE_ROOM_IDS, LIT("numbers")};
}

static struct err load_extremities(struct hs *hs, struct ctx *ctx, struct room *room,
                                   const struct room_record *record, int64_t number)
{
    const int64_t *numbers = record->extremity_count ? record->extremities : &number;
    size_t count = record->extremity_count ? record->extremity_count : 1;
    room->extremities_owned = mem_alloc(count * sizeof *room->extremities_owned);
    for (size_t i = 0; i < count; i++) {
        struct stored_event stored;
        bool found = false;
        TRY(hs_event_load(hs, ctx, room, numbers[i], &stored, &found));
        if (!found || stored.event.id.s.len >= sizeof room->extremities_owned[0].event_id) {
            return err_make(ERR_CORRUPT, "a forward extremity is missing");
        }
        struct extremity *extremity = &room->extremities_owned[i];
        extremity->number = stored.number;
        extremity->root = stored.state_after;
        extremity->depth = stored.event.depth;
        memcpy(extremity->event_id, stored.event.id.s.ptr, stored.event.id.s.len);
        room->extremity_count++;
    }
    return OK;
}

/* The newest live row that is in the timeline. */
struct newest {
    int64_t number; /* 0 = there is none */
    int64_t last;   /* newest live row of any kind */
    struct room_record record;
};

static struct err find_newest(struct hs *hs, struct ctx *ctx, uint64_t room, size_t page,
                              struct newest *newest_out)
{
    struct store_range range = {.from = key_i64(ctx, ROOM_KEY_EVENT, 1),
                                .to = key_i64(ctx, ROOM_KEY_EVENT, INT64_MAX),
                                .limit = page,
                                .order = STORE_REVERSE};
    *newest_out = (struct newest){0};
    for (;;) {
        struct store_rows rows;
        TRY(store_read_range(hs->store, ctx, room_object(ctx, room), range, &rows));
        for (size_t i = 0; i < rows.count; i++) {
            struct unpack key = unpack_of(slice_from(rows.rows[i].key, 1));
            int64_t number = unpack_be_i64(&key);
            int64_t moved = 0;
            newest_out->last = newest_out->last ? newest_out->last : number;
            if (room_forward_decode(rows.rows[i].value, &moved)) {
                continue;
            }
            TRY(room_record_decode(ctx->arena, rows.rows[i].value, &newest_out->record));
            if (!(newest_out->record.flags &
                  (EVENT_OUTLIER | EVENT_REJECTED | EVENT_SOFT_FAILED))) {
                newest_out->number = number;
                return OK;
            }
        }
        if (rows.count < range.limit) {
            return OK;
        }
        range.to = rows.rows[rows.count - 1].key;
    }
}

static uint64_t newest_pos(const struct newest *newest)
{
    const struct room_record *record = &newest->record;
    return record->flags & EVENT_LATER ? record->later_pos : record->pos;
}

/* It says all about the head. */
static struct err load_head(struct hs *hs, struct ctx *ctx, struct room *room)
{
    enum { PAGE = 64 };
    struct newest newest;
    TRY(find_newest(hs, ctx, room->number, PAGE, &newest));
    room->next_number = newest.last ? newest.last + 1 : 0;
    if (newest.number == 0) {
        return OK;
    }
    const struct room_record *record = &newest.record;
    room->head = (struct room_head){.number = newest.number,
                                    .pos = newest_pos(&newest),
                                    .root = room_record_root(record),
                                    .joined_count = record->joined_count,
                                    .invited_count = record->invited_count};
    room->next_key = record->next_key;
    return load_extremities(hs, ctx, room, record, newest.number);
}

static struct err newest_row(struct hs *hs, struct ctx *ctx, const struct room *room,
                             struct store_range range, struct slice *key_out)
{
    struct store_rows rows;
    range.limit = 1;
    range.order = STORE_REVERSE;
    TRY(store_read_range(hs->store, ctx, room_object(ctx, room->number), range, &rows));
    *key_out = rows.count ? slice_from(rows.rows[0].key, 1) : (struct slice){0};
    return OK;
}

/* The next numbers of what is not in the timeline. */
static struct err load_counters(struct hs *hs, struct ctx *ctx, struct room *room)
{
    struct slice key;
    struct store_range apart = {.from = key_i64(ctx, ROOM_KEY_EVENT, EVENT_APART_FIRST),
                                .to = key_i64(ctx, ROOM_KEY_EVENT, EVENT_APART_LAST)};
    struct store_range names = {.from = key_u64(ctx, ROOM_KEY_STATE_NAME, 0),
                                .to = key_bytes(ctx, ROOM_KEY_STATE_NAME + 1, (struct slice){0})};
    TRY(newest_row(hs, ctx, room, apart, &key));
    struct unpack in = unpack_of(key);
    room->next_apart = key.len ? unpack_be_i64(&in) + 1 : EVENT_APART_FIRST;
    TRY(newest_row(hs, ctx, room, names, &key));
    in = unpack_of(key);
    uint64_t named = key.len ? unpack_be64(&in) + 1 : 1;
    room->next_key = room->next_key > named ? room->next_key : named;
    return OK;
}

static struct err load_local_users(struct hs *hs, struct ctx *ctx, struct room *room)
{
    struct store_rows rows;
    struct store_range range = {.from = key_bytes(ctx, DERIVED_KEY_LOCAL, (struct slice){0}),
                                .to = key_bytes(ctx, DERIVED_KEY_LOCAL + 1, (struct slice){0})};
    TRY(store_read_range(hs->store, ctx, room_derived_object(ctx, room->number), range, &rows));
    room->local_users_owned = mem_alloc((rows.count + 1) * sizeof *room->local_users_owned);
    room->local_user_cap = rows.count + 1;
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack key = unpack_of(slice_from(rows.rows[i].key, 1));
        room->local_users_owned[room->local_user_count++] = unpack_be64(&key);
    }
    return OK;
}

static struct err load_receipt_pos(struct hs *hs, struct ctx *ctx, struct room *room)
{
    struct store_rows rows;
    struct store_range range = {
        .from = key_bytes(ctx, DERIVED_KEY_RECEIPT_POS, (struct slice){0}),
        .to = key_bytes(ctx, DERIVED_KEY_RECEIPT_POS + 1, (struct slice){0}),
        .limit = 1,
        .order = STORE_REVERSE,
    };
    TRY(store_read_range(hs->store, ctx, room_derived_object(ctx, room->number), range, &rows));
    if (rows.count) {
        struct unpack key = unpack_of(slice_from(rows.rows[0].key, 1));
        room->head.receipt_pos = unpack_be64(&key);
    }
    return OK;
}

/* A crash on a store that keeps objects apart may leave the derived rows behind the log, which is
 * the truth: they are made anew. In the embedded store both come in one write. */
static struct err catch_up(struct hs *hs, struct ctx *ctx, struct room *room)
{
    struct slice row;
    bool found = false;
    if (room->next_number <= 1) {
        return OK;
    }
    struct store_object derived = room_derived_object(ctx, room->number);
    struct slice key = key_bytes(ctx, DERIVED_KEY_WATERMARK, (struct slice){0});
    TRY(store_get(hs->store, ctx, derived, key, &row, &found));
    struct unpack in = unpack_of(found ? row : (struct slice){0});
    if (found && unpack_i64(&in) >= room->next_number - 1) {
        return OK;
    }
    struct check_room behind = {.number = room->number,
                                .room_id = {room->room_id_owned, room->room_id_len},
                                .rules = room->rules};
    TRY(rebuild_room(hs, ctx, &behind));
    struct buf mark;
    buf_init_arena(&mark, ctx->arena, 16);
    pack_i64(&mark, room->next_number - 1);
    struct store_update *update = store_update_new(ctx, derived);
    store_put(update, key, buf_slice(&mark));
    return store_write(hs->store, ctx, &update, 1);
}

static struct err load_parts(struct hs *hs, struct ctx *ctx, struct room *room)
{
    TRY(load_head(hs, ctx, room));
    TRY(load_counters(hs, ctx, room));
    TRY(room_cites_load(hs, ctx, room));
    TRY(room_partial_load(hs, ctx, room));
    TRY(catch_up(hs, ctx, room));
    TRY(load_receipt_pos(hs, ctx, room));
    return load_local_users(hs, ctx, room);
}

static struct err load_room(struct hs *hs, struct ctx *ctx, uint64_t number, struct room **room_out)
{
    struct slice row;
    struct slice version;
    bool found = false;
    struct slice key = store_id_u64(ctx->arena, number);
    TRY(store_get(hs->store, ctx, numbers_object(), key, &row, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "Room not found.");
    }
    struct slice room_id = slice_cut(row, '\0', &version);
    const struct room_rules *rules = room_rules_get(version);
    if (!rules) {
        return err_make(ERR_CORRUPT, "stored room has an unknown version");
    }
    struct room *room = room_alloc(number, room_id, rules);
    struct err err = load_parts(hs, ctx, room);
    if (err.code != 0) {
        room_free(room);
        return err;
    }
    *room_out = cache_insert(ctx, hs->rooms, room);
    return OK;
}

struct err hs_room_get(struct hs *hs, struct ctx *ctx, uint64_t number, struct room **room_out)
{
    struct hs_rooms *rooms = hs->rooms;
    pthread_mutex_lock(&rooms->lock);
    struct room *room = map_get_ptr(rooms->by_number, map_key_u64(&number));
    bool broken = room && room->broken;
    if (room && !broken) {
        room->refs++;
        room->used_tick = ++rooms->tick;
    }
    pthread_mutex_unlock(&rooms->lock);
    if (broken) {
        return err_make(ERR_IO, "the room is being reloaded after a failed write");
    }
    if (room) {
        ctx_defer(ctx, release, rooms, room);
        *room_out = room;
        return OK;
    }
    return load_room(hs, ctx, number, room_out);
}

struct err hs_room_find(struct hs *hs, struct ctx *ctx, struct slice room_id, uint64_t *number_out,
                        bool *found_out)
{
    struct hs_rooms *rooms = hs->rooms;
    struct slice row;
    pthread_mutex_lock(&rooms->lock);
    *found_out = map_get(rooms->numbers, room_id, number_out);
    pthread_mutex_unlock(&rooms->lock);
    if (*found_out || room_id.len == 0 || room_id.len > STORE_KEY_BYTES_MAX) {
        return OK;
    }
    struct store_object ids = {STORE_ROOM_IDS, LIT("ids")};
    TRY(store_get(hs->store, ctx, ids, room_id, &row, found_out));
    if (!*found_out) {
        return OK;
    }
    struct unpack in = unpack_of(row);
    *number_out = unpack_u64(&in);
    TRY(unpack_check(&in));
    pthread_mutex_lock(&rooms->lock);
    if (map_count(rooms->numbers) > rooms->rooms_max * 4) {
        map_free(&rooms->numbers);
        rooms->numbers = map_new();
    }
    map_set(rooms->numbers, room_id, *number_out);
    pthread_mutex_unlock(&rooms->lock);
    return OK;
}

struct err hs_room_get_by_id(struct hs *hs, struct ctx *ctx, struct slice room_id,
                             struct room **room_out)
{
    uint64_t number = 0;
    bool found = false;
    TRY(hs_room_find(hs, ctx, room_id, &number, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "Room not found.");
    }
    return hs_room_get(hs, ctx, number, room_out);
}

/* The highest number given out so far: of the rooms that are there, and of those that were purged,
 * whose numbers never name another room. */
static struct err last_number(struct hs *hs, struct ctx *ctx, uint64_t *number_out)
{
    const struct store_object objects[] = {numbers_object(), rooms_purged_object()};
    struct store_range range = {.limit = 1, .order = STORE_REVERSE};
    *number_out = 0;
    for (size_t i = 0; i < COUNT_OF(objects); i++) {
        struct store_rows rows;
        TRY(store_read_range(hs->store, ctx, objects[i], range, &rows));
        struct unpack key = unpack_of(rows.count ? rows.rows[0].key : (struct slice){0});
        uint64_t newest = rows.count ? unpack_be64(&key) : 0;
        *number_out = newest > *number_out ? newest : *number_out;
    }
    return OK;
}

uint64_t rooms_next_number(struct hs *hs, struct ctx *ctx, struct err *err_out)
{
    struct hs_rooms *rooms = hs->rooms;
    uint64_t last = 0;
    *err_out = OK;
    pthread_mutex_lock(&rooms->lock);
    if (rooms->next_number == 0) {
        *err_out = last_number(hs, ctx, &last);
        rooms->next_number = last + 1;
    }
    uint64_t number = err_out->code ? 0 : rooms->next_number++;
    if (err_out->code) {
        rooms->next_number = 0;
    }
    pthread_mutex_unlock(&rooms->lock);
    return number;
}

void rooms_hold(struct hs *hs, struct room *room)
{
    pthread_mutex_lock(&hs->rooms->lock);
    room->refs++;
    pthread_mutex_unlock(&hs->rooms->lock);
}

void rooms_unhold(struct hs *hs, struct room *room)
{
    release(hs->rooms, room);
}

/* --- reading what is loaded --- */

struct room_info hs_room_info(const struct room *room)
{
    return (struct room_info){.number = room->number,
                              .room_id = {room->room_id_owned, room->room_id_len},
                              .rules = room->rules};
}

struct room_head hs_room_head(struct room *room)
{
    pthread_mutex_lock(&room->lock);
    struct room_head head = room->head;
    pthread_mutex_unlock(&room->lock);
    return head;
}

uint64_t hs_room_changed_pos(struct room *room)
{
    struct room_head head = hs_room_head(room);
    return head.pos > head.receipt_pos ? head.pos : head.receipt_pos;
}

struct err hs_room_active_pos(struct hs *hs, struct ctx *ctx, uint64_t number, uint64_t *pos_out)
{
    enum { PAGE = 2 };
    struct newest newest;
    pthread_mutex_lock(&hs->rooms->lock);
    struct room *room = map_get_ptr(hs->rooms->by_number, map_key_u64(&number));
    if (room) {
        room->refs++;
    }
    pthread_mutex_unlock(&hs->rooms->lock);
    if (room) {
        *pos_out = hs_room_head(room).pos;
        release(hs->rooms, room);
        return OK;
    }
    TRY(find_newest(hs, ctx, number, PAGE, &newest));
    *pos_out = newest.number ? newest_pos(&newest) : 0;
    return OK;
}

void hs_room_set_receipt_pos(struct room *room, uint64_t pos)
{
    pthread_mutex_lock(&room->lock);
    if (pos > room->head.receipt_pos) {
        room->head.receipt_pos = pos;
    }
    pthread_mutex_unlock(&room->lock);
}

bool hs_room_is_resident(struct room *room)
{
    pthread_mutex_lock(&room->lock);
    bool resident = room->local_user_count > 0;
    pthread_mutex_unlock(&room->lock);
    return resident;
}

size_t hs_room_local_users(struct ctx *ctx, struct room *room, uint64_t **users_out)
{
    pthread_mutex_lock(&room->lock);
    size_t count = room->local_user_count;
    *users_out = arena_array(ctx->arena, count, sizeof **users_out);
    if (count) {
        memcpy(*users_out, room->local_users_owned, count * sizeof **users_out);
    }
    pthread_mutex_unlock(&room->lock);
    return count;
}

bool rooms_copy_joined(struct hs *hs, struct ctx *ctx, uint64_t number, uint64_t **users_out,
                       size_t *count_out)
{
    struct hs_rooms *rooms = hs->rooms;
    bool all = false;
    pthread_mutex_lock(&rooms->lock);
    struct room *room = map_get_ptr(rooms->by_number, map_key_u64(&number));
    if (room && !room->broken) {
        *count_out = hs_room_local_users(ctx, room, users_out);
        all = hs_room_head(room).joined_count == *count_out;
    }
    pthread_mutex_unlock(&rooms->lock);
    return all;
}

/* --- entries of joined users --- */

/* The room with its lock taken, or NULL when it is not in memory. */
static struct room *lock_room(struct hs_rooms *rooms, uint64_t number)
{
    pthread_mutex_lock(&rooms->lock);
    struct room *room = map_get_ptr(rooms->by_number, map_key_u64(&number));
    room = room && !room->broken ? room : NULL;
    if (room) {
        pthread_mutex_lock(&room->lock);
    }
    pthread_mutex_unlock(&rooms->lock);
    return room;
}

bool rooms_get_entry(struct hs *hs, uint64_t user, struct user_room *entry_io,
                     uint64_t *version_out)
{
    struct room *room = lock_room(hs->rooms, entry_io->room);
    const struct user_room *known = NULL;
    *version_out = UINT64_MAX;
    if (!room) {
        return false;
    }
    *version_out = room->entries_version;
    if (room->entries_owned) {
        known = map_get_ptr(room->entries_owned, map_key_u64(&user));
    }
    if (known) {
        *entry_io = *known;
    }
    pthread_mutex_unlock(&room->lock);
    return known != NULL;
}

void rooms_offer_entry(struct hs *hs, uint64_t user, const struct user_room *entry,
                       uint64_t version)
{
    bool fits = entry->membership == MEMBERSHIP_JOIN && entry->invite_state.len == 0;
    struct room *room = fits ? lock_room(hs->rooms, entry->room) : NULL;
    if (!room) {
        return;
    }
    if (room->entries_owned && map_count(room->entries_owned) >= ENTRIES_MAX) {
        drop_entries(room);
    }
    if (!room->entries_owned) {
        room->entries_owned = map_new();
    }
    if (room->entries_version == version && !map_get_ptr(room->entries_owned, map_key_u64(&user))) {
        struct user_room *kept = mem_alloc(sizeof *kept);
        *kept = *entry;
        kept->invite_state = (struct slice){0};
        map_set_ptr(room->entries_owned, map_key_u64(&user), kept);
    }
    pthread_mutex_unlock(&room->lock);
}

/* Index of the user, or where it would go. */
static size_t find_local(const struct room *room, uint64_t user)
{
    size_t low = 0;
    size_t high = room->local_user_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (room->local_users_owned[middle] < user) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void insert_local(struct room *room, size_t at, uint64_t user)
{
    if (room->local_user_count == room->local_user_cap) {
        room->local_user_cap = room->local_user_cap ? room->local_user_cap * 2 : 4;
        room->local_users_owned =
            mem_grow(room->local_users_owned, room->local_user_cap * sizeof(uint64_t));
    }
    memmove(room->local_users_owned + at + 1, room->local_users_owned + at,
            (room->local_user_count - at) * sizeof(uint64_t));
    room->local_users_owned[at] = user;
    room->local_user_count++;
}

void room_entry_forget(struct room *room, uint64_t user)
{
    pthread_mutex_lock(&room->lock);
    room->entries_version++;
    if (room->entries_owned) {
        mem_free(map_get_ptr(room->entries_owned, map_key_u64(&user)));
        map_remove(room->entries_owned, map_key_u64(&user));
    }
    pthread_mutex_unlock(&room->lock);
}

void room_local_user_set(struct room *room, uint64_t user, enum membership membership)
{
    pthread_mutex_lock(&room->lock);
    size_t at = find_local(room, user);
    bool present = at < room->local_user_count && room->local_users_owned[at] == user;
    room->entries_version++;
    if (room->entries_owned) {
        mem_free(map_get_ptr(room->entries_owned, map_key_u64(&user)));
        map_remove(room->entries_owned, map_key_u64(&user));
    }
    if (membership == MEMBERSHIP_JOIN && !present) {
        insert_local(room, at, user);
    } else if (membership != MEMBERSHIP_JOIN && present) {
        room->local_user_count--;
        memmove(room->local_users_owned + at, room->local_users_owned + at + 1,
                (room->local_user_count - at) * sizeof(uint64_t));
    }
    pthread_mutex_unlock(&room->lock);
}
