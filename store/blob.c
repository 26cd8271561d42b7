/* Blobs are files: written below media/tmp, flushed, then renamed to media/<2 digits>/<name>. */
#include "store/store_priv.h"

#include "homeserver/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES_MAX = 4096, NAME_BYTES_MAX = 255 };

struct store_blob_writer {
    struct store *store;
    int fd;
    char path[PATH_BYTES_MAX];
};

void blob_deinit(struct store *store)
{
    if (!store->path_owned && store->media_owned) {
        folder_remove(store->media_owned);
    }
    mem_free(store->media_owned);
}

/* The media folder; an in-memory store makes itself a temporary one. */
static struct err media_folder(struct store *store, const char **path_out)
{
    struct err err = OK;
    pthread_mutex_lock(&store->media_lock);
    if (!store->media_owned) {
        char path[] = "/tmp/myelin-media-XXXXXX";
        if (mkdtemp(path)) {
            store->media_owned = mem_alloc(sizeof path);
            memcpy(store->media_owned, path, sizeof path);
        } else {
            err = err_make(ERR_IO, "a temporary folder cannot be made");
        }
    }
    *path_out = store->media_owned;
    pthread_mutex_unlock(&store->media_lock);
    return err;
}

/* FNV-1a folded to a byte. Part of the stored layout: never changes. */
static unsigned name_digits(struct slice name)
{
    uint32_t hash = 2166136261;
    for (size_t i = 0; i < name.len; i++) {
        hash = (hash ^ (unsigned char)name.ptr[i]) * 16777619;
    }
    return (hash ^ hash >> 8 ^ hash >> 16 ^ hash >> 24) & 0xFF;
}

static bool is_name(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool good = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                    c == '_' || c == '-';
        if (!good) {
            return false;
        }
    }
    return name.len > 0 && name.len <= NAME_BYTES_MAX;
}

/* Folder and path of a blob, PATH_BYTES_MAX each. */
static struct err blob_path(struct store *store, struct slice name, char *folder, char *path)
{
    const char *media = NULL;
    if (!is_name(name)) {
        return err_make(ERR_INTERNAL, "a blob's name has characters that are not allowed");
    }
    TRY(media_folder(store, &media));
    if (strlen(media) + name.len + 8 > PATH_BYTES_MAX) {
        return err_make(ERR_IO, "the path of a blob is too long");
    }
    snprintf(folder, PATH_BYTES_MAX, "%s/%02x", media, name_digits(name));
    snprintf(path, PATH_BYTES_MAX, "%s/%02x/%.*s", media, name_digits(name), (int)name.len,
             name.ptr);
    return OK;
}

struct err store_blob_begin(struct store *store, struct store_blob_writer **writer_out)
{
    const char *media = NULL;
    char folder[PATH_BYTES_MAX];
    TRY(media_folder(store, &media));
    snprintf(folder, sizeof folder, "%s/tmp", media);
    TRY(folder_make(folder));
    struct store_blob_writer *writer = mem_alloc(sizeof *writer);
    writer->store = store;
    uint64_t number = atomic_fetch_add(&store->blob_count, 1);
    int len = snprintf(writer->path, sizeof writer->path, "%s/tmp/%llu", media,
                       (unsigned long long)number);
    writer->fd = len > 0 && (size_t)len < sizeof writer->path
                     ? open(writer->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)
                     : -1;
    if (writer->fd < 0) {
        mem_free(writer);
        return err_make(ERR_IO, "a media file cannot be made: check the data folder");
    }
    *writer_out = writer;
    return OK;
}

struct err store_blob_append(struct store_blob_writer *writer, struct slice bytes)
{
    while (bytes.len > 0) {
        ssize_t size = write(writer->fd, bytes.ptr, bytes.len);
        if (size < 0 && errno == EINTR) {
            continue;
        }
        if (size <= 0) {
            return err_make(ERR_IO, "a media file cannot be written: is the disk full?");
        }
        bytes = slice_from(bytes, (size_t)size);
    }
    return OK;
}

