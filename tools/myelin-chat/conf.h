/* Where the client keeps its session: $XDG_CONFIG_HOME/myelin-chat/PROFILE.json, readable by its
 * owner alone, since it holds the access token. */
#pragma once
#include "homeserver/base/json.h"

struct session {
    struct slice server; /* base URL without a final slash */
    struct slice user_id, device_id, access_token;
};

/* The profile's session; all empty when there is none yet. Lives in the arena. */
struct err conf_load(struct arena *arena, struct slice profile,
                     struct session *session_out) MUST_USE;
struct err conf_save(struct arena *arena, struct slice profile,
                     const struct session *session) MUST_USE;
/* Forgets the session. */
struct err conf_remove(struct arena *arena, struct slice profile) MUST_USE;
