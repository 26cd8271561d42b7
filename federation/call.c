/* One request to another server: who it goes to, its signature, its answer.
 * Spec: server-server, "Request Authentication". */
#include "federation/call_priv.h"

static const struct slice agent_methods_with_body[] = {{"PUT", 3}, {"POST", 4}};

/* No answer in less time than this says nothing about the server. */
enum { PATIENCE_MS = 5000 };

struct err fed_call_check(struct fed *fed, struct ctx *ctx, const struct fed_call *call)
{
    if (!ids_is_server_name(call->destination) || hs_is_local(fed->hs, call->destination)) {
        return err_public(ERR_M_INVALID_PARAM, "This is not the name of another server.");
    }
    if (!fed_peer_is_allowed(fed, call->destination)) {
        return err_public(ERR_M_FORBIDDEN, "This server does not federate with that one.");
    }
    if (!ctx->may_wait) {
        return err_make(ERR_WAITS, "another server must be asked");
    }
    if (!(call->flags & FED_CALL_ANYWAY) && fed_peer_is_down(fed, call->destination, NULL)) {
        return err_make(ERR_UNAVAILABLE, "the server did not answer lately and is left alone");
    }
    return OK;
}

uint32_t fed_fetch_flags(const struct fed *fed)
{
    bool any = fed->hs->conf->network_allow_private_addresses;
    return HTTP_FETCH_HTTPS_ONLY | (any ? HTTP_FETCH_ANY_ADDRESS : 0);
}

static bool has_body_always(struct slice method)
{
    for (size_t i = 0; i < COUNT_OF(agent_methods_with_body); i++) {
        if (slice_eq(method, agent_methods_with_body[i])) {
            return true;
        }
    }
    return false;
}

void fed_call_compose(struct fed *fed, struct ctx *ctx, const struct fed_call *call,
                      struct fed_outgoing *out)
{
    struct http_fetch_request *request = &out->request;
    struct slice method = call->method.len ? call->method : LIT("GET");
    out->call = call;
    out->began_ms = now_mono_ms(ctx->now);
    *request = (struct http_fetch_request){
        .method = method,
        .headers = out->headers,
        .connect_ms = call->connect_ms,
        .timeout_ms = call->timeout_ms,
        .body_bytes_max = call->body_bytes_max,
        .flags = fed_fetch_flags(fed),
        .sink = call->sink,
        .sink_arg = call->sink_arg,
    };
    if (call->content || call->content_json.ptr) {
        request->body =
            call->content ? json_canonical(ctx->arena, call->content) : call->content_json;
        out->headers[request->header_count++] =
            (struct http_header){LIT("Content-Type"), LIT("application/json")};
    }
    if (!(call->flags & FED_CALL_UNSIGNED)) {
        struct xmatrix_request signature = {method, call->path, call->destination, request->body};
        out->headers[request->header_count++] = (struct http_header){
            LIT("Authorization"), xmatrix_sign(fed->hs, ctx->arena, &signature)};
    }
    if (!request->body.ptr && has_body_always(request->method)) {
        request->body = LIT(""); /* behind the signature, which is of no content */
    }
}

struct err fed_call_check_target(const struct fed_target *target,
                                 const struct http_dns_answer *answer)
{
    const struct http_dns_addresses *addresses = &answer->addresses;
    TRY(answer->err);
    if (answer->is_needless) {
        return OK;
    }
    /* Spec: RFC 2782: the target of a service may not be an alias. */
    if (target->is_service && addresses->is_alias) {
        return err_make(ERR_UNAVAILABLE, "the target of the server's SRV record is an alias");
    }
    return addresses->count ? OK : err_make(ERR_UNAVAILABLE, "the server's name has no address");
}

void fed_call_aim(struct ctx *ctx, struct fed_outgoing *out, const struct fed_target *target,
                  const struct http_dns_addresses *addresses)
{
    struct slice parts[] = {LIT("https://"), target->authority, out->call->path};
    struct buf url;
    buf_init_arena(&url, ctx->arena, SIZE_MAX / 2);
    for (size_t part = 0; part < COUNT_OF(parts); part++) {
        buf_add(&url, parts[part]);
    }
    out->request.url = buf_slice(&url);
    out->request.peer = out->call->destination;
    out->request.connect_to = target->connect_to;
    out->request.addresses = addresses ? addresses->items : NULL;
    out->request.address_count = addresses ? addresses->count : 0;
}

bool fed_call_may_go_on(struct err err)
{
    return err.code == ERR_UNAVAILABLE;
}

