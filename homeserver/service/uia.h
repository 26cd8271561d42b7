/* User-interactive authentication: sessions bound to one operation and one user, flows of stages,
 * completion by the client or on the fallback pages. Sessions live in memory; after a restart the
 * client begins anew. Spec: client-server, "User-Interactive Authentication API". */
#pragma once
#include "homeserver/http/http.h"
#include "homeserver/service/hs.h"

struct hs_uia *hs_uia_new(struct hs *hs);
void hs_uia_free(struct hs_uia **uia);

enum uia_stage {
    UIA_DUMMY,
    UIA_PASSWORD,
    UIA_REGISTRATION_TOKEN,
    UIA_TERMS,
    UIA_STAGE_COUNT,
};
/* Stages to be completed in this order. */
struct uia_flow {
    enum uia_stage stages[UIA_STAGE_COUNT];
    size_t count;
};

struct uia_check {
    const struct http_request *request; /* its method, path and json.auth */
    struct uia_flow flow;
    uint64_t user;        /* who must prove to be themselves; 0 = not known (yet) */
    struct slice user_id; /* the same as text */
};
struct uia_result {
    bool complete; /* false: the 401 is written into the reply, the handler returns OK */
    uint64_t user; /* who gave a password; 0 when there was no such stage */
    struct slice registration_token; /* ptr NULL when there was no such stage */
};
/* Takes one step: completes the stage that the request carries, if any. M_FORBIDDEN when the
 * session belongs to another operation or user. A finished session is forgotten. */
struct err hs_uia_check(struct hs *hs, struct ctx *ctx, const struct uia_check *check,
                        struct http_reply *reply, struct uia_result *result_out) MUST_USE;

/* Keeps the answer of a request that completed its session, for ten minutes and the last few
 * hundred requests; and gives it to the same request when that comes again (false: there is none).
 * For operations that cannot be done twice. */
void hs_uia_keep_answer(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                        const struct http_reply *reply);
bool hs_uia_answer_again(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                         struct http_reply *reply);

/* --- fallback pages --- */
bool hs_uia_parse_stage(struct slice type, enum uia_stage *stage_out);
/* Whether the session exists and still waits for the stage. */
bool hs_uia_awaits(struct hs *hs, struct slice session, enum uia_stage stage);
/* Completes a stage of a session with what a form sent; false: it was wrong. */
struct uia_form {
    struct slice session, user, password, token;
};
struct err hs_uia_complete(struct hs *hs, struct ctx *ctx, enum uia_stage stage,
                           const struct uia_form *form, bool *right_out) MUST_USE;
