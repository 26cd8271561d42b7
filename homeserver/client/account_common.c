#include "homeserver/client/account_priv.h"

#include "crypto/password.h"

struct slice cs_base_url(struct hs *hs, struct ctx *ctx)
{
    struct slice url = hs->conf->public_baseurl;
    if (url.len == 0) {
        return arena_concat(ctx->arena, LIT("https://"), hs->server_name);
    }
    while (url.len > 0 && url.ptr[url.len - 1] == '/') {
        url.len--;
    }
    return url;
}

void cs_write_client_config(struct hs *hs, struct ctx *ctx, struct json_out *out)
{
    struct json config = json_object();
    struct json homeserver = json_object();
    if (hs->conf->well_known_client.len > 0 &&
        json_parse(ctx->arena, hs->conf->well_known_client, &config).code != 0) {
        config = json_object();
    }
    json_set(ctx->arena, &homeserver, LIT("base_url"), json_string(cs_base_url(hs, ctx)));
    if (!json_get(&config, LIT("m.homeserver"))) {
        json_set(ctx->arena, &config, LIT("m.homeserver"), homeserver);
    }
    json_out_value(out, &config);
}

void cs_reply_signed_in(struct hs *hs, struct http_reply *reply, const struct cs_signed_in *in)
{
    struct json_out out = json_out_to(&reply->body);
    json_out_object(&out);
    json_out_key_string(&out, LIT("user_id"), in->user_id);
    json_out_key_string(&out, LIT("home_server"), hs->server_name);
    if (in->tokens) {
        json_out_key_string(&out, LIT("access_token"), in->tokens->access_token);
        json_out_key_string(&out, LIT("device_id"), in->tokens->device_id);
        if (in->tokens->refresh_token.ptr) {
            json_out_key_string(&out, LIT("refresh_token"), in->tokens->refresh_token);
        }
        if (in->tokens->expires_in_ms) {
            json_out_key_int(&out, LIT("expires_in_ms"), in->tokens->expires_in_ms);
        }
    }
    json_out_object_end(&out);
}

struct err cs_read_sign_in(const struct http_request *request, struct sign_in *sign_in_out)
{
    bool refreshable = false;
    *sign_in_out = (struct sign_in){0};
    TRY(cs_body_string(request, LIT("device_id"), &sign_in_out->device_id));
    TRY(cs_body_string(request, LIT("initial_device_display_name"), &sign_in_out->display_name));
    TRY(cs_body_bool(request, LIT("refresh_token"), false, &refreshable));
    sign_in_out->kind = refreshable ? SIGN_IN_REFRESHABLE : SIGN_IN_PLAIN;
    return OK;
}

struct err cs_sign_in(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                      uint64_t user, struct issued_tokens *tokens_out)
{
    struct sign_in sign_in;
    TRY(cs_read_sign_in(request, &sign_in));
    sign_in.user = user;
    return hs_token_issue(hs, ctx, &sign_in, tokens_out);
}

struct err cs_ask_password(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply, struct uia_result *result_out)
{
    struct uia_check check = {
        .request = request,
        .flow = {.stages = {UIA_PASSWORD}, .count = 1},
    };
    if (request->requester) {
        check.user = request->requester->user;
        check.user_id = request->requester->user_id;
    }
    return hs_uia_check(hs, ctx, &check, reply, result_out);
}

struct err cs_check_new_password(struct hs *hs, struct slice password)
{
    if (password.len > PASSWORD_BYTES_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "The password is longer than 1024 bytes.");
    }
    if ((int64_t)password.len < hs->conf->registration_password_min) {
        return err_public(ERR_M_WEAK_PASSWORD, "The password is too short.");
    }
    return OK;
}

struct err cs_body_bool(const struct http_request *request, struct slice key, bool fallback,
                        bool *value_out)
{
    const struct json *value = json_get(&request->json, key);
    if (value && value->type != JSON_BOOL && value->type != JSON_NULL) {
        return err_public(ERR_M_BAD_JSON, "A member of the body that must be a boolean is not.");
    }
    *value_out = value && value->type == JSON_BOOL ? value->boolean : fallback;
    return OK;
}
