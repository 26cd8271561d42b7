/* The embedded backend. One column family: objects lie next to each other by their prefix. The log
 * is written to memory by writers and to disk by flush_fn alone (manual_wal_flush). */
#include "store/kv.h"

#include "homeserver/base/mem.h"
#include "store/cache_size.h"

#include <dirent.h>
#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>

enum {
    /* A range of at most this many rows is deleted row by row: range tombstones slow reads down. */
    RANGE_ROWS_MAX = 64,
    LEVEL0_FILES = 8,
    RECOVER_POINT_IN_TIME = 2,
    LOG_LEVEL_WARN_ROCKSDB = 2,
    LZ4 = rocksdb_lz4_compression,
    /* One read in two thousand of a key that is not there costs a block; with 10 bits, one in a
     * hundred did in each file, and filled the cache. */
    FILTER_BITS = 16,
    CACHE_SHARD_BITS = 2, /* filters of 300 KB fit into each share of the smallest cache */
    CHECKSUM_XXH3 = 4,
    /* Written blocks of the first level are merged soon: they are not worth packing. */
    PACKED_FROM_LEVEL = 1,
    BATCHES_KEPT = 8,
    BATCH_KEPT_BYTES = 16 << 10,
};

struct kv_rocksdb {
    struct kv kv;
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_cache_t *cache;
    struct cache_size cache_size;                       /* of the thread that tends */
    _Atomic uint64_t reads;                             /* of blocks that were not in the cache */
    rocksdb_readoptions_t *read_options, *once_options; /* of KV_READ_KEEP, KV_READ_ONCE */
    rocksdb_writeoptions_t *write_options;
    struct log *log;
    bool writes;
    pthread_mutex_t lock; /* of the emptied batches: one that has grown is used again */
    rocksdb_writebatch_t *batches[BATCHES_KEPT];
    size_t batch_count;
};

/* Logs the library's text, gives it back, and answers with ours. */
static struct err failure(struct log *log, char *library_text, const char *step, const char *text)
{
    log_error(log, "store_failed", .step = slice_of(step), .note = slice_of(library_text));
    rocksdb_free(library_text);
    return err_make(ERR_IO, text);
}

static size_t clamp(size_t value, size_t low, size_t high)
{
    return value < low ? low : value > high ? high : value;
}

static void set_table_options(struct kv_rocksdb *rocks)
{
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_lru_cache_options_t *lru = rocksdb_lru_cache_options_create();
    rocksdb_lru_cache_options_set_capacity(lru, rocks->cache_size.bytes);
    rocksdb_lru_cache_options_set_num_shard_bits(lru, CACHE_SHARD_BITS);
    rocks->cache = rocksdb_cache_create_lru_opts(lru);
    rocksdb_lru_cache_options_destroy(lru);
    rocksdb_block_based_options_set_block_cache(table, rocks->cache);
    rocksdb_block_based_options_set_block_size(table, (size_t)8 << 10);
    rocksdb_block_based_options_set_format_version(table, 5);
    rocksdb_block_based_options_set_checksum(table, CHECKSUM_XXH3);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1);
    /* The table owns the policy from here on. */
    rocksdb_block_based_options_set_filter_policy(
        table, rocksdb_filterpolicy_create_bloom_full(FILTER_BITS));
    rocksdb_options_set_block_based_table_factory(rocks->options, table);
    rocksdb_block_based_options_destroy(table);
}

/* Up to three memtables exist. Small ones cost more merging, large ones memory after any load, so
 * only a large budget makes them larger than 8 MB. */
static size_t memtable_bytes_for(size_t cache_bytes)
{
    size_t usual = clamp(cache_bytes / 4, (size_t)2 << 20, (size_t)8 << 20);
    return clamp(cache_bytes / 32, usual, (size_t)64 << 20);
}

