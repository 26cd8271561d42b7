#include "homeserver/service/memory.h"

#include "homeserver/base/mem.h"
#include "spec/errcodes.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum {
    LOOK_EVERY_MS = 1000,
    TRIM_EVERY_MS = 5000,
    TRIM_BYTES = 8 << 20, /* so much more than after the last time makes it worth while */
};

struct hs_memory {
    int64_t budget_bytes;
    const struct now *now;
    _Atomic int64_t looked_mono_ms;
    _Atomic bool over;
    int64_t trimmed_mono_ms, trimmed_bytes; /* of whoever looks */
};

struct hs_memory *hs_memory_new(const struct conf *conf, const struct now *now)
{
    struct hs_memory *memory = mem_alloc(sizeof *memory);
    memory->budget_bytes = conf->memory_budget;
    memory->now = now;
    return memory;
}

void hs_memory_free(struct hs_memory **memory)
{
    mem_free(*memory);
    *memory = NULL;
}

int64_t hs_memory_resident_bytes(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file) {
        int fields = fscanf(file, "%*d %ld", &pages);
        pages = fields == 1 ? pages : 0;
        fclose(file);
    }
    return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

/* Freed memory goes back to the system after a peak, and before anybody is turned away: the
 * allocator by itself keeps what it once had. */
static void look(struct hs_memory *memory, int64_t now)
{
    int64_t bytes = hs_memory_resident_bytes();
    bool due = bytes > memory->trimmed_bytes + TRIM_BYTES &&
               now - memory->trimmed_mono_ms >= TRIM_EVERY_MS;
    if (due || bytes > memory->budget_bytes) {
        malloc_trim(0);
        bytes = hs_memory_resident_bytes();
        memory->trimmed_bytes = bytes;
        memory->trimmed_mono_ms = now;
    }
    atomic_store_explicit(&memory->over, bytes > memory->budget_bytes, memory_order_relaxed);
}

struct err hs_memory_check(struct hs_memory *memory)
{
    int64_t now = now_mono_ms(memory->now);
    int64_t looked = atomic_load_explicit(&memory->looked_mono_ms, memory_order_relaxed);
    bool due = now - looked >= LOOK_EVERY_MS || looked == 0;
    if (due && atomic_compare_exchange_strong(&memory->looked_mono_ms, &looked, now ? now : 1)) {
        look(memory, now);
    }
    if (atomic_load_explicit(&memory->over, memory_order_relaxed)) {
        return err_public(ERR_M_UNAVAILABLE, "The server is short of memory; try again soon.");
    }
    return OK;
}
