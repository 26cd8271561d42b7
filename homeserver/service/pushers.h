/* Pushers: where a user's notifications are to be sent. A row USER_ROW_PUSHER in (STORE_USER, user)
 * for each; (STORE_SERVER, "pushers") tells which users have a pusher of the same app and key. A
 * pusher goes with the device that set it. Spec: client-server, "Push Notifications". */
#pragma once
#include "homeserver/service/hs.h"

enum {
    PUSHERS_OF_USER_MAX = 100,
    PUSHER_KEY_BYTES_MAX = 512,
    PUSHER_APP_ID_CHARS_MAX = 64,
};

struct pusher {
    struct slice app_id, pushkey;
    struct slice device_id; /* that set it; empty = none */
    struct slice json;      /* canonical, as GET /pushers lists it */
};
struct pushers {
    struct pusher *items;
    size_t count;
};

/* Adds a pusher or replaces the user's own of the same app and key. Those of other users stay
 * (APPEND) or go (REPLACE). M_INVALID_PARAM when the user has too many. */
enum pusher_mode { PUSHER_REPLACE, PUSHER_APPEND };
struct err hs_pusher_set(struct hs *hs, struct ctx *ctx, uint64_t user, const struct pusher *pusher,
                         enum pusher_mode mode) MUST_USE;
/* An unknown one is no error. */
struct err hs_pusher_delete(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice app_id,
                            struct slice pushkey) MUST_USE;
struct err hs_pushers_list(struct hs *hs, struct ctx *ctx, uint64_t user,
                           struct pushers *pushers_out) MUST_USE;
/* Pushers go with their devices. Before requests arrive. */
void hs_pushers_hook(struct hs *hs);
