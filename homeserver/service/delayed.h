/* Events that are sent later: scheduled by a client, sent when their time has come unless they are
 * cancelled or put off before. They outlive restarts; what was due meanwhile is sent at the start,
 * in order. Each is sent once: its delay id is its transaction.
 *
 * In memory stand the times alone. One thread waits for the next; sending is work of the waiting
 * pool, one event of a room at a time. Spec: spec/delayed-events.md. */
#pragma once
#include "homeserver/service/delayed_rows.h"

struct hs_delayed;

/* The device of which delayed events are the sends, as events remember it. */
#define DELAYED_DEVICE                                                                             \
    LIT("\x01"                                                                                     \
        "delayed")

struct hs_delayed *hs_delayed_new(struct hs *hs);
void hs_delayed_free(struct hs_delayed **delayed);
/* Reads what is scheduled and starts the thread. */
struct err hs_delayed_start(struct hs *hs, struct ctx *ctx) MUST_USE;
/* No thread any more, and no sending begins; before the pools are joined. */
void hs_delayed_stop(struct hs *hs);
/* Reads what is scheduled without starting the thread; sends what is due now and returns when that
 * is done (tests). */
struct err hs_delayed_load(struct hs *hs, struct ctx *ctx) MUST_USE;
void hs_delayed_run(struct hs *hs);

/* Schedules one: `event` says all up to `is_appservice` but the id and the times. M_FORBIDDEN when
 * the delay is longer than allowed or nothing may be scheduled; M_LIMIT_EXCEEDED when the user has
 * too many (retry_after_ms_out: until the next of them is due). */
struct delayed_wish {
    struct delayed_event event;
    struct delayed_txn txn;
    int64_t *retry_after_ms_out;
};
struct err hs_delayed_schedule(struct hs *hs, struct ctx *ctx, struct delayed_wish *wish,
                               struct slice *delay_id_out) MUST_USE;
/* M_NOT_FOUND for unknown ids, M_UNKNOWN (409) when it has become final otherwise; what is so
 * already is fine. In no lane. */
struct err hs_delayed_cancel(struct hs *hs, struct ctx *ctx, struct slice delay_id) MUST_USE;
struct err hs_delayed_restart(struct hs *hs, struct ctx *ctx, struct slice delay_id) MUST_USE;
/* Sends it now; it stays scheduled when that fails. ERR_WAITS as remote.h has it. */
struct err hs_delayed_send(struct hs *hs, struct ctx *ctx, struct slice delay_id) MUST_USE;
