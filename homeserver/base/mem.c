#include "homeserver/base/mem.h"

#include <stdio.h>
#include <malloc.h>
#include <stdlib.h>

static void *checked(void *block)
{
    if (!block) {
        fputs("error event=out_of_memory\n", stderr);
        abort();
    }
    return block;
}

void *mem_alloc(size_t size)
{
    return checked(calloc(1, size ? size : 1));
}

void *mem_alloc_raw(size_t size)
{
    return checked(malloc(size ? size : 1));
}

void *mem_grow(void *block, size_t size)
{
    return checked(realloc(block, size ? size : 1));
}

void mem_free(void *block)
{
    free(block);
}

void mem_limit_arenas(size_t arenas_max)
{
    mallopt(M_ARENA_MAX, (int)arenas_max);
}
