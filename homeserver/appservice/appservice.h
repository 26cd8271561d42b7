/* Application services as a running server serves them: registrations read, senders made, what
 * concerns them sent in ordered transactions, and what only they know asked for.
 *
 * One thread tails the stream of changes and writes down for each service what it shall hear
 * (rows.h); each service that has something waiting is one job of the waiting pool. A service that
 * is down delays nobody: it is tried again after 1 s to 1 min, and at once when it calls.
 * Spec: application-service. */
#pragma once
#include "homeserver/http/fetch.h"
#include "homeserver/service/appservices.h"

struct as;

enum {
    AS_EVENTS_MAX = 100,    /* of one transaction */
    AS_EPHEMERAL_MAX = 500, /* typing, receipts and presence that wait; the oldest go */
    AS_TO_DEVICE_MAX = 100, /* messages of one transaction */
    AS_USERS_MAX = 200,     /* users looked at for one transaction */
    AS_PAUSE_MS_MIN = 1000, /* after the first failure; twice as long after each more */
    AS_PAUSE_MS_MAX = 60000,
};

/* The way out; replaced in tests. */
struct as_port {
    struct err (*fetch)(void *arg, struct ctx *ctx, const struct http_fetch_request *request,
                        struct http_fetch_reply *reply_out);
    void *arg;
    void (*pause)(void *arg, int64_t ms); /* between tries; NULL = they wait */
};

/* Reads the registrations and listens to the stream of changes: before the first position is
 * reserved. port NULL: the fetcher of hs. What is wrong with a registration is logged; ERR_SYNTAX.
 * as_out is NULL when the configuration names no registrations. */
struct err as_new(struct hs *hs, const struct as_port *port, struct as **as_out) MUST_USE;
/* The same with a table of the caller's, which is taken (tests). */
struct err as_new_with(struct hs *hs, const struct as_port *port, struct appservice_table **table,
                       struct as **as_out) MUST_USE;
/* Makes the accounts of senders: before requests arrive. */
struct err as_prepare(struct as *as) MUST_USE;
/* Starts to send: when requests may arrive, for services answer what they hear with some. */
struct err as_start(struct as *as) MUST_USE;
/* Reads the registrations again; those in force stay when there is a problem. */
struct err as_reload(struct as *as) MUST_USE;
/* Nothing new is begun; what waits for an answer ends with the fetcher. */
void as_stop(struct as *as);
/* As if the power had gone (tests). */
void as_abandon(struct as *as);
/* After the waiting pool has ended. */
void as_free(struct as **as);

/* Waits until all that is published has been handled and nothing is being sent (tests). */
void as_settle(struct as *as);

/* --- for operators --- */
struct as_look_at {
    struct slice state; /* idle, sending, waiting, off (no URL); empty = not running here */
    int64_t next_try_ms;
    size_t ephemeral;
};
void as_look(struct as *as, struct slice id, struct as_look_at *look_out);
/* Tries again at once; empty = all. How many were waiting. */
size_t as_retry(struct as *as, struct slice id);
