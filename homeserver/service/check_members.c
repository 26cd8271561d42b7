/* Members: the index of a room, and the rooms of each user, as the log tells them. */
#include "homeserver/service/check_priv.h"
#include "homeserver/service/users.h"

#include <string.h>

static bool is_member(const struct event *event)
{
    return event->has_state_key && slice_eq(event->type, LIT("m.room.member")) &&
           ids_is_user(event->state_key);
}

static struct err number_of_user(struct room_walk *w, struct slice user_id, uint64_t *number_out)
{
    bool found = false;
    struct checker *c = w->c;
    TRY(hs_user_find(c->hs, &c->page, user_id, number_out, &found));
    if (found) {
        return OK;
    }
    check_report(c, CHECK_USER_IDS, user_id, "has no number", c->mode == CHECK_REBUILD);
    *number_out = 0;
    return c->mode == CHECK_REBUILD ? hs_user_intern(c->hs, &c->page, user_id, number_out) : OK;
}

static struct walk_member *member_of(struct room_walk *w, uint64_t user)
{
    struct walk_member *member = map_get_ptr(w->members, map_key_u64(&user));
    if (!member) {
        member = arena_alloc(w->c->room.arena, sizeof *member);
        member->entry.room = w->shape.number;
        map_set_ptr(w->members, map_key_u64(&user), member);
    }
    return member;
}

struct err check_member_changed(struct room_walk *w, struct slice user_id, int64_t number,
                                uint64_t pos)
{
    struct event event = {0};
    struct derived_member change = {.number = number};
    uint64_t user = 0;
    bool found = false;
    if (number) {
        TRY(check_event_load(w, number, &event, &found));
    }
    change.membership = membership_of(found ? &event : NULL);
    TRY(number_of_user(w, user_id, &user));
    if (user) {
        derive_user_room(&member_of(w, user)->entry, &change, w->number, pos);
    }
    return OK;
}

struct err check_member(struct room_walk *w)
{
    uint64_t user = 0;
    struct derived_member change = {.number = w->number, .membership = membership_of(&w->event)};
    if (!is_member(&w->event)) {
        return OK;
    }
    TRY(number_of_user(w, w->event.state_key, &user));
    if (user) {
        derive_user_room(&member_of(w, user)->entry, &change, w->number, w->record.pos);
    }
    return OK;
}

/* --- the member index, from the present state --- */

static struct err take_current(struct room_walk *w, int64_t number)
{
    struct event event;
    struct room_member row = {.number = number};
    struct buf bytes;
    bool found = false;
    TRY(check_event_load(w, number, &event, &found));
    if (!found || !is_member(&event)) {
        return OK;
    }
    TRY(number_of_user(w, event.state_key, &row.user));
    if (row.user == 0) {
        return OK;
    }
    struct walk_member *member = member_of(w, row.user);
    row.user_id = event.state_key;
    row.membership = membership_of(&event);
    row.display_name = json_get_string(event.content, LIT("displayname"));
    row.avatar_url = json_get_string(event.content, LIT("avatar_url"));
    buf_init_arena(&bytes, w->c->room.arena, SIZE_MAX / 2);
    member_row_encode(&bytes, &row);
    member->current = number;
    member->member_row = buf_slice(&bytes);
    member->is_local = row.membership == MEMBERSHIP_JOIN && hs_user_is_local(w->c->hs, row.user_id);
    return OK;
}

static struct err take_all_current(struct room_walk *w)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t membership = 0;
    while (map_next(w->memberships, &cursor, &key, &membership)) {
        uint64_t number = 0;
        if (map_get(w->state, key, &number)) {
            TRY(take_current(w, (int64_t)number));
        }
        arena_reset(w->c->page.arena);
    }
    return OK;
}

static struct err visit_member(struct checker *c, void *arg, const struct store_row *row)
{
    struct room_walk *w = arg;
    struct unpack key = unpack_of(slice_from(row->key, 1));
    uint64_t user = unpack_be64(&key);
    const struct walk_member *member = map_get_ptr(w->members, map_key_u64(&user));
    if (!key.bad && key.rest.len == 0 && member && member->current) {
        return OK;
    }
    return check_row_stray(c, (struct check_place){CHECK_MEMBERS, w->derived, row->key});
}

