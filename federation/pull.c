#include "federation/pull.h"

#include "homeserver/base/map.h"

enum {
    TIMEOUT_MS = 20 * 1000,
    EVENTS_BYTES_MAX = 16 << 20,
    STATE_BYTES_MAX = 128 << 20,
    IDS_MAX = 1 << 20,
};

static struct err call(const struct pull *pull, struct fed_call *request, struct json *answer_out)
{
    request->destination = pull->server;
    request->flags |= FED_CALL_LIST | (pull->is_alive ? FED_CALL_ANYWAY : 0u);
    request->timeout_ms = pull->timeout_ms ? pull->timeout_ms : TIMEOUT_MS;
    struct fed_answer answer;
    TRY(fed_call(pull->fed, pull->ctx, request, &answer));
    if (pull->answered_out && answer.status / 100 != 5) {
        *pull->answered_out = true;
    }
    return fed_answer_json(pull->ctx, &answer, answer_out);
}

/* Checks a list of PDUs; keeps the good ones, in their order. */
static struct err keep_good(const struct pull *pull, const struct json *list,
                            struct pulled *pulled_out)
{
    struct arena *arena = pull->ctx->arena;
    struct room_info info = hs_room_info(pull->room);
    size_t total = list ? list->count : 0;
    struct event *events = arena_array(arena, total + 1, sizeof *events);
    struct err *verdicts = arena_array(arena, total + 1, sizeof *verdicts);
    struct fed_pdus pdus = {.rules = info.rules, .pdus = list, .room_id = info.room_id};
    *pulled_out = (struct pulled){.items = arena_array(arena, total + 1, sizeof(struct event *))};
    TRY(fed_pdus_check(pull->fed, pull->ctx, &pdus, events, verdicts));
    for (size_t i = 0; i < total; i++) {
        if (verdicts[i].code == 0) {
            pulled_out->items[pulled_out->count++] = &events[i];
        } else {
            log_debug(pull->ctx->log, "event_left_out", .dest = pull->server,
                      .err = slice_of(verdicts[i].text));
        }
    }
    return OK;
}

/* Cuts a list to a length that was asked for. */
static const struct json *cut(struct ctx *ctx, const struct json *list, size_t max)
{
    if (!list || list->count <= max) {
        return list;
    }
    struct json *shorter = arena_alloc(ctx->arena, sizeof *shorter);
    *shorter = *list;
    shorter->count = (uint32_t)max;
    return shorter;
}

/* --- what leads to what --- */
struct connection {
    const struct pulled *events;
    struct map *index;
    bool *reached;
    size_t *stack;
    size_t depth;
};

static void reach(struct connection *c, const struct event_id *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t at = 0;
        if (map_get(c->index, ids[i].s, &at) && !c->reached[at]) {
            c->reached[at] = true;
            c->stack[c->depth++] = at;
        }
    }
}

void pull_keep_connected(struct ctx *ctx, const struct event_id *from, size_t from_count,
                         struct pulled *events)
{
    struct connection c = {.events = events, .index = map_new()};
    size_t kept = 0;
    c.reached = arena_array(ctx->arena, events->count + 1, sizeof *c.reached);
    c.stack = arena_array(ctx->arena, events->count + 1, sizeof *c.stack);
    for (size_t i = events->count; i > 0; i--) {
        map_set(c.index, events->items[i - 1]->id.s, i - 1);
    }
    reach(&c, from, from_count);
    while (c.depth) {
        const struct event *event = events->items[c.stack[--c.depth]];
        reach(&c, event->prev_events, event->prev_event_count);
    }
    for (size_t i = 0; i < events->count; i++) {
        if (c.reached[i]) {
            events->items[kept++] = events->items[i];
        }
    }
    events->count = kept;
    map_free(&c.index);
    fed_graph_order(ctx, events->items, events->count, GRAPH_PREV);
}

/* --- requests --- */
static struct json id_list(struct ctx *ctx, const struct event_id *ids, size_t count)
{
    struct json list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_push(ctx->arena, &list, json_string(ids[i].s));
    }
    return list;
}

struct err pull_missing(const struct pull *pull, const struct pull_missing *want,
                        struct pulled *pulled_out)
{
    struct ctx *ctx = pull->ctx;
    struct slice room_id = hs_room_info(pull->room).room_id;
    struct json body = json_object();
    struct json answer;
    json_set(ctx->arena, &body, LIT("earliest_events"),
             id_list(ctx, want->earliest, want->earliest_count));
    json_set(ctx->arena, &body, LIT("latest_events"), id_list(ctx, &want->latest->id, 1));
    json_set(ctx->arena, &body, LIT("limit"), json_int((int64_t)want->limit));
    json_set(ctx->arena, &body, LIT("min_depth"), json_int(0));
    struct fed_call request = {
        .method = LIT("POST"),
        .path = fed_path(ctx, "/_matrix/federation/v1/get_missing_events/%s", &room_id, 1),
        .content = &body,
        .body_bytes_max = EVENTS_BYTES_MAX};
    TRY(call(pull, &request, &answer));
    const struct json *list = cut(ctx, json_get_array(&answer, LIT("events")), want->limit * 2);
    TRY(keep_good(pull, list, pulled_out));
    pull_keep_connected(ctx, want->latest->prev_events, want->latest->prev_event_count, pulled_out);
    return OK;
}

