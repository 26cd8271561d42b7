#include "tools/myelin-conform/peer_step.h"
#include "homeserver/base/now.h"
#include "tools/myelin-conform/keys.h"
#include "tools/myelin-conform/match.h"
#include "tools/myelin-conform/peer_room.h"
#include "tools/myelin-conform/peer_verify.h"

#include <time.h>

enum { RECEIVE_MS = 10000, NEVER_MS = 400, PAUSE_MS = 20 };

/* A step at work, with its arguments as values. */
struct deed_job {
    struct stage *stage;
    const struct step *step;
    struct peer *peer;
    struct json args[DEED_ARGS_MAX];
};

static struct slice text_arg(const struct deed_job *job, size_t index)
{
    return job->args[index].type == JSON_STRING ? job->args[index].text : LIT("");
}

static struct err unknown_room(const struct deed_job *job, struct slice room_id)
{
    return err_publicf(job->stage->arena, ERR_SYNTAX,
                       "the played server knows no room %.*s: it joins or `knows` it first",
                       (int)room_id.len, room_id.ptr);
}

static void publish_event(struct deed_job *job, struct slice variable, struct json tree,
                          struct slice id)
{
    struct vars *vars = &job->stage->vars;
    vars_set(vars, variable, tree);
    vars_set(vars, arena_concat(job->stage->arena, variable, LIT(".id")), json_string(id));
}

/* Members of `changes` take the place of those in the tree; null removes. */
static void apply_changes(struct arena *arena, struct json *tree, const struct json *changes)
{
    for (size_t i = 0; changes->type == JSON_OBJECT && i < changes->count; i++) {
        const struct json_member *member = &changes->members[i];
        if (member->value.type == JSON_NULL) {
            json_remove(tree, member->key);
        } else {
            json_set(arena, tree, member->key, member->value);
        }
    }
}

struct making {
    struct json draft;
    struct slice room_id;
    const struct peer *signer;
    const struct json *changes; /* NULL: none */
    enum peer_keep keep;
};

static struct err make_event(struct deed_job *job, const struct making *making,
                             struct json *tree_out, struct slice *id_out)
{
    struct peer *peer = job->peer;
    peer_lock(peer);
    struct peer_room *room = peer_room_find(peer, making->room_id);
    if (room) {
        struct json draft = peer_room_draft(peer, room, &making->draft);
        struct json_signer signer = peer_signer(making->signer);
        if (making->signer != peer) {
            signer.server = ids_trust_server(peer->name);
        }
        *tree_out = peer_event_seal(peer->arena, room->rules, &draft, &signer);
        if (making->changes) {
            apply_changes(peer->arena, tree_out, making->changes);
        }
        *id_out = peer_room_keep(peer, room, tree_out, making->keep)->id;
    }
    peer_unlock(peer);
    return room ? OK : unknown_room(job, making->room_id);
}

static struct err do_make(struct deed_job *job, struct slice *why_out)
{
    enum deed deed = job->step->deed;
    struct json tree;
    struct slice id;
    struct making making = {
        .draft = job->args[1],
        .room_id = text_arg(job, 2),
        .signer = job->peer,
        .changes = deed == DEED_CHANGED ? &job->args[3] : NULL,
        .keep = deed == DEED_MAKE ? PEER_KEEP_NEWEST : PEER_KEEP_OUT,
    };
    if (deed == DEED_FORGED) {
        making.signer = stage_peer(job->stage, job->step->args[3].text);
    }
    if (!making.signer) {
        return err_public(ERR_SYNTAX, "no such played server");
    }
    (void)why_out;
    TRY(make_event(job, &making, &tree, &id));
    publish_event(job, job->step->args[0].text, tree, id);
    return OK;
}

static struct err call(struct deed_job *job, struct slice method, struct slice path,
                       const struct json *content)
{
    struct slice url;
    TRY(vars_expand_path(&job->stage->vars, path, &url));
    struct peer_call request = {.method = method, .uri = url, .content = content};
    return stage_ask_as(job->stage, job->peer, &request);
}

