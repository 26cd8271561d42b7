#include "tests/support/picture.h"

#include "homeserver/base/buf.h"

#include <string.h>

enum { PNG_BYTES_MAX = 64 << 20, STORED_MAX = 65535, HEAD_AT = 16 };

static void add_be32(struct buf *out, uint32_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8) {
        buf_add_byte(out, (char)(value >> shift & 0xFF));
    }
}

static uint32_t crc_of(struct slice bytes)
{
    uint32_t crc = 0xFFFFFFFF;
    for (size_t i = 0; i < bytes.len; i++) {
        crc ^= (unsigned char)bytes.ptr[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc & 1 ? crc >> 1 ^ 0xEDB88320 : crc >> 1;
        }
    }
    return ~crc;
}

static uint32_t adler_of(struct slice bytes)
{
    uint32_t a = 1;
    uint32_t b = 0;
    for (size_t i = 0; i < bytes.len; i++) {
        a = (a + (unsigned char)bytes.ptr[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

static void add_chunk(struct buf *out, const char *type, struct slice bytes)
{
    size_t from = out->len + 4;
    add_be32(out, (uint32_t)bytes.len);
    buf_add(out, slice_of(type));
    buf_add(out, bytes);
    add_be32(out, crc_of(slice_from(buf_slice(out), from)));
}

/* A zlib stream of stored blocks. */
static void add_stored(struct buf *out, struct slice bytes)
{
    struct slice rest = bytes;
    buf_add(out, LIT("\x78\x01"));
    do {
        struct slice block = slice_sub(rest, 0, STORED_MAX);
        rest = slice_from(rest, block.len);
        buf_add_byte(out, rest.len == 0);
        buf_add_byte(out, (char)(block.len & 0xFF));
        buf_add_byte(out, (char)(block.len >> 8));
        buf_add_byte(out, (char)(~block.len & 0xFF));
        buf_add_byte(out, (char)(~block.len >> 8 & 0xFF));
        buf_add(out, block);
    } while (rest.len);
    add_be32(out, adler_of(bytes));
}

struct slice picture_png(struct arena *arena, struct picture picture)
{
    struct buf head;
    struct buf rows;
    struct buf packed;
    struct buf out;
    buf_init_arena(&head, arena, 64);
    buf_init_arena(&rows, arena, PNG_BYTES_MAX);
    buf_init_arena(&packed, arena, PNG_BYTES_MAX);
    buf_init_arena(&out, arena, PNG_BYTES_MAX);
    add_be32(&head, picture.width);
    add_be32(&head, picture.height);
    buf_add(&head, (struct slice){"\x08\x00\x00\x00\x00", 5});
    for (uint32_t y = 0; y < picture.rows; y++) {
        buf_add_byte(&rows, 0);
        for (uint32_t x = 0; x < picture.width; x++) {
            buf_add_byte(&rows, (char)((x * 7 + y * 3) & 0xFF));
        }
    }
    add_stored(&packed, buf_slice(&rows));
    buf_add(&out, LIT("\x89PNG\r\n\x1a\n"));
    add_chunk(&out, "IHDR", buf_slice(&head));
    add_chunk(&out, "IDAT", buf_slice(&packed));
    add_chunk(&out, "IEND", (struct slice){0});
    return buf_slice(&out);
}

static uint32_t be32_at(struct slice bytes, size_t at)
{
    uint32_t value = 0;
    for (size_t i = 0; i < 4; i++) {
        value = value << 8 | (unsigned char)bytes.ptr[at + i];
    }
    return value;
}

struct picture picture_of_png(struct slice png)
{
    if (!slice_has_prefix(png, LIT("\x89PNG\r\n\x1a\n")) || png.len < HEAD_AT + 8) {
        return (struct picture){0};
    }
    return (struct picture){.width = be32_at(png, HEAD_AT), .height = be32_at(png, HEAD_AT + 4)};
}
