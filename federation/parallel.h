/* Many jobs that wait for the network at once, from a job that waits for them all. */
#pragma once
#include "federation/fed_priv.h"

/* `ctx` is the part's own: it may wait, and its arena is gone afterwards. */
typedef void (*fed_part_fn)(void *arg, struct ctx *ctx, size_t index);

struct fed_parts {
    size_t count;
    size_t width_max;  /* run at once */
    int64_t within_ms; /* parts that begin later are left out; also the deadline of each */
    fed_part_fn fn;
    void *arg;
};
/* Runs fn for 0 to count - 1, on this thread and others of the waiting pool; returns when all that
 * have begun are over. */
void fed_parallel(struct fed *fed, struct ctx *ctx, const struct fed_parts *parts);
