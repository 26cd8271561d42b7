/* What a user takes along from a room to the one that replaces it: push rules, tags, image packs
 * enabled everywhere, and whether it is a direct chat. Spec: client-server, "Room Upgrades". */
#pragma once
#include "homeserver/service/memberships.h"

/* Called when a local user has joined `room`; does nothing when it replaces no room that the user
 * was in. In no lane. */
struct err hs_succession_carry(struct hs *hs, struct ctx *ctx, struct room *room,
                               const struct actor *actor) MUST_USE;
