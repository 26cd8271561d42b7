#include "homeserver/service/room_priv.h"

#include <stdlib.h>

static struct err read_prefix(struct hs *hs, struct ctx *ctx, struct store_object object,
                              char prefix, struct store_rows *rows_out)
{
    struct store_range range = {.from = key_bytes(ctx, prefix, (struct slice){0}),
                                .to = key_bytes(ctx, (char)(prefix + 1), (struct slice){0})};
    return store_read_range(hs->store, ctx, object, range, rows_out);
}

static uint64_t number_of_key(struct slice key)
{
    struct unpack in = unpack_of(slice_from(key, 1));
    return unpack_be64(&in);
}

static int by_event_number(const void *a, const void *b)
{
    const struct room_member *left = a;
    const struct room_member *right = b;
    return (left->number > right->number) - (left->number < right->number);
}

struct err hs_room_members(struct hs *hs, struct ctx *ctx, struct room *room,
                           enum membership membership, size_t limit,
                           struct room_members *members_out)
{
    struct store_rows rows;
    struct store_object derived = room_derived_object(ctx, room->number);
    TRY(read_prefix(hs, ctx, derived, DERIVED_KEY_MEMBER, &rows));
    struct room_members members = {0};
    members.items = arena_array(ctx->arena, rows.count, sizeof *members.items);
    for (size_t i = 0; i < rows.count; i++) {
        struct room_member *member = &members.items[members.count];
        member->user = number_of_key(rows.rows[i].key);
        TRY(member_row_decode(rows.rows[i].value, member));
        bool wanted = membership == MEMBERSHIP_NONE || member->membership == membership;
        members.count += wanted ? 1 : 0;
    }
    qsort(members.items, members.count, sizeof *members.items, by_event_number);
    if (limit && members.count > limit) {
        members.count = limit;
    }
    *members_out = members;
    return OK;
}

struct err hs_room_member(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t user,
                          struct room_member *member_out, bool *found_out)
{
    struct slice row;
    TRY(store_get(hs->store, ctx, room_derived_object(ctx, room->number),
                  key_u64(ctx, DERIVED_KEY_MEMBER, user), &row, found_out));
    member_out->user = user;
    return *found_out ? member_row_decode(row, member_out) : OK;
}

struct err hs_user_rooms(struct hs *hs, struct ctx *ctx, uint64_t user,
                         struct user_rooms *rooms_out)
{
    struct store_rows rows;
    TRY(read_prefix(hs, ctx, user_object(ctx, user), USER_ROW_ROOM, &rows));
    struct user_rooms rooms = {0};
    rooms.items = arena_array(ctx->arena, rows.count, sizeof *rooms.items);
    for (size_t i = 0; i < rows.count; i++) {
        struct user_room *entry = &rooms.items[rooms.count++];
        entry->room = number_of_key(rows.rows[i].key);
        TRY(user_room_decode(rows.rows[i].value, entry));
    }
    *rooms_out = rooms;
    return OK;
}

struct err hs_user_room(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t room,
                        struct user_room *entry_out, bool *found_out)
{
    struct slice row;
    uint64_t version = 0;
    *entry_out = (struct user_room){.room = room};
    *found_out = rooms_get_entry(hs, user, entry_out, &version);
    if (*found_out) {
        return OK;
    }
    TRY(store_get(hs->store, ctx, user_object(ctx, user), key_u64(ctx, USER_ROW_ROOM, room), &row,
                  found_out));
    if (*found_out) {
        TRY(user_room_decode(row, entry_out));
        rooms_offer_entry(hs, user, entry_out, version);
    }
    return OK;
}

struct err hs_users_share_room(struct hs *hs, struct ctx *ctx, uint64_t a, uint64_t b,
                               bool *share_out)
{
    struct user_rooms rooms;
    *share_out = false;
    TRY(hs_user_rooms(hs, ctx, a, &rooms));
    for (size_t i = 0; i < rooms.count && !*share_out; i++) {
        struct user_room other;
        bool found = false;
        if (rooms.items[i].membership == MEMBERSHIP_JOIN) {
            TRY(hs_user_room(hs, ctx, b, rooms.items[i].room, &other, &found));
            *share_out = found && other.membership == MEMBERSHIP_JOIN;
        }
    }
    return OK;
}

static int by_number(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Users collected: [0, sorted) ascending and without doubles, the rest in no order. */
struct user_set {
    uint64_t *items;
    size_t count, cap, sorted;
};

static void make_unique(struct user_set *set)
{
    size_t kept = 0;
    qsort(set->items, set->count, sizeof *set->items, by_number);
    for (size_t i = 0; i < set->count; i++) {
        if (kept == 0 || set->items[kept - 1] != set->items[i]) {
            set->items[kept++] = set->items[i];
        }
    }
    set->count = set->sorted = kept;
}

/* Rooms of one user mostly hold the same people: those known are found, not sorted again. */
static void add_users(struct ctx *ctx, struct user_set *set, const uint64_t *users, size_t count)
{
    enum { UNSORTED_MIN = 32 };
    if (set->cap - set->count < count) {
        size_t grown = (set->count + count) * 2;
        set->items = arena_grow(ctx->arena, set->items, set->cap * sizeof *set->items,
                                grown * sizeof *set->items);
        set->cap = grown;
    }
    for (size_t i = 0; i < count; i++) {
        if (set->sorted == 0 ||
            !bsearch(&users[i], set->items, set->sorted, sizeof *users, by_number)) {
            set->items[set->count++] = users[i];
        }
    }
    if (set->count - set->sorted > set->sorted + UNSORTED_MIN) {
        make_unique(set);
    }
}

static struct err joined_in(struct hs *hs, struct ctx *ctx, uint64_t room, uint64_t **users_out,
                            size_t *count_out)
{
    struct store_rows rows;
    if (rooms_copy_joined(hs, ctx, room, users_out, count_out)) {
        return OK;
    }
    TRY(read_prefix(hs, ctx, room_derived_object(ctx, room), DERIVED_KEY_MEMBER, &rows));
    *users_out = arena_array(ctx->arena, rows.count, sizeof **users_out);
    *count_out = 0;
    for (size_t i = 0; i < rows.count; i++) {
        struct room_member member = {0};
        TRY(member_row_decode(rows.rows[i].value, &member));
        if (member.membership == MEMBERSHIP_JOIN) {
            (*users_out)[(*count_out)++] = number_of_key(rows.rows[i].key);
        }
    }
    return OK;
}

struct err hs_users_sharing(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t **users_out,
                            size_t *count_out)
{
    struct user_rooms rooms;
    struct user_set set = {0};
    TRY(hs_user_rooms(hs, ctx, user, &rooms));
    for (size_t i = 0; i < rooms.count; i++) {
        uint64_t *users = NULL;
        size_t count = 0;
        if (rooms.items[i].membership == MEMBERSHIP_JOIN) {
            TRY(joined_in(hs, ctx, rooms.items[i].room, &users, &count));
            add_users(ctx, &set, users, count);
        }
    }
    if (set.count) {
        make_unique(&set);
    }
    *users_out = set.items;
    *count_out = 0;
    for (size_t i = 0; i < set.count; i++) {
        if (set.items[i] != user) {
            set.items[(*count_out)++] = set.items[i];
        }
    }
    return OK;
}
