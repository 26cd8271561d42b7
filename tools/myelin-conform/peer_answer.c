/* What a played server answers: as the scene scripts it, else in the usual way from its rooms. */
#include "homeserver/base/now.h"
#include "tools/myelin-conform/match.h"
#include "tools/myelin-conform/peer_room.h"

#include <ctype.h>

enum { PARAMS_MAX = 4, HISTORY_MAX = 100, KEY_LIFE_MS = 86400000, DECODED_BYTES_MAX = 1 << 20 };

/* A request with the values that stand in its path. */
struct query {
    struct peer *peer;
    struct arena *arena;
    const struct peer_request *request;
    struct slice params[PARAMS_MAX];
    struct peer_room *room; /* of params[0]; NULL when the row does not begin with a room */
    struct json body;
};

typedef struct peer_reply (*answer_fn)(struct query *query);

static struct slice percent_decode(struct arena *arena, struct slice text)
{
    struct buf out;
    buf_init_arena(&out, arena, DECODED_BYTES_MAX);
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '%' && i + 2 < text.len && isxdigit((unsigned char)text.ptr[i + 1]) &&
            isxdigit((unsigned char)text.ptr[i + 2])) {
            int high = text.ptr[i + 1] | 0x20;
            int low = text.ptr[i + 2] | 0x20;
            high = high > '9' ? high - 'a' + 10 : high - '0';
            low = low > '9' ? low - 'a' + 10 : low - '0';
            c = (char)(high * 16 + low);
            i += 2;
        }
        buf_add_byte(&out, c);
    }
    return buf_slice(&out);
}

static struct peer_reply reply_json(struct query *query, unsigned status, const struct json *body)
{
    return (struct peer_reply){status, json_canonical(query->arena, body), NULL, 0};
}

static struct peer_reply reply_error(struct query *query, unsigned status, const char *errcode)
{
    struct json body = json_object();
    json_set(query->arena, &body, LIT("errcode"), json_string(slice_of(errcode)));
    json_set(query->arena, &body, LIT("error"), json_string(LIT("the played server refuses")));
    return reply_json(query, status, &body);
}

/* The value of a query parameter, decoded; ptr NULL when absent. */
static struct slice query_text(struct query *query, struct slice name)
{
    struct slice rest = slice_cut(query->request->uri, '?', &(struct slice){0});
    while (rest.len > 0) {
        struct slice pair;
        struct slice key;
        rest = slice_cut(rest, '&', &pair);
        struct slice value = slice_cut(pair, '=', &key);
        if (slice_eq(key, name)) {
            return percent_decode(query->arena, value);
        }
    }
    return (struct slice){0};
}

static struct json event_list(struct query *query, struct peer_event *const *events, size_t count)
{
    struct json list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_push(query->arena, &list, events[i]->tree);
    }
    return list;
}

static struct json id_list(struct query *query, const struct json *events)
{
    struct json list = json_array();
    for (size_t i = 0; i < events->count; i++) {
        struct slice id = peer_event_id(query->arena, query->room->rules, &events->items[i]);
        json_push(query->arena, &list, json_string(id));
    }
    return list;
}

static struct peer_reply answer_version(struct query *query)
{
    struct json server = json_object();
    struct json body = json_object();
    json_set(query->arena, &server, LIT("name"), json_string(LIT("myelin-conform")));
    json_set(query->arena, &server, LIT("version"), json_string(LIT("1")));
    json_set(query->arena, &body, LIT("server"), server);
    return reply_json(query, 200, &body);
}

static struct peer_reply answer_keys(struct query *query)
{
    struct arena *arena = query->arena;
    struct json key = json_object();
    struct json keys = json_object();
    struct json body = json_object();
    struct now now = now_system();
    json_set(arena, &key, LIT("key"), json_string(peer_public_key(arena, query->peer)));
    json_set(arena, &keys, query->peer->key_id, key);
    json_set(arena, &body, LIT("server_name"), json_string(query->peer->name));
    json_set(arena, &body, LIT("valid_until_ts"), json_int(now_wall_ms(&now) + KEY_LIFE_MS));
    json_set(arena, &body, LIT("verify_keys"), keys);
    json_set(arena, &body, LIT("old_verify_keys"), json_object());
    struct json_signer signer = peer_signer(query->peer);
    json_sign(arena, &body, &signer);
    return reply_json(query, 200, &body);
}

static void keep_pdu(struct query *query, const struct json *pdu, struct json *results)
{
    struct peer_room *room = peer_room_find(query->peer, json_get_string(pdu, LIT("room_id")));
    if (room) {
        struct peer_event *event = peer_room_keep(query->peer, room, pdu, PEER_KEEP_NEWEST);
        json_set(query->arena, results, event->id, json_object());
    }
}

