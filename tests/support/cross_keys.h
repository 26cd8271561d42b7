/* Cross-signing keys for tests: made, described and used to sign. All results are in the arena. */
#pragma once
#include "crypto/json_sign.h"
#include "homeserver/service/cross_signing.h"

/* A user with cross-signing keys: the master key has signed the two others. */
struct cross_keys {
    uint64_t user;
    struct slice user_id;
    struct ed25519_key keys[CROSS_KEY_COUNT];
    struct json objects[CROSS_KEY_COUNT];
};

struct cross_keys cross_keys_make(struct arena *arena, uint64_t user, struct slice user_id);
struct cross_upload cross_keys_upload(const struct cross_keys *keys);
struct slice cross_keys_public(struct arena *arena, const struct ed25519_key *key);
/* The object of a key, unsigned. */
struct json cross_keys_object(struct arena *arena, struct slice user_id, enum cross_key usage,
                              const struct ed25519_key *key);
void cross_keys_sign(struct arena *arena, struct json *object, struct slice user_id,
                     const struct ed25519_key *key);
