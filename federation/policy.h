/* Policy servers: a room may name a server whose signature recommends its events.
 * Spec: server-server, "Policy Servers". */
#pragma once
#include "federation/inbound.h"

/* Whether an event of another server lacks the signature that its room asks for; the policy server
 * is asked for one when it does, and what it gives is added to the event. ERR_WAITS when it would
 * wait outside the waiting pool. */
struct err fed_policy_check(struct fed *fed, struct ctx *ctx, struct room *room,
                            struct event *event_io, bool *failed_out) MUST_USE;
/* Whether that would ask the policy server. */
struct err fed_policy_asks(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct event *event, bool *asks_out) MUST_USE;
/* A part of the port (remote.h): an event of this server, with the policy server's signature when
 * its room asks for one. */
struct err fed_policy_sign(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct event *event, struct event *signed_out) MUST_USE;
