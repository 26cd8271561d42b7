#include "federation/missing.h"

#include "federation/fed_priv.h"
#include "federation/policy.h"

#include "homeserver/base/map.h"

enum {
    SERVERS_ASKED_MAX = 4,
    MISSING_LIMIT = 20,
    GAPS_MAX = 10,             /* states fetched for one event */
    AUTH_ROUNDS_MAX = 3,       /* of intake and fetch */
    AUTH_EVENTS_FETCHED = 200, /* one by one, of one event */
    STATE_EVENTS_FETCHED = 500,
    STATE_SHARE = 10, /* when more than one in so many is unknown, the state is asked for whole */
};

struct fill {
    struct fed *fed;
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    struct slice origin;
    bool origin_is_alive;
    bool *answered; /* by the server that is asked now */
    struct slice *servers;
    size_t server_count;
    size_t gaps; /* states fetched */
};

static struct pull pull_from(const struct fill *fill, struct slice server)
{
    return (struct pull){.fed = fill->fed,
                         .hs = fill->hs,
                         .ctx = fill->ctx,
                         .room = fill->room,
                         .server = server,
                         .is_alive = fill->origin_is_alive && slice_eq(server, fill->origin),
                         .answered_out = fill->answered};
}

static bool is_over(const struct ctx *ctx)
{
    return ctx->deadline_mono_ms && now_mono_ms(ctx->now) >= ctx->deadline_mono_ms;
}

/* Errors of one server are no reason to stop: another may know better. */
static bool is_ours(struct err err)
{
    return err.code == ERR_IO || err.code == ERR_CANCELLED || err.code == ERR_WAITS ||
           err.code == ERR_CORRUPT;
}

/* --- authorisation --- */
static struct err store_outliers(const struct pull *pull, const struct pulled *events)
{
    for (size_t i = 0; i < events->count; i++) {
        struct intake_report report;
        TRY(hs_intake_outlier(pull->hs, pull->ctx, pull->room, events->items[i], &report));
    }
    return OK;
}

static struct err is_here(const struct pull *pull, struct event_id id, bool *here_out)
{
    uint64_t room = 0;
    int64_t number = 0;
    TRY(hs_event_locate(pull->hs, pull->ctx, id.s, &room, &number, here_out));
    *here_out = *here_out && room == hs_room_info(pull->room).number;
    return OK;
}

/* Fetches events one by one, each with what it cites for its authorisation: an explicit list with
 * an end, since what is asked for comes from others. */
struct chase {
    const struct pull *pull;
    struct map *seen;
    struct event_id *wanted;
    size_t wanted_count, wanted_max;
    struct pulled found;
    bool has_absent;
};

static struct err want(struct chase *chase, struct event_id id)
{
    uint64_t known = 0;
    bool here = false;
    if (map_get(chase->seen, id.s, &known)) {
        return OK;
    }
    TRY(is_here(chase->pull, id, &here));
    if (here) {
        return OK;
    }
    map_set(chase->seen, id.s, 1);
    if (chase->wanted_count == chase->wanted_max) {
        chase->has_absent = true;
        return OK;
    }
    chase->wanted[chase->wanted_count++] = id;
    return OK;
}

static struct err chase_on(struct chase *chase)
{
    for (size_t i = 0; i < chase->wanted_count && !is_over(chase->pull->ctx); i++) {
        struct event *event = arena_alloc(chase->pull->ctx->arena, sizeof *event);
        enum pull_result result = PULL_ABSENT;
        TRY(pull_event(chase->pull, chase->wanted[i], event, &result));
        chase->has_absent = chase->has_absent || result == PULL_ABSENT;
        if (result != PULL_GOOD) {
            continue;
        }
        chase->found.items[chase->found.count++] = event;
        for (size_t k = 0; k < event->auth_event_count; k++) {
            TRY(want(chase, event->auth_events[k]));
        }
    }
    return OK;
}

static struct err run_chase(const struct pull *pull, const struct event_id *ids, size_t count,
                            size_t max, bool *has_absent_out)
{
    struct chase chase = {.pull = pull, .seen = map_new(), .wanted_max = max};
    struct err err = OK;
    chase.wanted = arena_array(pull->ctx->arena, max, sizeof *chase.wanted);
    chase.found.items = arena_array(pull->ctx->arena, max, sizeof *chase.found.items);
    for (size_t i = 0; i < count && err.code == 0; i++) {
        err = want(&chase, ids[i]);
    }
    err = err.code == 0 ? chase_on(&chase) : err;
    map_free(&chase.seen);
    *has_absent_out = chase.has_absent;
    TRY(err);
    fed_graph_order(pull->ctx, chase.found.items, chase.found.count, GRAPH_AUTH);
    return store_outliers(pull, &chase.found);
}

