/* Inside of federation/: the object, what runs in its parts, and the world it talks to (replaced in
 * tests). */
#pragma once
#include "federation/fed.h"
#include "homeserver/http/cidr.h"
#include "homeserver/http/dns.h"
#include "homeserver/http/fetch.h"
#include "homeserver/service/hs.h"

struct fed_destinations;
struct fed_peers;
struct fed_keys;
struct fed_answers;
struct fed_media;
struct turns;       /* turns.h */
struct staged;      /* staged.h */
struct backfills;   /* backfill.h */
struct fed_joins;   /* joins.h */
struct fed_partial; /* partial.h */
struct outbox;
struct device_lists;

/* The network as federation sees it. */
struct fed_net {
    struct err (*fetch)(void *arg, struct ctx *ctx, const struct http_fetch_request *request,
                        struct http_fetch_reply *reply_out);
    struct err (*find_srv)(void *arg, struct ctx *ctx, struct slice service, struct slice host,
                           struct http_dns_srvs *srvs_out);
    /* The addresses of a host; NULL: left to `fetch`. */
    struct http_dns_answer (*find_addresses)(void *arg, struct ctx *ctx, struct slice host);
    /* The same for calls that nobody waits for; NULL: those block, too. `arg` is its. */
    struct http_fetcher *unwatched;
    void *arg;
};

struct fed {
    struct hs *hs;
    struct fed_net net;
    struct fed_destinations *destinations;
    struct fed_peers *peers;
    struct fed_keys *keys;
    struct fed_answers *answers;
    struct fed_media *media;
    /* A server that was left alone gave a sign of life; any thread. NULL = nobody cares. */
    void (*on_alive)(struct fed *fed, struct slice server);
    _Atomic unsigned notary_running;    /* questions of others that make this server ask around */
    _Atomic unsigned strangers_running; /* requests whose signer's keys are being fetched */
    struct turns *turns;
    struct staged *staged;
    struct backfills *backfills;
    struct fed_joins *joins;
    struct fed_partial *partial;
    struct outbox *outbox;   /* NULL when the server does not federate */
    struct workers *senders; /* short jobs of calls that nobody waits for; NULL like the outbox */
    struct device_lists *device_lists;
};

/* --- call.c --- */
/* For http_fetch: HTTPS alone, and to public addresses unless the configuration allows others. */
uint32_t fed_fetch_flags(const struct fed *fed);

/* --- destination.c --- */
enum { FED_TARGETS_MAX = 8 };
/* One way to reach a server. */
struct fed_target {
    struct slice authority;  /* Host header; the certificate is for its host */
    struct slice host;       /* to connect to */
    struct slice connect_to; /* "host:port" */
    bool is_service;         /* an SRV record says so; the host must not be an alias then */
};
struct fed_destinations *fed_destinations_new(void);
void fed_destinations_free(struct fed_destinations **destinations);

/* The way to a server, step by step: look, ask what is needed, take the answer, look again. */
enum fed_need { FED_NEED_NOTHING, FED_NEED_WELLKNOWN, FED_NEED_SRV };
struct fed_finding {
    struct slice server;                        /* in */
    struct fed_target targets[FED_TARGETS_MAX]; /* to be tried in order; at least one */
    size_t count;
    enum fed_need need;
    struct slice name, service; /* what is to be asked */
    size_t service_index;
    unsigned failures;
};
struct err fed_destination_look(struct fed *fed, struct ctx *ctx,
                                struct fed_finding *finding) MUST_USE;
struct http_fetch_request fed_destination_wellknown(struct fed *fed, struct arena *arena,
                                                    const struct fed_finding *finding);
/* Any error but ERR_CANCELLED is an answer. */
struct err fed_destination_take_wellknown(struct fed *fed, struct ctx *ctx,
                                          struct fed_finding *finding, struct err err,
                                          const struct http_fetch_reply *reply) MUST_USE;
struct err fed_destination_take_srv(struct fed *fed, struct ctx *ctx, struct fed_finding *finding,
                                    struct err err, const struct http_dns_srvs *srvs) MUST_USE;
/* All of it, waiting for the answers. */
struct err fed_destination_find(struct fed *fed, struct ctx *ctx,
                                struct fed_finding *finding) MUST_USE;

/* --- peers.c: back-off, and how many requests run to a server at once --- */
struct fed_peers *fed_peers_new(void);
void fed_peers_free(struct fed_peers **peers);
/* The pauses of before the restart. */
struct err fed_peers_load(struct fed *fed, struct ctx *ctx) MUST_USE;
/* Around a request: waits a while when many run to the server already; ERR_UNAVAILABLE when they do
 * not end. */
struct err fed_peer_enter(struct fed *fed, struct slice server) MUST_USE;
void fed_peer_leave(struct fed *fed, struct slice server);
/* The configuration lets this server talk to that one. */
bool fed_peer_is_allowed(const struct fed *fed, struct slice server);
enum fed_peer_result { FED_PEER_ANSWERED, FED_PEER_FAILED };
void fed_peer_note(struct fed *fed, struct ctx *ctx, struct slice server,
                   enum fed_peer_result result);

/* --- keys.c --- */
struct fed_keys *fed_keys_new(void);
void fed_keys_free(struct fed_keys **keys);
/* fed_key_get without a fetch. */
struct err fed_key_find(struct fed *fed, struct ctx *ctx, const struct fed_key_query *query,
                        struct ed25519_public *key_out, bool *found_out) MUST_USE;

/* --- xmatrix.c --- */
/* The Authorization header of a request of this server. */
struct xmatrix_request {
    struct slice method, target, destination;
    struct slice content; /* canonical bytes; ptr NULL = no body */
};
struct slice xmatrix_sign(struct hs *hs, struct arena *arena,
                          const struct xmatrix_request *request);
