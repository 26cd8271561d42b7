#include "tests/support/cross_keys.h"

#include "crypto/base64.h"

struct slice cross_keys_public(struct arena *arena, const struct ed25519_key *key)
{
    struct ed25519_public public = ed25519_public_of(key);
    return base64_encode(arena, (struct slice){(const char *)public.bytes, ED25519_PUBLIC_BYTES},
                         BASE64_STANDARD);
}

static struct slice key_id_of(struct arena *arena, const struct ed25519_key *key)
{
    return arena_concat(arena, LIT("ed25519:"), cross_keys_public(arena, key));
}

void cross_keys_sign(struct arena *arena, struct json *object, struct slice user_id,
                     const struct ed25519_key *key)
{
    struct json_signer signer = {ids_trust_server(user_id), key_id_of(arena, key), key};
    json_sign(arena, object, &signer);
}

struct json cross_keys_object(struct arena *arena, struct slice user_id, enum cross_key usage,
                              const struct ed25519_key *key)
{
    struct json object = json_object();
    struct json keys = json_object();
    struct json usages = json_array();
    json_push(arena, &usages, json_string(hs_cross_key_usage(usage)));
    json_set(arena, &keys, key_id_of(arena, key), json_string(cross_keys_public(arena, key)));
    json_set(arena, &object, LIT("user_id"), json_string(user_id));
    json_set(arena, &object, LIT("usage"), usages);
    json_set(arena, &object, LIT("keys"), keys);
    return object;
}

struct cross_keys cross_keys_make(struct arena *arena, uint64_t user, struct slice user_id)
{
    struct cross_keys all = {.user = user, .user_id = user_id};
    for (int i = 0; i < CROSS_KEY_COUNT; i++) {
        all.keys[i] = ed25519_generate();
        all.objects[i] = cross_keys_object(arena, user_id, (enum cross_key)i, &all.keys[i]);
        if (i != CROSS_MASTER) {
            cross_keys_sign(arena, &all.objects[i], user_id, &all.keys[CROSS_MASTER]);
        }
    }
    return all;
}

struct cross_upload cross_keys_upload(const struct cross_keys *keys)
{
    return (struct cross_upload){.user = keys->user,
                                 .user_id = keys->user_id,
                                 .keys = {&keys->objects[0], &keys->objects[1], &keys->objects[2]}};
}
