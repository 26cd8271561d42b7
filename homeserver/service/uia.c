#include "homeserver/service/uia.h"

#include "crypto/sha256.h"
#include "crypto/token.h"
#include "homeserver/base/json_out.h"
#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/registration_tokens.h"
#include "homeserver/service/users.h"

#include <pthread.h>
#include <string.h>

enum {
    SESSIONS_MAX = 10000,
    SESSION_LETTERS = 24,
    ANSWERS_MAX = 256,
    ANSWER_BYTES_MAX = 4096,
    ANSWER_LIFE_MS = 600000,
};

static const struct slice stage_names[] = {
    [UIA_DUMMY] = {"m.login.dummy", 13},
    [UIA_PASSWORD] = {"m.login.password", 16},
    [UIA_REGISTRATION_TOKEN] = {"m.login.registration_token", 26},
    [UIA_TERMS] = {"m.login.terms", 13},
};

struct session {
    char id[SESSION_LETTERS]; /* first byte 0 = the slot is free */
    struct sha256 operation;  /* method and path */
    uint64_t user;            /* whose operation it is; 0 = not known */
    uint64_t password_user;   /* who gave a password */
    uint32_t completed;       /* bits of enum uia_stage */
    int64_t started_mono_ms;
    size_t token_len;
    char token[REGISTRATION_TOKEN_BYTES_MAX];
};

/* What a request got that completed its session. */
struct answer {
    struct sha256 asked; /* the whole request */
    char *body_owned;    /* NULL: the slot is free */
    size_t body_len;
    int64_t given_mono_ms;
};

/* Rings of sessions and answers: when one is full, the oldest gives way. */
struct hs_uia {
    pthread_mutex_t mutex; /* everything below; held for lookups and copies alone */
    struct map *by_id;     /* id -> slot */
    struct session *slots;
    size_t next;
    struct answer answers[ANSWERS_MAX];
    size_t next_answer;
};

struct hs_uia *hs_uia_new(struct hs *hs)
{
    struct hs_uia *uia = mem_alloc(sizeof *uia);
    (void)hs;
    pthread_mutex_init(&uia->mutex, NULL);
    uia->by_id = map_new();
    uia->slots = mem_alloc(SESSIONS_MAX * sizeof *uia->slots);
    return uia;
}

void hs_uia_free(struct hs_uia **uia)
{
    if (*uia) {
        for (size_t i = 0; i < ANSWERS_MAX; i++) {
            mem_free((*uia)->answers[i].body_owned);
        }
        map_free(&(*uia)->by_id);
        mem_free((*uia)->slots);
        pthread_mutex_destroy(&(*uia)->mutex);
        mem_free(*uia);
        *uia = NULL;
    }
}

/* --- sessions: copied out, changed, and put back --- */

static struct slice session_id(const struct session *session)
{
    return (struct slice){session->id, SESSION_LETTERS};
}

static struct session session_new(struct hs *hs, struct ctx *ctx, struct sha256 operation,
                                  uint64_t user)
{
    struct hs_uia *uia = hs->uia;
    struct session session = {
        .operation = operation, .user = user, .started_mono_ms = now_mono_ms(ctx->now)};
    memcpy(session.id, token_random_letters(ctx->arena, SESSION_LETTERS).ptr, SESSION_LETTERS);
    pthread_mutex_lock(&uia->mutex);
    struct session *slot = &uia->slots[uia->next];
    if (slot->id[0] != 0) {
        map_remove(uia->by_id, session_id(slot));
    }
    *slot = session;
    map_set(uia->by_id, session_id(slot), uia->next);
    uia->next = (uia->next + 1) % SESSIONS_MAX;
    pthread_mutex_unlock(&uia->mutex);
    return session;
}

static bool session_get(struct hs *hs, struct slice id, struct session *session_out)
{
    uint64_t slot = 0;
    pthread_mutex_lock(&hs->uia->mutex);
    bool found = map_get(hs->uia->by_id, id, &slot);
    if (found) {
        *session_out = hs->uia->slots[slot];
    }
    pthread_mutex_unlock(&hs->uia->mutex);
    return found &&
           now_mono_ms(hs->now) - session_out->started_mono_ms < hs->conf->tokens_auth_session_life;
}

