/* What the handlers of sign-in, registration and account endpoints share. */
#pragma once
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/tokens.h"
#include "homeserver/service/uia.h"
#include "homeserver/service/users.h"

enum { CS_ACCOUNT_BODY_BYTES_MAX = 65536 };

/* user_id, and the members of a successful sign-in. */
struct cs_signed_in {
    struct slice user_id;
    const struct issued_tokens *tokens; /* NULL = only an account was made */
};
void cs_reply_signed_in(struct hs *hs, struct http_reply *reply, const struct cs_signed_in *in);

/* What device_id, initial_device_display_name and refresh_token of the body ask for. */
struct err cs_read_sign_in(const struct http_request *request,
                           struct sign_in *sign_in_out) MUST_USE;
/* Signs a new session in with device_id, initial_device_display_name and refresh_token of the
 * body. */
struct err cs_sign_in(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                      uint64_t user, struct issued_tokens *tokens_out) MUST_USE;
/* Asks the caller (who may be nobody yet) for the password. */
struct err cs_ask_password(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply, struct uia_result *result_out) MUST_USE;
/* M_WEAK_PASSWORD, M_INVALID_PARAM for passwords that cannot be set. */
struct err cs_check_new_password(struct hs *hs, struct slice password) MUST_USE;
/* The base URL for clients: public_baseurl or https://<server name>. */
struct slice cs_base_url(struct hs *hs, struct ctx *ctx);
/* Writes {"m.homeserver": ...} with the members that the settings add. */
void cs_write_client_config(struct hs *hs, struct ctx *ctx, struct json_out *out);
/* A member that must be a boolean when present. M_BAD_JSON. */
struct err cs_body_bool(const struct http_request *request, struct slice key, bool fallback,
                        bool *value_out) MUST_USE;
