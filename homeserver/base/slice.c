#include "homeserver/base/slice.h"

#include <string.h>

struct slice slice_of(const char *text)
{
    return (struct slice){text, text ? strlen(text) : 0};
}

bool slice_eq(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

int slice_cmp(struct slice a, struct slice b)
{
    size_t common = a.len < b.len ? a.len : b.len;
    int order = common ? memcmp(a.ptr, b.ptr, common) : 0;
    if (order != 0) {
        return order;
    }
    return (a.len > b.len) - (a.len < b.len);
}

static char fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool slice_eq_nocase(struct slice a, struct slice b)
{
    if (a.len != b.len) {
        return false;
    }
    for (size_t i = 0; i < a.len; i++) {
        if (fold(a.ptr[i]) != fold(b.ptr[i])) {
            return false;
        }
    }
    return true;
}

bool slice_has_prefix(struct slice s, struct slice prefix)
{
    return s.len >= prefix.len && slice_eq(slice_sub(s, 0, prefix.len), prefix);
}

bool slice_has_suffix(struct slice s, struct slice suffix)
{
    return s.len >= suffix.len && slice_eq(slice_from(s, s.len - suffix.len), suffix);
}

struct slice slice_from(struct slice s, size_t from)
{
    return slice_sub(s, from, s.len);
}

struct slice slice_sub(struct slice s, size_t from, size_t len)
{
    if (from >= s.len) {
        return (struct slice){s.ptr ? s.ptr + s.len : NULL, 0};
    }
    size_t left = s.len - from;
    return (struct slice){s.ptr + from, len < left ? len : left};
}

size_t slice_find(struct slice s, char byte)
{
    const char *at = s.len ? memchr(s.ptr, byte, s.len) : NULL;
    return at ? (size_t)(at - s.ptr) : s.len;
}

size_t slice_find_last(struct slice s, char byte)
{
    const char *at = s.len ? memrchr(s.ptr, byte, s.len) : NULL;
    return at ? (size_t)(at - s.ptr) : s.len;
}

bool slice_contains(struct slice s, struct slice needle)
{
    return needle.len == 0 || (s.len && memmem(s.ptr, s.len, needle.ptr, needle.len));
}

struct slice slice_cut(struct slice s, char byte, struct slice *head_out)
{
    size_t at = slice_find(s, byte);
    *head_out = slice_sub(s, 0, at);
    return at == s.len ? (struct slice){NULL, 0} : slice_from(s, at + 1);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct slice slice_trim(struct slice s)
{
    while (s.len && is_space(s.ptr[0])) {
        s = slice_from(s, 1);
    }
    while (s.len && is_space(s.ptr[s.len - 1])) {
        s.len--;
    }
    return s;
}

bool slice_parse_u64(struct slice s, uint64_t *value_out)
{
    uint64_t value = 0;
    if (s.len == 0) {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9' || __builtin_mul_overflow(value, 10U, &value) ||
            __builtin_add_overflow(value, (uint64_t)(s.ptr[i] - '0'), &value)) {
            return false;
        }
    }
    *value_out = value;
    return true;
}

bool slice_parse_i64(struct slice s, int64_t *value_out)
{
    bool negative = s.len && s.ptr[0] == '-';
    uint64_t magnitude = 0;
    uint64_t limit = negative ? (uint64_t)INT64_MAX + 1 : (uint64_t)INT64_MAX;
    if (!slice_parse_u64(slice_from(s, negative ? 1 : 0), &magnitude) || magnitude > limit) {
        return false;
    }
    *value_out = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return true;
}

/* Whether a sequence of the right form is longer than it need be, a surrogate, or past U+10FFFF. */
static bool utf8_is_forbidden(unsigned char lead, unsigned char second)
{
    bool overlong = (lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90);
    bool outside = (lead == 0xED && second > 0x9F) || (lead == 0xF4 && second > 0x8F);
    return overlong || outside;
}

/* Length of the well-formed UTF-8 sequence at the start of s (non-empty), or 0. */
static size_t utf8_sequence(const unsigned char *p, size_t len)
{
    unsigned char lead = p[0];
    if (lead < 0x80) {
        return 1;
    }
    size_t need = lead >= 0xC2 && lead <= 0xDF ? 2 : (lead & 0xF0) == 0xE0 ? 3 : 4;
    if ((need == 4 && (lead < 0xF0 || lead > 0xF4)) || len < need) {
        return 0;
    }
    for (size_t i = 1; i < need; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    return utf8_is_forbidden(lead, p[1]) ? 0 : need;
}

bool slice_is_utf8(struct slice s)
{
    const unsigned char *p = (const unsigned char *)s.ptr;
    for (size_t i = 0; i < s.len;) {
        size_t step = utf8_sequence(p + i, s.len - i);
        if (step == 0) {
            return false;
        }
        i += step;
    }
    return true;
}

uint64_t slice_hash(struct slice s)
{
    uint64_t hash = 0x9E3779B97F4A7C15u ^ s.len;
    size_t i = 0;
    for (; i + 8 <= s.len; i += 8) {
        uint64_t word;
        memcpy(&word, s.ptr + i, 8);
        hash = (hash ^ word) * 0xFF51AFD7ED558CCDu;
        hash ^= hash >> 32;
    }
    for (; i < s.len; i++) {
        hash = (hash ^ (unsigned char)s.ptr[i]) * 0x100000001B3u;
    }
    hash ^= hash >> 33;
    hash *= 0xC4CEB9FE1A85EC53u;
    return hash ^ (hash >> 29);
}
