#include "crypto/webpush.h"

#include "crypto/base64.h"
#include "homeserver/base/json_out.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <sys/random.h>

enum {
    KEY_BYTES = 16,
    NONCE_BYTES = 12,
    TAG_BYTES = 16,
    HASH_BYTES = 32,
    HEAD_BYTES = WEBPUSH_SALT_BYTES + 4 + 1 + P256_PUBLIC_BYTES,
    LAST_RECORD = 2, /* the delimiter of the last record; RFC 8188, 2 */
};

bool webpush_parse_subscriber(struct slice public_key, struct slice auth,
                              struct webpush_subscriber *subscriber_out)
{
    return base64_decode_exact(public_key, subscriber_out->public_key, P256_PUBLIC_BYTES) &&
           base64_decode_exact(auth, subscriber_out->auth, WEBPUSH_AUTH_BYTES) &&
           p256_is_public(subscriber_out->public_key);
}

static struct slice bytes_of(const unsigned char *bytes, size_t size)
{
    return (struct slice){(const char *)bytes, size};
}

/* HKDF with SHA-256 for at most one block: extract with `salt`, expand with `info`. */
static void derive(struct slice salt, struct slice input, struct slice info,
                   unsigned char out[HASH_BYTES])
{
    unsigned char secret[HASH_BYTES];
    unsigned char block[256];
    unsigned int size = 0;
    ASSERT(info.len < sizeof block);
    HMAC(EVP_sha256(), salt.ptr, (int)salt.len, (const unsigned char *)input.ptr, input.len, secret,
         &size);
    memcpy(block, info.ptr, info.len);
    block[info.len] = 1;
    HMAC(EVP_sha256(), secret, HASH_BYTES, block, info.len + 1, out, &size);
    OPENSSL_cleanse(secret, sizeof secret);
}

struct record_keys {
    unsigned char key[HASH_BYTES];   /* KEY_BYTES of it */
    unsigned char nonce[HASH_BYTES]; /* NONCE_BYTES of it */
};

/* RFC 8291, 3.3 and 3.4. */
static bool derive_keys(const struct webpush_subscriber *subscriber,
                        const struct webpush_once *once, struct record_keys *keys_out)
{
    static const char label[] = "WebPush: info"; /* with its NUL */
    unsigned char shared[P256_SHARED_BYTES];
    unsigned char input[HASH_BYTES];
    unsigned char info[sizeof label + 2 * P256_PUBLIC_BYTES];
    if (!p256_agree(&once->key, subscriber->public_key, shared)) {
        return false;
    }
    memcpy(info, label, sizeof label);
    memcpy(info + sizeof label, subscriber->public_key, P256_PUBLIC_BYTES);
    memcpy(info + sizeof label + P256_PUBLIC_BYTES, once->key.public_key, P256_PUBLIC_BYTES);
    derive(bytes_of(subscriber->auth, WEBPUSH_AUTH_BYTES), bytes_of(shared, sizeof shared),
           bytes_of(info, sizeof info), input);
    struct slice salt = bytes_of(once->salt, WEBPUSH_SALT_BYTES);
    derive(salt, bytes_of(input, sizeof input),
           (struct slice){"Content-Encoding: aes128gcm", sizeof "Content-Encoding: aes128gcm"},
           keys_out->key);
    derive(salt, bytes_of(input, sizeof input),
           (struct slice){"Content-Encoding: nonce", sizeof "Content-Encoding: nonce"},
           keys_out->nonce);
    OPENSSL_cleanse(shared, sizeof shared);
    OPENSSL_cleanse(input, sizeof input);
    return true;
}

/* Encrypts in place and writes the tag behind. */
static bool seal(const struct record_keys *keys, unsigned char *record, size_t size)
{
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int done = 0;
    bool fine = context &&
                EVP_EncryptInit_ex(context, EVP_aes_128_gcm(), NULL, keys->key, keys->nonce) == 1 &&
                EVP_EncryptUpdate(context, record, &done, record, (int)size) == 1 &&
                EVP_EncryptFinal_ex(context, record + done, &done) == 1 &&
                EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, record + size) == 1;
    EVP_CIPHER_CTX_free(context);
    return fine;
}

