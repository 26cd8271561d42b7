#include "tools/myelin-conform/stage.h"
#include "homeserver/base/now.h"
#include "tools/myelin-conform/keys.h"
#include "tools/myelin-conform/match.h"
#include "tools/myelin-conform/peer_step.h"

#include <time.h>

enum {
    UNTIL_MS = 10000,
    NEVER_MS = 400,
    POLL_MS = 2000,
    PAUSE_MS = 60,
    SHOWN_BYTES_MAX = 1200,
    URL_BYTES_MAX = 1 << 20,
};

static int64_t mono_ms(void)
{
    return now_mono_us() / 1000;
}

static void pause_ms(int64_t ms)
{
    struct timespec span = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};
    nanosleep(&span, NULL);
}

struct err stage_ask(struct stage *stage, const struct ask *ask)
{
    struct ask full = *ask;
    full.url = arena_concat(stage->arena, stage->target->base_url, ask->url);
    stage->asked = arena_printf(stage->arena, "%.*s %.*s", (int)ask->method.len, ask->method.ptr,
                                (int)ask->url.len, ask->url.ptr);
    TRY(ask_send(stage->asker, stage->arena, &full, &stage->answer));
    recorder_write(stage->target->recorder, stage->arena, ask, &stage->answer);
    return OK;
}

/* "/v3/sync" stands for "/_matrix/client/v3/sync", "/media/v3/upload" for "/_matrix/media/...". */
static struct slice full_path(struct arena *arena, struct slice path)
{
    static const struct slice client[] = {LIT("/v1/"), LIT("/v3/"), LIT("/r0/"), LIT("/unstable/"),
                                          LIT("/versions")};
    for (size_t i = 0; i < COUNT_OF(client); i++) {
        if (slice_has_prefix(path, client[i])) {
            return arena_concat(arena, LIT("/_matrix/client"), path);
        }
    }
    if (slice_has_prefix(path, LIT("/media/")) || slice_has_prefix(path, LIT("/federation/")) ||
        slice_has_prefix(path, LIT("/key/"))) {
        return arena_concat(arena, LIT("/_matrix"), path);
    }
    return path;
}

/* A value that begins with a bracket is a term; anything else is text with variables. */
static struct err query_value(struct stage *stage, struct slice text, struct slice *value_out)
{
    bool is_term = text.len > 0 && (text.ptr[0] == '{' || text.ptr[0] == '[');
    if (!is_term) {
        return vars_expand(&stage->vars, text, value_out);
    }
    struct term term;
    struct json value;
    struct slice rest;
    TRY(term_parse(stage->arena, text, &term, &rest));
    TRY(vars_value(&stage->vars, &term, &value));
    *value_out = json_canonical(stage->arena, &value);
    return OK;
}

static struct err add_queries(struct stage *stage, const struct step *step, struct buf *url)
{
    for (size_t i = 0; i < step->query_count; i++) {
        struct slice value;
        TRY(query_value(stage, step->queries[i].value, &value));
        bool is_first = slice_find(buf_slice(url), '?') == url->len;
        buf_add_byte(url, is_first ? '?' : '&');
        vars_percent_encode(url, step->queries[i].name);
        buf_add_byte(url, '=');
        vars_percent_encode(url, value);
    }
    return OK;
}

static void add_header(struct stage *stage, struct ask *ask, struct slice name, struct slice value)
{
    ask->headers = arena_grow(stage->arena, ask->headers, ask->header_count * sizeof *ask->headers,
                              (ask->header_count + 1) * sizeof *ask->headers);
    ask->headers[ask->header_count++] = (struct ask_header){name, value};
}

static struct err add_headers(struct stage *stage, const struct step *step,
                              const struct actor *actor, struct ask *ask)
{
    bool has_authorization = false;
    for (size_t i = 0; i < step->header_count; i++) {
        struct slice value;
        TRY(vars_expand(&stage->vars, step->headers[i].value, &value));
        has_authorization =
            has_authorization || slice_eq_nocase(step->headers[i].name, LIT("authorization"));
        add_header(stage, ask, step->headers[i].name, value);
    }
    if (actor && !has_authorization) {
        add_header(stage, ask, LIT("Authorization"),
                   arena_concat(stage->arena, LIT("Bearer "), actor->token));
    }
    return OK;
}