static struct err transmit(struct deed_job *job, struct json pdu)
{
    struct arena *arena = job->stage->arena;
    struct json pdus = json_array();
    struct json body = json_object();
    struct now now = now_system();
    json_push(arena, &pdus, pdu);
    json_set(arena, &body, LIT("origin"), json_string(job->peer->name));
    json_set(arena, &body, LIT("origin_server_ts"), json_int(now_wall_ms(&now)));
    json_set(arena, &body, LIT("pdus"), pdus);
    return call(job, LIT("PUT"), LIT("/_matrix/federation/v1/send/$txn"), &body);
}

static struct err do_send(struct deed_job *job, struct slice *why_out)
{
    bool is_say = job->step->deed == DEED_SAY;
    struct arena *arena = job->stage->arena;
    struct json content = json_object();
    struct json draft = json_object();
    if (is_say) {
        json_set(arena, &content, LIT("msgtype"), json_string(LIT("m.text")));
        json_set(arena, &content, LIT("body"), job->args[0]);
        json_set(arena, &draft, LIT("type"), json_string(LIT("m.room.message")));
        json_set(arena, &draft, LIT("content"), content);
        json_set(arena, &draft, LIT("sender"), job->args[2]);
    }
    struct making making = {.draft = is_say ? draft : job->args[0],
                            .room_id = text_arg(job, 1),
                            .signer = job->peer,
                            .keep = PEER_KEEP_NEWEST};
    struct slice variable = job->step->args[is_say ? 3 : 2].text;
    struct json tree;
    struct slice id;
    TRY(make_event(job, &making, &tree, &id));
    if (variable.len > 0) {
        publish_event(job, variable, tree, id);
    }
    TRY(transmit(job, tree));
    stage_fits(job->stage, job->step, why_out);
    return OK;
}

static struct json creation(struct deed_job *job, const char *type, struct json content)
{
    struct arena *arena = job->stage->arena;
    struct json draft = json_object();
    json_set(arena, &draft, LIT("type"), json_string(slice_of(type)));
    json_set(arena, &draft, LIT("state_key"), json_string(LIT("")));
    json_set(arena, &draft, LIT("content"), content);
    return draft;
}

static struct json single(struct arena *arena, struct slice key, struct json value)
{
    struct json object = json_object();
    json_set(arena, &object, key, value);
    return object;
}

/* The events of a new room: those after m.room.create, in order. */
static struct json first_events(struct deed_job *job, const struct room_rules *rules,
                                struct slice creator)
{
    struct arena *arena = job->stage->arena;
    const struct json *options = &job->args[1];
    struct json list = json_array();
    struct json member =
        creation(job, "m.room.member", single(arena, LIT("membership"), json_string(LIT("join"))));
    json_set(arena, &member, LIT("state_key"), json_string(creator));
    json_push(arena, &list, member);
    const struct json *levels = json_get_object(options, LIT("power_levels"));
    struct json content = levels ? *levels : json_object();
    if (!levels && !rules->creator_infinite) {
        content = single(arena, LIT("users"), single(arena, creator, json_int(100)));
    }
    json_push(arena, &list, creation(job, "m.room.power_levels", content));
    struct slice rule = json_get_string(options, LIT("join_rule"));
    content = single(arena, LIT("join_rule"), json_string(rule.ptr ? rule : LIT("public")));
    const struct json *allow = json_get_array(options, LIT("allow"));
    if (allow) {
        json_set(arena, &content, LIT("allow"), *allow);
    }
    json_push(arena, &list, creation(job, "m.room.join_rules", content));
    const struct json *more = json_get_array(options, LIT("state"));
    for (size_t i = 0; more && i < more->count; i++) {
        json_push(arena, &list, more->items[i]);
    }
    return list;
}

