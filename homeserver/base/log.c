#include "homeserver/base/log.h"

#include "homeserver/base/buf.h"
#include "homeserver/base/mem.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES_MAX = 4096, VALUE_BYTES_MAX = 512 };

struct log {
    _Atomic int level;
    int fd;
};

static const char *const level_names[] = {"error", "warn", "info", "debug"};

struct log *log_new(enum log_level level, int fd)
{
    struct log *log = mem_alloc(sizeof *log);
    log->fd = fd;
    atomic_store(&log->level, (int)level);
    return log;
}

void log_free(struct log **log)
{
    mem_free(*log);
    *log = NULL;
}

bool log_wants(const struct log *log, enum log_level level)
{
    return log && (int)level <= atomic_load_explicit(&log->level, memory_order_relaxed);
}

static void add_escaped(struct buf *line, struct slice value)
{
    struct slice shown = slice_sub(value, 0, VALUE_BYTES_MAX);
    for (size_t i = 0; i < shown.len; i++) {
        unsigned char c = (unsigned char)shown.ptr[i];
        if (c == '"' || c == '\\') {
            buf_add_byte(line, '\\');
            buf_add_byte(line, (char)c);
        } else if (c < 0x20 || c >= 0x7F) {
            buf_printf(line, "\\x%02x", c);
        } else {
            buf_add_byte(line, (char)c);
        }
    }
}

static void add_text(struct buf *line, const char *key, struct slice value)
{
    if (value.len) {
        buf_printf(line, " %s=\"", key);
        add_escaped(line, value);
        buf_add_byte(line, '"');
    }
}

static void add_number(struct buf *line, const char *key, int64_t value)
{
    if (value) {
        buf_printf(line, " %s=%lld", key, (long long)value);
    }
}

static void add_head(struct buf *line, enum log_level level, const char *event)
{
    struct timespec at;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &at);
    gmtime_r(&at.tv_sec, &utc);
    buf_printf(line, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %s event=%s", utc.tm_year + 1900,
               utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
               at.tv_nsec / 1000000, level_names[level], event);
}

static void add_fields(struct buf *line, const struct log_fields *fields)
{
    add_text(line, "req", fields->req);
    add_text(line, "user", fields->user);
    add_text(line, "device", fields->device);
    add_text(line, "room", fields->room);
    add_text(line, "id", fields->event);
    add_text(line, "origin", fields->origin);
    add_text(line, "dest", fields->dest);
    add_text(line, "step", fields->step);
    add_number(line, "pos", fields->pos);
    add_number(line, "ms", fields->ms);
    add_number(line, "bytes", fields->bytes);
    add_text(line, "note", fields->note);
    add_text(line, "err", fields->err);
}

void log_line(struct log *log, enum log_level level, const char *event,
              const struct log_fields *fields)
{
    if (!log_wants(log, level)) {
        return;
    }
    struct buf line;
    buf_init(&line, LINE_BYTES_MAX);
    add_head(&line, level, event);
    add_fields(&line, fields);
    buf_add_byte(&line, '\n');
    ssize_t written = write(log->fd, line.ptr, line.len); /* a full disk must not stop the server */
    (void)written;
    buf_deinit(&line);
}
