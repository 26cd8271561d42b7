/* A client that waits for what is new, by long poll or by the stream, and goes on waiting. */
#pragma once
#include "tools/myelin-bench/target.h"

enum listen_mode { LISTEN_POLL, LISTEN_STREAM };

enum { LISTEN_TOKEN_MAX = 1024 };

struct listener {
    struct target *target;
    size_t user;
    enum listen_mode mode;
    struct slice filter;                      /* of a poll, percent-encoded; empty = none */
    void (*fn)(void *arg, struct slice json); /* called with each answer */
    void *arg;
    struct wire_conn *conn;
    char since[LISTEN_TOKEN_MAX];
    size_t since_len;
    uint64_t answers;
    bool ready;  /* asks for what comes after its first token */
    bool broken; /* the server refused or hung up */
    bool stopped;
};

/* Starts from `since`. */
void listen_start(struct listener *listener, struct slice since);
void listen_stop(struct listener *listener);
/* Waits until all are ready; ERR_IO when one is broken. */
struct err listen_wait_ready(struct target *target, struct listener *listeners,
                             size_t count) MUST_USE;
/* Tokens of the users of `listeners`, by an initial sync each; in the target's arena. */
struct err listen_tokens(struct target *target, const struct listener *listeners, size_t count,
                         struct slice *tokens_out) MUST_USE;
