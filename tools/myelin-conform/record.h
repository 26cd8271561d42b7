/* Writes down every request to the server under test and its answer, a line of JSON each:
 * {method, path, status, authorized, request?, request_raw, answer?, content_type}. `request` and
 * `answer` are there when they are JSON; authorized: by a header; request_raw says that there was a
 * body which is none. */
#pragma once
#include "tools/myelin-conform/ask.h"

struct recorder;

/* Any thread may write. ERR_IO when the file cannot be written. */
struct err recorder_open(struct arena *arena, const char *path,
                         struct recorder **recorder_out) MUST_USE;
/* NULL is fine. `ask->url` is the path. */
void recorder_write(struct recorder *recorder, struct arena *arena, const struct ask *ask,
                    const struct answer *answer);
/* ERR_IO when something could not be written. NULL is fine. */
struct err recorder_close(struct recorder **recorder) MUST_USE;
