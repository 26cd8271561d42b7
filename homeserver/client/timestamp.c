/* Spec: client-server, "Getting events for a room". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/nearest.h"
#include "homeserver/service/remote.h"

struct search {
    struct cs_room_call call;
    struct nearest_query query;
    struct slice event_id;
    int64_t ts_ms;
    bool found;
};

static struct err read_query(struct search *s)
{
    struct ctx *ctx = s->call.ctx;
    const struct http_request *request = s->call.request;
    struct slice dir = http_query_get(ctx, request, LIT("dir"));
    if (!http_query_get(ctx, request, LIT("ts")).ptr) {
        return err_public(ERR_M_MISSING_PARAM, "`ts` is missing.");
    }
    TRY(http_query_int(ctx, request, LIT("ts"), 0, &s->query.ts_ms));
    if (dir.ptr && !slice_eq(dir, LIT("f")) && !slice_eq(dir, LIT("b"))) {
        return err_public(ERR_M_INVALID_PARAM, "`dir` must be f or b.");
    }
    s->query.direction = slice_eq(dir, LIT("b")) ? NEAREST_BEFORE : NEAREST_AFTER;
    return OK;
}

static struct err search_here(struct search *s)
{
    struct stored_event event;
    s->query.viewer = &s->call.viewer;
    TRY(hs_event_nearest(s->call.hs, s->call.ctx, s->call.room, s->query, &event, &s->found));
    s->event_id = s->found ? event.event.id.s : (struct slice){0};
    s->ts_ms = s->found ? event.event.origin_server_ts : 0;
    return OK;
}

static int64_t distance(const struct search *s, int64_t ts_ms)
{
    return ts_ms > s->query.ts_ms ? ts_ms - s->query.ts_ms : s->query.ts_ms - ts_ms;
}

/* Where the history here has holes, another server may know an event that is nearer. Spec: "If the
 * homeserver can't find an event locally, it SHOULD try federation." */
static struct err search_elsewhere(struct search *s)
{
    struct hs *hs = s->call.hs;
    struct intake_edge *edges = NULL;
    struct json answer;
    size_t edge_count = 0;
    int64_t ts_ms = 0;
    if (!hs->remote || !hs->remote->timestamp_to_event) {
        return OK;
    }
    TRY(hs_intake_edges(hs, s->call.ctx, s->call.room, &edges, &edge_count));
    if (edge_count == 0) {
        return OK;
    }
    struct err err = hs->remote->timestamp_to_event(hs, s->call.ctx, s->call.room, s->query.ts_ms,
                                                    s->query.direction == NEAREST_AFTER, &answer);
    if (err.code == ERR_WAITS) {
        return err;
    }
    struct slice event_id =
        err.code ? (struct slice){0} : json_get_string(&answer, LIT("event_id"));
    if (ids_is_event(event_id) && json_get_int(&answer, LIT("origin_server_ts"), &ts_ms) &&
        (!s->found || distance(s, ts_ms) < distance(s, s->ts_ms))) {
        s->event_id = event_id;
        s->ts_ms = ts_ms;
        s->found = true;
    }
    return OK;
}

static struct err get_nearest(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct search s = {0};
    struct room_view view;
    TRY(cs_room_begin(&s.call, app, ctx, request, reply));
    TRY(read_query(&s));
    TRY(hs_room_view(s.call.hs, ctx, s.call.room, s.call.actor.user, &view));
    TRY(search_here(&s));
    TRY(search_elsewhere(&s));
    if (!s.found) {
        return err_public(ERR_M_NOT_FOUND, "No event was found in this direction.");
    }
    json_out_object(&s.call.out);
    json_out_key_string(&s.call.out, LIT("event_id"), s.event_id);
    json_out_key_int(&s.call.out, LIT("origin_server_ts"), s.ts_ms);
    json_out_object_end(&s.call.out);
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/client/v1/rooms/{roomId}/timestamp_to_event", HTTP_AUTH_USER,
     HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_nearest, "Getting events for a room",
     NULL, HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_timestamp_routes = {routes, COUNT_OF(routes)};
