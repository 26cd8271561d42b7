/* Spec: client-server, "Well-known URIs"; server-server, "Server discovery". */
#include "homeserver/client/account_priv.h"

static struct err not_served(void)
{
    return err_public(ERR_M_NOT_FOUND, "This server does not answer here.");
}

static struct err get_client(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct hs *hs = app;
    struct json_out out = json_out_to(&reply->body);
    (void)request;
    if (!hs->conf->well_known_enabled) {
        return not_served();
    }
    cs_write_client_config(hs, ctx, &out);
    return OK;
}

static struct err get_server(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct hs *hs = app;
    struct json_out out = json_out_to(&reply->body);
    (void)ctx;
    (void)request;
    if (!hs->conf->well_known_enabled || hs->conf->well_known_server.len == 0) {
        return not_served();
    }
    json_out_object(&out);
    json_out_key_string(&out, LIT("m.server"), hs->conf->well_known_server);
    json_out_object_end(&out);
    return OK;
}

static struct err get_support(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct hs *hs = app;
    (void)ctx;
    (void)request;
    if (!hs->conf->well_known_enabled || hs->conf->well_known_support.len == 0) {
        return not_served();
    }
    buf_add(&reply->body, hs->conf->well_known_support);
    return OK;
}

/* Spec: client-server, "Policy Servers": the keys of a policy server that goes by this name. */
static struct err get_policy_server(void *app, struct ctx *ctx, const struct http_request *request,
                                    struct http_reply *reply)
{
    struct hs *hs = app;
    (void)ctx;
    (void)request;
    if (!hs->conf->well_known_enabled || hs->conf->well_known_policy_server.len == 0) {
        return not_served();
    }
    buf_add(&reply->body, hs->conf->well_known_policy_server);
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_GET, "/.well-known/matrix/client", HTTP_AUTH_NONE, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_client, "Well-known URIs", NULL, 0},
    {HTTP_GET, "/.well-known/matrix/server", HTTP_AUTH_NONE, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_server, "Server discovery", NULL, 0},
    {HTTP_GET, "/.well-known/matrix/support", HTTP_AUTH_NONE, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_support, "Server Discovery", NULL, 0},
    {HTTP_GET, "/.well-known/matrix/policy_server", HTTP_AUTH_NONE, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_policy_server, "Policy Servers", NULL, 0},
};
const struct http_route_table cs_wellknown_routes = {routes, COUNT_OF(routes)};
