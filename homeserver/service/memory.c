#include "homeserver/service/memory.h"

#include "homeserver/base/mem.h"
#include "spec/errcodes.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum {
    LOOK_EVERY_MS = 1000,
    JUDGE_EVERY_MS = 5000, /* the allocator counts its blocks for it */
    TRIM_BYTES = 4 << 20,  /* so much more than after the last time makes it worth while */
};

struct hs_memory {
    int64_t budget_bytes;
    const struct now *now;
    _Atomic int64_t looked_mono_ms;
    _Atomic bool over;
    pthread_mutex_t looking;             /* the rest */
    int64_t judged_mono_ms, spare_bytes; /* what the last trim left */
};

struct hs_memory *hs_memory_new(const struct conf *conf, const struct now *now)
{
    struct hs_memory *memory = mem_alloc(sizeof *memory);
    memory->budget_bytes = conf->memory_budget;
    memory->now = now;
    pthread_mutex_init(&memory->looking, NULL);
    return memory;
}

void hs_memory_free(struct hs_memory **memory)
{
    if (*memory) {
        pthread_mutex_destroy(&(*memory)->looking);
    }
    mem_free(*memory);
    *memory = NULL;
}

struct resident {
    int64_t bytes, own_bytes; /* own: not of files */
};

static struct resident resident(void)
{
    long pages = 0;
    long shared = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file) {
        int fields = fscanf(file, "%*d %ld %ld", &pages, &shared);
        pages = fields == 2 ? pages : 0;
        shared = fields == 2 ? shared : 0;
        fclose(file);
    }
    int64_t page_bytes = sysconf(_SC_PAGESIZE);
    return (struct resident){.bytes = pages * page_bytes,
                             .own_bytes = (pages - shared) * page_bytes};
}

int64_t hs_memory_resident_bytes(void)
{
    return resident().bytes;
}

static int64_t allocated_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return (int64_t)info.uordblks + (int64_t)info.hblkhd;
}

/* What the process holds beside what is allocated: free blocks, mostly. */
static int64_t spare_bytes(int64_t own_bytes)
{
    return own_bytes - allocated_bytes();
}

void hs_memory_get_figures(struct hs_memory_figures *figures_out)
{
    struct resident held = resident();
    int64_t allocated = allocated_bytes(); /* also pages that nobody has touched */
    int64_t spare = held.own_bytes > allocated ? held.own_bytes - allocated : 0;
    *figures_out = (struct hs_memory_figures){.resident_bytes = (uint64_t)held.bytes,
                                              .allocated_bytes = (uint64_t)allocated,
                                              .spare_bytes = (uint64_t)spare};
}

/* Freed memory goes back to the system after a peak, and before anybody is turned away: the
 * allocator by itself keeps what it once had. What it cannot give back stands between blocks in
 * use. Lock held. */
static void look(struct hs_memory *memory, int64_t now)
{
    struct resident held = resident();
    bool is_over = held.bytes > memory->budget_bytes;
    bool has_grown = false;
    if (!is_over && now - memory->judged_mono_ms >= JUDGE_EVERY_MS) {
        int64_t spare = spare_bytes(held.own_bytes);
        memory->judged_mono_ms = now;
        has_grown = spare > memory->spare_bytes + TRIM_BYTES;
        memory->spare_bytes = spare < memory->spare_bytes ? spare : memory->spare_bytes;
    }
    if (is_over || has_grown) {
        malloc_trim(0);
        held = resident();
        memory->spare_bytes = spare_bytes(held.own_bytes);
    }
    atomic_store_explicit(&memory->over, held.bytes > memory->budget_bytes, memory_order_relaxed);
}

void hs_memory_tend(struct hs_memory *memory)
{
    int64_t now = now_mono_ms(memory->now);
    int64_t looked = atomic_load_explicit(&memory->looked_mono_ms, memory_order_relaxed);
    bool due = now - looked >= LOOK_EVERY_MS || looked == 0;
    due = due && atomic_compare_exchange_strong(&memory->looked_mono_ms, &looked, now ? now : 1);
    if (due && pthread_mutex_trylock(&memory->looking) == 0) { /* a look may last over a second */
        look(memory, now);
        pthread_mutex_unlock(&memory->looking);
    }
}

struct err hs_memory_check(struct hs_memory *memory)
{
    hs_memory_tend(memory);
    if (atomic_load_explicit(&memory->over, memory_order_relaxed)) {
        return err_public(ERR_M_UNAVAILABLE, "The server is short of memory; try again soon.");
    }
    return OK;
}
