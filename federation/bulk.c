#include "federation/bulk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void bulk_init(struct bulk *bulk, struct slice folder, uint64_t bytes_max)
{
    *bulk = (struct bulk){.folder = folder, .fd = -1, .bytes_max = bytes_max};
    buf_init(&bulk->memory, SIZE_MAX / 2);
}

static void unmap(struct bulk *bulk)
{
    if (bulk->map) {
        munmap(bulk->map, (size_t)bulk->bytes);
        bulk->map = NULL;
    }
}

void bulk_clear(struct bulk *bulk)
{
    unmap(bulk);
    if (bulk->fd >= 0) {
        close(bulk->fd);
        bulk->fd = -1;
    }
    buf_clear(&bulk->memory);
    bulk->bytes = 0;
}

void bulk_deinit(struct bulk *bulk)
{
    bulk_clear(bulk);
    buf_deinit(&bulk->memory);
}

/* A file that goes with its descriptor. File systems without O_TMPFILE get one that is unlinked. */
static int open_file(struct slice folder)
{
    char path[1100];
    if (folder.len + 20 > sizeof path) {
        return -1;
    }
    int length = (int)folder.len;
    snprintf(path, sizeof path, "%.*s", length, folder.ptr);
    int fd = open(path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        snprintf(path, sizeof path, "%.*s/bulk.XXXXXX", length, folder.ptr);
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0) {
            unlink(path);
        }
    }
    return fd;
}

static struct err write_out(struct bulk *bulk)
{
    size_t done = 0;
    if (bulk->fd < 0) {
        bulk->fd = open_file(bulk->folder);
    }
    if (bulk->fd < 0) {
        return err_make(ERR_IO, "no temporary file can be made in the data folder");
    }
    while (done < bulk->memory.len) {
        ssize_t written = write(bulk->fd, bulk->memory.ptr + done, bulk->memory.len - done);
        if (written < 0 && errno != EINTR) {
            return err_make(ERR_IO, "a temporary file cannot be written");
        }
        done += written > 0 ? (size_t)written : 0;
    }
    bulk->bytes += done;
    buf_clear(&bulk->memory);
    return OK;
}

struct err bulk_settle(struct bulk *bulk)
{
    if (bulk->bytes_max && bulk->bytes + bulk->memory.len > bulk->bytes_max) {
        return err_make(ERR_LIMIT, "an answer is larger than its bound");
    }
    return bulk->memory.len > BULK_MEMORY_BYTES ? write_out(bulk) : OK;
}

struct err bulk_add(struct bulk *bulk, struct slice bytes)
{
    buf_add(&bulk->memory, bytes);
    return bulk_settle(bulk);
}

struct err bulk_read(struct bulk *bulk, struct slice *bytes_out)
{
    if (bulk->fd < 0) {
        *bytes_out = buf_slice(&bulk->memory);
        return OK;
    }
    unmap(bulk);
    TRY(write_out(bulk));
    void *map = mmap(NULL, (size_t)bulk->bytes, PROT_READ, MAP_SHARED, bulk->fd, 0);
    if (map == MAP_FAILED) {
        return err_make(ERR_IO, "a temporary file cannot be read");
    }
    bulk->map = map;
    *bytes_out = (struct slice){bulk->map, (size_t)bulk->bytes};
    return OK;
}

void bulk_rest(struct bulk *bulk, uint64_t bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (bulk->map && bytes >= page) {
        madvise(bulk->map, (size_t)(bytes - bytes % page), MADV_DONTNEED);
    }
}

struct err bulk_take_file(struct bulk *bulk, int *fd_out)
{
    *fd_out = -1;
    if (bulk->fd < 0) {
        return OK;
    }
    unmap(bulk);
    TRY(write_out(bulk));
    *fd_out = bulk->fd;
    bulk->fd = -1;
    return OK;
}