static void set_options(struct kv_rocksdb *rocks, const struct store_config *config)
{
    size_t cache_bytes = config->cache_bytes;
    rocksdb_options_t *options = rocksdb_options_create();
    rocks->options = options;
    size_t memtable_bytes = memtable_bytes_for(cache_bytes);
    rocksdb_options_set_compression(options, LZ4);
    rocksdb_options_set_min_level_to_compress(options, PACKED_FROM_LEVEL);
    rocksdb_options_set_write_buffer_size(options, memtable_bytes);
    rocksdb_options_set_max_write_buffer_number(options, 3);
    rocksdb_options_set_arena_block_size(options, (size_t)128 << 10);
    /* Transaction ids are looked for that are not there, each time. */
    rocksdb_options_set_memtable_prefix_bloom_size_ratio(options, 0.02);
    rocksdb_options_set_memtable_whole_key_filtering(options, 1);
    rocksdb_options_set_target_file_size_base(options, (uint64_t)32 << 20);
    /* The first level is as large as what is merged into it at once. */
    rocksdb_options_set_level0_file_num_compaction_trigger(options, LEVEL0_FILES);
    rocksdb_options_set_level0_slowdown_writes_trigger(options, 4 * LEVEL0_FILES);
    rocksdb_options_set_level0_stop_writes_trigger(options, 6 * LEVEL0_FILES);
    rocksdb_options_set_max_bytes_for_level_base(options, LEVEL0_FILES * memtable_bytes);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1);
    rocksdb_options_set_max_background_jobs(options, 2);
    rocksdb_options_set_max_open_files(options, 256);
    rocksdb_options_set_max_file_opening_threads(options, 1);
    rocksdb_options_set_manual_wal_flush(options, 1);
    rocksdb_options_set_wal_recovery_mode(options, RECOVER_POINT_IN_TIME);
    rocksdb_options_set_info_log_level(options, LOG_LEVEL_WARN_ROCKSDB);
    rocksdb_options_set_keep_log_file_num(options, 2);
    rocksdb_options_set_max_log_file_size(options, (size_t)1 << 20);
    rocksdb_options_set_stats_dump_period_sec(options, 0);
    rocksdb_options_set_stats_persist_period_sec(options, 0);
    rocksdb_options_set_skip_stats_update_on_db_open(options, 1);
    rocksdb_options_set_skip_checking_sst_file_sizes_on_db_open(options, 1);
    rocks->cache_size = cache_size_of(clamp(cache_bytes / 2, (size_t)1 << 20, SIZE_MAX));
    if (!config->is_tended) {
        rocks->cache_size.bytes = rocks->cache_size.most_bytes;
    }
    set_table_options(rocks);
}

/* Around a read: the library counts the blocks that a thread reads. */
struct reading {
    rocksdb_perfcontext_t *counts;
    uint64_t before;
};

static struct reading begin_reading(void)
{
    struct reading reading = {.counts = rocksdb_perfcontext_create()};
    reading.before = rocksdb_perfcontext_metric(reading.counts, rocksdb_block_read_count);
    return reading;
}

static void end_reading(struct kv_rocksdb *rocks, const struct reading *reading)
{
    uint64_t after = rocksdb_perfcontext_metric(reading->counts, rocksdb_block_read_count);
    if (after != reading->before) {
        atomic_fetch_add_explicit(&rocks->reads, after - reading->before, memory_order_relaxed);
    }
    rocksdb_perfcontext_destroy(reading->counts);
}

static struct err rocks_get(struct kv *kv, struct arena *arena, struct kv_wanted wanted,
                            struct slice *value_out, bool *found_out)
{
    struct kv_rocksdb *rocks = (struct kv_rocksdb *)kv;
    char *text = NULL;
    *found_out = false;
    *value_out = (struct slice){0};
    const rocksdb_readoptions_t *options =
        wanted.reading == KV_READ_ONCE ? rocks->once_options : rocks->read_options;
    struct reading reading = begin_reading();
    rocksdb_pinnableslice_t *pinned =
        rocksdb_get_pinned(rocks->db, options, wanted.key.ptr, wanted.key.len, &text);
    end_reading(rocks, &reading);
    if (text) {
        return failure(rocks->log, text, "get", "the database cannot be read");
    }
    if (pinned) {
        struct slice value = {0};
        value.ptr = rocksdb_pinnableslice_value(pinned, &value.len);
        *value_out = arena_copy(arena, value);
        *found_out = true;
        rocksdb_pinnableslice_destroy(pinned);
    }
    return OK;
}

static struct slice key_of(const rocksdb_iterator_t *rows)
{
    struct slice key = {0};
    key.ptr = rocksdb_iter_key(rows, &key.len);
    return key;
}

static struct slice value_of(const rocksdb_iterator_t *rows)
{
    struct slice value = {0};
    value.ptr = rocksdb_iter_value(rows, &value.len);
    return value;
}

