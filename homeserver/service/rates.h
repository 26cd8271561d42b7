/* Rate limits by the settings: which bucket a request takes its token from.
 * Spec: client-server, "Rate limiting". */
#pragma once
#include "homeserver/http/ratelimit.h"
#include "homeserver/service/hs.h"

/* NULL when limits are off. */
struct http_ratelimit *hs_rates_new(const struct conf *conf);
/* The check_rate hook of http_server_config; `app` is the struct hs. Also answers 503 while the
 * process is over its budget of memory. */
struct err hs_check_rate(void *app, struct ctx *ctx, const struct http_request *request,
                         struct http_reply *reply) MUST_USE;
/* The same for what a user asks for by other roads than a request, from the same buckets:
 * M_LIMIT_EXCEEDED and the milliseconds until there is a token, else 0. Whether the user is exempt
 * is for the caller to know (application services are). */
struct err hs_rates_take(struct hs *hs, struct ctx *ctx, enum http_rate rate, struct slice user_id,
                         int64_t *retry_after_ms_out) MUST_USE;
