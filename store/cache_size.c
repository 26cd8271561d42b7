#include "store/cache_size.h"

enum {
    JUDGE_MS = 1000,
    BUSY_READS_PER_S = 300, /* 3 ms of processor time */
    QUIET_READS_PER_S = 30,
};

static size_t clamp(size_t value, size_t most)
{
    size_t least = most < CACHE_BYTES_LEAST ? most : CACHE_BYTES_LEAST;
    return value < least ? least : value > most ? most : value;
}

struct cache_size cache_size_of(size_t most_bytes)
{
    return (struct cache_size){.bytes = clamp(0, most_bytes), .most_bytes = most_bytes};
}

bool cache_size_judge(struct cache_size *size, const struct cache_use *use)
{
    int64_t passed_ms = use->now_ms - size->judged_ms;
    if (passed_ms < JUDGE_MS) {
        return false;
    }
    uint64_t reads_per_s = (use->reads - size->reads) * 1000 / (uint64_t)passed_ms;
    size_t before = size->bytes;
    if (reads_per_s > BUSY_READS_PER_S && use->used_bytes >= size->bytes / 2) {
        size->bytes = clamp(size->bytes + size->bytes / 4, size->most_bytes);
    } else if (reads_per_s < QUIET_READS_PER_S) {
        size->bytes = clamp(size->bytes - size->bytes / 32, size->most_bytes);
    }
    size->judged_ms = use->now_ms;
    size->reads = use->reads;
    return size->bytes != before;
}
