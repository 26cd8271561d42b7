/* Shared by the files that implement intake.h. All of it runs in the room's lane. */
#pragma once
#include "homeserver/room/auth.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/room_priv.h"

/* An event to be judged, and what it is judged by. */
struct judging {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    const struct event *event;
    const struct event **cited; /* its auth_events that are here */
    size_t cited_count;
    uint64_t root;     /* the state that judging_allowed reads */
    bool fill_members; /* members that the state lacks are taken from the cited events */
    struct err err;    /* of reading */
};
/* Loads the auth_events; those that are not here are listed in the arena. */
struct err judging_load_cited(struct judging *judging, struct event_id **missing_out,
                              size_t *missing_count_out) MUST_USE;
/* By the cited events alone. */
struct err judging_by_cited(struct judging *judging, struct auth_verdict *verdict_out) MUST_USE;
/* By the state `root`. */
struct err judging_by_state(struct judging *judging, uint64_t root,
                            struct auth_verdict *verdict_out) MUST_USE;
struct slice judging_reason(struct ctx *ctx, const struct auth_verdict *verdict);

/* A snapshot of these events (those rejected are left out), as changes to the room's state. Ids
 * that are not here are listed in the arena, and the root is then 0. The snapshot is written. */
struct state_wanted {
    const struct event_id *ids;
    size_t count;
};
struct err intake_state_of(struct hs *hs, struct ctx *ctx, struct room *room,
                           struct state_wanted wanted, uint64_t *root_out,
                           struct event_id **missing_out, size_t *missing_count_out) MUST_USE;

/* M_NOT_FOUND when an event is not here. */
struct err intake_state_of_numbers(struct hs *hs, struct ctx *ctx, struct room *room,
                                   const struct intake_whole *whole, uint64_t *root_out) MUST_USE;
/* A snapshot of these entries, in any order, each key once. */
struct err intake_state_put(struct hs *hs, struct ctx *ctx, struct room *room,
                            struct state_entries entries, uint64_t *root_out) MUST_USE;

/* An event without a place in the timeline. */
struct apart {
    const struct event *event;
    uint32_t flags;
    int64_t number; /* that it has already; 0 = a new one */
    uint64_t state_before;
    enum { APART_CITES_NOW, APART_CITES_LATER } cites; /* LATER: what it cites may come after it */
};
/* Adds its rows to the updates; with EVENT_SOFT_FAILED it changes the state for what follows it. */
struct apart_rows {
    struct store_update *log, *ids, *derived, *state;
};
void apart_rows_begin(struct ctx *ctx, struct room *room, struct apart_rows *rows_out);
struct err apart_put(struct hs *hs, struct ctx *ctx, struct room *room, const struct apart *apart,
                     struct apart_rows *rows) MUST_USE;
/* Writes them; the room is loaded anew when that fails. */
struct err apart_write(struct hs *hs, struct ctx *ctx, struct room *room,
                       const struct apart_rows *rows) MUST_USE;

/* Appends an event that has been judged, dated as of another server. */
struct err intake_append(struct hs *hs, struct ctx *ctx, struct room *room,
                         struct room_append *append, struct hs_sent *sent_out) MUST_USE;
/* Takes an event that is here, and failed, once more. */
struct err intake_again(struct hs *hs, struct ctx *ctx, struct room *room,
                        const struct intake *intake, struct intake_report *report_out) MUST_USE;
/* Cites the forward extremities in events of no meaning when there are many. */
struct err intake_tidy(struct hs *hs, struct ctx *ctx, struct room *room) MUST_USE;
