/* Profiles of local users: named JSON values, at most 64 KiB together; and the door to those of
 * remote users. Spec: client-server, "Profiles". */
#pragma once
#include "homeserver/base/json_out.h"
#include "homeserver/service/hs.h"

enum { PROFILE_BYTES_MAX = 65536, PROFILE_KEY_BYTES_MAX = 255 };

/* The whole profile as a JSON object, in the arena. Remote users are asked for at their server.
 * M_NOT_FOUND when there is no such user. */
struct err hs_profile_get(struct hs *hs, struct ctx *ctx, struct slice user_id,
                          struct json *profile_out) MUST_USE;
/* That of a local user; one who is not here has an empty one. */
struct err hs_profile_load(struct hs *hs, struct ctx *ctx, uint64_t user,
                           struct json *profile_out) MUST_USE;
/* displayname and avatar_url of a local user for member events; ptr NULL = not set. */
struct err hs_profile_names(struct hs *hs, struct ctx *ctx, uint64_t user,
                            struct slice *displayname_out, struct slice *avatar_url_out) MUST_USE;
/* Sets (value NULL: removes) a field and calls the hooks, also when it had that value already: an
 * earlier attempt may have stopped before them. M_INVALID_PARAM, M_KEY_TOO_LARGE,
 * M_PROFILE_TOO_LARGE. */
struct err hs_profile_set(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice field,
                          const struct json *value) MUST_USE;

/* Called after a field was set, in no lane; rooms update member events here. */
typedef struct err (*hs_profile_fn)(struct hs *hs, struct ctx *ctx, uint64_t user,
                                    struct slice field);
void hs_on_profile_change(struct hs *hs, hs_profile_fn fn);
/* Asks another server for the profile of its user; set by federation at start. */
typedef struct err (*hs_profile_remote_fn)(struct hs *hs, struct ctx *ctx, struct slice user_id,
                                           struct json *profile_out);
void hs_profile_set_remote(struct hs *hs, hs_profile_remote_fn fn);
