#include "homeserver/appservice/interest.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/directory.h"
#include "homeserver/service/users.h"

enum { ROOMS_MAX = 20000, USERS_MAX = 200000 };

struct room_member_of {
    uint64_t user;
    as_set set;
};

/* What is known of a room after the event that was looked at last. */
struct known_room {
    struct room_member_of *users; /* joined users of services */
    size_t count, cap;
    as_set named; /* by room id or alias */
    uint64_t alias_changes;
};

struct as_interest {
    struct hs *hs;
    struct map *rooms; /* number -> struct known_room */
    struct map *users; /* number -> as_set */
};

struct as_interest *as_interest_new(struct hs *hs)
{
    struct as_interest *interest = mem_alloc(sizeof *interest);
    interest->hs = hs;
    interest->rooms = map_new();
    interest->users = map_new();
    return interest;
}

static void forget_rooms(struct as_interest *interest)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(interest->rooms, &cursor, &key, &value)) {
        struct known_room *known = (struct known_room *)(uintptr_t)value;
        mem_free(known->users);
        mem_free(known);
    }
    map_free(&interest->rooms);
    interest->rooms = map_new();
}

static void forget_users(struct as_interest *interest)
{
    map_free(&interest->users);
    interest->users = map_new();
}

void as_interest_reset(struct as_interest *interest)
{
    forget_rooms(interest);
    forget_users(interest);
}

void as_interest_free(struct as_interest **interest)
{
    if (*interest) {
        as_interest_reset(*interest);
        map_free(&(*interest)->rooms);
        map_free(&(*interest)->users);
        mem_free(*interest);
        *interest = NULL;
    }
}

void as_interest_drop_room(struct as_interest *interest, uint64_t room)
{
    struct known_room *known = map_get_ptr(interest->rooms, map_key_u64(&room));
    if (known) {
        map_remove(interest->rooms, map_key_u64(&room));
        mem_free(known->users);
        mem_free(known);
    }
}

/* --- users --- */

as_set as_interest_of_user_id(const struct hs *hs, struct slice user_id)
{
    const struct appservice_table *table = hs_appservices_table(hs);
    as_set set = 0;
    for (size_t i = 0; i < table->count; i++) {
        const struct appservice *service = &table->items[i];
        if (service->url.ptr && hs_appservice_has_user(hs, service, user_id)) {
            set |= (as_set)1 << i;
        }
    }
    return set;
}

struct err as_interest_of_user(struct as_interest *interest, struct ctx *ctx, uint64_t user,
                               as_set *set_out)
{
    struct slice user_id;
    if (map_get(interest->users, map_key_u64(&user), set_out)) {
        return OK;
    }
    TRY(hs_user_id_of(interest->hs, ctx, user, &user_id));
    *set_out = as_interest_of_user_id(interest->hs, user_id);
    if (map_count(interest->users) >= USERS_MAX) {
        forget_users(interest);
    }
    map_set(interest->users, map_key_u64(&user), *set_out);
    return OK;
}

static struct err of_name(struct as_interest *interest, struct ctx *ctx, struct slice user_id,
                          uint64_t *user_out, as_set *set_out)
{
    bool found = false;
    *set_out = 0;
    *user_out = 0;
    if (!hs_user_is_local(interest->hs, user_id)) {
        return OK;
    }
    TRY(hs_user_find(interest->hs, ctx, user_id, user_out, &found));
    if (!found) {
        *set_out = as_interest_of_user_id(interest->hs, user_id);
        return OK;
    }
    return as_interest_of_user(interest, ctx, *user_out, set_out);
}

/* --- rooms --- */

static as_set joined_set(const struct known_room *known)
{
    as_set set = 0;
    for (size_t i = 0; i < known->count; i++) {
        set |= known->users[i].set;
    }
    return set;
}

static void add_user(struct known_room *known, uint64_t user, as_set set)
{
    for (size_t i = 0; i < known->count; i++) {
        if (known->users[i].user == user) {
            return;
        }
    }
    if (known->count == known->cap) {
        known->cap = known->cap ? known->cap * 2 : 4;
        known->users = mem_grow(known->users, known->cap * sizeof *known->users);
    }
    known->users[known->count++] = (struct room_member_of){user, set};
}

static void remove_user(struct known_room *known, uint64_t user)
{
    for (size_t i = 0; i < known->count; i++) {
        if (known->users[i].user == user) {
            known->users[i] = known->users[--known->count];
            return;
        }
    }
}

/* Local aliases change without an event. */
static struct err read_names(struct as_interest *interest, struct ctx *ctx, struct room *room,
                             struct known_room *known)
{
    const struct appservice_table *table = hs_appservices_table(interest->hs);
    uint64_t changes = hs_appservices_alias_changes(interest->hs);
    struct room_info info = hs_room_info(room);
    struct slice *aliases = NULL;
    size_t count = 0;
    TRY(hs_aliases_of(interest->hs, ctx, info.number, &aliases, &count));
    known->named = 0;
    for (size_t i = 0; i < table->count; i++) {
        const struct appservice *service = &table->items[i];
        bool named = hs_appservice_has_room(service, info.room_id);
        for (size_t k = 0; k < count && !named; k++) {
            named = hs_appservice_has_alias(interest->hs, service, aliases[k]);
        }
        known->named |= named && service->url.ptr ? (as_set)1 << i : 0;
    }
    known->alias_changes = changes;
    return OK;
}

