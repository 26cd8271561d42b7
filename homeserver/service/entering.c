#include "homeserver/service/entering.h"

#include "homeserver/service/directory.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/notices.h"
#include "homeserver/service/remote.h"
#include "homeserver/service/succession.h"
#include "homeserver/service/users.h"

enum { SERVERS_MAX = 40, JOIN_ATTEMPTS_MAX = 3 };

enum sender_kind { SENDER_OF_OWN_MEMBER, SENDER_ANY };

struct entry {
    struct hs *hs;
    struct ctx *ctx;
    const struct hs_entering *want;
    struct slice room_id;
    struct room *room; /* NULL: not known here */
    struct slice servers[SERVERS_MAX];
    size_t server_count;
};

static void add_server(struct entry *e, struct slice server)
{
    bool known = !ids_is_server_name(server) || hs_is_local(e->hs, server);
    for (size_t i = 0; i < e->server_count && !known; i++) {
        known = slice_eq(e->servers[i], server);
    }
    if (!known && e->server_count < SERVERS_MAX) {
        e->servers[e->server_count++] = server;
    }
}

/* --- names --- */

static struct err resolve_here(struct hs *hs, struct ctx *ctx, struct slice alias,
                               struct json *answer_out)
{
    struct room *room = NULL;
    struct slice *servers = NULL;
    size_t count = 0;
    TRY(hs_alias_find_room(hs, ctx, alias, &room));
    TRY(hs_room_servers(hs, ctx, room, &servers, &count));
    struct json list = json_array();
    json_push(ctx->arena, &list, json_string(hs->server_name));
    for (size_t i = 0; i < count; i++) {
        json_push(ctx->arena, &list, json_string(servers[i]));
    }
    *answer_out = json_object();
    json_set(ctx->arena, answer_out, LIT("room_id"), json_string(hs_room_info(room).room_id));
    json_set(ctx->arena, answer_out, LIT("servers"), list);
    return OK;
}

struct err hs_alias_resolve(struct hs *hs, struct ctx *ctx, struct slice alias,
                            struct json *answer_out)
{
    struct slice server = ids_alias_domain(ids_trust_alias(alias)).s;
    if (hs_is_local(hs, server)) {
        return resolve_here(hs, ctx, alias, answer_out);
    }
    if (!hs->remote || !hs->remote->alias) {
        return err_public(ERR_M_NOT_FOUND, "The room alias does not exist.");
    }
    TRY(hs->remote->alias(hs, ctx, alias, answer_out));
    return ids_is_room(json_get_string(answer_out, LIT("room_id")))
               ? OK
               : err_public(ERR_M_NOT_FOUND, "The room alias does not exist.");
}

static struct err find_by_alias(struct entry *e)
{
    struct json answer;
    TRY(hs_alias_resolve(e->hs, e->ctx, e->want->name, &answer));
    const struct json *servers = json_get_array(&answer, LIT("servers"));
    e->room_id = json_get_string(&answer, LIT("room_id"));
    add_server(e, ids_alias_domain(ids_trust_alias(e->want->name)).s);
    for (uint32_t i = 0; servers && i < servers->count; i++) {
        if (servers->items[i].type == JSON_STRING) {
            add_server(e, servers->items[i].text);
        }
    }
    return OK;
}

static struct err find_room(struct entry *e)
{
    uint64_t number = 0;
    bool found = false;
    e->room = NULL;
    TRY(hs_room_find(e->hs, e->ctx, e->room_id, &number, &found));
    return found ? hs_room_get(e->hs, e->ctx, number, &e->room) : OK;
}

/* --- whom to ask --- */

static void add_senders(struct entry *e, const struct json *state, enum sender_kind kind)
{
    for (uint32_t i = 0; state->type == JSON_ARRAY && i < state->count; i++) {
        const struct json *one = &state->items[i];
        struct slice sender = json_get_string(one, LIT("sender"));
        bool own = json_is_string(json_get(one, LIT("state_key")), e->want->actor->user_id);
        if ((own || kind == SENDER_ANY) && ids_is_user(sender)) {
            add_server(e, ids_user_domain(ids_trust_user(sender)).s);
        }
    }
}

