#define OPENSSL_API_COMPAT 0x10100000L
#include "crypto/sha1.h"

#include <openssl/sha.h>

struct sha1 sha1_of(struct slice data)
{
    struct sha1 hash;
    SHA_CTX state;
    SHA1_Init(&state);
    SHA1_Update(&state, data.ptr, data.len);
    SHA1_Final(hash.bytes, &state);
    return hash;
}
