/* Delayed events as they are stored: one record each, indexed by user, by transaction and, once
 * they are final, by when. All rows stand in (STORE_SERVER, "delayed"), so that each change of one
 * is one atomic update. Changes of one user's run in that account's lane.
 * Spec: spec/delayed-events.md. */
#pragma once
#include "homeserver/service/hs.h"

enum delayed_state {
    DELAYED_SCHEDULED,
    DELAYED_SENT,
    DELAYED_FAILED, /* the error is kept */
    DELAYED_CANCELLED,
};

struct delayed_event {
    struct slice delay_id;
    enum delayed_state state;
    uint64_t user;
    struct slice user_id;
    struct slice room_id;
    struct slice type;
    struct slice state_key; /* ptr NULL = a message */
    struct slice content;   /* JSON */
    int64_t delay_ms;
    int64_t scheduled_ms;     /* wall time of scheduling, or of the last restart */
    int64_t origin_server_ts; /* as an application service asked; 0 = when it is sent */
    bool is_appservice;       /* no rate limits */
    int64_t finalised_ms;
    struct slice event_id; /* when sent; may be empty when nothing had to change */
    struct slice error;    /* when failed: {"errcode", "error"} */
};
struct delayed_events {
    struct delayed_event *items;
    size_t count;
};

/* Which request it was, so that the same one again gives the same answer. */
struct delayed_txn {
    struct slice device_id, txn_id; /* txn_id ptr NULL = none */
};

struct err delayed_row_find(struct hs *hs, struct ctx *ctx, struct slice delay_id,
                            struct delayed_event *event_out, bool *found_out) MUST_USE;
/* The delay id that the transaction was answered with. */
struct err delayed_txn_find(struct hs *hs, struct ctx *ctx, const struct delayed_event *event,
                            const struct delayed_txn *txn, struct slice *delay_id_out,
                            bool *found_out) MUST_USE;
/* Those of a user that are scheduled, by when they are due. */
struct err delayed_rows_of_user(struct hs *hs, struct ctx *ctx, uint64_t user,
                                struct delayed_events *events_out) MUST_USE;
/* All that are scheduled, without their contents. */
struct err delayed_rows_scheduled(struct hs *hs, struct ctx *ctx,
                                  struct delayed_events *events_out) MUST_USE;
/* A new one. */
struct err delayed_row_add(struct hs *hs, struct ctx *ctx, const struct delayed_event *event,
                           const struct delayed_txn *txn) MUST_USE;
/* Another time. */
struct err delayed_row_restart(struct hs *hs, struct ctx *ctx,
                               const struct delayed_event *event) MUST_USE;
/* It has become final; drops those of the user that have been so for too long, or are too many. */
struct err delayed_row_finalise(struct hs *hs, struct ctx *ctx,
                                const struct delayed_event *event) MUST_USE;
