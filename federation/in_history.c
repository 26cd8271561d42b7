/* History of rooms for other servers.
 * Spec: server-server, "Backfilling and retrieving missing events", "Retrieving events",
 * "Retrieving event authorisation information". */
#include "federation/in_history.h"
#include "federation/routes.h"
#include "homeserver/base/now.h"
#include "homeserver/service/nearest.h"

enum {
    BACKFILL_MAX = 100,
    BACKFILL_STARTS_MAX = 20,
    MISSING_DEFAULT = 10,
    MISSING_MAX = 20,
    MISSING_IDS_MAX = 1000,
    BODY_BYTES = 256 << 10,
};

static struct err enter_room(struct history_call *call, struct room *room)
{
    call->room = room;
    TRY(fed_acl_check(call->hs, call->ctx, room, call->origin));
    return server_view_init(&call->view, call->hs, call->ctx, room, call->origin);
}

struct err history_begin(struct history_call *call, void *app, struct ctx *ctx,
                         const struct http_request *request, struct http_reply *reply)
{
    struct room *room = NULL;
    *call = (struct history_call){
        .hs = app, .ctx = ctx, .request = request, .reply = reply, .origin = fed_origin(request)};
    TRY(hs_room_get_by_id(call->hs, ctx, request->params[0], &room));
    return enter_room(call, room);
}

/* Servers outside the room get what any of their users could see, and learn nothing of the rest. */
struct err history_check_event(struct history_call *call, const struct stored_event *event)
{
    bool allowed = call->view.is_resident;
    if (!allowed) {
        TRY(server_view_allows(&call->view, call->ctx, event, &allowed));
    }
    return allowed ? OK : err_public(ERR_M_FORBIDDEN, "Your server is not in this room.");
}

struct err history_check_resident(struct history_call *call)
{
    return call->view.is_resident ? OK
                                  : err_public(ERR_M_FORBIDDEN, "Your server is not in this room.");
}

static void write_origin(struct history_call *call, struct json_out *out)
{
    json_out_key_string(out, LIT("origin"), call->hs->server_name);
    json_out_key_int(out, LIT("origin_server_ts"), now_wall_ms(call->ctx->now));
}

/* As the origin may see them: residents get the rest redacted, others do not get it at all. */
static struct err write_events(struct history_call *call, const struct stored_events *events,
                               struct json_out *out)
{
    for (size_t i = 0; i < events->count; i++) {
        struct slice json;
        bool allowed = call->view.is_resident;
        if (!allowed) {
            TRY(server_view_allows(&call->view, call->ctx, &events->items[i], &allowed));
        }
        if (allowed) {
            TRY(server_view_event(&call->view, call->ctx, &events->items[i], &json));
            json_out_raw(out, json);
        }
    }
    return OK;
}

static struct err backfill(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct history_call call;
    struct slice values[BACKFILL_STARTS_MAX];
    struct event_id starts[BACKFILL_STARTS_MAX];
    struct stored_events events;
    int64_t limit = 0;
    TRY(history_begin(&call, app, ctx, request, reply));
    size_t count = http_query_all(ctx, request, LIT("v"), values, BACKFILL_STARTS_MAX);
    if (!count || !http_query_get(ctx, request, LIT("limit")).ptr) {
        return err_public(ERR_M_MISSING_PARAM, "`v` and `limit` are required.");
    }
    TRY(http_query_int(ctx, request, LIT("limit"), 0, &limit));
    for (size_t i = 0; i < count; i++) {
        starts[i] = ids_trust_event(values[i]);
    }
    struct graph_walk walk = {.from = starts,
                              .from_count = count,
                              .limit = (size_t)(limit > BACKFILL_MAX ? BACKFILL_MAX : limit),
                              .start = GRAPH_WITH_START};
    TRY(fed_graph_walk(call.hs, ctx, call.room, &walk, &events));
    struct json_out out = json_out_to(&reply->body);
    json_out_object(&out);
    write_origin(&call, &out);
    json_out_key_array(&out, LIT("pdus"));
    TRY(write_events(&call, &events, &out));
    json_out_array_end(&out);
    json_out_object_end(&out);
    return OK;
}

static struct err read_ids(struct ctx *ctx, const struct json *body, struct slice key,
                           struct event_id **ids_out, size_t *count_out)
{
    const struct json *list = json_get_array(body, key);
    if (!list || list->count > MISSING_IDS_MAX) {
        return err_public(ERR_M_BAD_JSON,
                          "`earliest_events` and `latest_events` must be lists of event ids.");
    }
    *ids_out = arena_array(ctx->arena, list->count + 1, sizeof **ids_out);
    *count_out = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->items[i].type != JSON_STRING || !ids_is_event(list->items[i].text)) {
            return err_public(ERR_M_BAD_JSON, "An event id is not well-formed.");
        }
        (*ids_out)[(*count_out)++] = ids_trust_event(list->items[i].text);
    }
    return OK;
}

/* The other server reads these in order, so the oldest comes first. */
static void reverse(struct stored_events *events)
{
    for (size_t i = 0; i < events->count / 2; i++) {
        struct stored_event kept = events->items[i];
        events->items[i] = events->items[events->count - 1 - i];
        events->items[events->count - 1 - i] = kept;
    }
}

