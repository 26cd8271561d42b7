#include "homeserver/http/cidr.h"

#include <arpa/inet.h>
#include <string.h>

enum { TEXT_BYTES = 46, V4_BITS = 96 };

struct range {
    unsigned char base[16];
    unsigned bits;
};

/* Special-purpose registries of IANA (RFC 6890 and later), without what is globally reachable. */
#define V4(a, b, c, d, length)                                                                     \
    {                                                                                              \
        {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, a, b, c, d}, 96 + (length)                        \
    }
static const struct range special[] = {
    V4(0, 0, 0, 0, 8),
    V4(10, 0, 0, 0, 8),
    V4(100, 64, 0, 0, 10),
    V4(127, 0, 0, 0, 8),
    V4(169, 254, 0, 0, 16),
    V4(172, 16, 0, 0, 12),
    V4(192, 0, 0, 0, 24),
    V4(192, 0, 2, 0, 24),
    V4(192, 88, 99, 0, 24),
    V4(192, 168, 0, 0, 16),
    V4(198, 18, 0, 0, 15),
    V4(198, 51, 100, 0, 24),
    V4(203, 0, 113, 0, 24),
    V4(224, 0, 0, 0, 3), /* multicast, reserved, broadcast */
    {{0}, 96},           /* ::, ::1 and IPv4-compatible */
    {{0x00, 0x64, 0xFF, 0x9B, 0x00, 0x01}, 48},
    {{0x01, 0x00}, 64},
    {{0x20, 0x01, 0x00, 0x00}, 23},
    {{0x20, 0x01, 0x0D, 0xB8}, 32},
    {{0x3F, 0xFF}, 20},
    {{0x5F, 0x00}, 16},
    {{0xFC}, 7},
    {{0xFE, 0x80}, 10},
    {{0xFE, 0xC0}, 10},
    {{0xFF}, 8},
};
#undef V4

static bool matches(const unsigned char *base, unsigned bits, const unsigned char *address)
{
    unsigned whole = bits / 8;
    unsigned rest = bits % 8;
    if (memcmp(base, address, whole) != 0) {
        return false;
    }
    return rest == 0 || ((base[whole] ^ address[whole]) >> (8 - rest)) == 0;
}

bool http_address_parse(struct slice text, struct http_address *address_out)
{
    char copy[TEXT_BYTES];
    if (text.len >= sizeof copy || !text.len) {
        return false;
    }
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    memset(address_out, 0, sizeof *address_out);
    if (inet_pton(AF_INET, copy, address_out->bytes + 12) == 1) {
        address_out->bytes[10] = 0xFF;
        address_out->bytes[11] = 0xFF;
        return true;
    }
    return inet_pton(AF_INET6, copy, address_out->bytes) == 1;
}

bool http_cidr_parse(struct slice text, struct http_cidr *cidr_out)
{
    struct slice address;
    struct slice bits_text = slice_cut(text, '/', &address);
    uint64_t bits = 128;
    if (!http_address_parse(address, &cidr_out->base)) {
        return false;
    }
    if (bits_text.ptr) {
        bool v4 = slice_find(address, ':') == address.len;
        if (!slice_parse_u64(bits_text, &bits) || bits > (v4 ? 32 : 128)) {
            return false;
        }
        bits += v4 ? V4_BITS : 0;
    }
    cidr_out->bits = (unsigned)bits;
    return true;
}

bool http_cidr_contains(const struct http_cidr *cidr, const struct http_address *address)
{
    return matches(cidr->base.bytes, cidr->bits, address->bytes);
}

/* The IPv4 address inside a NAT64 (64:ff9b::/96) or 6to4 (2002::/16) address. */
static bool embedded_v4(const struct http_address *address, struct http_address *v4_out)
{
    static const unsigned char nat64[16] = {0x00, 0x64, 0xFF, 0x9B};
    const unsigned char *bytes = address->bytes;
    *v4_out = (struct http_address){{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF}};
    if (matches(nat64, 96, bytes)) {
        memcpy(v4_out->bytes + 12, bytes + 12, 4);
        return true;
    }
    if (bytes[0] == 0x20 && bytes[1] == 0x02) {
        memcpy(v4_out->bytes + 12, bytes + 2, 4);
        return true;
    }
    return false;
}

static bool is_special(const struct http_address *address)
{
    for (size_t i = 0; i < COUNT_OF(special); i++) {
        if (matches(special[i].base, special[i].bits, address->bytes)) {
            return true;
        }
    }
    return false;
}

bool http_address_is_public(const struct http_address *address)
{
    struct http_address v4;
    if (embedded_v4(address, &v4) && is_special(&v4)) {
        return false;
    }
    return !is_special(address);
}