struct err fed_missing_auth(const struct pull *pull, const struct event *event)
{
    struct pulled chain;
    bool has_absent = false;
    TRY(pull_event_auth(pull, event->id, &chain));
    TRY(store_outliers(pull, &chain));
    return run_chase(pull, event->auth_events, event->auth_event_count, AUTH_EVENTS_FETCHED,
                     &has_absent);
}

/* Intake, with the auth events fetched that it lacks. Without `server` nothing is fetched. */
static struct err take(struct fill *fill, const struct intake *intake, struct slice server,
                       struct intake_report *report_out)
{
    size_t missing = 0;
    for (int round = 0;; round++) {
        TRY(hs_intake_event(fill->hs, fill->ctx, fill->room, intake, report_out));
        bool stuck = round && report_out->missing_count >= missing;
        if (report_out->result != INTAKE_MISSING_AUTH || stuck || round == AUTH_ROUNDS_MAX ||
            is_over(fill->ctx)) {
            return OK;
        }
        missing = report_out->missing_count;
        struct pull pull = pull_from(fill, server);
        struct err err = fed_missing_auth(&pull, intake->event);
        if (err.code != 0 && is_ours(err)) {
            return err;
        }
    }
}

/* --- state --- */
static struct err list_unknown(const struct pull *pull, const struct pulled_ids *ids,
                               struct event_id **unknown_out, size_t *count_out)
{
    const struct event_id *lists[] = {ids->chain, ids->state};
    const size_t counts[] = {ids->chain_count, ids->state_count};
    *unknown_out = arena_array(pull->ctx->arena, counts[0] + counts[1] + 1, sizeof **unknown_out);
    *count_out = 0;
    for (size_t l = 0; l < 2; l++) {
        for (size_t i = 0; i < counts[l]; i++) {
            bool here = false;
            TRY(is_here(pull, lists[l][i], &here));
            if (!here) {
                (*unknown_out)[(*count_out)++] = lists[l][i];
            }
        }
    }
    return OK;
}

static struct err fetch_unknown(const struct pull *pull, struct event_id id,
                                const struct pulled_ids *ids, bool *has_absent_out)
{
    struct event_id *unknown = NULL;
    size_t count = 0;
    TRY(list_unknown(pull, ids, &unknown, &count));
    if (count * STATE_SHARE > ids->state_count + ids->chain_count) {
        struct pulled whole;
        struct err err = pull_state(pull, id, &whole);
        if (err.code != 0 && is_ours(err)) {
            return err;
        }
        if (err.code == 0) {
            TRY(store_outliers(pull, &whole));
            TRY(list_unknown(pull, ids, &unknown, &count));
        }
    }
    *has_absent_out = false;
    if (count == 0) {
        return OK;
    }
    return run_chase(pull, unknown, count, STATE_EVENTS_FETCHED, has_absent_out);
}

struct err fed_missing_state(const struct pull *pull, struct event_id id,
                             struct state_before *state_out)
{
    struct pulled_ids ids;
    bool has_absent = false;
    size_t kept = 0;
    *state_out = (struct state_before){0};
    TRY(pull_state_ids(pull, id, &ids));
    TRY(fetch_unknown(pull, id, &ids, &has_absent));
    /* An event that was fetched and did not hold is left out, as on every server that checks; one
     * that nobody gives would make this state another than that of the others. */
    for (size_t i = 0; i < ids.state_count; i++) {
        bool here = false;
        TRY(is_here(pull, ids.state[i], &here));
        if (here) {
            ids.state[kept++] = ids.state[i];
        }
    }
    state_out->ids = ids.state;
    state_out->count = kept;
    state_out->is_whole = kept > 0 && (kept == ids.state_count || !has_absent);
    return OK;
}

/* --- gaps --- */
/* prev_events without a place here. */
static struct err find_missing(const struct fill *fill, const struct event *event,
                               struct event_id **missing_out, size_t *count_out)
{
    struct event_id *missing =
        arena_array(fill->ctx->arena, event->prev_event_count + 1, sizeof *missing);
    *count_out = 0;
    for (size_t i = 0; i < event->prev_event_count; i++) {
        struct stored_event stored;
        bool found = false;
        TRY(hs_event_find(fill->hs, fill->ctx, fill->room, event->prev_events[i].s, &stored,
                          &found));
        if (!found || (stored.flags & EVENT_OUTLIER)) {
            missing[(*count_out)++] = event->prev_events[i];
        }
    }
    *missing_out = missing;
    return OK;
}

/* Takes in one missing event with the state before it, as a server tells: after it the events that
 * cite it have a state. Only events that were fetched get here, never one that was sent to us: its
 * sender must be able to give what it cites. */
