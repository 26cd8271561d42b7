/* Outbound HTTP(S): plain blocking calls for jobs of the slow pool, carried out by one loop. The
 * only user of libcurl. Addresses are checked after name resolution and again on each reused
 * connection: without HTTP_FETCH_ANY_ADDRESS only public ones are reached. */
#pragma once
#include "homeserver/http/http.h"

struct http_fetcher;
struct stats;

/* Connects to `address` ("127.0.0.1", "127.0.0.1:8449", "[::1]:1") whenever `host` is asked for;
 * the name in the TLS check stays. Such addresses are always allowed. */
struct http_fetch_override {
    struct slice host, address;
};

struct http_fetch_config {
    struct slice user_agent;
    const struct slice *ca_files; /* PEM, trusted beside the system's authorities */
    size_t ca_file_count;
    struct slice hosts_file;   /* names that go before DNS (hosts.h); may be empty */
    struct slice dns_server;   /* "address:port" to ask for addresses; empty = the system's */
    struct slice proxy;        /* of outbound requests; empty = none */
    bool skip_tls_checks;      /* for closed test networks only */
    const struct slice *allow; /* CIDR ranges that may always be reached */
    size_t allow_count;
    const struct slice *deny; /* and those that may never be */
    size_t deny_count;
    const struct http_fetch_override *overrides;
    size_t override_count;
    size_t connection_max; /* kept open, all hosts together; 0 = 1024 */
    struct log *log;
    struct stats *stats;
};

enum http_fetch_flag {
    HTTP_FETCH_ANY_ADDRESS = 1, /* the operator named the target (push gateway, app service) */
    HTTP_FETCH_HTTPS_ONLY = 2,
};

struct http_fetch_request {
    struct slice method; /* empty = GET */
    struct slice url;
    const struct http_header *headers;
    size_t header_count;
    struct slice body;       /* sent when ptr is set, even if empty */
    struct slice connect_to; /* "host:port" to connect to instead of the URL's; empty = none */
    int64_t timeout_ms;      /* of the whole request; 0 = 30 s; the deadline of ctx cuts it short */
    size_t body_bytes_max;   /* of the answer; 0 = 16 MiB */
    int redirects_max;       /* followed; 0 = none */
    uint32_t flags;          /* enum http_fetch_flag */
    /* Takes the answer's body in pieces on the calling thread; NULL: it is collected in the arena.
     * An error ends the request. Statuses other than 2xx are not given to it but collected. */
    struct err (*sink)(void *arg, struct slice bytes);
    void *sink_arg;
};

struct http_fetch_reply {
    int status;
    struct slice body;
    struct slice content_type;
    struct http_header *headers; /* of the last answer, in order */
    size_t header_count;
};

/* ERR_IO for a CA file or a range that cannot be read. */
struct err http_fetcher_new(const struct http_fetch_config *config,
                            struct http_fetcher **fetcher_out) MUST_USE;
/* Cancels what runs; later calls answer ERR_CANCELLED. */
void http_fetcher_stop(struct http_fetcher *fetcher);
/* After the last caller has returned. */
void http_fetcher_free(struct http_fetcher **fetcher);

struct http_dns_srvs;
/* SRV records of "<service>.<host>", such as "_matrix._tcp" and "example.org": none when the hosts
 * file has the host, which goes before DNS. As http_dns_find_srv. */
struct err http_fetch_find_srv(struct http_fetcher *fetcher, struct ctx *ctx, struct slice service,
                               struct slice host, struct http_dns_srvs *srvs_out) MUST_USE;

/* Blocks until the answer is there; any HTTP status is a success. ERR_TIMEOUT, ERR_LIMIT (answer
 * too large), ERR_CANCELLED, ERR_UNAVAILABLE (not reachable, TLS refused, address not allowed), or
 * the error of the sink. What came of the answer's head is there in any case. */
struct err http_fetch(struct http_fetcher *fetcher, struct ctx *ctx,
                      const struct http_fetch_request *request,
                      struct http_fetch_reply *reply_out) MUST_USE;
/* The first header of this name; `.ptr == NULL` when absent. */
struct slice http_fetch_header(const struct http_fetch_reply *reply, struct slice name);
