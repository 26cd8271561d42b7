/* Access, refresh and login tokens. Tokens are 256 random bits with a prefix that names their kind
 * and a checksum; only their SHA-256 is stored. (STORE_TOKENS, hash) says whose a token is; the
 * device row says whether it still counts. Lookups come from memory.
 * Spec: client-server, "Refreshing access tokens", "Soft logout". */
#pragma once
#include "homeserver/service/requester.h"

struct hs_tokens *hs_tokens_new(struct hs *hs);
void hs_tokens_free(struct hs_tokens **tokens);

enum token_state {
    TOKEN_UNKNOWN,
    TOKEN_VALID,
    TOKEN_EXPIRED, /* the device still exists: a soft logout */
};
/* Who an access token belongs to. First use of a refreshed token ends the ones before it. */
struct err hs_token_find(struct hs *hs, struct ctx *ctx, struct slice token,
                         struct requester *requester_out, enum token_state *state_out) MUST_USE;

/* Whether who asked a while ago may still be answered: M_UNKNOWN_TOKEN when the device or the
 * account has gone since, M_USER_LOCKED. A token that a refresh has replaced still counts here. */
struct err hs_token_recheck(struct hs *hs, struct ctx *ctx,
                            const struct requester *requester) MUST_USE;

struct sign_in {
    uint64_t user;
    struct slice device_id;    /* ptr NULL = make one up */
    struct slice display_name; /* for a new device; ptr NULL = none */
    enum { SIGN_IN_PLAIN, SIGN_IN_REFRESHABLE } kind;
};
struct issued_tokens {
    struct slice device_id;
    struct slice access_token;
    struct slice refresh_token; /* ptr NULL = none */
    int64_t expires_in_ms;      /* 0 = does not expire */
};
/* A new access token; tokens that the device had before end. */
struct err hs_token_issue(struct hs *hs, struct ctx *ctx, const struct sign_in *sign_in,
                          struct issued_tokens *tokens_out) MUST_USE;
/* A new pair for a refresh token; the old pair counts until the new one is first used.
 * M_UNKNOWN_TOKEN when it does not count. */
struct err hs_token_refresh(struct hs *hs, struct ctx *ctx, struct slice refresh_token,
                            struct issued_tokens *tokens_out) MUST_USE;

/* Login tokens: for one use, in memory. */
struct err hs_login_token_make(struct hs *hs, struct ctx *ctx, uint64_t user,
                               struct slice *token_out) MUST_USE;
bool hs_login_token_take(struct hs *hs, struct slice token, uint64_t *user_out);
