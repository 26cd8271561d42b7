#include "federation/resident.h"

#include "federation/policy.h"

#include "homeserver/service/restricted.h"

struct err resident_begin(struct resident_call *call, void *app, struct ctx *ctx,
                          const struct http_request *request, struct http_reply *reply)
{
    struct hs *hs = app;
    enum membership membership = call->membership;
    *call = (struct resident_call){.hs = hs,
                                   .fed = hs->fed,
                                   .ctx = ctx,
                                   .request = request,
                                   .reply = reply,
                                   .origin = fed_origin(request),
                                   .membership = membership};
    if (!ids_is_room(request->params[0])) {
        return err_public(ERR_M_INVALID_PARAM, "The room id is not valid.");
    }
    TRY(hs_room_get_by_id(hs, ctx, request->params[0], &call->room));
    if (!hs_room_is_resident(call->room)) {
        return err_public(ERR_M_NOT_FOUND, "This server is not in the room (any more).");
    }
    /* Without the whole state it cannot be handed on, nor who may come in be told. */
    if (membership != MEMBERSHIP_LEAVE && hs_room_is_partial(call->room)) {
        return err_public(ERR_M_NOT_FOUND, "This server is still joining the room itself.");
    }
    call->rules = hs_room_info(call->room).rules;
    return fed_acl_check(hs, ctx, call->room, call->origin);
}

static bool is_of_origin(const struct resident_call *call, struct slice user_id)
{
    return ids_is_user(user_id) &&
           slice_eq(ids_user_domain(ids_trust_user(user_id)).s, call->origin);
}

struct err resident_check_user(const struct resident_call *call)
{
    if (!ids_is_user(call->request->params[1])) {
        return err_public(ERR_M_INVALID_PARAM, "The user id is not valid.");
    }
    return is_of_origin(call, call->request->params[1])
               ? OK
               : err_public(ERR_M_FORBIDDEN, "The user belongs to another server than the one "
                                             "that asks.");
}

bool resident_check_version(struct resident_call *call)
{
    enum { VERSIONS_MAX = 64 };
    struct slice versions[VERSIONS_MAX];
    struct slice version = call->rules->version;
    size_t count = http_query_all(call->ctx, call->request, LIT("ver"), versions, VERSIONS_MAX);
    if (count == 0) { /* Spec: make_join, `ver` defaults to ["1"] */
        versions[count++] = LIT("1");
    }
    for (size_t i = 0; i < count; i++) {
        if (slice_eq(versions[i], version)) {
            return true;
        }
    }
    struct slice extra =
        arena_printf(call->ctx->arena, "\"room_version\":\"%.*s\"", (int)version.len, version.ptr);
    http_reply_error(call->reply,
                     err_public(ERR_M_INCOMPATIBLE_ROOM_VERSION,
                                "Your server does not support the version of this room."),
                     extra);
    return false;
}

struct err resident_reply_template(struct resident_call *call, const struct json *content)
{
    static const struct slice drop[] = {{"hashes", 6}, {"signatures", 10}, {"event_id", 8}};
    struct ctx *ctx = call->ctx;
    struct event event;
    struct hs_draft draft = {.sender = call->request->params[1],
                             .type = LIT("m.room.member"),
                             .state_key = call->request->params[1],
                             .content = *content};
    TRY(hs_compose(call->hs, ctx, call->room, &draft, &event));
    struct json template =
        json_without(ctx->arena, event_tree(ctx->arena, &event), drop, COUNT_OF(drop));
    json_set(ctx->arena, &template, LIT("origin"), json_string(call->hs->server_name));
    struct json_out out = json_out_to(&call->reply->body);
    json_out_object(&out);
    json_out_key(&out, LIT("event"));
    json_out_value(&out, &template);
    json_out_key_string(&out, LIT("room_version"), call->rules->version);
    json_out_object_end(&out);
    return OK;
}

/* --- send_* --- */

/* Spec: server-server, PUT /send_join and its kin: what the event must be. */
static struct err check_shape(const struct resident_call *call, const struct event *event)
{
    if (!slice_eq(event->type, LIT("m.room.member")) || !event->has_state_key) {
        return err_public(ERR_M_INVALID_PARAM, "The event is no m.room.member state event.");
    }
    if (membership_of(event) != call->membership) {
        return err_public(ERR_M_INVALID_PARAM, "`membership` is not what this endpoint takes.");
    }
    if (!slice_eq(event->state_key, event->sender.s)) {
        return err_public(ERR_M_INVALID_PARAM, "`state_key` is not the sender.");
    }
    if (!is_of_origin(call, event->sender.s)) {
        return err_public(ERR_M_INVALID_PARAM, "The sender belongs to another server.");
    }
    if (!slice_eq(event->room_id.s, call->request->params[0])) {
        return err_public(ERR_M_INVALID_PARAM, "The event is of another room.");
    }
    if (!slice_eq(event->id.s, call->request->params[1])) {
        return err_public(ERR_M_INVALID_PARAM, "The event's id is not the one of the path.");
    }
    return event_check_reference_counts(event);
}

