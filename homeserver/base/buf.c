#include "homeserver/base/buf.h"

#include "homeserver/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void buf_init(struct buf *buf, size_t max)
{
    *buf = (struct buf){.max = max};
}

void buf_init_arena(struct buf *buf, struct arena *arena, size_t max)
{
    *buf = (struct buf){.max = max, .arena = arena};
}

void buf_deinit(struct buf *buf)
{
    if (!buf->arena) {
        mem_free(buf->ptr);
    }
    *buf = (struct buf){0};
}

void buf_clear(struct buf *buf)
{
    buf->len = 0;
    buf->overflow = false;
}

static void grow(struct buf *buf, size_t need)
{
    size_t cap = buf->cap ? buf->cap : 256;
    while (cap < need) {
        cap *= 2;
    }
    cap = cap > buf->max ? buf->max : cap;
    buf->ptr =
        buf->arena ? arena_grow_raw(buf->arena, buf->ptr, buf->cap, cap) : mem_grow(buf->ptr, cap);
    buf->cap = cap;
}

char *buf_reserve(struct buf *buf, size_t size)
{
    if (buf->overflow || size > buf->max - buf->len) {
        buf->overflow = true;
        return NULL;
    }
    if (size > buf->cap - buf->len) {
        grow(buf, buf->len + size);
    }
    return buf->ptr + buf->len;
}

void buf_filled(struct buf *buf, size_t size)
{
    ASSERT(size <= buf->cap - buf->len);
    buf->len += size;
}

void buf_add(struct buf *buf, struct slice s)
{
    if (s.len == 0) {
        return;
    }
    char *to = buf_reserve(buf, s.len);
    if (to) {
        memcpy(to, s.ptr, s.len);
        buf->len += s.len;
    }
}

void buf_add_byte(struct buf *buf, char byte)
{
    char *to = buf_reserve(buf, 1);
    if (to) {
        *to = byte;
        buf->len++;
    }
}

void buf_add_u64(struct buf *buf, uint64_t value)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    buf_add(buf, (struct slice){digits + at, sizeof digits - at});
}

void buf_add_i64(struct buf *buf, int64_t value)
{
    if (value < 0) {
        buf_add_byte(buf, '-');
        buf_add_u64(buf, 0 - (uint64_t)value);
    } else {
        buf_add_u64(buf, (uint64_t)value);
    }
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *to = buf_reserve(buf, (size_t)len + 1);
    if (to) {
        va_start(args, format);
        vsnprintf(to, (size_t)len + 1, format, args);
        va_end(args);
        buf->len += (size_t)len;
    }
}

struct slice buf_slice(const struct buf *buf)
{
    return (struct slice){buf->ptr, buf->len};
}

struct err buf_check(const struct buf *buf)
{
    return buf->overflow ? err_make(ERR_LIMIT, "output is larger than its limit") : OK;
}