static struct peer_reply answer_send(struct query *query)
{
    struct json results = json_object();
    const struct json *pdus = json_get_array(&query->body, LIT("pdus"));
    for (size_t i = 0; pdus && i < pdus->count; i++) {
        keep_pdu(query, &pdus->items[i], &results);
    }
    struct json body = json_object();
    json_set(query->arena, &body, LIT("pdus"), results);
    return reply_json(query, 200, &body);
}

static struct peer_reply make_template(struct query *query, struct slice membership)
{
    struct arena *arena = query->arena;
    struct json content = json_object();
    struct json draft = json_object();
    struct json body = json_object();
    json_set(arena, &content, LIT("membership"), json_string(membership));
    json_set(arena, &draft, LIT("type"), json_string(LIT("m.room.member")));
    json_set(arena, &draft, LIT("sender"), json_string(query->params[1]));
    json_set(arena, &draft, LIT("state_key"), json_string(query->params[1]));
    json_set(arena, &draft, LIT("content"), content);
    draft = peer_room_draft(query->peer, query->room, &draft);
    json_set(arena, &body, LIT("event"), draft);
    json_set(arena, &body, LIT("room_version"), json_string(query->room->rules->version));
    return reply_json(query, 200, &body);
}

static struct peer_reply answer_make_join(struct query *query)
{
    return make_template(query, LIT("join"));
}

static struct peer_reply answer_make_leave(struct query *query)
{
    return make_template(query, LIT("leave"));
}

static struct peer_reply answer_make_knock(struct query *query)
{
    return make_template(query, LIT("knock"));
}

static struct peer_reply answer_send_join(struct query *query)
{
    struct peer_room *room = query->room;
    struct json body = json_object();
    struct json chain = peer_room_auth_chain(query->peer, room, room->state, room->state_count);
    struct json state = event_list(query, room->state, room->state_count);
    peer_room_keep(query->peer, room, &query->body, PEER_KEEP_NEWEST);
    json_set(query->arena, &body, LIT("origin"), json_string(query->peer->name));
    json_set(query->arena, &body, LIT("members_omitted"), json_bool(false));
    json_set(query->arena, &body, LIT("state"), state);
    json_set(query->arena, &body, LIT("auth_chain"), chain);
    json_set(query->arena, &body, LIT("event"), query->body);
    return reply_json(query, 200, &body);
}

static struct peer_reply answer_send_leave(struct query *query)
{
    struct json body = json_object();
    peer_room_keep(query->peer, query->room, &query->body, PEER_KEEP_NEWEST);
    return reply_json(query, 200, &body);
}

static struct peer_reply answer_send_knock(struct query *query)
{
    struct peer_room *room = query->room;
    static const struct slice dropped[] = {
        LIT("signatures"), LIT("hashes"),          LIT("auth_events"), LIT("prev_events"),
        LIT("depth"),      LIT("unsigned"),        LIT("room_id"),     LIT("event_id"),
        LIT("origin"),     LIT("origin_server_ts")};
    struct json list = json_array();
    for (size_t i = 0; i < room->state_count; i++) {
        struct json stripped =
            json_without(query->arena, &room->state[i]->tree, dropped, COUNT_OF(dropped));
        json_push(query->arena, &list, stripped);
    }
    peer_room_keep(query->peer, room, &query->body, PEER_KEEP_NEWEST);
    struct json body = json_object();
    json_set(query->arena, &body, LIT("knock_room_state"), list);
    return reply_json(query, 200, &body);
}

static struct peer_reply answer_invite(struct query *query)
{
    const struct room_rules *rules =
        room_rules_get(json_get_string(&query->body, LIT("room_version")));
    const struct json *event = json_get_object(&query->body, LIT("event"));
    if (!rules || !event) {
        return reply_error(query, 400, "M_INCOMPATIBLE_ROOM_VERSION");
    }
    struct json_signer signer = peer_signer(query->peer);
    struct json signed_event = *event;
    struct json sketch = peer_event_seal(query->arena, rules, event, &signer);
    const struct json *old = json_get_object(event, LIT("signatures"));
    struct json all = old ? *old : json_object();
    const struct json *mine =
        json_get_object(json_get(&sketch, LIT("signatures")), peer_signer(query->peer).server.s);
    json_set(query->arena, &all, query->peer->name, *mine);
    json_set(query->arena, &signed_event, LIT("signatures"), all);
    peer_room_add(query->peer, query->params[0], rules);
    struct json body = json_object();
    json_set(query->arena, &body, LIT("event"), signed_event);
    return reply_json(query, 200, &body);
}

