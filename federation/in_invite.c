/* Invites of other servers for users of this one. A signature of this server is worth something, so
 * it is given only after every check. Spec: server-server, "Inviting to a room". */
#include "federation/policy.h"
#include "federation/routes.h"
#include "homeserver/http/ratelimit.h"
#include "homeserver/room/membership.h"
#include "homeserver/service/appservices.h"
#include "homeserver/service/invite_filter.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/memberships.h"
#include "homeserver/service/users.h"

enum { ROOM_STATE_EVENTS_MAX = 100 };

struct invite_call {
    struct hs *hs;
    struct ctx *ctx;
    const struct http_request *request;
    struct http_reply *reply;
    struct slice origin;
    const struct room_rules *rules;
    const struct json *pdu, *room_state;
    struct event event; /* with this server's signature in the end */
    struct room *room;  /* NULL: no user of this server is in it */
};

static struct invite_call begin(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    return (struct invite_call){
        .hs = app, .ctx = ctx, .request = request, .reply = reply, .origin = fed_origin(request)};
}

static struct err check_shape(const struct invite_call *call)
{
    const struct event *event = &call->event;
    if (!slice_eq(event->type, LIT("m.room.member")) || !event->has_state_key ||
        membership_of(event) != MEMBERSHIP_INVITE) {
        return err_public(ERR_M_INVALID_PARAM, "The event is no invite.");
    }
    if (!slice_eq(ids_user_domain(event->sender).s, call->origin)) {
        return err_public(ERR_M_INVALID_PARAM, "The sender belongs to another server.");
    }
    if (!ids_is_user(event->state_key) || !hs_user_is_local(call->hs, event->state_key)) {
        return err_public(ERR_M_INVALID_PARAM, "The invited user is not one of this server.");
    }
    if (!slice_eq(event->room_id.s, call->request->params[0])) {
        return err_public(ERR_M_INVALID_PARAM, "The event is of another room.");
    }
    if (!slice_eq(event->id.s, call->request->params[1])) {
        return err_public(ERR_M_INVALID_PARAM, "The event's id is not the one of the path.");
    }
    return event_check_reference_counts(event);
}

static struct err check_signature(struct invite_call *call)
{
    struct err verdict = OK;
    const struct event *events[] = {&call->event};
    TRY(fed_check_signatures(call->hs->fed, call->ctx, events, 1, &verdict));
    if (verdict.code != 0 || !event_check_hash(call->ctx->arena, &call->event)) {
        return err_public(ERR_M_INVALID_PARAM,
                          "The signature or the hash of the event is not valid.");
    }
    return OK;
}

static struct err bad_room_state(const char *text)
{
    return err_public(ERR_M_INVALID_PARAM, text);
}

/* Spec: PUT /v2/invite: from version 12 on the create event must be among the room's state, and
 * each event hold: as one of the room, in the form of its version, and signed. Before that servers
 * still send stripped events, which are taken as they are. */
static struct err check_room_state(const struct invite_call *call)
{
    struct ctx *ctx = call->ctx;
    size_t count = call->room_state ? call->room_state->count : 0;
    struct event *events = arena_array(ctx->arena, count + 1, sizeof *events);
    struct err *verdicts = arena_array(ctx->arena, count + 1, sizeof *verdicts);
    struct fed_pdus pdus = {
        .rules = call->rules, .pdus = call->room_state, .room_id = call->event.room_id.s};
    bool has_create = false;
    if (!call->rules->hash_room_id) {
        return OK;
    }
    if (count > ROOM_STATE_EVENTS_MAX) {
        return bad_room_state("`invite_room_state` holds too many events.");
    }
    TRY(fed_pdus_check(call->hs->fed, ctx, &pdus, events, verdicts));
    for (size_t i = 0; i < count; i++) {
        if (verdicts[i].code != 0) {
            return bad_room_state("An event of `invite_room_state` is none of the room, or is not "
                                  "signed.");
        }
        has_create = has_create || event_is(&events[i], LIT("m.room.create"), LIT(""));
    }
    return has_create ? OK
                      : bad_room_state("`invite_room_state` must hold the room's create event.");
}

/* Spec: client-server, "Invite permission"; the account must be there to be invited. */
static struct err check_target(const struct invite_call *call)
{
    uint64_t user = 0;
    bool found = false;
    struct hs *hs = call->hs;
    TRY(hs_appservices_find_user(hs, call->ctx, call->event.state_key, &user, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "There is no such user here.");
    }
    return hs_invite_permission(hs, call->ctx, call->event.state_key, call->event.sender.s);
}

static struct err find_room(struct invite_call *call)
{
    uint64_t number = 0;
    bool found = false;
    struct room *room = NULL;
    TRY(hs_room_find(call->hs, call->ctx, call->event.room_id.s, &number, &found));
    if (!found) {
        return OK;
    }
    TRY(hs_room_get(call->hs, call->ctx, number, &room));
    if (!hs_room_is_resident(room)) {
        return OK;
    }
    call->room = room;
    return fed_acl_check(call->hs, call->ctx, room, call->origin);
}

