/* How large the cache of blocks may be now. What is not in it is read from the system's cache of
 * files and unpacked, some 10 us a block: so a small one does, until it is missed often. It grows
 * towards the bound of the configuration while blocks are read all the time, and goes down slowly
 * when they are not. Pure. Private to store/. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CACHE_BYTES_LEAST = 4 << 20 };

struct cache_size {
    size_t bytes, most_bytes;
    int64_t judged_ms; /* monotonic */
    uint64_t reads;    /* at that time */
};

struct cache_use {
    size_t used_bytes;
    uint64_t reads; /* blocks read since the start */
    int64_t now_ms; /* monotonic */
};

struct cache_size cache_size_of(size_t most_bytes);
/* To be called every few seconds; whether `bytes` is another now. */
bool cache_size_judge(struct cache_size *size, const struct cache_use *use);
