#include "federation/out_query.h"

#include "federation/backfill.h"
#include "federation/fed_priv.h"
#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <pthread.h>
#include <string.h>

enum {
    HIERARCHY_KEPT_MS = 5 * 60 * 1000,
    PROFILE_KEPT_MS = 60 * 1000,
    KEPT_BYTES_MAX = 8 << 20, /* all answers together; then all are dropped */
    HIERARCHY_BYTES_MAX = 4 << 20,
    ASK_TIMEOUT_MS = 10000,
};

/* --- answers kept for a while --- */

struct kept {
    int64_t until_ms;
    size_t len;
    char bytes[];
};

struct fed_answers {
    pthread_mutex_t lock; /* a leaf */
    struct map *by_path;  /* server, NUL, path -> struct kept * */
    size_t bytes;
};

struct fed_answers *fed_answers_new(void)
{
    struct fed_answers *answers = mem_alloc(sizeof *answers);
    pthread_mutex_init(&answers->lock, NULL);
    answers->by_path = map_new();
    return answers;
}

static void drop_all(struct fed_answers *answers)
{
    struct slice key;
    uint64_t value = 0;
    size_t cursor = 0;
    while (map_next(answers->by_path, &cursor, &key, &value)) {
        mem_free((struct kept *)(uintptr_t)value);
    }
    map_free(&answers->by_path);
    answers->by_path = map_new();
    answers->bytes = 0;
}

void fed_answers_free(struct fed_answers **pointer)
{
    struct fed_answers *answers = *pointer;
    if (!answers) {
        return;
    }
    drop_all(answers);
    map_free(&answers->by_path);
    pthread_mutex_destroy(&answers->lock);
    mem_free(answers);
    *pointer = NULL;
}

static bool find_kept(struct fed_answers *answers, struct ctx *ctx, struct slice key,
                      struct slice *bytes_out)
{
    pthread_mutex_lock(&answers->lock);
    const struct kept *kept = map_get_ptr(answers->by_path, key);
    bool counts = kept && kept->until_ms > now_mono_ms(ctx->now);
    if (counts) {
        *bytes_out = arena_copy(ctx->arena, (struct slice){kept->bytes, kept->len});
    }
    pthread_mutex_unlock(&answers->lock);
    return counts;
}

static void keep(struct fed_answers *answers, struct ctx *ctx, struct slice key, struct slice bytes,
                 int64_t life_ms)
{
    struct kept *kept = mem_alloc(sizeof *kept + bytes.len);
    kept->until_ms = now_mono_ms(ctx->now) + life_ms;
    kept->len = bytes.len;
    memcpy(kept->bytes, bytes.ptr, bytes.len);
    pthread_mutex_lock(&answers->lock);
    struct kept *old = map_get_ptr(answers->by_path, key);
    if (old) {
        answers->bytes -= old->len;
        map_remove(answers->by_path, key);
        mem_free(old);
    }
    if (answers->bytes + bytes.len > KEPT_BYTES_MAX) {
        drop_all(answers);
    }
    answers->bytes += bytes.len;
    map_set_ptr(answers->by_path, key, kept);
    pthread_mutex_unlock(&answers->lock);
}

/* A GET whose answer is kept for `life_ms`. */
static struct err ask_kept(struct hs *hs, struct ctx *ctx, const struct fed_call *call,
                           int64_t life_ms, struct json *answer_out)
{
    struct slice bytes;
    struct slice parts = arena_concat(ctx->arena, call->destination, (struct slice){"\0", 1});
    struct slice key = arena_concat(ctx->arena, parts, call->path);
    if (find_kept(hs->fed->answers, ctx, key, &bytes)) {
        return json_parse(ctx->arena, bytes, answer_out);
    }
    TRY(fed_call_json(hs->fed, ctx, call, answer_out));
    keep(hs->fed->answers, ctx, key, json_canonical(ctx->arena, answer_out), life_ms);
    return OK;
}

/* --- the questions --- */

struct err fed_alias(struct hs *hs, struct ctx *ctx, struct slice alias, struct json *answer_out)
{
    struct fed_call call = {
        .destination = ids_alias_domain(ids_trust_alias(alias)).s,
        .path = fed_path(ctx, "/_matrix/federation/v1/query/directory?room_alias=%s", &alias, 1),
        .timeout_ms = ASK_TIMEOUT_MS};
    TRY(fed_call_json(hs->fed, ctx, &call, answer_out));
    return ids_is_room(json_get_string(answer_out, LIT("room_id")))
               ? OK
               : err_public(ERR_M_NOT_FOUND, "The alias's server gave no room.");
}

