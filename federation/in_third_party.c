/* Invites to addresses that turned into users: an identity server tells this server of a binding
 * (onbind); the server of the user who invited turns the invite of the address into one of the user
 * (exchange_third_party_invite). Spec: server-server, "Third-party invites". */
#include "federation/resident.h"
#include "federation/routes.h"
#include "homeserver/http/fetch.h"
#include "homeserver/room/third_party.h"
#include "homeserver/service/memberships.h"
#include "homeserver/service/users.h"

enum { BOUND_INVITES_MAX = 20, VALIDITY_TIMEOUT_MS = 10000, EXCHANGE_TIMEOUT_MS = 15000 };

/* One invite that is to be exchanged. */
struct exchange {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    struct slice sender, target;
    const struct json *third_party; /* content.third_party_invite */
    struct slice name;              /* the room's, for who was invited */
};

/* --- the admitting server --- */

/* Spec: client-server, "Third-party invites": the server that admits asks whether the key has been
 * revoked. */
static struct err check_validity(const struct exchange *x, struct slice url, struct slice key_text)
{
    struct ctx *ctx = x->ctx;
    struct http_fetch_reply reply;
    struct json answer;
    struct slice query = fed_path(ctx, "?public_key=%s", &key_text, 1);
    bool any = x->hs->conf->network_allow_private_addresses;
    struct http_fetch_request request = {.url = arena_concat(ctx->arena, url, query),
                                         .timeout_ms = VALIDITY_TIMEOUT_MS,
                                         .body_bytes_max = 1 << 16,
                                         .flags = HTTP_FETCH_HTTPS_ONLY |
                                                  (any ? HTTP_FETCH_ANY_ADDRESS : 0)};
    if (!ctx->may_wait) {
        return err_make(ERR_WAITS, "an identity server is asked");
    }
    TRY(http_fetch(x->hs->fetcher, ctx, &request, &reply));
    bool valid = reply.status == 200 && json_parse(ctx->arena, reply.body, &answer).code == 0 &&
                 json_get_bool(&answer, LIT("valid"), false);
    return valid ? OK : err_public(ERR_M_FORBIDDEN, "The key of the invite is not valid any more.");
}

/* The key of `holder` (the event's content, or one of public_keys) if it signed. */
static struct err check_key(const struct exchange *x, struct third_party_proof *proof,
                            const struct json *holder, bool *signed_out)
{
    struct slice key = json_get_string(holder, LIT("public_key"));
    struct slice url = json_get_string(holder, LIT("key_validity_url"));
    *signed_out = third_party_fits(proof, key);
    return *signed_out && url.ptr ? check_validity(x, url, key) : OK;
}

static struct err check_proof(struct exchange *x)
{
    const struct json *proof = json_get_object(x->third_party, LIT("signed"));
    struct slice token = json_get_string(proof, LIT("token"));
    struct stored_event event;
    bool found = false;
    bool is_signed = false;
    if (!token.ptr || !json_is_string(json_get(proof, LIT("mxid")), x->target)) {
        return err_public(ERR_M_INVALID_PARAM, "`signed` is not about the invited user.");
    }
    TRY(hs_state_event(x->hs, x->ctx, x->room, hs_room_head(x->room).root,
                       LIT("m.room.third_party_invite"), token, &event, &found));
    if (!found || !slice_eq(event.event.sender.s, x->sender)) {
        return err_public(ERR_M_FORBIDDEN, "The room holds no such invite of an address.");
    }
    x->name = json_get_string(event.event.content, LIT("display_name"));
    struct third_party_proof read = third_party_read(x->ctx->arena, proof);
    TRY(check_key(x, &read, event.event.content, &is_signed));
    const struct json *keys = json_get_array(event.event.content, LIT("public_keys"));
    for (uint32_t i = 0; keys && i < keys->count && !is_signed; i++) {
        TRY(check_key(x, &read, &keys->items[i], &is_signed));
    }
    return is_signed ? OK : err_public(ERR_M_FORBIDDEN, "The invite's signature is not valid.");
}

/* Who was invited goes by the name that the inviter gave, not by the address. */
static struct json invited(const struct exchange *x)
{
    struct arena *arena = x->ctx->arena;
    struct json invite = json_object();
    json_set(arena, &invite, LIT("display_name"), json_string(x->name.ptr ? x->name : LIT("")));
    json_set(arena, &invite, LIT("signed"), *json_get_object(x->third_party, LIT("signed")));
    return invite;
}

static struct err admit(struct exchange *x)
{
    struct actor actor = {.user_id = x->sender};
    struct json extra = json_object();
    struct hs_sent sent;
    bool found = false;
    if (!hs_user_is_local(x->hs, x->sender)) {
        return err_public(ERR_M_FORBIDDEN, "The user who invited is not one of this server.");
    }
    TRY(check_proof(x));
    TRY(hs_user_find(x->hs, x->ctx, x->sender, &actor.user, &found));
    if (!found) {
        return err_public(ERR_M_FORBIDDEN, "The user who invited is not known.");
    }
    json_set(x->ctx->arena, &extra, LIT("third_party_invite"), invited(x));
    struct member_change change = {
        .target = x->target, .membership = MEMBERSHIP_INVITE, .extra = &extra};
    return hs_member_set(x->hs, x->ctx, x->room, &actor, &change, &sent);
}

