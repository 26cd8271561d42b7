/* Devices and cross-signing keys of users of other servers. They are followed, and kept here, while
 * such a user shares a room with one of this server; their rows stand where own users' keys stand
 * ((STORE_USER_KEYS, user), device_keys.h), so they are read by the same functions.
 *
 * A list is current, or stale: an update was missed, and what is here must not be given out. Those
 * who share a room are told of a change as soon as it is known of; a list fetched afterwards
 * changes nothing more for them. Spec: server-server, "Device Management". */
#pragma once
#include "homeserver/service/device_keys.h"

enum { REMOTE_DEVICES_MAX = 1000 /* of one user */ };

struct remote_list {
    bool is_followed;
    bool is_stale;
    uint64_t stream_id; /* of the newest update here; 0 = unknown */
    uint64_t news;      /* counts what made it stale: an answer asked for before does not help */
};
struct err hs_remote_list_get(struct hs *hs, struct ctx *ctx, uint64_t user,
                              struct remote_list *list_out) MUST_USE;
/* Whether the user shares a room with one of this server. */
struct err hs_remote_is_shared(struct hs *hs, struct ctx *ctx, uint64_t user,
                               bool *is_out) MUST_USE;
/* Forgets the list of a user who shares no room any more. */
struct err hs_remote_devices_unfollow(struct hs *hs, struct ctx *ctx, uint64_t user) MUST_USE;

struct remote_device {
    struct slice device_id;
    struct slice display_name; /* ptr NULL = none */
    const struct json *keys;   /* NULL = none, or deleted */
};
struct remote_update {
    uint64_t user;
    struct slice user_id;
    struct remote_device device;
    int64_t stream_id;
    const struct json *prev_ids; /* array, or NULL */
};
/* Takes in one update. `missed_out`: it does not follow on what is here, and the list is stale. */
struct err hs_remote_devices_update(struct hs *hs, struct ctx *ctx,
                                    const struct remote_update *update, bool *missed_out) MUST_USE;
struct remote_cross {
    uint64_t user;
    struct slice user_id;
    const struct json *master_key, *self_signing_key; /* NULL = none */
};
/* Takes in changed cross-signing keys; keys that are not given stay. */
struct err hs_remote_cross_update(struct hs *hs, struct ctx *ctx, const struct remote_cross *cross,
                                  bool *missed_out) MUST_USE;

/* The whole list, as the user's server gave it. Kept when nothing has come since `asked`. */
struct remote_whole {
    struct remote_list asked; /* as it was before the server was asked */
    struct remote_cross cross;
    const struct remote_device *devices;
    size_t count;
    int64_t stream_id; /* 0 = unknown */
};
struct err hs_remote_devices_replace(struct hs *hs, struct ctx *ctx,
                                     const struct remote_whole *whole, bool *kept_out) MUST_USE;
