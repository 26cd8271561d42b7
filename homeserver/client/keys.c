/* Device keys and one-time keys. Spec: client-server, "End-to-End Encryption". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/client/keys_priv.h"
#include "homeserver/service/cross_signing.h"
#include "homeserver/service/device_keys.h"
#include "homeserver/service/users.h"
#include "homeserver/sync/sync.h"

enum {
    UPLOAD_BODY_BYTES_MAX = 1 << 18,
    QUERY_BODY_BYTES_MAX = 1 << 20,
    TIMEOUT_MS = 10000,
    TIMEOUT_MS_MAX = 60000,
};

/* --- upload --- */

/* null counts as absent. */
static const struct json *given(const struct http_request *request, struct slice key)
{
    const struct json *value = json_get(&request->json, key);
    return value && value->type != JSON_NULL ? value : NULL;
}

static struct err upload(void *app, struct ctx *ctx, const struct http_request *request,
                         struct http_reply *reply)
{
    const struct requester *requester = request->requester;
    struct key_counts counts;
    struct json_out out = json_out_to(&reply->body);
    struct key_upload keys = {.user = requester->user,
                              .user_id = requester->user_id,
                              .device_id = requester->device_id,
                              .device_keys = given(request, LIT("device_keys")),
                              .one_time_keys = given(request, LIT("one_time_keys")),
                              .fallback_keys = given(request, LIT("fallback_keys"))};
    TRY(hs_keys_upload(app, ctx, &keys));
    TRY(hs_key_counts(app, ctx, requester->user, requester->device_id, &counts));
    json_out_object(&out);
    json_out_key_object(&out, LIT("one_time_key_counts"));
    for (size_t i = 0; i < counts.one_time_count; i++) {
        json_out_key_int(&out, counts.one_time[i].algorithm, counts.one_time[i].count);
    }
    json_out_object_end(&out);
    json_out_object_end(&out);
    return OK;
}

/* --- what queries and claims share --- */

/* A request for keys, split by server. */
struct asking {
    struct hs *hs;
    struct ctx *ctx;
    const struct requester *requester;
    const struct json *wanted; /* user id -> what is wanted */
    int64_t timeout_ms;
    struct keys_ask *remotes;
    size_t remote_count;
};

static struct slice server_of(struct slice user_id)
{
    return ids_user_domain(ids_trust_user(user_id)).s;
}

static struct keys_ask *remote_of(struct asking *asking, struct slice server)
{
    for (size_t i = 0; i < asking->remote_count; i++) {
        if (slice_eq(asking->remotes[i].server, server)) {
            return &asking->remotes[i];
        }
    }
    struct keys_ask *remote = &asking->remotes[asking->remote_count++];
    *remote = (struct keys_ask){.server = server, .wanted = json_object()};
    return remote;
}

static struct err split(struct asking *asking)
{
    const struct json *wanted = asking->wanted;
    asking->remotes = arena_array(asking->ctx->arena, wanted->count + 1, sizeof *asking->remotes);
    for (uint32_t i = 0; i < wanted->count; i++) {
        struct slice user_id = wanted->members[i].key;
        if (!ids_is_user(user_id)) {
            return err_public(ERR_M_INVALID_PARAM, "The body holds an invalid user id.");
        }
        if (!hs_user_is_local(asking->hs, user_id)) {
            json_set(asking->ctx->arena, &remote_of(asking, server_of(user_id))->wanted, user_id,
                     wanted->members[i].value);
        }
    }
    return OK;
}

/* A server that does not answer is named in `failures`; the others' keys are served. */
static struct err ask_remotes(struct asking *asking, hs_keys_remote_fn ask)
{
    for (size_t i = 0; i < asking->remote_count; i++) {
        asking->remotes[i].failed = true;
    }
    if (!ask || asking->remote_count == 0) {
        return OK;
    }
    return ask(asking->hs, asking->ctx, asking->remotes, asking->remote_count, asking->timeout_ms);
}

static void write_failures(struct asking *asking, struct json_out *out)
{
    json_out_key_object(out, LIT("failures"));
    for (size_t i = 0; i < asking->remote_count; i++) {
        if (asking->remotes[i].failed) {
            json_out_key_raw(out, asking->remotes[i].server, LIT("{}"));
        }
    }
    json_out_object_end(out);
}

