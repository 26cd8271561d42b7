/* Reports of users about events, rooms and users: kept for the operator, who reads and dismisses
 * them (admin operations reports/...). Spec: client-server, "Reporting Content". */
#pragma once
#include "homeserver/service/hs.h"

enum { REPORT_REASON_BYTES_MAX = 4096 };

struct report {
    uint64_t number; /* given by hs_report_add */
    int64_t received_ms;
    struct slice reporter;                   /* user id */
    struct slice room_id, event_id, user_id; /* what is reported; empty = not of this kind */
    struct slice reason;                     /* cut to REPORT_REASON_BYTES_MAX */
};
struct reports {
    struct report *items; /* oldest first */
    size_t count;
};

struct err hs_report_add(struct hs *hs, struct ctx *ctx, const struct report *report) MUST_USE;
/* Those with number >= from. */
struct err hs_reports_list(struct hs *hs, struct ctx *ctx, uint64_t from, size_t limit,
                           struct reports *reports_out) MUST_USE;
/* M_NOT_FOUND. */
struct err hs_report_delete(struct hs *hs, struct ctx *ctx, uint64_t number) MUST_USE;
