#include "federation/out_member.h"

#include "crypto/token.h"
#include "homeserver/room/auth_events.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/profiles.h"

enum { SHORT_TIMEOUT_MS = 15000, EVENT_ID_CHARS = 18, STATE_BYTES_MAX = 1 << 20 };

/* --- from server to server --- */

/* Errors that say something of this server alone. Spec: make_join, M_UNABLE_TO_AUTHORISE_JOIN and
 * M_UNABLE_TO_GRANT_JOIN ask for another server. */
static bool falls_over(struct err err)
{
    static const uint32_t codes[] = {
        ERR_LIMIT,
        ERR_SYNTAX,
        ERR_TIMEOUT,
        ERR_UNAVAILABLE,
        ERR_M_NOT_FOUND,
        ERR_M_LIMIT_EXCEEDED,
        ERR_M_INVALID_PARAM,
        ERR_M_REMOTE,
        ERR_M_UNABLE_TO_AUTHORISE_JOIN,
        ERR_M_UNABLE_TO_GRANT_JOIN,
    };
    for (size_t i = 0; i < COUNT_OF(codes); i++) {
        if (err.code == codes[i]) {
            return true;
        }
    }
    return false;
}

/* How much an error says to the user. */
static int weight(struct err err)
{
    switch (err.code) {
    case ERR_M_UNABLE_TO_GRANT_JOIN:
        return 4;
    case ERR_M_UNABLE_TO_AUTHORISE_JOIN:
        return 3;
    case ERR_M_NOT_FOUND:
        return 2;
    case ERR_M_REMOTE:
        return 1;
    default:
        return 0;
    }
}

static bool was_tried(const struct out_member *out, size_t index)
{
    const struct slice *names = out->want->via.names;
    for (size_t i = 0; i < index; i++) {
        if (slice_eq(names[i], names[index])) {
            return true;
        }
    }
    return hs_is_local(out->hs, names[index]) || !ids_is_server_name(names[index]);
}

static struct err settle(struct err err)
{
    bool vague = err.code < ERR_MATRIX_FIRST;
    return vague ? err_public(ERR_M_REMOTE, "No server of the room could be reached.") : err;
}

struct err out_member_try(struct out_member *out, out_attempt_fn attempt)
{
    struct err best = err_public(ERR_M_NOT_FOUND, "No server is known that is in the room.");
    bool any = false;
    for (size_t i = 0; i < out->want->via.count; i++) {
        if (was_tried(out, i)) {
            continue;
        }
        out->server = out->want->via.names[i];
        struct err err = attempt(out);
        if (err.code == 0) {
            return OK;
        }
        log_info(out->ctx->log, "membership_refused", .room = out->want->room_id,
                 .dest = out->server, .user = out->want->actor->user_id, .err = slice_of(err.text));
        if (!falls_over(err)) {
            return err;
        }
        best = !any || weight(err) > weight(best) ? err : best;
        any = true;
    }
    return settle(best);
}

/* --- make_* --- */

static struct slice make_path(const struct out_member *out)
{
    const struct slice parts[] = {membership_word(out->membership), out->want->room_id,
                                  out->want->actor->user_id};
    struct ctx *ctx = out->ctx;
    struct buf path;
    buf_init_arena(&path, ctx->arena, SIZE_MAX / 2);
    buf_add(&path, fed_path(ctx, "/_matrix/federation/v1/make_%s/%s/%s", parts, COUNT_OF(parts)));
    for (size_t i = 0; out->membership != MEMBERSHIP_LEAVE && room_rules_at(i); i++) {
        buf_add(&path, i == 0 ? LIT("?ver=") : LIT("&ver="));
        buf_add(&path, room_rules_at(i)->version);
    }
    return buf_slice(&path);
}

static struct err bad_template(void)
{
    return err_public(ERR_M_REMOTE, "The other server sent a template that was not asked for.");
}

/* Spec: make_join, what the caller verifies before it signs. */
static struct err check_template(const struct out_member *out, const struct json *template)
{
    const struct json *content = json_get_object(template, LIT("content"));
    struct slice user_id = out->want->actor->user_id;
    bool fits =
        json_is_string(json_get(template, LIT("room_id")), out->want->room_id) &&
        json_is_string(json_get(template, LIT("sender")), user_id) &&
        json_is_string(json_get(template, LIT("state_key")), user_id) &&
        json_is_string(json_get(template, LIT("type")), LIT("m.room.member")) &&
        json_is_string(json_get(content, LIT("membership")), membership_word(out->membership)) &&
        json_get_array(template, LIT("prev_events")) &&
        json_get_array(template, LIT("auth_events"));
    return fits ? OK : bad_template();
}

static struct err add_profile(const struct out_member *out, struct json *content)
{
    struct slice displayname = {0};
    struct slice avatar_url = {0};
    if (out->membership == MEMBERSHIP_LEAVE) {
        return OK;
    }
    TRY(hs_profile_names(out->hs, out->ctx, out->want->actor->user, &displayname, &avatar_url));
    if (displayname.ptr) {
        json_set(out->ctx->arena, content, LIT("displayname"), json_string(displayname));
    }
    if (avatar_url.ptr) {
        json_set(out->ctx->arena, content, LIT("avatar_url"), json_string(avatar_url));
    }
    return OK;
}