/* What other servers say of their own users under one key of the answer. */
static void write_remote(struct asking *asking, struct slice key, struct json_out *out)
{
    for (size_t i = 0; i < asking->remote_count; i++) {
        const struct keys_ask *remote = &asking->remotes[i];
        const struct json *users = json_get_object(&remote->answer, key);
        for (uint32_t j = 0; users && j < users->count; j++) {
            if (json_get(&remote->wanted, users->members[j].key)) {
                json_out_key(out, users->members[j].key);
                json_out_value(out, &users->members[j].value);
            }
        }
    }
}

static struct err begin(struct asking *asking, const struct http_request *request, struct slice key)
{
    const struct json *timeout = json_get(&request->json, LIT("timeout"));
    asking->wanted = json_get(&request->json, key);
    asking->requester = request->requester;
    asking->timeout_ms = TIMEOUT_MS;
    if (!asking->wanted) {
        return err_public(ERR_M_MISSING_PARAM, "device_keys or one_time_keys is missing.");
    }
    if (asking->wanted->type != JSON_OBJECT) {
        return err_public(ERR_M_BAD_JSON, "device_keys and one_time_keys must be objects.");
    }
    if (timeout && timeout->type == JSON_INT && timeout->integer >= 0) {
        asking->timeout_ms = timeout->integer < TIMEOUT_MS_MAX ? timeout->integer : TIMEOUT_MS_MAX;
    } else if (timeout && timeout->type != JSON_NULL) {
        return err_public(ERR_M_BAD_JSON, "timeout must be an integer of at least 0.");
    }
    return OK;
}

/* --- query --- */

static struct err check_device_ids(const struct json *wanted)
{
    for (uint32_t i = 0; i < wanted->count; i++) {
        const struct json *list = &wanted->members[i].value;
        if (list->type != JSON_ARRAY) {
            return err_public(ERR_M_BAD_JSON, "device_keys maps user ids to lists of device ids.");
        }
        for (uint32_t j = 0; j < list->count; j++) {
            if (list->items[j].type != JSON_STRING) {
                return err_public(ERR_M_BAD_JSON, "A device id must be a string.");
            }
        }
    }
    return OK;
}

static struct err write_devices(struct asking *asking, struct json_out *out)
{
    json_out_key_object(out, LIT("device_keys"));
    for (uint32_t i = 0; i < asking->wanted->count; i++) {
        const struct json_member *member = &asking->wanted->members[i];
        uint64_t user = 0;
        bool found = false;
        if (!hs_user_is_local(asking->hs, member->key)) {
            continue;
        }
        TRY(hs_user_find(asking->hs, asking->ctx, member->key, &user, &found));
        json_out_key(out, member->key);
        TRY(hs_keys_write_devices(asking->hs, asking->ctx, found ? user : 0, &member->value, out));
    }
    write_remote(asking, LIT("device_keys"), out);
    json_out_object_end(out);
    return OK;
}

/* The caller's own signatures of another user's master key are kept here. */
static struct err write_remote_cross(struct asking *asking, enum cross_key key, struct slice name,
                                     struct json_out *out)
{
    for (size_t i = 0; i < asking->remote_count; i++) {
        struct keys_ask *remote = &asking->remotes[i];
        const struct json *users = json_get_object(&remote->answer, name);
        for (uint32_t j = 0; key == CROSS_MASTER && users && j < users->count; j++) {
            TRY(hs_cross_signing_add_signatures(asking->hs, asking->ctx, asking->requester->user,
                                                users->members[j].key, &users->members[j].value));
        }
    }
    write_remote(asking, name, out);
    return OK;
}

static struct err write_cross_keys(struct asking *asking, enum cross_key key, struct json_out *out)
{
    struct slice name = arena_concat(asking->ctx->arena, hs_cross_key_usage(key), LIT("_keys"));
    json_out_key_object(out, name);
    for (uint32_t i = 0; i < asking->wanted->count; i++) {
        struct slice user_id = asking->wanted->members[i].key;
        struct cross_view view = {.viewer = asking->requester->user, .key = key};
        struct slice json;
        bool found = false;
        if (hs_user_is_local(asking->hs, user_id)) {
            TRY(hs_user_find(asking->hs, asking->ctx, user_id, &view.user, &found));
        }
        if (found) {
            TRY(hs_cross_signing_get(asking->hs, asking->ctx, view, &json, &found));
        }
        if (found) {
            json_out_key_raw(out, user_id, json);
        }
    }
    if (key != CROSS_USER_SIGNING) {
        TRY(write_remote_cross(asking, key, name, out));
    }
    json_out_object_end(out);
    return OK;
}

