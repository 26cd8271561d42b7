/* Token buckets by rate class and key (user, address, account ...) in a table of fixed size. Keys
 * that share a bucket by chance share its tokens; when a set of buckets is full, the one that was
 * not touched for the longest time is forgotten. Any thread.
 * Spec: client-server, "Rate limiting". */
#pragma once
#include "homeserver/http/http.h"

enum { HTTP_RATES = HTTP_RATE_FEDERATION + 1 };

/* Zero burst = unlimited. */
struct http_rate_rule {
    uint32_t burst;            /* tokens of a bucket that rested */
    uint32_t per_1000_seconds; /* tokens that come back */
};

struct http_ratelimit;

struct http_ratelimit *http_ratelimit_new(const struct http_rate_rule rules[HTTP_RATES],
                                          size_t keys_max);
void http_ratelimit_free(struct http_ratelimit **limit);
/* Takes a token: 0, or the milliseconds until there is one. */
int64_t http_ratelimit_take(struct http_ratelimit *limit, enum http_rate rate, struct slice key,
                            int64_t now_mono_ms);
/* The same for a request: M_LIMIT_EXCEEDED with retry_after_ms and Retry-After in the reply. */
struct err http_ratelimit_check(struct http_ratelimit *limit, struct ctx *ctx, enum http_rate rate,
                                struct slice key, struct http_reply *reply) MUST_USE;
