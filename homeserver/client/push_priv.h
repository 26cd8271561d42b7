/* What a push rule that a client sends must look like, and the list of notifications. Spec:
 * client-server, "Push Rules". */
#pragma once
#include "homeserver/http/http.h"
#include "homeserver/room/push_eval.h"

/* An array of known actions and tweaks; NULL is M_MISSING_PARAM, anything else wrong
 * M_INVALID_PARAM or M_BAD_JSON. */
struct err cs_push_check_actions(const struct json *actions) MUST_USE;
/* An array of conditions, or NULL = none. Unknown kinds are taken: they match nothing. */
struct err cs_push_check_conditions(const struct json *conditions) MUST_USE;
/* Spec: client-server, "Listing Notifications". */
struct err cs_get_notifications(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply) MUST_USE;
