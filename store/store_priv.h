/* What the files of store/ share about one open store. */
#pragma once
#include "store/commit.h"

#include <pthread.h>
#include <stdatomic.h>

/* A large write holds all of them; a thread may hold 64 locks under ThreadSanitizer. */
enum { STORE_STRIPES = 48 };

struct store {
    struct kv *kv;
    struct commit *commit;
    struct log *log;
    char *path_owned;  /* NULL = in memory */
    char *media_owned; /* folder of the blobs; NULL until the first blob of an in-memory store */
    int lock_fd;       /* held while open; -1 = in memory */
    bool read_only;
    _Atomic uint64_t write_count, largest_write_rows;
    _Atomic uint64_t blob_count; /* names of temporary files */
    pthread_mutex_t media_lock;  /* guards media_owned; leaf */
    /* One write to an object at a time, so that conditions hold. Taken in ascending order; held
     * over the write to memory and to the log's buffer, never over a flush. */
    pthread_mutex_t stripes[STORE_STRIPES];
};

/* folder.c */

/* Makes or checks the data folder `path` and takes its lock. Texts of errors are the arena's. */
struct err folder_open(struct arena *arena, const char *path, bool read_only,
                       int *lock_fd_out) MUST_USE;
/* Writes what says that the folder is a store. */
struct err folder_mark(struct arena *arena, const char *path) MUST_USE;
void folder_close(int lock_fd);
struct err folder_make(const char *path) MUST_USE;
struct err folder_sync(const char *path) MUST_USE;
/* Removes what a killed process left half written. */
void folder_clean(const char *path);
/* Removes the folder of an in-memory store with all it holds. */
void folder_remove(const char *path);

/* migrate.c: brings the stored schema up to this program's version. */
struct err migrate_run(struct store *store, struct ctx *ctx) MUST_USE;

/* blob.c */
void blob_deinit(struct store *store);
