/* The store: objects, each an ordered map from byte keys to byte values.
 *
 * An object is named by a kind (schema.def) and an id. An update changes one object atomically and
 * may carry conditions. Nothing above the store may rely on atomicity across two objects, although
 * updates handed over in one call are usually written together.
 *
 * Visibility and durability are two things. After store_write returns, every reader sees the
 * update; it is durable when store_when_durable says so for its ticket. One commit thread flushes
 * the log for all writers at once (grouped fsync). Tickets grow; durability of a ticket includes
 * all lower ones. Answers to clients wait for the ticket of their job (struct ctx.write_ticket).
 *
 * All functions may be called from any worker thread; never from a loop thread. Rows are copied
 * into the caller's arena, so nothing is borrowed from the store. */
#pragma once
#include "homeserver/base/ctx.h"
#include "homeserver/base/pack.h"

/* Object kinds. The one-letter value is the first byte of the stored key and never changes. */
enum store_kind {
#define KIND(letter, name, purpose) STORE_##name = letter,
#include "store/schema.def"
#undef KIND
};

enum { STORE_ID_BYTES_MAX = 255, STORE_KEY_BYTES_MAX = 2048 };

/* An object's name. `id` is any bytes (use store_id_u64 for numbered objects). */
struct store_object {
    enum store_kind kind;
    struct slice id;
};

struct store_row {
    struct slice key;
    struct slice value;
};

struct store;
struct store_update;

struct store_config {
    struct slice path;   /* folder of the embedded store; empty = in memory */
    struct arena *arena; /* with a path: where texts of errors live */
    size_t cache_bytes;  /* block cache and memtables together */
    int32_t
        fail_after_calls; /* in-memory backend: see store_fail_after, counted from the open on */
    enum {
        STORE_READ_WRITE,
        STORE_READ_ONLY
    } access;       /* READ_ONLY: for check, nothing is changed */
    bool is_tended; /* store_tend will be called: the block cache begins small */
    struct log *log;
};

/* Opens or creates; runs forward migrations; refuses a schema newer than this program.
 * Errors: ERR_IO with a text for the operator. */
struct err store_open(const struct store_config *config, struct store **store_out) MUST_USE;
/* In-memory backend, for tests: the k-th read or write from now fails (k > 0), or the k-th flush of
 * the log (k < 0); 0 = none. */
void store_fail_after(struct store *store, int32_t calls);
/* Flushes, stops the commit thread, closes. Everything written is durable afterwards. */
void store_close(struct store **store);

/* Big-endian bytes of a number, in the arena: the id of a numbered object. */
struct slice store_id_u64(struct arena *arena, uint64_t number);

/* --- reading --- */
/* Reading and writing answer ERR_WAITS on a loop (ctx->on_loop). */
struct err store_get(struct store *store, struct ctx *ctx, struct store_object object,
                     struct slice key, struct slice *value_out, bool *found_out) MUST_USE;

struct store_range {
    struct slice from; /* first key wanted (forward: lowest); empty = from the start */
    struct slice to;   /* first key not wanted; empty = to the end of the object */
    size_t limit;      /* 0 = all */
    enum { STORE_FORWARD, STORE_REVERSE } order; /* REVERSE walks from `to` down to `from` */
};
struct store_rows {
    struct store_row *rows;
    size_t count;
};
/* Rows of one object in key order (or reverse), copied into the arena. */
struct err store_read_range(struct store *store, struct ctx *ctx, struct store_object object,
                            struct store_range range, struct store_rows *rows_out) MUST_USE;
/* Calls visit for each object of the kind that exists, by id order, each once. Stops with the
 * first error. For check, rebuild and start-up; slow. */
struct err store_each_object(struct store *store, struct ctx *ctx, enum store_kind kind,
                             struct err (*visit)(void *arg, struct slice id), void *arg) MUST_USE;

/* --- writing --- */
/* An update of one object, in ctx's arena. */
struct store_update *store_update_new(struct ctx *ctx, struct store_object object);
void store_put(struct store_update *update, struct slice key, struct slice value);
void store_delete(struct store_update *update, struct slice key);
/* Deletes keys in [from, to); empty `to` = to the end of the object. */
void store_delete_range(struct store_update *update, struct slice from, struct slice to);
/* Conditions, checked atomically with the write. ptr NULL value = must be absent. */
void store_expect(struct store_update *update, struct slice key, struct slice value);

/* The value that this update puts under key (the newest put; borrows from the update). */
bool store_update_find(const struct store_update *update, struct slice key,
                       struct slice *value_out);

