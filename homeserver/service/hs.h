/* The bundle that service functions work with: built once by app.c, constant afterwards (what the
 * pointers lead to locks for itself). The service layer is the only writer of rooms, accounts and
 * keys; one call is one decision and one write. */
#pragma once
#include "homeserver/base/conf.h"
#include "homeserver/base/ctx.h"
#include "homeserver/base/workers.h"
#include "crypto/json_sign.h"
#include "spec/errcodes.h"
#include "spec/ids.h"
#include "store/positions.h"
#include "store/state.h"
#include "store/store.h"

struct hs_rooms;      /* room cache, rooms.h */
struct hs_users;      /* users and their numbers, users.h */
struct hs_tokens;     /* access tokens, tokens.h */
struct hs_uia;        /* interactive auth sessions, uia.h */
struct hs_keys;       /* end-to-end keys, device_keys.h */
struct hs_inbox;      /* to-device messages, to_device.h */
struct hs_ephemeral;  /* typing, presence, receipts, ephemeral.h */
struct hs_memory;     /* the budget of memory, memory.h */
struct hs_prefs;      /* account data, push rules, filters, prefs.h */
struct hs_delayed;    /* events to be sent later, delayed.h */
struct hs_pushers;    /* who has pushers, pushers.h */
struct push;          /* what sends to them, push/push.h */
struct hs_rendezvous; /* where two devices meet to sign one in, rendezvous.h */
struct media_waits;   /* who waits for announced media, media/media.h */
struct hs_news;       /* what changes beside the stream, news.h */
struct search;        /* full text and user directory, search/search.h */
struct sync;          /* the sync engine, sync/sync.h */
struct signing_key;   /* crypto/signing_key.h */
struct stats;         /* base/stats.h */
struct hs_appservices;
struct as;
struct http_ratelimit;
struct media_sandbox;
struct http_request;
struct http_reply;
struct http_fetcher; /* outbound HTTP, http/fetch.h */
struct hs_remote;    /* what other servers do for us, remote.h */
struct hs_outbound;  /* what goes to other servers by itself, destinations.h */
struct fed;          /* the federation side, federation/fed.h */

struct hs {
    struct slice server_name;
    const struct conf *conf;
    const struct now *now;
    struct log *log;
    struct store *store;
    struct positions *positions;
    struct state_store *states;
    struct workers *workers;
    struct signing_key *signing_key;
    struct json_signer signer; /* of the current key; signs local events */
    struct hs_rooms *rooms;
    struct hs_users *users;
    struct hs_tokens *tokens;
    struct hs_uia *uia;
    struct hs_keys *keys;
    struct hs_inbox *inbox;
    struct hs_ephemeral *ephemeral;
    struct hs_prefs *prefs;
    struct hs_delayed *delayed;
    struct hs_rendezvous *rendezvous;
    struct hs_appservices *appservices; /* NULL = there are none */
    struct hs_pushers *pushers;
    struct push *push; /* of the layer above; NULL where nothing is pushed */
    struct hs_memory *memory;
    struct stats *stats;                /* may be NULL */
    struct http_ratelimit *ratelimit;   /* NULL = no limits */
    struct slice admin_token;           /* for operations of the admin listener; empty = none */
    struct media_waits *media_waits;    /* of the layer above, as is sync */
    struct media_sandbox *sandbox;      /* reads pictures and pages; NULL as is the fetcher */
    struct http_fetcher *fetcher;       /* NULL in programs that do not serve */
    struct workers *waiters;            /* jobs that may wait for the network (ctx.may_wait) */
    const struct hs_remote *remote;     /* NULL when this server does not federate */
    const struct hs_outbound *outbound; /* of a server that runs and federates; else NULL */
    struct fed *fed;                    /* for federation's routes alone */
    /* Checks a request signed by another server (fed_authenticate); NULL: none is accepted. */
    struct err (*authenticate_server)(struct fed *fed, struct ctx *ctx,
                                      struct http_request *request, struct http_reply *reply);
    struct as *as;              /* what goes to application services; NULL = there are none */
    struct sync *sync;          /* for the routes alone: the service layer does not know it */
    struct search *search;      /* the same; NULL in programs that do not serve */
    const struct hs_news *news; /* who keeps an index; NULL = nobody */
};

/* Whether a server name is this server's (compared case-sensitively, as the spec asks). */
bool hs_is_local(const struct hs *hs, struct slice server_name);
