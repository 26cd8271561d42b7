/* Dehydrated devices: one device of a user that no client uses; it gathers room keys for a client
 * that the user signs in later. It is a device like any other, without tokens, and one row of the
 * user says which one it is and how a client brings it back to life.
 * Spec: spec/dehydrated-devices.md. */
#pragma once
#include "homeserver/base/json.h"
#include "homeserver/service/device_keys.h"

struct dehydrated_draft {
    struct key_upload keys;    /* device_id: of the new device */
    struct slice display_name; /* ptr NULL = none */
    const struct json *data;
};
/* Takes the place of the one before, which is deleted. M_INVALID_PARAM when another device has this
 * id. The caller is in no lane. */
struct err hs_dehydrated_put(struct hs *hs, struct ctx *ctx,
                             const struct dehydrated_draft *draft) MUST_USE;

struct dehydrated {
    struct slice device_id;
    struct slice data; /* JSON object */
};
struct err hs_dehydrated_get(struct hs *hs, struct ctx *ctx, uint64_t user,
                             struct dehydrated *device_out, bool *found_out) MUST_USE;
/* Deletes it; found_out false: there was none. */
struct err hs_dehydrated_delete(struct hs *hs, struct ctx *ctx, uint64_t user,
                                struct slice *device_id_out, bool *found_out) MUST_USE;