/* For a played server "/v1/send" stands for "/_matrix/federation/v1/send". */
static struct slice peer_path(struct arena *arena, struct slice path)
{
    bool is_short = slice_has_prefix(path, LIT("/v1/")) || slice_has_prefix(path, LIT("/v2/")) ||
                    slice_has_prefix(path, LIT("/unstable/"));
    return is_short ? arena_concat(arena, LIT("/_matrix/federation"), path)
                    : full_path(arena, path);
}

struct peer *stage_peer(struct stage *stage, struct slice actor)
{
    for (size_t i = 0; i < stage->peer_count; i++) {
        if (slice_eq(stage->peers[i]->actor, actor)) {
            return stage->peers[i];
        }
    }
    return NULL;
}

/* Signs for the played server that asks, unless the step has a header of its own. */
static struct err add_xmatrix(struct stage *stage, const struct step *step, struct ask *ask,
                              const struct json *content)
{
    struct json changes = json_object();
    if (step->has_sign) {
        TRY(vars_value(&stage->vars, &step->sign, &changes));
    }
    for (size_t i = 0; i < step->header_count; i++) {
        if (slice_eq_nocase(step->headers[i].name, LIT("authorization"))) {
            return OK;
        }
    }
    struct peer_call call = {.method = ask->method,
                             .uri = ask->url,
                             .destination = stage->target->server_name,
                             .content = content,
                             .changes = &changes};
    struct peer *peer = stage_peer(stage, step->actor);
    add_header(stage, ask, LIT("Authorization"), peer_authorization(stage->arena, peer, &call));
    return OK;
}

struct err stage_ask_as(struct stage *stage, struct peer *peer, const struct peer_call *call)
{
    struct ask ask = {.method = call->method, .url = call->uri, .has_body = call->content != NULL};
    if (call->content) {
        ask.body = json_canonical(stage->arena, call->content);
    }
    struct peer_call full = *call;
    full.destination = stage->target->server_name;
    add_header(stage, &ask, LIT("Authorization"), peer_authorization(stage->arena, peer, &full));
    return stage_ask(stage, &ask);
}

static struct err play_ask(struct stage *stage, const struct step *step)
{
    struct actor *actor = NULL;
    if (!step->is_peer) {
        TRY(stage_actor(stage, step->actor, &actor));
    }
    struct slice path =
        step->is_peer ? peer_path(stage->arena, step->path) : full_path(stage->arena, step->path);
    TRY(vars_expand_path(&stage->vars, path, &path));
    struct buf url;
    buf_init_arena(&url, stage->arena, URL_BYTES_MAX);
    buf_add(&url, path);
    TRY(add_queries(stage, step, &url));
    struct ask ask = {.method = step->method, .url = buf_slice(&url)};
    TRY(add_headers(stage, step, actor, &ask));
    struct json body;
    if (step->has_raw) {
        ask.has_body = true;
        ask.body = step->raw;
    } else if (step->has_body) {
        TRY(vars_value(&stage->vars, &step->body, &body));
        ask.has_body = true;
        ask.body = json_canonical(stage->arena, &body);
    }
    if (step->is_peer) {
        TRY(add_xmatrix(stage, step, &ask, step->has_body && !step->has_raw ? &body : NULL));
    }
    return stage_ask(stage, &ask);
}

static struct err since_of(struct stage *stage, const struct step *step, const struct actor *actor,
                           struct slice *since_out)
{
    struct json value;
    switch (step->from) {
    case SYNC_FROM_LAST:
        *since_out = actor->next_batch;
        break;
    case SYNC_FROM_SAME:
        *since_out = actor->last_since;
        break;
    case SYNC_FROM_START:
        *since_out = (struct slice){0};
        break;
    case SYNC_FROM_TOKEN:
        TRY(vars_value(&stage->vars, &step->value, &value));
        *since_out = value.text;
        break;
    }
    return OK;
}

