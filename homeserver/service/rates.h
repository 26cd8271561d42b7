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
