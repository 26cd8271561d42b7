#include "tests/support/inbound_world.h"

#include "crypto/base64.h"
#include "federation/routes.h"
#include "federation/staged.h"
#include "homeserver/base/mem.h"
#include "homeserver/base/stats.h"
#include "homeserver/http/router.h"
#include "homeserver/service/intake.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void must(struct err err)
{
    if (err.code != 0) {
        fprintf(stderr, "inbound: %s\n", err.text);
    }
    ASSERT(err.code == 0);
}

/* --- the other server --- */
static bool is_shown(const struct inbound_world *w, size_t at)
{
    return at != SIZE_MAX && (!w->shown || at < w->shown);
}

static struct slice keys_of(struct inbound_world *w, struct arena *arena)
{
    struct json keys = json_object();
    struct json verify = json_object();
    struct json key = json_object();
    struct ed25519_public public_key = ed25519_public_of(&w->remote.key);
    struct slice bytes = {(const char *)public_key.bytes, sizeof public_key.bytes};
    json_set(arena, &key, LIT("key"), json_string(base64_encode(arena, bytes, BASE64_STANDARD)));
    json_set(arena, &verify, w->remote.key_id, key);
    json_set(arena, &keys, LIT("server_name"), json_string(w->remote.name));
    json_set(arena, &keys, LIT("valid_until_ts"), json_int(w->house.wall_ms + 86400000));
    json_set(arena, &keys, LIT("verify_keys"), verify);
    json_set(arena, &keys, LIT("old_verify_keys"), json_object());
    json_sign(arena, &keys, &w->remote.signer);
    return json_canonical(arena, &keys);
}

static struct json as_json(const struct event *event, struct arena *arena)
{
    return *event_tree(arena, event);
}

static struct json wrapped(struct arena *arena, const char *name, struct json list)
{
    struct json object = json_object();
    json_set(arena, &object, slice_of(name), list);
    return object;
}

static size_t event_in_path(struct inbound_world *w, struct arena *arena, struct slice raw)
{
    struct slice id;
    return http_decode_segment(arena, raw, &id) ? peer_find(&w->theirs, id) : SIZE_MAX;
}

/* Back from an event, newest first, the given one included or not. */
static void collect(struct inbound_world *w, struct arena *arena, size_t from, size_t limit,
                    struct json *list)
{
    bool seen[PEER_EVENTS_MAX] = {false};
    size_t count = 0;
    seen[from] = true;
    for (size_t at = from + 1; at-- > 0 && count < limit;) {
        if (!seen[at] || !is_shown(w, at)) {
            continue;
        }
        const struct event *event = peer_get(&w->theirs, at);
        json_push(arena, list, as_json(event, arena));
        count++;
        for (size_t i = 0; i < event->prev_event_count; i++) {
            size_t prev = peer_find(&w->theirs, event->prev_events[i].s);
            seen[prev == SIZE_MAX ? from : prev] = true;
        }
    }
}

static void push_state(struct inbound_world *w, struct arena *arena,
                       const struct resolve_set *state, struct json *ids, struct json *events)
{
    for (size_t i = 0; i < state->count; i++) {
        size_t at = peer_find(&w->theirs, state->items[i].event.s);
        json_push(arena, ids, json_string(state->items[i].event.s));
        json_push(arena, events, as_json(peer_get(&w->theirs, at), arena));
    }
}

static void push_chain(struct inbound_world *w, struct arena *arena, bool *in_chain,
                       struct json *ids, struct json *events)
{
    for (size_t at = w->theirs.count; at-- > 0;) {
        const struct event *event = peer_get(&w->theirs, at);
        if (!in_chain[at]) {
            continue;
        }
        json_push(arena, ids, json_string(event->id.s));
        json_push(arena, events, as_json(event, arena));
        for (size_t i = 0; i < event->auth_event_count; i++) {
            size_t auth = peer_find(&w->theirs, event->auth_events[i].s);
            in_chain[auth == SIZE_MAX ? at : auth] = true;
        }
    }
}

