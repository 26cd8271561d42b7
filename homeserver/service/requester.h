/* Who calls: made by the authentication hook of the HTTP front from an access token.
 * Spec: client-server, "Using access tokens". */
#pragma once
#include "crypto/sha256.h"
#include "homeserver/http/http.h"
#include "homeserver/service/hs.h"

struct requester {
    struct slice user_id;
    uint64_t user;           /* user number */
    struct slice device_id;  /* ptr NULL: an application service without a device */
    struct slice appservice; /* id of the application service; ptr NULL = none */
    struct sha256 token_hash;
    bool is_admin;
    bool is_guest;
    bool is_appservice;
    bool is_unlimited; /* no rate limits apply */
    bool is_locked;
    bool is_suspended;
};

/* The authenticate hook of http_server_config; `app` is the struct hs. Sets request->requester as
 * the route's auth kind asks; refuses unknown, expired (soft_logout), locked, suspended, guest
 * and non-admin callers. */
struct err hs_authenticate(void *app, struct ctx *ctx, struct http_request *request,
                           struct http_reply *reply) MUST_USE;
/* The application service whose token a request carries; for routes that anybody may call.
 * M_MISSING_TOKEN, M_UNKNOWN_TOKEN. */
struct appservice;
struct err hs_authenticate_appservice(struct hs *hs, const struct http_request *request,
                                      const struct appservice **service_out) MUST_USE;
/* The lane_of hook: the lane of the caller's account, 0 without a caller. */
uint64_t hs_lane_of_requester(void *app, const struct http_request *request);
