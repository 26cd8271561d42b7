#include "federation/self_keys.h"

#include "crypto/base64.h"
#include "crypto/signing_key.h"

enum { KEYS_VALID_MS = 24 * 3600 * 1000 };

static struct json text_of_key(struct arena *arena, const struct ed25519_public *key)
{
    struct slice bytes = {(const char *)key->bytes, sizeof key->bytes};
    return json_string(base64_encode(arena, bytes, BASE64_STANDARD));
}

static struct json verify_keys(struct hs *hs, struct arena *arena)
{
    struct json keys = json_object();
    struct json key = json_object();
    struct ed25519_public current = signing_key_public(hs->signing_key);
    json_set(arena, &key, LIT("key"), text_of_key(arena, &current));
    json_set(arena, &keys, signing_key_id(hs->signing_key), key);
    return keys;
}

static struct json old_verify_keys(struct hs *hs, struct arena *arena)
{
    struct json keys = json_object();
    size_t count = 0;
    const struct signing_key_old *olds = signing_key_olds(hs->signing_key, &count);
    for (size_t i = 0; i < count; i++) {
        struct json key = json_object();
        json_set(arena, &key, LIT("expired_ts"), json_int(olds[i].expired_ms));
        json_set(arena, &key, LIT("key"), text_of_key(arena, &olds[i].public_key));
        json_set(arena, &keys, olds[i].key_id, key);
    }
    return keys;
}

struct json self_keys(struct hs *hs, struct ctx *ctx)
{
    struct json object = json_object();
    json_set(ctx->arena, &object, LIT("server_name"), json_string(hs->server_name));
    json_set(ctx->arena, &object, LIT("valid_until_ts"),
             json_int(now_wall_ms(ctx->now) + KEYS_VALID_MS));
    json_set(ctx->arena, &object, LIT("verify_keys"), verify_keys(hs, ctx->arena));
    json_set(ctx->arena, &object, LIT("old_verify_keys"), old_verify_keys(hs, ctx->arena));
    json_sign(ctx->arena, &object, &hs->signer);
    return object;
}
