/* What one job carries: its memory, its clock, its log fields, and the newest write it made. */
#pragma once
#include "homeserver/base/arena.h"
#include "homeserver/base/gate.h"
#include "homeserver/base/log.h"
#include "homeserver/base/now.h"

struct ctx_deferred;

struct ctx {
    struct arena *arena; /* results of every call that takes this ctx live here */
    const struct now *now;
    struct log *log;
    struct slice req;      /* request id for log lines; empty outside requests */
    uint64_t write_ticket; /* newest store write of this job (store.h); 0 = none. The reply leaves
                              only when it is durable. */
    uint64_t author;       /* user for whom a request runs, 0 = none */
    struct gate *gate;     /* opens when the reply has left; made by ctx_gate */
    int64_t deadline_mono_ms; /* 0 = none */
    /* The job runs on the pool whose threads may wait for the network. Elsewhere a call that would
     * wait answers ERR_WAITS before it has any effect; the HTTP dispatcher then runs the handler
     * once more, from its start and in no lane, on that pool. */
    bool may_wait;
    /* The job runs on an event loop, which neither waits nor uses the store. What would, answers
     * ERR_WAITS before it has any effect but on memory that doing it again leaves as it is. */
    bool on_loop;
    /* What the job reads is not wanted again: the store keeps none of it at hand. */
    bool reads_once;
    struct ctx_deferred *deferred; /* what ctx_finish gives back */
};

/* Runs fn(owner, thing) when the job ends, last one first: for references that a job takes and need
 * not give back itself. */
void ctx_defer(struct ctx *ctx, void (*fn)(void *owner, void *thing), void *owner, void *thing);
/* Ends a job: runs what was deferred. Call before the arena is dropped. Once per job. */
void ctx_finish(struct ctx *ctx);
/* The job's gate, which stays the ctx's; NULL when no request of a user stands behind the job. */
struct gate *ctx_gate(struct ctx *ctx);
/* The reply has left, or none will. */
void ctx_open_gate(struct ctx *ctx);
