/* What an event says to users of this server: whether it notifies them, and whether they have read
 * it. Spec: client-server, "Push Rules", "Receiving notifications". */
#pragma once
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/prefs.h"

struct hs_verdict {
    uint64_t user;
    struct push_verdict verdict; /* notify is set; lives as long as the job */
};
struct hs_verdicts {
    struct hs_verdict *items; /* in the order of the users */
    size_t count;
    uint64_t sender; /* of the event; 0 = there is none */
};
/* Which of the users an event notifies. None for events that no timeline shows, that were redacted
 * or are history. What the default rules keep silent about costs nothing more. */
struct hs_verdict_request {
    struct room *room;
    int64_t number;
    const uint64_t *users;
    size_t count;
};
struct err hs_verdicts_of(struct hs *hs, struct ctx *ctx, const struct hs_verdict_request *request,
                          struct hs_verdicts *verdicts_out) MUST_USE;
/* What one event says to one user who does not ignore its sender, wherever its place is. */
struct err hs_verdict_of(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t user,
                         const struct stored_event *event,
                         struct push_verdict *verdict_out) MUST_USE;
/* Whether receipts of the user name the event or a later one, in its thread. */
struct err hs_event_is_read(struct hs *hs, struct ctx *ctx, struct room *room,
                            const struct receipts *receipts, const struct stored_event *event,
                            bool *read_out) MUST_USE;