static void mark_cited(struct inbound_world *w, const struct event *event, bool *in_chain)
{
    for (size_t i = 0; i < event->auth_event_count; i++) {
        size_t auth = peer_find(&w->theirs, event->auth_events[i].s);
        if (auth != SIZE_MAX) {
            in_chain[auth] = true;
        }
    }
}

static struct json state_answer(struct inbound_world *w, struct arena *arena, size_t at, bool ids)
{
    bool in_chain[PEER_EVENTS_MAX] = {false};
    struct json lists[4] = {json_array(), json_array(), json_array(), json_array()};
    struct json answer = json_object();
    const struct resolve_set *state = &w->theirs.events[at].before;
    push_state(w, arena, state, &lists[0], &lists[1]);
    for (size_t i = 0; i < state->count; i++) {
        size_t member = peer_find(&w->theirs, state->items[i].event.s);
        mark_cited(w, peer_get(&w->theirs, member), in_chain);
    }
    push_chain(w, arena, in_chain, &lists[2], &lists[3]);
    json_set(arena, &answer, ids ? LIT("pdu_ids") : LIT("pdus"), lists[ids ? 0 : 1]);
    json_set(arena, &answer, ids ? LIT("auth_chain_ids") : LIT("auth_chain"), lists[ids ? 2 : 3]);
    return answer;
}

static struct slice after(struct slice path, const char *word)
{
    for (size_t i = 0; i + strlen(word) <= path.len; i++) {
        if (slice_has_prefix(slice_from(path, i), slice_of(word))) {
            return slice_from(path, i + strlen(word));
        }
    }
    return (struct slice){0};
}

static bool missing_answer(struct inbound_world *w, struct arena *arena, struct slice body,
                           struct json *answer)
{
    struct json request;
    struct json newest = json_array();
    struct json list = json_array();
    int64_t limit = 10;
    if (json_parse(arena, body, &request).code != 0) {
        return false;
    }
    const struct json *latest = json_get_array(&request, LIT("latest_events"));
    size_t at = latest && latest->count ? peer_find(&w->theirs, latest->items[0].text) : SIZE_MAX;
    json_get_int(&request, LIT("limit"), &limit);
    if (at == SIZE_MAX) {
        return false;
    }
    collect(w, arena, at, (size_t)limit + 1, &newest);
    const struct json *earliest = json_get_array(&request, LIT("earliest_events"));
    for (uint32_t i = newest.count; i > 1; i--) {
        struct event event;
        bool stop = event_parse_tree(arena, w->theirs.rules, &newest.items[i - 1], &event).code;
        for (uint32_t k = 0; earliest && !stop && k < earliest->count; k++) {
            size_t known = peer_find(&w->theirs, earliest->items[k].text);
            stop = known != SIZE_MAX && peer_find(&w->theirs, event.id.s) <= known;
        }
        if (!stop) {
            json_push(arena, &list, newest.items[i - 1]);
        }
    }
    *answer = wrapped(arena, "events", list);
    return true;
}

