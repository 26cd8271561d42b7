/* How the endpoints that send events schedule them instead. Spec: spec/delayed-events.md. */
#pragma once
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/sending.h"

#define CS_DELAY_PARAM LIT("org.matrix.msc4140.delay")

/* Whether the request asks for a delay. */
bool cs_wants_delay(struct ctx *ctx, const struct http_request *request);
/* Schedules what `send` says and replies with the delay id. The body may be missing when the
 * transaction is known. */
struct err cs_delay_event(struct cs_room_call *call, const struct send_request *send) MUST_USE;
