/* HTTP requests, replies, routes, parked requests and WebSockets as structs of slices; no library
 * types. A handler is plain sequential C on a worker thread: parse, one service call, encode. Its
 * reply leaves when the writes it made are durable (ctx->write_ticket), and then the gate of ctx
 * opens.
 * Spec: client-server, "API Standards". */
#pragma once
#include "homeserver/base/ctx.h"
#include "homeserver/base/json_out.h"

enum http_method { HTTP_GET, HTTP_POST, HTTP_PUT, HTTP_DELETE, HTTP_HEAD, HTTP_OPTIONS };

/* Who may call a route. */
enum http_auth {
    HTTP_AUTH_NONE,
    HTTP_AUTH_OPTIONAL, /* a token is checked when there is one */
    HTTP_AUTH_USER,     /* access token of a user or appservice */
    HTTP_AUTH_SERVER,   /* X-Matrix (federation) */
    HTTP_AUTH_ADMIN,    /* access token of a server admin */
};

/* Token buckets, see ratelimit.h. */
enum http_rate {
    HTTP_RATE_NONE,
    HTTP_RATE_LOGIN,    /* by address and account */
    HTTP_RATE_REGISTER, /* by address */
    HTTP_RATE_MESSAGE,  /* sending by user */
    HTTP_RATE_WRITE,    /* other writes by user */
    HTTP_RATE_JOIN,
    HTTP_RATE_INVITE,
    HTTP_RATE_MEDIA,
    HTTP_RATE_READ,
    HTTP_RATE_FEDERATION,
};

enum http_body {
    HTTP_BODY_NONE,          /* ignored */
    HTTP_BODY_JSON,          /* must be a JSON object; parsed into request->json */
    HTTP_BODY_OPTIONAL_JSON, /* empty counts as {} */
    HTTP_BODY_BYTES,         /* whatever it is, in request->body */
    HTTP_BODY_STREAM, /* handed to the route's stream hooks piece by piece, never whole in memory */
};

/* Which lane the handler runs in. */
enum http_lane { HTTP_LANE_NONE, HTTP_LANE_USER /* the requester's account lane */ };

enum { HTTP_PARAMS_MAX = 6, HTTP_AUTHORIZATIONS_MAX = 8 };

/* The caller, filled by the auth hook; see service/requester.h for its fields. */
struct requester;
struct http_connection;

struct http_request {
    enum http_method method;
    struct slice path;                    /* raw, still percent-encoded, without query */
    struct slice target;                  /* as on the wire, with query (X-Matrix signs this) */
    struct slice params[HTTP_PARAMS_MAX]; /* path parameters, percent-decoded, in order */
    struct slice query;                   /* raw query string */
    struct slice body;                    /* for JSON bodies */
    struct json json;                     /* parsed body */
    struct slice authorization;           /* first such header, or empty */
    struct slice authorizations[HTTP_AUTHORIZATIONS_MAX]; /* all: servers send one for each key */
    size_t authorization_count;
    struct slice token; /* bearer token from header or ?access_token= */
    struct slice content_type;
    struct slice if_match, if_none_match;
    struct slice fetch_mode; /* Sec-Fetch-Mode: what a browser asks for */
    struct slice range;
    struct slice origin_header;
    struct slice user_agent;
    struct slice remote_address; /* textual, honours X-Forwarded-For of trusted proxies */
    struct slice host;
    int64_t content_length; /* -1 = unknown */
    const struct http_route *route;
    struct requester *requester;        /* NULL when not authenticated */
    struct slice server;                /* HTTP_AUTH_SERVER: the server that signed the request */
    void *stream;                       /* what the stream hooks made of the body */
    struct http_connection *connection; /* for http_park */
};

/* A decoded query parameter; `.ptr == NULL` when absent. The first one wins. */
struct slice http_query_get(struct ctx *ctx, const struct http_request *request, struct slice name);
/* All values of a repeated parameter (e.g. via). */
size_t http_query_all(struct ctx *ctx, const struct http_request *request, struct slice name,
                      struct slice *values, size_t max);
/* Absent: `fallback`. M_INVALID_PARAM when not an integer of at least 0. */
struct err http_query_int(struct ctx *ctx, const struct http_request *request, struct slice name,
                          int64_t fallback, int64_t *value_out) MUST_USE;
/* "true" / "false"; absent: `fallback`. M_INVALID_PARAM otherwise. */
struct err http_query_bool(struct ctx *ctx, const struct http_request *request, struct slice name,
                           bool fallback, bool *value_out) MUST_USE;

enum { HTTP_HEADERS_MAX = 12 };
struct http_header {
    struct slice name, value;
};

struct http_reply {
    int status;                /* 0 = 200 */
    struct buf body;           /* arena buffer, initialised by the dispatcher; write JSON here */
    struct slice content_type; /* empty = application/json */
    struct http_header headers[HTTP_HEADERS_MAX];
    size_t header_count;
    int file_fd; /* >= 0: the body is this file (taken, closed after sending) */
    int64_t file_offset, file_bytes;
    struct slice file_head, file_tail; /* bytes before and behind the file, in the job's arena */
    bool parked;                       /* set by http_park: no reply now */
};

