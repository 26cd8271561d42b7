#include "homeserver/base/arena.h"

#include "homeserver/base/err.h"
#include "homeserver/base/mem.h"

#include <stdalign.h>
#include <stdio.h>
#include <string.h>

enum { CHUNK_BYTES_FIRST = 2048, CHUNK_BYTES_MAX = 1 << 18, KEEP_BYTES_MAX = 1 << 16 };

struct chunk {
    struct chunk *next;
    size_t cap;
    size_t used;
    alignas(max_align_t) char bytes[];
};

struct arena {
    struct chunk *head;
    size_t used_bytes;
};

struct arena *arena_new(void)
{
    return mem_alloc(sizeof(struct arena));
}

static void free_chunks(struct chunk *chunk)
{
    while (chunk) {
        struct chunk *next = chunk->next;
        mem_free(chunk);
        chunk = next;
    }
}

void arena_free(struct arena **arena)
{
    if (*arena) {
        free_chunks((*arena)->head);
        mem_free(*arena);
        *arena = NULL;
    }
}

void arena_reset(struct arena *arena)
{
    struct chunk *keep = arena->head;
    if (keep) {
        free_chunks(keep->next);
        keep->next = NULL;
        keep->used = 0;
        if (keep->cap > KEEP_BYTES_MAX) {
            mem_free(keep);
            keep = NULL;
        }
    }
    arena->head = keep;
    arena->used_bytes = 0;
}

static void push_chunk(struct arena *arena, size_t cap)
{
    struct chunk *chunk = mem_alloc_raw(sizeof *chunk + cap);
    chunk->next = arena->head;
    chunk->cap = cap;
    chunk->used = 0;
    arena->head = chunk;
}

static struct chunk *add_chunk(struct arena *arena, size_t need)
{
    size_t cap = arena->head ? arena->head->cap * 2 : CHUNK_BYTES_FIRST;
    cap = cap > CHUNK_BYTES_MAX ? CHUNK_BYTES_MAX : cap;
    cap = cap < need ? need : cap;
    push_chunk(arena, cap);
    return arena->head;
}

static size_t round_up(size_t size)
{
    size_t align = alignof(max_align_t);
    ASSERT(size < SIZE_MAX - align);
    return (size + align - 1) & ~(align - 1);
}

static void *alloc_raw(struct arena *arena, size_t size)
{
    size_t need = round_up(size);
    struct chunk *chunk = arena->head;
    if (!chunk || chunk->cap - chunk->used < need) {
        chunk = add_chunk(arena, need);
    }
    void *block = chunk->bytes + chunk->used;
    chunk->used += need;
    arena->used_bytes += need;
    return block;
}

struct arena *arena_new_for(size_t bytes)
{
    struct arena *arena = arena_new();
    push_chunk(arena, round_up(bytes));
    return arena;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    return memset(alloc_raw(arena, size), 0, size);
}

void *arena_array(struct arena *arena, size_t count, size_t size)
{
    size_t bytes = 0;
    ASSERT(!__builtin_mul_overflow(count, size, &bytes));
    return arena_alloc(arena, bytes);
}

void *arena_grow_raw(struct arena *arena, void *old, size_t old_size, size_t new_size)
{
    struct chunk *chunk = arena->head;
    size_t old_need = round_up(old_size);
    size_t new_need = round_up(new_size);
    if (old && chunk && (char *)old + old_need == chunk->bytes + chunk->used &&
        chunk->cap - chunk->used >= new_need - old_need) {
        chunk->used += new_need - old_need;
        arena->used_bytes += new_need - old_need;
        return old;
    }
    char *grown = alloc_raw(arena, new_size);
    if (old_size) {
        memcpy(grown, old, old_size);
    }
    return grown;
}

void *arena_grow(struct arena *arena, void *old, size_t old_size, size_t new_size)
{
    char *grown = arena_grow_raw(arena, old, old_size, new_size);
    memset(grown + old_size, 0, new_size - old_size);
    return grown;
}

struct slice arena_copy(struct arena *arena, struct slice s)
{
    char *copy = alloc_raw(arena, s.len + 1);
    if (s.len) {
        memcpy(copy, s.ptr, s.len);
    }
    copy[s.len] = '\0';
    return (struct slice){copy, s.len};
}

struct slice arena_concat(struct arena *arena, struct slice a, struct slice b)
{
    char *copy = alloc_raw(arena, a.len + b.len + 1);
    if (a.len) {
        memcpy(copy, a.ptr, a.len);
    }
    if (b.len) {
        memcpy(copy + a.len, b.ptr, b.len);
    }
    copy[a.len + b.len] = '\0';
    return (struct slice){copy, a.len + b.len};
}

struct slice arena_vprintf(struct arena *arena, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    ASSERT(len >= 0);
    char *text = alloc_raw(arena, (size_t)len + 1);
    vsnprintf(text, (size_t)len + 1, format, again);
    va_end(again);
    return (struct slice){text, (size_t)len};
}

struct slice arena_printf(struct arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct slice text = arena_vprintf(arena, format, args);
    va_end(args);
    return text;
}

char *arena_cstr(struct arena *arena, struct slice s)
{
    return (char *)(uintptr_t)arena_copy(arena, s).ptr;
}

size_t arena_used_bytes(const struct arena *arena)
{
    return arena->used_bytes;
}
