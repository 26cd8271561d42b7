/* Checks of what stands outside of rooms: ids and numbers, aliases, the directory, the users. */
#include "homeserver/base/mem.h"
#include "homeserver/service/check_priv.h"

static const struct store_object user_ids = {.kind = STORE_USER_IDS};
static const struct store_object room_ids = {STORE_ROOM_IDS, {"ids", 3}};
static const struct store_object room_numbers = {STORE_ROOM_IDS, {"numbers", 7}};
static const struct store_object aliases = {STORE_ROOM_IDS, {"aliases", 7}};
static const struct store_object aliases_of = {STORE_ROOM_IDS, {"aliases_of", 10}};
static const struct store_object published = {STORE_ROOM_IDS, {"public", 6}};
static const struct store_object event_ids = {STORE_EVENT_IDS, {"ids", 3}};

static struct slice packed_u64(struct checker *c, uint64_t number)
{
    struct buf out;
    buf_init_arena(&out, c->page.arena, 16);
    pack_u64(&out, number);
    return buf_slice(&out);
}

/* --- users --- */

/* "n" number -> user id: a row "i" must lead back. */
static struct err visit_user_number(struct checker *c, void *arg, const struct store_row *row)
{
    struct unpack key = unpack_of(slice_from(row->key, 1));
    uint64_t number = unpack_be64(&key);
    struct check_place place = {CHECK_USER_IDS, user_ids, key_bytes(&c->page, 'i', row->value)};
    (void)arg;
    if (key.bad || key.rest.len || place.key.len > STORE_KEY_BYTES_MAX) {
        check_report(c, CHECK_USER_IDS, row->key, "cannot be read", false);
        return OK;
    }
    c->result->users++;
    return check_row_is(c, place, packed_u64(c, number));
}

static struct err visit_user_id(struct checker *c, void *arg, const struct store_row *row)
{
    struct unpack in = unpack_of(row->value);
    uint64_t number = unpack_u64(&in);
    (void)arg;
    if (in.bad || number == 0) {
        check_report(c, CHECK_USER_IDS, row->key, "cannot be read", false);
        return OK;
    }
    struct check_place place = {CHECK_USER_IDS, user_ids, key_u64(&c->page, 'n', number)};
    return check_row_is(c, place, slice_from(row->key, 1));
}

struct err check_user_ids(struct checker *c)
{
    TRY(check_each_row(c, user_ids, 'n', visit_user_number, NULL));
    return check_each_row(c, user_ids, 'i', visit_user_id, NULL);
}

/* --- rooms --- */

static void add_room(struct checker *c, const struct check_room *room)
{
    struct check_rooms *rooms = c->rooms;
    if (rooms->count == rooms->cap) {
        rooms->cap = rooms->cap ? rooms->cap * 2 : 64;
        rooms->items = mem_grow(rooms->items, rooms->cap * sizeof *rooms->items);
    }
    rooms->items[rooms->count++] = *room;
    map_set(rooms->by_number, map_key_u64(&room->number), rooms->count);
}

/* number -> version NUL room id. */
static struct err visit_room_number(struct checker *c, void *arg, const struct store_row *row)
{
    struct unpack key = unpack_of(row->key);
    struct slice version;
    struct check_room room = {.number = unpack_be64(&key)};
    (void)arg;
    room.room_id = arena_copy(c->ctx->arena, slice_cut(row->value, '\0', &version));
    room.rules = room_rules_get(version);
    if (key.bad || key.rest.len || !room.rules || room.room_id.len == 0 ||
        room.room_id.len > STORE_ID_BYTES_MAX) {
        check_report(c, CHECK_ROOM_IDS, row->key, "names no room of a known version", false);
        return OK;
    }
    add_room(c, &room);
    struct check_place place = {CHECK_ROOM_IDS, room_ids, room.room_id};
    return check_row_is(c, place, packed_u64(c, room.number));
}

static struct err visit_room_id(struct checker *c, void *arg, const struct store_row *row)
{
    struct unpack in = unpack_of(row->value);
    const struct check_room *room = check_room_find(c, unpack_u64(&in));
    (void)arg;
    check_compared(c, CHECK_ROOM_IDS);
    if (!in.bad && room && slice_eq(room->room_id, row->key)) {
        return OK;
    }
    return check_row_stray(c, (struct check_place){CHECK_ROOM_IDS, room_ids, row->key});
}

struct err check_rooms_load(struct checker *c)
{
    TRY(check_each_row(c, room_numbers, 0, visit_room_number, NULL));
    return check_each_row(c, room_ids, 0, visit_room_id, NULL);
}

/* --- aliases and the directory --- */

