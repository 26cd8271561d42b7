#include "crypto/sha1.h"

#include <openssl/evp.h>

#include "homeserver/base/err.h"

struct sha1 sha1_of(struct slice data)
{
    struct sha1 hash;
    ASSERT(EVP_Digest(data.ptr, data.len, hash.bytes, NULL, EVP_sha1(), NULL) == 1);
    return hash;
}