static void walk(rocksdb_iterator_t *rows, const struct kv_range *range, struct kv_visitor *visitor)
{
    if (range->reverse) {
        rocksdb_iter_seek_to_last(rows); /* of the bounds in the read options */
    } else {
        rocksdb_iter_seek(rows, range->from.ptr, range->from.len);
    }
    while (rocksdb_iter_valid(rows)) {
        enum kv_step step = visitor->visit_fn(visitor, key_of(rows), value_of(rows));
        if (step == KV_STEP_STOP) {
            break;
        }
        if (step == KV_STEP_SEEK) {
            rocksdb_iter_seek(rows, visitor->seek.ptr, visitor->seek.len);
        } else if (range->reverse) {
            rocksdb_iter_prev(rows);
        } else {
            rocksdb_iter_next(rows);
        }
    }
}

static struct err rocks_scan(struct kv *kv, const struct kv_range *range,
                             struct kv_visitor *visitor)
{
    struct kv_rocksdb *rocks = (struct kv_rocksdb *)kv;
    if (slice_cmp(range->from, range->to) >= 0) {
        return OK;
    }
    char *text = NULL;
    rocksdb_readoptions_t *options = rocksdb_readoptions_create();
    rocksdb_readoptions_set_iterate_lower_bound(options, range->from.ptr, range->from.len);
    rocksdb_readoptions_set_iterate_upper_bound(options, range->to.ptr, range->to.len);
    rocksdb_readoptions_set_fill_cache(options, range->reading == KV_READ_KEEP);
    struct reading reading = begin_reading();
    rocksdb_iterator_t *rows = rocksdb_create_iterator(rocks->db, options);
    walk(rows, range, visitor);
    end_reading(rocks, &reading);
    rocksdb_iter_get_error(rows, &text);
    rocksdb_iter_destroy(rows);
    rocksdb_readoptions_destroy(options);
    return text ? failure(rocks->log, text, "scan", "the database cannot be read") : OK;
}

struct range_delete {
    struct kv_visitor visitor;
    rocksdb_writebatch_t *batch;
    size_t count;
};

static enum kv_step delete_row(struct kv_visitor *self, struct slice key, struct slice value)
{
    struct range_delete *work = (struct range_delete *)self;
    (void)value;
    if (++work->count > RANGE_ROWS_MAX) {
        return KV_STEP_STOP;
    }
    rocksdb_writebatch_delete(work->batch, key.ptr, key.len);
    return KV_STEP_NEXT;
}

/* Deletes what is stored in the range of ops[at] and what earlier operations of the batch put
 * there. */
static struct err add_range_delete(struct kv_rocksdb *rocks, rocksdb_writebatch_t *batch,
                                   const struct kv_op *ops, size_t at)
{
    const struct kv_op *op = &ops[at];
    struct range_delete work = {.visitor.visit_fn = delete_row, .batch = batch};
    struct kv_range range = {.from = op->key, .to = op->value};
    TRY(rocks_scan(&rocks->kv, &range, &work.visitor));
    if (work.count > RANGE_ROWS_MAX) {
        rocksdb_writebatch_delete_range(batch, op->key.ptr, op->key.len, op->value.ptr,
                                        op->value.len);
        return OK;
    }
    for (size_t i = 0; i < at; i++) {
        bool covered = ops[i].type == KV_PUT && slice_cmp(ops[i].key, op->key) >= 0 &&
                       slice_cmp(ops[i].key, op->value) < 0;
        if (covered) {
            rocksdb_writebatch_delete(batch, ops[i].key.ptr, ops[i].key.len);
        }
    }
    return OK;
}

static struct err fill_batch(struct kv_rocksdb *rocks, rocksdb_writebatch_t *batch,
                             const struct kv_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        switch (ops[i].type) {
        case KV_PUT:
            rocksdb_writebatch_put(batch, ops[i].key.ptr, ops[i].key.len, ops[i].value.ptr,
                                   ops[i].value.len);
            break;
        case KV_DELETE:
            rocksdb_writebatch_delete(batch, ops[i].key.ptr, ops[i].key.len);
            break;
        case KV_DELETE_RANGE:
            TRY(add_range_delete(rocks, batch, ops, i));
            break;
        }
    }
    return OK;
}