static struct err send_to(struct fed *fed, struct ctx *ctx, struct fed_outgoing *out,
                          const struct fed_target *target, struct http_fetch_reply *reply)
{
    struct http_dns_answer answer = {0};
    if (target->is_service && fed->net.find_addresses) {
        answer = fed->net.find_addresses(fed->net.arg, ctx, target->host);
        TRY(fed_call_check_target(target, &answer));
    }
    fed_call_aim(ctx, out, target, &answer.addresses);
    return fed->net.fetch(fed->net.arg, ctx, &out->request, reply);
}

static struct err send(struct fed *fed, struct ctx *ctx, struct fed_outgoing *out,
                       struct http_fetch_reply *reply)
{
    struct fed_finding finding = {.server = out->call->destination};
    struct err err = OK;
    TRY(fed_destination_find(fed, ctx, &finding));
    for (size_t i = 0; i < finding.count; i++) {
        err = send_to(fed, ctx, out, &finding.targets[i], reply);
        if (!fed_call_may_go_on(err)) {
            break;
        }
    }
    return err;
}

/* A location without a host stays on the server that answered. */
static void set_location(struct ctx *ctx, struct http_fetch_request *request, struct slice location)
{
    size_t authority = sizeof "https://" - 1;
    if (slice_has_prefix(location, LIT("//"))) {
        request->url = arena_concat(ctx->arena, LIT("https:"), location);
    } else if (slice_has_prefix(location, LIT("/"))) {
        size_t path = authority + slice_find(slice_from(request->url, authority), '/');
        request->url = arena_concat(ctx->arena, slice_sub(request->url, 0, path), location);
        return;
    } else {
        request->url = location;
    }
    request->connect_to = (struct slice){0};
    request->address_count = 0; /* they were the other host's */
}

/* Media may lie elsewhere: any HTTPS address, without our name. */
static struct err follow(struct fed *fed, struct ctx *ctx, const struct fed_outgoing *out,
                         struct http_fetch_reply *reply)
{
    struct slice location = http_fetch_header(reply, LIT("Location"));
    bool moved = reply->status == 301 || reply->status == 302 || reply->status == 303 ||
                 reply->status == 307 || reply->status == 308;
    if (!moved || !out->call->redirects_max || !location.len) {
        return OK;
    }
    struct http_fetch_request request = out->request;
    set_location(ctx, &request, location);
    request.method = LIT("GET");
    request.headers = NULL;
    request.header_count = 0;
    request.body = (struct slice){0};
    request.redirects_max = out->call->redirects_max - 1;
    return fed->net.fetch(fed->net.arg, ctx, &request, reply);
}

void fed_call_read(struct ctx *ctx, uint32_t flags, const struct http_fetch_reply *reply,
                   struct fed_answer *answer)
{
    *answer = (struct fed_answer){
        .status = reply->status,
        .body = reply->body,
        .content_type = reply->content_type,
        .location = http_fetch_header(reply, LIT("Location")),
        .disposition = http_fetch_header(reply, LIT("Content-Disposition")),
    };
    if (reply->status / 100 == 2 && reply->body.len) {
        struct err err = flags & FED_CALL_LIST
                             ? json_parse_list(ctx->arena, reply->body, &answer->json)
                             : json_parse(ctx->arena, reply->body, &answer->json);
        if (err.code || answer->json.type != JSON_OBJECT) {
            answer->json = (struct json){0};
        }
    }
}

/* Whether the server itself was reached; how it likes the request is another matter. */
static bool is_failure(struct err err)
{
    return err.code == ERR_UNAVAILABLE || err.code == ERR_TIMEOUT;
}

/* A proxy that does not reach its server; the server itself gives a reason (504 for media that is
 * not uploaded yet). */
static bool is_overloaded(struct ctx *ctx, const struct http_fetch_reply *reply)
{
    struct json body;
    return (reply->status == 502 || reply->status == 503 || reply->status == 504) &&
           (json_parse(ctx->arena, reply->body, &body).code != 0 ||
            !json_get_string(&body, LIT("errcode")).len);
}

void fed_call_note(struct fed *fed, struct ctx *ctx, const struct fed_outgoing *out, struct err err,
                   const struct http_fetch_reply *reply)
{
    bool overloaded = !err.code && is_overloaded(ctx, reply);
    bool hurried = err.code == ERR_TIMEOUT && now_mono_ms(ctx->now) - out->began_ms < PATIENCE_MS;
    if (err.code != ERR_CANCELLED && !hurried) {
        fed_peer_note(fed, ctx, out->call->destination,
                      is_failure(err) || overloaded ? FED_PEER_FAILED : FED_PEER_ANSWERED);
    }
}