/* A played policy server recommends everything in rooms that it knows. */
static struct peer_reply answer_policy_sign(struct query *query)
{
    const struct peer_room *room =
        peer_room_find(query->peer, json_get_string(&query->body, LIT("room_id")));
    if (!room) {
        return reply_error(query, 400, "M_FORBIDDEN");
    }
    struct json_signer signer = peer_signer(query->peer);
    signer.key_id = LIT("ed25519:policy_server");
    struct json sealed = peer_event_seal(query->arena, room->rules, &query->body, &signer);
    return reply_json(query, 200, json_get(&sealed, LIT("signatures")));
}

static struct peer_reply answer_event(struct query *query)
{
    for (size_t i = 0; i < query->peer->room_count; i++) {
        struct peer_event *event = peer_room_event(&query->peer->rooms[i], query->params[0]);
        if (event) {
            struct json body = json_object();
            json_set(query->arena, &body, LIT("origin"), json_string(query->peer->name));
            json_set(query->arena, &body, LIT("origin_server_ts"), json_int(1));
            json_set(query->arena, &body, LIT("pdus"), event_list(query, &event, 1));
            return reply_json(query, 200, &body);
        }
    }
    return reply_error(query, 404, "M_NOT_FOUND");
}

static struct peer_reply state_before(struct query *query, bool wants_ids)
{
    struct peer_event *event = peer_room_event(query->room, query_text(query, LIT("event_id")));
    if (!event) {
        return reply_error(query, 404, "M_NOT_FOUND");
    }
    struct json pdus = event_list(query, event->before, event->before_count);
    struct json chain =
        peer_room_auth_chain(query->peer, query->room, event->before, event->before_count);
    struct json body = json_object();
    json_set(query->arena, &body, wants_ids ? LIT("pdu_ids") : LIT("pdus"),
             wants_ids ? id_list(query, &pdus) : pdus);
    json_set(query->arena, &body, wants_ids ? LIT("auth_chain_ids") : LIT("auth_chain"),
             wants_ids ? id_list(query, &chain) : chain);
    return reply_json(query, 200, &body);
}

static struct peer_reply answer_state(struct query *query)
{
    return state_before(query, false);
}

static struct peer_reply answer_state_ids(struct query *query)
{
    return state_before(query, true);
}

static struct peer_reply answer_event_auth(struct query *query)
{
    struct peer_event *event = peer_room_event(query->room, query->params[1]);
    if (!event) {
        return reply_error(query, 404, "M_NOT_FOUND");
    }
    struct json body = json_object();
    json_set(query->arena, &body, LIT("auth_chain"),
             peer_room_auth_chain(query->peer, query->room, &event, 1));
    return reply_json(query, 200, &body);
}

/* Events back from the heads, newest first, as a list of trees. */
static struct json walk_back(struct query *query, const struct json *heads,
                             const struct json *stops)
{
    struct peer_event *found[HISTORY_MAX];
    size_t count = 0;
    for (size_t i = 0; heads && i < heads->count && count < HISTORY_MAX; i++) {
        struct peer_event *event = peer_room_event(query->room, heads->items[i].text);
        if (event) {
            found[count++] = event;
        }
    }
    for (size_t i = 0; i < count; i++) {
        struct slice *prevs;
        size_t prev_count =
            peer_event_cited(query->arena, &found[i]->tree, LIT("prev_events"), &prevs);
        for (size_t p = 0; p < prev_count && count < HISTORY_MAX; p++) {
            struct peer_event *event = peer_room_event(query->room, prevs[p]);
            bool is_known = !event;
            for (size_t k = 0; k < count; k++) {
                is_known = is_known || found[k] == event;
            }
            for (size_t s = 0; stops && s < stops->count; s++) {
                is_known = is_known || json_is_string(&stops->items[s], prevs[p]);
            }
            if (!is_known) {
                found[count++] = event;
            }
        }
    }
    return event_list(query, found, count);
}

static struct peer_reply answer_backfill(struct query *query)
{
    struct json heads = json_array();
    json_push(query->arena, &heads, json_string(query_text(query, LIT("v"))));
    struct json body = json_object();
    json_set(query->arena, &body, LIT("origin"), json_string(query->peer->name));
    json_set(query->arena, &body, LIT("origin_server_ts"), json_int(1));
    json_set(query->arena, &body, LIT("pdus"), walk_back(query, &heads, NULL));
    return reply_json(query, 200, &body);
}

static struct peer_reply answer_missing(struct query *query)
{
    const struct json *latest = json_get_array(&query->body, LIT("latest_events"));
    const struct json *earliest = json_get_array(&query->body, LIT("earliest_events"));
    struct json newest_first = walk_back(query, latest, earliest);
    size_t skipped = latest ? latest->count : 0;
    struct json list = json_array();
    for (size_t i = newest_first.count; i-- > skipped;) {
        json_push(query->arena, &list, newest_first.items[i]);
    }
    struct json body = json_object();
    json_set(query->arena, &body, LIT("events"), list);
    return reply_json(query, 200, &body);
}

