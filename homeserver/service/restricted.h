/* Who vouches for a join by the membership in another room.
 * Spec: server-server, "Restricted rooms". */
#pragma once
#include "homeserver/service/rooms.h"

/* The user of this server who may be named as join_authorised_via_users_server in a join of
 * `user_id` now; ptr NULL when the join needs none (not restricted, invited, already joined).
 * M_FORBIDDEN when no condition holds, M_UNABLE_TO_AUTHORISE_JOIN when this server cannot see some
 * of the rooms that count, M_UNABLE_TO_GRANT_JOIN when no user of this server may invite. */
struct err hs_restricted_authoriser(struct hs *hs, struct ctx *ctx, struct room *room,
                                    struct slice user_id, struct slice *authoriser_out) MUST_USE;