/* Who invited is surely in the room; whoever else the stripped state names may be. */
static struct err add_inviters(struct entry *e)
{
    struct user_room mine;
    struct json state;
    bool found = false;
    if (!e->room) {
        return OK;
    }
    TRY(hs_user_room(e->hs, e->ctx, e->want->actor->user, hs_room_info(e->room).number, &mine,
                     &found));
    if (!found || !mine.invite_state.len) {
        return OK;
    }
    TRY(json_parse(e->ctx->arena, mine.invite_state, &state));
    add_senders(e, &state, SENDER_OF_OWN_MEMBER);
    add_senders(e, &state, SENDER_ANY);
    return OK;
}

/* The servers that were named, by the client or with the alias, and who invited. Where these are
 * none: what this server itself can guess. */
static struct err list_servers(struct entry *e)
{
    struct slice *known = NULL;
    size_t known_count = 0;
    TRY(add_inviters(e));
    if (e->server_count) {
        return OK;
    }
    add_server(e, ids_room_domain(ids_trust_room(e->room_id)).s);
    if (e->room && hs_room_head(e->room).number) {
        TRY(hs_room_servers(e->hs, e->ctx, e->room, &known, &known_count));
    }
    for (size_t i = 0; i < known_count; i++) {
        add_server(e, known[i]);
    }
    return OK;
}

/* --- here --- */

static struct err check_guest(struct entry *e)
{
    struct stored_event event;
    bool found = false;
    if (!e->want->actor->is_guest) {
        return OK;
    }
    TRY(hs_state_event(e->hs, e->ctx, e->room, hs_room_head(e->room).root,
                       LIT("m.room.guest_access"), LIT(""), &event, &found));
    if (!found ||
        !json_is_string(json_get(event.event.content, LIT("guest_access")), LIT("can_join"))) {
        return err_public(ERR_M_GUEST_ACCESS_FORBIDDEN, "Guests may not join this room.");
    }
    return OK;
}

static struct err enter_here(struct entry *e)
{
    struct hs_sent sent;
    struct member_change change = {.target = e->want->actor->user_id,
                                   .membership = e->want->membership,
                                   .reason = e->want->reason,
                                   .extra = e->want->extra};
    return hs_member_set(e->hs, e->ctx, e->room, e->want->actor, &change, &sent);
}

/* --- through others --- */

static struct json extra_of(const struct entry *e)
{
    struct arena *arena = e->ctx->arena;
    struct json extra =
        e->want->extra ? json_without(arena, e->want->extra, NULL, 0) : json_object();
    if (e->want->reason.ptr) {
        json_set(arena, &extra, LIT("reason"), json_string(e->want->reason));
    }
    return extra;
}

/* Before a join the room's state is not to be had; its summary says whether guests may come in.
 * Spec: client-server, "Guest Access". */
static struct err check_guest_there(struct entry *e)
{
    struct json answer = json_object();
    struct remote_servers via = {e->servers, e->server_count};
    if (!e->want->actor->is_guest) {
        return OK;
    }
    struct err err = e->hs->remote->hierarchy(e->hs, e->ctx, e->room_id, via, false, &answer);
    if (err.code != 0 && !hs_member_is_refusal(err)) {
        return err;
    }
    bool may_join = err.code == 0 && json_get_bool(json_get_object(&answer, LIT("room")),
                                                   LIT("guest_can_join"), false);
    return may_join ? OK
                    : err_public(ERR_M_GUEST_ACCESS_FORBIDDEN, "Guests may not join this room.");
}

/* The state that came with the join decides, whatever the summary said. */
static struct err leave_if_no_guest(struct entry *e)
{
    struct hs_sent sent;
    struct member_change change = {
        .target = e->want->actor->user_id, .membership = MEMBERSHIP_LEAVE, .insists = true};
    struct err err = check_guest(e);
    if (err.code == ERR_M_GUEST_ACCESS_FORBIDDEN) {
        TRY(hs_member_set(e->hs, e->ctx, e->room, e->want->actor, &change, &sent));
    }
    return err;
}

static struct err join_remote(struct entry *e, const struct remote_membership *want)
{
    TRY(e->hs->remote->join(e->hs, e->ctx, want));
    TRY(find_room(e));
    if (!e->room) { /* purged in this instant */
        return OK;
    }
    TRY(leave_if_no_guest(e));
    return hs_succession_carry(e->hs, e->ctx, e->room, e->want->actor);
}

