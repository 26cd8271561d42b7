/* Any JSON is read as keys of a server without harm; unsigned keys never count. */
#include "federation/server_keys.h"

#include "crypto/json_sign.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned char seed[ED25519_SEED_BYTES] = {1};
    struct arena *arena = arena_new();
    struct ed25519_key key = ed25519_from_seed(seed);
    struct json_signer signer = {ids_trust_server(LIT("a.org")), LIT("ed25519:1"), &key};
    struct json object;
    struct server_keys keys;
    struct err err = json_parse(arena, (struct slice){(const char *)data, size}, &object);
    if (!err.code && object.type == JSON_OBJECT) {
        json_remove(&object, LIT("signatures"));
        ASSERT(server_keys_parse(arena, &object, LIT("a.org"), 1700000000000, &keys).code);
        json_sign(arena, &object, &signer); /* the corpus has this key */
        err = server_keys_parse(arena, &object, LIT("a.org"), 1700000000000, &keys);
        ASSERT(err.code || keys.count <= SERVER_KEYS_MAX);
    }
    arena_free(&arena);
    return 0;
}
