/* Taking in events that other servers made. The caller (federation/) has parsed the event, checked
 * its signatures and replaced it by its redacted form when the content hash did not fit; it fetches
 * what a report says is missing and calls again. Everything else of the receipt checks happens
 * here: auth events, state before, current state, resolution of forks, the append and what derives
 * from it. Each call enters the room's lane for its length and never waits for the network.
 *
 * An event's number does not say how it got here; its flags do: an outlier is stored (in the auth
 * chain or state of others) without a place in the room's graph, a rejected event is kept so that
 * nothing is built on it, a soft-failed one takes part in state resolution only.
 * Spec: server-server, "Checks performed on receipt of a PDU", "Soft failure", "Rejection". */
#pragma once
#include "homeserver/service/compose.h"

enum intake_result {
    INTAKE_ACCEPTED,
    INTAKE_KNOWN, /* was here already, with a place in the graph */
    INTAKE_SOFT_FAILED,
    INTAKE_REJECTED,
    INTAKE_MISSING_AUTH, /* stored nothing: `missing` lists auth events (or events of `state`) that
                            are not here */
    INTAKE_MISSING_PREV, /* stored nothing: `missing` lists prev events without a place here */
};

/* The steps, in order; a report names the one that refused. */
enum intake_step {
    INTAKE_STEP_NONE,
    INTAKE_STEP_AUTH_EVENTS,   /* the selection itself, and rules by the cited events */
    INTAKE_STEP_STATE_BEFORE,  /* rules by the state before the event */
    INTAKE_STEP_CURRENT_STATE, /* rules by the room's current state: soft failure */
    INTAKE_STEP_POLICY,        /* the policy server's signature is missing: soft failure */
};
const char *intake_step_name(enum intake_step step);
struct stats;
/* Names the counters of refusals by step; at start. */
void hs_intake_count(struct stats *stats);

struct intake {
    const struct event *event;
    /* The whole state before the event, by ids of events that are all stored here (outliers count),
     * for an event whose prev_events are not all here; NULL: taken from its prev_events. The event
     * then comes after a gap, and /sync says so. */
    const struct event_id *state;
    size_t state_count;
    bool policy_failed; /* the room has a policy server and the event lacks its signature */
    /* The state is not whole yet (a partial join): members that it lacks are taken from the events
     * that this one cites, and hs_room_complete judges it again. Rooms that are partial here need
     * not say so. */
    bool state_is_partial;
    /* Handed to this server alone (send_join and the like): it tells the other servers of the room.
     */
    bool is_forwarded;
};

struct intake_report {
    enum intake_result result;
    enum intake_step step;
    struct slice reason; /* public text of a refusal */
    struct hs_sent sent;
    struct event_id *missing;
    size_t missing_count;
};

/* A live event: into the timeline and the graph of a room that this server is in (M_NOT_FOUND when
 * nothing is here of it). An event that was rejected is judged anew when it comes again; one that
 * has no place yet (an outlier) gets it. Many forward extremities may make a local user send an
 * event of no meaning in the same call. */
struct err hs_intake_event(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct intake *intake, struct intake_report *report_out) MUST_USE;
/* An event of an auth chain or of a state: stored as an outlier after the check by its own auth
 * events, which must be here. Events already here stay as they are. Any order of calls in which
 * auth events come first. */
struct err hs_intake_outlier(struct hs *hs, struct ctx *ctx, struct room *room,
                             const struct event *event, struct intake_report *report_out) MUST_USE;

/* Older history, oldest first and without gaps among themselves, placed right below the timeline
 * event `before`: downwards from before - 1, over numbers that are free. So that there is room in
 * the middle of a timeline too, an event after a gap (a join again included) leaves
 * INTAKE_GAP_NUMBERS numbers unused below itself; below the lowest event numbers go down without
 * end. What finds no free number any more is left out. `state` is the whole state before the first
 * event; M_NOT_FOUND when some of it is not here. Events that fail are left out, so their auth
 * events must be here; those known with a place are skipped, outliers get one. */
enum { INTAKE_GAP_NUMBERS = 1 << 20 };
struct intake_history {
    const struct event *const *events;
    size_t count;
    int64_t before; /* 0 = the lowest event of the timeline */
    const struct event_id *state;
    size_t state_count;
};
struct err hs_intake_history(struct hs *hs, struct ctx *ctx, struct room *room,
                             const struct intake_history *history, size_t *added_out) MUST_USE;
/* Prev events of the oldest events here (or of events after a gap) that are not here themselves,
 * with the number of an event that cites each. */
struct intake_edge {
    struct event_id missing;
    int64_t cited_by;
    int64_t depth; /* of the citing event */
};
struct err hs_intake_edges(struct hs *hs, struct ctx *ctx, struct room *room,
                           struct intake_edge **edges_out, size_t *count_out) MUST_USE;

