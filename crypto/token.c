#include "crypto/token.h"

#include "crypto/base64.h"
#include "homeserver/base/err.h"

#include <openssl/hmac.h>
#include <string.h>
#include <sys/random.h>

enum { RANDOM_BYTES = 32, CHECK_BYTES = 4, BODY_LEN = BASE64_LEN(RANDOM_BYTES + CHECK_BYTES) };

static void fill_random(void *to, size_t size)
{
    ASSERT(size <= 256); /* below that getrandom gives all or nothing */
    ASSERT(getrandom(to, size, 0) == (ssize_t)size);
}

static void checksum(struct slice prefix, const char random[RANDOM_BYTES], char check[CHECK_BYTES])
{
    const struct slice parts[] = {prefix, {random, RANDOM_BYTES}};
    struct sha256 hash = sha256_of_parts(parts, COUNT_OF(parts));
    memcpy(check, hash.bytes, CHECK_BYTES);
}

struct slice token_make(struct arena *arena, struct slice prefix)
{
    char bytes[RANDOM_BYTES + CHECK_BYTES];
    fill_random(bytes, RANDOM_BYTES);
    checksum(prefix, bytes, bytes + RANDOM_BYTES);
    char *text = arena_alloc(arena, prefix.len + 1 + BODY_LEN + 1);
    memcpy(text, prefix.ptr, prefix.len);
    text[prefix.len] = '_';
    base64_encode_into(text + prefix.len + 1, (struct slice){bytes, sizeof bytes}, BASE64_URL);
    return (struct slice){text, prefix.len + 1 + BODY_LEN};
}

bool token_is_formed(struct slice token, struct slice prefix)
{
    char bytes[RANDOM_BYTES + CHECK_BYTES];
    char check[CHECK_BYTES];
    if (token.len != prefix.len + 1 + BODY_LEN || !slice_has_prefix(token, prefix) ||
        token.ptr[prefix.len] != '_' ||
        !base64_decode_exact(slice_from(token, prefix.len + 1), bytes, sizeof bytes)) {
        return false;
    }
    checksum(prefix, bytes, check);
    return memcmp(check, bytes + RANDOM_BYTES, CHECK_BYTES) == 0;
}

struct slice token_uuid(struct arena *arena)
{
    unsigned char b[16];
    fill_random(b, sizeof b);
    b[6] = (unsigned char)((b[6] & 0x0F) | 0x40); /* version 4 */
    b[8] = (unsigned char)((b[8] & 0x3F) | 0x80); /* variant 1 */
    return arena_printf(
        arena, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
        b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

struct sha256 token_hash(struct slice token)
{
    return sha256_of(token);
}

bool token_eq(struct slice a, struct slice b)
{
    volatile unsigned char difference = 0;
    for (size_t i = 0; i < a.len && a.len == b.len; i++) {
        difference = (unsigned char)(difference | (a.ptr[i] ^ b.ptr[i]));
    }
    return a.len == b.len && difference == 0;
}

/* `letters` holds 32 characters, so every character takes five random bits. */
static struct slice random_text(struct arena *arena, const char *letters, size_t count)
{
    char *text = arena_alloc(arena, count + 1);
    fill_random(text, count);
    for (size_t i = 0; i < count; i++) {
        text[i] = letters[(unsigned char)text[i] & 31];
    }
    return (struct slice){text, count};
}

struct slice token_random_letters(struct arena *arena, size_t count)
{
    return random_text(arena, "ABCDEFGHIJKLMNOPQRSTUVWXYZACEGIK", count);
}

struct slice token_random_name(struct arena *arena, size_t count)
{
    return random_text(arena, "abcdefghijkmnpqrstuvwxyz23456789", count);
}

static unsigned int hmac_sha1(struct slice key, struct slice message,
                              unsigned char mac[EVP_MAX_MD_SIZE])
{
    unsigned int mac_len = 0;
    HMAC(EVP_sha1(), key.ptr, (int)key.len, (const unsigned char *)message.ptr, message.len, mac,
         &mac_len);
    return mac_len;
}

struct slice token_hmac_sha1_base64(struct arena *arena, struct slice key, struct slice message)
{
    unsigned char mac[EVP_MAX_MD_SIZE];
    struct slice bytes = {(const char *)mac, hmac_sha1(key, message, mac)};
    return arena_concat(arena, base64_encode(arena, bytes, BASE64_STANDARD), LIT("="));
}

struct slice token_hmac_sha1_hex(struct arena *arena, struct slice key, struct slice message)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned int mac_len = hmac_sha1(key, message, mac);
    char *hex = arena_alloc(arena, (size_t)mac_len * 2 + 1);
    for (unsigned int i = 0; i < mac_len; i++) {
        hex[i * 2] = digits[mac[i] >> 4];
        hex[i * 2 + 1] = digits[mac[i] & 15];
    }
    return (struct slice){hex, (size_t)mac_len * 2};
}
