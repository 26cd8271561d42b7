#include "homeserver/service/room_priv.h"
#include "homeserver/service/users.h"

#include <stdlib.h>

enum { MEMBERS_PER_PAGE = 500 };

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

/* --- one by one --- */

static bool index_is_ahead(struct room *room, uint64_t *root_out)
{
    pthread_mutex_lock(&room->lock);
    bool is_ahead = room->is_ahead;
    *root_out = room->head.root;
    pthread_mutex_unlock(&room->lock);
    return is_ahead;
}

static void member_of_event(const struct stored_event *event, struct room_member *member_out)
{
    *member_out = (struct room_member){
        .number = event->number,
        .membership = membership_of(&event->event),
        .user_id = event->event.state_key,
        .display_name = json_get_string(event->event.content, LIT("displayname")),
        .avatar_url = json_get_string(event->event.content, LIT("avatar_url")),
    };
}

struct visit {
    room_member_fn fn;
    void *arg;
};

static struct err visit_rows(struct visit visit, struct ctx *page, const struct store_rows *rows)
{
    for (size_t i = 0; i < rows->count; i++) {
        struct room_member member = {.user = number_of_key(rows->rows[i].key)};
        TRY(member_row_decode(rows->rows[i].value, &member));
        TRY(visit.fn(visit.arg, page, &member));
    }
    return OK;
}

static struct err visit_index(struct hs *hs, struct ctx *page, uint64_t room, struct visit visit)
{
    uint64_t from = 0;
    for (;;) {
        struct store_rows rows;
        struct store_range range = {.from = key_u64(page, DERIVED_KEY_MEMBER, from),
                                    .to =
                                        key_bytes(page, DERIVED_KEY_MEMBER + 1, (struct slice){0}),
                                    .limit = MEMBERS_PER_PAGE};
        TRY(store_read_range(hs->store, page, room_derived_object(page, room), range, &rows));
        TRY(visit_rows(visit, page, &rows));
        if (rows.count < MEMBERS_PER_PAGE) {
            return OK;
        }
        from = number_of_key(rows.rows[rows.count - 1].key) + 1;
        room_page_next(page);
        page->reads_once = true; /* there are many */
    }
}

static struct err visit_state_key(struct hs *hs, struct ctx *page, struct room *room,
                                  const struct state_difference *entry, struct visit visit)
{
    struct slice type;
    struct slice user_id;
    struct stored_event event;
    struct room_member member;
    bool found = false;
    TRY(hs_state_key_name(hs, page, room, entry->key, &type, &user_id));
    if (!slice_eq(type, LIT("m.room.member")) || !ids_is_user(user_id)) {
        return OK;
    }
    TRY(hs_event_load(hs, page, room, entry->right, &event, &found));
    if (!found) {
        return err_make(ERR_CORRUPT, "a member event is missing");
    }
    member_of_event(&event, &member);
    TRY(hs_user_find(hs, page, user_id, &member.user, &found));
    return found ? visit.fn(visit.arg, page, &member) : OK;
}

static struct err visit_state(struct hs *hs, struct ctx *page, struct room *room, uint64_t root,
                              struct visit visit)
{
    struct state_page state = {.right = root, .limit = MEMBERS_PER_PAGE, .more = true};
    while (state.more) {
        TRY(state_diff_page(hs->states, page, room->number, &state));
        for (size_t i = 0; i < state.count; i++) {
            TRY(visit_state_key(hs, page, room, &state.items[i], visit));
        }
        room_page_next(page);
    }
    return OK;
}

struct err hs_room_members_each(struct hs *hs, struct ctx *ctx, struct room *room,
                                room_member_fn fn, void *arg)
{
    struct visit visit = {fn, arg};
    struct ctx page = room_page_begin(ctx);
    uint64_t root = 0;
    struct err err = index_is_ahead(room, &root) ? visit_state(hs, &page, room, root, visit)
                                                 : visit_index(hs, &page, room->number, visit);
    return room_page_end(ctx, &page, err);
}

/* --- many at once --- */

struct gathering {
    struct ctx *ctx;
    enum membership membership;
    size_t limit;
    struct room_members *members;
    size_t cap;
    int64_t number_max; /* newer ones are too many */
};

static void sort(struct room_members *members)
{
    if (members->count) {
        qsort(members->items, members->count, sizeof *members->items, by_event_number);
    }
}

