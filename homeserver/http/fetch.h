/* Outbound HTTP(S), carried out by few loops, each host by one of them: plain blocking calls for
 * jobs of the slow pool, and requests that hold no thread. The only user of libcurl. Addresses are
 * checked after name resolution and again on each reused connection: without HTTP_FETCH_ANY_ADDRESS
 * only public ones are reached. */
#pragma once
#include "homeserver/http/dns.h"
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
    size_t thread_count;   /* 0 = half of the cores, at most 4 */
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
    struct slice peer; /* whose connection it will be, for http_fetch_is_linked; may be empty */
    /* Of the host that is connected to, when they are known already; DNS is not asked then. They
     * are checked like any other. */
    const struct slice *addresses;
    size_t address_count;
    int64_t connect_ms;    /* of the connection; 0 = 10 s */
    int64_t timeout_ms;    /* of the whole request; 0 = 30 s; the deadline of ctx cuts it short */
    size_t body_bytes_max; /* of the answer; 0 = 16 MiB */
    int redirects_max;     /* followed; 0 = none */
    uint32_t flags;        /* enum http_fetch_flag */
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
/* Returns when no callback runs that had begun before: what those use may go. */
void http_fetcher_await(struct http_fetcher *fetcher);
/* After the last caller has returned. */
void http_fetcher_free(struct http_fetcher **fetcher);

/* Whether a connection that was opened for this peer is there and not ended by the other side: a
 * request costs no handshake. Any thread; does not wait. */
bool http_fetch_is_linked(struct http_fetcher *fetcher, struct slice peer);

/* SRV records of "<service>.<name>", such as "_matrix._tcp" and "example.org": none when the hosts
 * file has the name, which goes before DNS. Or the addresses of a name: none when the fetcher
 * needs none to reach it (it is one, or the operator says where it is). */
struct http_fetch_question {
    enum http_dns_kind kind;
    struct slice service, name;
};
struct http_dns_answer http_fetch_find(struct http_fetcher *fetcher, struct ctx *ctx,
                                       const struct http_fetch_question *question);
/* What is known without asking. */
bool http_fetch_knows(struct http_fetcher *fetcher, struct arena *arena,
                      const struct http_fetch_question *question,
                      struct http_dns_answer *answer_out);
/* As http_dns_ask. */
void http_fetch_ask(struct http_fetcher *fetcher, struct arena *arena,
                    const struct http_fetch_question *question, http_dns_done_fn done, void *arg);

/* Blocks until the answer is there; any HTTP status is a success. ERR_TIMEOUT, ERR_LIMIT (answer
 * too large), ERR_CANCELLED, ERR_UNAVAILABLE (not reachable, TLS refused, address not allowed), or
 * the error of the sink. What came of the answer's head is there in any case. */
struct err http_fetch(struct http_fetcher *fetcher, struct ctx *ctx,
                      const struct http_fetch_request *request,
                      struct http_fetch_reply *reply_out) MUST_USE;

/* The same without waiting: `on_done` is called once, on a thread of the fetcher's, when there is a
 * result, perhaps before this returns; then http_fetch_end must be called, on any other thread. The
 * request and what it points to stay until then; no sink. Nothing follows an error. */
struct http_fetching;
struct http_fetch_watcher {
    void (*on_start)(void *arg); /* on the same thread, before; NULL = nobody cares */
    void (*on_done)(void *arg);  /* short */
    void *arg;
};
struct err http_fetch_start(struct http_fetcher *fetcher, struct ctx *ctx,
                            const struct http_fetch_request *request,
                            const struct http_fetch_watcher *watcher,
                            struct http_fetching **fetching_out) MUST_USE;
struct err http_fetch_end(struct http_fetching **fetching, struct arena *arena,
                          struct http_fetch_reply *reply_out) MUST_USE;

/* The first header of this name; `.ptr == NULL` when absent. */
struct slice http_fetch_header(const struct http_fetch_reply *reply, struct slice name);
