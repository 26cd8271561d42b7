/* Live events of other servers: what is missing, the checks in their order, then the append. */
#include "homeserver/base/stats.h"
#include "homeserver/service/intake_priv.h"
#include "homeserver/service/memberships.h"
#include "homeserver/service/users.h"

struct taking {
    struct judging judging;
    const struct intake *in;
    struct intake_report *report;
    struct stored_event known; /* the event, if it is here without a place */
    bool is_known;
    bool is_again;   /* soft-failed ones are judged again too */
    uint64_t before; /* the state before the event */
};

/* --- the checks --- */

static struct err check_auth_events(struct taking *t, struct auth_verdict *verdict)
{
    return judging_by_cited(&t->judging, verdict);
}

static struct err check_state_before(struct taking *t, struct auth_verdict *verdict)
{
    t->judging.fill_members = t->in->state_is_partial || t->judging.room->is_partial;
    return judging_by_state(&t->judging, t->before, verdict);
}

static struct err check_current_state(struct taking *t, struct auth_verdict *verdict)
{
    if (t->before == t->judging.room->head.root) {
        return OK; /* judged by it already */
    }
    return judging_by_state(&t->judging, t->judging.room->head.root, verdict);
}

static struct err check_policy(struct taking *t, struct auth_verdict *verdict)
{
    if (t->in->policy_failed) {
        *verdict = (struct auth_verdict){.text = "the room's policy server has not signed it"};
    }
    return OK;
}

/* Spec: server-server, "Checks performed on receipt of a PDU": 4, 5, 6 and 7. */
static const struct {
    enum intake_step step;
    const char *name;
    struct err (*check)(struct taking *t, struct auth_verdict *verdict);
    enum intake_result refused;
} steps[] = {
    {INTAKE_STEP_AUTH_EVENTS, "auth_events", check_auth_events, INTAKE_REJECTED},
    {INTAKE_STEP_STATE_BEFORE, "state_before", check_state_before, INTAKE_REJECTED},
    {INTAKE_STEP_CURRENT_STATE, "current_state", check_current_state, INTAKE_SOFT_FAILED},
    {INTAKE_STEP_POLICY, "policy", check_policy, INTAKE_SOFT_FAILED},
};

const char *intake_step_name(enum intake_step step)
{
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        if (steps[i].step == step) {
            return steps[i].name;
        }
    }
    return "none";
}

void hs_intake_count(struct stats *stats)
{
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        stats_family_value(stats, STAT_intake_refused_total, steps[i].name);
    }
}

static struct err run_checks(struct taking *t)
{
    struct intake_report *report = t->report;
    report->result = INTAKE_ACCEPTED;
    for (size_t i = 0; i < COUNT_OF(steps) && report->result == INTAKE_ACCEPTED; i++) {
        struct auth_verdict verdict = {.allowed = true};
        TRY(steps[i].check(t, &verdict));
        if (!verdict.allowed) {
            report->result = steps[i].refused;
            report->step = steps[i].step;
            report->reason = judging_reason(t->judging.ctx, &verdict);
            stats_family_add(t->judging.hs->stats, STAT_intake_refused_total, i, 1);
        }
    }
    return OK;
}

/* --- the state before --- */

static bool has_place(const struct stored_event *event)
{
    return !(event->flags & EVENT_OUTLIER);
}

/* The state after each prev event; those without a place are missing, and one whose state is not
 * known says nothing. */
static struct err load_prev(struct taking *t, uint64_t *roots, size_t *count_out)
{
    const struct judging *j = &t->judging;
    struct intake_report *report = t->report;
    report->missing =
        arena_array(j->ctx->arena, j->event->prev_event_count + 1, sizeof *report->missing);
    for (size_t i = 0; i < j->event->prev_event_count; i++) {
        struct stored_event prev;
        bool found = false;
        TRY(hs_event_find(j->hs, j->ctx, j->room, j->event->prev_events[i].s, &prev, &found));
        if (!found || !has_place(&prev)) {
            report->missing[report->missing_count++] = j->event->prev_events[i];
            continue;
        }
        if (!room_state_is_known(j->room, &prev)) {
            continue;
        }
        /* Spec: server-server, "Rejection": the state after a rejected event is that before it. */
        bool rejected = (prev.flags & EVENT_REJECTED) != 0;
        roots[(*count_out)++] = rejected ? prev.state_before : prev.state_after;
    }
    return OK;
}

