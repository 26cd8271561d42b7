/* Registration tokens: who knows one may register. Rows of (STORE_SERVER, "registration_tokens").
 * Spec: client-server, "Token-authenticated registration". */
#pragma once
#include "homeserver/service/hs.h"

enum { REGISTRATION_TOKEN_BYTES_MAX = 64 };

struct registration_token {
    struct slice token;
    int64_t uses_allowed; /* -1 = any number */
    int64_t uses;
    int64_t expires_ms; /* 0 = never */
};
struct registration_tokens {
    struct registration_token *items;
    size_t count;
};
/* Whether a token could be used now. */
struct err hs_registration_token_check(struct hs *hs, struct ctx *ctx, struct slice token,
                                       bool *valid_out) MUST_USE;
/* Counts one use; used_out false when it cannot be used (any more). */
struct err hs_registration_token_use(struct hs *hs, struct ctx *ctx, struct slice token,
                                     bool *used_out) MUST_USE;
/* Takes one use back: nobody was registered by it. A token that is gone stays gone. */
struct err hs_registration_token_give_back(struct hs *hs, struct ctx *ctx,
                                           struct slice token) MUST_USE;
struct err hs_registration_token_list(struct hs *hs, struct ctx *ctx,
                                      struct registration_tokens *tokens_out) MUST_USE;
/* Creates or changes a token. M_INVALID_PARAM when the name breaks the grammar. */
struct err hs_registration_token_put(struct hs *hs, struct ctx *ctx,
                                     const struct registration_token *token) MUST_USE;
struct err hs_registration_token_delete(struct hs *hs, struct ctx *ctx, struct slice token,
                                        bool *found_out) MUST_USE;
