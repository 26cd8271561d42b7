#include "federation/backfill.h"

#include "federation/fed_priv.h"
#include "federation/missing.h"
#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <pthread.h>
#include <time.h>

enum {
    RUNNING_MAX = 32,
    FAILURES_KEPT = 256,
    FAILURE_MS = 60 * 1000,
    SERVERS_ASKED_MAX = 4,
    EVENTS_MIN = 30, /* fetched at once: a request costs more than an event */
    EVENTS_MAX = 100,
    BUDGET_MS = 25 * 1000,
    REQUEST_MS = 10 * 1000,
    MISSING_MAX = 20,
};

struct failure {
    uint64_t room;
    int64_t number;
    int64_t until_ms; /* mono */
};

struct backfills {
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    uint64_t running[RUNNING_MAX]; /* rooms; 0 = free */
    struct failure failures[FAILURES_KEPT];
    size_t next_failure;
};

struct backfills *backfills_new(void)
{
    struct backfills *backfills = mem_alloc(sizeof *backfills);
    pthread_mutex_init(&backfills->mutex, NULL);
    pthread_cond_init(&backfills->ended, NULL);
    return backfills;
}

void backfills_free(struct backfills **pointer)
{
    struct backfills *backfills = *pointer;
    if (backfills) {
        pthread_cond_destroy(&backfills->ended);
        pthread_mutex_destroy(&backfills->mutex);
        mem_free(backfills);
        *pointer = NULL;
    }
}

/* --- one at a time --- */
static size_t find(const struct backfills *backfills, uint64_t room)
{
    size_t at = 0;
    while (at < RUNNING_MAX && backfills->running[at] != room) {
        at++;
    }
    return at;
}

enum entry { ENTRY_MINE, ENTRY_WAITED, ENTRY_FULL };

/* Becomes the one who fetches for the room, or waits for the end of the one who does. */
static enum entry enter(struct backfills *backfills, uint64_t room)
{
    enum entry entry = ENTRY_WAITED;
    pthread_mutex_lock(&backfills->mutex);
    if (find(backfills, room) < RUNNING_MAX) {
        while (find(backfills, room) < RUNNING_MAX) {
            pthread_cond_wait(&backfills->ended, &backfills->mutex);
        }
    } else {
        size_t at = find(backfills, 0);
        entry = at < RUNNING_MAX ? ENTRY_MINE : ENTRY_FULL;
        if (at < RUNNING_MAX) {
            backfills->running[at] = room;
        }
    }
    pthread_mutex_unlock(&backfills->mutex);
    return entry;
}

static void leave(struct backfills *backfills, uint64_t room)
{
    pthread_mutex_lock(&backfills->mutex);
    backfills->running[find(backfills, room)] = 0;
    pthread_cond_broadcast(&backfills->ended);
    pthread_mutex_unlock(&backfills->mutex);
}

static bool failed_lately(struct backfills *backfills, uint64_t room, int64_t number, int64_t now)
{
    bool failed = false;
    pthread_mutex_lock(&backfills->mutex);
    for (size_t i = 0; i < FAILURES_KEPT && !failed; i++) {
        const struct failure *failure = &backfills->failures[i];
        failed = failure->room == room && failure->number == number && failure->until_ms > now;
    }
    pthread_mutex_unlock(&backfills->mutex);
    return failed;
}

static void note_failure(struct backfills *backfills, uint64_t room, int64_t number, int64_t now)
{
    pthread_mutex_lock(&backfills->mutex);
    backfills->failures[backfills->next_failure] =
        (struct failure){.room = room, .number = number, .until_ms = now + FAILURE_MS};
    backfills->next_failure = (backfills->next_failure + 1) % FAILURES_KEPT;
    pthread_mutex_unlock(&backfills->mutex);
}

/* --- one fetch --- */
struct edge {
    int64_t number; /* of the event whose prev events are missing */
    struct event_id missing[MISSING_MAX];
    size_t missing_count;
    struct slice server; /* of the event's sender */
    struct intake_edge *all;
    size_t all_count;
};

/* An event that several miss belongs below the lowest of them: the others do not count. */
static void keep_lowest(struct intake_edge *edges, size_t *count_io)
{
    struct map *lowest = map_new(); /* missing -> index + 1 */
    size_t kept = 0;
    for (size_t i = 0; i < *count_io; i++) {
        uint64_t at = 0;
        bool again = map_get(lowest, edges[i].missing.s, &at);
        if (again && edges[at - 1].cited_by <= edges[i].cited_by) {
            continue;
        }
        size_t to = again ? (size_t)at - 1 : kept++;
        edges[to] = edges[i];
        map_set(lowest, edges[i].missing.s, to + 1);
    }
    map_free(&lowest);
    *count_io = kept;
}

