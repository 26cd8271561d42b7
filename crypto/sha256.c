/* The low-level functions of OpenSSL: they use the processor's SHA instructions, need no fetch of
 * an algorithm (EVP takes locks for that) and no heap. */
#define OPENSSL_API_COMPAT 0x10100000L
#include "crypto/sha256.h"

#include <openssl/sha.h>

struct sha256 sha256_of_parts(const struct slice *parts, size_t count)
{
    struct sha256 hash;
    SHA256_CTX state;
    SHA256_Init(&state);
    for (size_t i = 0; i < count; i++) {
        SHA256_Update(&state, parts[i].ptr, parts[i].len);
    }
    SHA256_Final(hash.bytes, &state);
    return hash;
}

struct sha256 sha256_of(struct slice data)
{
    return sha256_of_parts(&data, 1);
}

struct slice sha256_slice(const struct sha256 *hash)
{
    return (struct slice){(const char *)hash->bytes, sizeof hash->bytes};
}
