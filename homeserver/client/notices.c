/* Server notices for the tools that administrators have for Synapse. What operators use is
 * myelinctl. Spec: client-server, "Server Notices". */
#include "homeserver/service/notices.h"

#include "homeserver/client/rooms_priv.h"

static struct err find_account(struct cs_room_call *call, struct account *account_out)
{
    struct slice user_id;
    uint64_t user = 0;
    bool found = false;
    TRY(cs_body_required(call->request, LIT("user_id"), &user_id));
    if (ids_is_user(user_id) && hs_user_is_local(call->hs, user_id)) {
        TRY(hs_user_find(call->hs, call->ctx, user_id, &user, &found));
    }
    if (found) {
        TRY(hs_account_get(call->hs, call->ctx, user, account_out, &found));
    }
    return found && !(account_out->flags & ACCOUNT_DEACTIVATED)
               ? OK
               : err_public(ERR_M_NOT_FOUND, "There is no such account on this server.");
}

static struct err send_notice(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    struct account account;
    struct slice event_id;
    struct notice notice = {.content = json_get_object(&request->json, LIT("content"))};
    cs_call_begin(&call, app, ctx, request, reply);
    if (!notice.content) {
        return err_public(ERR_M_MISSING_PARAM, "`content` must be an object.");
    }
    TRY(find_account(&call, &account));
    TRY(cs_body_string(request, LIT("type"), &notice.type));
    TRY(cs_body_string(request, LIT("state_key"), &notice.state_key));
    if (request->params[0].ptr) { /* the transactions of each administrator are apart */
        notice.txn_id = arena_printf(ctx->arena, "%.*s %.*s", (int)call.actor.user_id.len,
                                     call.actor.user_id.ptr, (int)request->params[0].len,
                                     request->params[0].ptr);
    }
    TRY(hs_notice_send(call.hs, ctx, &account, &notice, &event_id));
    cs_reply_event_id(&call, event_id);
    return OK;
}

#define PATH "/_synapse/admin/v1/send_server_notice"
#define CALL HTTP_AUTH_ADMIN, HTTP_RATE_NONE, HTTP_BODY_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX
enum { BODY_BYTES_MAX = 1 << 17 };

static const struct http_route routes[] = {
    {HTTP_POST, PATH, CALL, send_notice, "Server Notices", NULL, 0},
    {HTTP_PUT, PATH "/{txnId}", CALL, send_notice, "Server Notices", NULL, 0},
};
const struct http_route_table cs_notices_routes = {routes, COUNT_OF(routes)};