static struct err read_joined_now(struct as_interest *interest, struct ctx *ctx, struct room *room,
                                  struct known_room *known)
{
    uint64_t *users = NULL;
    size_t count = hs_room_local_users(ctx, room, &users);
    for (size_t i = 0; i < count; i++) {
        as_set set = 0;
        TRY(as_interest_of_user(interest, ctx, users[i], &set));
        if (set) {
            add_user(known, users[i], set);
        }
    }
    return OK;
}

/* Who was joined after an event of the past: members of any kind are candidates. */
static struct err read_joined_at(struct as_interest *interest, struct ctx *ctx, struct room *room,
                                 uint64_t root, struct known_room *known)
{
    struct room_members members;
    TRY(hs_room_members(interest->hs, ctx, room, MEMBERSHIP_NONE, 0, &members));
    for (size_t i = 0; i < members.count; i++) {
        as_set set = 0;
        struct slice user_id;
        enum membership membership = MEMBERSHIP_NONE;
        TRY(as_interest_of_user(interest, ctx, members.items[i].user, &set));
        if (!set) {
            continue;
        }
        TRY(hs_user_id_of(interest->hs, ctx, members.items[i].user, &user_id));
        TRY(hs_membership_at(interest->hs, ctx, room, root, user_id, &membership));
        if (membership == MEMBERSHIP_JOIN) {
            add_user(known, members.items[i].user, set);
        }
    }
    return OK;
}

/* The room as it was right after `event` (NULL: as it is now); kept unless it could not be read. */
static struct err find_room(struct as_interest *interest, struct ctx *ctx, struct room *room,
                            const struct stored_event *event, struct known_room **known_out)
{
    uint64_t number = hs_room_info(room).number;
    struct known_room *known = map_get_ptr(interest->rooms, map_key_u64(&number));
    bool is_new = !known;
    *known_out = known;
    if (known && known->alias_changes == hs_appservices_alias_changes(interest->hs)) {
        return OK;
    }
    if (is_new) {
        if (map_count(interest->rooms) >= ROOMS_MAX) {
            forget_rooms(interest);
        }
        *known_out = known = mem_alloc(sizeof *known);
        map_set_ptr(interest->rooms, map_key_u64(&number), known);
    }
    struct err err = read_names(interest, ctx, room, known);
    if (err.code == 0 && is_new) {
        bool is_past = event && event->number < hs_room_head(room).number;
        err = is_past ? read_joined_at(interest, ctx, room, event->room_root, known)
                      : read_joined_now(interest, ctx, room, known);
    }
    if (err.code != 0) {
        as_interest_drop_room(interest, number);
    }
    return err;
}

struct err as_interest_of_event(struct as_interest *interest, struct ctx *ctx, struct room *room,
                                const struct stored_event *event, struct as_event_interest *out)
{
    struct known_room *known = NULL;
    uint64_t user = 0;
    as_set set = 0;
    uint64_t number = hs_room_info(room).number;
    bool was_known = map_get_ptr(interest->rooms, map_key_u64(&number)) != NULL;
    *out = (struct as_event_interest){0};
    TRY(of_name(interest, ctx, event->event.sender.s, &user, &out->set));
    TRY(find_room(interest, ctx, room, event, &known));
    as_set before = joined_set(known);
    if (slice_eq(event->event.type, LIT("m.room.member")) && (event->flags & EVENT_STATE)) {
        TRY(of_name(interest, ctx, event->event.state_key, &user, &set));
    }
    if (set && user && membership_of(&event->event) == MEMBERSHIP_JOIN) {
        add_user(known, user, set);
    } else if (set && user) {
        remove_user(known, user);
    }
    as_set after = joined_set(known);
    out->set |= set | before | after | known->named;
    out->first = was_known ? after & ~before : set & after;
    out->last = was_known ? before & ~after : set & ~after;
    return OK;
}

struct err as_interest_of_room(struct as_interest *interest, struct ctx *ctx, struct room *room,
                               uint64_t pos, as_set *set_out)
{
    struct known_room *known = NULL;
    uint64_t number = hs_room_info(room).number;
    bool was_known = map_get_ptr(interest->rooms, map_key_u64(&number)) != NULL;
    TRY(find_room(interest, ctx, room, NULL, &known));
    *set_out = joined_set(known) | known->named;
    if (!was_known && hs_room_head(room).pos > pos) { /* ahead of the events still to come */
        as_interest_drop_room(interest, number);
    }
    return OK;
}

struct err as_interest_of_sharing(struct as_interest *interest, struct ctx *ctx,
                                  const struct as_sharing *sharing, as_set *set_out)
{
    struct user_rooms rooms;
    as_set wanted = sharing->wanted;
    TRY(as_interest_of_user(interest, ctx, sharing->user, set_out));
    TRY(hs_user_rooms(interest->hs, ctx, sharing->user, &rooms));
    for (size_t i = 0; i < rooms.count && (*set_out & wanted) != wanted; i++) {
        struct room *room = NULL;
        as_set set = 0;
        if (rooms.items[i].membership != MEMBERSHIP_JOIN) {
            continue;
        }
        struct err err = hs_room_get(interest->hs, ctx, rooms.items[i].room, &room);
        if (err.code == ERR_M_NOT_FOUND) { /* it is being purged */
            continue;
        }
        TRY(err);
        TRY(as_interest_of_room(interest, ctx, room, sharing->pos, &set));
        *set_out |= set;
    }
    *set_out &= wanted;
    return OK;
}
