/* Invites for users of other servers. Spec: server-server, "Inviting to a room". */
#include "federation/joins.h"
#include "federation/out_member.h"
#include "federation/resident.h"
#include "homeserver/service/intake.h"

enum { INVITE_TIMEOUT_MS = 30000 };

struct out_invite {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    const struct event *event;
    struct slice server; /* of the invited user */
    struct json room_state;
};

static struct err put(struct out_invite *out, const char *format, const struct json *body,
                      struct fed_answer *answer_out)
{
    const struct slice parts[] = {out->event->room_id.s, out->event->id.s};
    struct fed_call call = {.destination = out->server,
                            .method = LIT("PUT"),
                            .path = fed_path(out->ctx, format, parts, COUNT_OF(parts)),
                            .content = body,
                            .body_bytes_max = FED_SMALL_ANSWER,
                            .timeout_ms = INVITE_TIMEOUT_MS};
    return fed_call(out->hs->fed, out->ctx, &call, answer_out);
}

static struct err put_v2(struct out_invite *out, struct fed_answer *answer_out)
{
    struct arena *arena = out->ctx->arena;
    struct json body = json_object();
    json_set(arena, &body, LIT("event"), *event_tree(arena, out->event));
    json_set(arena, &body, LIT("invite_room_state"), out->room_state);
    json_set(arena, &body, LIT("room_version"), json_string(out->event->rules->version));
    return put(out, "/_matrix/federation/v2/invite/%s/%s", &body, answer_out);
}

/* Spec: the older form, for servers that do not know the newer one; rooms of versions 1 and 2. */
static struct err put_v1(struct out_invite *out, struct fed_answer *answer_out)
{
    struct arena *arena = out->ctx->arena;
    struct json body = json_without(arena, event_tree(arena, out->event), NULL, 0);
    struct json extra = json_object();
    json_set(arena, &extra, LIT("invite_room_state"), out->room_state);
    json_set(arena, &body, LIT("unsigned"), extra);
    return put(out, "/_matrix/federation/v1/invite/%s/%s", &body, answer_out);
}

/* v1 answers [200, {"event": ...}]. */
static struct err unwrap_v1(struct out_invite *out, struct fed_answer *answer)
{
    struct json whole;
    if (answer->status / 100 == 2) {
        TRY(json_parse(out->ctx->arena, answer->body, &whole));
        if (whole.type == JSON_ARRAY && whole.count == 2) {
            answer->json = whole.items[1];
        }
    }
    return OK;
}

static struct err ask(struct out_invite *out, struct json *answer_out)
{
    struct fed_answer answer;
    TRY(put_v2(out, &answer));
    bool old = out->event->rules->event_format == EVENT_FORMAT_1;
    if (old && (answer.status == 400 || answer.status == 404)) {
        TRY(put_v1(out, &answer));
        TRY(unwrap_v1(out, &answer));
    }
    return fed_answer_json(out->ctx, &answer, answer_out);
}

/* Of the answer only the invited server's signature is taken. */
static struct err add_signature(struct out_invite *out, const struct json *answer,
                                struct event *signed_out)
{
    struct arena *arena = out->ctx->arena;
    const struct json *theirs = json_get_object(
        json_get_object(json_get_object(answer, LIT("event")), LIT("signatures")), out->server);
    if (!theirs || theirs->count == 0) {
        return err_public(ERR_M_REMOTE, "The invited user's server did not sign the invite.");
    }
    struct json tree = json_without(arena, event_tree(arena, out->event), NULL, 0);
    struct json signatures = json_without(arena, json_get(&tree, LIT("signatures")), NULL, 0);
    json_set(arena, &signatures, out->server, *theirs);
    json_set(arena, &tree, LIT("signatures"), signatures);
    return event_parse_tree(arena, out->event->rules, &tree, signed_out);
}

static struct err take(struct out_invite *out, const struct event *event, struct hs_sent *sent_out)
{
    struct intake intake = {.event = event};
    struct intake_report report;
    TRY(hs_intake_event(out->hs, out->ctx, out->room, &intake, &report));
    if (report.result != INTAKE_ACCEPTED && report.result != INTAKE_KNOWN) {
        return err_public(ERR_M_FORBIDDEN, "The room does not allow this invite any more.");
    }
    *sent_out = report.sent;
    return OK;
}

static struct err invite_and_store(struct out_invite *out, struct hs_sent *sent_out)
{
    struct json answer;
    struct event event;
    TRY(resident_room_state(out->hs, out->ctx, out->room, &out->room_state));
    TRY(ask(out, &answer));
    TRY(add_signature(out, &answer, &event));
    return take(out, &event, sent_out);
}

struct err fed_invite(struct hs *hs, struct ctx *ctx, struct room *room, const struct event *invite,
                      struct hs_sent *sent_out)
{
    struct slice user_id = invite->state_key;
    struct out_invite out = {.hs = hs,
                             .ctx = ctx,
                             .room = room,
                             .event = invite,
                             .server = ids_user_domain(ids_trust_user(user_id)).s};
    if (!ctx->may_wait) {
        return err_make(ERR_WAITS, "the invited user's server signs the invite");
    }
    fed_invite_begin(hs->fed, invite->room_id.s, user_id);
    struct err err = invite_and_store(&out, sent_out);
    fed_invite_end(hs->fed, invite->room_id.s, user_id);
    return err;
}
