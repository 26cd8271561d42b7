/* Many coarse deadlines for one timer: a wheel of buckets. Owned by one loop thread. */
#pragma once
#include "homeserver/base/slice.h"

enum { HTTP_WHEEL_SLOTS = 512, HTTP_WHEEL_TICK_MS = 100 };

/* Embedded in what waits; zero = not set. */
struct http_wheel_entry {
    struct http_wheel_entry *next, *prev;
    int64_t due_ms;
    void (*fn)(void *arg);
    void *arg;
};

struct http_wheel {
    struct http_wheel_entry slots[HTTP_WHEEL_SLOTS];
    int64_t tick; /* all buckets up to this tick have been visited */
    size_t count;
};

void http_wheel_init(struct http_wheel *wheel, int64_t now_ms);
/* Calls entry->fn (set by the caller) at due_ms or at most a tick later; moves a set entry. */
void http_wheel_set(struct http_wheel *wheel, struct http_wheel_entry *entry, int64_t due_ms);
void http_wheel_cancel(struct http_wheel *wheel, struct http_wheel_entry *entry);
/* Calls what is due. fn may set and cancel any entry. */
void http_wheel_advance(struct http_wheel *wheel, int64_t now_ms);