void http_reply_header(struct http_reply *reply, struct slice name, struct slice value);
/* Writes {"errcode":..., "error":..., <extra members>} and the status of the code into the reply.
 * `extra` is raw JSON members without braces, or empty. Use for errors with more than two fields.
 */
void http_reply_error(struct http_reply *reply, struct err err, struct slice extra);
/* The standard empty object. */
void http_reply_empty(struct http_reply *reply);

/* A returned error becomes the JSON error reply of its code. After ERR_WAITS the handler runs once
 * more, from its start, on the pool that may wait for the network (ctx->may_wait); after one on the
 * loop (HTTP_LOOP_FIRST), on a worker. */
typedef struct err (*http_handler_fn)(void *app, struct ctx *ctx,
                                      const struct http_request *request, struct http_reply *reply);

/* Hooks of a route with HTTP_BODY_STREAM; called on worker threads, in order. begin runs after
 * authentication, before any byte; it sets request->stream, or refuses, if it likes with an error
 * reply of its own. abort is called when the request dies before its handler. */
struct http_stream_hooks {
    struct err (*begin)(void *app, struct ctx *ctx, struct http_request *request,
                        struct http_reply *reply);
    struct err (*piece)(void *stream, struct slice bytes);
    void (*abort)(void *stream);
};

struct http_route {
    enum http_method method;
    const char *path; /* "/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}" */
    enum http_auth auth;
    enum http_rate rate;
    enum http_body body;
    enum http_lane lane;
    uint32_t body_bytes_max;
    http_handler_fn handler;
    const char *section; /* of the specification */
    const struct http_stream_hooks *stream;
    uint32_t flags; /* enum http_route_flag */
};
enum http_route_flag {
    HTTP_ALLOW_LOCKED = 1,    /* callable by locked accounts (logout) */
    HTTP_ALLOW_GUEST = 2,     /* callable by guests */
    HTTP_ALLOW_SUSPENDED = 4, /* set on all routes that a suspended account may call */
    HTTP_WEBSOCKET = 8,       /* the handler may call http_ws_accept */
    HTTP_NO_FORMAT = 16,      /* body and reply are not JSON (HTML pages, media) */
    /* Mostly answered from memory in microseconds: the handler runs on the loop first
     * (ctx->on_loop), and after ERR_WAITS once more on a worker. Not for routes with a lane. */
    HTTP_LOOP_FIRST = 32,
    HTTP_DEEP_JSON = 64, /* the body is read with json_parse_deep */
};

struct http_route_table {
    const struct http_route *routes;
    size_t count;
};

/* --- parked requests (long poll): no thread, no arena, one small struct ---
 * http_park detaches the request from the job; exactly one later http_unpark answers it. */
struct http_parked;
/* fn runs once when the client hangs up, the time is over or the server drains, on a worker, unless
 * http_unpark came first. It must answer through http_unpark too (the answer of a poll that found
 * nothing); after a hang-up the answer is discarded. When both race, `expired` has returned before
 * the resume function of the winner starts, so `arg` need live no longer than until then. The
 * handle is valid until the winner's resume function starts: who may lose must know (by the lock
 * that guards its registration) that the other has not begun. */
struct http_parked *http_park(struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply, int64_t timeout_ms,
                              void (*expired)(void *arg), void *arg);
/* Queues `fn` as a job whose reply answers the parked request. Returns false when another unpark
 * (or the expiry) won the race: then nothing happens. fn gets a fresh ctx and reply. Any thread. */
typedef struct err (*http_resume_fn)(void *arg, struct ctx *ctx, struct http_reply *reply);
bool http_unpark(struct http_parked *parked, http_resume_fn fn, void *arg);
/* The same for an answer that is written already: fn runs on the loop, so it copies a body of
 * moderate size and does nothing else. */
bool http_unpark_at_hand(struct http_parked *parked, http_resume_fn fn, void *arg);

/* --- WebSockets --- */
struct http_ws;
struct http_ws_hooks {
    void (*on_text)(void *arg, struct ctx *ctx, struct slice text); /* on a worker, in order */
    void (*on_close)(void *arg);                                    /* once, on a worker, last */
};
/* From a handler of an HTTP_WEBSOCKET route: upgrade with this subprotocol. `arg` is the hooks'.
 * M_UNRECOGNIZED 426 when the request is not an upgrade. on_close follows in any case. */
struct err http_ws_accept(struct ctx *ctx, const struct http_request *request,
                          struct http_reply *reply, struct slice subprotocol,
                          const struct http_ws_hooks *hooks, void *arg,
                          struct http_ws **ws_out) MUST_USE;
/* Queues a text frame; any thread. The bytes are copied. */
void http_ws_send(struct http_ws *ws, struct slice text);
/* The same, but the frame leaves only when the writes of ctx (ctx->write_ticket) are durable; for
 * results. Frames sent meanwhile may overtake it. The gate of ctx opens when the frame has left. */
void http_ws_send_durable(struct http_ws *ws, struct ctx *ctx, struct slice text);
/* Closes with a code after what is queued; any thread; ws is gone after on_close returned. */
void http_ws_close(struct http_ws *ws, uint16_t code, struct slice reason);
