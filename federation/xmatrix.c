/* Requests signed by servers: ours, and theirs. Spec: server-server, "Request Authentication". */
#include "federation/xmatrix.h"

#include "crypto/base64.h"
#include "federation/fed_priv.h"

#include <stdatomic.h>

enum { KEY_ID_BYTES_MAX = 255, STRANGERS_MAX = 24, STRANGER_MS_MAX = 20000 };

static const char *const method_names[] = {
    [HTTP_GET] = "GET",       [HTTP_POST] = "POST", [HTTP_PUT] = "PUT",
    [HTTP_DELETE] = "DELETE", [HTTP_HEAD] = "HEAD", [HTTP_OPTIONS] = "OPTIONS",
};

/* The canonical bytes that are signed. */
static struct slice signed_bytes(struct arena *arena, const struct xmatrix_request *request,
                                 struct slice origin)
{
    struct buf bytes;
    buf_init_arena(&bytes, arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&bytes);
    json_out_object(&out);
    if (request->content.ptr) {
        json_out_key_raw(&out, LIT("content"), request->content);
    }
    if (request->destination.ptr) {
        json_out_key_string(&out, LIT("destination"), request->destination);
    }
    json_out_key_string(&out, LIT("method"), request->method);
    json_out_key_string(&out, LIT("origin"), origin);
    json_out_key_string(&out, LIT("uri"), request->target);
    json_out_object_end(&out);
    return buf_slice(&bytes);
}

struct slice xmatrix_sign(struct hs *hs, struct arena *arena, const struct xmatrix_request *request)
{
    struct ed25519_signature signature =
        ed25519_sign(hs->signer.key, signed_bytes(arena, request, hs->server_name));
    struct slice sig =
        base64_encode(arena, (struct slice){(const char *)signature.bytes, sizeof signature.bytes},
                      BASE64_STANDARD);
    struct slice parts[] = {LIT("X-Matrix origin=\""),
                            hs->server_name,
                            LIT("\",destination=\""),
                            request->destination,
                            LIT("\",key=\""),
                            hs->signer.key_id,
                            LIT("\",sig=\""),
                            sig,
                            LIT("\"")};
    struct buf header;
    buf_init_arena(&header, arena, SIZE_MAX / 2);
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        buf_add(&header, parts[i]);
    }
    return buf_slice(&header);
}

/* --- checking --- */

struct signers {
    struct xmatrix headers[HTTP_AUTHORIZATIONS_MAX];
    size_t count;
};

static struct err refuse(const char *text)
{
    return err_public(ERR_M_UNAUTHORIZED, text);
}

/* All headers of the request that are of this scheme: one for each key of the one origin. */
static struct err read_headers(struct fed *fed, struct ctx *ctx, const struct http_request *request,
                               struct signers *signers)
{
    for (size_t i = 0; i < request->authorization_count; i++) {
        struct xmatrix *header = &signers->headers[signers->count];
        if (!xmatrix_parse(ctx->arena, request->authorizations[i], header)) {
            continue;
        }
        if (!ids_is_server_name(header->origin)) {
            return refuse("The origin is not a valid server name.");
        }
        /* Spec: a destination that is given and not this server is refused with 401. */
        if (header->destination.ptr && !hs_is_local(fed->hs, header->destination)) {
            return refuse("The request is signed for another destination.");
        }
        if (signers->count && !slice_eq(header->origin, signers->headers[0].origin)) {
            return refuse("The Authorization headers name different origins.");
        }
        bool usable = slice_has_prefix(header->key, LIT("ed25519:")) &&
                      header->key.len <= KEY_ID_BYTES_MAX && slice_is_utf8(header->key);
        signers->count += usable;
    }
    return signers->count ? OK : refuse("A request of a server needs an X-Matrix signature.");
}

/* What the signature of a header must cover. A body that was optional and absent was not signed.
 * Older servers sign the destination without naming it in the header. */