static struct err create_room(struct deed_job *job, const struct room_rules *rules,
                              struct slice creator, struct slice *room_id_out)
{
    struct peer *peer = job->peer;
    struct json_signer signer = peer_signer(peer);
    struct slice opaque = keys_random_hex(peer->arena, 9);
    struct peer_room unborn = {.rules = rules};
    unborn.id = arena_printf(peer->arena, "!%.*s:%.*s", (int)opaque.len, opaque.ptr,
                             (int)peer->name.len, peer->name.ptr);
    struct json content = single(peer->arena, LIT("room_version"), json_string(rules->version));
    if (!rules->implicit_creator) {
        json_set(peer->arena, &content, LIT("creator"), json_string(creator));
    }
    const struct json *more = json_get_object(&job->args[1], LIT("create"));
    for (uint32_t i = 0; more && i < more->count; i++) {
        json_set(peer->arena, &content, more->members[i].key, more->members[i].value);
    }
    struct json draft = creation(job, "m.room.create", content);
    json_set(peer->arena, &draft, LIT("sender"), json_string(creator));
    draft = peer_room_draft(peer, &unborn, &draft);
    struct json tree = peer_event_seal(peer->arena, rules, &draft, &signer);
    struct slice id = unborn.id;
    if (rules->hash_room_id) {
        struct slice hash = slice_from(peer_event_id(peer->arena, rules, &tree), 1);
        id = arena_concat(peer->arena, LIT("!"), hash);
    }
    struct peer_room *room = peer_room_add(peer, id, rules);
    peer_room_keep(peer, room, &tree, PEER_KEEP_NEWEST);
    struct json list = first_events(job, rules, creator);
    for (size_t i = 0; i < list.count; i++) {
        if (!json_get(&list.items[i], LIT("sender"))) {
            json_set(peer->arena, &list.items[i], LIT("sender"), json_string(creator));
        }
        draft = peer_room_draft(peer, room, &list.items[i]);
        tree = peer_event_seal(peer->arena, rules, &draft, &signer);
        peer_room_keep(peer, room, &tree, PEER_KEEP_NEWEST);
    }
    *room_id_out = id;
    return OK;
}

static struct err do_create(struct deed_job *job, struct slice *why_out)
{
    (void)why_out;
    struct slice version = json_get_string(&job->args[1], LIT("version"));
    struct slice creator = json_get_string(&job->args[1], LIT("creator"));
    const struct room_rules *rules = room_rules_get(version.ptr ? version : LIT("11"));
    if (!rules) {
        return err_public(ERR_SYNTAX, "no such room version");
    }
    if (!creator.ptr) {
        creator = arena_concat(job->stage->arena, LIT("@owner:"), job->peer->name);
    }
    struct slice room_id;
    peer_lock(job->peer);
    struct err err = create_room(job, rules, creator, &room_id);
    peer_unlock(job->peer);
    vars_set(&job->stage->vars, job->step->args[0].text, json_string(room_id));
    return err;
}

/* Takes over the room from the answer to /send_join. */
static void keep_joined(struct deed_job *job, struct slice room_id, const struct room_rules *rules,
                        const struct json *event)
{
    struct peer *peer = job->peer;
    const struct json *answer = &job->stage->answer.json;
    const struct json *chain = json_get_array(answer, LIT("auth_chain"));
    const struct json *state = json_get_array(answer, LIT("state"));
    const struct json *given = json_get_object(answer, LIT("event"));
    peer_lock(peer);
    struct peer_room *room = peer_room_add(peer, room_id, rules);
    for (size_t i = 0; chain && i < chain->count; i++) {
        peer_room_keep(peer, room, &chain->items[i], PEER_KEEP_OUT);
    }
    for (size_t i = 0; state && i < state->count; i++) {
        peer_room_keep(peer, room, &state->items[i], PEER_KEEP_STATE);
    }
    room->head_count = 0;
    peer_room_keep(peer, room, given ? given : event, PEER_KEEP_NEWEST);
    peer_unlock(peer);
}

struct handshake {
    struct slice make;
    struct slice send;
};

static struct handshake handshake_of(enum deed deed)
{
#define FED "/_matrix/federation"
    if (deed == DEED_JOIN) {
        return (struct handshake){
            LIT(FED "/v1/make_join/$handshake_room/$handshake_user?ver=1&ver=2&ver=3&ver=4&ver=5"
                    "&ver=6&ver=7&ver=8&ver=9&ver=10&ver=11&ver=12"),
            LIT(FED "/v2/send_join/$handshake_room/$txn")};
    }
    if (deed == DEED_LEAVE) {
        return (struct handshake){LIT(FED "/v1/make_leave/$handshake_room/$handshake_user"),
                                  LIT(FED "/v2/send_leave/$handshake_room/$txn")};
    }
    return (struct handshake){
        LIT(FED "/v1/make_knock/$handshake_room/$handshake_user?ver=7&ver=8&ver=9&ver=10&ver=11"
                "&ver=12"),
        LIT(FED "/v1/send_knock/$handshake_room/$txn")};
}

