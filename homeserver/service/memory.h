/* The one budget of memory: when the process holds more than its setting allows, requests that may
 * wait are told to come back, until caches and work in flight have gone down again. */
#pragma once
#include "homeserver/base/conf.h"
#include "homeserver/base/err.h"
#include "homeserver/base/now.h"

struct hs_memory;

struct hs_memory *hs_memory_new(const struct conf *conf, const struct now *now);
void hs_memory_free(struct hs_memory **memory);
/* Looks at what the process holds, at most once a second, and gives back what was freed since a
 * peak. To be called now and then, for requests may cease after one. Any thread. */
void hs_memory_tend(struct hs_memory *memory);
/* ERR_M_UNAVAILABLE (503) while the process is over memory.budget. Tends, too. Any thread. */
struct err hs_memory_check(struct hs_memory *memory) MUST_USE;
/* What the process holds now, in bytes; 0 when the system does not say. */
int64_t hs_memory_resident_bytes(void);
struct hs_memory_figures {
    uint64_t resident_bytes;
    uint64_t allocated_bytes; /* of these, what is in use on the heap */
    uint64_t spare_bytes;     /* and what is of no file and not in use: free blocks, stacks */
};
/* Counts the allocator's blocks: for operators who ask, not for each request. */
void hs_memory_get_figures(struct hs_memory_figures *figures_out);
