/* What only other servers can do: the port through which services reach them. federation/ fills it
 * at start (hs->remote); NULL when the server does not federate. Every function may wait for the
 * network: it answers ERR_WAITS at once, without any effect, when ctx->may_wait is not set, and is
 * called in no lane. Errors that a remote server gave for the user's request come with its errcode
 * and text; M_MISSING_PARAM and M_INVALID_PARAM of a remote are not the user's fault and become
 * M_UNKNOWN (502). Spec: server-server. */
#pragma once
#include "homeserver/service/memberships.h"

struct remote_servers {
    const struct slice *names; /* to try, best first; this server and doubles are passed over */
    size_t count;
};

struct remote_membership {
    const struct actor *actor; /* the local user */
    struct slice room_id;
    struct remote_servers via;
    const struct json *extra; /* more members of the member event's content, or NULL */
    struct slice
        *version_out; /* the room's version with M_INCOMPATIBLE_ROOM_VERSION; may be NULL */
};

struct hs_remote {
    /* Joins, knocks at, or leaves (rejects an invite to, retracts a knock at) a room through a
     * resident server. A room joined may still be partial (room_is_partial) when this returns.
     * A leave that no server takes is recorded here alone and succeeds. */
    struct err (*join)(struct hs *hs, struct ctx *ctx, const struct remote_membership *want);
    struct err (*knock)(struct hs *hs, struct ctx *ctx, const struct remote_membership *want);
    struct err (*leave)(struct hs *hs, struct ctx *ctx, const struct remote_membership *want);
    /* Asks the invited user's server to sign an invite that is sealed and allowed here, and takes
     * it into the room; a join by it that comes quickly finds it there. M_FORBIDDEN when the room
     * or that server refuses, M_INVITE_BLOCKED, M_REMOTE. */
    struct err (*invite)(struct hs *hs, struct ctx *ctx, struct room *room,
                         const struct event *invite, struct hs_sent *sent_out);
    /* Waits until the room's state is whole (partial joins). ERR_TIMEOUT after a minute. */
    struct err (*await_complete)(struct hs *hs, struct ctx *ctx, struct room *room);
    /* History older than what is here, before event `number`: some events were added, or `none`
     * when nobody has more. */
    struct err (*backfill)(struct hs *hs, struct ctx *ctx, struct room *room, int64_t number,
                           size_t limit, bool *added_out);
    /* room id and servers of an alias of another server: the federation answer. */
    struct err (*alias)(struct hs *hs, struct ctx *ctx, struct slice alias,
                        struct json *answer_out);
    /* A page of another server's public rooms; `body` is the client's body. */
    struct err (*public_rooms)(struct hs *hs, struct ctx *ctx, struct slice server,
                               const struct json *body, struct json *answer_out);
    /* One room of a space, as GET /federation/v1/hierarchy answers. */
    struct err (*hierarchy)(struct hs *hs, struct ctx *ctx, struct slice room_id,
                            struct remote_servers via, bool suggested_only,
                            struct json *answer_out);
    /* The event of a room nearest to a time: event_id and origin_server_ts. */
    struct err (*timestamp_to_event)(struct hs *hs, struct ctx *ctx, struct room *room,
                                     int64_t ts_ms, bool forward, struct json *answer_out);
    /* Fetches a file of another server and keeps it here under media_remote_id (media.h).
     * M_NOT_FOUND, M_NOT_YET_UPLOADED, M_TOO_LARGE. Several that want one file fetch it once. */
    struct err (*media)(struct hs *hs, struct ctx *ctx, struct slice server, struct slice media_id,
                        int64_t timeout_ms);
    /* The policy server's signature on a sealed event of this server, when the room has one.
     * M_FORBIDDEN when it refuses. `event` is returned unchanged in rooms without one. */
    struct err (*policy_sign)(struct hs *hs, struct ctx *ctx, struct room *room,
                              const struct event *event, struct event *signed_out);
};
