/* This server's keys and version, and what it knows of other servers' keys, for other servers.
 * Spec: server-server, "Publishing Keys", "Querying Keys Through Another Server", "Server
 * implementation". */
#include "federation/notary.h"
#include "federation/routes.h"
#include "federation/self_keys.h"

enum { QUERY_BODY_BYTES_MAX = 1 << 20 };

static struct err server_keys(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct json object = self_keys(app, ctx);
    (void)request;
    json_write_canonical(&reply->body, &object);
    return OK;
}

static struct err answer_questions(struct hs *hs, struct ctx *ctx,
                                   const struct notary_question *questions, size_t count,
                                   struct http_reply *reply)
{
    struct json_out out = json_out_to(&reply->body);
    json_out_object(&out);
    json_out_key_array(&out, LIT("server_keys"));
    TRY(notary_answer(hs->fed, ctx, questions, count, &out));
    json_out_array_end(&out);
    json_out_object_end(&out);
    return OK;
}

static struct err query_one(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct notary_question question = {.server = request->params[0]};
    TRY(http_query_int(ctx, request, LIT("minimum_valid_until_ts"), now_wall_ms(ctx->now),
                       &question.valid_until_ms));
    return answer_questions(app, ctx, &question, 1, reply);
}

static struct err query_many(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    const struct json *servers = json_get_object(&request->json, LIT("server_keys"));
    if (!servers) {
        return err_public(ERR_M_BAD_JSON, "The object `server_keys` is missing.");
    }
    if (servers->count > NOTARY_SERVERS_MAX) {
        return err_public(ERR_M_TOO_LARGE, "Ask for the keys of at most 200 servers at once.");
    }
    struct notary_question *questions =
        arena_array(ctx->arena, servers->count + 1, sizeof *questions);
    for (uint32_t i = 0; i < servers->count; i++) {
        const struct json *keys = &servers->members[i].value;
        if (keys->type != JSON_OBJECT) {
            return err_public(ERR_M_BAD_JSON, "The keys of a server must be an object.");
        }
        questions[i] = (struct notary_question){.server = servers->members[i].key,
                                                .keys = keys,
                                                .valid_until_ms = now_wall_ms(ctx->now)};
    }
    return answer_questions(app, ctx, questions, servers->count, reply);
}

static struct err version(void *app, struct ctx *ctx, const struct http_request *request,
                          struct http_reply *reply)
{
    struct json_out out = json_out_to(&reply->body);
    (void)app;
    (void)ctx;
    (void)request;
    json_out_object(&out);
    json_out_key_object(&out, LIT("server"));
    json_out_key_string(&out, LIT("name"), LIT("Myelin"));
    json_out_key_string(&out, LIT("version"), LIT(MYELIN_VERSION));
    json_out_object_end(&out);
    json_out_object_end(&out);
    return OK;
}

#define OPEN HTTP_AUTH_NONE, HTTP_RATE_FEDERATION, HTTP_BODY_NONE, HTTP_LANE_NONE, 0

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/key/v2/server", OPEN, server_keys, "Publishing Keys", NULL, 0},
    {HTTP_GET, "/_matrix/key/v2/server/{keyId}", OPEN, server_keys, "Publishing Keys", NULL, 0},
    {HTTP_GET, "/_matrix/key/v2/query/{serverName}", OPEN, query_one,
     "Querying Keys Through Another Server", NULL, 0},
    {HTTP_POST, "/_matrix/key/v2/query", HTTP_AUTH_NONE, HTTP_RATE_FEDERATION, HTTP_BODY_JSON,
     HTTP_LANE_NONE, QUERY_BODY_BYTES_MAX, query_many, "Querying Keys Through Another Server", NULL,
     0},
    {HTTP_GET, "/_matrix/federation/v1/version", OPEN, version, "Server implementation", NULL, 0},
};
const struct http_route_table ss_keys_routes = {routes, COUNT_OF(routes)};
