/* Whose invites a user of this server takes.
 * Spec: client-server, "Invite permission"; MSC4155 (allow, ignore and block lists) under its
 * unstable names. */
#pragma once
#include "homeserver/service/hs.h"

enum invite_verdict {
    INVITE_ALLOWED,
    INVITE_IGNORED, /* it is made, but the user does not hear of it */
    INVITE_BLOCKED, /* it is refused */
};

/* What a user of this server has set for invites of this sender. */
struct err hs_invite_verdict(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice inviter,
                             enum invite_verdict *verdict_out) MUST_USE;
/* M_INVITE_BLOCKED when the invited user is of this server and takes no invites of this sender. */
struct err hs_invite_permission(struct hs *hs, struct ctx *ctx, struct slice user_id,
                                struct slice inviter) MUST_USE;
/* Whether the user does not see (nor is told of) an invite that is there: by what is set for
 * invites, or because the sender is ignored. */
struct err hs_invite_is_hidden(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice inviter,
                               bool *hidden_out) MUST_USE;
