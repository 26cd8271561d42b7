/* SHA-1, for one thing only: the order of events in state resolution version 1.
 * Never for anything that must resist an attacker. Thread safe. */
#pragma once
#include "homeserver/base/slice.h"

enum { SHA1_BYTES = 20 };

struct sha1 {
    unsigned char bytes[SHA1_BYTES];
};

struct sha1 sha1_of(struct slice data);