/* Applies the updates in order. Each is atomic by itself. ERR_CONFLICT when a condition of any
 * fails (then none was applied), ERR_IO when the disk refuses, M_TOO_LARGE when a key is longer
 * than STORE_KEY_BYTES_MAX (reading such a key finds nothing). On success ctx->write_ticket is
 * raised to this write's ticket. */
struct err store_write(struct store *store, struct ctx *ctx, struct store_update **updates,
                       size_t count) MUST_USE;

/* fn(arg, err) runs on the commit thread (or at once in the caller when already durable) as soon as
 * all writes up to ticket are durable; err is ERR_IO when they never will be. fn must be quick. */
typedef void (*store_durable_fn)(void *arg, struct err err);
void store_when_durable(struct store *store, uint64_t ticket, store_durable_fn fn, void *arg);
/* Every write up to and including this ticket is durable. */
uint64_t store_durable_ticket(struct store *store);
/* fn(arg, err) runs on the commit thread after each flush (err: the flush failed, and nothing more
 * will ever be durable). One listener; NULL removes it, and waits for a running call. */
void store_on_flush(struct store *store, store_durable_fn fn, void *arg);
/* Blocks until durable. Not for request handlers (their reply waits by itself). */
struct err store_wait_durable(struct store *store, uint64_t ticket) MUST_USE;

/* --- blobs: media, streamed --- */
struct store_blob_writer;
/* Files below <path>/media (a temporary folder for the in-memory store). */
struct err store_blob_begin(struct store *store, struct store_blob_writer **writer_out) MUST_USE;
struct err store_blob_append(struct store_blob_writer *writer, struct slice bytes) MUST_USE;
/* Fsyncs and publishes the blob under `name` ([A-Za-z0-9_-], <= 255); replaces an older one. Takes
 * the writer. */
struct err store_blob_commit(struct store_blob_writer **writer, struct slice name) MUST_USE;
void store_blob_abort(struct store_blob_writer **writer);
/* An open read-only descriptor (the caller closes it) and its size. */
struct err store_blob_open(struct store *store, struct slice name, int *fd_out, int64_t *bytes_out,
                           bool *found_out) MUST_USE;
struct err store_blob_delete(struct store *store, struct slice name) MUST_USE;
struct store_blob {
    struct slice name; /* during the visit */
    int64_t bytes;
    int64_t modified_ms; /* wall clock of the file system */
};
/* Calls visit for each published blob, in no order; it may delete the one at hand. Stops with the
 * first error. For check and rebuild; slow. */
typedef struct err (*store_blob_fn)(void *arg, const struct store_blob *blob);
struct err store_each_blob(struct store *store, store_blob_fn visit, void *arg) MUST_USE;

/* --- a copy --- */
struct store_copied {
    uint64_t files, bytes; /* blobs */
};
/* Writes a copy of the store, as it is at one moment while the call runs, into the folder `path`,
 * which it makes; it can be opened in the place of the store. Blobs and tables are shared where the
 * file system allows. Slow. Texts of errors live in the arena. */
struct err store_backup(struct store *store, struct arena *arena, struct slice path,
                        struct store_copied *sum_out) MUST_USE;
/* Copies one file beside a store, if it is there, to a file that is not. */
struct err store_copy_file(struct arena *arena, const char *from, const char *to) MUST_USE;

/* ERR_IO once the log could not be flushed: every write is refused until a restart. */
struct err store_check_writes(struct store *store) MUST_USE;

/* --- figures --- */
struct store_stats {
    uint64_t writes, flushes, disk_bytes, pending;
    uint64_t largest_write_rows;          /* of all writes since the store was opened */
    uint64_t cache_bytes, memtable_bytes; /* held in memory */
    uint64_t block_reads;                 /* that the cache did not have */
};
void store_get_stats(struct store *store, struct store_stats *stats_out);
/* Lets caches grow or go down with what is read. Every few seconds, from one thread. */
void store_tend(struct store *store, int64_t now_mono_ms);
/* Gives disk space of deleted ranges back (RocksDB compaction of the kind). Slow. */
struct err store_compact(struct store *store, enum store_kind kind) MUST_USE;
/* The same for one object, after it was purged. */
struct err store_compact_object(struct store *store, struct ctx *ctx,
                                struct store_object object) MUST_USE;
/* Gives back at once the files that hold nothing but rows of an object. Readers see some of its
 * rows gone, some back in older form: delete the whole range next. */
struct err store_drop_files(struct store *store, struct ctx *ctx,
                            struct store_object object) MUST_USE;
