/* Spec: client-server, "Reporting Content". */
#include "homeserver/service/reports.h"

#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/users.h"

static struct err read_reason(struct cs_room_call *call, struct report *report)
{
    *report = (struct report){.reporter = call->actor.user_id};
    return cs_body_string(call->request, LIT("reason"), &report->reason);
}

static struct err finish(struct cs_room_call *call, const struct report *report)
{
    TRY(hs_report_add(call->hs, call->ctx, report));
    http_reply_empty(call->reply);
    return OK;
}

static struct err report_room(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    struct report report;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(read_reason(&call, &report));
    report.room_id = request->params[0];
    TRY(hs_room_get_by_id(call.hs, ctx, report.room_id, &call.room));
    return finish(&call, &report);
}

static struct err report_event(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct cs_room_call call;
    struct report report;
    struct stored_event event;
    struct user_room entry;
    bool found = false;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(read_reason(&call, &report));
    report.room_id = request->params[0];
    report.event_id = request->params[1];
    TRY(hs_room_get_by_id(call.hs, ctx, report.room_id, &call.room));
    TRY(hs_user_room(call.hs, ctx, call.actor.user, hs_room_info(call.room).number, &entry,
                     &found));
    if (found && entry.membership == MEMBERSHIP_JOIN) {
        TRY(hs_event_find(call.hs, ctx, call.room, report.event_id, &event, &found));
        if (found) {
            TRY(hs_can_see(call.hs, ctx, call.room, &call.viewer, &event, &found));
        }
    } else {
        found = false;
    }
    return found ? finish(&call, &report)
                 : err_public(ERR_M_NOT_FOUND,
                              "The event was not found, or you are not joined to its room.");
}

static struct err report_user(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    struct report report;
    uint64_t user = 0;
    bool found = false;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(read_reason(&call, &report));
    report.user_id = request->params[0];
    TRY(hs_user_find(call.hs, ctx, report.user_id, &user, &found));
    return found ? finish(&call, &report) : err_public(ERR_M_NOT_FOUND, "The user was not found.");
}

enum { BODY_BYTES_MAX = 1 << 16 };
#define HOW HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX

static const struct http_route routes[] = {
    {HTTP_POST, "/_matrix/client/v3/rooms/{roomId}/report", HOW, report_room, "Reporting Content",
     NULL, 0},
    {HTTP_POST, "/_matrix/client/v3/rooms/{roomId}/report/{eventId}", HOW, report_event,
     "Reporting Content", NULL, 0},
    {HTTP_POST, "/_matrix/client/v3/users/{userId}/report", HOW, report_user, "Reporting Content",
     NULL, 0},
};
const struct http_route_table cs_reports_routes = {routes, COUNT_OF(routes)};