struct row {
    const char *method;
    const char *path; /* `!` is a room that the peer knows, `*` any other part */
    answer_fn answer;
};

#define FED "/_matrix/federation"
static const struct row rows[] = {
    {"GET", "/_matrix/key/v2/server", answer_keys},
    {"GET", "/_matrix/key/v2/server/*", answer_keys},
    {"GET", FED "/v1/version", answer_version},
    {"PUT", FED "/v1/send/*", answer_send},
    {"GET", FED "/v1/make_join/!/*", answer_make_join},
    {"PUT", FED "/v2/send_join/!/*", answer_send_join},
    {"GET", FED "/v1/make_leave/!/*", answer_make_leave},
    {"PUT", FED "/v2/send_leave/!/*", answer_send_leave},
    {"GET", FED "/v1/make_knock/!/*", answer_make_knock},
    {"PUT", FED "/v1/send_knock/!/*", answer_send_knock},
    {"PUT", FED "/v2/invite/*/*", answer_invite},
    {"GET", FED "/v1/event/*", answer_event},
    {"GET", FED "/v1/state/!", answer_state},
    {"GET", FED "/v1/state_ids/!", answer_state_ids},
    {"GET", FED "/v1/event_auth/!/*", answer_event_auth},
    {"GET", FED "/v1/backfill/!", answer_backfill},
    {"POST", FED "/v1/get_missing_events/!", answer_missing},
    {"POST", "/_matrix/policy/v1/sign", answer_policy_sign},
};

static bool path_fits(struct query *query, struct slice form, struct slice path)
{
    size_t count = 0;
    while (form.ptr && path.ptr) {
        struct slice wanted;
        struct slice part;
        form = slice_cut(form, '/', &wanted);
        path = slice_cut(path, '/', &part);
        bool is_room = slice_eq(wanted, LIT("!"));
        if (is_room || slice_eq(wanted, LIT("*"))) {
            query->params[count++] = percent_decode(query->arena, part);
        } else if (!slice_eq(wanted, part)) {
            return false;
        }
        if (is_room) {
            query->room = peer_room_find(query->peer, query->params[0]);
        }
        if (is_room && !query->room) {
            return false;
        }
    }
    return !form.ptr && !path.ptr;
}

static struct peer_reply answer_usual(struct query *query)
{
    struct slice path;
    slice_cut(query->request->uri, '?', &path);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (slice_eq(slice_of(rows[i].method), query->request->method) &&
            path_fits(query, slice_of(rows[i].path), path)) {
            return rows[i].answer(query);
        }
    }
    return reply_error(query, 404, "M_UNRECOGNIZED");
}

static const struct peer_request *remember(struct peer *peer, const struct peer_request *request)
{
    struct arena *arena = peer->arena;
    peer->requests = arena_grow(arena, peer->requests, peer->request_count * sizeof *request,
                                (peer->request_count + 1) * sizeof *request);
    struct peer_request *kept = &peer->requests[peer->request_count++];
    *kept = (struct peer_request){.method = arena_copy(arena, request->method),
                                  .uri = arena_copy(arena, request->uri),
                                  .path = percent_decode(arena, request->uri),
                                  .body = arena_copy(arena, request->body),
                                  .header_count = request->header_count};
    kept->headers = arena_array(arena, request->header_count + 1, sizeof *kept->headers);
    for (size_t i = 0; i < request->header_count; i++) {
        kept->headers[i].name = arena_copy(arena, request->headers[i].name);
        kept->headers[i].value = arena_copy(arena, request->headers[i].value);
    }
    return kept;
}

static struct peer_reply answer_kept(struct peer *peer, const struct peer_request *request)
{
    for (size_t i = peer->script_count; i-- > 0;) {
        const struct peer_script *script = &peer->scripts[i];
        if (slice_eq(script->method, request->method) && match_glob(script->glob, request->path)) {
            return script->reply;
        }
    }
    struct query query = {.peer = peer, .arena = peer->arena, .request = request};
    if (request->body.len > 0) {
        struct err err = json_parse(peer->arena, request->body, &query.body);
        if (err.code != 0) {
            return reply_error(&query, 400, "M_NOT_JSON");
        }
    }
    return answer_usual(&query);
}

struct peer_reply peer_answer(struct peer *peer, const struct peer_request *request)
{
    peer_lock(peer);
    struct peer_reply reply = answer_kept(peer, remember(peer, request));
    peer_unlock(peer);
    return reply;
}
