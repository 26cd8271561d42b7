#include "homeserver/appservice/ask.h"

#include "homeserver/appservice/as_priv.h"

enum {
    PING_TIMEOUT_MS = 10000,
    LOOKUP_TIMEOUT_MS = 10000,
    ANSWER_BYTES_MAX = 4 << 20,
    PING_BODY_BYTES_MAX = 4096,
};

struct slice as_path(struct ctx *ctx, const char *format, struct slice part)
{
    static const char hex[] = "0123456789ABCDEF";
    char *encoded = arena_alloc(ctx->arena, part.len * 3 + 1);
    size_t len = 0;
    for (size_t i = 0; i < part.len; i++) {
        unsigned char c = (unsigned char)part.ptr[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '-' || c == '.' || c == '_' || c == '~';
        if (plain) {
            encoded[len++] = (char)c;
        } else {
            encoded[len++] = '%';
            encoded[len++] = hex[c >> 4];
            encoded[len++] = hex[c & 15];
        }
    }
    encoded[len] = '\0';
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    return arena_printf(ctx->arena, format, encoded);
#pragma GCC diagnostic pop
}

/* --- one request --- */

static struct err fetch(struct as *as, struct ctx *ctx, const struct as_call *call,
                        struct slice path, struct http_fetch_reply *reply_out)
{
    const struct http_header headers[] = {
        {LIT("Authorization"), arena_concat(ctx->arena, LIT("Bearer "), call->service->hs_token)},
        {LIT("Content-Type"), LIT("application/json")},
    };
    struct http_fetch_request request = {.method = call->method,
                                         .url = arena_concat(ctx->arena, call->service->url, path),
                                         .headers = headers,
                                         .header_count = call->body.ptr ? 2 : 1,
                                         .body = call->body,
                                         .timeout_ms = call->timeout_ms,
                                         .body_bytes_max = ANSWER_BYTES_MAX,
                                         .flags = HTTP_FETCH_ANY_ADDRESS};
    return as->port.fetch(as->port.arg, ctx, &request, reply_out);
}

/* Spec: application-service, "Legacy routes". */
static bool is_unknown_route(int status)
{
    return status == 404 || status == 405 || status == 500 || status == 501;
}

struct err as_call(struct as *as, struct ctx *ctx, const struct as_call *call,
                   struct http_fetch_reply *reply_out)
{
    struct http_fetch_reply legacy;
    if (!ctx->may_wait) {
        return err_make(ERR_WAITS, "an application service is asked");
    }
    TRY(fetch(as, ctx, call, call->path, reply_out));
    if (call->legacy.len == 0 || !is_unknown_route(reply_out->status)) {
        return OK;
    }
    TRY(fetch(as, ctx, call, call->legacy, &legacy));
    if (legacy.status / 100 == 2) { /* else the first answer says more */
        *reply_out = legacy;
    }
    return OK;
}

/* --- ping --- */

struct err as_ping_service(struct as *as, struct ctx *ctx, struct as_ping *ping)
{
    struct buf body;
    buf_init_arena(&body, ctx->arena, PING_BODY_BYTES_MAX);
    struct json_out out = json_out_to(&body);
    if (!ping->service->url.ptr) {
        return err_public(ERR_M_URL_NOT_SET,
                          "The application service has no URL in its registration.");
    }
    json_out_object(&out);
    if (ping->transaction_id.ptr) {
        json_out_key_string(&out, LIT("transaction_id"), ping->transaction_id);
    }
    json_out_object_end(&out);
    struct as_call call = {.service = ping->service,
                           .method = LIT("POST"),
                           .path = LIT("/_matrix/app/v1/ping"),
                           .body = buf_slice(&body),
                           .timeout_ms = PING_TIMEOUT_MS};
    int64_t begun = now_mono_us();
    struct err err = as_call(as, ctx, &call, &ping->reply);
    ping->duration_ms = (now_mono_us() - begun) / 1000;
    if (err.code == ERR_WAITS || err.code == ERR_CANCELLED) {
        return err;
    }
    if (err.code == ERR_TIMEOUT) {
        return err_public(ERR_M_CONNECTION_TIMEOUT,
                          "The application service did not answer in time.");
    }
    if (err.code != 0) {
        return err_public(ERR_M_CONNECTION_FAILED, "The application service cannot be reached.");
    }
    return ping->reply.status / 100 == 2
               ? OK
               : err_publicf(ctx->arena, ERR_M_BAD_STATUS, "The ping was answered with status %d.",
                             ping->reply.status);
}

/* --- third-party networks --- */

static bool has_protocol(const struct appservice *service, struct slice protocol)
{
    for (size_t i = 0; i < service->protocol_count; i++) {
        if (slice_eq(service->protocols[i], protocol)) {
            return true;
        }
    }
    return false;
}

/* The JSON of an answer; found false when the service gave none. */
static struct err ask_json(struct as *as, struct ctx *ctx, const struct as_call *call,
                           struct json *json_out, bool *found_out)
{
    struct http_fetch_reply reply = {0};
    struct err err = as_call(as, ctx, call, &reply);
    *found_out = false;
    if (err.code == ERR_WAITS) {
        return err;
    }
    *found_out = err.code == 0 && reply.status / 100 == 2 &&
                 json_parse(ctx->arena, reply.body, json_out).code == 0;
    if (err.code != 0) {
        log_warn(as->hs->log, "appservice_query", .dest = call->service->id,
                 .err = slice_of(err.text));
    }
    return OK;
}

/* An instance gets the name by which its published rooms are asked for. */
static struct json instance_of(struct ctx *ctx, const struct appservice *service,
                               const struct json *from)
{
    struct json instance = json_without(ctx->arena, from, NULL, 0);
    struct slice network = json_get_string(from, LIT("network_id"));
    if (network.ptr) {
        json_set(ctx->arena, &instance, LIT("instance_id"),
                 json_string(arena_printf(ctx->arena, "%.*s|%.*s", (int)network.len, network.ptr,
                                          (int)service->id.len, service->id.ptr)));
    }
    return instance;
}

/* Adds what one service says of a protocol: the first gives the fields, all give instances. */
static void add_protocol(struct ctx *ctx, const struct appservice *service,
                         const struct json *answer, struct json *protocol)
{
    const struct json *old = json_get_array(protocol, LIT("instances"));
    const struct json *more = json_get_array(answer, LIT("instances"));
    struct json instances = json_array();
    for (uint32_t i = 0; old && i < old->count; i++) {
        json_push(ctx->arena, &instances, old->items[i]);
    }
    for (uint32_t i = 0; more && i < more->count; i++) {
        if (more->items[i].type == JSON_OBJECT) {
            json_push(ctx->arena, &instances, instance_of(ctx, service, &more->items[i]));
        }
    }
    if (!old) {
        *protocol = json_without(ctx->arena, answer, NULL, 0);
    }
    json_set(ctx->arena, protocol, LIT("instances"), instances);
}

static struct err ask_protocol(struct as *as, struct ctx *ctx, const struct appservice *service,
                               struct slice name, struct json *protocols)
{
    struct json answer;
    bool found = false;
    struct as_call call = {.service = service,
                           .path = as_path(ctx, "/_matrix/app/v1/thirdparty/protocol/%s", name),
                           .legacy =
                               as_path(ctx, "/_matrix/app/unstable/thirdparty/protocol/%s", name),
                           .timeout_ms = LOOKUP_TIMEOUT_MS};
    TRY(ask_json(as, ctx, &call, &answer, &found));
    if (!found || answer.type != JSON_OBJECT) {
        return OK;
    }
    const struct json *known = json_get_object(protocols, name);
    struct json protocol = known ? *known : json_object();
    add_protocol(ctx, service, &answer, &protocol);
    json_set(ctx->arena, protocols, name, protocol);
    return OK;
}

struct err as_protocols(struct as *as, struct ctx *ctx, struct slice only,
                        struct json *protocols_out)
{
    *protocols_out = json_object();
    if (!as) {
        return OK;
    }
    const struct appservice_table *table = hs_appservices_table(as->hs);
    for (size_t i = 0; i < table->count; i++) {
        const struct appservice *service = &table->items[i];
        for (size_t k = 0; k < service->protocol_count && service->url.ptr; k++) {
            if (only.len == 0 || slice_eq(service->protocols[k], only)) {
                TRY(ask_protocol(as, ctx, service, service->protocols[k], protocols_out));
            }
        }
    }
    return OK;
}

static struct slice lookup_path(struct ctx *ctx, const struct as_lookup *lookup, const char *base)
{
    struct slice protocol = lookup->protocol.len ? as_path(ctx, "/%s", lookup->protocol) : LIT("");
    return arena_printf(ctx->arena, "%s/thirdparty/%s%.*s%s%.*s", base, lookup->kind,
                        (int)protocol.len, protocol.ptr, lookup->query.len ? "?" : "",
                        (int)lookup->query.len, lookup->query.len ? lookup->query.ptr : "");
}

struct err as_lookup(struct as *as, struct ctx *ctx, const struct as_lookup *lookup,
                     struct json *results_out)
{
    *results_out = json_array();
    if (!as) {
        return OK;
    }
    const struct appservice_table *table = hs_appservices_table(as->hs);
    for (size_t i = 0; i < table->count; i++) {
        const struct appservice *service = &table->items[i];
        struct json answer;
        bool found = false;
        bool wanted = lookup->protocol.len ? has_protocol(service, lookup->protocol)
                                           : service->protocol_count > 0;
        if (!wanted || !service->url.ptr) {
            continue;
        }
        struct as_call call = {.service = service,
                               .path = lookup_path(ctx, lookup, "/_matrix/app/v1"),
                               .legacy = lookup_path(ctx, lookup, "/_matrix/app/unstable"),
                               .timeout_ms = LOOKUP_TIMEOUT_MS};
        TRY(ask_json(as, ctx, &call, &answer, &found));
        for (uint32_t k = 0; found && answer.type == JSON_ARRAY && k < answer.count; k++) {
            if (answer.items[k].type == JSON_OBJECT) {
                json_push(ctx->arena, results_out, answer.items[k]);
            }
        }
    }
    return OK;
}