static struct err resolve_before(struct taking *t)
{
    const struct judging *j = &t->judging;
    uint64_t *roots = arena_array(j->ctx->arena, j->event->prev_event_count + 1, sizeof *roots);
    size_t count = 0;
    TRY(load_prev(t, roots, &count));
    if (t->report->missing_count) {
        t->report->result = INTAKE_MISSING_PREV;
        return OK;
    }
    if (count == 0) { /* the best that is known */
        roots[count++] = j->room->head.root;
    }
    struct room_states states = {.roots = roots, .count = count};
    return room_resolve(j->hs, j->ctx, j->room, &states, &t->before);
}

static struct err find_before(struct taking *t)
{
    const struct judging *j = &t->judging;
    struct intake_report *report = t->report;
    if (!t->in->state) {
        return resolve_before(t);
    }
    struct state_wanted wanted = {t->in->state, t->in->state_count};
    TRY(intake_state_of(j->hs, j->ctx, j->room, wanted, &t->before, &report->missing,
                        &report->missing_count));
    report->result = report->missing_count ? INTAKE_MISSING_AUTH : report->result;
    return OK;
}

/* --- storing --- */

static struct err keep_apart(struct taking *t)
{
    struct judging *j = &t->judging;
    struct apart_rows rows;
    bool rejected = t->report->result == INTAKE_REJECTED;
    uint32_t flags = rejected ? EVENT_REJECTED : EVENT_SOFT_FAILED;
    struct apart apart = {.event = j->event,
                          .flags = flags | (j->room->is_partial ? EVENT_PARTIAL : 0),
                          .number = t->is_known ? t->known.number : 0,
                          .state_before = t->before};
    if (t->is_known && t->known.flags & flags && !(t->known.flags & EVENT_OUTLIER)) {
        return OK; /* again, and nothing has changed */
    }
    apart_rows_begin(j->ctx, j->room, &rows);
    TRY(apart_put(j->hs, j->ctx, j->room, &apart, &rows));
    return apart_write(j->hs, j->ctx, j->room, &rows);
}

struct err intake_append(struct hs *hs, struct ctx *ctx, struct room *room,
                         struct room_append *append, struct hs_sent *sent_out)
{
    append->is_foreign = true;
    append->has_before = true;
    TRY(hs_user_intern(hs, ctx, append->event->sender.s, &append->sender));
    room_state_cache_trim(room);
    return room_append(hs, ctx, room, append, sent_out);
}

static struct err store_judged(struct taking *t)
{
    struct judging *j = &t->judging;
    if (t->report->result != INTAKE_ACCEPTED) {
        return keep_apart(t);
    }
    uint32_t flags = t->in->state ? EVENT_AFTER_GAP : 0;
    struct room_append append = {.event = j->event,
                                 .flags = flags | (t->in->is_forwarded ? EVENT_FORWARD : 0),
                                 .state_before = t->before,
                                 .adopted_from = t->is_known ? t->known.number : 0};
    return intake_append(j->hs, j->ctx, j->room, &append, &t->report->sent);
}

/* --- the whole --- */

static void refuse_format(struct taking *t, struct slice reason)
{
    t->report->result = INTAKE_REJECTED;
    t->report->step = INTAKE_STEP_AUTH_EVENTS;
    t->report->reason = reason;
}