/* A room that this server joins through another one: makes the room if it is new, stores the auth
 * chain and the state before the join (already checked for signatures; bad ones among them are left
 * out), and appends the join as the timeline's event after a gap. Streams: begin, any number of
 * adds in any order, then finish, which decides. */
struct intake_join;
struct intake_join_start {
    struct slice room_id, version;
    const struct event *join;    /* signed, as the resident server returned it */
    bool is_partial;             /* state lacks members (omit_members) */
    const struct slice *servers; /* of a partial room: those in it */
    size_t server_count;
};
struct err hs_intake_join_begin(struct hs *hs, struct ctx *ctx,
                                const struct intake_join_start *start,
                                struct intake_join **join_out) MUST_USE;
enum intake_join_role { INTAKE_JOIN_AUTH, INTAKE_JOIN_STATE };
struct err hs_intake_join_add(struct intake_join *join, struct ctx *ctx, enum intake_join_role role,
                              const struct event *event) MUST_USE;
/* M_FORBIDDEN when the create event is missing or does not fit, or the join is not allowed. Frees
 * the join in every case. */
struct err hs_intake_join_finish(struct intake_join **join, struct ctx *ctx, struct room **room_out,
                                 struct hs_sent *sent_out) MUST_USE;
void hs_intake_join_abort(struct intake_join **join);

/* Partial rooms. */
bool hs_room_is_partial(struct room *room);
/* The position at which a room that was partial became whole; 0 = it never was partial. */
uint64_t hs_room_whole_pos(struct room *room);
/* Servers told by the resident server while the room is partial; whole rooms: of its members. In
 * the arena, sorted, without this server. */
struct err hs_room_servers(struct hs *hs, struct ctx *ctx, struct room *room,
                           struct slice **servers_out, size_t *count_out) MUST_USE;
/* The whole state before the join is here now: replaces the partial state, judges the events
 * accepted meanwhile again, and ends the partial time. M_NOT_FOUND when an event is missing. Memory
 * grows by 24 bytes for each event of the state. */
struct intake_whole {
    const int64_t *numbers; /* of the state's events, ascending */
    size_t count;
    int64_t on_top;              /* a state event that comes after them all; 0 = none */
    const struct slice *servers; /* that were thought to be in the room, for room_rest */
    size_t server_count;
};
struct err hs_room_complete(struct hs *hs, struct ctx *ctx, struct room *room,
                            const struct intake_whole *whole) MUST_USE;
/* What is left to do when a room has become whole. It is kept with the room, which stays among
 * those of hs_rooms_partial, until hs_room_rest_done: a restart does it again from its start. */
struct room_rest {
    int64_t apart;   /* events with numbers from here on that failed are to be taken again */
    uint64_t before; /* root of the room's state as it was */
    const struct slice *servers;
    size_t server_count;
};
struct err hs_room_rest(struct hs *hs, struct ctx *ctx, struct room *room,
                        struct room_rest *rest_out, bool *found_out) MUST_USE;
/* The first part of it; hs_room_complete has done it already unless it was interrupted. */
struct err hs_room_take_again(struct hs *hs, struct ctx *ctx, struct room *room) MUST_USE;
struct err hs_room_rest_done(struct hs *hs, struct ctx *ctx, struct room *room) MUST_USE;
/* Rooms that are partial now, or became whole and have something left to do, for resuming after a
 * restart: numbers, ascending. */
struct err hs_rooms_partial(struct hs *hs, struct ctx *ctx, uint64_t **rooms_out,
                            size_t *count_out) MUST_USE;

/* An invite or knock of a local user in a room that this server is not in (or not any more): kept
 * in the user's list of rooms with its stripped state. membership INVITE or KNOCK. */
struct intake_invite {
    struct slice room_id, version;
    const struct event *event; /* the member event, with this server's signature */
    const struct json
        *room_state; /* array of stripped events (or whole ones, which are stripped) */
};
struct err hs_intake_invite(struct hs *hs, struct ctx *ctx,
                            const struct intake_invite *invite) MUST_USE;
/* The end of such an invite or knock: the user's row says leave (or ban). `event` may be NULL when
 * no server took the leave. */
struct err hs_intake_uninvite(struct hs *hs, struct ctx *ctx, struct slice room_id, uint64_t user,
                              const struct event *event) MUST_USE;

/* Graph reading for other servers. */
/* The state before an event as entries (key number -> event number) is stored_event.state_before;
 * its auth chain, without the events themselves, in the arena, each once (with the create event in
 * room versions whose room ids imply it): */
struct err hs_auth_chain(struct hs *hs, struct ctx *ctx, struct room *room,
                         const struct event_id *from, size_t count, struct event_id **chain_out,
                         size_t *chain_count_out) MUST_USE;
/* Present forward extremities. */
struct err hs_room_extremities(struct hs *hs, struct ctx *ctx, struct room *room,
                               struct event_id **ids_out, size_t *count_out) MUST_USE;