/* A join that names a user of this server: the condition is looked at once more, then vouched for.
 * Spec: server-server, "Restricted rooms". */
static struct err vouch(const struct resident_call *call, struct event *event)
{
    struct slice named = json_get_string(event->content, LIT("join_authorised_via_users_server"));
    struct slice authoriser;
    struct event vouched;
    if (call->membership != MEMBERSHIP_JOIN || !call->rules->restricted || !named.ptr ||
        !ids_is_user(named) || !hs_is_local(call->hs, ids_user_domain(ids_trust_user(named)).s)) {
        return OK;
    }
    TRY(hs_restricted_authoriser(call->hs, call->ctx, call->room, event->sender.s, &authoriser));
    TRY(event_add_signature(call->ctx->arena, event, &call->hs->signer, &vouched));
    *event = vouched;
    return OK;
}

struct err resident_read_event(struct resident_call *call, struct event *event_out)
{
    struct ctx *ctx = call->ctx;
    struct err verdict = OK;
    TRY(event_parse_tree(ctx->arena, call->rules, &call->request->json, event_out));
    TRY(check_shape(call, event_out));
    TRY(vouch(call, event_out));
    const struct event *events[] = {event_out};
    TRY(fed_check_signatures(call->fed, ctx, events, 1, &verdict));
    if (verdict.code != 0) {
        return err_public(ERR_M_INVALID_PARAM, verdict.is_public
                                                   ? verdict.text
                                                   : "A signature of the event is not valid.");
    }
    if (!event_check_hash(ctx->arena, event_out)) {
        return err_public(ERR_M_INVALID_PARAM, "The content hash of the event does not fit.");
    }
    return OK;
}

/* An event that was refused before is refused again. */
static struct err check_known(struct resident_call *call, const struct event *event)
{
    struct stored_event stored;
    bool found = false;
    TRY(hs_event_find(call->hs, call->ctx, call->room, event->id.s, &stored, &found));
    if (!found || (stored.flags & (EVENT_REJECTED | EVENT_SOFT_FAILED))) {
        return err_public(ERR_M_FORBIDDEN, "The room does not allow this event.");
    }
    return OK;
}

static struct err refusal(const struct resident_call *call, const struct intake_report *report)
{
    if (report->reason.len == 0) {
        return err_public(ERR_M_FORBIDDEN, "The room does not allow this event.");
    }
    return err_publicf(call->ctx->arena, ERR_M_FORBIDDEN, "%.*s", (int)report->reason.len,
                       report->reason.ptr);
}

struct err resident_accept(struct resident_call *call, struct event *event)
{
    struct intake intake = {.event = event, .is_forwarded = true};
    struct intake_report report;
    TRY(fed_policy_check(call->fed, call->ctx, call->room, event, &intake.policy_failed));
    TRY(hs_intake_event(call->hs, call->ctx, call->room, &intake, &report));
    switch (report.result) {
    case INTAKE_ACCEPTED:
        return OK;
    case INTAKE_KNOWN:
        return check_known(call, event);
    case INTAKE_SOFT_FAILED:
    case INTAKE_REJECTED:
        return refusal(call, &report);
    case INTAKE_MISSING_AUTH:
    case INTAKE_MISSING_PREV:
        return err_public(
            ERR_M_INVALID_PARAM,
            "The event cites events that are not known here; ask for a new template.");
    }
    return OK;
}

struct err resident_room_state(struct hs *hs, struct ctx *ctx, struct room *room,
                               struct json *array_out)
{
    static const struct slice types[] = {
        {"m.room.create", 13},     {"m.room.name", 11},       {"m.room.avatar", 13},
        {"m.room.topic", 12},      {"m.room.join_rules", 17}, {"m.room.canonical_alias", 22},
        {"m.room.encryption", 17},
    };
    uint64_t root = hs_room_head(room).root;
    *array_out = json_array();
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        struct stored_event event;
        bool found = false;
        TRY(hs_state_event(hs, ctx, room, root, types[i], LIT(""), &event, &found));
        if (found) {
            json_push(ctx->arena, array_out, *event_tree(ctx->arena, &event.event));
        }
    }
    return OK;
}
