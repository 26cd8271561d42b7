#include "homeserver/service/memory.h"

#include "homeserver/base/mem.h"
#include "spec/errcodes.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum { LOOK_EVERY_MS = 1000 };

struct hs_memory {
    int64_t budget_bytes;
    const struct now *now;
    _Atomic int64_t looked_mono_ms;
    _Atomic bool over;
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

/* Freed memory goes back to the system before anybody is turned away. */
static void look(struct hs_memory *memory)
{
    bool over = hs_memory_resident_bytes() > memory->budget_bytes;
    if (over) {
        malloc_trim(0);
        over = hs_memory_resident_bytes() > memory->budget_bytes;
    }
    atomic_store_explicit(&memory->over, over, memory_order_relaxed);
}

struct err hs_memory_check(struct hs_memory *memory)
{
    int64_t now = now_mono_ms(memory->now);
    int64_t looked = atomic_load_explicit(&memory->looked_mono_ms, memory_order_relaxed);
    bool due = now - looked >= LOOK_EVERY_MS || looked == 0;
    if (due && atomic_compare_exchange_strong(&memory->looked_mono_ms, &looked, now ? now : 1)) {
        look(memory);
    }
    if (atomic_load_explicit(&memory->over, memory_order_relaxed)) {
        return err_public(ERR_M_UNAVAILABLE, "The server is short of memory; try again soon.");
    }
    return OK;
}