/* Adds what was completed; another job may have completed other stages meanwhile. */
static void session_put(struct hs *hs, struct session *session)
{
    uint64_t slot = 0;
    pthread_mutex_lock(&hs->uia->mutex);
    if (map_get(hs->uia->by_id, session_id(session), &slot)) {
        session->completed |= hs->uia->slots[slot].completed;
        hs->uia->slots[slot] = *session;
    }
    pthread_mutex_unlock(&hs->uia->mutex);
}

static void session_drop(struct hs *hs, const struct session *session)
{
    uint64_t slot = 0;
    pthread_mutex_lock(&hs->uia->mutex);
    if (map_get(hs->uia->by_id, session_id(session), &slot)) {
        map_remove(hs->uia->by_id, session_id(session));
        hs->uia->slots[slot] = (struct session){0};
    }
    pthread_mutex_unlock(&hs->uia->mutex);
}

/* --- the 401 --- */

/* Spec: client-server, "User-Interactive Authentication API": flows, params, session, completed. */
static void write_challenge(struct hs *hs, const struct uia_flow *flow,
                            const struct session *session, struct err err, struct http_reply *reply)
{
    struct json_out out = json_out_to(&reply->body);
    reply->status = 401;
    json_out_object(&out);
    if (err.code != 0) {
        const struct errcode_info *info = errcode_get(err.code);
        json_out_key_string(&out, LIT("errcode"), info->wire);
        json_out_key_string(&out, LIT("error"), err.is_public ? slice_of(err.text) : info->text);
    }
    json_out_key_array(&out, LIT("flows"));
    json_out_object(&out);
    json_out_key_array(&out, LIT("stages"));
    for (size_t i = 0; i < flow->count; i++) {
        json_out_string(&out, stage_names[flow->stages[i]]);
    }
    json_out_array_end(&out);
    json_out_object_end(&out);
    json_out_array_end(&out);
    json_out_key_object(&out, LIT("params"));
    for (size_t i = 0; i < flow->count; i++) {
        if (flow->stages[i] == UIA_TERMS && hs->conf->registration_terms.len > 0) {
            json_out_key_raw(&out, stage_names[UIA_TERMS], hs->conf->registration_terms);
        }
    }
    json_out_object_end(&out);
    json_out_key_string(&out, LIT("session"), session_id(session));
    json_out_key_array(&out, LIT("completed"));
    for (size_t i = 0; i < flow->count; i++) {
        if (session->completed & (1u << flow->stages[i])) {
            json_out_string(&out, stage_names[flow->stages[i]]);
        }
    }
    json_out_array_end(&out);
    json_out_object_end(&out);
}

/* --- stages --- */

bool hs_uia_parse_stage(struct slice type, enum uia_stage *stage_out)
{
    for (size_t i = 0; i < UIA_STAGE_COUNT; i++) {
        if (slice_eq(type, stage_names[i])) {
            *stage_out = (enum uia_stage)i;
            return true;
        }
    }
    return false;
}

/* A stage that failed is an error with a public text; the caller wraps it into the 401. */
static struct err check_password(struct hs *hs, struct ctx *ctx, struct session *session,
                                 const struct uia_form *form)
{
    struct slice user_id;
    uint64_t user = session->user;
    bool found = false;
    bool right = false;
    if (form->user.len > 0) {
        user = 0;
        if (hs_user_resolve_login(hs, ctx, form->user, &user_id).code == 0) {
            TRY(hs_user_find(hs, ctx, user_id, &user, &found));
        }
    }
    TRY(hs_account_check_password(hs, ctx, user, form->password, &right));
    if (!right) {
        return err_public(ERR_M_FORBIDDEN, "The user name or password is wrong.");
    }
    session->password_user = user;
    return OK;
}

static struct err check_token(struct hs *hs, struct ctx *ctx, struct session *session,
                              const struct uia_form *form)
{
    bool valid = false;
    TRY(hs_registration_token_check(hs, ctx, form->token, &valid));
    if (!valid) {
        return err_public(ERR_M_UNAUTHORIZED, "The registration token is not valid.");
    }
    memcpy(session->token, form->token.ptr, form->token.len);
    session->token_len = form->token.len;
    return OK;
}