static struct err enter_remote(struct entry *e)
{
    struct json extra = extra_of(e);
    struct remote_membership want = {.actor = e->want->actor,
                                     .room_id = e->room_id,
                                     .via = {e->servers, e->server_count},
                                     .extra = &extra,
                                     .version_out = e->want->version_out};
    TRY(check_guest_there(e));
    return e->want->membership == MEMBERSHIP_JOIN ? join_remote(e, &want)
                                                  : e->hs->remote->knock(e->hs, e->ctx, &want);
}

static bool may_ask_others(const struct entry *e)
{
    return e->hs->remote && e->server_count > 0;
}

/* Spec: server-server, "Restricted rooms": a server that cannot vouch itself asks another one. */
static struct err enter_once(struct entry *e)
{
    TRY(find_room(e));
    TRY(list_servers(e));
    if (!e->room || !hs_room_is_resident(e->room)) {
        return may_ask_others(e)
                   ? enter_remote(e)
                   : err_public(ERR_M_NOT_FOUND, "No server is known that is in the room.");
    }
    struct err err = enter_here(e);
    bool cannot_vouch =
        err.code == ERR_M_UNABLE_TO_AUTHORISE_JOIN || err.code == ERR_M_UNABLE_TO_GRANT_JOIN;
    if (!cannot_vouch) {
        return err;
    }
    if (may_ask_others(e)) {
        return enter_remote(e);
    }
    return err_public(ERR_M_FORBIDDEN, "Nobody here can tell that you may join this room.");
}

struct err hs_room_enter(struct hs *hs, struct ctx *ctx, const struct hs_entering *entering,
                         struct slice *room_id_out)
{
    struct entry e = {.hs = hs, .ctx = ctx, .want = entering, .room_id = entering->name};
    struct err err = OK;
    for (size_t i = 0; i < entering->via_count; i++) {
        add_server(&e, entering->via[i]);
    }
    if (entering->name.len && entering->name.ptr[0] == '#') {
        TRY(find_by_alias(&e));
    }
    for (int attempt = 0; attempt < JOIN_ATTEMPTS_MAX; attempt++) {
        err = enter_once(&e);
        if (err.code != ERR_CONFLICT) { /* somebody else's join brought the room here */
            break;
        }
    }
    TRY(err);
    *room_id_out = arena_copy(ctx->arena, e.room_id);
    return OK;
}

/* --- leaving --- */

static struct err leave_remote(struct entry *e)
{
    struct json extra = extra_of(e);
    struct remote_membership want = {
        .actor = e->want->actor, .room_id = e->room_id, .extra = &extra};
    TRY(list_servers(e));
    want.via = (struct remote_servers){e->servers, e->server_count};
    if (!e->hs->remote) {
        return hs_intake_uninvite(e->hs, e->ctx, e->room_id, e->want->actor->user, NULL);
    }
    return e->hs->remote->leave(e->hs, e->ctx, &want);
}

/* The invite stands in this server's own log, and no other server has a member to tell. */
static struct err is_ours_alone(struct entry *e, const struct user_room *mine, bool *is_out)
{
    struct slice *servers = NULL;
    size_t count = 0;
    *is_out = false;
    if (mine->invite_state.len || hs_room_head(e->room).number == 0) {
        return OK;
    }
    TRY(hs_room_servers(e->hs, e->ctx, e->room, &servers, &count));
    *is_out = count == 0;
    return OK;
}

struct err hs_room_leave(struct hs *hs, struct ctx *ctx, const struct actor *actor,
                         struct slice room_id, struct slice reason)
{
    struct hs_entering want = {.actor = actor, .reason = reason};
    struct entry e = {.hs = hs, .ctx = ctx, .want = &want, .room_id = room_id};
    struct user_room mine;
    struct hs_sent sent;
    bool found = false;
    TRY(hs_room_get_by_id(hs, ctx, room_id, &e.room));
    TRY(hs_user_room(hs, ctx, actor->user, hs_room_info(e.room).number, &mine, &found));
    bool waits =
        found && (mine.membership == MEMBERSHIP_INVITE || mine.membership == MEMBERSHIP_KNOCK);
    bool alone = false;
    if (waits && !hs_room_is_resident(e.room)) {
        TRY(is_ours_alone(&e, &mine, &alone));
        if (!alone) {
            return leave_remote(&e);
        }
    }
    struct member_change change = {
        .target = actor->user_id, .membership = MEMBERSHIP_LEAVE, .reason = reason};
    TRY(hs_notice_check_leave(hs, ctx, e.room, actor));
    return hs_member_set(hs, ctx, e.room, actor, &change, &sent);
}
