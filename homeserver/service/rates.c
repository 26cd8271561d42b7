#include "homeserver/service/rates.h"

#include "homeserver/base/stats.h"
#include "homeserver/service/appservices.h"
#include "homeserver/service/memory.h"
#include "homeserver/service/requester.h"
#include "homeserver/service/users.h"

enum { KEYS_MAX = 65536 };

static struct http_rate_rule rule(int64_t per_minute, int64_t burst)
{
    return (struct http_rate_rule){.burst = (uint32_t)burst,
                                   .per_1000_seconds = (uint32_t)(per_minute * 1000 / 60)};
}

struct http_ratelimit *hs_rates_new(const struct conf *conf)
{
#define RULE(name) rule(conf->rate_limits_##name##_per_minute, conf->rate_limits_##name##_burst)
    const struct http_rate_rule rules[HTTP_RATES] = {[HTTP_RATE_LOGIN] = RULE(login),
                                                     [HTTP_RATE_REGISTER] = RULE(register),
                                                     [HTTP_RATE_MESSAGE] = RULE(message),
                                                     [HTTP_RATE_WRITE] = RULE(write),
                                                     [HTTP_RATE_JOIN] = RULE(join),
                                                     [HTTP_RATE_INVITE] = RULE(invite),
                                                     [HTTP_RATE_MEDIA] = RULE(media),
                                                     [HTTP_RATE_READ] = RULE(read),
                                                     [HTTP_RATE_FEDERATION] = RULE(federation)};
#undef RULE
    return conf->rate_limits_enabled ? http_ratelimit_new(rules, KEYS_MAX) : NULL;
}

/* The account that somebody tries to sign in to; empty when it could be none. */
static struct slice login_name(struct hs *hs, struct ctx *ctx, const struct http_request *request)
{
    const struct json *identifier = json_get_object(&request->json, LIT("identifier"));
    struct slice name = json_get_string(identifier, LIT("user"));
    struct slice user_id = {0};
    name = name.ptr ? name : json_get_string(&request->json, LIT("user"));
    if (name.len == 0 || name.len > STORE_ID_BYTES_MAX) {
        return user_id;
    }
    struct err err = hs_user_resolve_login(hs, ctx, name, &user_id);
    return err.code == 0 ? user_id : (struct slice){0};
}

static struct slice key_of(const struct http_request *request)
{
    enum http_rate rate = request->route->rate;
    if (rate == HTTP_RATE_FEDERATION) {
        return request->server.len ? request->server : request->remote_address;
    }
    bool by_user = request->requester && rate != HTTP_RATE_LOGIN && rate != HTTP_RATE_REGISTER;
    return by_user ? request->requester->user_id : request->remote_address;
}

/* Application services register and sign in for many users from one address. */
static bool is_exempt(struct hs *hs, const struct http_request *request)
{
    if (request->requester) {
        return request->requester->is_unlimited;
    }
    const struct appservice *service = hs_appservice_by_token(hs, request->token);
    return service && !service->is_rate_limited;
}

struct err hs_check_rate(void *app, struct ctx *ctx, const struct http_request *request,
                         struct http_reply *reply)
{
    struct hs *hs = app;
    enum http_rate rate = request->route->rate;
    TRY(hs_memory_check(hs->memory));
    if (!hs->ratelimit || is_exempt(hs, request)) {
        return OK;
    }
    TRY(http_ratelimit_check(hs->ratelimit, ctx, rate, key_of(request), reply));
    struct slice name = rate == HTTP_RATE_LOGIN ? login_name(hs, ctx, request) : (struct slice){0};
    if (name.len == 0) {
        return OK;
    }
    /* Many addresses may try one account. */
    return http_ratelimit_check(hs->ratelimit, ctx, rate,
                                arena_concat(ctx->arena, LIT("account:"), name), reply);
}

struct err hs_rates_take(struct hs *hs, struct ctx *ctx, enum http_rate rate, struct slice user_id,
                         int64_t *retry_after_ms_out)
{
    *retry_after_ms_out = 0;
    if (hs->memory) {
        TRY(hs_memory_check(hs->memory));
    }
    if (hs->ratelimit) {
        *retry_after_ms_out =
            http_ratelimit_take(hs->ratelimit, rate, user_id, now_mono_ms(ctx->now));
    }
    if (!*retry_after_ms_out) {
        return OK;
    }
    stats_add(hs->stats, STAT_rate_limited_total, 1);
    return err_make(ERR_M_LIMIT_EXCEEDED, "rate limit");
}
