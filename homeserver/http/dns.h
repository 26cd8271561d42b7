/* Questions to DNS that the system's resolver does not answer: SRV records, and addresses from a
 * server of the operator's choice. Blocking; any thread. The only user of c-ares. */
#pragma once
#include "homeserver/base/ctx.h"

struct http_dns;

/* `server` is "address" or "address:port"; empty: those of the system. */
struct http_dns *http_dns_new(struct slice server);
void http_dns_free(struct http_dns **dns);
/* Addresses from the operator's server, which goes before the system's: at most `max`; none when
 * the operator named no server, or it knows none. */
size_t http_dns_choose(struct http_dns *dns, struct ctx *ctx, struct slice name,
                       struct slice *addresses_out, size_t max);

struct http_dns_srv {
    uint16_t priority, weight, port;
    struct slice target; /* without the final dot; empty: the service is not offered here */
};
struct http_dns_srvs {
    struct http_dns_srv *items; /* as they came */
    size_t count;               /* 0: there are none */
};
/* ERR_UNAVAILABLE when DNS gives no answer; no record is an answer. */
struct err http_dns_find_srv(struct http_dns *dns, struct ctx *ctx, struct slice name,
                             struct http_dns_srvs *srvs_out) MUST_USE;

struct http_dns_addresses {
    struct slice *items; /* numeric, without brackets */
    size_t count;
};
struct err http_dns_find_addresses(struct http_dns *dns, struct ctx *ctx, struct slice name,
                                   struct http_dns_addresses *addresses_out) MUST_USE;
