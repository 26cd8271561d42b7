/* What the handlers of room endpoints share. */
#pragma once
#include "homeserver/client/routes_priv.h"
#include "homeserver/service/memberships.h"
#include "homeserver/service/requester.h"
#include "homeserver/service/timeline.h"

/* A room endpoint's usual beginning. */
struct cs_room_call {
    struct hs *hs;
    struct ctx *ctx;
    const struct http_request *request;
    struct http_reply *reply;
    struct actor actor;
    struct viewer viewer;
    struct view_memo memo;
    struct room *room;
    struct json_out out; /* over the reply's body */
};

/* Fills the call for the room whose id is path parameter 0. `unknown` is the error for rooms that
 * are not known here: M_NOT_FOUND or (so that nobody can probe) M_FORBIDDEN. The call must stay in
 * place, as `viewer` points into it. */
struct err cs_room_begin(struct cs_room_call *call, void *app, struct ctx *ctx,
                         const struct http_request *request, struct http_reply *reply) MUST_USE;
/* What the caller may see of the room, with all its members: of a room joined a moment ago they are
 * awaited. */
struct err cs_room_whole_view(struct cs_room_call *call, struct room_view *view_out) MUST_USE;
/* The same without a room. */
void cs_call_begin(struct cs_room_call *call, void *app, struct ctx *ctx,
                   const struct http_request *request, struct http_reply *reply);
/* Whose token it is, as an actor. */
struct actor cs_actor(const struct http_request *request);
/* {"event_id": ...} */
void cs_reply_event_id(struct cs_room_call *call, struct slice event_id);
/* A member of the body that must be a string when present; ptr NULL when absent. M_BAD_JSON. */
struct err cs_body_string(const struct http_request *request, struct slice key,
                          struct slice *text_out) MUST_USE;
/* The same, required: M_MISSING_PARAM. */
struct err cs_body_required(const struct http_request *request, struct slice key,
                            struct slice *text_out) MUST_USE;
