/* GET /sync. Spec: client-server, "Syncing". */
#include "homeserver/client/routes_priv.h"
#include "homeserver/client/sync_priv.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/requester.h"
#include "homeserver/sync/poll.h"

enum { TIMEOUT_MS_MAX = 5 * 60 * 1000 };

struct err cs_sync_presence(struct slice text, enum presence *presence_out)
{
    static const struct {
        struct slice name;
        enum presence presence;
    } names[] = {{{"online", 6}, PRESENCE_ONLINE},
                 {{"offline", 7}, PRESENCE_OFFLINE},
                 {{"unavailable", 11}, PRESENCE_UNAVAILABLE}};
    *presence_out = PRESENCE_ONLINE;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        if (slice_eq(text, names[i].name)) {
            *presence_out = names[i].presence;
            return OK;
        }
    }
    return text.ptr == NULL ? OK
                            : err_public(ERR_M_INVALID_PARAM,
                                         "`set_presence` must be online, offline or unavailable.");
}

static struct err read_request(struct hs *hs, struct ctx *ctx, const struct http_request *http,
                               struct sync_request *request)
{
    request->user = http->requester->user;
    request->user_id = http->requester->user_id;
    request->device_id = http->requester->device_id;
    TRY(http_query_bool(ctx, http, LIT("full_state"), false, &request->full_state));
    TRY(http_query_bool(ctx, http, LIT("use_state_after"), false, &request->use_state_after));
    return sync_parse_since(hs->sync, http_query_get(ctx, http, LIT("since")), request);
}

/* Nobody wants to wait for what is there at once. */
static bool may_wait(const struct sync_request *request, const struct sync_answer *answer,
                     int64_t timeout_ms)
{
    return !answer->news && timeout_ms > 0 && !request->full_state && !request->initial;
}

struct err cs_sync_catch_up(struct hs *hs, const struct ctx *ctx, uint64_t user)
{
    struct sync_sessions *sessions = sync_get_sessions(hs->sync);
    uint64_t newest = positions_newest(hs->positions);
    bool published = positions_published(hs->positions) >= newest;
    if (ctx->on_loop) {
        return published && sync_sessions_settled(sessions, user)
                   ? OK
                   : err_make(ERR_WAITS, "changes are under way");
    }
    if (!published) {
        workers_pause();
        positions_wait(hs->positions, newest);
        workers_resume();
    }
    sync_sessions_settle(sessions, user);
    return OK;
}

static struct err get_sync(void *app, struct ctx *ctx, const struct http_request *http,
                           struct http_reply *reply)
{
    struct hs *hs = app;
    struct sync_filter filter;
    struct sync_request request = {.filter = &filter};
    struct sync_answer answer;
    enum presence presence = PRESENCE_ONLINE;
    int64_t timeout_ms = 0;
    struct slice filter_text = http_query_get(ctx, http, LIT("filter"));
    TRY(http_query_int(ctx, http, LIT("timeout"), 0, &timeout_ms));
    TRY(cs_sync_presence(http_query_get(ctx, http, LIT("set_presence")), &presence));
    TRY(read_request(hs, ctx, http, &request));
    TRY(sync_find_filter(hs->sync, ctx, request.user, filter_text, &filter));
    hs_presence_touch(hs, request.user, request.device_id, presence);
    TRY(sync_acknowledge(hs->sync, ctx, &request));
    if (timeout_ms <= 0 || request.initial || request.full_state) {
        TRY(cs_sync_catch_up(hs, ctx, request.user));
    }
    TRY(sync_respond(hs->sync, ctx, &request, &reply->body, &answer));
    if (may_wait(&request, &answer, timeout_ms)) {
        struct sync_poll_start start = {
            .request = &request,
            .filter = filter_text,
            .upto = answer.upto,
            .timeout_ms = timeout_ms > TIMEOUT_MS_MAX ? TIMEOUT_MS_MAX : timeout_ms,
        };
        buf_clear(&reply->body);
        return sync_poll_park(hs->sync, ctx, &start, http, reply);
    }
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/client/v3/sync", HTTP_AUTH_USER, HTTP_RATE_NONE, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_sync, "Syncing", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED | HTTP_LOOP_FIRST},
};
const struct http_route_table cs_sync_routes = {routes, COUNT_OF(routes)};