struct err fed_call(struct fed *fed, struct ctx *ctx, const struct fed_call *call,
                    struct fed_answer *answer_out)
{
    struct fed_outgoing out = {0};
    struct http_fetch_reply reply = {0};
    TRY(fed_call_check(fed, ctx, call));
    fed_call_compose(fed, ctx, call, &out);
    TRY(fed_peer_enter(fed, call->destination));
    struct err err = send(fed, ctx, &out, &reply);
    fed_peer_leave(fed, call->destination);
    fed_call_note(fed, ctx, &out, err, &reply);
    TRY(err);
    TRY(follow(fed, ctx, &out, &reply));
    fed_call_read(ctx, call->flags, &reply, answer_out);
    return OK;
}

/* Errors that are about the user's request; all others are between the servers (M_UNRECOGNIZED
 * too: passed on, it would say that this server lacks what the user asked of it). */
static const enum errcode passed[] = {
    ERR_M_FORBIDDEN,
    ERR_M_NOT_FOUND,
    ERR_M_LIMIT_EXCEEDED,
    ERR_M_TOO_LARGE,
    ERR_M_UNSUPPORTED_ROOM_VERSION,
    ERR_M_INCOMPATIBLE_ROOM_VERSION,
    ERR_M_UNABLE_TO_AUTHORISE_JOIN,
    ERR_M_UNABLE_TO_GRANT_JOIN,
    ERR_M_INVITE_BLOCKED,
    ERR_M_BAD_STATE,
    ERR_M_GUEST_ACCESS_FORBIDDEN,
    ERR_M_EXCLUSIVE,
    ERR_M_RESOURCE_LIMIT_EXCEEDED,
    ERR_M_NOT_YET_UPLOADED,
    ERR_M_USER_DEACTIVATED,
};

enum { REMOTE_TEXT_BYTES_MAX = 500 };

struct err fed_answer_error(struct ctx *ctx, const struct fed_answer *answer)
{
    struct json body;
    if (answer->status / 100 == 5 || json_parse(ctx->arena, answer->body, &body).code ||
        body.type != JSON_OBJECT) {
        return err_make(ERR_UNAVAILABLE, "the other server answered with an error");
    }
    struct slice errcode = json_get_string(&body, LIT("errcode"));
    struct slice text = slice_sub(json_get_string(&body, LIT("error")), 0, REMOTE_TEXT_BYTES_MAX);
    text = slice_is_utf8(text) ? text : (struct slice){0};
    for (size_t i = 0; i < COUNT_OF(passed); i++) {
        const struct errcode_info *info = errcode_get(passed[i]);
        if (slice_eq(info->wire, errcode)) {
            return text.len ? err_publicf(ctx->arena, passed[i], "%.*s", (int)text.len, text.ptr)
                            : err_make(passed[i], "refused by the other server");
        }
    }
    return err_publicf(ctx->arena, ERR_M_REMOTE, "The other server refused: %.*s", (int)text.len,
                       text.ptr);
}

struct err fed_answer_json(struct ctx *ctx, const struct fed_answer *answer,
                           struct json *answer_out)
{
    if (answer->status / 100 != 2) {
        return fed_answer_error(ctx, answer);
    }
    if (answer->json.type != JSON_OBJECT) {
        return err_make(ERR_UNAVAILABLE, "the other server's answer is not a JSON object");
    }
    *answer_out = answer->json;
    return OK;
}

struct err fed_call_json(struct fed *fed, struct ctx *ctx, const struct fed_call *call,
                         struct json *answer_out)
{
    struct fed_answer answer;
    TRY(fed_call(fed, ctx, call, &answer));
    return fed_answer_json(ctx, &answer, answer_out);
}

static void add_escaped(struct buf *out, struct slice text)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     c == '-' || c == '.' || c == '_' || c == '~';
        if (plain) {
            buf_add_byte(out, (char)c);
        } else {
            buf_add_byte(out, '%');
            buf_add_byte(out, digits[c >> 4]);
            buf_add_byte(out, digits[c & 15]);
        }
    }
}

struct slice fed_path(struct ctx *ctx, const char *format, const struct slice *parts, size_t count)
{
    struct slice rest = slice_of(format);
    struct buf out;
    size_t used = 0;
    buf_init_arena(&out, ctx->arena, SIZE_MAX / 2);
    while (rest.len) {
        if (slice_has_prefix(rest, LIT("%s"))) {
            ASSERT(used < count);
            add_escaped(&out, parts[used++]);
            rest = slice_from(rest, 2);
        } else {
            buf_add_byte(&out, rest.ptr[0]);
            rest = slice_from(rest, 1);
        }
    }
    ASSERT(used == count);
    return buf_slice(&out);
}
