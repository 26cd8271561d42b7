/* Members: the index of a room and the lists of rooms of its users, as the room's state changes.
 * Every row here can be rebuilt from the log (rebuild.c). */
#include "homeserver/service/room_priv.h"
#include "homeserver/service/users.h"

enum { MEMBERS_PER_PAGE = 64 };

static struct derived_member *add_member(struct derive *d)
{
    struct derived_members *members = &d->members;
    if (members->count == members->cap) {
        size_t cap = members->cap ? members->cap * 4 : 1;
        members->items =
            arena_grow(d->ctx->arena, members->items, members->cap * sizeof *members->items,
                       cap * sizeof *members->items);
        members->cap = cap;
    }
    members->items[members->count] = (struct derived_member){0};
    return &members->items[members->count++];
}

/* What the index says of the member up to now. */
static struct err load_previous(struct derive *d, struct ctx *page, struct derived_member *member)
{
    struct room_member before;
    bool found = false;
    TRY(hs_user_intern(d->hs, page, member->user_id, &member->user));
    if (d->is_page) {
        member->is_new = true;
        return OK;
    }
    TRY(hs_room_member(d->hs, page, d->room, member->user, &before, &found));
    member->previous = found ? before.membership : MEMBERSHIP_NONE;
    member->is_new = !found || before.number != member->number;
    member->is_local = hs_user_is_local(d->hs, member->user_id);
    return OK;
}

static struct slice copy_text(struct derive *d, const struct event *event, struct slice name)
{
    struct slice text = json_get_string(event->content, name);
    return text.ptr ? arena_copy(d->ctx->arena, text) : text;
}

static void take_event(struct derive *d, struct derived_member *member, const struct event *event)
{
    member->membership = membership_of(event);
    member->display_name = copy_text(d, event, LIT("displayname"));
    member->avatar_url = copy_text(d, event, LIT("avatar_url"));
}

struct err derive_member(struct derive *d)
{
    if (!event_is(d->event, LIT("m.room.member"), d->event->state_key) ||
        !ids_is_user(d->event->state_key)) {
        return OK;
    }
    struct derived_member *member = add_member(d);
    member->is_own = true;
    member->number = d->number;
    take_event(d, member, d->event);
    member->user_id = d->event->state_key;
    return load_previous(d, d->ctx, member);
}

struct err derive_member_changed(struct derive *d, struct ctx *page, struct slice user_id,
                                 int64_t number)
{
    struct stored_event stored;
    bool found = false;
    if (!ids_is_user(user_id)) {
        return OK;
    }
    struct derived_member *member = add_member(d);
    member->user_id = arena_copy(d->ctx->arena, user_id);
    member->number = number;
    if (d->event && number == d->number) {
        member->is_own = true;
        take_event(d, member, d->event);
    } else if (number) {
        TRY(room_event_once(d->hs, page, d->room, number, &stored, &found));
        if (!found) {
            return err_make(ERR_CORRUPT, "a member event is missing");
        }
        take_event(d, member, &stored.event);
    }
    return load_previous(d, page, member);
}

/* What a row is made of is gone when it stands in its update: `page`. */
static void put_index(struct derive *d, struct ctx *page, const struct derived_member *member)
{
    struct slice key = key_u64(page, DERIVED_KEY_MEMBER, member->user);
    struct buf bytes;
    if (!member->number) {
        store_delete(d->derived, key);
        return;
    }
    struct room_member row = {.user = member->user,
                              .number = member->number,
                              .membership = member->membership,
                              .user_id = member->user_id,
                              .display_name = member->display_name,
                              .avatar_url = member->avatar_url};
    buf_init_arena(&bytes, page->arena, SIZE_MAX / 2);
    member_row_encode(&bytes, &row);
    store_put(d->derived, key, buf_slice(&bytes));
}

static void put_local(struct derive *d, struct ctx *page, const struct derived_member *member)
{
    struct slice local = key_u64(page, DERIVED_KEY_LOCAL, member->user);
    if (member->is_local && member->membership == MEMBERSHIP_JOIN) {
        store_put(d->derived, local, (struct slice){0});
    } else if (member->is_local) {
        store_delete(d->derived, local);
    }
}

void derive_user_room(struct user_room *entry, const struct derived_member *member, int64_t at,
                      uint64_t pos)
{
    /* Who has no member event any more has left. */
    enum membership membership =
        member->membership == MEMBERSHIP_NONE ? MEMBERSHIP_LEAVE : member->membership;
    bool begins = membership == MEMBERSHIP_JOIN && entry->membership != MEMBERSHIP_JOIN;
    entry->previous = entry->membership;
    entry->membership = membership;
    entry->forgotten =
        entry->forgotten && (membership == MEMBERSHIP_LEAVE || membership == MEMBERSHIP_BAN);
    entry->number = member->number ? member->number : at;
    entry->pos = pos;
    entry->invite_state = (struct slice){0};
    if (begins) {
        entry->joined_pos = pos;
        entry->joined_number = at;
    }
    if (entry->previous == MEMBERSHIP_JOIN && membership != MEMBERSHIP_JOIN) {
        entry->left_number = at;
    }
}

/* The row in the member's own list of rooms. */
static struct err put_user_room(struct derive *d, struct ctx *page,
                                const struct derived_member *member)
{
    struct user_room entry;
    struct buf row;
    bool found = false;
    TRY(hs_user_room(d->hs, page, member->user, d->room->number, &entry, &found));
    derive_user_room(&entry, member, d->number, d->pos);
    buf_init_arena(&row, page->arena, SIZE_MAX / 2);
    user_room_encode(&row, &entry);
    struct store_update *update = store_update_new(d->ctx, user_object(d->ctx, member->user));
    store_put(update, key_u64(page, USER_ROW_ROOM, d->room->number), buf_slice(&row));
    d->users[d->user_count++] = update;
    return OK;
}

static struct err write_member(struct derive *d, struct ctx *page,
                               const struct derived_member *member)
{
    put_index(d, page, member);
    put_local(d, page, member);
    bool moves = member->is_new || member->membership != member->previous;
    return moves ? put_user_room(d, page, member) : OK;
}

/* Thousands when a room is whole again. */
static struct err write_many(struct derive *d)
{
    struct ctx page = room_page_begin(d->ctx);
    struct err err = OK;
    for (size_t i = 0; i < d->members.count && err.code == 0; i++) {
        err = write_member(d, &page, &d->members.items[i]);
        if (err.code == 0 && i % MEMBERS_PER_PAGE == MEMBERS_PER_PAGE - 1) {
            room_page_next(&page);
        }
    }
    return room_page_end(d->ctx, &page, err);
}

struct err derive_members_write(struct derive *d)
{
    if (d->members.count == 0) {
        return OK;
    }
    d->users = arena_array(d->ctx->arena, d->members.count, sizeof(struct store_update *));
    return d->members.count == 1 ? write_member(d, d->ctx, &d->members.items[0]) : write_many(d);
}
