#include "crypto/ed25519.h"

#include <sodium.h>
#include <string.h>

#include "crypto/base64.h"
#include "homeserver/base/err.h"

struct ed25519_key ed25519_generate(void)
{
    struct ed25519_key key;
    struct ed25519_public public_key;
    ASSERT(sodium_init() >= 0);
    crypto_sign_keypair(public_key.bytes, key.secret);
    return key;
}

struct ed25519_key ed25519_from_seed(const unsigned char seed[ED25519_SEED_BYTES])
{
    struct ed25519_key key;
    struct ed25519_public public_key;
    ASSERT(sodium_init() >= 0);
    crypto_sign_seed_keypair(public_key.bytes, key.secret, seed);
    return key;
}

void ed25519_seed(const struct ed25519_key *key, unsigned char seed_out[ED25519_SEED_BYTES])
{
    crypto_sign_ed25519_sk_to_seed(seed_out, key->secret);
}

struct ed25519_public ed25519_public_of(const struct ed25519_key *key)
{
    struct ed25519_public public_key;
    crypto_sign_ed25519_sk_to_pk(public_key.bytes, key->secret);
    return public_key;
}

struct ed25519_signature ed25519_sign(const struct ed25519_key *key, struct slice message)
{
    struct ed25519_signature signature;
    crypto_sign_detached(signature.bytes, NULL, (const unsigned char *)message.ptr, message.len,
                         key->secret);
    return signature;
}

bool ed25519_verify(const struct ed25519_public *key, struct slice message,
                    const struct ed25519_signature *signature)
{
    return crypto_sign_verify_detached(signature->bytes, (const unsigned char *)message.ptr,
                                       message.len, key->bytes) == 0;
}

bool ed25519_parse_public(struct slice text, struct ed25519_public *key_out)
{
    return base64_decode_exact(text, key_out->bytes, sizeof key_out->bytes);
}

bool ed25519_parse_signature(struct slice text, struct ed25519_signature *signature_out)
{
    return base64_decode_exact(text, signature_out->bytes, sizeof signature_out->bytes);
}

void ed25519_wipe(void *secret, size_t size)
{
    sodium_memzero(secret, size);
}
