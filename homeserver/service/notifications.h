/* What a user was notified about, newest first: found by reading the timelines of the user's rooms
 * backwards, all together in the order of the stream, with the push rules as they are now. So a
 * message costs nothing for those who never ask.
 * Spec: client-server, "Listing Notifications". */
#pragma once
#include "homeserver/service/verdicts.h"

enum { NOTIFICATIONS_MAX = 200 };

struct notification {
    struct room *room; /* held until the job ends */
    struct stored_event event;
    struct push_verdict verdict;
    bool is_read;
};
struct notifications {
    struct notification *items;
    size_t count;
    uint64_t next; /* go on before this position; 0 = there is nothing more */
};
struct notifications_request {
    uint64_t user;
    uint64_t before; /* a position; 0 = from the newest */
    size_t limit;    /* at most NOTIFICATIONS_MAX */
    bool only_highlights;
};
/* May give fewer than there are, none even, with a place to go on from: what one request reads is
 * bounded. */
struct err hs_notifications_list(struct hs *hs, struct ctx *ctx,
                                 const struct notifications_request *request,
                                 struct notifications *notifications_out) MUST_USE;
