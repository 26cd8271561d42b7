#include "tools/myelin-conform/peer_verify.h"

/* The server's keys, asked for once in a scene; the answer to the last step stays. */
static struct err target_keys(struct stage *stage)
{
    if (stage->target_keys.type == JSON_OBJECT) {
        return OK;
    }
    struct answer kept = stage->answer;
    struct slice asked = stage->asked;
    TRY(stage_ask_json(stage, "GET", "/_matrix/key/v2/server", NULL));
    stage->target_keys = stage->answer.is_json ? stage->answer.json : json_object();
    stage->answer = kept;
    stage->asked = asked;
    return OK;
}

static bool target_key(struct stage *stage, struct slice key_id, struct ed25519_public *key_out)
{
    const struct json *keys = json_get_object(&stage->target_keys, LIT("verify_keys"));
    const struct json *key = json_get_object(keys, key_id);
    return ed25519_parse_public(json_get_string(key, LIT("key")), key_out);
}

struct err peer_verify_object(struct stage *stage, const struct json *object, struct slice *why_out)
{
    TRY(target_keys(stage));
    const struct json *mine =
        json_get_object(json_get_object(object, LIT("signatures")), stage->target->server_name);
    *why_out = mine && mine->count > 0 ? LIT("") : LIT("the server has not signed this");
    for (size_t i = 0; mine && i < mine->count; i++) {
        struct ed25519_public key;
        struct slice key_id = mine->members[i].key;
        bool holds =
            target_key(stage, key_id, &key) &&
            json_sign_verify(stage->arena, object, stage->target->server_name, key_id, &key);
        if (!holds) {
            *why_out = LIT("the server's signature does not hold");
        }
    }
    return OK;
}

static bool key_of(void *arg, struct server_name server, struct slice key_id,
                   struct ed25519_public *key_out)
{
    struct stage *stage = arg;
    for (size_t i = 0; i < stage->peer_count; i++) {
        const struct peer *peer = stage->peers[i];
        if (slice_eq(peer->name, server.s) && slice_eq(peer->key_id, key_id)) {
            *key_out = ed25519_public_of(&peer->key);
            return true;
        }
    }
    return slice_eq(server.s, stage->target->server_name) && target_key(stage, key_id, key_out);
}

struct err peer_verify_event(struct stage *stage, const struct room_rules *rules,
                             const struct json *tree, struct slice *why_out)
{
    struct event event;
    struct server_name server;
    TRY(target_keys(stage));
    struct err err = event_parse_tree(stage->arena, rules, tree, &event);
    if (err.code == 0) {
        err = event_check_signatures(stage->arena, &event, key_of, stage, &server);
    }
    *why_out = err.code != 0 ? slice_of(err.text) : LIT("");
    if (err.code == 0 && !event_check_hash(stage->arena, &event)) {
        *why_out = LIT("the content hash does not fit");
    }
    return OK;
}

/* The value of name="value" in the header; ptr NULL when absent. */
static struct slice parameter(struct slice header, struct slice name)
{
    slice_cut(header, ' ', &(struct slice){0});
    while (header.len > 0) {
        struct slice part;
        struct slice key;
        header = slice_cut(header, ',', &part);
        struct slice value = slice_cut(part, '=', &key);
        key = slice_trim(key);
        if (slice_find_last(key, ' ') < key.len) {
            key = slice_from(key, slice_find_last(key, ' ') + 1);
        }
        if (slice_eq(key, name)) {
            value = slice_trim(value);
            bool is_quoted = value.len >= 2 && value.ptr[0] == '"';
            return is_quoted ? slice_sub(value, 1, value.len - 2) : value;
        }
    }
    return (struct slice){0};
}

struct err peer_verify_request(struct stage *stage, const struct peer *peer,
                               const struct peer_request *request, struct slice *verdict_out)
{
    struct slice header = {0};
    TRY(target_keys(stage));
    for (size_t i = 0; i < request->header_count; i++) {
        if (slice_eq_nocase(request->headers[i].name, LIT("authorization"))) {
            header = request->headers[i].value;
        }
    }
    struct slice origin = parameter(header, LIT("origin"));
    struct slice key_id = parameter(header, LIT("key"));
    struct json mine = json_object();
    struct json signatures = json_object();
    struct json object = json_object();
    struct json content;
    struct arena *arena = stage->arena;
    json_set(arena, &mine, key_id, json_string(parameter(header, LIT("sig"))));
    json_set(arena, &signatures, origin, mine);
    json_set(arena, &object, LIT("method"), json_string(request->method));
    json_set(arena, &object, LIT("uri"), json_string(request->uri));
    json_set(arena, &object, LIT("origin"), json_string(origin));
    json_set(arena, &object, LIT("destination"), json_string(peer->name));
    json_set(arena, &object, LIT("signatures"), signatures);
    if (request->body.len > 0 && json_parse(arena, request->body, &content).code == 0) {
        json_set(arena, &object, LIT("content"), content);
    }
    struct ed25519_public key;
    *verdict_out = LIT("invalid");
    if (!header.ptr || !slice_eq(origin, stage->target->server_name)) {
        *verdict_out = LIT("no X-Matrix header of the server");
    } else if (target_key(stage, key_id, &key) &&
               json_sign_verify(arena, &object, origin, key_id, &key)) {
        *verdict_out = LIT("valid");
    }
    return OK;
}
