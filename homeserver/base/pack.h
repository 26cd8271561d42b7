/* Compact records for stored values and order-preserving numbers for stored keys. Readers never run
 * past the end: on short or malformed input they set `bad` and return zero or an empty slice. */
#pragma once
#include "homeserver/base/buf.h"

void pack_u64(struct buf *out, uint64_t value);   /* LEB128 varint */
void pack_i64(struct buf *out, int64_t value);    /* zigzag varint */
void pack_bytes(struct buf *out, struct slice s); /* length, then bytes */
void pack_be64(struct buf *out, uint64_t value);  /* 8 bytes, sorts like the number */
void pack_be_i64(struct buf *out, int64_t value); /* 8 bytes, sorts like the signed number */

struct unpack {
    struct slice rest;
    bool bad;
};

struct unpack unpack_of(struct slice s);
uint64_t unpack_u64(struct unpack *in);
int64_t unpack_i64(struct unpack *in);
struct slice unpack_bytes(struct unpack *in); /* borrows from the input */
uint64_t unpack_be64(struct unpack *in);
int64_t unpack_be_i64(struct unpack *in);
/* ERR_CORRUPT when something was short or malformed. */
struct err unpack_check(const struct unpack *in) MUST_USE;
