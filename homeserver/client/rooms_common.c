#include "homeserver/client/rooms_priv.h"

#include "homeserver/service/intake.h"
#include "homeserver/service/remote.h"

struct actor cs_actor(const struct http_request *request)
{
    const struct requester *requester = request->requester;
    return (struct actor){
        .user_id = requester->user_id,
        .user = requester->user,
        .is_guest = requester->is_guest,
        .appservice = requester->appservice,
    };
}

void cs_call_begin(struct cs_room_call *call, void *app, struct ctx *ctx,
                   const struct http_request *request, struct http_reply *reply)
{
    *call = (struct cs_room_call){.hs = app, .ctx = ctx, .request = request, .reply = reply};
    call->out = json_out_to(&reply->body);
    if (request->requester) {
        call->actor = cs_actor(request);
        call->viewer = (struct viewer){.user = call->actor.user,
                                       .user_id = call->actor.user_id,
                                       .device_id = request->requester->device_id};
    }
    call->viewer.memo = &call->memo;
}

struct err cs_room_begin(struct cs_room_call *call, void *app, struct ctx *ctx,
                         const struct http_request *request, struct http_reply *reply)
{
    cs_call_begin(call, app, ctx, request, reply);
    if (!ids_is_room(request->params[0])) {
        return err_public(ERR_M_INVALID_PARAM, "The room id is not valid.");
    }
    struct err err = hs_room_get_by_id(call->hs, ctx, request->params[0], &call->room);
    if (err.code == ERR_M_NOT_FOUND) {
        return err_public(ERR_M_FORBIDDEN, "You are not in this room.");
    }
    return err;
}

struct err cs_room_whole_view(struct cs_room_call *call, struct room_view *view_out)
{
    bool is_partial = hs_room_is_partial(call->room); /* asked first: it may end meanwhile */
    TRY(hs_room_view(call->hs, call->ctx, call->room, call->actor.user, view_out));
    if (!is_partial || !call->hs->remote) {
        return OK;
    }
    TRY(call->hs->remote->await_complete(call->hs, call->ctx, call->room));
    return hs_room_view(call->hs, call->ctx, call->room, call->actor.user, view_out);
}

void cs_reply_event_id(struct cs_room_call *call, struct slice event_id)
{
    json_out_object(&call->out);
    json_out_key_string(&call->out, LIT("event_id"), event_id);
    json_out_object_end(&call->out);
}

struct err cs_body_string(const struct http_request *request, struct slice key,
                          struct slice *text_out)
{
    const struct json *value = json_get(&request->json, key);
    *text_out = (struct slice){0};
    if (!value || value->type == JSON_NULL) {
        return OK;
    }
    if (value->type != JSON_STRING) {
        return err_public(ERR_M_BAD_JSON, "A member of the body that must be a string is not.");
    }
    *text_out = value->text;
    return OK;
}

struct err cs_body_required(const struct http_request *request, struct slice key,
                            struct slice *text_out)
{
    TRY(cs_body_string(request, key, text_out));
    return text_out->ptr ? OK : err_public(ERR_M_MISSING_PARAM, "A required member is missing.");
}
