/* Creating rooms. Spec: client-server, "Creation" (POST createRoom): the events in the order that
 * the specification asks for. */
#pragma once
#include "homeserver/service/memberships.h"

/* `body` is the request. On success the room's id, in the arena. Errors: M_BAD_JSON, M_ROOM_IN_USE,
 * M_UNSUPPORTED_ROOM_VERSION, M_INVALID_ROOM_STATE, M_INVALID_PARAM. */
struct err hs_room_create(struct hs *hs, struct ctx *ctx, const struct actor *actor,
                          const struct json *body, struct slice *room_id_out) MUST_USE;
