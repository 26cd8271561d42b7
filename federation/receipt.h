/* The receipt checks: from a PDU as another server sent it to an event in the room's log, or to the
 * step that refused it. Spec: server-server, "Checks performed on receipt of a PDU". */
#pragma once
#include "federation/inbound.h"
#include "spec/limits.h"

enum receipt_step {
    RECEIPT_NONE,
#define STEP(NAME, name, what) RECEIPT_##NAME,
#include "federation/receipt.def"
#undef STEP
    RECEIPT_STEPS
};
const char *receipt_step_name(enum receipt_step step);
/* Names the values of the metric; before threads start. */
void receipt_name_stats(struct stats *stats);

struct receipt {
    struct fed *fed;
    struct hs *hs;
    struct ctx *ctx;
    struct slice origin; /* who sent it */
};

/* One PDU on its way. */
struct received {
    struct slice event_id; /* as far as it could be told; else empty */
    struct room *room;
    struct event event;     /* checked, once the first steps are through */
    enum receipt_step step; /* that refused it */
    struct err err;         /* its public text */
    bool waits;             /* lacks events that it cites: `missing` */
    bool is_outside;        /* of a room that this server is not in: the end of an invite */
    struct intake_report report;
};

/* The steps that may need the network (keys) and change nothing, for all PDUs at once: up to the
 * signatures. Refusals stand in each; errors are of this server's own making, or ERR_WAITS. */
struct err receipt_check(const struct receipt *receipt, const struct json *pdus,
                         struct received *received_out) MUST_USE;
/* The rest of the steps for a PDU that got through: into the room's log. */
struct err receipt_take(const struct receipt *receipt, struct received *received) MUST_USE;
/* Writes down what a report says. */
void receipt_settle(const struct receipt *receipt, struct received *received);
/* Refuses: notes the step, counts it and logs it. */
void receipt_refuse(const struct receipt *receipt, struct received *received,
                    enum receipt_step step, struct err err);
