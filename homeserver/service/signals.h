/* Typing and receipts as clients send them, with the checks that the endpoints and the WebSocket
 * stream share. Spec: client-server, "Typing Notifications", "Receipts", "Read and fully read
 * markers". */
#pragma once
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/memberships.h"

enum { HS_TYPING_DEFAULT_MS = 30000, HS_TYPING_MAX_MS = 120000 };

/* timeout_ms 0 = stopped. M_FORBIDDEN when the actor is not joined. */
struct err hs_typing_request(struct hs *hs, struct ctx *ctx, struct room *room,
                             const struct actor *actor, int64_t timeout_ms) MUST_USE;

struct receipt_request {
    struct slice type; /* m.read, m.read.private or m.fully_read */
    struct slice event_id;
    const struct json *thread_id; /* as in the body; NULL = none */
};
/* M_INVALID_PARAM for an unknown type or a bad thread, M_FORBIDDEN when the actor is not joined. */
struct err hs_receipt_request(struct hs *hs, struct ctx *ctx, struct room *room,
                              const struct actor *actor,
                              const struct receipt_request *request) MUST_USE;
