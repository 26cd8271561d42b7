#include "crypto/webpush.h"

#include "crypto/base64.h"
#include "homeserver/base/json_out.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <sys/random.h>

enum {
    TAG_BYTES = 16,
    HASH_BYTES = 32,
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

/* --- RFC 8188 --- */

struct record_keys {
    unsigned char key[HASH_BYTES];   /* the first 16 bytes */
    unsigned char nonce[HASH_BYTES]; /* the first 12 */
};

/* 2.2 and 2.3; the labels with their NULs. */
static void derive_record(const struct webpush_record *record, struct record_keys *keys_out)
{
    static const char key_label[] = "Content-Encoding: aes128gcm";
    static const char nonce_label[] = "Content-Encoding: nonce";
    derive(record->salt, record->input, (struct slice){key_label, sizeof key_label}, keys_out->key);
    derive(record->salt, record->input, (struct slice){nonce_label, sizeof nonce_label},
           keys_out->nonce);
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

/* 2.1: salt, record size, length of the key id, key id. */
static size_t write_head(unsigned char *body, const struct webpush_record *record)
{
    unsigned char *at = body + WEBPUSH_SALT_BYTES;
    memcpy(body, record->salt.ptr, WEBPUSH_SALT_BYTES);
    *at++ = 0;
    *at++ = 0;
    *at++ = WEBPUSH_BODY_BYTES_MAX >> 8;
    *at++ = WEBPUSH_BODY_BYTES_MAX & 0xFF;
    *at++ = (unsigned char)record->key_id.len;
    if (record->key_id.len) {
        memcpy(at, record->key_id.ptr, record->key_id.len);
    }
    return WEBPUSH_SALT_BYTES + 5 + record->key_id.len;
}

struct err webpush_encode(struct arena *arena, const struct webpush_record *record,
                          struct slice text, struct slice *body_out)
{
    struct record_keys keys;
    ASSERT(record->salt.len == WEBPUSH_SALT_BYTES);
    if (text.len > WEBPUSH_TEXT_BYTES_MAX || record->key_id.len > P256_PUBLIC_BYTES) {
        return err_make(ERR_LIMIT, "the push message is too long");
    }
    unsigned char *body = arena_alloc(arena, WEBPUSH_OVERHEAD_BYTES + text.len);
    size_t head = write_head(body, record);
    if (text.len) {
        memcpy(body + head, text.ptr, text.len);
    }
    body[head + text.len] = LAST_RECORD;
    derive_record(record, &keys);
    bool fine = seal(&keys, body + head, text.len + 1);
    OPENSSL_cleanse(&keys, sizeof keys);
    *body_out = bytes_of(body, head + text.len + 1 + TAG_BYTES);
    return fine ? OK : err_make(ERR_INTERNAL, "the push message cannot be encrypted");
}

/* --- RFC 8291 --- */

/* 3.3 and 3.4: the keying material, bound to both keys. */
static bool derive_input(const struct webpush_subscriber *subscriber,
                         const struct webpush_once *once, unsigned char input_out[HASH_BYTES])
{
    static const char label[] = "WebPush: info"; /* with its NUL */
    unsigned char shared[P256_SHARED_BYTES];
    unsigned char info[sizeof label + 2 * P256_PUBLIC_BYTES];
    if (!p256_agree(&once->key, subscriber->public_key, shared)) {
        return false;
    }
    memcpy(info, label, sizeof label);
    memcpy(info + sizeof label, subscriber->public_key, P256_PUBLIC_BYTES);
    memcpy(info + sizeof label + P256_PUBLIC_BYTES, once->key.public_key, P256_PUBLIC_BYTES);
    derive(bytes_of(subscriber->auth, WEBPUSH_AUTH_BYTES), bytes_of(shared, sizeof shared),
           bytes_of(info, sizeof info), input_out);
    OPENSSL_cleanse(shared, sizeof shared);
    return true;
}

struct err webpush_encrypt_with(struct arena *arena, const struct webpush_subscriber *subscriber,
                                const struct webpush_once *once, struct slice text,
                                struct slice *body_out)
{
    unsigned char input[HASH_BYTES] = {0};
    struct webpush_record record = {
        .input = bytes_of(input, sizeof input),
        .salt = bytes_of(once->salt, WEBPUSH_SALT_BYTES),
        .key_id = bytes_of(once->key.public_key, P256_PUBLIC_BYTES),
    };
    if (!derive_input(subscriber, once, input)) {
        return err_make(ERR_INTERNAL, "the push message cannot be encrypted");
    }
    struct err err = webpush_encode(arena, &record, text, body_out);
    OPENSSL_cleanse(input, sizeof input);
    return err;
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
