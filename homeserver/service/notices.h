/* Notices of the server to its users: each user has one room for them, which is made with the first
 * notice. Spec: client-server, "Server Notices". */
#pragma once
#include "homeserver/service/memberships.h"
#include "homeserver/service/users.h"

struct notice {
    struct slice type;      /* ptr NULL = m.room.message */
    struct slice state_key; /* ptr NULL = no state */
    const struct json *content;
    struct slice txn_id; /* ptr NULL = none */
};

/* Sends a notice to a user of this server, who is invited to the room of notices when it is new or
 * the user has left it. M_FORBIDDEN while notices are off (settings). In no lane. */
struct err hs_notice_send(struct hs *hs, struct ctx *ctx, const struct account *account,
                          const struct notice *notice, struct slice *event_id_out) MUST_USE;
/* What an operator has to say, as content of a notice. */
struct json hs_notice_text(struct arena *arena, struct slice text);
/* Whether this is the user id that notices come from: its invites are never blocked or hidden. */
bool hs_notice_is_sender(const struct hs *hs, struct slice user_id);
/* M_CANNOT_LEAVE_SERVER_NOTICE_ROOM when the actor would refuse the invite to the own room of
 * notices. */
struct err hs_notice_check_leave(struct hs *hs, struct ctx *ctx, struct room *room,
                                 const struct actor *actor) MUST_USE;