static struct err check_rate(const struct invite_call *call)
{
    return call->hs->ratelimit
               ? http_ratelimit_check(call->hs->ratelimit, call->ctx, HTTP_RATE_INVITE,
                                      call->event.sender.s, call->reply)
               : OK;
}

/* A room this server is in gets the invite like any event; if what lies before it is still to come,
 * so will the invite, in a transaction. */
static struct err take_into_room(struct invite_call *call)
{
    struct intake intake = {.event = &call->event};
    struct intake_report report;
    TRY(fed_policy_check(call->hs->fed, call->ctx, call->room, &call->event,
                         &intake.policy_failed));
    TRY(hs_intake_event(call->hs, call->ctx, call->room, &intake, &report));
    if (report.result == INTAKE_REJECTED || report.result == INTAKE_SOFT_FAILED) {
        return err_public(ERR_M_FORBIDDEN, "The room does not allow this invite.");
    }
    return OK;
}

static struct err keep(struct invite_call *call)
{
    struct json none = json_array();
    struct intake_invite invite = {.room_id = call->event.room_id.s,
                                   .version = call->rules->version,
                                   .event = &call->event,
                                   .room_state = call->room_state ? call->room_state : &none};
    return call->room ? take_into_room(call) : hs_intake_invite(call->hs, call->ctx, &invite);
}

static struct err take_invite(struct invite_call *call)
{
    struct event sealed;
    TRY(event_parse_tree(call->ctx->arena, call->rules, call->pdu, &call->event));
    TRY(check_shape(call));
    TRY(find_room(call));
    TRY(check_target(call));
    TRY(check_signature(call));
    TRY(check_rate(call));
    TRY(check_room_state(call));
    TRY(event_add_signature(call->ctx->arena, &call->event, &call->hs->signer, &sealed));
    call->event = sealed;
    return keep(call);
}

static void reply_event(struct invite_call *call)
{
    struct json_out out = json_out_to(&call->reply->body);
    json_out_object(&out);
    json_out_key_raw(&out, LIT("event"), call->event.json);
    json_out_object_end(&out);
}

static void reply_incompatible(struct invite_call *call, struct slice version)
{
    struct buf extra;
    buf_init_arena(&extra, call->ctx->arena, SIZE_MAX / 2);
    buf_add(&extra, LIT("\"room_version\":"));
    json_write_string(&extra, version);
    http_reply_error(call->reply,
                     err_public(ERR_M_INCOMPATIBLE_ROOM_VERSION,
                                "This server does not support the version of the room."),
                     buf_slice(&extra));
}

static struct err invite_v2(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct invite_call call = begin(app, ctx, request, reply);
    struct slice version = json_get_string(&request->json, LIT("room_version"));
    call.pdu = json_get_object(&request->json, LIT("event"));
    call.room_state = json_get_array(&request->json, LIT("invite_room_state"));
    if (!version.ptr || !call.pdu) {
        return err_public(ERR_M_MISSING_PARAM, "`room_version` and `event` are required.");
    }
    call.rules = room_rules_get(version);
    if (!call.rules) {
        reply_incompatible(&call, version);
        return OK;
    }
    TRY(take_invite(&call));
    reply_event(&call);
    return OK;
}

/* Rooms of versions 1 and 2, whose events look the same. */
static struct err invite_v1(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct invite_call call = begin(app, ctx, request, reply);
    const struct json *extra = json_get_object(&request->json, LIT("unsigned"));
    call.pdu = &request->json;
    call.room_state = json_get_array(extra, LIT("invite_room_state"));
    call.rules = room_rules_get(LIT("1"));
    if (!json_get(call.pdu,
                  LIT("event_id"))) { /* the form of later versions, without saying which */
        reply_incompatible(&call, LIT("3"));
        return OK;
    }
    TRY(take_invite(&call));
    buf_add(&reply->body, LIT("[200,"));
    reply_event(&call);
    buf_add_byte(&reply->body, ']');
    return OK;
}

enum { INVITE_BODY_BYTES_MAX = 1 << 20 };

static const struct http_route routes[] = {
    {HTTP_PUT, "/_matrix/federation/v1/invite/{roomId}/{eventId}", HTTP_AUTH_SERVER,
     HTTP_RATE_FEDERATION, HTTP_BODY_JSON, HTTP_LANE_NONE, INVITE_BODY_BYTES_MAX, invite_v1,
     "Inviting to a room", NULL, 0},
    {HTTP_PUT, "/_matrix/federation/v2/invite/{roomId}/{eventId}", HTTP_AUTH_SERVER,
     HTTP_RATE_FEDERATION, HTTP_BODY_JSON, HTTP_LANE_NONE, INVITE_BODY_BYTES_MAX, invite_v2,
     "Inviting to a room", NULL, 0},
};
const struct http_route_table ss_invite_routes = {routes, COUNT_OF(routes)};
