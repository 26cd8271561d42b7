/* A membership of a user of this server in a room that this server reaches through others: a
 * template is asked for (make_*), checked, completed, signed and handed back (send_*); when a
 * server cannot help the next one is tried. Spec: server-server, "Joining Rooms", "Leaving Rooms",
 * "Knocking upon a room". */
#pragma once
#include "federation/fed.h"
#include "homeserver/room/membership.h"
#include "homeserver/service/remote.h"

struct out_member {
    struct hs *hs;
    struct fed *fed;
    struct ctx *ctx;
    const struct remote_membership *want;
    enum membership membership;
    int64_t timeout_ms;
    struct slice server; /* that is asked now */
    const struct room_rules *rules;
    struct event event; /* signed by this server */
};

/* Calls `attempt` for the servers in their order until one succeeds or gives an answer that another
 * one would give too. The error that says most to the user wins. */
typedef struct err (*out_attempt_fn)(struct out_member *out);
struct err out_member_try(struct out_member *out, out_attempt_fn attempt) MUST_USE;
/* make_*: fills rules and event. M_REMOTE when the template is not what was asked for. */
struct err out_member_make(struct out_member *out) MUST_USE;
/* send_* for all but joins. */
struct err out_member_send(struct out_member *out, struct json *answer_out) MUST_USE;

/* Functions of hs->remote. */
struct err fed_join(struct hs *hs, struct ctx *ctx, const struct remote_membership *want) MUST_USE;
struct err fed_knock(struct hs *hs, struct ctx *ctx, const struct remote_membership *want) MUST_USE;
struct err fed_leave(struct hs *hs, struct ctx *ctx, const struct remote_membership *want) MUST_USE;
struct err fed_invite(struct hs *hs, struct ctx *ctx, struct room *room, const struct event *invite,
                      struct hs_sent *sent_out) MUST_USE;
