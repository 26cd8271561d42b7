/* What asks other servers for keys of their users, and sends to-device messages to their devices.
 * Spec: server-server, "End-to-End Encryption", "Send-to-device messaging". */
#include "crypto/base64.h"
#include "crypto/sha256.h"
#include "federation/call_many.h"
#include "federation/device_lists.h"
#include "federation/fed_priv.h"
#include "homeserver/service/cross_signing.h"
#include "homeserver/service/remote_devices.h"
#include "homeserver/service/to_device.h"
#include "homeserver/service/users.h"

enum { MESSAGE_ID_BYTES = 18, MESSAGES_IN_EDU = 200 };

/* --- queries --- */

struct user_query {
    uint64_t user;
    struct slice user_id;
    bool is_shared;
    bool is_whole; /* all devices are wanted */
    struct remote_list asked;
};

struct server_query {
    struct keys_ask *ask;
    struct json kept; /* users answered from here */
    struct json rest; /* users to ask for: user id -> device ids */
    struct user_query *users;
    size_t count; /* of rest */
};

static void add_member(struct ctx *ctx, struct json *answer, struct slice group,
                       struct slice user_id, struct json value)
{
    const struct json *present = json_get_object(answer, group);
    struct json users = present ? *present : json_object();
    json_set(ctx->arena, &users, user_id, value);
    json_set(ctx->arena, answer, group, users);
}

static struct err add_kept_cross(struct hs *hs, struct ctx *ctx, struct server_query *query,
                                 const struct user_query *user, enum cross_key key)
{
    struct cross_view view = {.user = user->user, .key = key};
    struct slice text;
    struct json value;
    bool found = false;
    TRY(hs_cross_signing_get(hs, ctx, view, &text, &found));
    if (found && json_parse(ctx->arena, text, &value).code == 0) {
        struct slice group = arena_concat(ctx->arena, hs_cross_key_usage(key), LIT("_keys"));
        add_member(ctx, &query->kept, group, user->user_id, value);
    }
    return OK;
}

static struct err add_kept(struct hs *hs, struct ctx *ctx, struct server_query *query,
                           const struct user_query *user)
{
    struct buf text;
    struct json value;
    buf_init_arena(&text, ctx->arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&text);
    TRY(hs_keys_write_devices(hs, ctx, user->user, json_get(&query->ask->wanted, user->user_id),
                              &out));
    TRY(json_parse(ctx->arena, buf_slice(&text), &value));
    add_member(ctx, &query->kept, LIT("device_keys"), user->user_id, value);
    TRY(add_kept_cross(hs, ctx, query, user, CROSS_MASTER));
    return add_kept_cross(hs, ctx, query, user, CROSS_SELF_SIGNING);
}

static struct err sort_user(struct hs *hs, struct ctx *ctx, struct server_query *query,
                            const struct json_member *wanted)
{
    struct user_query user = {.user_id = wanted->key,
                              .is_whole =
                                  wanted->value.type == JSON_ARRAY && wanted->value.count == 0};
    bool found = false;
    TRY(hs_user_find(hs, ctx, wanted->key, &user.user, &found));
    if (found) {
        TRY(hs_remote_is_shared(hs, ctx, user.user, &user.is_shared));
        TRY(hs_remote_list_get(hs, ctx, user.user, &user.asked));
    }
    if (user.is_shared && user.asked.is_followed && !user.asked.is_stale) {
        return add_kept(hs, ctx, query, &user);
    }
    json_set(ctx->arena, &query->rest, wanted->key, wanted->value);
    query->users[query->count++] = user;
    return OK;
}

static struct err sort_server(struct hs *hs, struct ctx *ctx, struct server_query *query)
{
    const struct json *wanted = &query->ask->wanted;
    query->kept = json_object();
    query->rest = json_object();
    query->users = arena_array(ctx->arena, wanted->count + 1, sizeof *query->users);
    for (uint32_t i = 0; i < wanted->count; i++) {
        TRY(sort_user(hs, ctx, query, &wanted->members[i]));
    }
    return OK;
}

/* Spec: server-server, "Device Management": the cache is first filled from a query. Which update it
 * stands at is not known, so the next one has the list fetched. */
