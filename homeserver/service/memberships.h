/* Joining, inviting, leaving, kicking, banning, knocking, forgetting: each decides and composes the
 * member event in the room's lane, and sends it (hs_propose: no lane is held by the caller). Rooms
 * that this server is not in are reached through the remote port (remote.h). Spec: client-server,
 * "Room membership". */
#pragma once
#include "homeserver/service/compose.h"

/* The acting user. */
struct actor {
    struct slice user_id;
    uint64_t user;
    bool is_guest;
    struct slice appservice; /* that acts as the user; empty = none */
};

struct member_change {
    struct slice target;        /* user id whose membership changes */
    enum membership membership; /* the new one */
    struct slice reason;        /* ptr NULL = none */
    bool is_direct;             /* invites of createRoom */
    bool insists;               /* as in struct hs_proposal */
    const struct json *extra;   /* more content members (third_party_signed ...), or NULL */
};

/* Sends the member event. Joining while joined gives the present event back. Restricted joins get
 * their authorising user. M_FORBIDDEN, M_INVITE_BLOCKED, M_UNABLE_TO_GRANT_JOIN, ... */
struct err hs_member_set(struct hs *hs, struct ctx *ctx, struct room *room,
                         const struct actor *actor, const struct member_change *change,
                         struct hs_sent *sent_out) MUST_USE;
/* Whether the rules or another server said no, rather than that something failed here: what goes
 * through several rooms or users goes on after it. */
bool hs_member_is_refusal(struct err err);
/* An invite of this user waits for another server: hs_member_set answers ERR_WAITS outside the
 * waiting pool. */
bool hs_invite_waits(const struct hs *hs, struct slice user_id);
/* Has application services make a user of theirs who is to be invited and is not there yet.
 * ERR_WAITS outside the waiting pool. */
struct err hs_invite_prepare(struct hs *hs, struct ctx *ctx, struct slice user_id) MUST_USE;
/* Kick: the target must be in the room. Unban: the target must be banned. */
struct err hs_member_kick(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct actor *actor, struct slice target,
                          struct slice reason) MUST_USE;
struct err hs_member_unban(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct actor *actor, struct slice target,
                           struct slice reason) MUST_USE;
/* M_UNKNOWN (400) while the user is in the room, M_NOT_FOUND when it never was. */
struct err hs_room_forget(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct actor *actor) MUST_USE;
/* Takes every guest of this server out of the room, each by a leave of its own.
 * Spec: client-server, "Guest Access". */
struct err hs_guests_leave(struct hs *hs, struct ctx *ctx, struct room *room) MUST_USE;
/* The same, if the event is of a type that may have ended the guests' access and it has ended. In
 * no lane. */
struct err hs_guests_check(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct event *event) MUST_USE;
/* Registers the hooks that carry profile changes into rooms and take deactivated users out. */
void hs_memberships_hook(struct hs *hs);

/* The requester's own standing in a room, for reading it: M_FORBIDDEN when it may not look at all.
 * `number`/`root`: up to where it may look at state (a member: now; one who left: as of leaving).
 */
struct room_view {
    enum membership membership;
    int64_t number;
    uint64_t root;
    bool world_readable; /* not a member, but everybody may look */
};
struct err hs_room_view(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t user,
                        struct room_view *view_out) MUST_USE;
