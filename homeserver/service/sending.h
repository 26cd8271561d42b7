/* What clients may send into a room: the checks that go beyond the authorisation rules, then
 * compose. Shared by the endpoints and the WebSocket stream.
 * Spec: client-server, "Sending events to a room", "Redactions", "Relationships". */
#pragma once
#include "homeserver/room/power.h"
#include "homeserver/service/memberships.h"

/* The power levels in force in the room now; what they borrow from lives in ctx's arena. */
struct err hs_room_power(struct hs *hs, struct ctx *ctx, struct room *room,
                         struct power_levels *levels_out) MUST_USE;

struct send_request {
    const struct actor *actor;
    struct slice device_id;
    struct slice txn_id; /* ptr NULL = none */
    struct slice type;
    struct slice state_key; /* ptr NULL = not state */
    const struct json *content;
    int64_t origin_server_ts; /* application services; 0 = now */
};

/* A message event; m.room.redaction goes the way of hs_redact. */
struct err hs_send_message(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct send_request *request, struct hs_sent *sent_out) MUST_USE;
/* A state event: power levels, aliases and memberships are checked beyond the rules. */
struct err hs_send_state(struct hs *hs, struct ctx *ctx, struct room *room,
                         const struct send_request *request, struct hs_sent *sent_out) MUST_USE;
/* Whether a new room's m.room.canonical_alias names aliases of this server that point to it alone;
 * M_BAD_ALIAS, M_INVALID_PARAM. */
struct err hs_check_first_alias(struct hs *hs, struct ctx *ctx, struct room *room,
                                const struct json *content) MUST_USE;
/* Redacts `event_id`; content may hold a reason. M_NOT_FOUND for unknown events, M_FORBIDDEN
 * without the power to redact this event. */
struct err hs_redact(struct hs *hs, struct ctx *ctx, struct room *room,
                     const struct send_request *request, struct slice event_id,
                     struct hs_sent *sent_out) MUST_USE;