static struct err take_after_gap(struct fill *fill, struct slice server, struct event_id id)
{
    struct pull pull = pull_from(fill, server);
    struct intake_report report;
    struct event event;
    struct state_before state;
    enum pull_result result = PULL_ABSENT;
    if (fill->gaps++ >= GAPS_MAX || is_over(fill->ctx)) {
        return OK;
    }
    TRY(pull_event(&pull, id, &event, &result));
    if (result != PULL_GOOD) {
        return OK;
    }
    TRY(fed_missing_state(&pull, id, &state));
    if (!state.is_whole) {
        log_info(fill->ctx->log, "state_not_whole", .dest = server, .event = id.s);
        return OK;
    }
    struct intake intake = {.event = &event, .state = state.ids, .state_count = state.count};
    return take(fill, &intake, server, &report);
}

static struct err close_gap(struct fill *fill, struct slice server, const struct event *event)
{
    struct event_id *missing = NULL;
    size_t count = 0;
    TRY(find_missing(fill, event, &missing, &count));
    for (size_t i = 0; i < count; i++) {
        struct err err = take_after_gap(fill, server, missing[i]);
        if (err.code != 0 && is_ours(err)) {
            return err;
        }
    }
    return OK;
}

/* Intake once the prev events are here: before that, nothing is asked for its sake. */
static struct err take_next(struct fill *fill, struct slice server, const struct event *given,
                            struct intake_report *report_out)
{
    struct event event = *given;
    struct intake intake = {.event = &event};
    struct event_id *missing = NULL;
    size_t count = 0;
    TRY(find_missing(fill, &event, &missing, &count));
    if (count) {
        report_out->result = INTAKE_MISSING_PREV;
        return OK;
    }
    TRY(fed_policy_check(fill->fed, fill->ctx, fill->room, &event, &intake.policy_failed));
    return take(fill, &intake, server, report_out);
}

/* What was fetched, oldest first: those that reach back to what is here need nothing else. */
static struct err take_fetched(struct fill *fill, struct slice server, const struct pulled *events)
{
    for (size_t i = 0; i < events->count; i++) {
        struct intake_report report = {0};
        TRY(close_gap(fill, server, events->items[i]));
        TRY(take_next(fill, server, events->items[i], &report));
    }
    return OK;
}

static struct err ask_server(struct fill *fill, struct slice server, const struct event *event)
{
    struct pull pull = pull_from(fill, server);
    struct pull_missing want = {.latest = event, .limit = MISSING_LIMIT};
    struct event_id *earliest = NULL;
    struct pulled events;
    TRY(hs_room_extremities(fill->hs, fill->ctx, fill->room, &earliest, &want.earliest_count));
    want.earliest = earliest;
    TRY(pull_missing(&pull, &want, &events));
    return take_fetched(fill, server, &events);
}

static bool is_missing(const struct intake_report *report)
{
    return report->result == INTAKE_MISSING_PREV || report->result == INTAKE_MISSING_AUTH;
}

/* The other server could not be reached or did not answer in time. */
static bool is_silence(struct err err)
{
    return err.code == ERR_UNAVAILABLE || err.code == ERR_TIMEOUT;
}

/* One server's part. *answered_out: it gave what it would give. */
static struct err try_server(struct fill *fill, struct slice server, const struct event *event,
                             struct intake_report *report, bool *answered_out)
{
    struct event_id *missing = NULL;
    size_t count = 0;
    struct err err = OK;
    fill->answered = answered_out;
    TRY(find_missing(fill, event, &missing, &count));
    if (count) {
        err = ask_server(fill, server, event);
    }
    if (err.code != 0 && is_ours(err)) {
        return err;
    }
    *answered_out = *answered_out || !is_silence(err) || !fed_peer_is_down(fill->fed, server, NULL);
    return take_next(fill, server, event, report);
}

struct err fed_missing_fill(struct fed *fed, struct ctx *ctx, const struct staged_event *staged,
                            struct staged_outcome *outcome_io)
{
    struct fill fill = {.fed = fed,
                        .hs = fed->hs,
                        .ctx = ctx,
                        .room = staged->room,
                        .origin = staged->origin,
                        .origin_is_alive = staged->is_new};
    struct fed_candidates candidates = {.first = staged->origin,
                                        .second = ids_user_domain(staged->event->sender).s,
                                        .max = SERVERS_ASKED_MAX};
    TRY(fed_servers_to_ask(fill.hs, ctx, staged->room, &candidates, &fill.servers,
                           &fill.server_count));
    for (size_t i = 0; i < fill.server_count && !is_over(ctx); i++) {
        bool answered = false;
        TRY(try_server(&fill, fill.servers[i], staged->event, &outcome_io->report, &answered));
        if (!is_missing(&outcome_io->report)) {
            return OK;
        }
        outcome_io->is_final =
            outcome_io->is_final || (answered && slice_eq(fill.servers[i], staged->origin));
    }
    return OK;
}