static struct err play_sync(struct stage *stage, const struct step *step, int64_t timeout_ms)
{
    struct actor *actor;
    TRY(stage_actor(stage, step->actor, &actor));
    struct slice since;
    TRY(since_of(stage, step, actor, &since));
    struct buf url;
    buf_init_arena(&url, stage->arena, URL_BYTES_MAX);
    bool asks_timeout = false;
    for (size_t i = 0; i < step->query_count; i++) {
        asks_timeout = asks_timeout || slice_eq(step->queries[i].name, LIT("timeout"));
    }
    buf_add(&url, LIT("/_matrix/client/v3/sync"));
    if (!asks_timeout) {
        buf_printf(&url, "?timeout=%lld", (long long)timeout_ms);
    }
    TRY(add_queries(stage, step, &url));
    if (since.len > 0) {
        buf_add(&url, LIT("&since="));
        vars_percent_encode(&url, since);
    }
    struct ask ask = {.method = LIT("GET"), .url = buf_slice(&url)};
    TRY(add_headers(stage, step, actor, &ask));
    TRY(stage_ask(stage, &ask));
    struct slice next = json_get_string(&stage->answer.json, LIT("next_batch"));
    if (stage->answer.is_json && next.ptr) {
        actor->last_since = since;
        actor->next_batch = next;
    }
    return OK;
}

static bool status_fits(struct slice wanted, long status)
{
    while (wanted.ptr && wanted.len > 0) {
        struct slice one;
        uint64_t number = 0;
        wanted = slice_cut(wanted, '|', &one);
        if (slice_parse_u64(one, &number) && (long)number == status) {
            return true;
        }
        if (one.len == 3 && slice_eq(slice_from(one, 1), LIT("xx")) &&
            status / 100 == one.ptr[0] - '0') {
            return true;
        }
    }
    return false;
}

static bool errcode_fits(struct slice wanted, const struct answer *answer)
{
    struct slice errcode = json_get_string(answer->is_json ? &answer->json : NULL, LIT("errcode"));
    struct slice text = json_get_string(answer->is_json ? &answer->json : NULL, LIT("error"));
    if (!errcode.ptr || !text.ptr) {
        return false;
    }
    while (wanted.ptr && wanted.len > 0) {
        struct slice one;
        wanted = slice_cut(wanted, '|', &one);
        if (slice_eq(one, errcode)) {
            return true;
        }
    }
    return false;
}

static const struct json *walk(struct stage *stage, const struct expect *expect,
                               const struct json *value, struct match *match)
{
    for (size_t i = 0; i < expect->path_count && value; i++) {
        struct json part;
        struct err err = vars_value(&stage->vars, &expect->path[i], &part);
        if (err.code != 0 || part.type != JSON_STRING) {
            match->fault = slice_of(err.code ? err.text : "no text in the path");
            return NULL;
        }
        match->path[match->depth++] = part.text;
        uint64_t index = 0;
        if (value->type == JSON_ARRAY && slice_parse_u64(part.text, &index)) {
            value = index < value->count ? &value->items[index] : NULL;
        } else {
            value = json_get(value, part.text);
        }
    }
    return value;
}

static bool body_fits(struct stage *stage, const struct expect *expect, const struct json *whole,
                      struct slice *why_out)
{
    struct match match = {.vars = &stage->vars};
    const struct json *value = walk(stage, expect, whole, &match);
    bool fits = match.fault.len == 0 && match_value(&match, &expect->pattern, value);
    *why_out = match.fault;
    return fits;
}

static bool expect_fits(struct stage *stage, const struct expect *expect, struct slice *why_out)
{
    const struct answer *answer = &stage->answer;
    *why_out = LIT("");
    struct json header = {0};
    struct match match = {.vars = &stage->vars};
    bool fits = false;
    switch (expect->kind) {
    case EXPECT_STATUS:
        return status_fits(expect->text, answer->status) &&
               (expect->errcodes.len == 0 || errcode_fits(expect->errcodes, answer));
    case EXPECT_BODY:
        return body_fits(stage, expect, answer->is_json ? &answer->json : NULL, why_out);
    case EXPECT_RAW:
        return slice_eq(expect->text, answer->body);
    case EXPECT_HEADER:
        header = json_string(ask_header(answer, expect->text));
        fits = match_value(&match, &expect->pattern, header.text.ptr ? &header : NULL);
        *why_out = match.fault;
        return fits;
    }
    return false;
}

