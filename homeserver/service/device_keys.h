/* End-to-end keys: device keys, one-time and fallback keys; and the stream of device list changes,
 * (STORE_DEVICE_CHANGES, 0) keyed by position -> user number. Cross-signing keys and signatures are
 * cross_signing.h. A user's keys live in (STORE_USER_KEYS, user) and are written in the account's
 * lane; the functions enter it themselves.
 * Spec: client-server, "End-to-End Encryption". */
#pragma once
#include "homeserver/base/json_out.h"
#include "homeserver/service/hs.h"

enum { KEYS_ONE_TIME_MAX = 200 /* of one device and algorithm */, KEYS_KEY_BYTES_MAX = 16384 };

struct hs_keys *hs_keys_new(struct hs *hs);
void hs_keys_free(struct hs_keys **keys);

/* --- device lists --- */
/* Users (local or remote) whose devices or cross-signing keys changed with since < pos <= upto,
 * each once, ascending by number. Changes that only one viewer can see are left out. */
struct err hs_device_changes(struct hs *hs, struct ctx *ctx, uint64_t since, uint64_t upto,
                             uint64_t **users_out, size_t *count_out) MUST_USE;
/* The same with what only `viewer` can see: users whose keys it has signed. */
struct change_window {
    uint64_t viewer, since, upto;
};
struct err hs_device_changes_for(struct hs *hs, struct ctx *ctx, struct change_window window,
                                 uint64_t **users_out, size_t *count_out) MUST_USE;
/* Records that a user's device list changed (new, renamed, deleted device; keys; cross-signing). */
struct err hs_device_list_changed(struct hs *hs, struct ctx *ctx, uint64_t user) MUST_USE;

/* --- counts --- */
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

/* --- uploading --- */
struct key_upload {
    uint64_t user;
    struct slice user_id, device_id;
    const struct json *device_keys, *one_time_keys, *fallback_keys; /* NULL = none */
};
/* Checks all, then stores all in one write. One-time keys that are there already (or were claimed
 * lately) under the same id with the same content are skipped; other content is refused
 * (M_UNKNOWN, 400). A device that is gone: M_UNKNOWN_TOKEN. */
struct err hs_keys_upload(struct hs *hs, struct ctx *ctx, const struct key_upload *upload) MUST_USE;

/* --- reading --- */
/* Writes the object device id -> device keys of a user, of the wanted devices (NULL or an empty
 * list: all that have keys). Members of `wanted` that are no strings are ignored. */
struct err hs_keys_write_devices(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 const struct json *wanted, struct json_out *out) MUST_USE;
/* The stored device keys with their signatures. */
struct err hs_device_keys_get(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                              struct json *keys_out, bool *found_out) MUST_USE;

/* --- claiming --- */
struct key_claim {
    struct slice device_id, algorithm;
    bool found;
    struct slice key_name; /* "algorithm:id" */
    struct slice json;
};
/* Takes one key for each claim: the oldest one-time key, which is gone then, or the fallback key,
 * which is marked used. What is handed out is durable with the ctx's write ticket. */
struct err hs_keys_claim(struct hs *hs, struct ctx *ctx, uint64_t user, struct key_claim *claims,
                         size_t count) MUST_USE;
/* The body of a claim, user id -> (device id -> algorithm): its form, M_BAD_JSON; and the answer
 * for one user of this server, written as a member of one_time_keys. A user without keys, or of
 * another server, is left out. */
struct err hs_keys_check_claims(const struct json *wanted) MUST_USE;
struct err hs_keys_write_claims(struct hs *hs, struct ctx *ctx, const struct json_member *wanted,
                                struct json_out *out) MUST_USE;

/* --- other servers --- */
/* Asks servers for keys, all at once: `wanted` is user id -> list of device ids for a query, user
 * id -> (device id -> algorithm) for a claim. Each answer has the members of the federation API. A
 * server that does not answer in time has `failed`; ERR_WAITS as remote.h says. Without hooks, all
 * fail. Register before requests arrive. */
struct keys_ask {
    struct slice server;
    struct json wanted;
    struct json answer;
    bool failed;
};
typedef struct err (*hs_keys_remote_fn)(struct hs *hs, struct ctx *ctx, struct keys_ask *asks,
                                        size_t count, int64_t timeout_ms);
struct hs_keys_remote {
    hs_keys_remote_fn query, claim;
};
void hs_keys_set_remote(struct hs *hs, struct hs_keys_remote remote);
struct hs_keys_remote hs_keys_get_remote(const struct hs *hs);