static struct err get_missing_events(void *app, struct ctx *ctx, const struct http_request *request,
                                     struct http_reply *reply)
{
    struct history_call call;
    struct event_id *earliest = NULL;
    struct event_id *latest = NULL;
    struct stored_events events;
    int64_t limit = MISSING_DEFAULT;
    TRY(history_begin(&call, app, ctx, request, reply));
    struct graph_walk walk = {.start = GRAPH_WITHOUT_START};
    TRY(read_ids(ctx, &request->json, LIT("earliest_events"), &earliest, &walk.stop_count));
    TRY(read_ids(ctx, &request->json, LIT("latest_events"), &latest, &walk.from_count));
    json_get_int(&request->json, LIT("limit"), &limit);
    json_get_int(&request->json, LIT("min_depth"), &walk.min_depth);
    limit = limit < 0 ? 0 : limit;
    walk.limit = (size_t)(limit > MISSING_MAX ? MISSING_MAX : limit);
    walk.stop = earliest;
    walk.from = latest;
    TRY(fed_graph_walk(call.hs, ctx, call.room, &walk, &events));
    reverse(&events);
    struct json_out out = json_out_to(&reply->body);
    json_out_object(&out);
    json_out_key_array(&out, LIT("events"));
    TRY(write_events(&call, &events, &out));
    json_out_array_end(&out);
    json_out_object_end(&out);
    return OK;
}

/* Outliers are state or authorisation of something: who is in the room gets them with that. */
static struct err event_json(struct history_call *call, const struct stored_event *event,
                             struct slice *json_out)
{
    if (event->flags & EVENT_OUTLIER) {
        *json_out = event->event.json;
        return history_check_resident(call);
    }
    TRY(history_check_event(call, event));
    return server_view_event(&call->view, call->ctx, event, json_out);
}

static struct err get_event(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct history_call call = {
        .hs = app, .ctx = ctx, .request = request, .reply = reply, .origin = fed_origin(request)};
    struct room *room = NULL;
    struct stored_event event;
    struct slice json;
    uint64_t number = 0;
    int64_t event_number = 0;
    bool found = false;
    TRY(hs_event_locate(call.hs, ctx, request->params[0], &number, &event_number, &found));
    if (found) {
        TRY(hs_room_get(call.hs, ctx, number, &room));
        TRY(enter_room(&call, room));
        TRY(hs_event_load(call.hs, ctx, room, event_number, &event, &found));
    }
    if (!found || (event.flags & EVENT_REJECTED)) {
        return err_public(ERR_M_NOT_FOUND, "This event is not known here.");
    }
    TRY(event_json(&call, &event, &json));
    struct json_out out = json_out_to(&reply->body);
    json_out_object(&out);
    write_origin(&call, &out);
    json_out_key_array(&out, LIT("pdus"));
    json_out_raw(&out, json);
    json_out_array_end(&out);
    json_out_object_end(&out);
    return OK;
}

static struct err timestamp_to_event(void *app, struct ctx *ctx, const struct http_request *request,
                                     struct http_reply *reply)
{
    struct history_call call;
    struct stored_event event;
    bool found = false;
    struct nearest_query query = {.direction = NEAREST_AFTER};
    TRY(history_begin(&call, app, ctx, request, reply));
    TRY(history_check_resident(&call));
    struct slice dir = http_query_get(ctx, request, LIT("dir"));
    if (!http_query_get(ctx, request, LIT("ts")).ptr || !dir.ptr) {
        return err_public(ERR_M_MISSING_PARAM, "`ts` and `dir` are required.");
    }
    if (!slice_eq(dir, LIT("f")) && !slice_eq(dir, LIT("b"))) {
        return err_public(ERR_M_INVALID_PARAM, "`dir` must be f or b.");
    }
    TRY(http_query_int(ctx, request, LIT("ts"), 0, &query.ts_ms));
    query.direction = slice_eq(dir, LIT("b")) ? NEAREST_BEFORE : NEAREST_AFTER;
    TRY(hs_event_nearest(call.hs, ctx, call.room, query, &event, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "No event lies on that side of the time.");
    }
    struct json_out out = json_out_to(&reply->body);
    json_out_object(&out);
    json_out_key_string(&out, LIT("event_id"), event.event.id.s);
    json_out_key_int(&out, LIT("origin_server_ts"), event.event.origin_server_ts);
    json_out_object_end(&out);
    return OK;
}

#define PEER(body) HTTP_AUTH_SERVER, HTTP_RATE_FEDERATION, body, HTTP_LANE_NONE
#define BACKFILLING "Backfilling and retrieving missing events"
#define RETRIEVING "Retrieving events"

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/federation/v1/backfill/{roomId}", PEER(HTTP_BODY_NONE), 0, backfill,
     BACKFILLING, NULL, 0},
    {HTTP_POST, "/_matrix/federation/v1/get_missing_events/{roomId}", PEER(HTTP_BODY_JSON),
     BODY_BYTES, get_missing_events, BACKFILLING, NULL, 0},
    {HTTP_GET, "/_matrix/federation/v1/event/{eventId}", PEER(HTTP_BODY_NONE), 0, get_event,
     RETRIEVING, NULL, 0},
    {HTTP_GET, "/_matrix/federation/v1/state/{roomId}", PEER(HTTP_BODY_NONE), 0, history_state,
     RETRIEVING, NULL, 0},
    {HTTP_GET, "/_matrix/federation/v1/state_ids/{roomId}", PEER(HTTP_BODY_NONE), 0,
     history_state_ids, RETRIEVING, NULL, 0},
    {HTTP_GET, "/_matrix/federation/v1/event_auth/{roomId}/{eventId}", PEER(HTTP_BODY_NONE), 0,
     history_event_auth, "Retrieving event authorisation information", NULL, 0},
    {HTTP_GET, "/_matrix/federation/v1/timestamp_to_event/{roomId}", PEER(HTTP_BODY_NONE), 0,
     timestamp_to_event, RETRIEVING, NULL, 0},
};
const struct http_route_table ss_history_routes = {routes, COUNT_OF(routes)};
