/* What make_join, make_leave, make_knock and their send_* partners share: this server is in the
 * room and takes another server's membership event into it.
 * Spec: server-server, "Joining Rooms", "Leaving Rooms (Rejecting Invites)", "Knocking upon a
 * room". */
#pragma once
#include "federation/fed.h"
#include "homeserver/room/membership.h"
#include "homeserver/service/intake.h"

struct resident_call {
    struct hs *hs;
    struct fed *fed;
    struct ctx *ctx;
    const struct http_request *request;
    struct http_reply *reply;
    struct slice origin;
    struct room *room;
    const struct room_rules *rules;
    enum membership membership; /* what the call is about: join, leave, knock */
};

/* Path parameter 0 is the room. M_NOT_FOUND when no user of this server is in it, M_FORBIDDEN by
 * its server ACL. */
struct err resident_begin(struct resident_call *call, void *app, struct ctx *ctx,
                          const struct http_request *request, struct http_reply *reply) MUST_USE;
/* make_*: path parameter 1 is a user of the origin. M_FORBIDDEN otherwise. */
struct err resident_check_user(const struct resident_call *call) MUST_USE;
/* Whether `ver` of the query names the room's version; if not the reply is
 * M_INCOMPATIBLE_ROOM_VERSION and the handler is done. */
bool resident_check_version(struct resident_call *call);
/* The template for the user with this content, as the reply. M_FORBIDDEN by the rules. */
struct err resident_reply_template(struct resident_call *call, const struct json *content) MUST_USE;

/* send_*: the body as an event of the origin's own user for this call's membership, path parameter
 * 1 its id. Signatures and hash have been checked; `is_restricted` joins that name a user of this
 * server carry its signature too. M_BAD_JSON, M_INVALID_PARAM, M_FORBIDDEN. */
struct err resident_read_event(struct resident_call *call, struct event *event_out) MUST_USE;
/* Into the room, with the signature of its policy server. M_FORBIDDEN when the state before it, the
 * room as it is now, or that server refuses. */
struct err resident_accept(struct resident_call *call, struct event *event_io) MUST_USE;
/* State that tells a stranger what the room is, in federation form, as an array: also for invites.
 * Spec: client-server, "Stripped state". */
struct err resident_room_state(struct hs *hs, struct ctx *ctx, struct room *room,
                               struct json *array_out) MUST_USE;