static rocksdb_writebatch_t *take_batch(struct kv_rocksdb *rocks)
{
    pthread_mutex_lock(&rocks->lock);
    bool any = rocks->batch_count > 0;
    rocksdb_writebatch_t *batch = any ? rocks->batches[--rocks->batch_count] : NULL;
    pthread_mutex_unlock(&rocks->lock);
    return batch ? batch : rocksdb_writebatch_create();
}

static void give_batch_back(struct kv_rocksdb *rocks, rocksdb_writebatch_t *batch)
{
    size_t len = 0;
    rocksdb_writebatch_data(batch, &len);
    rocksdb_writebatch_clear(batch);
    pthread_mutex_lock(&rocks->lock);
    bool keep = len <= BATCH_KEPT_BYTES && rocks->batch_count < BATCHES_KEPT;
    if (keep) {
        rocks->batches[rocks->batch_count++] = batch;
    }
    pthread_mutex_unlock(&rocks->lock);
    if (!keep) {
        rocksdb_writebatch_destroy(batch);
    }
}

static struct err rocks_write(struct kv *kv, const struct kv_op *ops, size_t count)
{
    struct kv_rocksdb *rocks = (struct kv_rocksdb *)kv;
    rocksdb_writebatch_t *batch = take_batch(rocks);
    char *text = NULL;
    struct err err = fill_batch(rocks, batch, ops, count);
    if (err.code == 0) {
        rocksdb_write(rocks->db, rocks->write_options, batch, &text);
    }
    give_batch_back(rocks, batch);
    if (text) {
        return failure(rocks->log, text, "write", "the database refuses the write");
    }
    return err;
}

static struct err rocks_flush(struct kv *kv)
{
    struct kv_rocksdb *rocks = (struct kv_rocksdb *)kv;
    char *text = NULL;
    rocksdb_flush_wal(rocks->db, 1, &text);
    return text ? failure(rocks->log, text, "flush", "the database log cannot be flushed") : OK;
}

static struct err rocks_compact(struct kv *kv, struct slice from, struct slice to)
{
    struct kv_rocksdb *rocks = (struct kv_rocksdb *)kv;
    rocksdb_compact_range(rocks->db, from.ptr, from.len, to.ptr, to.len);
    return OK;
}

/* Before the rows are deleted: files may hold older deletions, without which rows of other files
 * would show again. */
static struct err rocks_drop_files(struct kv *kv, struct slice from, struct slice to)
{
    struct kv_rocksdb *rocks = (struct kv_rocksdb *)kv;
    char *text = NULL;
    rocksdb_delete_file_in_range(rocks->db, from.ptr, from.len, to.ptr, to.len, &text);
    return text ? failure(rocks->log, text, "drop_files", "files cannot be dropped") : OK;
}

static struct err rocks_copy(struct kv *kv, struct arena *arena, const char *path)
{
    struct kv_rocksdb *rocks = (struct kv_rocksdb *)kv;
    char *text = NULL;
    rocksdb_checkpoint_t *copy = rocksdb_checkpoint_object_create(rocks->db, &text);
    if (!text) {
        rocksdb_checkpoint_create(copy, path, 0, &text); /* 0: the log is put into tables first */
        rocksdb_checkpoint_object_destroy(copy);
    }
    if (!text) {
        return OK;
    }
    struct err err =
        err_publicf(arena, ERR_IO, "%s: the database cannot be copied: %s", path, text);
    rocksdb_free(text);
    return err;
}

static uint64_t property(struct kv_rocksdb *rocks, const char *name)
{
    uint64_t value = 0;
    return rocksdb_property_int(rocks->db, name, &value) == 0 ? value : 0;
}

static uint64_t rocks_disk_bytes(struct kv *kv)
{
    struct kv_rocksdb *rocks = (struct kv_rocksdb *)kv;
    return property(rocks, "rocksdb.total-sst-files-size") +
           property(rocks, "rocksdb.cur-size-all-mem-tables");
}

static void rocks_figures(struct kv *kv, struct kv_figures *figures_out)
{
    struct kv_rocksdb *rocks = (struct kv_rocksdb *)kv;
    *figures_out = (struct kv_figures){
        .cache_bytes = rocksdb_cache_get_usage(rocks->cache),
        .memtable_bytes = property(rocks, "rocksdb.size-all-mem-tables"),
        .reads = atomic_load_explicit(&rocks->reads, memory_order_relaxed),
    };
}