static struct err make_content(const struct out_member *out, const struct json *template,
                               struct json *content_out)
{
    struct arena *arena = out->ctx->arena;
    const struct json *extra = out->want->extra;
    struct slice authoriser = json_get_string(json_get(template, LIT("content")),
                                              LIT("join_authorised_via_users_server"));
    *content_out = json_object();
    TRY(add_profile(out, content_out));
    for (uint32_t i = 0; extra && i < extra->count; i++) {
        json_set(arena, content_out, extra->members[i].key, extra->members[i].value);
    }
    if (authoriser.ptr && out->membership == MEMBERSHIP_JOIN) {
        json_set(arena, content_out, LIT("join_authorised_via_users_server"),
                 json_string(authoriser));
    }
    json_set(arena, content_out, LIT("membership"), json_string(membership_word(out->membership)));
    return OK;
}

static struct json new_event_id(const struct out_member *out)
{
    struct slice opaque = token_random_name(out->ctx->arena, EVENT_ID_CHARS);
    struct slice server = out->hs->server_name;
    return json_string(arena_printf(out->ctx->arena, "$%.*s:%.*s", (int)opaque.len, opaque.ptr,
                                    (int)server.len, server.ptr));
}

/* The event from the template: of the peer's text only what places it in the room is taken. */
static struct err complete(struct out_member *out, const struct json *template)
{
    static const struct slice taken[] = {{"room_id", 7}, {"sender", 6},       {"state_key", 9},
                                         {"type", 4},    {"prev_events", 11}, {"auth_events", 11}};
    struct arena *arena = out->ctx->arena;
    struct json draft = json_object();
    struct json content;
    int64_t depth = 0;
    for (size_t i = 0; i < COUNT_OF(taken); i++) {
        json_set(arena, &draft, taken[i], *json_get(template, taken[i]));
    }
    TRY(make_content(out, template, &content));
    json_get_int(template, LIT("depth"), &depth);
    json_set(arena, &draft, LIT("depth"), json_int(depth));
    json_set(arena, &draft, LIT("content"), content);
    json_set(arena, &draft, LIT("origin"), json_string(out->hs->server_name));
    json_set(arena, &draft, LIT("origin_server_ts"), json_int(now_wall_ms(out->ctx->now)));
    if (out->rules->event_format == EVENT_FORMAT_1) {
        json_set(arena, &draft, LIT("event_id"), new_event_id(out));
    }
    struct err err = event_seal(arena, out->rules, &draft, &out->hs->signer, &out->event);
    return err.code == 0 ? OK : bad_template();
}

/* The room's version goes to the user with the refusal. Spec: client-server, "Common error codes",
 * M_INCOMPATIBLE_ROOM_VERSION. */
static struct err incompatible(struct out_member *out, const struct json *version, struct err err)
{
    if (out->want->version_out && version && version->type == JSON_STRING &&
        version->text.len <= LIMIT_ID_BYTES) {
        *out->want->version_out = version->text;
    }
    return err;
}

static struct err ask_template(struct out_member *out, struct json *answer_out)
{
    struct fed_answer answer;
    struct fed_call call = {.destination = out->server,
                            .path = make_path(out),
                            .body_bytes_max = FED_SMALL_ANSWER,
                            .timeout_ms = out->timeout_ms};
    TRY(fed_call(out->fed, out->ctx, &call, &answer));
    struct err err = fed_answer_json(out->ctx, &answer, answer_out);
    struct json body;
    if (err.code != ERR_M_INCOMPATIBLE_ROOM_VERSION ||
        json_parse(out->ctx->arena, answer.body, &body).code != 0) {
        return err;
    }
    return incompatible(out, json_get(&body, LIT("room_version")), err);
}

struct err out_member_make(struct out_member *out)
{
    struct json answer;
    TRY(ask_template(out, &answer));
    /* Spec: make_join, `room_version`: version 1 when it is absent. */
    const struct json *version = json_get(&answer, LIT("room_version"));
    out->rules = version && version->type == JSON_STRING ? room_rules_get(version->text)
                                                         : room_rules_get(LIT("1"));
    if (!out->rules) {
        return incompatible(out, version,
                            err_public(ERR_M_INCOMPATIBLE_ROOM_VERSION,
                                       "This server does not support the version of the room."));
    }
    const struct json *template = json_get_object(&answer, LIT("event"));
    TRY(check_template(out, template));
    return complete(out, template);
}

