/* What waits for other servers, durable: one object for each, (STORE_DESTINATION, server name).
 * Events stay in the logs of their rooms: a mark names a room and the newest of its events that the
 * server has yet to get, and everything up to `acknowledged` it has. EDUs that must not be lost
 * stand here whole, and so does the transaction under way, so that a retry sends the same again.
 *
 * Writers: marks belong to the thread that tails the rooms, the rest to the one job that sends to
 * the server; EDUs are added by anybody. Rows are put into an update that the caller writes.
 * Spec: server-server, "Transactions". */
#pragma once
#include "homeserver/base/json_out.h"
#include "homeserver/service/hs.h"

enum { DESTINATION_REFUSED_MAX = 100 };

struct destination_state {
    uint64_t acknowledged; /* position: the server has every event for it up to here */
    int64_t last_success_ms;
    int64_t failed_since_ms; /* 0 = the last attempt succeeded */
    int64_t next_try_ms;
    uint32_t failures;    /* in a row */
    struct slice failure; /* the reason of the last one */
};
/* Found false: nothing was ever sent there. */
struct err hs_destination_load(struct hs *hs, struct ctx *ctx, struct slice server,
                               struct destination_state *state_out, bool *found_out) MUST_USE;

/* An event, or as a mark the newest of a room. */
struct destination_event {
    uint64_t room;
    int64_t number;
    uint64_t pos;
};
struct destination_events {
    struct destination_event *items;
    size_t count;
};
/* Ascending by room. */
struct err hs_destination_marks(struct hs *hs, struct ctx *ctx, struct slice server,
                                struct destination_events *marks_out) MUST_USE;

struct destination_edu {
    uint64_t order; /* a reserved position: ascending and used once */
    struct slice json;
};
/* The oldest ones. */
struct err hs_destination_edus(struct hs *hs, struct ctx *ctx, struct slice server, size_t limit,
                               struct destination_edu **edus_out, size_t *count_out) MUST_USE;

struct destination_txn {
    uint64_t id; /* its decimal digits are the transaction id */
    int64_t ts_ms;
    struct destination_events events;
    struct slice edus;      /* their bytes, with commas between */
    uint64_t edu_count;     /* in `edus` */
    const uint64_t *stored; /* orders of those that stand here as rows too */
    size_t stored_count;
};
struct err hs_destination_txn(struct hs *hs, struct ctx *ctx, struct slice server,
                              struct destination_txn *txn_out, bool *found_out) MUST_USE;

/* An event or EDU that the server did not take. */
struct destination_refused {
    int64_t ts_ms;
    struct slice what; /* event id, or the type of an EDU */
    struct slice room_id, reason;
};
/* Newest first. */
struct err hs_destination_refusals(struct hs *hs, struct ctx *ctx, struct slice server,
                                   struct destination_refused **items_out,
                                   size_t *count_out) MUST_USE;

/* --- writing --- */
struct store_update *hs_destination_update(struct ctx *ctx, struct slice server);
void hs_destination_put_state(struct ctx *ctx, struct store_update *update,
                              const struct destination_state *state);
void hs_destination_put_mark(struct ctx *ctx, struct store_update *update,
                             const struct destination_event *mark);
void hs_destination_delete_marks(struct store_update *update);
void hs_destination_put_edu(struct ctx *ctx, struct store_update *update,
                            const struct destination_edu *edu);
void hs_destination_put_txn(struct ctx *ctx, struct store_update *update,
                            const struct destination_txn *txn);
/* Also deletes the rows of the EDUs in it. */
void hs_destination_delete_txn(struct ctx *ctx, struct store_update *update,
                               const struct destination_txn *txn);
/* Without the EDUs' rows: they will go into another transaction. */
void hs_destination_give_up_txn(struct store_update *update);
/* Adds a refusal under a fresh order and drops the oldest ones beyond the maximum. */
struct err hs_destination_put_refused(struct hs *hs, struct ctx *ctx, struct slice server,
                                      struct store_update *update,
                                      const struct destination_refused *refused) MUST_USE;

/* --- the whole --- */
/* A number that is used once and grows, across restarts. */
uint64_t hs_outbound_order(struct hs *hs);

/* What the running server knows beyond the rows, for operators. */
struct destination_live {
    struct slice state; /* idle, ready, sending, waiting; empty = not in memory */
    size_t events, edus;
};
struct hs_outbound {
    void (*live)(struct hs *hs, struct slice server, struct destination_live *live_out);
    /* Tries again at once; empty = all. How many were waiting. */
    size_t (*retry)(struct hs *hs, struct slice server);
};

/* What is known of a destination, for operators: state, waiting events and EDUs, refusals. */
struct destination_waiting {
    size_t rooms, edus, txn_events, txn_edus;
    bool has_txn;
};
struct err hs_destination_waiting(struct hs *hs, struct ctx *ctx, struct slice server,
                                  const struct destination_state *state,
                                  struct destination_waiting *waiting_out) MUST_USE;
