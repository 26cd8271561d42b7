/* The only callers of malloc. Out of memory aborts with a log line, so nobody checks for NULL. */
#pragma once
#include <stddef.h>

void *mem_alloc(size_t size);             /* zeroed */
void *mem_alloc_raw(size_t size);         /* not zeroed */
void *mem_grow(void *block, size_t size); /* realloc; new bytes are not zeroed */
void mem_free(void *block);               /* NULL is fine */
/* Call first thing in a program: each of the allocator's arenas keeps what it once needed, and by
 * default there are eight for each core. */
void mem_limit_arenas(size_t arenas_max);
