/* Keys on the curve P-256: agreement (ECDH) and signatures (ECDSA with SHA-256, ES256 of RFC 7518),
 * as web push wants them. Thread safe. */
#pragma once
#include "homeserver/base/err.h"

enum {
    P256_SECRET_BYTES = 32,
    P256_PUBLIC_BYTES = 65, /* uncompressed: 4, x, y */
    P256_SHARED_BYTES = 32,
    P256_SIGNATURE_BYTES = 64, /* r, s */
};

struct p256_key {
    unsigned char secret[P256_SECRET_BYTES];
    unsigned char public_key[P256_PUBLIC_BYTES];
};

/* A new key. ERR_INTERNAL when the library cannot make one. */
struct err p256_make(struct p256_key *key_out) MUST_USE;
/* False when the number is none of the group's. */
bool p256_from_secret(const unsigned char secret[P256_SECRET_BYTES], struct p256_key *key_out);
/* Whether the bytes are a point of the curve in uncompressed form. */
bool p256_is_public(const unsigned char public_key[P256_PUBLIC_BYTES]);
/* The x coordinate of the common point; false when `other` is no public key. */
bool p256_agree(const struct p256_key *key, const unsigned char other[P256_PUBLIC_BYTES],
                unsigned char shared_out[P256_SHARED_BYTES]);
struct err p256_sign(const struct p256_key *key, struct slice message,
                     unsigned char signature_out[P256_SIGNATURE_BYTES]) MUST_USE;
bool p256_check(const unsigned char public_key[P256_PUBLIC_BYTES], struct slice message,
                const unsigned char signature[P256_SIGNATURE_BYTES]);

/* The key of a file: its secret number in base64, on a line of its own; made when there is no file.
 * ERR_IO, ERR_CORRUPT. The secret alone is told, for p256_from_secret: most runs of a server have
 * no use for more, and computing it loads much of the library. */
struct err p256_load(struct slice path, unsigned char secret_out[P256_SECRET_BYTES]) MUST_USE;