static struct err visit_local(struct checker *c, void *arg, const struct store_row *row)
{
    struct room_walk *w = arg;
    struct unpack key = unpack_of(slice_from(row->key, 1));
    uint64_t user = unpack_be64(&key);
    const struct walk_member *member = map_get_ptr(w->members, map_key_u64(&user));
    if (!key.bad && key.rest.len == 0 && member && member->is_local) {
        return OK;
    }
    return check_row_stray(c, (struct check_place){CHECK_LOCAL_MEMBERS, w->derived, row->key});
}

/* --- the rooms of a user --- */

/* When users of other servers came and went is of no use to anybody, and what a room seemed to be
 * while it was partial may stand in it. */
static struct err take_told(struct checker *c, uint64_t user, const struct user_room *stored,
                            struct user_room *entry)
{
    struct slice user_id;
    TRY(hs_user_id_of(c->hs, &c->page, user, &user_id));
    if (!hs_user_is_local(c->hs, user_id)) {
        entry->previous = stored->previous;
        entry->pos = stored->pos;
        entry->joined_pos = stored->joined_pos;
        entry->joined_number = stored->joined_number;
        entry->left_number = stored->left_number;
    }
    return OK;
}

/* Whether the user forgot the room is the user's own datum, until the next event about it. */
static struct err check_user_room(struct room_walk *w, uint64_t user,
                                  const struct walk_member *member)
{
    struct checker *c = w->c;
    struct user_room entry = member->entry;
    struct user_room stored = {0};
    struct slice row;
    struct buf expected;
    bool found = false;
    struct check_place place = {CHECK_USER_ROOMS, user_object(&c->page, user),
                                key_u64(&c->page, USER_ROW_ROOM, w->shape.number)};
    TRY(store_get(c->hs->store, &c->page, place.object, place.key, &row, &found));
    if (found && user_room_decode(row, &stored).code == 0) {
        if (stored.invite_state.len) { /* an invite from elsewhere, newer than this log */
            return OK;
        }
        entry.forgotten = stored.forgotten && entry.membership != MEMBERSHIP_JOIN &&
                          entry.membership != MEMBERSHIP_INVITE &&
                          entry.membership != MEMBERSHIP_KNOCK;
        if (entry.previous == MEMBERSHIP_NONE) { /* an invite from elsewhere stood in no log */
            entry.previous = stored.previous;
        }
        TRY(take_told(c, user, &stored, &entry));
    }
    buf_init_arena(&expected, c->page.arena, SIZE_MAX / 2);
    user_room_encode(&expected, &entry);
    return check_row_is(c, place, buf_slice(&expected));
}

static struct err check_one(struct room_walk *w, uint64_t user, const struct walk_member *member)
{
    struct checker *c = w->c;
    if (member->current) {
        TRY(check_row_is(c,
                         (struct check_place){CHECK_MEMBERS, w->derived,
                                              key_u64(&c->page, DERIVED_KEY_MEMBER, user)},
                         member->member_row));
    }
    if (member->is_local) {
        TRY(check_row_is(c,
                         (struct check_place){CHECK_LOCAL_MEMBERS, w->derived,
                                              key_u64(&c->page, DERIVED_KEY_LOCAL, user)},
                         (struct slice){0}));
    }
    return member->entry.number ? check_user_room(w, user, member) : OK;
}

static struct err compare_members(struct room_walk *w)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    TRY(take_all_current(w));
    while (map_next(w->members, &cursor, &key, &value)) {
        uint64_t user = 0;
        memcpy(&user, key.ptr, sizeof user);
        TRY(check_one(w, user, (const struct walk_member *)(uintptr_t)value));
        arena_reset(w->c->page.arena);
    }
    TRY(check_each_row(w->c, w->derived, DERIVED_KEY_MEMBER, visit_member, w));
    return check_each_row(w->c, w->derived, DERIVED_KEY_LOCAL, visit_local, w);
}

/* Rows that an interrupted change of many members left (derive_ahead.c) are no difference, as
 * nobody reads them; a rebuild makes the index what the log says. */
struct err check_members(struct room_walk *w)
{
    struct checker *c = w->c;
    struct slice row;
    struct check_place mark = {CHECK_MEMBERS, w->derived,
                               key_bytes(&c->room, DERIVED_KEY_AHEAD, (struct slice){0})};
    TRY(store_get(c->hs->store, &c->page, mark.object, mark.key, &row, &w->is_ahead));
    if (w->is_ahead && c->mode == CHECK_ONLY) {
        return OK;
    }
    TRY(compare_members(w));
    return w->is_ahead ? rebuild_delete(c, &mark) : OK;
}
