/* Bump allocator: one per job, freed as a whole. Never fails (out of memory aborts). Not thread
 * safe: one owner at a time. */
#pragma once
#include "homeserver/base/slice.h"

#include <stdarg.h>

struct arena;

/* Heap arena; the first chunk is taken lazily. */
struct arena *arena_new(void);
/* The same with a first chunk for so many bytes (see arena_used_bytes), for what is kept long. */
struct arena *arena_new_for(size_t bytes);
void arena_free(struct arena **arena);
/* Forgets everything but keeps one chunk for reuse. */
void arena_reset(struct arena *arena);
/* Zeroed memory, aligned for any type; lives until reset or free. */
void *arena_alloc(struct arena *arena, size_t size);
/* Zeroed array; aborts on overflow of count * size. */
void *arena_array(struct arena *arena, size_t count, size_t size);
/* Grows `old` (old_size bytes, from this arena) to new_size; in place when it is the newest block.
 */
void *arena_grow(struct arena *arena, void *old, size_t old_size, size_t new_size);
/* The same with new bytes not zeroed. */
void *arena_grow_raw(struct arena *arena, void *old, size_t old_size, size_t new_size);
/* A copy with a final NUL behind the slice. */
struct slice arena_copy(struct arena *arena, struct slice s);
struct slice arena_concat(struct arena *arena, struct slice a, struct slice b);
struct slice arena_printf(struct arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
struct slice arena_vprintf(struct arena *arena, const char *format, va_list args);
/* The slice as a NUL-terminated string (copied). For files that wrap a library. */
char *arena_cstr(struct arena *arena, struct slice s);
/* Bytes handed out since new or reset. */
size_t arena_used_bytes(const struct arena *arena);
