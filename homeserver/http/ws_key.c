#include "homeserver/http/ws_key.h"

#include "homeserver/base/err.h"

#include <gnutls/crypto.h>

enum { SHA1_BYTES = 20 };

static struct slice encode_base64(struct arena *arena, const unsigned char *bytes, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = arena_alloc(arena, (len + 2) / 3 * 4 + 1);
    size_t at = 0;
    for (size_t i = 0; i < len; i += 3) {
        unsigned group = (unsigned)bytes[i] << 16;
        group |= i + 1 < len ? (unsigned)bytes[i + 1] << 8 : 0;
        group |= i + 2 < len ? bytes[i + 2] : 0;
        text[at++] = digits[group >> 18];
        text[at++] = digits[group >> 12 & 63];
        text[at++] = i + 1 < len ? digits[group >> 6 & 63] : '=';
        text[at++] = i + 2 < len ? digits[group & 63] : '=';
    }
    return (struct slice){text, at};
}

struct slice http_ws_key_answer(struct arena *arena, struct slice key)
{
    unsigned char hash[SHA1_BYTES];
    struct slice text = arena_concat(arena, key, LIT("258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    int failed = gnutls_hash_fast(GNUTLS_DIG_SHA1, text.ptr, text.len, hash);
    ASSERT(failed == 0);
    return encode_base64(arena, hash, sizeof hash);
}
