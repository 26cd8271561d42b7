/* Spec: client-server, "Cross-signing". */
#include "homeserver/client/account_priv.h"
#include "homeserver/client/keys_priv.h"
#include "homeserver/service/cross_signing.h"

static const struct json *given(const struct http_request *request, struct slice key)
{
    const struct json *value = json_get(&request->json, key);
    return value && value->type != JSON_NULL ? value : NULL;
}

/* Application services have no password to ask for. */
static struct err prove(void *app, struct ctx *ctx, const struct http_request *request,
                        struct http_reply *reply, bool *proven_out)
{
    struct uia_result result = {.complete = true};
    if (!request->requester->is_appservice) {
        TRY(cs_ask_password(app, ctx, request, reply, &result));
    }
    *proven_out = result.complete;
    return OK;
}

struct err cs_device_signing_upload(void *app, struct ctx *ctx, const struct http_request *request,
                                    struct http_reply *reply)
{
    enum cross_answer answer = CROSS_DONE;
    bool proven = false;
    struct cross_upload upload = {
        .user = request->requester->user,
        .user_id = request->requester->user_id,
        .keys = {[CROSS_MASTER] = given(request, LIT("master_key")),
                 [CROSS_SELF_SIGNING] = given(request, LIT("self_signing_key")),
                 [CROSS_USER_SIGNING] = given(request, LIT("user_signing_key"))},
        .proof = CROSS_UNPROVEN,
    };
    TRY(hs_cross_signing_upload(app, ctx, &upload, &answer));
    if (answer == CROSS_NEEDS_PROOF) {
        TRY(prove(app, ctx, request, reply, &proven));
        if (!proven) {
            return OK;
        }
        upload.proof = CROSS_PROVEN;
        TRY(hs_cross_signing_upload(app, ctx, &upload, &answer));
    }
    http_reply_empty(reply);
    return OK;
}

struct err cs_signatures_upload(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct json failures;
    struct json_out out = json_out_to(&reply->body);
    struct signature_upload upload = {.user = request->requester->user,
                                      .user_id = request->requester->user_id,
                                      .signed_objects = &request->json};
    TRY(hs_signatures_upload(app, ctx, &upload, &failures));
    json_out_object(&out);
    json_out_key(&out, LIT("failures"));
    json_out_value(&out, &failures);
    json_out_object_end(&out);
    return OK;
}