/* What makes an event no event of this room: nothing of it is kept. */
static bool is_strange(struct taking *t)
{
    const struct event *event = t->judging.event;
    if (!slice_eq(event->room_id.s, hs_room_info(t->judging.room).room_id)) {
        refuse_format(t, LIT("The event is of another room."));
        return true;
    }
    if (event->prev_event_count == 0) {
        refuse_format(t, LIT("A room has one event without prev_events, its first."));
        return true;
    }
    struct err err = event_check_reference_counts(event);
    if (err.code != 0) {
        refuse_format(t, slice_of(err.text));
    }
    return err.code != 0;
}

/* Whether there is nothing to do. Rejected events are judged again: what was missing or wrong
 * around them may have come. */
static struct err find_known(struct taking *t, bool *done_out)
{
    const struct judging *j = &t->judging;
    uint64_t room = 0;
    int64_t number = 0;
    bool found = false;
    *done_out = false;
    TRY(hs_event_locate(j->hs, j->ctx, j->event->id.s, &room, &number, &found));
    if (!found) {
        return OK;
    }
    if (room != j->room->number) {
        refuse_format(t, LIT("An event of another room has this id."));
        *done_out = true;
        return OK;
    }
    TRY(hs_event_load(j->hs, j->ctx, j->room, number, &t->known, &t->is_known));
    uint32_t open = EVENT_OUTLIER | EVENT_REJECTED | (t->is_again ? EVENT_SOFT_FAILED : 0u);
    *done_out = t->is_known && !(t->known.flags & open);
    if (*done_out) {
        t->report->result = INTAKE_KNOWN;
        t->report->sent = (struct hs_sent){.event_id = j->event->id.s,
                                           .number = t->known.number,
                                           .pos = t->known.pos,
                                           .replayed = true};
    }
    return OK;
}

static struct err take_in_lane(struct taking *t)
{
    struct judging *j = &t->judging;
    struct intake_report *report = t->report;
    bool done = false;
    TRY(room_check_there(j->room));
    if (j->room->head.number == 0) {
        return err_public(ERR_M_NOT_FOUND, "This server is not in the room.");
    }
    TRY(find_known(t, &done));
    if (done || is_strange(t)) {
        return OK;
    }
    TRY(judging_load_cited(j, &report->missing, &report->missing_count));
    if (report->missing_count) {
        report->result = INTAKE_MISSING_AUTH;
        return OK;
    }
    TRY(find_before(t));
    if (report->missing_count) {
        return OK;
    }
    TRY(run_checks(t));
    TRY(store_judged(t));
    return report->result == INTAKE_ACCEPTED ? intake_tidy(j->hs, j->ctx, j->room) : OK;
}

struct err intake_again(struct hs *hs, struct ctx *ctx, struct room *room,
                        const struct intake *intake, struct intake_report *report_out)
{
    struct taking taking = {.judging = {.hs = hs, .ctx = ctx, .room = room, .event = intake->event},
                            .in = intake,
                            .report = report_out,
                            .is_again = true};
    *report_out = (struct intake_report){.result = INTAKE_ACCEPTED};
    return take_in_lane(&taking);
}

struct err hs_intake_event(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct intake *intake, struct intake_report *report_out)
{
    struct taking taking = {.judging = {.hs = hs, .ctx = ctx, .room = room, .event = intake->event},
                            .in = intake,
                            .report = report_out};
    uint64_t lane = lane_of_room(room->number);
    *report_out = (struct intake_report){.result = INTAKE_ACCEPTED};
    workers_lane_enter(hs->workers, lane);
    struct err err = take_in_lane(&taking);
    if (err.code != 0 && err.code < ERR_MATRIX_FIRST) {
        room_mark_broken(hs, room); /* numbers and keys may have been given out in memory alone */
    }
    workers_lane_leave(hs->workers, lane);
    TRY(err);
    bool is_taken = report_out->result == INTAKE_ACCEPTED || report_out->result == INTAKE_KNOWN;
    return is_taken ? hs_guests_check(hs, ctx, room, intake->event) : OK;
}
