/* Replacing a room by a new one of another version.
 * Spec: client-server, "Room Upgrades", server behaviour. */
#pragma once
#include "homeserver/service/memberships.h"

struct room_upgrade {
    struct slice new_version;
    const struct json *additional_creators; /* array of user ids, or NULL */
};

/* Makes the new room, moves aliases and the entry in the room list, closes the old one. After an
 * error it can be asked for again: it begins anew, or goes on with the room it had made.
 * M_FORBIDDEN without the power to send m.room.tombstone, M_UNSUPPORTED_ROOM_VERSION,
 * M_INVALID_PARAM. In no lane. */
struct err hs_room_upgrade(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct actor *actor, const struct room_upgrade *upgrade,
                           struct slice *room_id_out) MUST_USE;
