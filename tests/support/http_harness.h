/* A server with a few routes and a raw client for the tests of the HTTP front. */
#pragma once
#include "homeserver/http/server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { HARNESS_PLAIN, HARNESS_ADMIN, HARNESS_TLS, HARNESS_LISTENERS };

struct harness {
    struct http_server *server;
    struct workers *workers, *waiters;
    struct now now;
    struct log *log;
    char folder[64], certificate[80], key[80];
    _Atomic int parked, expired, aborted, handled;
    struct http_parked *_Atomic waiting; /* the newest parked request */
    _Atomic int64_t streamed;
    struct http_ws *_Atomic ws; /* the newest WebSocket */
    _Atomic int texts, closed;
    _Atomic int client_fd;            /* of a client whose gate is watched */
    _Atomic int opened, opened_early; /* gates; those opened before the client had bytes to read */
};

/* Slow and idle connections are cut after minutes: a busy machine changes nothing. */
int harness_start(void **state);
/* After a second and a half, for tests of that. */
int harness_start_hasty(void **state);
int harness_stop(void **state);
/* A connection to the listener. */
int harness_connect(struct harness *harness, size_t listener);
void harness_write(int fd, struct slice bytes);
/* Reads one reply; its status, and head and body in the buffer (NUL-terminated). */
struct harness_reply {
    int status;
    char head[4096];
    char body[65536];
    size_t body_len;
};
/* False at the end of the connection or after 30 s. */
bool harness_read(int fd, struct harness_reply *reply);
/* Whether the peer closes within 30 s (rest bytes are thrown away). */
bool harness_closed(int fd);
int harness_ask(struct harness *harness, struct slice request, struct harness_reply *reply);
/* Waits until the counter reaches the value; false after 30 s. */
bool harness_wait(_Atomic int *counter, int value);
