/* The HTTP front: listeners (plain and TLS), loops, the dispatcher and graceful drain. */
#pragma once
#include "homeserver/base/workers.h"
#include "homeserver/http/http.h"

struct http_server;
struct log;
struct now;
struct stats;

struct http_listener {
    struct slice host;
    uint16_t port; /* 0 = any free port */
    bool tls;
    bool admin; /* serves admin_tables instead of tables */
};

struct http_server_config {
    const struct http_listener *listeners;
    size_t listener_count;
    struct slice tls_certificate, tls_key; /* PEM files; re-read by http_server_reload */
    size_t loop_count;                     /* 0 = cores, at most 4 */
    size_t pool_bytes;     /* of HTTP memory per connection, bounds request headers; 0 = 8192 */
    size_t connection_max; /* 0 = from RLIMIT_NOFILE */
    size_t connection_max_per_address;
    int64_t idle_timeout_ms, request_timeout_ms;
    const struct slice *trusted_proxies; /* addresses whose X-Forwarded-For counts */
    size_t trusted_proxy_count;
    const struct http_route_table *tables; /* all routes; static memory */
    size_t table_count;
    const struct http_route_table *admin_tables; /* for admin listeners */
    size_t admin_table_count;
    void *app; /* first argument of handlers */
    /* Fills request->requester from request->token or the X-Matrix header, or returns the 401/403
     * error reply itself (locked, suspended, soft_logout) in *reply_out and an error. On a worker.
     */
    struct err (*authenticate)(void *app, struct ctx *ctx, struct http_request *request,
                               struct http_reply *reply);
    /* The lane of the requester's account (HTTP_LANE_USER). */
    uint64_t (*lane_of)(void *app, const struct http_request *request);
    /* Rate limit check after authentication; returns M_LIMIT_EXCEEDED with Retry-After set. */
    struct err (*check_rate)(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply);
    /* Replies wait for their writes: fn(arg, err) is called, on any thread, when all writes up to
     * the ticket are durable. NULL: replies leave at once. (store_when_durable fits.) */
    void (*when_durable)(void *store, uint64_t ticket, void (*fn)(void *arg, struct err err),
                         void *arg);
    void *store;
    struct workers *workers;
    struct workers *waiters; /* for jobs that answered ERR_WAITS; NULL = none */
    const struct now *now;
    struct log *log;
    struct stats *stats; /* base/stats.h */
    struct arena *texts; /* of errors of http_server_new; NULL: they are not to be read */
};

struct err http_server_new(const struct http_server_config *config,
                           struct http_server **server_out) MUST_USE;
/* The port a listener really has. */
uint16_t http_server_port(const struct http_server *server, size_t listener);
struct err http_server_start(struct http_server *server) MUST_USE; /* loops run on own threads */
/* Loads the certificate files again; the old one stays on error. One thread at a time; a text
 * lives as long as the server. */
struct err http_server_reload(struct http_server *server) MUST_USE;
/* Stops accepting, expires parked requests, closes WebSockets with 1001, finishes running requests
 * (at most grace_ms), then stops the loops. */
void http_server_stop(struct http_server *server, int64_t grace_ms);
void http_server_free(struct http_server **server);
