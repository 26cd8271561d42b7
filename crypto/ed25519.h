/* Ed25519 signatures over libsodium. Thread safe after the first call of any function. */
#pragma once
#include "homeserver/base/slice.h"

enum {
    ED25519_SEED_BYTES = 32,
    ED25519_PUBLIC_BYTES = 32,
    ED25519_SECRET_BYTES = 64,
    ED25519_SIGNATURE_BYTES = 64,
};

struct ed25519_public {
    unsigned char bytes[ED25519_PUBLIC_BYTES];
};
struct ed25519_key {
    unsigned char secret[ED25519_SECRET_BYTES]; /* seed and public key */
};
struct ed25519_signature {
    unsigned char bytes[ED25519_SIGNATURE_BYTES];
};

struct ed25519_key ed25519_generate(void);
struct ed25519_key ed25519_from_seed(const unsigned char seed[ED25519_SEED_BYTES]);
/* The seed, for saving; the caller wipes its copy with ed25519_wipe. */
void ed25519_seed(const struct ed25519_key *key, unsigned char seed_out[ED25519_SEED_BYTES]);
struct ed25519_public ed25519_public_of(const struct ed25519_key *key);
struct ed25519_signature ed25519_sign(const struct ed25519_key *key, struct slice message);
bool ed25519_verify(const struct ed25519_public *key, struct slice message,
                    const struct ed25519_signature *signature);
/* From unpadded base64; false when it is not 32 (64) bytes. */
bool ed25519_parse_public(struct slice text, struct ed25519_public *key_out);
bool ed25519_parse_signature(struct slice text, struct ed25519_signature *signature_out);
/* Overwrites secret bytes in a way the compiler keeps. */
void ed25519_wipe(void *secret, size_t size);