/* The edge at the number, or the nearest one below. */
static struct err find_edge(struct hs *hs, struct ctx *ctx, struct room *room, int64_t number,
                            struct edge *edge_out)
{
    struct intake_edge *edges = NULL;
    size_t count = 0;
    struct stored_event event;
    bool found = false;
    *edge_out = (struct edge){.number = INT64_MIN};
    TRY(hs_intake_edges(hs, ctx, room, &edges, &count));
    keep_lowest(edges, &count);
    edge_out->all = edges;
    edge_out->all_count = count;
    for (size_t i = 0; i < count; i++) {
        if (edges[i].cited_by <= number && edges[i].cited_by > edge_out->number) {
            edge_out->number = edges[i].cited_by;
        }
    }
    for (size_t i = 0; i < count && edge_out->missing_count < MISSING_MAX; i++) {
        if (edges[i].cited_by == edge_out->number) {
            edge_out->missing[edge_out->missing_count++] = edges[i].missing;
        }
    }
    if (edge_out->missing_count) {
        TRY(hs_event_scan(hs, ctx, room, edge_out->number, &event, &found));
        edge_out->server = found ? ids_user_domain(event.event.sender).s : (struct slice){0};
    }
    return OK;
}

/* The whole state after an event that is here. */
static struct err state_after(const struct pull *pull, const struct stored_event *event,
                              struct state_before *state_out)
{
    struct state_entries entries;
    struct stored_events events;
    uint64_t room = hs_room_info(pull->room).number;
    TRY(state_read(pull->hs->states, pull->ctx, room, event->state_after, &entries));
    state_out->ids = arena_array(pull->ctx->arena, entries.count + 1, sizeof *state_out->ids);
    for (size_t i = 0; i < entries.count; i++) {
        struct event_numbers one = {&entries.items[i].event, 1};
        TRY(hs_events_scan_many(pull->hs, pull->ctx, pull->room, one, &events));
        if (events.count) {
            state_out->ids[state_out->count++] = events.items[0].event.id;
        }
    }
    state_out->is_whole = true;
    return OK;
}

/* The state before the oldest of the fetched events: none at the start of the room, that after its
 * only prev event when the gap is closed, else what the server says. */
static struct err find_state(const struct pull *pull, const struct event *oldest,
                             struct state_before *state_out)
{
    struct stored_event event;
    bool found = false;
    *state_out = (struct state_before){.is_whole = true};
    if (slice_eq(oldest->type, LIT("m.room.create"))) {
        return OK;
    }
    if (oldest->prev_event_count == 1) {
        TRY(hs_event_find(pull->hs, pull->ctx, pull->room, oldest->prev_events[0].s, &event,
                          &found));
        if (found && !(event.flags & (EVENT_OUTLIER | EVENT_PARTIAL))) {
            return state_after(pull, &event, state_out);
        }
    }
    return fed_missing_state(pull, oldest->id, state_out);
}

/* Whether the event has its place here, or gets it with what is fetched for a lower edge. */
static struct err has_place(const struct pull *pull, const struct edge *edge,
                            const struct map *lower, struct event_id id, bool *has_out,
                            bool *is_lower_out)
{
    struct stored_event stored;
    uint64_t there = 0;
    *is_lower_out = map_get(lower, id.s, &there);
    *has_out = *is_lower_out;
    if (!*has_out) {
        TRY(hs_event_find(pull->hs, pull->ctx, pull->room, id.s, &stored, has_out));
        *has_out = *has_out && !(stored.flags & EVENT_OUTLIER);
        *is_lower_out = *has_out && stored.number < edge->number;
    }
    return OK;
}

static struct err keep_those(const struct pull *pull, const struct edge *edge, struct map *lower,
                             struct pulled *events)
{
    size_t from = events->count;
    for (size_t i = events->count; i-- > 0;) {
        const struct event *event = events->items[i];
        bool has = false;
        bool is_lower = false;
        TRY(has_place(pull, edge, lower, event->id, &has, &is_lower));
        for (size_t k = 0; is_lower && k < event->prev_event_count; k++) {
            map_set(lower, event->prev_events[k].s, 1);
        }
        if (!has) {
            events->items[--from] = events->items[i];
        }
    }
    events->items += from;
    events->count -= from;
    return OK;
}

