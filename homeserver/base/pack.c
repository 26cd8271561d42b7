#include "homeserver/base/pack.h"

void pack_u64(struct buf *out, uint64_t value)
{
    char bytes[10];
    size_t len = 0;
    while (value >= 0x80) {
        bytes[len++] = (char)(value | 0x80);
        value >>= 7;
    }
    bytes[len++] = (char)value;
    buf_add(out, (struct slice){bytes, len});
}

void pack_i64(struct buf *out, int64_t value)
{
    pack_u64(out, (uint64_t)value << 1 ^ (value < 0 ? UINT64_MAX : 0));
}

void pack_bytes(struct buf *out, struct slice s)
{
    pack_u64(out, s.len);
    buf_add(out, s);
}

void pack_be64(struct buf *out, uint64_t value)
{
    char bytes[8];
    for (int i = 7; i >= 0; i--) {
        bytes[i] = (char)(value & 0xFF);
        value >>= 8;
    }
    buf_add(out, (struct slice){bytes, sizeof bytes});
}

void pack_be_i64(struct buf *out, int64_t value)
{
    pack_be64(out, (uint64_t)value ^ UINT64_C(1) << 63);
}

struct unpack unpack_of(struct slice s)
{
    return (struct unpack){.rest = s};
}

uint64_t unpack_u64(struct unpack *in)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (in->rest.len == 0) {
            break;
        }
        unsigned char byte = (unsigned char)in->rest.ptr[0];
        in->rest = slice_from(in->rest, 1);
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            return value;
        }
    }
    in->bad = true;
    return 0;
}

int64_t unpack_i64(struct unpack *in)
{
    uint64_t value = unpack_u64(in);
    return (int64_t)(value >> 1 ^ (value & 1 ? UINT64_MAX : 0));
}

struct slice unpack_bytes(struct unpack *in)
{
    uint64_t len = unpack_u64(in);
    if (len > in->rest.len) {
        in->bad = true;
        return (struct slice){0};
    }
    struct slice s = slice_sub(in->rest, 0, (size_t)len);
    in->rest = slice_from(in->rest, (size_t)len);
    return s;
}

uint64_t unpack_be64(struct unpack *in)
{
    if (in->rest.len < 8) {
        in->bad = true;
        return 0;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < 8; i++) {
        value = value << 8 | (unsigned char)in->rest.ptr[i];
    }
    in->rest = slice_from(in->rest, 8);
    return value;
}

int64_t unpack_be_i64(struct unpack *in)
{
    return (int64_t)(unpack_be64(in) ^ UINT64_C(1) << 63);
}

struct err unpack_check(const struct unpack *in)
{
    return in->bad ? err_make(ERR_CORRUPT, "stored record is malformed") : OK;
}
