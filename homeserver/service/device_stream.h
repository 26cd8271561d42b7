/* What other servers are told of a local user's devices: a sequence of updates, each with a number
 * that follows the last one's. (STORE_DEVICE_CHANGES, user) holds what they have been told, so the
 * next updates are the difference to what is there now, whatever changed in between, and a crash
 * between two updates is no gap. Spec: server-server, "Device Management". */
#pragma once
#include "homeserver/service/device_keys.h"

struct device_news {
    struct slice device_id;
    struct slice display_name; /* ptr NULL = none */
    struct slice keys;         /* canonical JSON; empty = none */
    bool is_gone;
    uint64_t stream_id;
    uint64_t prev_id; /* of the update before it; 0 = none yet */
};
struct device_stream_news {
    struct device_news *items;
    size_t count;
    bool cross_changed;
    struct slice master_key, self_signing_key; /* JSON; empty = none */
    struct store_update *told;                 /* to be written when the updates are queued */
};
/* Nothing when there is no news. Of one thread alone. */
struct err hs_device_stream_next(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 struct device_stream_news *news_out) MUST_USE;

/* The devices as they are now, those with keys first, and the number of the last update. */
struct device_stream_state {
    struct device_news *items;
    size_t count;
    uint64_t stream_id;
    struct slice master_key, self_signing_key;
};
struct err hs_device_stream_state(struct hs *hs, struct ctx *ctx, uint64_t user,
                                  struct device_stream_state *state_out) MUST_USE;