/* Those that belong right below the edge. What is fetched for it may reach over events that are
 * here to what they miss, which has its place below them. The newest come last. */
static struct err keep_new(const struct pull *pull, const struct edge *edge, struct pulled *events)
{
    struct map *lower = map_new();
    for (size_t i = 0; i < edge->all_count; i++) {
        if (edge->all[i].cited_by < edge->number) {
            map_set(lower, edge->all[i].missing.s, 1);
        }
    }
    struct err err = keep_those(pull, edge, lower, events);
    map_free(&lower);
    return err;
}

static struct err fetch(const struct pull *pull, const struct edge *edge, size_t limit,
                        size_t *added_out)
{
    struct pulled events;
    struct state_before state;
    *added_out = 0;
    TRY(pull_history(pull, edge->missing, edge->missing_count, limit, &events));
    TRY(keep_new(pull, edge, &events));
    if (events.count == 0) {
        return OK;
    }
    TRY(find_state(pull, events.items[0], &state));
    if (!state.is_whole) {
        return OK;
    }
    struct intake_history history = {.events = events.items,
                                     .count = events.count,
                                     .before = edge->number,
                                     .state = state.ids,
                                     .state_count = state.count};
    return hs_intake_history(pull->hs, pull->ctx, pull->room, &history, added_out);
}

static bool is_ours(struct err err)
{
    return err.code == ERR_IO || err.code == ERR_CANCELLED || err.code == ERR_WAITS ||
           err.code == ERR_CORRUPT;
}

static struct err ask_servers(struct hs *hs, struct ctx *ctx, struct room *room,
                              const struct edge *edge, size_t limit, size_t *added_out)
{
    struct slice *servers = NULL;
    size_t count = 0;
    struct fed_candidates candidates = {.first = edge->server, .max = SERVERS_ASKED_MAX};
    int64_t until = now_mono_ms(ctx->now) + BUDGET_MS;
    size_t wanted = limit < EVENTS_MIN ? EVENTS_MIN : limit > EVENTS_MAX ? EVENTS_MAX : limit;
    *added_out = 0;
    TRY(fed_servers_to_ask(hs, ctx, room, &candidates, &servers, &count));
    for (size_t i = 0; i < count && !*added_out && now_mono_ms(ctx->now) < until; i++) {
        struct pull pull = {.fed = hs->fed,
                            .hs = hs,
                            .ctx = ctx,
                            .room = room,
                            .server = servers[i],
                            .timeout_ms = REQUEST_MS};
        struct err err = fetch(&pull, edge, wanted, added_out);
        if (err.code != 0 && is_ours(err)) {
            return err;
        }
        if (err.code != 0) {
            log_info(ctx->log, "backfill_failed", .dest = servers[i], .err = slice_of(err.text));
        }
    }
    return OK;
}

static struct err fill_edge(struct hs *hs, struct ctx *ctx, struct room *room, int64_t number,
                            size_t limit, bool *added_out)
{
    struct backfills *backfills = hs->fed->backfills;
    uint64_t room_number = hs_room_info(room).number;
    struct edge edge;
    size_t added = 0;
    TRY(find_edge(hs, ctx, room, number, &edge));
    if (!edge.missing_count ||
        failed_lately(backfills, room_number, edge.number, now_mono_ms(ctx->now))) {
        return OK;
    }
    TRY(ask_servers(hs, ctx, room, &edge, limit, &added));
    if (!added) {
        note_failure(backfills, room_number, edge.number, now_mono_ms(ctx->now));
    }
    *added_out = added != 0;
    return OK;
}

struct err fed_backfill(struct hs *hs, struct ctx *ctx, struct room *room, int64_t number,
                        size_t limit, bool *added_out)
{
    struct backfills *backfills = hs->fed->backfills;
    uint64_t room_number = hs_room_info(room).number;
    struct edge edge;
    *added_out = false;
    TRY(find_edge(hs, ctx, room, number, &edge));
    if (!edge.missing_count ||
        failed_lately(backfills, room_number, edge.number, now_mono_ms(ctx->now))) {
        return OK;
    }
    if (!ctx->may_wait) {
        return err_make(ERR_WAITS, "history is fetched");
    }
    switch (enter(backfills, room_number)) {
    case ENTRY_FULL:
        return OK;
    case ENTRY_WAITED:
        *added_out = true; /* perhaps; the caller looks again */
        return OK;
    case ENTRY_MINE:
        break;
    }
    struct err err = fill_edge(hs, ctx, room, number, limit, added_out);
    leave(backfills, room_number);
    return err;
}
