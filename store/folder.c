/* The data folder: a marker that says what it is, and a lock so that one process uses it. */
#include "store/store_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES_MAX = 4096 };
static const char marker[] = "myelin store\n";

static struct err refuse(struct arena *arena, const char *path, const char *text)
{
    return err_publicf(arena, ERR_IO, "%s: %s", path, text);
}

/* The same with what the system says. */
static struct err fail(struct arena *arena, const char *path, const char *text)
{
    return err_publicf(arena, ERR_IO, "%s: %s: %s", path, text, strerror(errno));
}

struct err folder_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return err_make(ERR_IO, "a folder cannot be opened");
    }
    int failed = fsync(fd);
    close(fd);
    return failed ? err_make(ERR_IO, "a folder cannot be written to disk") : OK;
}

struct err folder_make(const char *path)
{
    char part[PATH_BYTES_MAX];
    size_t len = strlen(path);
    if (len >= sizeof part) {
        return err_make(ERR_IO, "the path of a folder is too long");
    }
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != '\0') {
            continue;
        }
        snprintf(part, sizeof part, "%.*s", (int)i, path);
        if (mkdir(part, 0700) != 0 && errno != EEXIST) {
            return err_make(ERR_IO, "a folder cannot be made: check the path and its permissions");
        }
    }
    return OK;
}

static struct err make_data_folder(struct arena *arena, const char *path)
{
    errno = 0;
    struct err err = folder_make(path);
    return err.code && errno ? fail(arena, path, "the data folder cannot be made") : err;
}

static bool is_empty_folder(const char *path)
{
    size_t count = 0;
    DIR *dir = opendir(path);
    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry; entry = readdir(dir)) {
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                 strcmp(entry->d_name, "lost+found") != 0;
    }
    if (dir) {
        closedir(dir);
    }
    return count == 0;
}

static struct err write_marker(struct arena *arena, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return fail(arena, path, "the data folder cannot be written");
    }
    bool good = write(fd, marker, sizeof marker - 1) == (ssize_t)(sizeof marker - 1);
    good = good && fsync(fd) == 0;
    struct err err = good ? OK : fail(arena, path, "the data folder cannot be written");
    close(fd);
    return err;
}

struct err folder_mark(struct arena *arena, const char *path)
{
    char marker_path[PATH_BYTES_MAX];
    snprintf(marker_path, sizeof marker_path, "%s/store", path);
    TRY(write_marker(arena, marker_path));
    return folder_sync(path);
}

static struct err check_marker(struct arena *arena, const char *folder, const char *path)
{
    char text[sizeof marker] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT) {
        return fail(arena, path, "the data folder cannot be read");
    }
    if (fd < 0) {
        return refuse(arena, folder,
                      "the data folder holds other files and no store: is the path right?");
    }
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    /* A short marker is one that a killed first start left behind. */
    bool good = size >= 0 && strncmp(text, marker, (size_t)size) == 0;
    return good ? OK : refuse(arena, folder, "the file `store` in the data folder is not ours");
}

static struct err take_lock(struct arena *arena, const char *folder, const char *path,
                            int *lock_fd_out)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return fail(arena, path, "the data folder cannot be written");
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return refuse(arena, folder,
                      "the data folder is in use by another process: is the server running?");
    }
    *lock_fd_out = fd;
    return OK;
}

struct err folder_open(struct arena *arena, const char *path, bool read_only, int *lock_fd_out)
{
    char marker_path[PATH_BYTES_MAX];
    char lock_path[PATH_BYTES_MAX];
    int len = snprintf(marker_path, sizeof marker_path, "%s/store", path);
    if (len < 0 || (size_t)len >= sizeof marker_path) {
        return refuse(arena, path, "the path of the data folder is too long");
    }
    snprintf(lock_path, sizeof lock_path, "%s/lock", path);
    bool fresh = access(path, F_OK) != 0 || is_empty_folder(path);
    if (fresh && read_only) {
        return refuse(arena, path, "there is no store in the data folder");
    }
    if (fresh) {
        TRY(make_data_folder(arena, path));
        TRY(folder_mark(arena, path));
    } else {
        TRY(check_marker(arena, path, marker_path));
    }
    return take_lock(arena, path, lock_path, lock_fd_out);
}

void folder_close(int lock_fd)
{
    if (lock_fd >= 0) {
        close(lock_fd);
    }
}

void folder_clean(const char *path)
{
    char name[PATH_BYTES_MAX];
    snprintf(name, sizeof name, "%s/tmp", path);
    DIR *dir = opendir(name);
    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry; entry = readdir(dir)) {
        if (entry->d_name[0] != '.') {
            unlinkat(dirfd(dir), entry->d_name, 0);
        }
    }
    if (dir) {
        closedir(dir);
    }
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *at)
{
    (void)info;
    (void)type;
    (void)at;
    return remove(path);
}

void folder_remove(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}
