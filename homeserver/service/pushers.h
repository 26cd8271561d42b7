/* Pushers: where a user's notifications are to be sent. A row USER_ROW_PUSHER in (STORE_USER, user)
 * for each; (STORE_SERVER, "pushers") tells which users have a pusher of the same app and key. A
 * pusher goes with the device that set it, and with it what waits for it (push_queue.h). Which
 * users have any is kept in memory, so that a message to others costs a look at that. Spec:
 * client-server, "Push Notifications". */
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
    int64_t set_ms;         /* when it was last set; 0 = not known */
    struct slice ack_token; /* that activates it; empty = none */
    int64_t ack_until_ms;   /* how long that counts */
};
struct pushers {
    struct pusher *items;
    size_t count;
};

struct hs_pushers *hs_pushers_new(struct hs *hs);
void hs_pushers_free(struct hs_pushers **pushers);
/* Reads which users have pushers; before requests arrive. */
struct err hs_pushers_load(struct hs *hs, struct ctx *ctx) MUST_USE;
bool hs_pushers_any(struct hs *hs);
/* Those of the users (ascending) who have a pusher, ascending, in place; how many. Any thread. */
size_t hs_pushers_keep(struct hs *hs, uint64_t *users, size_t count);
/* All users who have one. */
size_t hs_pushers_users(struct hs *hs, struct ctx *ctx, uint64_t **users_out);

/* Names a pusher among those of its user; no name is the beginning of another. */
struct slice hs_pusher_name(struct ctx *ctx, struct slice app_id, struct slice pushkey);

/* Adds a pusher or replaces the user's own of the same app and key. Those of other users stay
 * (APPEND) or go (REPLACE). M_INVALID_PARAM when the user has too many. */
enum pusher_mode { PUSHER_REPLACE, PUSHER_APPEND };
struct err hs_pusher_set(struct hs *hs, struct ctx *ctx, uint64_t user, const struct pusher *pusher,
                         enum pusher_mode mode) MUST_USE;
/* An unknown one is no error. */
struct err hs_pusher_delete(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice app_id,
                            struct slice pushkey) MUST_USE;
/* The same when it was not set anew since `set_ms`. */
struct err hs_pusher_delete_old(struct hs *hs, struct ctx *ctx, uint64_t user,
                                const struct pusher *pusher) MUST_USE;
struct err hs_pushers_list(struct hs *hs, struct ctx *ctx, uint64_t user,
                           struct pushers *pushers_out) MUST_USE;
struct err hs_pusher_get(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice name,
                         struct pusher *pusher_out, bool *found_out) MUST_USE;
/* Pushers go with their devices. Before requests arrive. */
void hs_pushers_hook(struct hs *hs);
