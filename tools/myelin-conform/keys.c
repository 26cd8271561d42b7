#include "tools/myelin-conform/keys.h"

#include <sodium.h>

static struct slice base64(struct arena *arena, const unsigned char *bytes, size_t len)
{
    size_t size = sodium_base64_encoded_len(len, sodium_base64_VARIANT_ORIGINAL_NO_PADDING);
    char *text = arena_alloc(arena, size);
    sodium_bin2base64(text, size, bytes, len, sodium_base64_VARIANT_ORIGINAL_NO_PADDING);
    return (struct slice){text, size - 1};
}

struct keys_pair keys_new(struct arena *arena)
{
    unsigned char public_key[crypto_sign_PUBLICKEYBYTES];
    unsigned char *secret = arena_alloc(arena, crypto_sign_SECRETKEYBYTES);
    crypto_sign_keypair(public_key, secret);
    return (struct keys_pair){
        .public_key = base64(arena, public_key, sizeof public_key),
        .secret = {(const char *)secret, crypto_sign_SECRETKEYBYTES},
    };
}

struct slice keys_random(struct arena *arena)
{
    unsigned char bytes[crypto_sign_PUBLICKEYBYTES];
    randombytes_buf(bytes, sizeof bytes);
    return base64(arena, bytes, sizeof bytes);
}

struct slice keys_random_hex(struct arena *arena, size_t count)
{
    unsigned char bytes[64];
    ASSERT(count <= sizeof bytes);
    randombytes_buf(bytes, count);
    char *text = arena_alloc(arena, count * 2 + 1);
    sodium_bin2hex(text, count * 2 + 1, bytes, count);
    return (struct slice){text, count * 2};
}

struct err keys_sign(struct arena *arena, struct json *object, const struct keys_signer *signer)
{
    static const struct slice unsigned_keys[] = {LIT("signatures"), LIT("unsigned")};
    if (signer->secret.len != crypto_sign_SECRETKEYBYTES) {
        return err_public(ERR_SYNTAX, "the variable after `with` holds no signing key");
    }
    struct json bare = json_without(arena, object, unsigned_keys, COUNT_OF(unsigned_keys));
    struct slice bytes = json_canonical(arena, &bare);
    unsigned char signature[crypto_sign_BYTES];
    crypto_sign_detached(signature, NULL, (const unsigned char *)bytes.ptr, bytes.len,
                         (const unsigned char *)signer->secret.ptr);
    const struct json *old = json_get_object(object, LIT("signatures"));
    const struct json *old_mine = json_get_object(old, signer->user_id);
    struct json all = old ? *old : json_object();
    struct json mine = old_mine ? *old_mine : json_object();
    json_set(arena, &mine, signer->key_id, json_string(base64(arena, signature, sizeof signature)));
    json_set(arena, &all, signer->user_id, mine);
    json_set(arena, object, LIT("signatures"), all);
    return OK;
}