/* Room for one more: of four times as many as are wanted the oldest stay. */
static void make_place(struct gathering *g)
{
    struct room_members *members = g->members;
    if (g->limit && members->count == 4 * g->limit) {
        sort(members);
        members->count = g->limit;
        g->number_max = members->items[g->limit - 1].number;
    }
    if (members->count == g->cap) {
        size_t cap = g->cap ? g->cap * 2 : 16;
        members->items = arena_grow(g->ctx->arena, members->items, g->cap * sizeof *members->items,
                                    cap * sizeof *members->items);
        g->cap = cap;
    }
}

static struct slice copy_text(struct ctx *ctx, struct slice text)
{
    return text.ptr ? arena_copy(ctx->arena, text) : text;
}

static struct err gather(void *arg, struct ctx *page, const struct room_member *member)
{
    struct gathering *g = arg;
    (void)page;
    if (g->membership != MEMBERSHIP_NONE && member->membership != g->membership) {
        return OK;
    }
    if (member->number > g->number_max) {
        return OK;
    }
    make_place(g);
    struct room_member *kept = &g->members->items[g->members->count++];
    *kept = *member;
    kept->user_id = copy_text(g->ctx, member->user_id);
    kept->display_name = copy_text(g->ctx, member->display_name);
    kept->avatar_url = copy_text(g->ctx, member->avatar_url);
    return OK;
}

/* All of them, of rows that stay where they were read to. */
static struct err read_index(struct hs *hs, struct ctx *ctx, struct room *room,
                             enum membership membership, struct room_members *members_out)
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
    sort(&members);
    *members_out = members;
    return OK;
}

struct err hs_room_members(struct hs *hs, struct ctx *ctx, struct room *room,
                           enum membership membership, size_t limit,
                           struct room_members *members_out)
{
    uint64_t root = 0;
    if (limit == 0 && !index_is_ahead(room, &root)) {
        return read_index(hs, ctx, room, membership, members_out);
    }
    struct gathering gathering = {.ctx = ctx,
                                  .membership = membership,
                                  .limit = limit,
                                  .members = members_out,
                                  .number_max = INT64_MAX};
    *members_out = (struct room_members){0};
    TRY(hs_room_members_each(hs, ctx, room, gather, &gathering));
    sort(members_out);
    if (limit && members_out->count > limit) {
        members_out->count = limit;
    }
    return OK;
}

/* --- a single one --- */

static struct err member_of_state(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t root,
                                  struct room_member *member_io, bool *found_out)
{
    struct stored_event event;
    struct slice user_id;
    uint64_t user = member_io->user;
    TRY(hs_user_id_of(hs, ctx, user, &user_id));
    TRY(hs_state_event(hs, ctx, room, root, LIT("m.room.member"), user_id, &event, found_out));
    if (*found_out) {
        member_of_event(&event, member_io);
        member_io->user = user;
    }
    return OK;
}

struct err hs_room_member(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t user,
                          struct room_member *member_out, bool *found_out)
{
    struct slice row;
    uint64_t root = 0;
    member_out->user = user;
    if (index_is_ahead(room, &root)) {
        return member_of_state(hs, ctx, room, root, member_out, found_out);
    }
    TRY(store_get(hs->store, ctx, room_derived_object(ctx, room->number),
                  key_u64(ctx, DERIVED_KEY_MEMBER, user), &row, found_out));
    return *found_out ? member_row_decode(row, member_out) : OK;
}

/* --- the rooms of a user --- */

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

struct joined {
    struct ctx *ctx;
    struct user_set *set;
};

static struct err add_joined(void *arg, struct ctx *page, const struct room_member *member)
{
    struct joined *joined = arg;
    (void)page;
    if (member->membership == MEMBERSHIP_JOIN) {
        add_users(joined->ctx, joined->set, &member->user, 1);
    }
    return OK;
}

static struct err add_joined_of(struct hs *hs, struct ctx *ctx, uint64_t room, struct user_set *set)
{
    struct joined joined = {ctx, set};
    uint64_t *users = NULL;
    size_t count = 0;
    if (rooms_copy_joined(hs, ctx, room, &users, &count)) {
        add_users(ctx, set, users, count);
        return OK;
    }
    struct ctx page = room_page_begin(ctx);
    struct err err = visit_index(hs, &page, room, (struct visit){add_joined, &joined});
    return room_page_end(ctx, &page, err);
}

struct err hs_users_sharing(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t **users_out,
                            size_t *count_out)
{
    struct user_rooms rooms;
    struct user_set set = {0};
    TRY(hs_user_rooms(hs, ctx, user, &rooms));
    for (size_t i = 0; i < rooms.count; i++) {
        if (rooms.items[i].membership == MEMBERSHIP_JOIN) {
            TRY(add_joined_of(hs, ctx, rooms.items[i].room, &set));
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
