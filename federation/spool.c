#include "federation/inbound.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { SPOOL_BYTES = 1 << 20 };

void spool_init(struct spool *spool, struct slice folder)
{
    *spool = (struct spool){.folder = folder, .fd = -1};
    buf_init(&spool->buf, SIZE_MAX / 2);
}

void spool_deinit(struct spool *spool)
{
    buf_deinit(&spool->buf);
    if (spool->fd >= 0) {
        close(spool->fd);
        spool->fd = -1;
    }
}

static struct err open_file(struct spool *spool)
{
    char path[4096];
    if (spool->folder.len >= sizeof path) {
        return err_make(ERR_IO, "the path of the data folder is too long");
    }
    memcpy(path, spool->folder.ptr, spool->folder.len);
    path[spool->folder.len] = 0;
    spool->fd = open(path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return spool->fd >= 0 ? OK : err_make(ERR_IO, "no temporary file in the data folder");
}

static struct err move_out(struct spool *spool)
{
    struct slice rest = buf_slice(&spool->buf);
    while (rest.len) {
        ssize_t written = write(spool->fd, rest.ptr, rest.len);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return err_make(ERR_IO, "a temporary file cannot be written");
        }
        spool->bytes += written;
        rest = slice_from(rest, (size_t)written);
    }
    buf_clear(&spool->buf);
    return OK;
}

struct err spool_yield(struct spool *spool)
{
    if (spool->buf.len < SPOOL_BYTES) {
        return OK;
    }
    if (spool->fd < 0) {
        TRY(open_file(spool));
    }
    return move_out(spool);
}

struct err spool_finish(struct spool *spool, struct http_reply *reply)
{
    if (spool->fd < 0) {
        buf_add(&reply->body, buf_slice(&spool->buf));
        return OK;
    }
    TRY(move_out(spool));
    reply->file_fd = spool->fd;
    reply->file_offset = 0;
    reply->file_bytes = spool->bytes;
    spool->fd = -1;
    return OK;
}