static struct err run_stage(struct hs *hs, struct ctx *ctx, struct session *session,
                            enum uia_stage stage, const struct uia_form *form)
{
    switch (stage) {
    case UIA_PASSWORD:
        TRY(check_password(hs, ctx, session, form));
        break;
    case UIA_REGISTRATION_TOKEN:
        TRY(check_token(hs, ctx, session, form));
        break;
    case UIA_DUMMY:
    case UIA_TERMS:
    case UIA_STAGE_COUNT:
        break;
    }
    session->completed |= 1u << stage;
    session_put(hs, session);
    return OK;
}

/* The user that a password stage names, in either spelling of the specification's history. */
static struct slice named_user(const struct json *auth)
{
    const struct json *identifier = json_get_object(auth, LIT("identifier"));
    if (identifier) {
        return slice_eq(json_get_string(identifier, LIT("type")), LIT("m.id.user"))
                   ? json_get_string(identifier, LIT("user"))
                   : (struct slice){0};
    }
    return json_get_string(auth, LIT("user"));
}

/* The first stage of the flow that is not completed; false when there is none. */
static bool next_stage(const struct uia_flow *flow, const struct session *session,
                       enum uia_stage *stage_out)
{
    for (size_t i = 0; i < flow->count; i++) {
        if (!(session->completed & (1u << flow->stages[i]))) {
            *stage_out = flow->stages[i];
            return true;
        }
    }
    return false;
}

/* Runs the stage that `auth` carries, if it is the next one or was done before. */
static struct err take_stage(struct hs *hs, struct ctx *ctx, const struct uia_flow *flow,
                             struct session *session, const struct json *auth)
{
    enum uia_stage wanted = UIA_STAGE_COUNT;
    enum uia_stage stage = UIA_STAGE_COUNT;
    struct slice type = json_get_string(auth, LIT("type"));
    struct uia_form form = {
        .user = named_user(auth),
        .password = json_get_string(auth, LIT("password")),
        .token = json_get_string(auth, LIT("token")),
    };
    if (!type.ptr || !next_stage(flow, session, &wanted)) {
        return OK; /* only asks how far the session is */
    }
    if (!hs_uia_parse_stage(type, &stage)) {
        return err_public(ERR_M_UNRECOGNIZED, "This authentication type is not offered here.");
    }
    if (session->completed & (1u << stage)) {
        return OK;
    }
    if (stage != wanted) {
        return err_public(ERR_M_FORBIDDEN, "Another stage is next.");
    }
    return run_stage(hs, ctx, session, stage, &form);
}

/* Failures that the client can mend within the session; the rest ends the request. */
static bool is_stage_failure(struct err err)
{
    return err.code == ERR_M_FORBIDDEN || err.code == ERR_M_UNAUTHORIZED ||
           err.code == ERR_M_UNRECOGNIZED;
}

static struct sha256 operation_of(const struct http_request *request)
{
    char method = (char)('0' + (int)request->method);
    const struct slice parts[] = {{&method, 1}, request->path};
    return sha256_of_parts(parts, COUNT_OF(parts));
}

/* The session that the request names, or a new one; a session that is gone is a failure to report.
 */
static struct err open_session(struct hs *hs, struct ctx *ctx, const struct uia_check *check,
                               struct session *session, struct err *failure_out)
{
    struct sha256 operation = operation_of(check->request);
    struct slice id =
        json_get_string(json_get_object(&check->request->json, LIT("auth")), LIT("session"));
    *failure_out = OK;
    if (!id.ptr || !session_get(hs, id, session)) {
        *session = session_new(hs, ctx, operation, check->user);
        *failure_out =
            id.ptr ? err_public(ERR_M_UNKNOWN, "The session is not known any more; begin again.")
                   : OK;
        return OK;
    }
    bool same = token_eq(sha256_slice(&session->operation), sha256_slice(&operation)) &&
                session->user == check->user;
    return same ? OK
                : err_public(ERR_M_FORBIDDEN,
                             "This session was begun for another operation or by another user.");
}

static struct err finish(struct hs *hs, struct ctx *ctx, const struct uia_check *check,
                         const struct session *session, struct uia_result *result_out)
{
    session_drop(hs, session);
    if (check->user != 0 && session->password_user != 0 && session->password_user != check->user) {
        return err_public(ERR_M_FORBIDDEN, "This was the password of another account.");
    }
    result_out->complete = true;
    result_out->user = session->password_user;
    if (session->token_len > 0) {
        result_out->registration_token =
            arena_copy(ctx->arena, (struct slice){session->token, session->token_len});
    }
    return OK;
}