/* make_* and send_*; the answer is that of the one that was refused, else of the second. */
static struct err shake_hands(struct deed_job *job, const struct room_rules **rules_out,
                              struct json *event_out)
{
    struct stage *stage = job->stage;
    struct handshake paths = handshake_of(job->step->deed);
    *rules_out = NULL;
    vars_set(&stage->vars, LIT("handshake_room"), job->args[0]);
    vars_set(&stage->vars, LIT("handshake_user"), job->args[1]);
    TRY(call(job, LIT("GET"), paths.make, NULL));
    const struct json *draft =
        stage->answer.is_json ? json_get_object(&stage->answer.json, LIT("event")) : NULL;
    struct slice version = json_get_string(&stage->answer.json, LIT("room_version"));
    const struct room_rules *rules = room_rules_get(version.ptr ? version : LIT("1"));
    if (stage->answer.status != 200 || !draft || !rules) {
        return OK;
    }
    peer_lock(job->peer);
    struct peer_room *room = peer_room_find(job->peer, text_arg(job, 0));
    struct peer_room unknown = {.id = text_arg(job, 0), .rules = rules};
    static const struct slice replaced[] = {LIT("event_id")}; /* versions 1 and 2: one's own */
    struct json fresh = json_without(job->peer->arena, draft, replaced, COUNT_OF(replaced));
    struct json full = peer_room_draft(job->peer, room ? room : &unknown, &fresh);
    struct json_signer signer = peer_signer(job->peer);
    *event_out = peer_event_seal(job->peer->arena, rules, &full, &signer);
    struct slice id = peer_event_id(job->peer->arena, rules, event_out);
    peer_unlock(job->peer);
    vars_set(&stage->vars, LIT("handshake_event"), json_string(id));
    struct slice path =
        arena_concat(stage->arena, slice_sub(paths.send, 0, slice_find_last(paths.send, '$')),
                     LIT("$handshake_event"));
    TRY(call(job, LIT("PUT"), path, event_out));
    *rules_out = stage->answer.status == 200 && stage->answer.is_json ? rules : NULL;
    return OK;
}

static struct err do_handshake(struct deed_job *job, struct slice *why_out)
{
    const struct room_rules *rules;
    struct json event;
    TRY(shake_hands(job, &rules, &event));
    if (rules && job->step->deed == DEED_JOIN) {
        keep_joined(job, text_arg(job, 0), rules, &event);
    } else if (rules) {
        peer_lock(job->peer);
        struct peer_room *room = peer_room_add(job->peer, text_arg(job, 0), rules);
        peer_room_keep(job->peer, room, &event, PEER_KEEP_NEWEST);
        peer_unlock(job->peer);
    }
    stage_fits(job->stage, job->step, why_out);
    return OK;
}

static struct err do_invite(struct deed_job *job, struct slice *why_out)
{
    struct arena *arena = job->stage->arena;
    struct json draft = json_object();
    struct json body = json_object();
    struct json tree;
    struct slice id;
    json_set(arena, &draft, LIT("type"), json_string(LIT("m.room.member")));
    json_set(arena, &draft, LIT("sender"), job->args[2]);
    json_set(arena, &draft, LIT("state_key"), job->args[0]);
    json_set(arena, &draft, LIT("content"),
             single(arena, LIT("membership"), json_string(LIT("invite"))));
    struct making making = {
        .draft = draft, .room_id = text_arg(job, 1), .signer = job->peer, .keep = PEER_KEEP_NEWEST};
    TRY(make_event(job, &making, &tree, &id));
    peer_lock(job->peer);
    struct peer_room *room = peer_room_find(job->peer, making.room_id);
    struct slice version = room->rules->version;
    struct peer_event *create = peer_room_state(room, LIT("m.room.create"), LIT(""));
    struct json state = json_array();
    if (create) {
        json_push(arena, &state, create->tree);
    }
    peer_unlock(job->peer);
    json_set(arena, &body, LIT("event"), tree);
    json_set(arena, &body, LIT("room_version"), json_string(version));
    json_set(arena, &body, LIT("invite_room_state"), state);
    vars_set(&job->stage->vars, LIT("handshake_room"), json_string(making.room_id));
    vars_set(&job->stage->vars, LIT("handshake_event"), json_string(id));
    TRY(call(job, LIT("PUT"), LIT(FED "/v2/invite/$handshake_room/$handshake_event"), &body));
    stage_fits(job->stage, job->step, why_out);
    return OK;
}