static struct slice payload_of(struct fed *fed, struct ctx *ctx, const struct http_request *request,
                               const struct xmatrix *header)
{
    bool has_body = request->body.len && request->json.type == JSON_OBJECT;
    struct xmatrix_request parts = {
        .method = slice_of(method_names[request->method]),
        .target = request->target,
        .destination = header->destination.ptr ? header->destination : fed->hs->server_name,
        .content = has_body ? json_canonical(ctx->arena, &request->json) : (struct slice){0},
    };
    return signed_bytes(ctx->arena, &parts, header->origin);
}

typedef struct err (*key_fn)(struct fed *fed, struct ctx *ctx, const struct fed_key_query *query,
                             struct ed25519_public *key_out, bool *found_out);

struct verdict {
    bool found, verified;
};

/* One good signature with a key that is valid now is enough. */
static struct err verify(struct fed *fed, struct ctx *ctx, const struct http_request *request,
                         const struct xmatrix *header, key_fn find, struct verdict *verdict)
{
    struct fed_key_query query = {.server = header->origin,
                                  .key_id = header->key,
                                  .use = FED_KEY_REQUEST,
                                  .ts_ms = now_wall_ms(ctx->now)};
    struct ed25519_public key;
    struct ed25519_signature signature;
    bool found = false;
    TRY(find(fed, ctx, &query, &key, &found));
    verdict->found |= found;
    if (found && ed25519_parse_signature(header->sig, &signature)) {
        verdict->verified = ed25519_verify(&key, payload_of(fed, ctx, request, header), &signature);
    }
    return OK;
}

static struct err verify_each(struct fed *fed, struct ctx *ctx, const struct http_request *request,
                              const struct signers *signers, key_fn find, struct verdict *verdict)
{
    for (size_t i = 0; i < signers->count && !verdict->verified; i++) {
        TRY(verify(fed, ctx, request, &signers->headers[i], find, verdict));
    }
    return OK;
}

/* Anybody may claim to be a server whose keys are slow to come: at most a part of the threads that
 * wait for the network does so for strangers, and not for long. */
static struct err verify_stranger(struct fed *fed, struct ctx *ctx,
                                  const struct http_request *request, const struct signers *signers,
                                  struct verdict *verdict)
{
    struct ctx hurried = *ctx;
    int64_t until_ms = now_mono_ms(ctx->now) + STRANGER_MS_MAX;
    hurried.deadline_mono_ms = ctx->deadline_mono_ms && ctx->deadline_mono_ms < until_ms
                                   ? ctx->deadline_mono_ms
                                   : until_ms;
    struct err err = err_public(ERR_M_UNAVAILABLE, "Too many unknown servers call; try again.");
    if (atomic_fetch_add(&fed->strangers_running, 1) < STRANGERS_MAX) {
        err = verify_each(fed, &hurried, request, signers, fed_key_get, verdict);
    }
    atomic_fetch_sub(&fed->strangers_running, 1);
    ctx->write_ticket = hurried.write_ticket;
    ctx->deferred = hurried.deferred;
    return err;
}

static struct err check_signers(struct fed *fed, struct ctx *ctx,
                                const struct http_request *request, const struct signers *signers)
{
    struct verdict verdict = {0};
    TRY(verify_each(fed, ctx, request, signers, fed_key_find, &verdict));
    if (!verdict.found) {
        TRY(verify_stranger(fed, ctx, request, signers, &verdict));
    }
    if (!verdict.found) {
        return refuse("The key of the origin cannot be found, or it is not valid now.");
    }
    return verdict.verified ? OK : refuse("The signature of the request is not valid.");
}

struct err fed_authenticate(struct fed *fed, struct ctx *ctx, struct http_request *request,
                            struct http_reply *reply)
{
    struct signers *signers = arena_alloc(ctx->arena, sizeof *signers);
    (void)reply;
    TRY(read_headers(fed, ctx, request, signers));
    struct slice origin = signers->headers[0].origin;
    if (!fed_peer_is_allowed(fed, origin)) {
        return err_public(ERR_M_FORBIDDEN, "This server does not federate with yours.");
    }
    TRY(check_signers(fed, ctx, request, signers));
    request->server = origin;
    fed_peer_alive(fed, origin);
    return OK;
}

struct slice fed_origin(const struct http_request *request)
{
    return request->server;
}
