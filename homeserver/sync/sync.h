/* The sync engine: what happened for one user between two stream positions, as one JSON object.
 * Long polls and streams are drivers over it. The same request gives the same answer again: nothing
 * is deleted by answering, only by a later `since`.
 * Spec: client-server, "Syncing". */
#pragma once
#include "homeserver/service/timeline.h"
#include "homeserver/sync/filter.h"
#include "homeserver/sync/sessions.h"
#include "homeserver/sync/token.h"

struct sync;

/* Listens to hs->positions: call before the first position is reserved, after the other parts of
 * `hs` are there. */
struct sync *sync_new(struct hs *hs);
/* After the workers and the positions have stopped. */
void sync_free(struct sync **sync);
struct sync_sessions *sync_get_sessions(struct sync *sync);

struct sync_request {
    uint64_t user;
    struct slice user_id;
    struct slice device_id; /* empty: an application service without a device */
    bool initial;           /* no `since` */
    struct sync_token since;
    const struct sync_filter *filter;
    bool full_state;
    bool use_state_after;
};

struct sync_answer {
    bool news;              /* something happened after `since` (or the request is initial) */
    struct sync_token next; /* next_batch */
    uint64_t upto;          /* looked up to here; wait for what comes after it */
};

/* Writes the body of the answer. ERR_WAITS on a loop when there is news. */
struct err sync_respond(struct sync *sync, struct ctx *ctx, const struct sync_request *request,
                        struct buf *body, struct sync_answer *answer_out) MUST_USE;
/* Deletes the to-device messages that a client with this `since` has. */
struct err sync_acknowledge(struct sync *sync, struct ctx *ctx,
                            const struct sync_request *request) MUST_USE;
/* The users whose keys changed between request->since and `upto`, as device_lists would tell.
 * Spec: client-server, "Tracking the device list for a user". */
struct err sync_key_changes(struct sync *sync, struct ctx *ctx, const struct sync_request *request,
                            uint64_t upto, struct json_out *out) MUST_USE;
/* Parses since (ptr NULL = initial) against what this server has published. */
struct err sync_parse_since(struct sync *sync, struct slice since,
                            struct sync_request *request) MUST_USE;
/* The filter named by the parameter: inline JSON when it begins with '{', an id otherwise; ptr NULL
 * is the filter that takes everything. M_INVALID_PARAM for an unknown id. On a loop, where nothing
 * is filtered, one that is known to exist is not read. */
struct err sync_find_filter(struct sync *sync, struct ctx *ctx, uint64_t user, struct slice filter,
                            struct sync_filter *filter_out) MUST_USE;
/* An array of the presence of everybody who shares a room with the user, as known now. */
struct err sync_write_everyones_presence(struct sync *sync, struct ctx *ctx, uint64_t user,
                                         struct json_out *out) MUST_USE;