static struct err do_know(struct deed_job *job, struct slice *why_out)
{
    (void)why_out;
    const struct room_rules *rules = room_rules_get(text_arg(job, 1));
    if (!rules) {
        return err_public(ERR_SYNTAX, "no such room version");
    }
    peer_lock(job->peer);
    peer_room_add(job->peer, text_arg(job, 0), rules);
    peer_unlock(job->peer);
    return OK;
}

/* The path of an answer or request, as the listener sees it: decoded. */
static struct err full_glob(struct deed_job *job, struct slice word, struct slice *glob_out)
{
    struct slice glob;
    TRY(vars_expand(&job->stage->vars, word, &glob));
    bool is_short = slice_has_prefix(glob, LIT("/v1/")) || slice_has_prefix(glob, LIT("/v2/"));
    bool is_below = slice_has_prefix(glob, LIT("/key/"));
    struct slice prefix = is_short ? LIT(FED) : is_below ? LIT("/_matrix") : LIT("");
    *glob_out = arena_concat(job->stage->arena, prefix, glob);
    return OK;
}

static struct err do_answer(struct deed_job *job, struct slice *why_out)
{
    (void)why_out;
    const struct step *step = job->step;
    struct peer *peer = job->peer;
    struct peer_script script = {.method = step->args[0].text};
    uint64_t status = 0;
    TRY(full_glob(job, step->args[1].text, &script.glob));
    if (!slice_parse_u64(step->args[2].text, &status)) {
        return err_public(ERR_SYNTAX, "expected `answers METHOD PATH STATUS BODY`");
    }
    script.reply.status = (unsigned)status;
    if (step->has_raw) {
        TRY(vars_expand(&job->stage->vars, step->raw, &script.reply.body));
    } else {
        script.reply.body = json_canonical(job->stage->arena, &job->args[3]);
    }
    script.reply.headers =
        arena_array(job->stage->arena, step->header_count + 1, sizeof *script.reply.headers);
    for (size_t i = 0; i < step->header_count; i++) {
        struct ask_header *header = &script.reply.headers[script.reply.header_count++];
        header->name = step->headers[i].name;
        TRY(vars_expand(&job->stage->vars, step->headers[i].value, &header->value));
    }
    peer_lock(peer);
    peer->scripts = arena_grow(peer->arena, peer->scripts, peer->script_count * sizeof script,
                               (peer->script_count + 1) * sizeof script);
    peer->scripts[peer->script_count++] = script;
    peer_unlock(peer);
    return OK;
}

/* The index-th request, copied while the lock is held; false when there is none. */
static bool request_at(struct peer *peer, size_t index, struct peer_request *request_out)
{
    peer_lock(peer);
    bool is_there = index < peer->request_count;
    if (is_there) {
        *request_out = peer->requests[index];
    }
    peer_unlock(peer);
    return is_there;
}

/* Shows a request as the answer of the step, with its path and the verdict on its signature as
 * headers. */
static struct err show_request(struct deed_job *job, const struct peer_request *request)
{
    struct stage *stage = job->stage;
    struct slice verdict;
    struct answer answer = {.status = 200, .body = request->body};
    TRY(peer_verify_request(stage, job->peer, request, &verdict));
    answer.headers = arena_array(stage->arena, request->header_count + 2, sizeof *answer.headers);
    for (size_t i = 0; i < request->header_count; i++) {
        answer.headers[answer.header_count++] = request->headers[i];
    }
    answer.headers[answer.header_count++] = (struct ask_header){LIT("X-Path"), request->path};
    answer.headers[answer.header_count++] = (struct ask_header){LIT("X-Signature"), verdict};
    struct slice body = request->body.len > 0 ? request->body : LIT("{}");
    answer.is_json = json_parse(stage->arena, body, &answer.json).code == 0;
    stage->answer = answer;
    stage->asked = arena_printf(stage->arena, "(received) %.*s %.*s", (int)request->method.len,
                                request->method.ptr, (int)request->path.len, request->path.ptr);
    return OK;
}

