/* Requests to application services. All of them wait for the network: ERR_WAITS, before anything
 * happens, where ctx->may_wait is not set. Spec: application-service, "Querying", "Pinging",
 * "Third-party networks". */
#pragma once
#include "homeserver/http/fetch.h"
#include "homeserver/service/appservices.h"

struct as;

struct as_call {
    const struct appservice *service;
    struct slice method; /* empty = GET */
    struct slice path;   /* from "/_matrix/app/v1/..." on, encoded */
    struct slice legacy; /* asked when the service does not know `path`; empty = none */
    struct slice body;   /* ptr NULL = none */
    int64_t timeout_ms;
};
/* Any status is a success. ERR_TIMEOUT, ERR_UNAVAILABLE, ... as http_fetch. */
struct err as_call(struct as *as, struct ctx *ctx, const struct as_call *call,
                   struct http_fetch_reply *reply_out) MUST_USE;
/* Percent-encodes what stands between the slashes of a path. */
struct slice as_path(struct ctx *ctx, const char *format, struct slice part);

/* Asks a service whether it hears this server. M_URL_NOT_SET, M_BAD_STATUS, M_CONNECTION_FAILED,
 * M_CONNECTION_TIMEOUT; of a bad status the answer is in *reply_out. */
struct as_ping {
    const struct appservice *service;
    struct slice transaction_id; /* ptr NULL = none */
    int64_t duration_ms;         /* out */
    struct http_fetch_reply reply;
};
struct err as_ping_service(struct as *as, struct ctx *ctx, struct as_ping *ping) MUST_USE;

/* --- third-party networks --- */
/* Metadata of all protocols, or of one: protocol name -> object, instances of several services
 * together. Services that do not answer are left out. */
struct err as_protocols(struct as *as, struct ctx *ctx, struct slice only,
                        struct json *protocols_out) MUST_USE;
/* Results of all services that have the protocol (empty: of all services) for a query string, as
 * they came: `kind` is "user" or "location". */
struct as_lookup {
    const char *kind;
    struct slice protocol;
    struct slice query; /* raw, without access_token */
};
struct err as_lookup(struct as *as, struct ctx *ctx, const struct as_lookup *lookup,
                     struct json *results_out) MUST_USE;
