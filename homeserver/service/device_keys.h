/* End-to-end keys: device keys, one-time and fallback keys, cross-signing keys and signatures; and
 * the stream of device list changes, (STORE_DEVICE_CHANGES, 0) keyed by position -> user number.
 * A user's keys live in (STORE_USER_KEYS, user) and are written in the account's lane.
 * Spec: client-server, "End-to-End Encryption". */
#pragma once
#include "homeserver/service/hs.h"

struct hs_keys *hs_keys_new(struct hs *hs);
void hs_keys_free(struct hs_keys **keys);

/* Users (local or remote) whose devices or cross-signing keys changed with since < pos <= upto,
 * each once, ascending by number. */
struct err hs_device_changes(struct hs *hs, struct ctx *ctx, uint64_t since, uint64_t upto,
                             uint64_t **users_out, size_t *count_out) MUST_USE;
/* Records that a user's device list changed (new, renamed, deleted device; keys; cross-signing). */
struct err hs_device_list_changed(struct hs *hs, struct ctx *ctx, uint64_t user) MUST_USE;

struct key_count {
    struct slice algorithm;
    uint32_t count;
};
struct key_counts {
    struct key_count *one_time; /* always has signed_curve25519 */
    size_t one_time_count;
    struct slice *unused_fallback; /* algorithms */
    size_t unused_fallback_count;
    uint64_t pos; /* of the last change of these figures, 0 = never */
};
/* Counts of a device's unclaimed keys; cached in memory. */
struct err hs_key_counts(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                         struct key_counts *counts_out) MUST_USE;