static struct err visit_alias(struct checker *c, void *arg, const struct store_row *row)
{
    struct unpack in = unpack_of(row->value);
    uint64_t room = unpack_u64(&in);
    (void)arg;
    if (in.bad || !check_room_find(c, room)) {
        return check_row_stray(c, (struct check_place){CHECK_ALIASES, aliases, row->key});
    }
    struct slice key = arena_concat(c->page.arena, store_id_u64(c->page.arena, room), row->key);
    return check_row_is(c, (struct check_place){CHECK_ALIASES, aliases_of, key}, (struct slice){0});
}

static struct err visit_alias_of(struct checker *c, void *arg, const struct store_row *row)
{
    struct slice value;
    bool found = false;
    struct unpack key = unpack_of(row->key);
    uint64_t room = unpack_be64(&key);
    (void)arg;
    check_compared(c, CHECK_ALIASES);
    if (!key.bad) {
        TRY(store_get(c->hs->store, &c->page, aliases, key.rest, &value, &found));
    }
    struct unpack in = unpack_of(found ? value : (struct slice){0});
    if (found && unpack_u64(&in) == room) {
        return OK;
    }
    return check_row_stray(c, (struct check_place){CHECK_ALIASES, aliases_of, row->key});
}

static struct err visit_published(struct checker *c, void *arg, const struct store_row *row)
{
    struct unpack key = unpack_of(row->key);
    (void)arg;
    check_compared(c, CHECK_DIRECTORY);
    if (check_room_find(c, unpack_be64(&key))) {
        return OK;
    }
    return check_row_stray(c, (struct check_place){CHECK_DIRECTORY, published, row->key});
}

struct err check_aliases(struct checker *c)
{
    TRY(check_each_row(c, aliases, 0, visit_alias, NULL));
    TRY(check_each_row(c, aliases_of, 0, visit_alias_of, NULL));
    return check_each_row(c, published, 0, visit_published, NULL);
}

/* --- events by id, the way back --- */

static struct err visit_event_id(struct checker *c, void *arg, const struct store_row *row)
{
    struct unpack in = unpack_of(row->value);
    uint64_t room = unpack_u64(&in);
    int64_t number = unpack_i64(&in);
    struct room_record record;
    bool found = false;
    (void)arg;
    check_compared(c, CHECK_EVENT_IDS);
    if (!in.bad && check_room_find(c, room)) {
        TRY(check_record_load(c, room, number, &record, &found));
    }
    if (found && slice_eq(record.event_id, row->key)) {
        return OK;
    }
    return check_row_stray(c, (struct check_place){CHECK_EVENT_IDS, event_ids, row->key});
}

struct err check_event_ids(struct checker *c)
{
    return check_each_row(c, event_ids, 0, visit_event_id, NULL);
}

/* --- what users have --- */

/* A room in a user's list must have the user in its log, or be one that the user was invited to
 * from elsewhere. */
static struct err visit_user_room(struct checker *c, void *arg, const struct store_row *row)
{
    const struct store_object *user = arg;
    struct unpack key = unpack_of(slice_from(row->key, 1));
    struct unpack number = unpack_of(user->id);
    struct user_room entry = {.room = unpack_be64(&key)};
    struct slice value;
    bool found = false;
    struct err err = user_room_decode(row->value, &entry);
    check_compared(c, CHECK_USER_ROOMS);
    if (err.code == 0 && entry.invite_state.len) {
        return OK;
    }
    /* Who turned such an invite down, or lost a stay to a resolution, has no member event here. */
    if (err.code == 0 && entry.membership == MEMBERSHIP_LEAVE && check_room_find(c, entry.room)) {
        return OK;
    }
    if (err.code == 0 && check_room_find(c, entry.room)) {
        struct slice member = key_u64(&c->page, DERIVED_KEY_MEMBER, unpack_be64(&number));
        TRY(store_get(c->hs->store, &c->page, room_derived_object(&c->page, entry.room), member,
                      &value, &found));
    }
    if (found) {
        return OK;
    }
    return check_row_stray(c, (struct check_place){CHECK_USER_ROOMS, *user, row->key});
}

static struct err visit_user(void *arg, struct slice id)
{
    struct checker *c = arg;
    struct check_by_position data = {.index = CHECK_ACCOUNT_DATA,
                                     .object = {STORE_USER, id},
                                     .letter = USER_ROW_DATA,
                                     .index_letter = USER_ROW_DATA_BY_POS};
    TRY(check_by_position(c, &data));
    TRY(check_device_tokens(c, data.object));
    TRY(check_account(c, data.object));
    return check_each_row(c, data.object, USER_ROW_ROOM, visit_user_room, &data.object);
}

struct err check_users(struct checker *c)
{
    c->event_id = (struct slice){0};
    c->number = 0;
    TRY(store_each_object(c->hs->store, c->ctx, STORE_USER, visit_user, c));
    return check_tokens(c);
}
