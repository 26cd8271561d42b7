/* What a backend of the store offers: one ordered map of bytes, atomic batches, and a log that is
 * flushed apart from writing. Private to store/; objects and conditions are store.c's business. */
#pragma once
#include "store/store.h"

struct kv;

struct kv_op {
    enum { KV_PUT, KV_DELETE, KV_DELETE_RANGE } type;
    struct slice key;   /* KV_DELETE_RANGE: first key to go */
    struct slice value; /* KV_DELETE_RANGE: first key to stay */
};

/* Whether the backend keeps what it read at hand. */
enum kv_reading { KV_READ_KEEP, KV_READ_ONCE };

struct kv_range {
    struct slice from; /* lowest key wanted */
    struct slice to;   /* first key not wanted; never empty */
    bool reverse;
    enum kv_reading reading;
};

enum kv_step {
    KV_STEP_NEXT,
    KV_STEP_SEEK, /* go on at visitor->seek (forward scans only) */
    KV_STEP_STOP,
};

/* Sees each row of a scan. Key and value live until it returns; it must not call the backend. */
struct kv_visitor {
    enum kv_step (*visit_fn)(struct kv_visitor *self, struct slice key, struct slice value);
    struct slice seek;
};

struct kv_wanted {
    struct slice key;
    enum kv_reading reading;
};

struct kv_figures {
    uint64_t cache_bytes, memtable_bytes, reads;
};

struct kv_ops {
    /* The value is copied into the arena. */
    struct err (*get_fn)(struct kv *kv, struct arena *arena, struct kv_wanted wanted,
                         struct slice *value_out, bool *found_out);
    struct err (*scan_fn)(struct kv *kv, const struct kv_range *range, struct kv_visitor *visitor);
    /* All or nothing, in order; readers see it at once. */
    struct err (*write_fn)(struct kv *kv, const struct kv_op *ops, size_t count);
    /* Everything written before the call is durable afterwards. */
    struct err (*flush_fn)(struct kv *kv);
    struct err (*compact_fn)(struct kv *kv, struct slice from, struct slice to);
    /* Drops files that hold nothing but rows in [from, to], all of which the caller deletes next.
     */
    struct err (*drop_files_fn)(struct kv *kv, struct slice from, struct slice to);
    /* Writes a copy of everything written before the call into folder `path`, which it makes. */
    struct err (*copy_fn)(struct kv *kv, struct arena *arena, const char *path);
    uint64_t (*disk_bytes_fn)(struct kv *kv);
    /* What the backend holds in memory, and blocks read; all 0 when it has none of this. */
    void (*figures_fn)(struct kv *kv, struct kv_figures *figures_out);
    /* Every few seconds, from one thread: sees to the size of caches. NULL = nothing to do. */
    void (*tend_fn)(struct kv *kv, int64_t now_mono_ms);
    /* Makes the k-th read or write from now fail (k > 0), or the k-th flush (k < 0); 0 = none. */
    void (*fail_after_fn)(struct kv *kv, int32_t calls);
    void (*close_fn)(struct kv *kv);
};

/* First member of every backend. */
struct kv {
    const struct kv_ops *ops;
};

/* Opens or creates the database in folder `path`. */
struct err kv_rocksdb_open(const struct store_config *config, const char *path,
                           struct kv **kv_out) MUST_USE;
struct kv *kv_memory_new(void);