static struct err keep_answer(struct hs *hs, struct ctx *ctx, const struct user_query *user,
                              const struct json *answer)
{
    const struct json *all = json_get_object(answer, LIT("device_keys"));
    const struct json *devices = json_get_object(all, user->user_id);
    struct remote_whole whole = {.asked = user->asked};
    bool kept = false;
    if (!user->is_shared || !user->is_whole || !devices) {
        return OK;
    }
    struct remote_device *items = arena_array(ctx->arena, devices->count + 1, sizeof *items);
    for (uint32_t i = 0; i < devices->count; i++) {
        const struct json *keys = &devices->members[i].value;
        items[i] = (struct remote_device){
            .device_id = devices->members[i].key,
            .display_name =
                json_get_string(json_get_object(keys, LIT("unsigned")), LIT("device_display_name")),
            .keys = keys};
    }
    whole.cross = (struct remote_cross){
        .user = user->user,
        .user_id = user->user_id,
        .master_key = json_get_object(json_get_object(answer, LIT("master_keys")), user->user_id),
        .self_signing_key =
            json_get_object(json_get_object(answer, LIT("self_signing_keys")), user->user_id)};
    whole.devices = items;
    whole.count = devices->count;
    return hs_remote_devices_replace(hs, ctx, &whole, &kept);
}

static void merge(struct ctx *ctx, struct json *to, const struct json *from, struct slice group)
{
    const struct json *users = json_get_object(from, group);
    for (uint32_t i = 0; users && i < users->count; i++) {
        add_member(ctx, to, group, users->members[i].key, users->members[i].value);
    }
}

static struct err take_answer(struct hs *hs, struct ctx *ctx, struct server_query *query,
                              const struct fed_ask *ask)
{
    query->ask->failed = ask && ask->err.code != 0;
    query->ask->answer = query->kept;
    if (!ask || ask->err.code != 0) {
        return OK;
    }
    merge(ctx, &query->ask->answer, &ask->answer, LIT("device_keys"));
    merge(ctx, &query->ask->answer, &ask->answer, LIT("master_keys"));
    merge(ctx, &query->ask->answer, &ask->answer, LIT("self_signing_keys"));
    for (size_t i = 0; i < query->count; i++) {
        TRY(keep_answer(hs, ctx, &query->users[i], &ask->answer));
    }
    return OK;
}

static struct json content_of(struct ctx *ctx, struct slice key, struct json value)
{
    struct json content = json_object();
    json_set(ctx->arena, &content, key, value);
    return content;
}

static struct err query(struct hs *hs, struct ctx *ctx, struct keys_ask *asks, size_t count,
                        int64_t timeout_ms)
{
    struct server_query *queries = arena_array(ctx->arena, count, sizeof *queries);
    struct fed_ask *out = arena_array(ctx->arena, count, sizeof *out);
    struct json *contents = arena_array(ctx->arena, count, sizeof *contents);
    size_t out_count = 0;
    for (size_t i = 0; i < count; i++) {
        queries[i].ask = &asks[i];
        TRY(sort_server(hs, ctx, &queries[i]));
        if (queries[i].count > 0) {
            contents[out_count] = content_of(ctx, LIT("device_keys"), queries[i].rest);
            out[out_count] = (struct fed_ask){.destination = asks[i].server,
                                              .path = LIT("/_matrix/federation/v1/user/keys/query"),
                                              .content = &contents[out_count]};
            out_count++;
        }
    }
    TRY(fed_ask_all(hs->fed, ctx, out, out_count, timeout_ms));
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        TRY(take_answer(hs, ctx, &queries[i], queries[i].count ? &out[at++] : NULL));
    }
    return OK;
}

/* --- claims --- */

