/* Growable output bytes with a maximum fixed at init. Writes past the maximum are dropped and set
 * `overflow`; the writer checks once at the end with buf_check. */
#pragma once
#include "homeserver/base/arena.h"
#include "homeserver/base/err.h"

struct buf {
    char *ptr;
    size_t len;
    size_t cap;
    size_t max;
    struct arena *arena; /* grows there when set, on the heap otherwise */
    bool overflow;
};

/* Heap buffer; give it back with buf_deinit. */
void buf_init(struct buf *buf, size_t max);
/* Arena buffer: nothing to give back; the bytes live as long as the arena. */
void buf_init_arena(struct buf *buf, struct arena *arena, size_t max);
void buf_deinit(struct buf *buf);
void buf_clear(struct buf *buf);
void buf_add(struct buf *buf, struct slice s);
void buf_add_byte(struct buf *buf, char byte);
void buf_add_u64(struct buf *buf, uint64_t value); /* decimal */
void buf_add_i64(struct buf *buf, int64_t value);  /* decimal */
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Room for `size` more bytes, to be filled by the caller, who then calls buf_filled(n); NULL when
 * that passes the maximum. */
char *buf_reserve(struct buf *buf, size_t size);
void buf_filled(struct buf *buf, size_t size);
/* What was written; valid until the next write. */
struct slice buf_slice(const struct buf *buf);
/* ERR_LIMIT when something was dropped. */
struct err buf_check(const struct buf *buf) MUST_USE;
