/* Spec: client-server, "Listing Notifications". */
#include "homeserver/service/notifications.h"

#include "homeserver/client/push_priv.h"
#include "homeserver/client/rooms_priv.h"

enum { LIMIT_DEFAULT = 20 };

/* Tokens are positions of the stream behind an n. */
static struct err read_from(struct slice from, uint64_t *before_out)
{
    *before_out = 0;
    if (!from.ptr || from.len == 0) {
        return OK;
    }
    if (from.ptr[0] != 'n' || !slice_parse_u64(slice_from(from, 1), before_out) ||
        *before_out == 0) {
        return err_public(ERR_M_INVALID_PARAM, "`from` is no token of this endpoint.");
    }
    return OK;
}

static struct err read_request(struct ctx *ctx, const struct http_request *request,
                               struct notifications_request *out)
{
    int64_t limit = 0;
    struct slice only = http_query_get(ctx, request, LIT("only"));
    TRY(read_from(http_query_get(ctx, request, LIT("from")), &out->before));
    TRY(http_query_int(ctx, request, LIT("limit"), LIMIT_DEFAULT, &limit));
    out->limit = limit < 1 ? 1 : (limit > NOTIFICATIONS_MAX ? NOTIFICATIONS_MAX : (size_t)limit);
    out->only_highlights = slice_eq(only, LIT("highlight"));
    return OK;
}

static struct err write_one(struct cs_room_call *call, const struct notification *notification)
{
    struct json_out *out = &call->out;
    json_out_object(out);
    json_out_key_raw(out, LIT("actions"), notification->verdict.actions);
    json_out_key(out, LIT("event"));
    TRY(hs_write_event(call->hs, call->ctx, notification->room, &call->viewer, &notification->event,
                       0, out));
    json_out_key_bool(out, LIT("read"), notification->is_read);
    json_out_key_string(out, LIT("room_id"), hs_room_info(notification->room).room_id);
    json_out_key_int(out, LIT("ts"), notification->event.event.origin_server_ts);
    json_out_object_end(out);
    return OK;
}

struct err cs_get_notifications(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct cs_room_call call;
    struct notifications found;
    struct notifications_request wanted = {0};
    cs_call_begin(&call, app, ctx, request, reply);
    wanted.user = call.actor.user;
    TRY(read_request(ctx, request, &wanted));
    TRY(hs_notifications_list(call.hs, ctx, &wanted, &found));
    json_out_object(&call.out);
    json_out_key_array(&call.out, LIT("notifications"));
    for (size_t i = 0; i < found.count; i++) {
        TRY(write_one(&call, &found.items[i]));
    }
    json_out_array_end(&call.out);
    if (found.next) {
        json_out_key_string(&call.out, LIT("next_token"),
                            arena_printf(ctx->arena, "n%llu", (unsigned long long)found.next));
    }
    json_out_object_end(&call.out);
    return OK;
}
