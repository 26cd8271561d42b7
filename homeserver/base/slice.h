/* Borrowed bytes. A slice never owns what it points to and never assumes a final NUL; whoever hands
 * one out says how long it lives. All text and bytes travel between files as slices. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slice {
    const char *ptr;
    size_t len;
};

#define LIT(text) ((struct slice){(text), sizeof(text) - 1})
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* The bytes of a NUL-terminated string, without the NUL; NULL gives the empty slice. */
struct slice slice_of(const char *text);
/* Byte equality and byte order (shorter first on a common prefix): <0, 0, >0. */
bool slice_eq(struct slice a, struct slice b);
int slice_cmp(struct slice a, struct slice b);
/* Equality with ASCII letters folded. */
bool slice_eq_nocase(struct slice a, struct slice b);
bool slice_has_prefix(struct slice s, struct slice prefix);
bool slice_has_suffix(struct slice s, struct slice suffix);
/* The bytes from `from` on; the empty slice when `from` is past the end. */
struct slice slice_from(struct slice s, size_t from);
/* At most `len` bytes from `from`. */
struct slice slice_sub(struct slice s, size_t from, size_t len);
/* Index of the first `byte`, or s.len when there is none. */
size_t slice_find(struct slice s, char byte);
size_t slice_find_last(struct slice s, char byte);
/* Whether `needle` occurs in s. */
bool slice_contains(struct slice s, struct slice needle);
/* Cuts s at the first `byte`: head is what stands before it, the result is what stands after it
 * (both borrow from s). Without `byte`, head is all of s and the rest is empty with ptr NULL. */
struct slice slice_cut(struct slice s, char byte, struct slice *head_out);
struct slice slice_trim(struct slice s); /* ASCII space, tab, CR, LF on both ends */
/* Decimal number without sign, leading zeros allowed; false on empty, junk or overflow. */
bool slice_parse_u64(struct slice s, uint64_t *value_out);
/* Decimal with optional '-'; false on empty, junk or overflow. */
bool slice_parse_i64(struct slice s, int64_t *value_out);
/* Well-formed UTF-8 (no surrogates, no overlong forms). */
bool slice_is_utf8(struct slice s);
/* Seed-independent 64-bit hash (for tables that never see hostile keys or are bounded). */
uint64_t slice_hash(struct slice s);
