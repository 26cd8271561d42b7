/* This server's keys and version, for other servers.
 * Spec: server-server, "Publishing Keys", "Server implementation". */
#include "crypto/base64.h"
#include "crypto/signing_key.h"
#include "federation/routes.h"
#include "homeserver/service/hs.h"

enum { KEYS_VALID_MS = 24 * 3600 * 1000 };

static struct json text_of_key(struct arena *arena, const struct ed25519_public *key)
{
    struct slice bytes = {(const char *)key->bytes, sizeof key->bytes};
    return json_string(base64_encode(arena, bytes, BASE64_STANDARD));
}

static struct json verify_keys(struct hs *hs, struct arena *arena)
{
    struct json keys = json_object();
    struct json key = json_object();
    struct ed25519_public current = signing_key_public(hs->signing_key);
    json_set(arena, &key, LIT("key"), text_of_key(arena, &current));
    json_set(arena, &keys, signing_key_id(hs->signing_key), key);
    return keys;
}

static struct json old_verify_keys(struct hs *hs, struct arena *arena)
{
    struct json keys = json_object();
    size_t count = 0;
    const struct signing_key_old *olds = signing_key_olds(hs->signing_key, &count);
    for (size_t i = 0; i < count; i++) {
        struct json key = json_object();
        json_set(arena, &key, LIT("expired_ts"), json_int(olds[i].expired_ms));
        json_set(arena, &key, LIT("key"), text_of_key(arena, &olds[i].public_key));
        json_set(arena, &keys, olds[i].key_id, key);
    }
    return keys;
}

static struct err server_keys(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct hs *hs = app;
    struct json object = json_object();
    (void)request;
    json_set(ctx->arena, &object, LIT("server_name"), json_string(hs->server_name));
    json_set(ctx->arena, &object, LIT("valid_until_ts"),
             json_int(now_wall_ms(ctx->now) + KEYS_VALID_MS));
    json_set(ctx->arena, &object, LIT("verify_keys"), verify_keys(hs, ctx->arena));
    json_set(ctx->arena, &object, LIT("old_verify_keys"), old_verify_keys(hs, ctx->arena));
    json_sign(ctx->arena, &object, &hs->signer);
    json_write_canonical(&reply->body, &object);
    return OK;
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
    {HTTP_GET, "/_matrix/federation/v1/version", OPEN, version, "Server implementation", NULL, 0},
};
const struct http_route_table ss_keys_routes = {routes, COUNT_OF(routes)};
