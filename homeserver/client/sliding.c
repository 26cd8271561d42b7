/* POST .../org.matrix.simplified_msc3575/sync. Spec: MSC4186. */
#include "homeserver/client/routes_priv.h"
#include "homeserver/client/sync_priv.h"
#include "homeserver/service/requester.h"
#include "homeserver/sync/sliding.h"

enum { TIMEOUT_MS_MAX = 5 * 60 * 1000, BODY_BYTES_MAX = 1 << 20 };

/* In the query, as clients sent them first, or in the body. */
static struct err read_parameters(struct ctx *ctx, const struct http_request *http,
                                  struct sliding_request *request)
{
    struct slice pos = http_query_get(ctx, http, LIT("pos"));
    struct slice presence = http_query_get(ctx, http, LIT("set_presence"));
    int64_t timeout_ms = 0;
    TRY(http_query_int(ctx, http, LIT("timeout"), 0, &timeout_ms));
    request->pos = pos.ptr ? pos : request->pos;
    request->set_presence = presence.ptr ? presence : request->set_presence;
    request->timeout_ms = request->timeout_ms >= 0 ? request->timeout_ms : timeout_ms;
    return OK;
}

static struct err post_sync(void *app, struct ctx *ctx, const struct http_request *http,
                            struct http_reply *reply)
{
    struct hs *hs = app;
    const struct requester *requester = http->requester;
    struct sliding_request request;
    struct sliding_answer answer;
    enum presence presence = PRESENCE_ONLINE;
    TRY(sync_sliding_parse(ctx->arena, &http->json, requester->user_id, &request));
    TRY(read_parameters(ctx, http, &request));
    TRY(cs_sync_presence(request.set_presence, &presence));
    struct sliding_asking asking = {.user = requester->user,
                                    .user_id = requester->user_id,
                                    .device_id = requester->device_id,
                                    .request = &request,
                                    .pos = request.pos};
    hs_presence_touch(hs, asking.user, asking.device_id, presence);
    if (request.timeout_ms <= 0 || request.pos.ptr == NULL) {
        TRY(cs_sync_catch_up(hs, ctx, asking.user));
    }
    TRY(sync_sliding_respond(hs->sync, ctx, &asking, &reply->body, &answer));
    if (!answer.news && request.timeout_ms > 0) {
        struct sliding_wait wait = {
            .asking = &asking,
            .json = http->body,
            .answer = &answer,
            .timeout_ms = request.timeout_ms > TIMEOUT_MS_MAX ? TIMEOUT_MS_MAX : request.timeout_ms,
        };
        buf_clear(&reply->body);
        return sync_sliding_park(hs->sync, ctx, &wait, http, reply);
    }
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_POST, "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", HTTP_AUTH_USER,
     HTTP_RATE_NONE, HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, post_sync, "Syncing",
     NULL, HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED | HTTP_LOOP_FIRST},
};
const struct http_route_table cs_sliding_routes = {routes, COUNT_OF(routes)};
