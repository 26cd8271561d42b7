/* Fetching keys: from the servers themselves, many at once, and from notaries.
 * Spec: server-server, "Publishing Keys", "Querying Keys Through Another Server". */
#include "federation/keys_priv.h"
#include "federation/parallel.h"

enum {
    DIRECT_TIMEOUT_MS = 10000,
    DIRECT_BYTES_MAX = 1 << 18,
    NOTARY_TIMEOUT_MS = 15000,
    NOTARY_BYTES_MAX = 1 << 23,
    NOTARY_SERVERS_MAX = 100, /* in one question */
    NOTARY_FIRST_ABOVE = 8,   /* more servers than this are asked of the notaries first */
    WIDTH_MAX = 16,
    TOTAL_MS = 30000,
    TOTAL_MS_EACH = 100, /* more for each server, up to: */
    TOTAL_MS_MAX = 120000,
};

struct err fed_keys_ask_server(struct fed *fed, struct ctx *ctx, struct slice server)
{
    struct fed_call call = {.destination = server,
                            .path = LIT("/_matrix/key/v2/server"),
                            .timeout_ms = DIRECT_TIMEOUT_MS,
                            .body_bytes_max = DIRECT_BYTES_MAX,
                            .flags = FED_CALL_UNSIGNED | FED_CALL_ANYWAY};
    struct json object;
    struct fed_keys_answer answer = {.server = server, .object = &object, .is_direct = true};
    TRY(fed_call_json(fed, ctx, &call, &object));
    TRY(server_keys_parse(ctx->arena, &object, server, now_wall_ms(ctx->now), &answer.keys));
    return fed_keys_take(fed, ctx, &answer);
}

/* --- notaries --- */

/* A time that an event told may lie anywhere; one that is no number of canonical JSON would have
 * the whole question refused, that is, those of other events too. */
static int64_t time_to_ask(const struct fed_key_query *want)
{
    int64_t ts = want->ts_ms < 0 ? 0 : want->ts_ms;
    return ts > JSON_INT_MAX ? JSON_INT_MAX : ts;
}

static struct json question_of(struct ctx *ctx, const struct fed_key_query *wants, size_t count)
{
    struct arena *arena = ctx->arena;
    struct json servers = json_object();
    struct json question = json_object();
    for (size_t i = 0; i < count; i++) {
        struct json criteria = json_object();
        struct json keys = json_object();
        const struct json *earlier = json_get_object(&servers, wants[i].server);
        keys = earlier ? *earlier : keys;
        json_set(arena, &criteria, LIT("minimum_valid_until_ts"), json_int(time_to_ask(&wants[i])));
        json_set(arena, &keys, wants[i].key_id, criteria);
        json_set(arena, &servers, wants[i].server, keys);
    }
    json_set(arena, &question, LIT("server_keys"), servers);
    return question;
}

static bool is_wanted(const struct fed_key_query *wants, size_t count, struct slice server)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_eq(wants[i].server, server)) {
            return true;
        }
    }
    return false;
}

/* Signed with a key that the notary has now. */
static struct err check_notary(struct fed *fed, struct ctx *ctx, struct slice notary,
                               const struct json *object)
{
    const struct json *own = json_get_object(json_get_object(object, LIT("signatures")), notary);
    for (uint32_t i = 0; own && i < own->count; i++) {
        struct fed_key_query query = {.server = notary,
                                      .key_id = own->members[i].key,
                                      .use = FED_KEY_REQUEST,
                                      .ts_ms = now_wall_ms(ctx->now)};
        struct ed25519_public key;
        bool found = false;
        TRY(fed_key_get(fed, ctx, &query, &key, &found));
        if (found && json_sign_verify(ctx->arena, object, notary, query.key_id, &key)) {
            return OK;
        }
    }
    return err_make(ERR_M_FORBIDDEN, "a notary's answer is not signed by it");
}

static struct err take_object(struct fed *fed, struct ctx *ctx, struct slice notary,
                              const struct json *object)
{
    struct fed_keys_answer answer = {.server = json_get_string(object, LIT("server_name")),
                                     .object = object};
    TRY(check_notary(fed, ctx, notary, object));
    TRY(server_keys_parse(ctx->arena, object, answer.server, now_wall_ms(ctx->now), &answer.keys));
    return fed_keys_take(fed, ctx, &answer);
}