static void rocks_tend(struct kv *kv, int64_t now_mono_ms)
{
    struct kv_rocksdb *rocks = (struct kv_rocksdb *)kv;
    struct cache_use use = {
        .used_bytes = rocksdb_cache_get_usage(rocks->cache),
        .reads = atomic_load_explicit(&rocks->reads, memory_order_relaxed),
        .now_ms = now_mono_ms,
    };
    if (cache_size_judge(&rocks->cache_size, &use)) {
        rocksdb_cache_set_capacity(rocks->cache, rocks->cache_size.bytes);
    }
}

static void rocks_fail_after(struct kv *kv, int32_t calls)
{
    (void)kv; /* faults are the in-memory backend's business */
    (void)calls;
}

/* What the log holds goes into the tables, so that the next start need not read it again. */
static void settle(struct kv_rocksdb *rocks)
{
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    char *text = NULL;
    rocksdb_flush(rocks->db, options, &text);
    rocksdb_flushoptions_destroy(options);
    if (text) { /* the log is read */
        log_warn(rocks->log, "store_not_settled", .note = slice_of(text));
        rocksdb_free(text);
    }
}

static void rocks_close(struct kv *kv)
{
    struct kv_rocksdb *rocks = (struct kv_rocksdb *)kv;
    if (rocks->db) {
        if (rocks->writes) {
            settle(rocks);
        }
        rocksdb_close(rocks->db);
    }
    while (rocks->batch_count > 0) {
        rocksdb_writebatch_destroy(rocks->batches[--rocks->batch_count]);
    }
    pthread_mutex_destroy(&rocks->lock);
    rocksdb_writeoptions_destroy(rocks->write_options);
    rocksdb_readoptions_destroy(rocks->once_options);
    rocksdb_readoptions_destroy(rocks->read_options);
    rocksdb_options_destroy(rocks->options);
    rocksdb_cache_destroy(rocks->cache);
    mem_free(rocks);
}

/* Whether there are tables. Then there was a database, and an empty one must not take its place
 * because the file that names its parts is gone. A first start that was killed leaves none. */
static bool has_tables(const char *path)
{
    bool has = false;
    DIR *dir = opendir(path);
    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry; entry = readdir(dir)) {
        has = has || slice_has_suffix(slice_of(entry->d_name), LIT(".sst"));
    }
    if (dir) {
        closedir(dir);
    }
    return has;
}

struct err kv_rocksdb_open(const struct store_config *config, const char *path, struct kv **kv_out)
{
    static const struct kv_ops ops = {
        .get_fn = rocks_get,
        .scan_fn = rocks_scan,
        .write_fn = rocks_write,
        .flush_fn = rocks_flush,
        .compact_fn = rocks_compact,
        .drop_files_fn = rocks_drop_files,
        .copy_fn = rocks_copy,
        .disk_bytes_fn = rocks_disk_bytes,
        .figures_fn = rocks_figures,
        .tend_fn = rocks_tend,
        .fail_after_fn = rocks_fail_after,
        .close_fn = rocks_close,
    };
    struct kv_rocksdb *rocks = mem_alloc(sizeof *rocks);
    char *text = NULL;
    rocks->kv.ops = &ops;
    rocks->log = config->log;
    pthread_mutex_init(&rocks->lock, NULL);
    set_options(rocks, config);
    rocksdb_options_set_create_if_missing(rocks->options, !has_tables(path));
    rocks->read_options = rocksdb_readoptions_create();
    rocks->once_options = rocksdb_readoptions_create();
    rocksdb_readoptions_set_fill_cache(rocks->once_options, 0);
    rocks->write_options = rocksdb_writeoptions_create();
    if (config->access == STORE_READ_ONLY) {
        rocks->db = rocksdb_open_for_read_only(rocks->options, path, 0, &text);
    } else {
        rocks->db = rocksdb_open(rocks->options, path, &text);
        rocks->writes = true;
    }
    if (text) {
        rocks_close(&rocks->kv);
        struct err err = err_publicf(config->arena, ERR_IO,
                                     "the database cannot be opened: %s. Where files are damaged "
                                     "or gone, restore the data folder from a backup",
                                     text);
        rocksdb_free(text);
        return err;
    }
    *kv_out = &rocks->kv;
    return OK;
}