/* RFC 8188, 2.1: salt, record size, length of the key id, key id. */
static void write_head(unsigned char *body, const struct webpush_once *once)
{
    unsigned char *at = body + WEBPUSH_SALT_BYTES;
    memcpy(body, once->salt, WEBPUSH_SALT_BYTES);
    *at++ = 0;
    *at++ = 0;
    *at++ = WEBPUSH_BODY_BYTES_MAX >> 8;
    *at++ = WEBPUSH_BODY_BYTES_MAX & 0xFF;
    *at++ = P256_PUBLIC_BYTES;
    memcpy(at, once->key.public_key, P256_PUBLIC_BYTES);
}

struct err webpush_encrypt_with(struct arena *arena, const struct webpush_subscriber *subscriber,
                                const struct webpush_once *once, struct slice text,
                                struct slice *body_out)
{
    struct record_keys keys;
    if (text.len > WEBPUSH_TEXT_BYTES_MAX) {
        return err_make(ERR_LIMIT, "the push message is too long");
    }
    unsigned char *body = arena_alloc(arena, WEBPUSH_OVERHEAD_BYTES + text.len);
    write_head(body, once);
    if (text.len) {
        memcpy(body + HEAD_BYTES, text.ptr, text.len);
    }
    body[HEAD_BYTES + text.len] = LAST_RECORD;
    bool fine =
        derive_keys(subscriber, once, &keys) && seal(&keys, body + HEAD_BYTES, text.len + 1);
    OPENSSL_cleanse(&keys, sizeof keys);
    *body_out = bytes_of(body, WEBPUSH_OVERHEAD_BYTES + text.len);
    return fine ? OK : err_make(ERR_INTERNAL, "the push message cannot be encrypted");
}

struct err webpush_encrypt(struct arena *arena, const struct webpush_subscriber *subscriber,
                           struct slice text, struct slice *body_out)
{
    struct webpush_once once;
    TRY(p256_make(&once.key));
    if (getrandom(once.salt, sizeof once.salt, 0) != (ssize_t)sizeof once.salt) {
        return err_make(ERR_INTERNAL, "there is no randomness");
    }
    struct err err = webpush_encrypt_with(arena, subscriber, &once, text, body_out);
    OPENSSL_cleanse(&once, sizeof once);
    return err;
}

/* RFC 8292, 2 and 3: a JSON web token with aud, exp and sub, signed with ES256. */
struct err webpush_authorize(struct arena *arena, const struct p256_key *key,
                             const struct webpush_claims *claims, struct slice *value_out)
{
    struct buf json;
    unsigned char signature[P256_SIGNATURE_BYTES];
    buf_init_arena(&json, arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&json);
    json_out_object(&out);
    json_out_key_string(&out, LIT("aud"), claims->audience);
    json_out_key_int(&out, LIT("exp"), claims->until_s);
    if (claims->contact.len) {
        json_out_key_string(&out, LIT("sub"), claims->contact);
    }
    json_out_object_end(&out);
    struct slice head =
        base64_encode(arena, LIT("{\"typ\":\"JWT\",\"alg\":\"ES256\"}"), BASE64_URL);
    struct slice body = base64_encode(arena, buf_slice(&json), BASE64_URL);
    struct slice token = arena_concat(arena, arena_concat(arena, head, LIT(".")), body);
    TRY(p256_sign(key, token, signature));
    struct slice tail = base64_encode(arena, bytes_of(signature, sizeof signature), BASE64_URL);
    struct slice own =
        base64_encode(arena, bytes_of(key->public_key, P256_PUBLIC_BYTES), BASE64_URL);
    *value_out = arena_printf(arena, "vapid t=%.*s.%.*s, k=%.*s", (int)token.len, token.ptr,
                              (int)tail.len, tail.ptr, (int)own.len, own.ptr);
    return OK;
}
