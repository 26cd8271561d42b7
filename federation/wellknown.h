/* The answer of /.well-known/matrix/server. Pure.
 * Spec: server-server, "Resolving server names", 3. */
#pragma once
#include "homeserver/http/fetch.h"

struct wellknown {
    struct slice delegated; /* a valid server name; ptr NULL = no delegation */
    int64_t keep_ms;        /* how long the answer counts */
    bool is_final;          /* the server said so; false: it may come to itself (5xx) */
};
/* Reads an answer. `failures` is how many in a row came before. */
struct wellknown wellknown_read(struct arena *arena, const struct http_fetch_reply *reply,
                                int64_t now_wall_ms, unsigned failures);
/* How long a failure is remembered: doubles up to an hour. */
int64_t wellknown_failure_ms(unsigned failures);
/* Milliseconds that Cache-Control and Expires allow; -1 when they say nothing. */
int64_t wellknown_lifetime_ms(const struct http_fetch_reply *reply, int64_t now_wall_ms);
