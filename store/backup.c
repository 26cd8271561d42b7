/* A copy of an open store. Tables and blobs are never changed once they are written, so on the same
 * file system the copy shares them (hard links) and takes no room. */
#include "store/store_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES_MAX = 4096, BLOB_FOLDERS = 256, COPY_BYTES = 1 << 20 };

struct copier {
    struct arena *arena; /* of texts of errors */
    const char *from, *to;
    struct store_copied *sum;
};

static struct err fail(struct arena *arena, const char *path)
{
    return err_publicf(arena, ERR_IO, "%s: the copy cannot be written: %s", path, strerror(errno));
}

static bool copy_bytes(int from, int to)
{
    ssize_t size = 1;
    while (size > 0) {
        size = sendfile(to, from, NULL, COPY_BYTES);
    }
    return size == 0 && fsync(to) == 0;
}

struct err store_copy_file(struct arena *arena, const char *from, const char *to)
{
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0) {
        return errno == ENOENT ? OK : fail(arena, from);
    }
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    struct err err = out >= 0 && copy_bytes(in, out) ? OK : fail(arena, to);
    close(in);
    if (out >= 0) {
        close(out);
    }
    return err;
}

/* One that has gone meanwhile is no error, nor is one that the first pass has brought. */
static struct err copy_blob(struct copier *copier, const char *name)
{
    char from[PATH_BYTES_MAX];
    char to[PATH_BYTES_MAX];
    struct stat info;
    snprintf(from, sizeof from, "%s/%s", copier->from, name);
    snprintf(to, sizeof to, "%s/%s", copier->to, name);
    if (stat(from, &info) != 0 || !S_ISREG(info.st_mode)) {
        return OK;
    }
    if (link(from, to) != 0) {
        if (errno == EEXIST || errno == ENOENT || access(to, F_OK) == 0) {
            return OK;
        }
        TRY(store_copy_file(copier->arena, from, to));
    }
    copier->sum->files++;
    copier->sum->bytes += (uint64_t)info.st_size;
    return OK;
}

static struct err copy_blob_folder(struct copier *copier)
{
    struct err err = OK;
    DIR *dir = opendir(copier->from);
    if (!dir) {
        return errno == ENOENT ? OK : fail(copier->arena, copier->from);
    }
    if (mkdir(copier->to, 0700) != 0 && errno != EEXIST) {
        err = fail(copier->arena, copier->to);
    }
    for (struct dirent *entry = readdir(dir); entry && err.code == 0; entry = readdir(dir)) {
        err = copy_blob(copier, entry->d_name);
    }
    closedir(dir);
    return err.code ? err : folder_sync(copier->to);
}

static struct err copy_blobs(struct store *store, struct copier *copier, const char *path)
{
    char from[PATH_BYTES_MAX];
    char to[PATH_BYTES_MAX];
    copier->from = from;
    copier->to = to;
    snprintf(to, sizeof to, "%s/media", path);
    if (mkdir(to, 0700) != 0 && errno != EEXIST) {
        return fail(copier->arena, to);
    }
    for (unsigned digits = 0; digits < BLOB_FOLDERS; digits++) {
        snprintf(from, sizeof from, "%s/%02x", store->media_owned, digits);
        snprintf(to, sizeof to, "%s/media/%02x", path, digits);
        TRY(copy_blob_folder(copier));
    }
    return OK;
}

/* Blobs are copied before the rows and once more behind them: what the rows name has then come. */
struct err store_backup(struct store *store, struct arena *arena, struct slice path,
                        struct store_copied *sum_out)
{
    struct copier copier = {.arena = arena, .sum = sum_out};
    *sum_out = (struct store_copied){0};
    if (!store->path_owned) {
        return err_public(ERR_IO, "a store in memory cannot be copied");
    }
    const char *folder = arena_cstr(arena, path);
    struct slice rows = arena_printf(arena, "%s/db", folder);
    if (path.len + 300 > PATH_BYTES_MAX) {
        return err_public(ERR_IO, "the path of the copy is too long");
    }
    if (mkdir(folder, 0700) != 0) {
        return fail(arena, folder);
    }
    TRY(copy_blobs(store, &copier, folder));
    TRY(store->kv->ops->copy_fn(store->kv, arena, rows.ptr));
    TRY(copy_blobs(store, &copier, folder));
    return folder_mark(arena, folder); /* last: a copy without it is none, and refused */
}
