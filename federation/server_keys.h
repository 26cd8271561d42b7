/* The keys that a server publishes, as an answer of it or of a notary. Pure.
 * Spec: server-server, "Publishing Keys". */
#pragma once
#include "crypto/ed25519.h"
#include "homeserver/base/json.h"

enum { SERVER_KEYS_MAX = 64, SERVER_KEY_ID_BYTES_MAX = 128 };

struct server_key {
    struct slice id;
    struct ed25519_public public_key;
    int64_t valid_until_ms; /* old keys: when they expired */
    bool is_old;            /* good for events only */
};

struct server_keys {
    struct server_key *keys;
    size_t count;
    int64_t valid_until_ms;
};

/* Checks that the object is `server`'s and signed with one of its verify_keys. Keys of algorithms
 * or forms not known are left out. valid_until_ts counts at most 7 days from now_ms. M_FORBIDDEN
 * (signature) or M_BAD_JSON. */
struct err server_keys_parse(struct arena *arena, const struct json *object, struct slice server,
                             int64_t now_ms, struct server_keys *keys_out) MUST_USE;
