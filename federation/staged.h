/* Events that were accepted from other servers but cite events that are not here: written down, in
 * order of arrival for each room, until what they cite has come or was fetched. Nothing of it is
 * lost with the process: fed_start goes on where it stopped.
 *
 * One job at a time sees to a room, one to the events of an origin, a few altogether; an event that
 * could not be completed is tried again later, a few times, and whenever its room moves on.
 * Object (STORE_ROOM_WAITING, be64 room): 's' be64 sequence -> origin, event id, canonical JSON.
 * Lock: staged.mutex, a leaf. Spec: server-server, "Checks performed on receipt of a PDU". */
#pragma once
#include "federation/inbound.h"

struct staged;

struct staged_event {
    struct room *room;
    struct slice origin;
    const struct event *event; /* checked up to its signatures */
    bool is_new;               /* the origin gave it just now */
};

/* What came of it. `report` as of hs_intake_event; when it still says that something is missing,
 * is_final tells that the origin was asked and did not give it: asking again is of no use. */
struct staged_outcome {
    struct intake_report report;
    bool is_final;
};
/* What is done to an event that waits. May wait for the network. */
typedef struct err (*staged_fill_fn)(struct fed *fed, struct ctx *ctx,
                                     const struct staged_event *event,
                                     struct staged_outcome *outcome_io);

struct staged *staged_new(struct fed *fed, staged_fill_fn fill);
/* Takes up what an earlier run left, and starts the clock for later attempts. */
struct err staged_start(struct staged *staged) MUST_USE;
/* No new jobs; those that run end soon, with the waiting pool. */
void staged_stop(struct staged *staged);
void staged_free(struct staged **staged);

/* ERR_LIMIT when too many wait already, in the room or of the origin. Twice the same is once. */
struct err staged_add(struct staged *staged, struct ctx *ctx,
                      const struct staged_event *event) MUST_USE;
/* The room has moved on: what waits in it is looked at again, without the network. Cheap when
 * nothing waits there. */
void staged_kick(struct staged *staged, uint64_t room);
/* Who waits until what was added to a room has been seen to for the first time. */
struct staged_wait {
    struct staged_wait *next;
    int passes;                             /* that are still to end */
    void (*wake)(struct staged_wait *wait); /* once, without a lock */
};
/* False when nothing of the room is under work: nobody is woken. */
bool staged_await(struct staged *staged, uint64_t room, struct staged_wait *wait);
/* Waits no more; false when `wake` is being called or has been. */
bool staged_withdraw(struct staged *staged, uint64_t room, struct staged_wait *wait);
/* Begins the attempts that are due. Called by the clock. */
void staged_tick(struct staged *staged);
/* Whether a room is being seen to, or will be at once. */
bool staged_is_busy(struct staged *staged);
/* Events that wait, all rooms together. */
size_t staged_count(struct staged *staged);