static struct err publish(const struct store_blob_writer *writer, struct slice name)
{
    char folder[PATH_BYTES_MAX];
    char path[PATH_BYTES_MAX];
    TRY(blob_path(writer->store, name, folder, path));
    bool fresh = access(folder, F_OK) != 0;
    TRY(folder_make(folder));
    if (fresh) {
        TRY(folder_sync(writer->store->media_owned));
    }
    if (fsync(writer->fd) != 0 || rename(writer->path, path) != 0) {
        return err_make(ERR_IO, "a media file cannot be stored: is the disk full?");
    }
    return folder_sync(folder);
}

struct err store_blob_commit(struct store_blob_writer **writer, struct slice name)
{
    struct err err = publish(*writer, name);
    store_blob_abort(writer);
    return err;
}

void store_blob_abort(struct store_blob_writer **writer)
{
    if (*writer) {
        close((*writer)->fd);
        unlink((*writer)->path); /* gone already when it was published */
        mem_free(*writer);
        *writer = NULL;
    }
}

struct err store_blob_open(struct store *store, struct slice name, int *fd_out, int64_t *bytes_out,
                           bool *found_out)
{
    char folder[PATH_BYTES_MAX];
    char path[PATH_BYTES_MAX];
    struct stat info;
    *found_out = false;
    TRY(blob_path(store, name, folder, path));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? OK : err_make(ERR_IO, "a media file cannot be opened");
    }
    if (fstat(fd, &info) != 0) {
        close(fd);
        return err_make(ERR_IO, "a media file cannot be read");
    }
    *fd_out = fd;
    *bytes_out = info.st_size;
    *found_out = true;
    return OK;
}

struct err store_blob_delete(struct store *store, struct slice name)
{
    char folder[PATH_BYTES_MAX];
    char path[PATH_BYTES_MAX];
    TRY(blob_path(store, name, folder, path));
    if (unlink(path) != 0 && errno != ENOENT) {
        return err_make(ERR_IO, "a media file cannot be deleted");
    }
    return OK;
}

/* --- all of them --- */

static struct err visit_file(const char *folder, const char *file, store_blob_fn visit, void *arg)
{
    char path[PATH_BYTES_MAX];
    struct stat info;
    struct store_blob blob = {.name = slice_of(file)};
    int len = snprintf(path, sizeof path, "%s/%s", folder, file);
    if (!is_name(blob.name) || len < 0 || (size_t)len >= sizeof path || stat(path, &info) != 0 ||
        !S_ISREG(info.st_mode)) { /* none of ours, or gone meanwhile */
        return OK;
    }
    blob.bytes = info.st_size;
    blob.modified_ms = (int64_t)info.st_mtim.tv_sec * 1000 + info.st_mtim.tv_nsec / 1000000;
    return visit(arg, &blob);
}

static struct err visit_folder(const char *folder, unsigned digits, store_blob_fn visit, void *arg)
{
    struct err err = OK;
    DIR *dir = opendir(folder);
    if (!dir) {
        return errno == ENOENT ? OK : err_make(ERR_IO, "a media folder cannot be read");
    }
    for (struct dirent *entry = readdir(dir); entry && err.code == 0; entry = readdir(dir)) {
        if (name_digits(slice_of(entry->d_name)) == digits) {
            err = visit_file(folder, entry->d_name, visit, arg);
        }
    }
    closedir(dir);
    return err;
}

struct err store_each_blob(struct store *store, store_blob_fn visit, void *arg)
{
    char folder[PATH_BYTES_MAX];
    const char *media = NULL;
    TRY(media_folder(store, &media));
    for (unsigned digits = 0; digits < 256; digits++) {
        snprintf(folder, sizeof folder, "%s/%02x", media, digits);
        TRY(visit_folder(folder, digits, visit, arg));
    }
    return OK;
}
