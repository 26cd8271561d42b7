/* Ed25519 keys for plays that sign device and cross-signing keys. */
#pragma once
#include "homeserver/base/json.h"

struct keys_pair {
    struct slice public_key; /* unpadded base64 */
    struct slice secret;     /* raw, libsodium's form */
};

struct keys_signer {
    struct slice user_id;
    struct slice key_id; /* ed25519:... */
    struct slice secret;
};

/* A new pair whose texts live in `arena`. */
struct keys_pair keys_new(struct arena *arena);
/* A random Curve25519-sized public key, unpadded base64. */
struct slice keys_random(struct arena *arena);
/* Adds the signature to `signatures` of the object. Spec: appendices, "Signing JSON". */
struct err keys_sign(struct arena *arena, struct json *object,
                     const struct keys_signer *signer) MUST_USE;
/* Lower-case hexadecimal digits of `count` random bytes. */
struct slice keys_random_hex(struct arena *arena, size_t count);
