#include "homeserver/http/hosts.h"

#include "homeserver/base/mem.h"
#include "homeserver/base/now.h"
#include "homeserver/http/cidr.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 1 << 20, LOOK_EVERY_US = 1000000 };

struct http_hosts {
    char *path; /* NULL = no file */
    pthread_mutex_t lock;
    int64_t looked_us;
    struct timespec changed_at;
    int64_t size;
    char *text;
    size_t text_len;
};

struct http_hosts *http_hosts_new(struct slice path)
{
    struct http_hosts *hosts = mem_alloc(sizeof *hosts);
    pthread_mutex_init(&hosts->lock, NULL);
    if (path.len) {
        hosts->path = mem_alloc(path.len + 1);
        for (size_t i = 0; i < path.len; i++) {
            hosts->path[i] = path.ptr[i];
        }
    }
    return hosts;
}

void http_hosts_free(struct http_hosts **pointer)
{
    struct http_hosts *hosts = *pointer;
    if (!hosts) {
        return;
    }
    pthread_mutex_destroy(&hosts->lock);
    mem_free(hosts->text);
    mem_free(hosts->path);
    mem_free(hosts);
    *pointer = NULL;
}

static void forget(struct http_hosts *hosts)
{
    mem_free(hosts->text);
    hosts->text = NULL;
    hosts->text_len = 0;
    hosts->size = -1;
}

static void read_file(struct http_hosts *hosts, const struct stat *info)
{
    int fd = open(hosts->path, O_RDONLY | O_CLOEXEC);
    forget(hosts);
    if (fd < 0) {
        return;
    }
    hosts->text = mem_alloc_raw((size_t)info->st_size + 1);
    ssize_t got = read(fd, hosts->text, (size_t)info->st_size);
    hosts->text_len = got > 0 ? (size_t)got : 0;
    hosts->changed_at = info->st_mtim;
    hosts->size = info->st_size;
    close(fd);
}

static void look(struct http_hosts *hosts)
{
    struct stat info;
    int64_t now_us = now_mono_us();
    if (hosts->looked_us && now_us - hosts->looked_us < LOOK_EVERY_US) {
        return;
    }
    hosts->looked_us = now_us;
    if (stat(hosts->path, &info) != 0 || info.st_size > FILE_BYTES_MAX) {
        forget(hosts);
        return;
    }
    bool same = hosts->text && info.st_size == hosts->size &&
                info.st_mtim.tv_sec == hosts->changed_at.tv_sec &&
                info.st_mtim.tv_nsec == hosts->changed_at.tv_nsec;
    if (!same) {
        read_file(hosts, &info);
    }
}

static struct slice next_word(struct slice *line)
{
    struct slice rest = slice_trim(*line);
    size_t end = 0;
    while (end < rest.len && rest.ptr[end] != ' ' && rest.ptr[end] != '\t') {
        end++;
    }
    *line = slice_from(rest, end);
    return slice_sub(rest, 0, end);
}

size_t http_hosts_scan(struct slice text, struct slice name,
                       struct slice addresses_out[HTTP_HOSTS_ADDRESSES_MAX])
{
    size_t count = 0;
    while (text.len && count < HTTP_HOSTS_ADDRESSES_MAX) {
        struct slice line;
        struct http_address address;
        text = slice_cut(text, '\n', &line);
        slice_cut(line, '#', &line);
        struct slice first = next_word(&line);
        if (!http_address_parse(first, &address)) {
            continue;
        }
        for (struct slice word = next_word(&line); word.len; word = next_word(&line)) {
            if (slice_eq_nocase(word, name)) {
                addresses_out[count++] = first;
                break;
            }
        }
    }
    return count;
}

size_t http_hosts_find(struct http_hosts *hosts, struct arena *arena, struct slice name,
                       struct slice addresses_out[HTTP_HOSTS_ADDRESSES_MAX])
{
    if (!hosts->path) {
        return 0;
    }
    pthread_mutex_lock(&hosts->lock);
    look(hosts);
    size_t count =
        http_hosts_scan((struct slice){hosts->text, hosts->text_len}, name, addresses_out);
    for (size_t i = 0; i < count; i++) {
        addresses_out[i] = arena_copy(arena, addresses_out[i]);
    }
    pthread_mutex_unlock(&hosts->lock);
    return count;
}
