/* Registering: an account, its first session and a use of a registration token, or nothing of it. A
 * client that met an error can try the same user name again.
 * Spec: client-server, "Account registration". */
#pragma once
#include "homeserver/service/tokens.h"
#include "homeserver/service/users.h"

struct registration {
    struct account_draft draft;
    uint64_t guest;         /* the guest's account that becomes a full one; 0 = it is a new one */
    struct slice token;     /* registration token that is used up; ptr NULL = none is asked for */
    struct sign_in session; /* its user is the new one */
    enum { REGISTRATION_WITH_SESSION, REGISTRATION_ALONE } kind;
};

/* tokens_out is empty for REGISTRATION_ALONE. M_UNAUTHORIZED when the registration token cannot be
 * used (any more), M_USER_IN_USE, and what hs_token_issue refuses. In no lane. */
struct err hs_register(struct hs *hs, struct ctx *ctx, const struct registration *registration,
                       struct issued_tokens *tokens_out) MUST_USE;
