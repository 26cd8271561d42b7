#include "homeserver/service/sending.h"

#include "homeserver/room/auth.h"
#include "homeserver/room/power.h"
#include "homeserver/room/relates.h"
#include "homeserver/service/directory.h"
#include "homeserver/service/entering.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/notices.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/users.h"

struct err hs_room_power(struct hs *hs, struct ctx *ctx, struct room *room,
                         struct power_levels *levels_out)
{
    struct stored_event *events = arena_array(ctx->arena, 2, sizeof *events);
    bool has_create = false;
    bool has_levels = false;
    uint64_t root = hs_room_head(room).root;
    TRY(hs_state_event(hs, ctx, room, root, LIT("m.room.create"), LIT(""), &events[0],
                       &has_create));
    TRY(hs_state_event(hs, ctx, room, root, LIT("m.room.power_levels"), LIT(""), &events[1],
                       &has_levels));
    *levels_out = power_load(room->rules, has_create ? &events[0].event : NULL,
                             has_levels ? &events[1].event : NULL);
    return OK;
}

static struct hs_draft draft_of(const struct send_request *request)
{
    return (struct hs_draft){.sender = request->actor->user_id,
                             .sender_number = request->actor->user,
                             .type = request->type,
                             .state_key = request->state_key,
                             .content = *request->content,
                             .device_id = request->device_id,
                             .txn_id = request->txn_id,
                             .origin_server_ts = request->origin_server_ts};
}

