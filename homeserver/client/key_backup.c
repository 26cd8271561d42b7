/* Spec: client-server, "Server-side key backups". */
#include "homeserver/service/key_backup.h"

#include "homeserver/client/rooms_priv.h"

enum { VERSION_BODY_BYTES_MAX = 1 << 16, KEYS_BODY_BYTES_MAX = 8 << 20 };

/* --- versions --- */

/* Text that is no number of a version names none: 0. */
static uint64_t parse_version(struct slice text)
{
    uint64_t version = 0;
    return slice_parse_u64(text, &version) ? version : 0;
}

static void write_version(struct ctx *ctx, struct json_out *out, uint64_t version)
{
    json_out_key_string(out, LIT("version"),
                        arena_printf(ctx->arena, "%llu", (unsigned long long)version));
}

static void write_state(struct ctx *ctx, struct json_out *out, const struct key_backup *backup)
{
    json_out_key_string(out, LIT("etag"),
                        arena_printf(ctx->arena, "%llu", (unsigned long long)backup->etag));
    json_out_key_int(out, LIT("count"), (int64_t)backup->count);
}

static struct err read_draft(struct ctx *ctx, const struct http_request *request,
                             struct key_backup *draft)
{
    const struct json *auth_data = json_get(&request->json, LIT("auth_data"));
    TRY(cs_body_required(request, LIT("algorithm"), &draft->algorithm));
    if (!auth_data) {
        return err_public(ERR_M_MISSING_PARAM, "auth_data is missing.");
    }
    if (auth_data->type != JSON_OBJECT || json_check_canonical(auth_data).code != 0) {
        return err_public(ERR_M_BAD_JSON, "auth_data must be an object.");
    }
    draft->auth_data = json_canonical(ctx->arena, auth_data);
    return OK;
}

static struct err post_version(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct key_backup draft = {0};
    uint64_t version = 0;
    struct json_out out = json_out_to(&reply->body);
    TRY(read_draft(ctx, request, &draft));
    TRY(hs_key_backup_create(app, ctx, request->requester->user, &draft, &version));
    json_out_object(&out);
    write_version(ctx, &out, version);
    json_out_object_end(&out);
    return OK;
}

static struct err reply_version(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                                uint64_t version, struct http_reply *reply)
{
    struct key_backup backup;
    bool found = false;
    struct json_out out = json_out_to(&reply->body);
    TRY(hs_key_backup_get(hs, ctx, request->requester->user, version, &backup, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, version ? "There is no key backup of this version."
                                                   : "This account has no key backup.");
    }
    json_out_object(&out);
    json_out_key_string(&out, LIT("algorithm"), backup.algorithm);
    json_out_key_raw(&out, LIT("auth_data"), backup.auth_data);
    write_state(ctx, &out, &backup);
    write_version(ctx, &out, backup.version);
    json_out_object_end(&out);
    return OK;
}

static struct err get_current(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    return reply_version(app, ctx, request, 0, reply);
}

static struct err get_version(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    uint64_t version = parse_version(request->params[0]);
    return version ? reply_version(app, ctx, request, version, reply)
                   : err_public(ERR_M_NOT_FOUND, "There is no key backup of this version.");
}

static struct err put_version(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct key_backup draft = {.version = parse_version(request->params[0])};
    struct slice version;
    TRY(cs_body_string(request, LIT("version"), &version));
    if (version.ptr && !slice_eq(version, request->params[0])) {
        return err_public(ERR_M_INVALID_PARAM, "The versions in the path and the body differ.");
    }
    TRY(read_draft(ctx, request, &draft));
    TRY(hs_key_backup_update(app, ctx, request->requester->user, &draft));
    http_reply_empty(reply);
    return OK;
}

static struct err delete_version(void *app, struct ctx *ctx, const struct http_request *request,
                                 struct http_reply *reply)
{
    TRY(hs_key_backup_delete(app, ctx, request->requester->user,
                             parse_version(request->params[0])));
    http_reply_empty(reply);
    return OK;
}

/* --- keys --- */

/* The scope that path and query name: params are the room and the session, as far as given. */
static struct err read_scope(struct ctx *ctx, const struct http_request *request,
                             struct backup_scope *scope)
{
    struct slice version = http_query_get(ctx, request, LIT("version"));
    if (!version.ptr) {
        return err_public(ERR_M_MISSING_PARAM, "The query parameter version is missing.");
    }
    scope->user = request->requester->user;
    scope->version = parse_version(version);
    scope->room_id = request->params[0];
    scope->session_id = request->params[1];
    return OK;
}

static void reply_state(struct ctx *ctx, const struct key_backup *backup, struct http_reply *reply)
{
    struct json_out out = json_out_to(&reply->body);
    json_out_object(&out);
    write_state(ctx, &out, backup);
    json_out_object_end(&out);
}

