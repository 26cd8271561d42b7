/* The load generator's own client: many HTTP/1.1 keep-alive and WebSocket connections to one server
 * on one thread, over epoll, so that the client's share of the machine stays small and even. One
 * request at a time per connection. Plain TCP only: TLS would measure the client's ciphers.
 * Spec: client-server, "API Standards"; spec/stream.md for the frames. */
#pragma once
#include "homeserver/base/buf.h"

struct wire;      /* one server, one loop */
struct wire_conn; /* one connection */

struct wire_request {
    struct slice method;
    struct slice path;          /* with query, percent-encoded */
    struct slice token;         /* empty = none */
    struct slice authorization; /* the whole header, instead of a token; empty = none */
    struct slice body;          /* empty = none */
};

struct wire_reply {
    int status;        /* 0 = the connection failed */
    struct slice body; /* until the callback returns */
    int64_t sent_us;   /* when the request was handed over */
    int64_t done_us;   /* when its last byte was read */
};

/* Called on the loop; may send again on the same connection, must not close it. */
typedef void (*wire_reply_fn)(void *arg, const struct wire_reply *reply);
/* One text frame; the empty slice when the socket opens, ptr NULL when it ended. */
typedef void (*wire_frame_fn)(void *arg, struct slice text);

/* `url` is http://host[:port]. ERR_SYNTAX for any other, ERR_IO when the host is unknown. */
struct err wire_new(struct slice url, struct wire **wire_out) MUST_USE;
/* A second server on the loop of the first: wire_poll of either handles both. `host` is freed last.
 */
struct err wire_new_beside(struct slice url, struct wire *host, struct wire **wire_out) MUST_USE;
void wire_free(struct wire **wire); /* closes its connections */
/* Connects at the first request, and again when the server has closed it meanwhile. */
struct wire_conn *wire_open(struct wire *wire);
void wire_close(struct wire_conn **conn);
void wire_send(struct wire_conn *conn, const struct wire_request *request, wire_reply_fn fn,
               void *arg);
/* Opens the stream of spec/stream.md; the caller sends `auth` when the first call says open. */
void wire_stream(struct wire_conn *conn, struct slice token, wire_frame_fn fn, void *arg);
void wire_text(struct wire_conn *conn, struct slice text);
/* Handles what is ready, waiting for it until `until_us` (monotonic) at most. */
void wire_poll(struct wire *wire, int64_t until_us);
bool wire_busy(const struct wire_conn *conn);
/* Bytes that went over all connections of this wire, both ways. */
uint64_t wire_bytes(const struct wire *wire);
/* Whether something listens there now. */
bool wire_reachable(const struct wire *wire);