/* Spec: "the same user should not annotate an event twice with the same key". */
static struct err check_annotation(struct hs *hs, struct ctx *ctx, struct room *room,
                                   const struct send_request *request,
                                   const struct relation *relation)
{
    struct relation_rows rows;
    TRY(room_relations(hs, ctx, room, relation->event_id.s, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        const struct relation_row *row = &rows.items[i];
        if (row->sender == request->actor->user && slice_eq(row->rel_type, LIT("m.annotation")) &&
            slice_eq(row->type, request->type) && slice_eq(row->key, relation->key)) {
            return err_public(ERR_M_DUPLICATE_ANNOTATION, "You have already sent this reaction.");
        }
    }
    return OK;
}

/* Spec: "a thread root must not itself relate to another event". */
static struct err check_thread_root(struct hs *hs, struct ctx *ctx, struct room *room,
                                    struct slice root)
{
    struct stored_event event;
    bool found = false;
    TRY(hs_event_find(hs, ctx, room, root, &event, &found));
    if (found && !relates_may_be_thread_root(event.event.content)) {
        return err_public(ERR_M_UNKNOWN_400,
                          "A thread cannot start at an event that relates to another one.");
    }
    return OK;
}

static bool is_checked(const struct relation *relation)
{
    return relates_is(relation, LIT("m.annotation")) || relates_is(relation, LIT("m.thread"));
}

static struct err check_relation(struct hs *hs, struct ctx *ctx, struct room *room,
                                 const struct send_request *request,
                                 const struct relation *relation)
{
    return relates_is(relation, LIT("m.annotation"))
               ? check_annotation(hs, ctx, room, request, relation)
               : check_thread_root(hs, ctx, room, relation->event_id.s);
}

static struct err check_size(const struct send_request *request)
{
    if (request->type.len == 0 || request->type.len > 255) {
        return err_public(ERR_M_TOO_LARGE, "The event type must have 1 to 255 bytes.");
    }
    if (request->state_key.len > 255) {
        return err_public(ERR_M_TOO_LARGE, "The state key is longer than 255 bytes.");
    }
    return OK;
}

/* What a client sends, and what the room has to say about it. */
struct client_send {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    const struct send_request *request;
    struct slice redacts; /* of a redaction */
};

typedef struct err (*decide_fn)(void *arg, struct hs_draft *draft_out, struct hs_sent *sent_out,
                                bool *done_out);

static struct err propose(struct client_send *send, decide_fn decide, struct hs_sent *sent_out)
{
    struct hs_proposal proposal = {.decide = decide, .arg = send};
    return hs_propose(send->hs, send->ctx, send->room, &proposal, sent_out);
}

static struct err decide_message(void *arg, struct hs_draft *draft_out, struct hs_sent *sent_out,
                                 bool *done_out)
{
    struct client_send *send = arg;
    struct relation relation = relates_parse(send->request->content);
    *draft_out = draft_of(send->request);
    if (!is_checked(&relation)) {
        return OK;
    }
    /* What was sent before is not refused for having been sent before. */
    TRY(hs_txn_find(send->hs, send->ctx, send->room, draft_out, sent_out, done_out));
    return *done_out ? OK
                     : check_relation(send->hs, send->ctx, send->room, send->request, &relation);
}

struct err hs_send_message(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct send_request *request, struct hs_sent *sent_out)
{
    struct client_send send = {.hs = hs, .ctx = ctx, .room = room, .request = request};
    TRY(check_size(request));
    if (slice_eq(request->type, LIT("m.room.redaction"))) {
        struct slice target = json_get_string(request->content, LIT("redacts"));
        if (!target.ptr) {
            return err_public(ERR_M_MISSING_PARAM, "A redaction needs `redacts` in its content.");
        }
        return hs_redact(hs, ctx, room, request, target, sent_out);
    }
    return propose(&send, decide_message, sent_out);
}

/* --- state --- */

/* What a room's names are checked against. */
struct naming {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    const struct event *current; /* what was named before is not asked for again; NULL = nothing */
    size_t asked_count;
};

static struct err bad_alias(void)
{
    return err_public(ERR_M_BAD_ALIAS, "An alias does not point to this room.");
}

static bool has_alias(const struct json *content, struct slice alias)
{
    const struct json *others = json_get_array(content, LIT("alt_aliases"));
    if (json_is_string(json_get(content, LIT("alias")), alias)) {
        return true;
    }
    for (uint32_t i = 0; others && i < others->count; i++) {
        if (json_is_string(&others->items[i], alias)) {
            return true;
        }
    }
    return false;
}

static bool is_named(const struct naming *naming, const struct json *alias)
{
    return alias->type == JSON_STRING && naming->current &&
           has_alias(naming->current->content, alias->text);
}

static bool is_of_others(const struct naming *naming, const struct json *alias)
{
    return alias->type == JSON_STRING && ids_is_alias(alias->text) &&
           !hs_is_local(naming->hs, ids_alias_domain(ids_trust_alias(alias->text)).s);
}

/* An alias of this server. */
static struct err check_alias(struct naming *naming, const struct json *alias)
{
    uint64_t number = 0;
    uint64_t creator = 0;
    bool found = false;
    if (alias->type != JSON_STRING || !ids_is_alias(alias->text)) {
        return err_public(ERR_M_INVALID_PARAM, "An alias must have the form #name:server.");
    }
    TRY(hs_alias_get(naming->hs, naming->ctx, alias->text, &number, &creator, &found));
    return found && number == naming->room->number ? OK : bad_alias();
}

/* Outside of the lane the aliases of other servers were asked for. */
static struct err check_new_alias(struct naming *naming, const struct json *alias)
{
    return is_named(naming, alias) || is_of_others(naming, alias) ? OK : check_alias(naming, alias);
}

/* Another server knows where its alias points. */
static struct err ask_for_alias(struct naming *naming, const struct json *alias)
{
    enum { ASKED_MAX = 20 };
    struct json answer;
    if (is_named(naming, alias) || !is_of_others(naming, alias)) {
        return OK;
    }
    if (++naming->asked_count > ASKED_MAX) {
        return err_public(ERR_M_INVALID_PARAM,
                          "At most 20 aliases of other servers can be added at once.");
    }
    struct err err = hs_alias_resolve(naming->hs, naming->ctx, alias->text, &answer);
    if (err.code != 0) {
        return hs_send_is_refusal(err) ? bad_alias() : err;
    }
    return json_is_string(json_get(&answer, LIT("room_id")), hs_room_info(naming->room).room_id)
               ? OK
               : bad_alias();
}

typedef struct err (*alias_fn)(struct naming *naming, const struct json *alias);

static struct err each_alias(struct naming *naming, const struct json *content, alias_fn fn)
{
    const struct json *alias = json_get(content, LIT("alias"));
    const struct json *others = json_get(content, LIT("alt_aliases"));
    if (alias && alias->type != JSON_NULL && !json_is_string(alias, LIT(""))) {
        TRY(fn(naming, alias));
    }
    if (others && others->type != JSON_ARRAY) {
        return err_public(ERR_M_BAD_JSON, "alt_aliases must be a list of aliases.");
    }
    for (uint32_t i = 0; others && i < others->count; i++) {
        TRY(fn(naming, &others->items[i]));
    }
    return OK;
}

/* Spec: "servers must check that aliases newly added are valid and point to the room". */
static struct err check_canonical_alias(struct hs *hs, struct ctx *ctx, struct room *room,
                                        const struct json *content)
{
    struct naming naming = {.hs = hs, .ctx = ctx, .room = room};
    TRY(room_state_current(hs, ctx, room, LIT("m.room.canonical_alias"), LIT(""), &naming.current));
    return each_alias(&naming, content, check_new_alias);
}

struct err hs_check_first_alias(struct hs *hs, struct ctx *ctx, struct room *room,
                                const struct json *content)
{
    struct naming naming = {.hs = hs, .ctx = ctx, .room = room};
    return each_alias(&naming, content, check_alias);
}

static struct err ask_for_aliases(struct hs *hs, struct ctx *ctx, struct room *room,
                                  const struct json *content)
{
    struct naming naming = {.hs = hs, .ctx = ctx, .room = room};
    struct stored_event current;
    bool found = false;
    TRY(hs_state_event(hs, ctx, room, hs_room_head(room).root, LIT("m.room.canonical_alias"),
                       LIT(""), &current, &found));
    naming.current = found ? &current.event : NULL;
    return each_alias(&naming, content, ask_for_alias);
}

static bool names_room(const struct send_request *request)
{
    return slice_eq(request->type, LIT("m.room.canonical_alias")) && request->state_key.len == 0;
}

static struct err check_state(struct hs *hs, struct ctx *ctx, struct room *room,
                              const struct send_request *request)
{
    const struct event *create = NULL;
    if (slice_eq(request->type, LIT("m.room.create"))) {
        return err_public(ERR_M_INVALID_PARAM, "A room cannot be created twice.");
    }
    bool is_owned = room->rules->owned_state && slice_has_prefix(request->state_key, LIT("@"));
    if (is_owned && !ids_is_user(auth_state_key_owner(request->state_key))) {
        return err_public(ERR_M_BAD_JSON, "The state key begins with no valid user id.");
    }
    if (slice_eq(request->type, LIT("m.room.power_levels"))) {
        TRY(room_state_current(hs, ctx, room, LIT("m.room.create"), LIT(""), &create));
        return power_check_content(ctx->arena, room->rules, create, request->content);
    }
    if (names_room(request)) {
        return check_canonical_alias(hs, ctx, room, request->content);
    }
    return OK;
}

static struct err decide_state(void *arg, struct hs_draft *draft_out, struct hs_sent *sent_out,
                               bool *done_out)
{
    struct client_send *send = arg;
    (void)sent_out;
    (void)done_out;
    *draft_out = draft_of(send->request);
    return check_state(send->hs, send->ctx, send->room, send->request);
}

/* A member event written by hand takes the same road as the membership endpoints. */
static struct err send_member_state(struct hs *hs, struct ctx *ctx, struct room *room,
                                    const struct send_request *request, struct hs_sent *sent_out)
{
    struct slice word = json_get_string(request->content, LIT("membership"));
    struct slice drop[] = {LIT("membership"), LIT("join_authorised_via_users_server")};
    enum membership membership = membership_parse(word);
    if (!word.ptr || membership == MEMBERSHIP_OTHER || membership == MEMBERSHIP_NONE) {
        return err_public(ERR_M_BAD_JSON, "`membership` must be a known membership.");
    }
    if (!ids_is_user(request->state_key)) {
        return err_public(ERR_M_INVALID_PARAM, "The state key must be a user id.");
    }
    if (membership == MEMBERSHIP_LEAVE && slice_eq(request->state_key, request->actor->user_id)) {
        TRY(hs_notice_check_leave(hs, ctx, room, request->actor));
    }
    struct json extra = json_without(ctx->arena, request->content, drop, COUNT_OF(drop));
    struct member_change change = {
        .target = request->state_key, .membership = membership, .extra = &extra};
    return hs_member_set(hs, ctx, room, request->actor, &change, sent_out);
}

struct err hs_send_state(struct hs *hs, struct ctx *ctx, struct room *room,
                         const struct send_request *request, struct hs_sent *sent_out)
{
    TRY(check_size(request));
    if (slice_eq(request->type, LIT("m.room.member"))) {
        return send_member_state(hs, ctx, room, request, sent_out);
    }
    if (names_room(request)) {
        TRY(ask_for_aliases(hs, ctx, room, request->content));
    }
    struct client_send send = {.hs = hs, .ctx = ctx, .room = room, .request = request};
    struct err err = propose(&send, decide_state, sent_out);
    /* Spec: when guests may no longer join, those who are in the room leave it. */
    bool shuts_guests_out =
        slice_eq(request->type, LIT("m.room.guest_access")) && request->state_key.len == 0 &&
        !json_is_string(json_get(request->content, LIT("guest_access")), LIT("can_join"));
    return err.code == 0 && shuts_guests_out ? hs_guests_leave(hs, ctx, room) : err;
}

/* --- redaction --- */

/* An event that is not here may be on another server, or on its way: who has the power for any
 * event may redact it already. */
static struct err check_unknown_target(struct hs *hs, struct ctx *ctx, struct room *room,
                                       const struct send_request *request)
{
    struct power_levels levels;
    struct slice *servers = NULL;
    size_t count = 0;
    TRY(hs_room_servers(hs, ctx, room, &servers, &count));
    if (count == 0) {
        return err_public(ERR_M_NOT_FOUND, "The event to redact is not in this room.");
    }
    TRY(hs_room_power(hs, ctx, room, &levels));
    if (power_of_user(&levels, ids_trust_user(request->actor->user_id)) < levels.redact) {
        return err_public(ERR_M_FORBIDDEN, "You do not have the power to redact this event.");
    }
    return OK;
}

/* Versions 1 and 2 compare the servers of the event ids, so the one to come needs a server. */
static struct err check_target(const struct client_send *send, const struct stored_event *target)
{
    bool allowed = false;
    struct user_id sender = ids_trust_user(send->request->actor->user_id);
    struct event shape = {.rules = send->room->rules,
                          .id = ids_trust_event(arena_concat(send->ctx->arena, LIT("$new:"),
                                                             ids_user_domain(sender).s)),
                          .room_id = target->event.room_id,
                          .sender = sender,
                          .type = LIT("m.room.redaction"),
                          .redacts = ids_trust_event(send->redacts)};
    TRY(room_may_redact(send->hs, send->ctx, send->room, &shape, &target->event, &allowed));
    bool others_create = !slice_eq(target->event.sender.s, sender.s) &&
                         slice_eq(target->event.type, LIT("m.room.create"));
    return allowed && !others_create
               ? OK
               : err_public(ERR_M_FORBIDDEN, "You do not have the power to redact this event.");
}

static struct err decide_redaction(void *arg, struct hs_draft *draft_out, struct hs_sent *sent_out,
                                   bool *done_out)
{
    struct client_send *send = arg;
    struct stored_event target;
    bool found = false;
    *draft_out = draft_of(send->request);
    draft_out->type = LIT("m.room.redaction");
    draft_out->redacts = send->redacts;
    draft_out->content = json_without(send->ctx->arena, send->request->content, &LIT("redacts"), 1);
    TRY(hs_txn_find(send->hs, send->ctx, send->room, draft_out, sent_out, done_out));
    if (*done_out) {
        return OK;
    }
    TRY(hs_event_find(send->hs, send->ctx, send->room, send->redacts, &target, &found));
    return found ? check_target(send, &target)
                 : check_unknown_target(send->hs, send->ctx, send->room, send->request);
}

/* redact_is_allowed lets users of one server redact each other; among clients of this server only
 * the sender or someone with the power may. */
static struct err check_own_or_power(struct hs *hs, struct ctx *ctx, struct room *room,
                                     const struct send_request *request, struct slice event_id)
{
    struct stored_event target;
    struct power_levels levels;
    bool found = false;
    TRY(hs_event_find(hs, ctx, room, event_id, &target, &found));
    if (!found || slice_eq(target.event.sender.s, request->actor->user_id)) {
        return OK;
    }
    TRY(hs_room_power(hs, ctx, room, &levels));
    if (power_of_user(&levels, ids_trust_user(request->actor->user_id)) < levels.redact) {
        return err_public(ERR_M_FORBIDDEN, "You do not have the power to redact this event.");
    }
    return OK;
}

struct err hs_redact(struct hs *hs, struct ctx *ctx, struct room *room,
                     const struct send_request *request, struct slice event_id,
                     struct hs_sent *sent_out)
{
    TRY(check_own_or_power(hs, ctx, room, request, event_id));
    struct client_send send = {
        .hs = hs, .ctx = ctx, .room = room, .request = request, .redacts = event_id};
    return propose(&send, decide_redaction, sent_out);
}
