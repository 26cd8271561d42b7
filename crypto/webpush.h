/* Web push: messages that only the subscriber can read (RFC 8291 over the aes128gcm coding of RFC
 * 8188), and the signature by which a push service knows the sender (VAPID, RFC 8292). Pure. */
#pragma once
#include "crypto/p256.h"
#include "homeserver/base/arena.h"

enum {
    WEBPUSH_AUTH_BYTES = 16,
    WEBPUSH_SALT_BYTES = 16,
    WEBPUSH_BODY_BYTES_MAX = 4096, /* that every push service takes; RFC 8030, 7.2 */
    /* salt, record size, length and value of the key; then the delimiter and the tag */
    WEBPUSH_OVERHEAD_BYTES = 16 + 4 + 1 + P256_PUBLIC_BYTES + 1 + 16,
    WEBPUSH_TEXT_BYTES_MAX = WEBPUSH_BODY_BYTES_MAX - WEBPUSH_OVERHEAD_BYTES,
};

/* The aes128gcm coding with one record, the last. ERR_LIMIT when the text is longer than
 * WEBPUSH_BODY_BYTES_MAX less what is added, or the key id than P256_PUBLIC_BYTES. */
struct webpush_record {
    struct slice input; /* keying material */
    struct slice salt;  /* WEBPUSH_SALT_BYTES */
    struct slice key_id;
};
struct err webpush_encode(struct arena *arena, const struct webpush_record *record,
                          struct slice text, struct slice *body_out) MUST_USE;

/* What a subscription gives. */
struct webpush_subscriber {
    unsigned char public_key[P256_PUBLIC_BYTES];
    unsigned char auth[WEBPUSH_AUTH_BYTES];
};
/* From URL-safe base64; false when the key is no point of the curve, or a size is wrong. */
bool webpush_parse_subscriber(struct slice public_key, struct slice auth,
                              struct webpush_subscriber *subscriber_out);

/* The body of a push message. ERR_LIMIT when the text is longer than WEBPUSH_TEXT_BYTES_MAX. */
struct err webpush_encrypt(struct arena *arena, const struct webpush_subscriber *subscriber,
                           struct slice text, struct slice *body_out) MUST_USE;
/* The same with a given key and salt, which are never used twice (vectors). */
struct webpush_once {
    struct p256_key key;
    unsigned char salt[WEBPUSH_SALT_BYTES];
};
struct err webpush_encrypt_with(struct arena *arena, const struct webpush_subscriber *subscriber,
                                const struct webpush_once *once, struct slice text,
                                struct slice *body_out) MUST_USE;

/* The value of the Authorization header: "vapid t=..., k=...". `audience` is the origin of the
 * push resource, `contact` a mailto: or https: URI; until_s is at most a day ahead. */
struct webpush_claims {
    struct slice audience, contact;
    int64_t until_s;
};
struct err webpush_authorize(struct arena *arena, const struct p256_key *key,
                             const struct webpush_claims *claims, struct slice *value_out) MUST_USE;
