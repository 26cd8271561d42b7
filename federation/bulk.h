/* Bytes too many for memory: kept in a buffer up to a bound, beyond it in a file without a name.
 * Answers to send_join are written and read through it. */
#pragma once
#include "homeserver/base/buf.h"

struct bulk {
    struct buf memory; /* on the heap */
    struct slice folder;
    int fd; /* -1 while everything is in memory */
    uint64_t bytes;
    uint64_t bytes_max;
    char *map;
};

enum { BULK_MEMORY_BYTES = 1 << 20 };

/* `folder` for the file, on a disk (borrowed). bytes_max 0 = unbounded. */
void bulk_init(struct bulk *bulk, struct slice folder, uint64_t bytes_max);
void bulk_deinit(struct bulk *bulk);
/* Forgets what was added. */
void bulk_clear(struct bulk *bulk);
/* ERR_LIMIT past the bound, ERR_IO when the disk refuses. */
struct err bulk_add(struct bulk *bulk, struct slice bytes) MUST_USE;
/* What is in memory beyond the bound goes to the file: for writers that append to `memory`. */
struct err bulk_settle(struct bulk *bulk) MUST_USE;
/* Everything, until the bulk changes; a file is mapped, so its pages are not this process' own. */
struct err bulk_read(struct bulk *bulk, struct slice *bytes_out) MUST_USE;
/* The first `bytes` of a bulk that was read are not needed for now: their pages are given back. */
void bulk_rest(struct bulk *bulk, uint64_t bytes);
/* The file with all bytes, now the caller's; -1 when everything is in memory. */
struct err bulk_take_file(struct bulk *bulk, int *fd_out) MUST_USE;
