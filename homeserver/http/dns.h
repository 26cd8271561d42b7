/* Questions to DNS that the system's resolver does not answer: SRV records, whether a name is an
 * alias, and addresses from a server of the operator's choice. They are asked on a loop, so that
 * one that is not answered holds no thread. The only user of c-ares. */
#pragma once
#include "homeserver/base/ctx.h"

struct http_dns;
struct loop;

struct http_dns_srv {
    uint16_t priority, weight, port;
    struct slice target; /* without the final dot; empty: the service is not offered here */
};
struct http_dns_srvs {
    struct http_dns_srv *items; /* as they came */
    size_t count;               /* 0: there are none */
};
struct http_dns_addresses {
    struct slice *items; /* numeric, without brackets */
    size_t count;
    bool is_alias; /* a CNAME record led there */
};

enum http_dns_kind { HTTP_DNS_SRV, HTTP_DNS_ADDRESSES };
struct http_dns_answer {
    struct err err; /* ERR_UNAVAILABLE when DNS gives no answer; no record is an answer */
    struct http_dns_srvs srvs;
    struct http_dns_addresses addresses;
    bool is_needless; /* of http_fetch_find: the host is reached without */
};
/* On the loop; the answer lives until it returns. */
typedef void (*http_dns_done_fn)(void *arg, const struct http_dns_answer *answer);

/* `server` is "address" or "address:port"; empty: those of the system. Before the loop runs. */
struct http_dns *http_dns_new(struct loop *loop, struct slice server);
/* On the loop: answers what is open with ERR_CANCELLED, and all that is asked later. */
void http_dns_stop(struct http_dns *dns);
/* After the loop has run, before it is freed. */
void http_dns_free(struct http_dns **dns);

/* Any thread; `done` is called once, always. */
void http_dns_ask(struct http_dns *dns, enum http_dns_kind kind, struct slice name,
                  http_dns_done_fn done, void *arg);
/* Addresses that were asked for lately; in the arena. */
bool http_dns_find_kept(struct http_dns *dns, struct arena *arena, struct slice name,
                        struct http_dns_addresses *addresses_out);
/* A copy of an answer. */
struct http_dns_answer http_dns_answer_copy(struct arena *arena,
                                            const struct http_dns_answer *answer);

/* The same, blocking; any thread but the loop's. */
struct err http_dns_find_srv(struct http_dns *dns, struct ctx *ctx, struct slice name,
                             struct http_dns_srvs *srvs_out) MUST_USE;
struct err http_dns_find_addresses(struct http_dns *dns, struct ctx *ctx, struct slice name,
                                   struct http_dns_addresses *addresses_out) MUST_USE;
/* Addresses from the operator's server, which goes before the system's: at most `max`; none when
 * the operator named no server, or it knows none. Blocking. */
size_t http_dns_choose(struct http_dns *dns, struct ctx *ctx, struct slice name,
                       struct slice *addresses_out, size_t max);
