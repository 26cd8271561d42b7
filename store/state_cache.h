/* Bounded, shared cache of state records: recently used ones stay. Parts are copied out, so nothing
 * borrows from it. Private to store/. Any thread; its locks are leaves. */
#pragma once
#include "store/state_record.h"

struct state_cache;

struct state_cache_id {
    uint64_t room;
    uint64_t number;
    enum state_record_kind kind;
};

struct state_cache_part {
    size_t len;
    char bytes[STATE_PART_BYTES_MAX];
};

struct state_cache *state_cache_new(size_t bytes_max);
void state_cache_free(struct state_cache **cache);
/* What counts for the bound. */
size_t state_cache_bytes(struct state_cache *cache);
/* Copies part number `part`. Root records are one part, number 0.
 * `found_out` tells whether the record is cached; ERR_CORRUPT when it has no such part. */
struct err state_cache_copy(struct state_cache *cache, const struct state_cache_id *id,
                            uint64_t part, struct state_cache_part *part_out,
                            bool *found_out) MUST_USE;
/* Adds a record, or does nothing when it is there. ERR_CORRUPT when it has no parts. */
struct err state_cache_add(struct state_cache *cache, const struct state_cache_id *id,
                           struct slice record) MUST_USE;
void state_cache_forget(struct state_cache *cache, uint64_t room);