static struct err query(void *app, struct ctx *ctx, const struct http_request *request,
                        struct http_reply *reply)
{
    struct asking asking = {.hs = app, .ctx = ctx};
    struct json_out out = json_out_to(&reply->body);
    TRY(begin(&asking, request, LIT("device_keys")));
    TRY(check_device_ids(asking.wanted));
    TRY(split(&asking));
    TRY(ask_remotes(&asking, hs_keys_get_remote(app).query));
    json_out_object(&out);
    TRY(write_devices(&asking, &out));
    for (int key = 0; key < CROSS_KEY_COUNT; key++) {
        TRY(write_cross_keys(&asking, (enum cross_key)key, &out));
    }
    write_failures(&asking, &out);
    json_out_object_end(&out);
    return OK;
}

/* --- claim --- */

static struct err claim(void *app, struct ctx *ctx, const struct http_request *request,
                        struct http_reply *reply)
{
    struct asking asking = {.hs = app, .ctx = ctx};
    struct json_out out = json_out_to(&reply->body);
    TRY(begin(&asking, request, LIT("one_time_keys")));
    TRY(hs_keys_check_claims(asking.wanted));
    TRY(split(&asking));
    TRY(ask_remotes(&asking, hs_keys_get_remote(app).claim));
    json_out_object(&out);
    json_out_key_object(&out, LIT("one_time_keys"));
    for (uint32_t i = 0; i < asking.wanted->count; i++) {
        TRY(hs_keys_write_claims(app, ctx, &asking.wanted->members[i], &out));
    }
    write_remote(&asking, LIT("one_time_keys"), &out);
    json_out_object_end(&out);
    write_failures(&asking, &out);
    json_out_object_end(&out);
    return OK;
}

/* --- changes --- */

static struct err read_token(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                             struct slice name, struct sync_token *token_out)
{
    struct slice text = http_query_get(ctx, request, name);
    if (!text.ptr) {
        return err_public(ERR_M_MISSING_PARAM, "`from` and `to` are needed.");
    }
    return sync_token_check(text, positions_published(hs->positions), token_out);
}

static struct err changes(void *app, struct ctx *ctx, const struct http_request *request,
                          struct http_reply *reply)
{
    struct hs *hs = app;
    struct sync_filter filter = sync_filter_all();
    struct sync_request look = {.user = request->requester->user,
                                .user_id = request->requester->user_id,
                                .device_id = request->requester->device_id,
                                .filter = &filter};
    struct sync_token to;
    struct json_out out = json_out_to(&reply->body);
    TRY(read_token(hs, ctx, request, LIT("from"), &look.since));
    TRY(read_token(hs, ctx, request, LIT("to"), &to));
    return sync_key_changes(hs->sync, ctx, &look, to.pos, &out);
}

#define KEYS "/_matrix/client/v3/keys/"
#define FLAGS (HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED)
static const struct http_route routes[] = {
    {HTTP_POST, KEYS "upload", HTTP_AUTH_USER, HTTP_RATE_NONE, HTTP_BODY_OPTIONAL_JSON,
     HTTP_LANE_USER, UPLOAD_BODY_BYTES_MAX, upload, "End-to-End Encryption", NULL, FLAGS},
    {HTTP_POST, KEYS "query", HTTP_AUTH_USER, HTTP_RATE_NONE, HTTP_BODY_JSON, HTTP_LANE_NONE,
     QUERY_BODY_BYTES_MAX, query, "End-to-End Encryption", NULL, FLAGS},
    {HTTP_POST, KEYS "claim", HTTP_AUTH_USER, HTTP_RATE_NONE, HTTP_BODY_JSON, HTTP_LANE_NONE,
     QUERY_BODY_BYTES_MAX, claim, "End-to-End Encryption", NULL, FLAGS},
    {HTTP_GET, KEYS "changes", HTTP_AUTH_USER, HTTP_RATE_NONE, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     changes, "End-to-End Encryption", NULL, HTTP_ALLOW_SUSPENDED},
    {HTTP_POST, KEYS "device_signing/upload", HTTP_AUTH_USER, HTTP_RATE_NONE, HTTP_BODY_JSON,
     HTTP_LANE_NONE, UPLOAD_BODY_BYTES_MAX, cs_device_signing_upload, "Cross-signing", NULL,
     HTTP_ALLOW_SUSPENDED},
    {HTTP_POST, KEYS "signatures/upload", HTTP_AUTH_USER, HTTP_RATE_NONE, HTTP_BODY_JSON,
     HTTP_LANE_USER, QUERY_BODY_BYTES_MAX, cs_signatures_upload, "Cross-signing", NULL,
     HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_keys_routes = {routes, COUNT_OF(routes)};