static bool truth(struct inbound_world *w, struct arena *arena,
                  const struct http_fetch_request *request, struct slice path, struct json *answer)
{
    struct slice rest = after(path, "/event/");
    struct json list = json_array();
    if (rest.ptr) {
        size_t at = event_in_path(w, arena, rest);
        if (is_shown(w, at)) {
            json_push(arena, &list, as_json(peer_get(&w->theirs, at), arena));
            *answer = wrapped(arena, "pdus", list);
        }
        return is_shown(w, at);
    }
    if (after(path, "/get_missing_events/").ptr) {
        return missing_answer(w, arena, request->body, answer);
    }
    rest = after(path, "event_id=");
    if (rest.ptr) {
        size_t at = event_in_path(w, arena, rest);
        if (is_shown(w, at)) {
            *answer = state_answer(w, arena, at, after(path, "/state_ids/").ptr != NULL);
        }
        return is_shown(w, at);
    }
    rest = after(path, "&v=");
    if (rest.ptr) {
        size_t at = event_in_path(w, arena, rest);
        if (is_shown(w, at)) {
            uint64_t limit = 0;
            struct slice number;
            slice_cut(after(path, "limit="), '&', &number);
            slice_parse_u64(number, &limit);
            collect(w, arena, at, (size_t)limit, &list);
            *answer = wrapped(arena, "pdus", list);
        }
        return is_shown(w, at);
    }
    rest = after(path, "/event_auth/");
    if (rest.ptr) {
        bool in_chain[PEER_EVENTS_MAX] = {false};
        struct json ids = json_array();
        size_t at = event_in_path(w, arena, slice_from(rest, slice_find(rest, '/') + 1));
        if (is_shown(w, at)) {
            mark_cited(w, peer_get(&w->theirs, at), in_chain);
            push_chain(w, arena, in_chain, &ids, &list);
            *answer = wrapped(arena, "auth_chain", list);
        }
        return is_shown(w, at);
    }
    return false;
}

static void note(struct inbound_world *w, struct slice path)
{
    pthread_mutex_lock(&w->mutex);
    if (w->asked_count < INBOUND_ASKED_MAX) {
        snprintf(w->asked[w->asked_count++], sizeof w->asked[0], "%.*s", (int)path.len, path.ptr);
    }
    pthread_mutex_unlock(&w->mutex);
}

static struct err fetch(void *arg, struct ctx *ctx, const struct http_fetch_request *request,
                        struct http_fetch_reply *reply_out)
{
    struct inbound_world *w = arg;
    struct json answer;
    struct slice path = after(request->url, "/_matrix");
    struct slice body = {0};
    *reply_out = (struct http_fetch_reply){.status = 404, .body = LIT("{}")};
    if (!slice_contains(request->url, w->remote.name)) {
        return err_make(ERR_UNAVAILABLE, "not reachable");
    }
    if (slice_has_prefix(path, LIT("/key/"))) {
        reply_out->status = 200;
        reply_out->body = keys_of(w, ctx->arena);
        return OK;
    }
    note(w, path);
    if (w->is_down) {
        return err_make(ERR_UNAVAILABLE, "down");
    }
    w->given = request->body;
    if (w->lie && w->lie(w, ctx->arena, path, &body)) {
        reply_out->status = body.ptr ? 200 : 404;
        reply_out->body = body.ptr ? body : LIT("{}");
        return OK;
    }
    if (truth(w, ctx->arena, request, path, &answer)) {
        reply_out->status = 200;
        reply_out->body = json_canonical(ctx->arena, &answer);
    }
    return OK;
}

static struct err no_srv(void *arg, struct ctx *ctx, struct slice service, struct slice host,
                         struct http_dns_srvs *srvs_out)
{
    (void)arg;
    (void)ctx;
    (void)service;
    (void)host;
    *srvs_out = (struct http_dns_srvs){0};
    return OK;
}

/* --- the room on both --- */
static void join(struct inbound_world *w)
{
    struct peer_draft draft = {.peer = &w->us, .sender = w->alice.actor.user_id};
    struct intake_join *joining = NULL;
    struct hs_sent sent;
    bool in_chain[PEER_EVENTS_MAX] = {false};
    w->joined = peer_member(&w->theirs, &draft, w->alice.actor.user_id, "join");
    const struct peer_event *made = &w->theirs.events[w->joined];
    struct intake_join_start start = {
        .room_id = w->theirs.room_id, .version = w->theirs.rules->version, .join = &made->event};
    must(hs_intake_join_begin(&w->house.hs, &w->house.ctx, &start, &joining));
    for (size_t i = 0; i < made->before.count; i++) {
        size_t at = peer_find(&w->theirs, made->before.items[i].event.s);
        in_chain[at] = true;
        must(hs_intake_join_add(joining, &w->house.ctx, INTAKE_JOIN_STATE,
                                peer_get(&w->theirs, at)));
    }
    for (size_t at = w->joined; at-- > 0;) {
        if (in_chain[at]) {
            mark_cited(w, peer_get(&w->theirs, at), in_chain);
            must(hs_intake_join_add(joining, &w->house.ctx, INTAKE_JOIN_AUTH,
                                    peer_get(&w->theirs, at)));
        }
    }
    must(hs_intake_join_finish(&joining, &w->house.ctx, &w->room, &sent));
}