static struct err ask_notary(struct fed *fed, struct ctx *ctx, struct slice notary,
                             const struct fed_key_query *wants, size_t count)
{
    struct json question = question_of(ctx, wants, count);
    struct fed_call call = {.destination = notary,
                            .method = LIT("POST"),
                            .path = LIT("/_matrix/key/v2/query"),
                            .content = &question,
                            .timeout_ms = NOTARY_TIMEOUT_MS,
                            .body_bytes_max = NOTARY_BYTES_MAX,
                            .flags = FED_CALL_UNSIGNED};
    struct json body;
    TRY(fed_call_json(fed, ctx, &call, &body));
    const struct json *objects = json_get_array(&body, LIT("server_keys"));
    for (uint32_t i = 0; objects && i < objects->count; i++) {
        const struct json *object = &objects->items[i];
        bool is_object = object->type == JSON_OBJECT;
        if (!is_object || !is_wanted(wants, count, json_get_string(object, LIT("server_name")))) {
            continue;
        }
        struct err err = take_object(fed, ctx, notary, object);
        if (err.code) {
            log_debug(ctx->log, "notary_answer_refused", .origin = notary,
                      .err = slice_of(err.text));
        }
    }
    return OK;
}

/* Those of the questions that are still open, moved to the front; their number. */
static size_t still_open(struct fed *fed, struct ctx *ctx, struct fed_key_query *wants,
                         size_t count)
{
    size_t open = 0;
    for (size_t i = 0; i < count; i++) {
        struct ed25519_public key;
        bool found = false;
        struct err err = fed_key_find(fed, ctx, &wants[i], &key, &found);
        if (!err.code && !found) {
            struct fed_key_query want = wants[i];
            wants[i] = wants[open];
            wants[open++] = want;
        }
    }
    return open;
}

static size_t ask_notaries(struct fed *fed, struct ctx *ctx, struct fed_key_query *wants,
                           size_t count)
{
    const struct conf_texts *notaries = &fed->hs->conf->trusted_key_servers;
    for (size_t n = 0; n < notaries->count && count; n++) {
        struct slice notary = notaries->items[n];
        for (size_t from = 0; from < count; from += NOTARY_SERVERS_MAX) {
            size_t left = count - from;
            struct err err = ask_notary(fed, ctx, notary, wants + from,
                                        left < NOTARY_SERVERS_MAX ? left : NOTARY_SERVERS_MAX);
            if (err.code) {
                log_debug(ctx->log, "notary_failed", .dest = notary, .err = slice_of(err.text));
                break;
            }
        }
        count = still_open(fed, ctx, wants, count);
    }
    return count;
}

struct err fed_keys_fetch(struct fed *fed, struct ctx *ctx, const struct fed_key_query *query)
{
    struct fed_key_query want = *query;
    struct err err = fed_keys_ask_server(fed, ctx, query->server);
    bool is_notary = false;
    for (size_t i = 0; i < fed->hs->conf->trusted_key_servers.count; i++) {
        is_notary |= slice_eq(fed->hs->conf->trusted_key_servers.items[i], query->server);
    }
    if (!is_notary && still_open(fed, ctx, &want, 1)) { /* a notary does not vouch for itself */
        ask_notaries(fed, ctx, &want, 1);
    }
    return err;
}

/* --- many at once --- */

struct batch {
    struct fed *fed;
    const struct fed_key_query *wants;
};

static struct err fetch_direct(struct fed *fed, struct ctx *ctx, const struct fed_key_query *query)
{
    return fed_keys_ask_server(fed, ctx, query->server);
}

static void fetch_part(void *arg, struct ctx *ctx, size_t index)
{
    struct batch *batch = arg;
    struct fed_keys_want want = {&batch->wants[index], fetch_direct};
    struct ed25519_public key;
    bool found = false;
    struct err err = fed_keys_get_by(batch->fed, ctx, &want, &key, &found);
    if (err.code) {
        log_debug(ctx->log, "key_not_found", .dest = batch->wants[index].server,
                  .err = slice_of(err.text));
    }
}

void fed_keys_fetch_many(struct fed *fed, struct ctx *ctx, struct fed_key_query *wants,
                         size_t count)
{
    bool notaries_first = count > NOTARY_FIRST_ABOVE;
    if (notaries_first) {
        count = ask_notaries(fed, ctx, wants, count);
    }
    struct batch batch = {fed, wants};
    int64_t within_ms = TOTAL_MS + (int64_t)count * TOTAL_MS_EACH;
    const struct fed_parts parts = {.count = count,
                                    .width_max = WIDTH_MAX,
                                    .within_ms =
                                        within_ms < TOTAL_MS_MAX ? within_ms : TOTAL_MS_MAX,
                                    .fn = fetch_part,
                                    .arg = &batch};
    fed_parallel(fed, ctx, &parts);
    if (!notaries_first) {
        ask_notaries(fed, ctx, wants, still_open(fed, ctx, wants, count));
    }
}
