/* What the responders for history share. */
#pragma once
#include "federation/inbound.h"

struct history_call {
    struct hs *hs;
    struct ctx *ctx;
    const struct http_request *request;
    struct http_reply *reply;
    struct slice origin;
    struct room *room;
    struct server_view view;
};
/* Finds the room of the path; refuses servers that its access list keeps out. */
struct err history_begin(struct history_call *call, void *app, struct ctx *ctx,
                         const struct http_request *request, struct http_reply *reply) MUST_USE;
/* The origin is in the room. */
struct err history_check_resident(struct history_call *call) MUST_USE;
/* The origin is in the room, or the event is visible to it all the same. */
struct err history_check_event(struct history_call *call,
                               const struct stored_event *event) MUST_USE;

/* Handlers of in_state.c. */
struct err history_state(void *app, struct ctx *ctx, const struct http_request *request,
                         struct http_reply *reply) MUST_USE;
struct err history_state_ids(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply) MUST_USE;
struct err history_event_auth(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply) MUST_USE;
