/* A long poll: an answer as soon as there is news, or when the time is over. While it waits it is
 * one small struct: no thread, no arena. */
#pragma once
#include "homeserver/http/http.h"
#include "homeserver/sync/params.h"

/* Parks the request, which found nothing new up to `upto`. `filter` is the parameter as given.
 * ERR_WAITS as waiting.h has it. */
struct sync_poll_start {
    const struct sync_request *request;
    struct slice filter;
    uint64_t upto;
    int64_t timeout_ms;
};
struct err sync_poll_park(struct sync *sync, struct ctx *ctx, const struct sync_poll_start *start,
                          const struct http_request *http, struct http_reply *reply) MUST_USE;