/* Whether some request so far fits; `from` is the first one not looked at yet. */
static struct err look_through(struct deed_job *job, struct slice glob, size_t *from,
                               bool *found_out, struct slice *why_out)
{
    struct peer_request request;
    *found_out = false;
    for (; !*found_out && request_at(job->peer, *from, &request); ++*from) {
        if (!slice_eq(request.method, job->step->args[0].text) || !match_glob(glob, request.path)) {
            continue;
        }
        size_t count = job->stage->vars.count;
        TRY(show_request(job, &request));
        *found_out = stage_fits(job->stage, job->step, why_out);
        if (!*found_out) {
            job->stage->vars.count = count;
        }
    }
    return OK;
}

static struct err do_receive(struct deed_job *job, struct slice *why_out)
{
    bool is_never = job->step->mode == STEP_NEVER;
    int64_t deadline = now_mono_us() / 1000 + (is_never ? NEVER_MS : RECEIVE_MS);
    struct slice glob;
    size_t from = 0;
    bool is_found = false;
    TRY(full_glob(job, job->step->args[1].text, &glob));
    *why_out = LIT("no such request came");
    for (;;) {
        TRY(look_through(job, glob, &from, &is_found, why_out));
        if (is_found || now_mono_us() / 1000 >= deadline) {
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000L}, NULL);
    }
    if (is_never) {
        *why_out = is_found ? LIT("expected that no such request comes") : LIT("");
    } else if (is_found) {
        *why_out = LIT("");
    }
    return OK;
}

static struct err do_verify(struct deed_job *job, struct slice *why_out)
{
    const struct json *value = vars_get(&job->stage->vars, job->step->args[0].text);
    if (!value || value->type != JSON_OBJECT) {
        return err_public(ERR_SYNTAX, "the variable holds no object");
    }
    if (job->step->deed == DEED_VERIFY) {
        return peer_verify_object(job->stage, value, why_out);
    }
    peer_lock(job->peer);
    struct peer_room *room = peer_room_find(job->peer, text_arg(job, 1));
    const struct room_rules *rules = room ? room->rules : NULL;
    peer_unlock(job->peer);
    return rules ? peer_verify_event(job->stage, rules, value, why_out)
                 : unknown_room(job, text_arg(job, 1));
}

typedef struct err (*deed_fn)(struct deed_job *job, struct slice *why_out);

static const deed_fn deeds[] = {
    [DEED_CREATE] = do_create,     [DEED_JOIN] = do_handshake,  [DEED_LEAVE] = do_handshake,
    [DEED_KNOCK] = do_handshake,   [DEED_INVITE] = do_invite,   [DEED_KNOW] = do_know,
    [DEED_MAKE] = do_make,         [DEED_ASIDE] = do_make,      [DEED_CHANGED] = do_make,
    [DEED_FORGED] = do_make,       [DEED_SEND] = do_send,       [DEED_SAY] = do_send,
    [DEED_ANSWER] = do_answer,     [DEED_RECEIVE] = do_receive, [DEED_VERIFY] = do_verify,
    [DEED_VERIFY_PDU] = do_verify,
};

struct err peer_step_play(struct stage *stage, const struct step *step, struct slice *why_out)
{
    struct deed_job job = {.stage = stage, .step = step, .peer = stage_peer(stage, step->actor)};
    *why_out = LIT("");
    for (size_t i = 0; i < DEED_ARGS_MAX; i++) {
        if (step->args[i].term.source.len > 0 || step->args[i].term.text.len > 0) {
            TRY(vars_value(&stage->vars, &step->args[i].term, &job.args[i]));
        }
    }
    return deeds[step->deed](&job, why_out);
}
