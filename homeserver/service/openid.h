/* OpenID tokens: a user hands one to a third party, which asks this server whose it is. They give
 * no other right. Spec: client-server, "OpenID"; server-server, "OpenID". */
#pragma once
#include "homeserver/service/hs.h"

enum { OPENID_LIFE_MS = 3600 * 1000 };

struct err hs_openid_issue(struct hs *hs, struct ctx *ctx, uint64_t user,
                           struct slice *token_out) MUST_USE;
/* The user id of a token that counts; found false otherwise. */
struct err hs_openid_find(struct hs *hs, struct ctx *ctx, struct slice token,
                          struct slice *user_id_out, bool *found_out) MUST_USE;