struct err out_member_send(struct out_member *out, struct json *answer_out)
{
    const struct slice parts[] = {out->want->room_id, out->event.id.s};
    const char *format = out->membership == MEMBERSHIP_LEAVE
                             ? "/_matrix/federation/v2/send_leave/%s/%s"
                             : "/_matrix/federation/v1/send_knock/%s/%s";
    struct fed_call call = {.destination = out->server,
                            .method = LIT("PUT"),
                            .path = fed_path(out->ctx, format, parts, COUNT_OF(parts)),
                            .content = event_tree(out->ctx->arena, &out->event),
                            .body_bytes_max = STATE_BYTES_MAX,
                            .timeout_ms = out->timeout_ms};
    return fed_call_json(out->fed, out->ctx, &call, answer_out);
}

/* --- knock and leave --- */

static struct out_member out_member_of(struct hs *hs, struct ctx *ctx,
                                       const struct remote_membership *want,
                                       enum membership membership)
{
    return (struct out_member){.hs = hs,
                               .fed = hs->fed,
                               .ctx = ctx,
                               .want = want,
                               .membership = membership,
                               .timeout_ms = SHORT_TIMEOUT_MS};
}

static struct err knock_once(struct out_member *out)
{
    struct json answer;
    struct json none = json_array();
    TRY(out_member_make(out));
    TRY(out_member_send(out, &answer));
    const struct json *state = json_get_array(&answer, LIT("knock_room_state"));
    struct intake_invite invite = {.room_id = out->want->room_id,
                                   .version = out->rules->version,
                                   .event = &out->event,
                                   .room_state = state ? state : &none};
    return hs_intake_invite(out->hs, out->ctx, &invite);
}

struct err fed_knock(struct hs *hs, struct ctx *ctx, const struct remote_membership *want)
{
    struct out_member out = out_member_of(hs, ctx, want, MEMBERSHIP_KNOCK);
    if (!ctx->may_wait) {
        return err_make(ERR_WAITS, "knocking asks another server");
    }
    return out_member_try(&out, knock_once);
}

static struct err leave_once(struct out_member *out)
{
    struct json answer;
    TRY(out_member_make(out));
    return out_member_send(out, &answer);
}

/* Where no server takes the leave, clients are shown one that only this server knows: it comes
 * after the invite or knock that it ends. */
static struct err leave_alone(struct out_member *out, struct event *event_out, bool *made_out)
{
    struct hs *hs = out->hs;
    struct arena *arena = out->ctx->arena;
    struct room *room = NULL;
    struct user_room mine;
    struct stored_event ended;
    struct json content = json_object();
    struct event_id auth[AUTH_EVENTS_MAX + 1];
    size_t auth_count = 0;
    *made_out = false;
    TRY(hs_room_get_by_id(hs, out->ctx, out->want->room_id, &room));
    TRY(hs_user_room(hs, out->ctx, out->want->actor->user, hs_room_info(room).number, &mine,
                     made_out));
    if (*made_out) {
        TRY(hs_event_load(hs, out->ctx, room, mine.number, &ended, made_out));
    }
    if (!*made_out) {
        return OK;
    }
    for (; auth_count < ended.event.auth_event_count && auth_count < AUTH_EVENTS_MAX;
         auth_count++) {
        auth[auth_count] = ended.event.auth_events[auth_count];
    }
    auth[auth_count++] = ended.event.id;
    out->rules = hs_room_info(room).rules;
    json_set(arena, &content, LIT("membership"), json_string(LIT("leave")));
    struct event_draft draft = {.rules = out->rules,
                                .room_id = ids_trust_room(out->want->room_id),
                                .sender = ids_trust_user(out->want->actor->user_id),
                                .type = LIT("m.room.member"),
                                .state_key = &out->want->actor->user_id,
                                .content = &content,
                                .origin_server_ts = now_wall_ms(out->ctx->now),
                                .depth = ended.event.depth + 1,
                                .prev_events = &ended.event.id,
                                .prev_event_count = 1,
                                .auth_events = auth,
                                .auth_event_count = auth_count};
    if (out->rules->event_format == EVENT_FORMAT_1) {
        draft.id = ids_trust_event(new_event_id(out).text);
    }
    struct json tree = event_draft_tree(arena, &draft);
    return event_seal(arena, out->rules, &tree, &hs->signer, event_out);
}

static struct err end_here(struct out_member *out, struct err refused)
{
    bool made = false;
    log_info(out->ctx->log, "left_here_alone", .room = out->want->room_id,
             .user = out->want->actor->user_id, .err = slice_of(refused.text));
    TRY(leave_alone(out, &out->event, &made));
    return hs_intake_uninvite(out->hs, out->ctx, out->want->room_id, out->want->actor->user,
                              made ? &out->event : NULL);
}

/* Nobody can be made to stay because servers are gone. */
struct err fed_leave(struct hs *hs, struct ctx *ctx, const struct remote_membership *want)
{
    struct out_member out = out_member_of(hs, ctx, want, MEMBERSHIP_LEAVE);
    if (!ctx->may_wait) {
        return err_make(ERR_WAITS, "leaving asks another server");
    }
    struct err err = out_member_try(&out, leave_once);
    if (err.code != 0) {
        return end_here(&out, err);
    }
    return hs_intake_uninvite(hs, ctx, want->room_id, want->actor->user, &out.event);
}
