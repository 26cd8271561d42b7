/* Joining and knocking by room id or alias, wherever the room is: here when a user of this server
 * is in it, else through others. Spec: client-server, "Joining rooms", "Knocking on rooms". */
#pragma once
#include "homeserver/service/memberships.h"

struct hs_entering {
    const struct actor *actor;
    struct slice name;          /* room id or alias */
    enum membership membership; /* join or knock */
    const struct slice *via;    /* servers named by the client */
    size_t via_count;
    struct slice reason;      /* ptr NULL = none */
    const struct json *extra; /* more content members, or NULL */
    struct slice
        *version_out; /* the room's version with M_INCOMPATIBLE_ROOM_VERSION; may be NULL */
};
/* ERR_WAITS when another server must be asked outside the waiting pool. M_NOT_FOUND when no server
 * of the room is known, M_GUEST_ACCESS_FORBIDDEN, and what hs_member_set answers. */
struct err hs_room_enter(struct hs *hs, struct ctx *ctx, const struct hs_entering *entering,
                         struct slice *room_id_out) MUST_USE;
/* Leaves a room, rejects an invite or retracts a knock, wherever the room is. */
struct err hs_room_leave(struct hs *hs, struct ctx *ctx, const struct actor *actor,
                         struct slice room_id, struct slice reason) MUST_USE;
/* Room id and servers of an alias: {"room_id": ..., "servers": [...]}. */
struct err hs_alias_resolve(struct hs *hs, struct ctx *ctx, struct slice alias,
                            struct json *answer_out) MUST_USE;
