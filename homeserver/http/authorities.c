#include "homeserver/http/authorities.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 1 << 22 };

static const char system_file[] = "/etc/ssl/certs/ca-certificates.crt";

static bool copy_file(const char *path, int to)
{
    char chunk[4096];
    ssize_t got = 0;
    size_t total = 0;
    int from = open(path, O_RDONLY | O_CLOEXEC);
    if (from < 0) {
        return false;
    }
    while (total <= FILE_BYTES_MAX && (got = read(from, chunk, sizeof chunk)) > 0) {
        total += (size_t)got;
        if (write(to, chunk, (size_t)got) != got) {
            break;
        }
    }
    close(from);
    return got == 0 && write(to, "\n", 1) == 1;
}

struct err http_authorities_init(struct http_authorities *authorities, const struct slice *files,
                                 size_t count)
{
    *authorities = (struct http_authorities){.fd = -1};
    if (count == 0) {
        return OK;
    }
    authorities->fd = memfd_create("authorities", MFD_CLOEXEC);
    if (authorities->fd < 0) {
        return err_public(ERR_IO, "no room for the authorities of tls.trusted_ca");
    }
    for (size_t i = 0; i < count; i++) {
        char path[PATH_MAX] = "";
        bool fits = files[i].len < sizeof path;
        memcpy(path, files[i].ptr, fits ? files[i].len : 0);
        if (!fits || !copy_file(path, authorities->fd)) {
            http_authorities_deinit(authorities);
            return err_public(ERR_IO, "a file of tls.trusted_ca is not readable or too large");
        }
    }
    authorities->is_whole = copy_file(system_file, authorities->fd);
    snprintf(authorities->path, sizeof authorities->path, "/proc/self/fd/%d", authorities->fd);
    return OK;
}

void http_authorities_deinit(struct http_authorities *authorities)
{
    if (authorities->fd >= 0) {
        close(authorities->fd);
        authorities->fd = -1;
    }
}