static struct err exchange(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct resident_call call = {.membership = MEMBERSHIP_INVITE};
    const struct json *body = &request->json;
    const struct json *content = json_get_object(body, LIT("content"));
    struct exchange x = {.hs = app,
                         .ctx = ctx,
                         .sender = json_get_string(body, LIT("sender")),
                         .target = json_get_string(body, LIT("state_key")),
                         .third_party = json_get_object(content, LIT("third_party_invite"))};
    TRY(resident_begin(&call, app, ctx, request, reply));
    x.room = call.room;
    bool fits = json_is_string(json_get(body, LIT("type")), LIT("m.room.member")) &&
                json_is_string(json_get(body, LIT("room_id")), request->params[0]) &&
                json_is_string(json_get(content, LIT("membership")), LIT("invite")) &&
                ids_is_user(x.sender) && ids_is_user(x.target) && x.third_party;
    if (!fits) {
        return err_public(ERR_M_INVALID_PARAM, "The body is no invite by way of an address.");
    }
    TRY(admit(&x));
    http_reply_empty(reply);
    return OK;
}

/* --- the bound user's server --- */

struct bound {
    struct hs *hs;
    struct ctx *ctx;
    struct slice mxid, room_id, sender;
    struct json third_party;
};

static struct err read_bound(struct bound *b, const struct json *invite)
{
    const struct json *proof = json_get_object(invite, LIT("signed"));
    b->room_id = json_get_string(invite, LIT("room_id"));
    b->sender = json_get_string(invite, LIT("sender"));
    if (!proof || !ids_is_room(b->room_id) || !ids_is_user(b->sender) ||
        !json_is_string(json_get(invite, LIT("mxid")), b->mxid)) {
        return err_public(ERR_M_INVALID_PARAM, "An invite of the body is not complete.");
    }
    b->third_party = json_object();
    json_set(b->ctx->arena, &b->third_party, LIT("display_name"), json_string(LIT("")));
    json_set(b->ctx->arena, &b->third_party, LIT("signed"), *proof);
    return OK;
}

static struct err admit_here(struct bound *b)
{
    struct exchange x = {.hs = b->hs,
                         .ctx = b->ctx,
                         .sender = b->sender,
                         .target = b->mxid,
                         .third_party = &b->third_party};
    TRY(hs_room_get_by_id(b->hs, b->ctx, b->room_id, &x.room));
    return admit(&x);
}

static struct err ask_sender(struct bound *b)
{
    struct arena *arena = b->ctx->arena;
    struct json body = json_object();
    struct json content = json_object();
    struct json answer;
    json_set(arena, &content, LIT("membership"), json_string(LIT("invite")));
    json_set(arena, &content, LIT("third_party_invite"), b->third_party);
    json_set(arena, &body, LIT("type"), json_string(LIT("m.room.member")));
    json_set(arena, &body, LIT("room_id"), json_string(b->room_id));
    json_set(arena, &body, LIT("sender"), json_string(b->sender));
    json_set(arena, &body, LIT("state_key"), json_string(b->mxid));
    json_set(arena, &body, LIT("content"), content);
    struct fed_call call = {
        .destination = ids_user_domain(ids_trust_user(b->sender)).s,
        .method = LIT("PUT"),
        .path = fed_path(b->ctx, "/_matrix/federation/v1/exchange_third_party_invite/%s",
                         &b->room_id, 1),
        .content = &body,
        .body_bytes_max = FED_SMALL_ANSWER,
        .timeout_ms = EXCHANGE_TIMEOUT_MS};
    return fed_call_json(b->hs->fed, b->ctx, &call, &answer);
}

static struct err take_bound(struct bound *b, const struct json *invite)
{
    TRY(read_bound(b, invite));
    return hs_user_is_local(b->hs, b->sender) ? admit_here(b) : ask_sender(b);
}

/* Anybody may call this: what it asks for is checked where the invite is admitted, and it is
 * little.
 */
static struct err onbind(void *app, struct ctx *ctx, const struct http_request *request,
                         struct http_reply *reply)
{
    struct bound b = {.hs = app, .ctx = ctx, .mxid = json_get_string(&request->json, LIT("mxid"))};
    const struct json *invites = json_get_array(&request->json, LIT("invites"));
    uint64_t user = 0;
    bool found = false;
    if (!ids_is_user(b.mxid) || !hs_user_is_local(b.hs, b.mxid) || !invites ||
        invites->count > BOUND_INVITES_MAX) {
        return err_public(
            ERR_M_INVALID_PARAM,
            "`mxid` must be a user of this server and `invites` a list of 20 at most.");
    }
    TRY(hs_user_find(b.hs, ctx, b.mxid, &user, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "There is no such user here.");
    }
    for (uint32_t i = 0; i < invites->count; i++) {
        struct err err = take_bound(&b, &invites->items[i]);
        if (err.code == ERR_WAITS || err.code == ERR_M_INVALID_PARAM) {
            return err;
        }
        if (err.code != 0) {
            log_info(ctx->log, "bound_invite_failed", .room = b.room_id, .user = b.mxid,
                     .err = slice_of(err.text));
        }
    }
    http_reply_empty(reply);
    return OK;
}

enum { BODY_BYTES_MAX = 1 << 17 };

static const struct http_route routes[] = {
    {HTTP_PUT, "/_matrix/federation/v1/exchange_third_party_invite/{roomId}", HTTP_AUTH_SERVER,
     HTTP_RATE_FEDERATION, HTTP_BODY_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, exchange,
     "Third-party invites", NULL, 0},
    {HTTP_PUT, "/_matrix/federation/v1/3pid/onbind", HTTP_AUTH_NONE, HTTP_RATE_FEDERATION,
     HTTP_BODY_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, onbind, "Third-party invites", NULL, 0},
};
const struct http_route_table ss_third_party_routes = {routes, COUNT_OF(routes)};
