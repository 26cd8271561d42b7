#include "homeserver/base/mem.h"
#include "homeserver/service/room_priv.h"

/* --- numbers of state keys --- */

enum { KEYS_KEPT_MAX = 4096, ABSENT_KEPT_MAX = 256, ABSENT_BYTES_MAX = 64 };

/* Number 0: there is none. */
static bool cached_key(struct room *room, struct slice pair, uint64_t *key_out)
{
    pthread_mutex_lock(&room->lock);
    bool found = map_get(room->keys_owned, pair, key_out);
    pthread_mutex_unlock(&room->lock);
    return found;
}

static void remember_key(struct room *room, struct slice pair, uint64_t key)
{
    pthread_mutex_lock(&room->lock);
    if (map_count(room->keys_owned) > KEYS_KEPT_MAX) {
        map_free(&room->keys_owned);
        room->keys_owned = map_new();
        room->has_dropped_keys = true;
    }
    map_set(room->keys_owned, pair, key);
    pthread_mutex_unlock(&room->lock);
}

/* Some are asked for with each event, as whether the room is encrypted. A key that was given a
 * number since the store was read stands in the map, if none was ever dropped. */
static void remember_absent(struct room *room, struct slice pair)
{
    uint64_t key = 0;
    pthread_mutex_lock(&room->lock);
    bool may = !room->has_dropped_keys && pair.len <= ABSENT_BYTES_MAX &&
               map_count(room->keys_owned) < ABSENT_KEPT_MAX;
    if (may && !map_get(room->keys_owned, pair, &key)) {
        map_set(room->keys_owned, pair, 0);
    }
    pthread_mutex_unlock(&room->lock);
}

struct err hs_state_key_find(struct hs *hs, struct ctx *ctx, struct room *room, struct slice type,
                             struct slice state_key, uint64_t *key_out, bool *found_out)
{
    struct slice pair = state_pair(ctx, type, state_key);
    struct slice row;
    bool is_known = cached_key(room, pair, key_out);
    *found_out = is_known && *key_out != 0;
    if (is_known || pair.len > STORE_KEY_BYTES_MAX - 1) {
        return OK;
    }
    TRY(store_get(hs->store, ctx, room_object(ctx, room->number),
                  key_bytes(ctx, ROOM_KEY_STATE_KEY, pair), &row, found_out));
    if (!*found_out) {
        remember_absent(room, pair);
        return OK;
    }
    struct unpack in = unpack_of(row);
    *key_out = unpack_u64(&in);
    TRY(unpack_check(&in));
    remember_key(room, pair, *key_out);
    return OK;
}

struct err hs_state_key_name(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t key,
                             struct slice *type_out, struct slice *state_key_out)
{
    struct slice row;
    bool found = false;
    TRY(store_get(hs->store, ctx, room_object(ctx, room->number),
                  key_u64(ctx, ROOM_KEY_STATE_NAME, key), &row, &found));
    if (!found) {
        return err_make(ERR_CORRUPT, "a state key number has no name");
    }
    *state_key_out = slice_cut(row, '\0', type_out);
    return OK;
}

struct err room_state_key_intern(struct hs *hs, struct ctx *ctx, struct room *room,
                                 struct slice type, struct slice state_key,
                                 struct store_update *update, uint64_t *key_out)
{
    bool found = false;
    TRY(hs_state_key_find(hs, ctx, room, type, state_key, key_out, &found));
    if (found) {
        return OK;
    }
    struct slice pair = state_pair(ctx, type, state_key);
    struct buf number;
    *key_out = room->next_key++;
    buf_init_arena(&number, ctx->arena, 16);
    pack_u64(&number, *key_out);
    store_put(update, key_bytes(ctx, ROOM_KEY_STATE_KEY, pair), buf_slice(&number));
    store_put(update, key_u64(ctx, ROOM_KEY_STATE_NAME, *key_out), pair);
    remember_key(room, pair, *key_out); /* a failed write has the room loaded anew */
    return OK;
}

/* Rows of names in [from, to); the pairs stand sorted by type, so members are one run. */
static struct err read_keys(struct hs *hs, struct ctx *ctx, struct room *room,
                            struct store_range range, struct store_rows *rows_out)
{
    return store_read_range(hs->store, ctx, room_object(ctx, room->number), range, rows_out);
}

/* Right behind all pairs of a type whose pair with the empty key this is. */
static struct slice behind_type(struct ctx *ctx, struct slice first_pair)
{
    struct slice behind = arena_copy(ctx->arena, first_pair);
    ((char *)(uintptr_t)behind.ptr)[behind.len - 1] = '\1';
    return behind;
}

struct err hs_state_keys_of_type(struct hs *hs, struct ctx *ctx, struct room *room,
                                 struct slice type, uint64_t **keys_out, size_t *count_out)
{
    struct slice first = state_pair(ctx, type, LIT(""));
    struct store_rows rows;
    struct store_range range = {.from = key_bytes(ctx, ROOM_KEY_STATE_KEY, first),
                                .to = key_bytes(ctx, ROOM_KEY_STATE_KEY, behind_type(ctx, first))};
    *count_out = 0;
    *keys_out = NULL;
    if (first.len > STORE_KEY_BYTES_MAX - 1) {
        return OK;
    }
    TRY(read_keys(hs, ctx, room, range, &rows));
    *keys_out = arena_array(ctx->arena, rows.count, sizeof **keys_out);
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack in = unpack_of(rows.rows[i].value);
        (*keys_out)[(*count_out)++] = unpack_u64(&in);
        TRY(unpack_check(&in));
    }
    return OK;
}