struct err hs_uia_check(struct hs *hs, struct ctx *ctx, const struct uia_check *check,
                        struct http_reply *reply, struct uia_result *result_out)
{
    struct session session;
    enum uia_stage next = UIA_STAGE_COUNT;
    const struct json *auth = json_get_object(&check->request->json, LIT("auth"));
    struct err failure = OK;
    *result_out = (struct uia_result){0};
    TRY(open_session(hs, ctx, check, &session, &failure));
    if (auth && failure.code == 0) {
        failure = take_stage(hs, ctx, &check->flow, &session, auth);
        if (failure.code != 0 && !is_stage_failure(failure)) {
            return failure;
        }
    }
    if (!auth || failure.code != 0 || next_stage(&check->flow, &session, &next)) {
        write_challenge(hs, &check->flow, &session, failure, reply);
        return OK;
    }
    return finish(hs, ctx, check, &session, result_out);
}

/* --- answers, for a client that did not get its own --- */

/* Method, path and body, so that the session's id is part of it; false: it names no session. */
static bool asked_of(struct ctx *ctx, const struct http_request *request, struct sha256 *asked_out)
{
    struct sha256 operation = operation_of(request);
    const struct slice parts[] = {sha256_slice(&operation),
                                  json_canonical(ctx->arena, &request->json)};
    *asked_out = sha256_of_parts(parts, COUNT_OF(parts));
    return json_get_string(json_get_object(&request->json, LIT("auth")), LIT("session")).len > 0;
}

void hs_uia_keep_answer(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                        const struct http_reply *reply)
{
    struct hs_uia *uia = hs->uia;
    struct answer answer = {.given_mono_ms = now_mono_ms(hs->now)};
    if (!asked_of(ctx, request, &answer.asked) || reply->body.len > ANSWER_BYTES_MAX) {
        return;
    }
    answer.body_len = reply->body.len;
    answer.body_owned = mem_alloc(reply->body.len + 1);
    memcpy(answer.body_owned, buf_slice(&reply->body).ptr, reply->body.len);
    pthread_mutex_lock(&uia->mutex);
    struct answer *slot = &uia->answers[uia->next_answer];
    mem_free(slot->body_owned);
    *slot = answer;
    uia->next_answer = (uia->next_answer + 1) % ANSWERS_MAX;
    pthread_mutex_unlock(&uia->mutex);
}

bool hs_uia_answer_again(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                         struct http_reply *reply)
{
    struct hs_uia *uia = hs->uia;
    struct sha256 asked;
    bool found = false;
    if (!asked_of(ctx, request, &asked)) {
        return false;
    }
    int64_t oldest_mono_ms = now_mono_ms(hs->now) - ANSWER_LIFE_MS;
    pthread_mutex_lock(&uia->mutex);
    for (size_t i = 0; i < ANSWERS_MAX && !found; i++) {
        const struct answer *answer = &uia->answers[i];
        found = answer->body_owned && answer->given_mono_ms >= oldest_mono_ms &&
                token_eq(sha256_slice(&answer->asked), sha256_slice(&asked));
        if (found) {
            buf_add(&reply->body, (struct slice){answer->body_owned, answer->body_len});
        }
    }
    pthread_mutex_unlock(&uia->mutex);
    return found;
}

/* --- fallback pages --- */

bool hs_uia_awaits(struct hs *hs, struct slice session, enum uia_stage stage)
{
    struct session found;
    return session_get(hs, session, &found) && !(found.completed & (1u << stage));
}

struct err hs_uia_complete(struct hs *hs, struct ctx *ctx, enum uia_stage stage,
                           const struct uia_form *form, bool *right_out)
{
    struct session session;
    *right_out = false;
    if (!session_get(hs, form->session, &session)) {
        return OK;
    }
    struct err err = run_stage(hs, ctx, &session, stage, form);
    if (err.code != 0 && !is_stage_failure(err)) {
        return err;
    }
    *right_out = err.code == 0;
    return OK;
}
