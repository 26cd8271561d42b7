#include "homeserver/service/memberships.h"
#include "homeserver/service/rooms.h"
#include "homeserver/service/users.h"

static struct err take_out_guest(struct hs *hs, struct ctx *ctx, struct room *room,
                                 const struct room_member *member)
{
    struct actor actor = {.user_id = member->user_id, .user = member->user, .is_guest = true};
    struct member_change change = {
        .target = member->user_id, .membership = MEMBERSHIP_LEAVE, .insists = true};
    struct hs_sent sent;
    uint32_t flags = 0;
    bool found = false;
    TRY(hs_account_flags(hs, ctx, member->user, &flags, &found));
    if (!found || !(flags & ACCOUNT_GUEST)) {
        return OK;
    }
    return hs_member_set(hs, ctx, room, &actor, &change, &sent);
}

struct err hs_guests_leave(struct hs *hs, struct ctx *ctx, struct room *room)
{
    struct room_members members;
    TRY(hs_room_members(hs, ctx, room, MEMBERSHIP_JOIN, 0, &members));
    for (size_t i = 0; i < members.count; i++) {
        if (hs_user_is_local(hs, members.items[i].user_id)) {
            TRY(take_out_guest(hs, ctx, room, &members.items[i]));
        }
    }
    return OK;
}

struct err hs_guests_check(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct event *event)
{
    struct stored_event access;
    bool found = false;
    if (!event_is(event, LIT("m.room.guest_access"), LIT(""))) {
        return OK;
    }
    TRY(hs_state_event(hs, ctx, room, hs_room_head(room).root, LIT("m.room.guest_access"), LIT(""),
                       &access, &found));
    bool may_join = found && json_is_string(json_get(access.event.content, LIT("guest_access")),
                                            LIT("can_join"));
    return may_join ? OK : hs_guests_leave(hs, ctx, room);
}