static void begin_job(struct inbound_world *w)
{
    house_next_job(&w->house);
    w->house.ctx.may_wait = true;
    must(hs_room_get_by_id(&w->house.hs, &w->house.ctx, w->theirs.room_id, &w->room));
}

struct inbound_world *inbound_new(const char *version)
{
    struct inbound_world *w = mem_alloc(sizeof *w);
    pthread_mutex_init(&w->mutex, NULL);
    house_open(&w->house);
    w->house.hs.waiters = workers_new("waiter", 4, 1000);
    w->house.hs.stats = stats_new();
    w->house.conf.data_dir = LIT("/tmp");
    w->house.ctx.may_wait = true;
    must(fed_new(&w->house.hs, &w->fed));
    w->fed->net = (struct fed_net){.fetch = fetch, .find_srv = no_srv, .arg = w};
    w->alice = house_guest(&w->house, "alice");
    peer_init(&w->remote, "remote:8448");
    peer_init(&w->us, "test");
    w->us.signer = w->house.hs.signer;
    w->bob = peer_user(w->house.conf_arena, &w->remote, "bob");
    peer_room_open(&w->theirs, version, &w->remote, w->bob);
    w->theirs.ts = w->house.wall_ms;
    join(w);
    begin_job(w);
    return w;
}

void inbound_free(struct inbound_world **world)
{
    struct inbound_world *w = *world;
    fed_stop(w->fed);
    workers_free(&w->house.hs.waiters);
    ctx_finish(&w->house.ctx);
    w->house.ctx.deferred = NULL;
    fed_free(&w->fed);
    stats_free(&w->house.hs.stats);
    peer_room_close(&w->theirs);
    house_close(&w->house);
    pthread_mutex_destroy(&w->mutex);
    mem_free(w);
    *world = NULL;
}

size_t inbound_make(struct inbound_world *w, const char *type, const char *state_key,
                    const char *content)
{
    struct peer_draft draft = {.peer = &w->remote,
                               .sender = w->bob,
                               .type = type,
                               .state_key = state_key,
                               .content = content};
    return peer_make(&w->theirs, &draft);
}

size_t inbound_say(struct inbound_world *w, const size_t *prev, size_t prev_count)
{
    struct peer_draft draft = {.peer = &w->remote,
                               .sender = w->bob,
                               .type = "m.room.message",
                               .content = "{\"msgtype\":\"m.text\",\"body\":\"x\"}",
                               .prev = prev,
                               .prev_count = prev_count};
    return peer_make(&w->theirs, &draft);
}

/* --- requests to this server --- */
static void read_file(struct ctx *ctx, struct http_reply *reply)
{
    size_t size = (size_t)reply->file_bytes;
    char *bytes = arena_alloc(ctx->arena, size);
    ASSERT(pread(reply->file_fd, bytes, size, 0) == (ssize_t)size);
    close(reply->file_fd);
    buf_add(&reply->body, (struct slice){bytes, size});
}

static struct err ask(struct inbound_world *w, struct http_request *request,
                      struct json *answer_out)
{
    const struct http_route_table tables[] = {ss_send_routes, ss_history_routes, ss_join_routes};
    struct http_router *router = http_router_new(tables, COUNT_OF(tables));
    struct http_reply reply = {.file_fd = -1};
    struct ctx *ctx = &w->house.ctx;
    buf_init_arena(&reply.body, ctx->arena, SIZE_MAX / 2);
    ASSERT(http_router_find(router, ctx->arena, request->method, request->path, &request->route,
                            request->params) == HTTP_MATCH_FOUND);
    struct err err = request->route->handler(&w->house.hs, ctx, request, &reply);
    if (err.code == 0) {
        w->was_file = reply.file_fd >= 0;
        if (w->was_file) {
            read_file(ctx, &reply);
        }
        must(json_parse(ctx->arena, buf_slice(&reply.body), answer_out));
    }
    http_router_free(&router);
    return err;
}