static bool names_status(const struct step *step)
{
    return step->expect_count > 0 && step->expects[0].kind == EXPECT_STATUS;
}

/* Every expectation of the step; the unspoken one is a 2xx answer. */
bool stage_fits(struct stage *stage, const struct step *step, struct slice *why_out)
{
    struct slice detail = LIT("");
    struct expect unspoken = {.kind = EXPECT_STATUS, .text = LIT("2xx"), .source = LIT("2xx")};
    struct expect usual = {.kind = EXPECT_BODY, .pattern = step->value, .source = LIT("(usual)")};
    bool is_plain = !names_status(step);
    if (is_plain && !expect_fits(stage, &unspoken, &detail)) {
        *why_out = LIT("expected a 2xx answer");
        return false;
    }
    bool has_usual = step->kind == STEP_ASK && step->value.kind != TERM_LITERAL &&
                     stage->answer.status / 100 == 2;
    if (has_usual && !expect_fits(stage, &usual, &detail)) {
        *why_out = detail;
        return false;
    }
    for (size_t i = 0; i < step->expect_count; i++) {
        if (!expect_fits(stage, &step->expects[i], &detail)) {
            struct slice source = step->expects[i].source;
            *why_out =
                arena_printf(stage->arena, "expected %.*s%s%.*s", (int)source.len, source.ptr,
                             detail.len > 0 ? "\n      " : "", (int)detail.len, detail.ptr);
            return false;
        }
    }
    return true;
}

static struct err ask_once(struct stage *stage, const struct step *step, int64_t timeout_ms)
{
    return step->kind == STEP_SYNC ? play_sync(stage, step, timeout_ms) : play_ask(stage, step);
}

static struct err ask_until(struct stage *stage, const struct step *step, struct slice *why_out)
{
    int64_t deadline = mono_ms() + UNTIL_MS;
    int64_t timeout_ms = 0;
    for (;;) {
        size_t count = stage->vars.count;
        TRY(ask_once(stage, step, timeout_ms));
        if (stage_fits(stage, step, why_out)) {
            *why_out = LIT("");
            return OK;
        }
        stage->vars.count = count;
        if (mono_ms() >= deadline) {
            return OK;
        }
        if (step->kind == STEP_ASK || stage->answer.status != 200) {
            pause_ms(PAUSE_MS);
        }
        timeout_ms = POLL_MS;
    }
}

static struct err ask_never(struct stage *stage, const struct step *step, struct slice *why_out)
{
    int64_t deadline = mono_ms() + NEVER_MS;
    while (mono_ms() < deadline) {
        struct slice ignored;
        TRY(ask_once(stage, step, deadline - mono_ms()));
        if (stage_fits(stage, step, &ignored)) {
            *why_out = LIT("expected that this does not happen");
            return OK;
        }
        if (step->kind == STEP_ASK || stage->answer.status != 200) {
            pause_ms(PAUSE_MS);
        }
    }
    return OK;
}

static struct err play_request(struct stage *stage, const struct step *step, struct slice *why_out)
{
    if (step->mode == STEP_UNTIL) {
        return ask_until(stage, step, why_out);
    }
    if (step->mode == STEP_NEVER) {
        return ask_never(stage, step, why_out);
    }
    TRY(ask_once(stage, step, 0));
    stage_fits(stage, step, why_out);
    return OK;
}

static struct err play_let(struct stage *stage, const struct step *step)
{
    struct json value;
    if (step->kind == STEP_LET) {
        TRY(vars_value(&stage->vars, &step->value, &value));
    } else if (step->kind == STEP_RANDOM) {
        value = json_string(keys_random(stage->arena));
    } else {
        struct keys_pair pair = keys_new(stage->arena);
        vars_set(&stage->vars, arena_concat(stage->arena, step->variable, LIT(".secret")),
                 json_string(pair.secret));
        value = json_string(pair.public_key);
    }
    vars_set(&stage->vars, step->variable, value);
    return OK;
}

static struct err play_check(struct stage *stage, const struct step *step, struct slice *why_out)
{
    struct match match = {.vars = &stage->vars};
    match_value(&match, &step->value, vars_get(&stage->vars, step->variable));
    *why_out = match.fault;
    return OK;
}

