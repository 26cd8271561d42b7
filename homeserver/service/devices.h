/* Devices of an account. A device row holds the hashes of its access and refresh tokens, so
 * removing the row signs the device out in one atomic step; the token index (tokens.h) only points
 * here. Spec: client-server, "Device Management". */
#pragma once
#include "homeserver/service/hs.h"

enum { DEVICE_ID_BYTES_MAX = 255, DEVICE_NAME_BYTES_MAX = 1024 };

struct device {
    struct slice device_id;
    struct slice display_name; /* ptr NULL = none */
    int64_t created_ms;
    int64_t last_seen_ms; /* 0 = not yet */
    struct slice last_seen_ip, user_agent;
};
struct devices {
    struct device *items; /* by device id */
    size_t count;
};

struct err hs_devices_list(struct hs *hs, struct ctx *ctx, uint64_t user,
                           struct devices *devices_out) MUST_USE;
struct err hs_device_get(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                         struct device *device_out, bool *found_out) MUST_USE;
/* Sets or (ptr NULL) removes the display name. M_NOT_FOUND when there is no such device. */
struct err hs_device_rename(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                            struct slice display_name) MUST_USE;
/* Creates a device without tokens (application services); an existing one stays as it is. */
struct err hs_device_create(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                            struct slice display_name) MUST_USE;
/* Removes devices with all that belongs to them; unknown ids are skipped. */
struct err hs_devices_delete(struct hs *hs, struct ctx *ctx, uint64_t user,
                             const struct slice *device_ids, size_t count) MUST_USE;
/* Removes all devices but `keep` (ptr NULL = none is kept). */
struct err hs_devices_delete_others(struct hs *hs, struct ctx *ctx, uint64_t user,
                                    struct slice keep) MUST_USE;
/* Notes that a device was seen; written at most every few minutes. */
struct seen {
    struct slice ip, user_agent;
};
struct err hs_device_seen(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                          const struct seen *seen) MUST_USE;

/* What must go with a device (keys, inbox, pushers), and what must be told when a device list
 * changed. Both run in the account's lane. Register before requests arrive. */
typedef struct err (*hs_device_fn)(struct hs *hs, struct ctx *ctx, uint64_t user,
                                   struct slice device_id);
void hs_on_device_removed(struct hs *hs, hs_device_fn fn);
void hs_on_device_renamed(struct hs *hs, hs_device_fn fn);