/* A server without the POST form (or that refuses it) is asked by GET where nothing is searched. */
struct err fed_public_rooms(struct hs *hs, struct ctx *ctx, struct slice server,
                            const struct json *body, struct json *answer_out)
{
    struct fed_call call = {.destination = server,
                            .method = LIT("POST"),
                            .path = LIT("/_matrix/federation/v1/publicRooms"),
                            .content = body,
                            .timeout_ms = 2 * ASK_TIMEOUT_MS};
    if (json_get(body, LIT("filter"))) {
        return fed_call_json(hs->fed, ctx, &call, answer_out);
    }
    int64_t limit = 0;
    struct slice since = json_get_string(body, LIT("since"));
    json_get_int(body, LIT("limit"), &limit);
    struct slice parts[] = {arena_printf(ctx->arena, "%lld", (long long)limit), since};
    call.method = LIT("GET");
    call.content = NULL;
    call.path =
        limit && since.len
            ? fed_path(ctx, "/_matrix/federation/v1/publicRooms?limit=%s&since=%s", parts, 2)
        : limit     ? fed_path(ctx, "/_matrix/federation/v1/publicRooms?limit=%s", parts, 1)
        : since.len ? fed_path(ctx, "/_matrix/federation/v1/publicRooms?since=%s", parts + 1, 1)
                    : LIT("/_matrix/federation/v1/publicRooms");
    return fed_call_json(hs->fed, ctx, &call, answer_out);
}

struct err fed_hierarchy(struct hs *hs, struct ctx *ctx, struct slice room_id,
                         struct remote_servers via, bool suggested_only, struct json *answer_out)
{
    struct slice parts[] = {room_id, suggested_only ? LIT("true") : LIT("false")};
    struct err err = err_public(ERR_M_NOT_FOUND, "No server knows the room.");
    for (size_t i = 0; i < via.count; i++) {
        struct fed_call call = {
            .destination = via.names[i],
            .path =
                fed_path(ctx, "/_matrix/federation/v1/hierarchy/%s?suggested_only=%s", parts, 2),
            .body_bytes_max = HIERARCHY_BYTES_MAX,
            .timeout_ms = ASK_TIMEOUT_MS};
        if (hs_is_local(hs, via.names[i])) {
            continue;
        }
        err = ask_kept(hs, ctx, &call, HIERARCHY_KEPT_MS, answer_out);
        if (err.code == 0 || err.code == ERR_WAITS) {
            return err;
        }
    }
    return err;
}

struct err fed_profile(struct hs *hs, struct ctx *ctx, struct slice user_id,
                       struct json *profile_out)
{
    struct fed_call call = {
        .destination = ids_user_domain(ids_trust_user(user_id)).s,
        .path = fed_path(ctx, "/_matrix/federation/v1/query/profile?user_id=%s", &user_id, 1),
        .body_bytes_max = FED_SMALL_ANSWER,
        .timeout_ms = ASK_TIMEOUT_MS};
    return ask_kept(hs, ctx, &call, PROFILE_KEPT_MS, profile_out);
}

/* A client wants to read around the event that it is told of. */
static struct err fetch_history(struct hs *hs, struct ctx *ctx, struct room *room,
                                struct slice event_id)
{
    enum { ROUNDS_MAX = 10, ROUND_EVENTS = 100 };
    for (int round = 0; round < ROUNDS_MAX; round++) {
        struct intake_edge *edges = NULL;
        size_t count = 0;
        struct stored_event event;
        bool found = false;
        bool added = false;
        TRY(fed_graph_find(hs, ctx, room, event_id, &event, &found));
        TRY(hs_intake_edges(hs, ctx, room, &edges, &count));
        if (found || count == 0) {
            return OK;
        }
        TRY(fed_backfill(hs, ctx, room, edges[0].cited_by, ROUND_EVENTS, &added));
        if (!added) {
            return OK;
        }
    }
    return OK;
}

struct err fed_timestamp(struct hs *hs, struct ctx *ctx, struct room *room, int64_t ts_ms,
                         bool forward, struct json *answer_out)
{
    enum { SERVERS_MAX = 3 };
    struct slice parts[] = {hs_room_info(room).room_id,
                            arena_printf(ctx->arena, "%lld", (long long)ts_ms),
                            forward ? LIT("f") : LIT("b")};
    struct fed_candidates candidates = {.max = SERVERS_MAX};
    struct slice *servers = NULL;
    size_t count = 0;
    struct err err = err_public(ERR_M_NOT_FOUND, "No server knows such an event.");
    TRY(fed_servers_to_ask(hs, ctx, room, &candidates, &servers, &count));
    for (size_t i = 0; i < count; i++) {
        struct fed_call call = {
            .destination = servers[i],
            .path = fed_path(ctx, "/_matrix/federation/v1/timestamp_to_event/%s?ts=%s&dir=%s",
                             parts, 3),
            .body_bytes_max = FED_SMALL_ANSWER,
            .timeout_ms = ASK_TIMEOUT_MS};
        err = fed_call_json(hs->fed, ctx, &call, answer_out);
        struct slice event_id = err.code ? LIT("") : json_get_string(answer_out, LIT("event_id"));
        if (err.code == ERR_WAITS) {
            return err;
        }
        if (ids_is_event(event_id)) {
            return fetch_history(hs, ctx, room, event_id);
        }
    }
    return err.code ? err : err_public(ERR_M_NOT_FOUND, "No server knows such an event.");
}