static struct err play_step(struct stage *stage, const struct step *step, struct slice *why_out)
{
    struct actor *actor;
    const struct json *session;
    *why_out = LIT("");
    switch (step->kind) {
    case STEP_ASK:
    case STEP_SYNC:
        return play_request(stage, step, why_out);
    case STEP_LET:
    case STEP_KEY:
    case STEP_RANDOM:
        return play_let(stage, step);
    case STEP_CHECK:
        return play_check(stage, step, why_out);
    case STEP_BECOMES:
        session = vars_get(&stage->vars, step->variable);
        return session ? stage_adopt(stage, step->actor, session)
                       : err_public(ERR_SYNTAX, "the variable has no value");
    case STEP_LOGIN:
        return stage_actor(stage, step->actor, &actor);
    case STEP_DEED:
        return peer_step_play(stage, step, why_out);
    case STEP_WAIT:
        pause_ms((int64_t)step->wait_ms);
        return OK;
    }
    return OK;
}

static struct slice describe(struct stage *stage, const struct step *step, struct slice why)
{
    struct slice body = slice_sub(stage->answer.body, 0, SHOWN_BYTES_MAX);
    return arena_printf(
        stage->arena, "line %zu: %.*s\n      %.*s\n      asked %.*s\n      got %ld %.*s",
        step->line, (int)step->source.len, step->source.ptr, (int)why.len, why.ptr,
        (int)stage->asked.len, stage->asked.ptr, stage->answer.status, (int)body.len, body.ptr);
}

static bool becomes_later(const struct scene *scene, struct slice user)
{
    for (size_t i = 0; i < scene->step_count; i++) {
        if (scene->steps[i].kind == STEP_BECOMES && slice_eq(scene->steps[i].actor, user)) {
            return true;
        }
    }
    return false;
}

static struct err start_peers(struct stage *stage, const struct scene *scene)
{
    struct arena *arena = stage->arena;
    stage->peers = arena_array(arena, scene->peer_count + 1, sizeof(struct peer *));
    for (size_t i = 0; i < scene->peer_count; i++) {
        struct slice name = scene->peers[i];
        TRY(peer_start(name, &stage->target->tls, stage->ports, &stage->peers[i]));
        stage->peer_count++;
        struct peer *peer = stage->peers[i];
        vars_set(&stage->vars, name, json_string(peer->name));
        vars_set(&stage->vars, arena_concat(arena, name, LIT(".secret")),
                 json_string((struct slice){(const char *)peer->key.secret, ED25519_SECRET_BYTES}));
        vars_set(&stage->vars, arena_concat(arena, name, LIT(".key")),
                 json_string(peer_public_key(arena, peer)));
    }
    return OK;
}

static struct err play_all(struct stage *stage, const struct scene *scene, struct slice *report_out)
{
    TRY(start_peers(stage, scene));
    for (size_t i = 0; i < scene->user_count; i++) {
        if (!becomes_later(scene, scene->users[i])) {
            TRY(stage_register(stage, scene->users[i]));
        }
    }
    for (size_t i = 0; i < scene->step_count && report_out->len == 0; i++) {
        struct slice why;
        struct err err = play_step(stage, &scene->steps[i], &why);
        if (err.code != 0 || why.len > 0) {
            why = err.code != 0 ? slice_of(err.text) : why;
            *report_out = describe(stage, &scene->steps[i], why);
        }
    }
    return OK;
}

bool stage_play(struct stage *stage, const struct scene *scene, struct slice *report_out)
{
    stage->vars = (struct vars){.arena = stage->arena, .salt = keys_random_hex(stage->arena, 6)};
    vars_set(&stage->vars, LIT("server"), json_string(stage->target->server_name));
    vars_set(&stage->vars, LIT("base"), json_string(stage->target->base_url));
    vars_set(&stage->vars, LIT("salt"), json_string(stage->vars.salt));
    *report_out = LIT("");
    struct err err = play_all(stage, scene, report_out);
    if (err.code != 0) {
        *report_out = arena_printf(stage->arena, "line %zu: before the first step: %s", scene->line,
                                   err.text);
    }
    for (size_t i = 0; i < stage->peer_count; i++) {
        peer_stop(&stage->peers[i]);
    }
    return report_out->len == 0;
}