struct err hs_state_keys_without_members(struct hs *hs, struct ctx *ctx, struct room *room,
                                         uint64_t **keys_out, size_t *count_out)
{
    struct slice members = state_pair(ctx, LIT("m.room.member"), LIT(""));
    struct slice behind = behind_type(ctx, members);
    struct store_range ranges[2] = {
        {.from = key_bytes(ctx, ROOM_KEY_STATE_KEY, (struct slice){0}),
         .to = key_bytes(ctx, ROOM_KEY_STATE_KEY, members)},
        {.from = key_bytes(ctx, ROOM_KEY_STATE_KEY, behind),
         .to = key_bytes(ctx, ROOM_KEY_STATE_KEY + 1, (struct slice){0})},
    };
    struct store_rows rows[2];
    *count_out = 0;
    TRY(read_keys(hs, ctx, room, ranges[0], &rows[0]));
    TRY(read_keys(hs, ctx, room, ranges[1], &rows[1]));
    *keys_out = arena_array(ctx->arena, rows[0].count + rows[1].count, sizeof **keys_out);
    for (size_t part = 0; part < 2; part++) {
        for (size_t i = 0; i < rows[part].count; i++) {
            struct unpack in = unpack_of(rows[part].rows[i].value);
            (*keys_out)[(*count_out)++] = unpack_u64(&in);
            TRY(unpack_check(&in));
        }
    }
    return OK;
}

/* --- state of a snapshot --- */

struct err hs_state_event(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t root,
                          struct slice type, struct slice state_key, struct stored_event *event_out,
                          bool *found_out)
{
    uint64_t key = 0;
    int64_t number = 0;
    *found_out = false;
    if (root == 0) {
        return OK;
    }
    TRY(hs_state_key_find(hs, ctx, room, type, state_key, &key, found_out));
    if (*found_out) {
        TRY(state_get(hs->states, ctx, room->number, root, key, &number, found_out));
    }
    return *found_out ? hs_event_load(hs, ctx, room, number, event_out, found_out) : OK;
}

struct err hs_membership_at(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t root,
                            struct slice user_id, enum membership *membership_out)
{
    struct stored_event event;
    bool found = false;
    *membership_out = MEMBERSHIP_NONE;
    TRY(hs_state_event(hs, ctx, room, root, LIT("m.room.member"), user_id, &event, &found));
    if (found) {
        *membership_out = membership_of(&event.event);
    }
    return OK;
}

/* --- the composing cache of current state (lane) --- */

static void free_cached(struct cached_state *cached)
{
    if (cached) {
        arena_free(&cached->arena_owned);
        mem_free(cached);
    }
}

void room_state_cache_drop(struct room *room, struct slice pair)
{
    free_cached(map_get_ptr(room->state_cache_owned, pair));
    map_remove(room->state_cache_owned, pair);
}

void room_state_cache_clear(struct room *room)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    if (!room->state_cache_owned) {
        return;
    }
    while (map_next(room->state_cache_owned, &cursor, &key, &value)) {
        free_cached((struct cached_state *)(uintptr_t)value);
    }
    map_free(&room->state_cache_owned);
    room->state_cache_owned = map_new();
}

void room_state_cache_trim(struct room *room)
{
    if (map_count(room->state_cache_owned) > ROOM_STATE_CACHE_MAX) {
        room_state_cache_clear(room);
    }
}

/* The event in memory of its own, which fits it: it is parsed twice, to know how much that is. */
static struct err keep_event(struct ctx *ctx, const struct room *room,
                             const struct room_record *record, struct cached_state *cached)
{
    struct event_id id = ids_trust_event(record->event_id);
    size_t before = arena_used_bytes(ctx->arena);
    TRY(event_parse_stored(ctx->arena, room->rules, record->json, id, &cached->event));
    size_t bytes = arena_used_bytes(ctx->arena) - before;
    cached->arena_owned =
        arena_new_for(bytes + record->json.len + id.s.len + 4 * sizeof(long long));
    struct slice json = arena_copy(cached->arena_owned, record->json);
    id.s = arena_copy(cached->arena_owned, id.s);
    return event_parse_stored(cached->arena_owned, room->rules, json, id, &cached->event);
}

static struct err load_cached(struct hs *hs, struct ctx *ctx, struct room *room, int64_t number,
                              struct cached_state *cached)
{
    struct slice row;
    struct room_record record;
    bool found = false;
    TRY(room_row_find(hs, ctx, room, &number, &row, &found));
    if (!found) {
        return err_make(ERR_CORRUPT, "a state event is missing");
    }
    TRY(room_record_decode(ctx->arena, row, &record));
    cached->number = number;
    return keep_event(ctx, room, &record, cached);
}

struct err room_state_current(struct hs *hs, struct ctx *ctx, struct room *room, struct slice type,
                              struct slice state_key, const struct event **event_out)
{
    struct slice pair = state_pair(ctx, type, state_key);
    struct cached_state *cached = map_get_ptr(room->state_cache_owned, pair);
    uint64_t key = 0;
    int64_t number = 0;
    bool found = false;
    *event_out = cached ? &cached->event : NULL;
    if (cached || room->head.root == 0) {
        return OK;
    }
    TRY(hs_state_key_find(hs, ctx, room, type, state_key, &key, &found));
    if (found) {
        TRY(state_get(hs->states, ctx, room->number, room->head.root, key, &number, &found));
    }
    if (!found) {
        return OK;
    }
    cached = mem_alloc(sizeof *cached);
    struct err err = load_cached(hs, ctx, room, number, cached);
    if (err.code != 0) {
        free_cached(cached);
        return err;
    }
    map_set_ptr(room->state_cache_owned, pair, cached);
    *event_out = &cached->event;
    return OK;
}
