/* Locking and suspending accounts, and who is signed in from where.
 * Spec: client-server, "Server administration". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/users.h"

/* --- whois --- */

static void write_device(struct json_out *out, const struct device *device)
{
    json_out_key_object(out, device->device_id);
    json_out_key_array(out, LIT("sessions"));
    json_out_object(out);
    json_out_key_array(out, LIT("connections"));
    if (device->last_seen_ms) {
        json_out_object(out);
        json_out_key_string(out, LIT("ip"), device->last_seen_ip);
        json_out_key_int(out, LIT("last_seen"), device->last_seen_ms);
        json_out_key_string(out, LIT("user_agent"), device->user_agent);
        json_out_object_end(out);
    }
    json_out_array_end(out);
    json_out_object_end(out);
    json_out_array_end(out);
    json_out_object_end(out);
}

static struct err whois(void *app, struct ctx *ctx, const struct http_request *request,
                        struct http_reply *reply)
{
    struct cs_room_call call;
    struct devices devices = {0};
    struct slice user_id = request->params[0];
    uint64_t user = 0;
    bool found = false;
    cs_call_begin(&call, app, ctx, request, reply);
    if (!request->requester->is_admin && !slice_eq(user_id, call.actor.user_id)) {
        return err_public(ERR_M_FORBIDDEN, "Only administrators may ask about other users.");
    }
    if (!ids_is_user(user_id) || !hs_user_is_local(call.hs, user_id)) {
        return err_public(ERR_M_INVALID_PARAM, "The user does not belong to this server.");
    }
    TRY(hs_user_find(call.hs, ctx, user_id, &user, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "The user was not found.");
    }
    TRY(hs_devices_list(call.hs, ctx, user, &devices));
    json_out_object(&call.out);
    json_out_key_string(&call.out, LIT("user_id"), user_id);
    json_out_key_object(&call.out, LIT("devices"));
    for (size_t i = 0; i < devices.count; i++) {
        write_device(&call.out, &devices.items[i]);
    }
    json_out_object_end(&call.out);
    json_out_object_end(&call.out);
    return OK;
}

/* --- lock and suspend --- */

struct moderated {
    uint64_t user;
    uint32_t flags;
};

/* Spec: authorisation is checked before the account is looked for; the route has done so. */
static struct err find_account(struct cs_room_call *call, struct moderated *account_out)
{
    struct slice user_id = call->request->params[0];
    bool found = false;
    if (!ids_is_user(user_id) || !hs_user_is_local(call->hs, user_id)) {
        return err_public(ERR_M_INVALID_PARAM, "The user does not belong to this server.");
    }
    TRY(hs_user_find(call->hs, call->ctx, user_id, &account_out->user, &found));
    if (found) {
        TRY(hs_account_flags(call->hs, call->ctx, account_out->user, &account_out->flags, &found));
    }
    return found && !(account_out->flags & ACCOUNT_DEACTIVATED)
               ? OK
               : err_public(ERR_M_NOT_FOUND, "There is no such account.");
}

static void answer(struct cs_room_call *call, struct slice word, bool is_set)
{
    json_out_object(&call->out);
    json_out_key_bool(&call->out, word, is_set);
    json_out_object_end(&call->out);
}

static struct err read_flag(struct cs_room_call *call, uint32_t flag, struct slice word)
{
    struct moderated account;
    TRY(find_account(call, &account));
    answer(call, word, (account.flags & flag) != 0);
    return OK;
}

static struct err write_flag(struct cs_room_call *call, uint32_t flag, struct slice word)
{
    struct moderated account;
    const struct json *value = json_get(&call->request->json, word);
    if (!value) {
        return err_publicf(call->ctx->arena, ERR_M_MISSING_PARAM, "`%.*s` is missing.",
                           (int)word.len, word.ptr);
    }
    if (value->type != JSON_BOOL) {
        return err_publicf(call->ctx->arena, ERR_M_BAD_JSON, "`%.*s` must be a boolean.",
                           (int)word.len, word.ptr);
    }
    TRY(find_account(call, &account));
    if (account.user == call->actor.user || (account.flags & ACCOUNT_ADMIN)) {
        return err_public(ERR_M_FORBIDDEN, "Accounts of administrators cannot be changed so.");
    }
    TRY(hs_account_set_flags(call->hs, call->ctx, account.user, flag, value->boolean ? flag : 0));
    answer(call, word, value->boolean);
    return OK;
}

#define HANDLER(name, fn, flag, word)                                                              \
    static struct err name(void *app, struct ctx *ctx, const struct http_request *request,         \
                           struct http_reply *reply)                                               \
    {                                                                                              \
        struct cs_room_call call;                                                                  \
        cs_call_begin(&call, app, ctx, request, reply);                                            \
        return fn(&call, flag, LIT(word));                                                         \
    }
HANDLER(get_suspended, read_flag, ACCOUNT_SUSPENDED, "suspended")
HANDLER(put_suspended, write_flag, ACCOUNT_SUSPENDED, "suspended")
HANDLER(get_locked, read_flag, ACCOUNT_LOCKED, "locked")
HANDLER(put_locked, write_flag, ACCOUNT_LOCKED, "locked")

#define V1 "/_matrix/client/v1/admin/"
#define READ HTTP_AUTH_ADMIN, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0
#define WRITE HTTP_AUTH_ADMIN, HTTP_RATE_WRITE, HTTP_BODY_JSON, HTTP_LANE_NONE, 1024

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/client/v3/admin/whois/{userId}", HTTP_AUTH_USER, HTTP_RATE_READ,
     HTTP_BODY_NONE, HTTP_LANE_NONE, 0, whois, "Server administration", NULL, 0},
    {HTTP_GET, V1 "suspend/{userId}", READ, get_suspended, "Server administration", NULL, 0},
    {HTTP_PUT, V1 "suspend/{userId}", WRITE, put_suspended, "Server administration", NULL, 0},
    {HTTP_GET, V1 "lock/{userId}", READ, get_locked, "Server administration", NULL, 0},
    {HTTP_PUT, V1 "lock/{userId}", WRITE, put_locked, "Server administration", NULL, 0},
};
const struct http_route_table cs_moderation_routes = {routes, COUNT_OF(routes)};