static struct err claim(struct hs *hs, struct ctx *ctx, struct keys_ask *asks, size_t count,
                        int64_t timeout_ms)
{
    struct fed_ask *out = arena_array(ctx->arena, count, sizeof *out);
    struct json *contents = arena_array(ctx->arena, count, sizeof *contents);
    for (size_t i = 0; i < count; i++) {
        contents[i] = content_of(ctx, LIT("one_time_keys"), asks[i].wanted);
        out[i] = (struct fed_ask){.destination = asks[i].server,
                                  .path = LIT("/_matrix/federation/v1/user/keys/claim"),
                                  .content = &contents[i]};
    }
    TRY(fed_ask_all(hs->fed, ctx, out, count, timeout_ms));
    for (size_t i = 0; i < count; i++) {
        asks[i].failed = out[i].err.code != 0;
        asks[i].answer = out[i].answer;
    }
    return OK;
}

/* --- to-device --- */

struct outgoing {
    struct hs *hs;
    struct ctx *ctx;
    const struct to_device_send *send;
    bool *done;
};

static struct slice server_of(struct slice user_id)
{
    return ids_user_domain(ids_trust_user(user_id)).s;
}

/* The same for a transaction that is sent again, so that the other side takes it once. */
static struct slice message_id(struct outgoing *out, struct slice server, size_t part)
{
    const struct to_device_send *send = out->send;
    struct buf text;
    buf_init_arena(&text, out->ctx->arena, SIZE_MAX / 2);
    pack_bytes(&text, send->sender);
    pack_bytes(&text, send->device_id);
    pack_bytes(&text, send->type);
    pack_bytes(&text, send->txn_id);
    pack_bytes(&text, server);
    pack_u64(&text, part);
    if (!send->txn_id.ptr) {
        pack_u64(&text, positions_newest(out->hs->positions));
        pack_i64(&text, now_wall_ms(out->ctx->now));
    }
    struct sha256 hash = sha256_of(buf_slice(&text));
    struct slice bytes = {(const char *)hash.bytes, MESSAGE_ID_BYTES};
    return base64_encode(out->ctx->arena, bytes, BASE64_URL);
}

static void add_message(struct ctx *ctx, struct json *messages, const struct to_device_item *item)
{
    const struct json *present = json_get_object(messages, item->user_id);
    struct json devices = present ? *present : json_object();
    json_set(ctx->arena, &devices, item->device_id, *item->content);
    json_set(ctx->arena, messages, item->user_id, devices);
}

/* One EDU: the next messages for the server of item `first`. */
static struct err send_edu(struct outgoing *out, size_t first)
{
    const struct to_device_send *send = out->send;
    struct arena *arena = out->ctx->arena;
    struct slice server = server_of(send->items[first].user_id);
    struct json messages = json_object();
    struct json content = json_object();
    size_t count = 0;
    for (size_t i = first; i < send->count && count < MESSAGES_IN_EDU; i++) {
        if (!out->done[i] && slice_eq(server_of(send->items[i].user_id), server)) {
            add_message(out->ctx, &messages, &send->items[i]);
            out->done[i] = true;
            count++;
        }
    }
    json_set(arena, &content, LIT("message_id"), json_string(message_id(out, server, first)));
    json_set(arena, &content, LIT("messages"), messages);
    json_set(arena, &content, LIT("sender"), json_string(send->sender));
    json_set(arena, &content, LIT("type"), json_string(send->type));
    struct fed_edu edu = {
        .type = LIT("m.direct_to_device"), .content = &content, .is_durable = true};
    return fed_edu_queue(out->hs->fed, out->ctx, &server, 1, &edu);
}

static struct err send_to_devices(struct hs *hs, struct ctx *ctx, const struct to_device_send *send)
{
    struct outgoing out = {.hs = hs, .ctx = ctx, .send = send};
    if (!hs_user_is_local(hs, send->sender)) {
        return OK;
    }
    out.done = arena_array(ctx->arena, send->count + 1, sizeof *out.done);
    for (size_t i = 0; i < send->count; i++) {
        struct slice server = server_of(send->items[i].user_id);
        bool is_remote = server.len > 0 && !hs_is_local(hs, server);
        if (is_remote && !out.done[i]) {
            TRY(send_edu(&out, i));
        }
    }
    return OK;
}

void fed_keys_hook(struct hs *hs)
{
    hs_keys_set_remote(hs, (struct hs_keys_remote){.query = query, .claim = claim});
    hs_inbox_set_remote(hs, send_to_devices);
}
