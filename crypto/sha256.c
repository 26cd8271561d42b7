#include "crypto/sha256.h"

#include <openssl/evp.h>

#include "homeserver/base/err.h"

/* OpenSSL's SHA-256 uses the processor's instructions, libsodium's does not. EVP_sha256() is a
 * static method, so there is no fetch per call. */
static void digest(EVP_MD_CTX *md, const struct slice *parts, size_t count, struct sha256 *hash)
{
    bool good = EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;
    for (size_t i = 0; i < count && good; i++) {
        good = EVP_DigestUpdate(md, parts[i].ptr, parts[i].len) == 1;
    }
    good = good && EVP_DigestFinal_ex(md, hash->bytes, NULL) == 1;
    ASSERT(good);
}

struct sha256 sha256_of_parts(const struct slice *parts, size_t count)
{
    struct sha256 hash;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    ASSERT(md != NULL);
    digest(md, parts, count, &hash);
    EVP_MD_CTX_free(md);
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
