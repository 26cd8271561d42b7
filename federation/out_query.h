/* Questions to other servers about their aliases, rooms and users: parts of the port (remote.h).
 * Hierarchies and profiles are kept for a while, as the specification advises. */
#pragma once
#include "homeserver/service/remote.h"

struct fed_answers; /* answers kept */

struct fed_answers *fed_answers_new(void);
void fed_answers_free(struct fed_answers **answers);

struct err fed_alias(struct hs *hs, struct ctx *ctx, struct slice alias,
                     struct json *answer_out) MUST_USE;
struct err fed_public_rooms(struct hs *hs, struct ctx *ctx, struct slice server,
                            const struct json *body, struct json *answer_out) MUST_USE;
struct err fed_hierarchy(struct hs *hs, struct ctx *ctx, struct slice room_id,
                         struct remote_servers via, bool suggested_only,
                         struct json *answer_out) MUST_USE;
/* Also fetches the history down to the event, as far as that is not long. */
struct err fed_timestamp(struct hs *hs, struct ctx *ctx, struct room *room, int64_t ts_ms,
                         bool forward, struct json *answer_out) MUST_USE;
/* The hook of hs_profile_set_remote. */
struct err fed_profile(struct hs *hs, struct ctx *ctx, struct slice user_id,
                       struct json *profile_out) MUST_USE;
