#include "crypto/base64.h"

static const char standard[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char url_safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void base64_encode_into(char *to, struct slice data, enum base64_alphabet alphabet)
{
    const char *digits = alphabet == BASE64_URL ? url_safe : standard;
    const unsigned char *from = (const unsigned char *)data.ptr;
    size_t left = data.len;
    for (; left >= 3; left -= 3, from += 3) {
        uint32_t bits = (uint32_t)from[0] << 16 | (uint32_t)from[1] << 8 | from[2];
        *to++ = digits[bits >> 18];
        *to++ = digits[bits >> 12 & 63];
        *to++ = digits[bits >> 6 & 63];
        *to++ = digits[bits & 63];
    }
    if (left) {
        uint32_t bits = (uint32_t)from[0] << 16 | (left == 2 ? (uint32_t)from[1] << 8 : 0);
        *to++ = digits[bits >> 18];
        *to++ = digits[bits >> 12 & 63];
        if (left == 2) {
            *to = digits[bits >> 6 & 63];
        }
    }
}

struct slice base64_encode(struct arena *arena, struct slice data, enum base64_alphabet alphabet)
{
    size_t len = BASE64_LEN(data.len);
    char *text = arena_alloc(arena, len + 1);
    base64_encode_into(text, data, alphabet);
    return (struct slice){text, len};
}

/* The value of a character of either alphabet, or -1. */
static int digit_value(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    if (c == '+' || c == '-') {
        return 62;
    }
    return c == '/' || c == '_' ? 63 : -1;
}

static struct slice without_padding(struct slice text)
{
    for (int i = 0; i < 2 && text.len && text.ptr[text.len - 1] == '='; i++) {
        text.len--;
    }
    return text;
}

/* Decodes unpadded text of a possible length into `to`. */
static bool decode_into(unsigned char *to, struct slice text)
{
    uint32_t bits = 0;
    int held = 0;
    for (size_t i = 0; i < text.len; i++) {
        int value = digit_value(text.ptr[i]);
        if (value < 0) {
            return false;
        }
        bits = bits << 6 | (uint32_t)value;
        held += 6;
        if (held >= 8) {
            held -= 8;
            *to++ = (unsigned char)(bits >> held & 0xFF);
        }
    }
    return true;
}

bool base64_decode(struct arena *arena, struct slice text, struct slice *data_out)
{
    text = without_padding(text);
    if (text.len % 4 == 1) {
        return false;
    }
    size_t size = text.len * 3 / 4;
    char *data = arena_alloc(arena, size + 1);
    *data_out = (struct slice){data, size};
    return decode_into((unsigned char *)data, text);
}

bool base64_decode_exact(struct slice text, void *to, size_t size)
{
    text = without_padding(text);
    return text.len == BASE64_LEN(size) && decode_into(to, text);
}