struct err pull_history(const struct pull *pull, const struct event_id *from, size_t from_count,
                        size_t limit, struct pulled *pulled_out)
{
    struct ctx *ctx = pull->ctx;
    struct slice room_id = hs_room_info(pull->room).room_id;
    struct buf path;
    struct json answer;
    buf_init_arena(&path, ctx->arena, 64 << 10);
    buf_add(&path, fed_path(ctx, "/_matrix/federation/v1/backfill/%s", &room_id, 1));
    buf_printf(&path, "?limit=%zu", limit);
    for (size_t i = 0; i < from_count; i++) {
        buf_add(&path, fed_path(ctx, "&v=%s", &from[i].s, 1));
    }
    struct fed_call request = {.path = buf_slice(&path), .body_bytes_max = EVENTS_BYTES_MAX};
    TRY(call(pull, &request, &answer));
    const struct json *list = cut(ctx, json_get_array(&answer, LIT("pdus")), limit * 2);
    TRY(keep_good(pull, list, pulled_out));
    pull_keep_connected(ctx, from, from_count, pulled_out);
    return OK;
}

/* A refusal of the peer means that it has nothing to give; what failed here or on the way is an
 * error. */
static bool is_refusal(struct err err)
{
    return err.code >= ERR_MATRIX_FIRST || err.code == ERR_UNAVAILABLE;
}

struct err pull_event(const struct pull *pull, struct event_id id, struct event *event_out,
                      enum pull_result *result_out)
{
    struct pulled pulled;
    struct json answer;
    struct fed_call request = {.path =
                                   fed_path(pull->ctx, "/_matrix/federation/v1/event/%s", &id.s, 1),
                               .body_bytes_max = FED_SMALL_ANSWER};
    *result_out = PULL_ABSENT;
    struct err err = call(pull, &request, &answer);
    if (err.code != 0) {
        return is_refusal(err) ? OK : err;
    }
    const struct json *list = cut(pull->ctx, json_get_array(&answer, LIT("pdus")), 1);
    if (!list || list->count == 0) {
        return OK;
    }
    TRY(keep_good(pull, list, &pulled));
    bool fits = pulled.count && ids_event_eq(pulled.items[0]->id, id);
    *result_out = fits ? PULL_GOOD : PULL_BAD;
    if (fits) {
        *event_out = *pulled.items[0];
    }
    return OK;
}

struct err pull_event_auth(const struct pull *pull, struct event_id id, struct pulled *pulled_out)
{
    struct ctx *ctx = pull->ctx;
    struct json answer;
    struct slice parts[] = {hs_room_info(pull->room).room_id, id.s};
    struct fed_call request = {
        .path = fed_path(ctx, "/_matrix/federation/v1/event_auth/%s/%s", parts, 2),
        .body_bytes_max = STATE_BYTES_MAX};
    *pulled_out = (struct pulled){0};
    struct err err = call(pull, &request, &answer);
    if (err.code != 0) {
        return is_refusal(err) ? OK : err;
    }
    TRY(keep_good(pull, json_get_array(&answer, LIT("auth_chain")), pulled_out));
    fed_graph_order(ctx, pulled_out->items, pulled_out->count, GRAPH_AUTH);
    return OK;
}

static struct err read_ids(struct ctx *ctx, const struct json *list, struct event_id **ids_out,
                           size_t *count_out)
{
    *count_out = 0;
    if (!list || list->count > IDS_MAX) {
        return err_make(ERR_UNAVAILABLE, "a server gave no usable list of ids");
    }
    *ids_out = arena_array(ctx->arena, list->count + 1, sizeof **ids_out);
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->items[i].type == JSON_STRING && ids_is_event(list->items[i].text)) {
            (*ids_out)[(*count_out)++] = ids_trust_event(list->items[i].text);
        }
    }
    return OK;
}

struct err pull_state_ids(const struct pull *pull, struct event_id id, struct pulled_ids *ids_out)
{
    struct ctx *ctx = pull->ctx;
    struct json answer;
    struct slice parts[] = {hs_room_info(pull->room).room_id, id.s};
    struct fed_call request = {
        .path = fed_path(ctx, "/_matrix/federation/v1/state_ids/%s?event_id=%s", parts, 2),
        .body_bytes_max = STATE_BYTES_MAX};
    *ids_out = (struct pulled_ids){0};
    TRY(call(pull, &request, &answer));
    TRY(read_ids(ctx, json_get_array(&answer, LIT("pdu_ids")), &ids_out->state,
                 &ids_out->state_count));
    return read_ids(ctx, json_get_array(&answer, LIT("auth_chain_ids")), &ids_out->chain,
                    &ids_out->chain_count);
}

struct err pull_state(const struct pull *pull, struct event_id id, struct pulled *pulled_out)
{
    struct ctx *ctx = pull->ctx;
    struct json answer;
    struct json all = json_array();
    struct slice parts[] = {hs_room_info(pull->room).room_id, id.s};
    struct fed_call request = {
        .path = fed_path(ctx, "/_matrix/federation/v1/state/%s?event_id=%s", parts, 2),
        .body_bytes_max = STATE_BYTES_MAX,
        .timeout_ms = 3 * TIMEOUT_MS};
    request.destination = pull->server;
    request.flags = FED_CALL_LIST;
    TRY(fed_call_json(pull->fed, ctx, &request, &answer));
    const struct json *lists[] = {json_get_array(&answer, LIT("auth_chain")),
                                  json_get_array(&answer, LIT("pdus"))};
    for (size_t i = 0; i < COUNT_OF(lists); i++) {
        for (uint32_t k = 0; lists[i] && k < lists[i]->count; k++) {
            json_push(ctx->arena, &all, lists[i]->items[k]);
        }
    }
    TRY(keep_good(pull, &all, pulled_out));
    fed_graph_order(ctx, pulled_out->items, pulled_out->count, GRAPH_AUTH);
    return OK;
}
