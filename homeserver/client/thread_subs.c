/* Following threads: MSC4306 and the list of MSC4308, under their unstable names.
 * Spec: spec/thread-subscriptions.md. */
#include "homeserver/service/thread_subs.h"

#include "homeserver/client/rooms_priv.h"
#include "homeserver/room/relates.h"

enum { LIST_MAX = 100, BODY_BYTES_MAX = 8192 };

/* The room and the thread's root, which the caller must see. */
static struct err begin(struct cs_room_call *call, void *app, struct ctx *ctx,
                        const struct http_request *request, struct http_reply *reply)
{
    struct stored_event root;
    bool found = false;
    bool visible = false;
    cs_call_begin(call, app, ctx, request, reply);
    struct err err = hs_room_get_by_id(call->hs, ctx, request->params[0], &call->room);
    if (err.code != 0 && err.code != ERR_M_NOT_FOUND) {
        return err;
    }
    if (err.code == 0) {
        TRY(hs_event_find(call->hs, ctx, call->room, request->params[1], &root, &found));
    }
    if (found) {
        TRY(hs_can_see(call->hs, ctx, call->room, &call->viewer, &root, &visible));
    }
    return visible ? OK : err_public(ERR_M_NOT_FOUND, "There is no such thread.");
}

static struct thread_sub_wish wish_of(const struct cs_room_call *call, int64_t cause)
{
    return (struct thread_sub_wish){.user = call->actor.user,
                                    .room = hs_room_info(call->room).number,
                                    .root = call->request->params[1],
                                    .cause = cause};
}

/* The event that subscribes by itself must be a reply in the thread. */
static struct err read_cause(struct cs_room_call *call, int64_t *cause_out)
{
    struct slice event_id;
    struct stored_event event;
    bool found = false;
    *cause_out = 0;
    TRY(cs_body_string(call->request, LIT("automatic"), &event_id));
    if (!event_id.ptr) {
        return OK;
    }
    TRY(hs_event_find(call->hs, call->ctx, call->room, event_id, &event, &found));
    if (!found || !slice_eq(relates_thread_root(event.event.content).s, call->request->params[1])) {
        return err_public(ERR_M_NOT_IN_THREAD, "The event is not in this thread.");
    }
    *cause_out = event.number;
    return OK;
}

static struct err put_subscription(void *app, struct ctx *ctx, const struct http_request *request,
                                   struct http_reply *reply)
{
    struct cs_room_call call;
    int64_t cause = 0;
    TRY(begin(&call, app, ctx, request, reply));
    TRY(read_cause(&call, &cause));
    struct thread_sub_wish wish = wish_of(&call, cause);
    TRY(hs_thread_subscribe(call.hs, ctx, &wish));
    http_reply_empty(reply);
    return OK;
}

static struct err get_subscription(void *app, struct ctx *ctx, const struct http_request *request,
                                   struct http_reply *reply)
{
    struct cs_room_call call;
    struct thread_sub sub = {0};
    bool found = false;
    TRY(begin(&call, app, ctx, request, reply));
    TRY(hs_thread_sub_get(call.hs, ctx, call.actor.user, hs_room_info(call.room).number,
                          request->params[1], &sub, &found));
    if (!found || !sub.subscribed) {
        return err_public(ERR_M_NOT_FOUND, "You do not follow this thread.");
    }
    json_out_object(&call.out);
    json_out_key_bool(&call.out, LIT("automatic"), sub.automatic);
    json_out_object_end(&call.out);
    return OK;
}

static struct err delete_subscription(void *app, struct ctx *ctx,
                                      const struct http_request *request, struct http_reply *reply)
{
    struct cs_room_call call;
    TRY(begin(&call, app, ctx, request, reply));
    struct thread_sub_wish wish = wish_of(&call, hs_room_head(call.room).number);
    TRY(hs_thread_unsubscribe(call.hs, ctx, &wish));
    http_reply_empty(reply);
    return OK;
}

/* --- the list --- */

/* `to` is a pos of sliding sync, which names a stream position behind its own number. */
static struct err read_place(struct cs_room_call *call, struct slice name, uint64_t fallback,
                             uint64_t *pos_out)
{
    struct slice text = http_query_get(call->ctx, call->request, name);
    *pos_out = fallback;
    if (!text.ptr ||
        (text.len && text.ptr[0] == 'h' && slice_parse_u64(slice_from(text, 1), pos_out))) {
        return OK;
    }
    return err_public(ERR_M_INVALID_PARAM, "This is no token of a list of threads.");
}

static struct err list_subscriptions(void *app, struct ctx *ctx, const struct http_request *request,
                                     struct http_reply *reply)
{
    struct cs_room_call call;
    struct thread_subs subs;
    int64_t limit = 0;
    struct thread_sub_window window = {0};
    cs_call_begin(&call, app, ctx, request, reply);
    if (!slice_eq(http_query_get(ctx, request, LIT("dir")), LIT("b"))) {
        return err_public(ERR_M_INVALID_PARAM, "`dir` must be b.");
    }
    TRY(http_query_int(ctx, request, LIT("limit"), LIST_MAX, &limit));
    if (limit < 1) {
        return err_public(ERR_M_INVALID_PARAM, "`limit` must be above 0.");
    }
    TRY(read_place(&call, LIT("from"), positions_published(call.hs->positions), &window.upto));
    window.limit = limit < LIST_MAX ? (size_t)limit : LIST_MAX;
    TRY(hs_thread_subs_changed(call.hs, ctx, call.actor.user, window, &subs));
    bool has_more = subs.count == window.limit;
    uint64_t last = subs.count ? subs.items[subs.count - 1].pos : 0;
    json_out_object(&call.out);
    TRY(hs_thread_subs_write(call.hs, ctx, &subs, &call.out));
    if (has_more) {
        json_out_key_string(&call.out, LIT("end"),
                            arena_printf(ctx->arena, "h%llu", (unsigned long long)(last - 1)));
    }
    json_out_object_end(&call.out);
    return OK;
}

#define THREAD                                                                                     \
    "/_matrix/client/unstable/io.element.msc4306/rooms/{roomId}/thread/{eventId}/subscription"
#define LIST "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions"
#define READ HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0
#define WRITE(body) HTTP_AUTH_USER, HTTP_RATE_WRITE, body, HTTP_LANE_NONE, BODY_BYTES_MAX
#define SECTION "Threading"

static const struct http_route routes[] = {
    {HTTP_PUT, THREAD, WRITE(HTTP_BODY_OPTIONAL_JSON), put_subscription, SECTION, NULL, 0},
    {HTTP_GET, THREAD, READ, get_subscription, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_DELETE, THREAD, WRITE(HTTP_BODY_OPTIONAL_JSON), delete_subscription, SECTION, NULL, 0},
    {HTTP_GET, LIST, READ, list_subscriptions, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_thread_subs_routes = {routes, COUNT_OF(routes)};
