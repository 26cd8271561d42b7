/* SHA-256 of bytes. Thread safe. */
#pragma once
#include "homeserver/base/slice.h"

enum { SHA256_BYTES = 32 };

struct sha256 {
    unsigned char bytes[SHA256_BYTES];
};

struct sha256 sha256_of(struct slice data);
/* The hash of the parts one after the other. */
struct sha256 sha256_of_parts(const struct slice *parts, size_t count);
/* Borrows from the argument. */
struct slice sha256_slice(const struct sha256 *hash);