static struct http_request request_of(struct inbound_world *w, struct slice server,
                                      const char *target)
{
    struct http_request request = {.server = server};
    struct slice whole = arena_printf(w->house.ctx.arena, "/_matrix/federation/v1/%s", target);
    request.target = whole;
    request.query = slice_cut(whole, '?', &request.path);
    return request;
}

struct err inbound_get(struct inbound_world *w, struct slice server, const char *target,
                       struct json *answer_out)
{
    struct http_request request = request_of(w, server, target);
    return ask(w, &request, answer_out);
}

static struct err ask_with(struct inbound_world *w, struct http_request request, const char *body,
                           struct json *answer_out)
{
    request.body = slice_of(body);
    must(json_parse(w->house.ctx.arena, request.body, &request.json));
    return ask(w, &request, answer_out);
}

struct err inbound_put(struct inbound_world *w, struct slice server, const char *target,
                       const char *body, struct json *answer_out)
{
    struct http_request request = request_of(w, server, target);
    request.method = HTTP_PUT;
    return ask_with(w, request, body, answer_out);
}

struct err inbound_post(struct inbound_world *w, struct slice server, const char *target,
                        const char *body, struct json *answer_out)
{
    struct http_request request = request_of(w, server, target);
    request.method = HTTP_POST;
    return ask_with(w, request, body, answer_out);
}

struct json inbound_send_text(struct inbound_world *w, const char *const *pdus, size_t count)
{
    struct arena *arena = w->house.ctx.arena;
    struct json list = json_array();
    struct json answer;
    for (size_t i = 0; i < count; i++) {
        struct json pdu;
        must(json_parse_deep(arena, slice_of(pdus[i]), &pdu));
        json_push(arena, &list, pdu);
    }
    struct http_request request =
        request_of(w, w->remote.name, arena_printf(arena, "send/%u", ++w->txn).ptr);
    request.method = HTTP_PUT;
    request.json = wrapped(arena, "pdus", list);
    must(ask(w, &request, &answer));
    while (staged_is_busy(w->fed->staged)) {
        sched_yield();
    }
    const struct json *results = json_get_object(&answer, LIT("pdus"));
    ASSERT(results != NULL);
    return *results;
}

struct json inbound_send(struct inbound_world *w, const size_t *events, size_t count)
{
    const char *texts[50];
    for (size_t i = 0; i < count; i++) {
        texts[i] = arena_cstr(w->house.ctx.arena, peer_get(&w->theirs, events[i])->json);
    }
    return inbound_send_text(w, texts, count);
}

struct slice inbound_error(const struct json *pdus, struct slice event_id)
{
    const struct json *result = json_get_object(pdus, event_id);
    ASSERT(result != NULL);
    return json_get_string(result, LIT("error"));
}

bool inbound_has(struct inbound_world *w, size_t event)
{
    struct stored_event stored;
    bool found = false;
    must(hs_event_find(&w->house.hs, &w->house.ctx, w->room, peer_get(&w->theirs, event)->id.s,
                       &stored, &found));
    return found && !(stored.flags & (EVENT_OUTLIER | EVENT_REJECTED | EVENT_SOFT_FAILED));
}

size_t inbound_asked(struct inbound_world *w, const char *text)
{
    size_t count = 0;
    pthread_mutex_lock(&w->mutex);
    for (size_t i = 0; i < w->asked_count; i++) {
        count += strstr(w->asked[i], text) ? 1 : 0;
    }
    pthread_mutex_unlock(&w->mutex);
    return count;
}