struct key_list {
    struct backup_key *items;
    size_t count, cap;
};

static void add_key(struct ctx *ctx, struct key_list *list, struct backup_key key)
{
    if (list->count == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 64;
        list->items = arena_grow(ctx->arena, list->items, list->cap * sizeof *list->items,
                                 cap * sizeof *list->items);
        list->cap = cap;
    }
    list->items[list->count++] = key;
}

static struct err add_sessions(struct ctx *ctx, struct slice room_id, const struct json *body,
                               struct key_list *list)
{
    const struct json *sessions = json_get_object(body, LIT("sessions"));
    if (!sessions) {
        return err_public(ERR_M_BAD_JSON, "sessions must be an object.");
    }
    for (uint32_t i = 0; i < sessions->count; i++) {
        add_key(
            ctx, list,
            (struct backup_key){room_id, sessions->members[i].key, &sessions->members[i].value});
    }
    return OK;
}

static struct err add_rooms(struct ctx *ctx, const struct json *body, struct key_list *list)
{
    const struct json *rooms = json_get_object(body, LIT("rooms"));
    if (!rooms) {
        return err_public(ERR_M_BAD_JSON, "rooms must be an object.");
    }
    for (uint32_t i = 0; i < rooms->count; i++) {
        TRY(add_sessions(ctx, rooms->members[i].key, &rooms->members[i].value, list));
    }
    return OK;
}

static struct err read_keys(struct ctx *ctx, const struct http_request *request,
                            const struct backup_scope *scope, struct key_list *list)
{
    if (scope->session_id.ptr) {
        add_key(ctx, list, (struct backup_key){scope->room_id, scope->session_id, &request->json});
        return OK;
    }
    return scope->room_id.ptr ? add_sessions(ctx, scope->room_id, &request->json, list)
                              : add_rooms(ctx, &request->json, list);
}

static struct err put_keys(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct backup_scope scope;
    struct key_list list = {0};
    struct key_backup backup;
    TRY(read_scope(ctx, request, &scope));
    TRY(read_keys(ctx, request, &scope, &list));
    struct err err =
        hs_backup_keys_put(app, ctx, scope.user, scope.version, list.items, list.count, &backup);
    if (err.code == ERR_M_WRONG_ROOM_KEYS_VERSION) {
        http_reply_error(reply, err,
                         arena_printf(ctx->arena, "\"current_version\":\"%llu\"",
                                      (unsigned long long)backup.version));
        return OK;
    }
    TRY(err);
    reply_state(ctx, &backup, reply);
    return OK;
}

static struct err get_keys(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct backup_scope scope;
    struct json_out out = json_out_to(&reply->body);
    TRY(read_scope(ctx, request, &scope));
    return hs_backup_keys_write(app, ctx, &scope, &out);
}

static struct err delete_keys(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct backup_scope scope;
    struct key_backup backup;
    TRY(read_scope(ctx, request, &scope));
    TRY(hs_backup_keys_delete(app, ctx, &scope, &backup));
    reply_state(ctx, &backup, reply);
    return OK;
}

#define VERSION "/_matrix/client/v3/room_keys/version"
#define KEYS "/_matrix/client/v3/room_keys/keys"
#define SECTION "Server-side key backups"
static const struct http_route routes[] = {
    {HTTP_POST, VERSION, HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON, HTTP_LANE_USER,
     VERSION_BODY_BYTES_MAX, post_version, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, VERSION, HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     get_current, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, VERSION "/{version}", HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE,
     0, get_version, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_PUT, VERSION "/{version}", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON,
     HTTP_LANE_USER, VERSION_BODY_BYTES_MAX, put_version, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_DELETE, VERSION "/{version}", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_NONE,
     HTTP_LANE_USER, 0, delete_version, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_PUT, KEYS "/{roomId}/{sessionId}", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON,
     HTTP_LANE_USER, KEYS_BODY_BYTES_MAX, put_keys, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, KEYS "/{roomId}/{sessionId}", HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_keys, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_DELETE, KEYS "/{roomId}/{sessionId}", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_NONE,
     HTTP_LANE_USER, 0, delete_keys, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_PUT, KEYS "/{roomId}", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON, HTTP_LANE_USER,
     KEYS_BODY_BYTES_MAX, put_keys, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, KEYS "/{roomId}", HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     get_keys, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_DELETE, KEYS "/{roomId}", HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_NONE, HTTP_LANE_USER,
     0, delete_keys, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_PUT, KEYS, HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON, HTTP_LANE_USER,
     KEYS_BODY_BYTES_MAX, put_keys, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, KEYS, HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_keys,
     SECTION, NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_DELETE, KEYS, HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_NONE, HTTP_LANE_USER, 0,
     delete_keys, SECTION, NULL, HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_key_backup_routes = {routes, COUNT_OF(routes)};
