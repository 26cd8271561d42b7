/* Sync tokens: opaque to clients, versioned by their first letter. "s<pos>" names a stream
 * position: everything up to and including it has been seen. "s<pos>_<inbox>" says in addition that
 * of the to-device messages only those up to the second position were handed out (a sync carries at
 * most 100 of them). Further fields may follow in later versions; readers skip what they do not
 * know. Spec: client-server, "Syncing". */
#pragma once
#include "homeserver/base/arena.h"
#include "homeserver/base/err.h"

struct sync_token {
    uint64_t pos;
    uint64_t inbox; /* <= pos */
};

/* M_INVALID_PARAM when it is not a token of this server. */
struct err sync_token_parse(struct slice text, struct sync_token *token_out) MUST_USE;
/* The same, and M_INVALID_PARAM when it lies after `newest` (a token of another server, or of this
 * one before it lost data). */
struct err sync_token_check(struct slice text, uint64_t newest,
                            struct sync_token *token_out) MUST_USE;
struct slice sync_token_encode(struct arena *arena, struct sync_token token);
