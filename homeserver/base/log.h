/* Structured log: one line per event on stderr, `<level> event=<name> key=value ...`. Keys come
 * from a fixed list. Values are escaped. Never pass tokens, passwords, keys or message content. Any
 * thread. */
#pragma once
#include "homeserver/base/err.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* The keys a line may carry; empty ones are left out. */
struct log_fields {
    struct slice req, user, device, room, event, origin, dest, step, err, note;
    int64_t pos, ms, bytes; /* 0 = absent */
};

struct log;

/* Logs to file descriptor `fd` (not closed). */
struct log *log_new(enum log_level level, int fd);
void log_free(struct log **log);
bool log_wants(const struct log *log, enum log_level level);
/* Writes one line. `log` may be NULL (nothing is written). */
void log_line(struct log *log, enum log_level level, const char *event,
              const struct log_fields *fields);

#define log_error(log, event, ...)                                                                 \
    log_line((log), LOG_LEVEL_ERROR, (event), &(struct log_fields){__VA_ARGS__})
#define log_warn(log, event, ...)                                                                  \
    log_line((log), LOG_LEVEL_WARN, (event), &(struct log_fields){__VA_ARGS__})
#define log_info(log, event, ...)                                                                  \
    log_line((log), LOG_LEVEL_INFO, (event), &(struct log_fields){__VA_ARGS__})
#define log_debug(log, event, ...)                                                                 \
    log_line((log), LOG_LEVEL_DEBUG, (event), &(struct log_fields){__VA_ARGS__})
