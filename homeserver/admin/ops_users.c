/* Accounts, devices, registration tokens. */
#include "crypto/token.h"
#include "homeserver/admin/ops_priv.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/media_usage.h"
#include "homeserver/service/profiles.h"
#include "homeserver/service/registration_tokens.h"

enum { PASSWORD_LETTERS = 20, TOKEN_LETTERS = 16 };
#define DAY_MS INT64_C(86400000)

/* --- showing --- */

static const struct {
    struct slice name;
    uint32_t flag;
} flags[] = {{{"admin", 5}, ACCOUNT_ADMIN},
             {{"guest", 5}, ACCOUNT_GUEST},
             {{"deactivated", 11}, ACCOUNT_DEACTIVATED},
             {{"locked", 6}, ACCOUNT_LOCKED},
             {{"suspended", 9}, ACCOUNT_SUSPENDED},
             {{"erased", 6}, ACCOUNT_ERASED}};

static void write_account(struct json_out *out, const struct account *account)
{
    json_out_key_string(out, LIT("user_id"), account->user_id);
    json_out_key_int(out, LIT("created_ms"), account->created_ms);
    json_out_key_array(out, LIT("flags"));
    for (size_t i = 0; i < COUNT_OF(flags); i++) {
        if (account->flags & flags[i].flag) {
            json_out_string(out, flags[i].name);
        }
    }
    json_out_array_end(out);
}

static void answer_account(struct admin_call *call, struct slice user_id, struct slice password)
{
    json_out_object(call->out);
    json_out_key_string(call->out, LIT("user_id"), user_id);
    if (password.ptr) {
        json_out_key_string(call->out, LIT("password"), password);
    }
    json_out_object_end(call->out);
}

/* All numbers of users are walked through; those without an account are left out. */
struct err admin_users_list(struct admin_call *call)
{
    struct admin_accounts page;
    TRY(admin_accounts_page(call, ADMIN_PAGE, &page));
    json_out_object(call->out);
    json_out_key_array(call->out, LIT("users"));
    for (size_t i = 0; i < page.count; i++) {
        json_out_object(call->out);
        write_account(call->out, &page.items[i]);
        json_out_object_end(call->out);
    }
    json_out_array_end(call->out);
    if (page.next) {
        json_out_key_int(call->out, LIT("next"), page.next);
    }
    json_out_object_end(call->out);
    return OK;
}

struct err admin_users_show(struct admin_call *call)
{
    struct account account;
    struct devices devices;
    struct media_usage usage;
    struct slice name;
    struct slice avatar;
    TRY(admin_account(call, &account));
    TRY(hs_media_usage_get(call->hs, call->ctx, account.user, &usage));
    TRY(hs_devices_list(call->hs, call->ctx, account.user, &devices));
    TRY(hs_profile_names(call->hs, call->ctx, account.user, &name, &avatar));
    json_out_object(call->out);
    write_account(call->out, &account);
    json_out_key_string(call->out, LIT("display_name"), name);
    json_out_key_bool(call->out, LIT("has_password"), account.password_hash.len > 0);
    json_out_key_string(call->out, LIT("appservice"), account.appservice);
    json_out_key_int(call->out, LIT("devices"), (int64_t)devices.count);
    json_out_key_int(call->out, LIT("files"), usage.files);
    json_out_key_int(call->out, LIT("file_bytes"), usage.bytes);
    json_out_key_int(call->out, LIT("file_bytes_max"), call->hs->conf->media_quota_per_user);
    json_out_object_end(call->out);
    return OK;
}

/* --- changing --- */

/* The password of the arguments, or a new one, which is shown. */
static struct slice password_of(struct admin_call *call, struct slice *shown_out)
{
    struct slice password = json_get_string(call->args, LIT("password"));
    *shown_out = (struct slice){0};
    if (password.len == 0) {
        password = token_random_name(call->ctx->arena, PASSWORD_LETTERS);
        *shown_out = password;
    }
    return password;
}

struct err admin_users_create(struct admin_call *call)
{
    struct slice name;
    struct slice shown;
    struct slice user_id;
    uint64_t user = 0;
    TRY(admin_text(call, LIT("user"), &name));
    struct server_name server = ids_trust_server(call->hs->server_name);
    user_id =
        name.len && name.ptr[0] == '@' ? name : ids_make_user(call->ctx->arena, name, server).s;
    struct user_id id;
    TRY(ids_parse_new_user(user_id, &id));
    if (!hs_user_is_local(call->hs, user_id)) {
        return err_public(ERR_M_INVALID_USERNAME, "Accounts are of this server only.");
    }
    struct account_draft draft = {
        .user_id = user_id,
        .password = password_of(call, &shown),
        .flags = json_get_bool(call->args, LIT("admin"), false) ? ACCOUNT_ADMIN : 0};
    TRY(hs_account_create(call->hs, call->ctx, &draft, &user));
    answer_account(call, user_id, shown);
    return OK;
}

struct err admin_users_reset_password(struct admin_call *call)
{
    struct account account;
    struct slice shown;
    TRY(admin_account(call, &account));
    if (account.flags & ACCOUNT_DEACTIVATED) {
        return err_public(ERR_M_BAD_STATE, "The account is deactivated.");
    }
    TRY(hs_account_set_password(call->hs, call->ctx, account.user, password_of(call, &shown)));
    if (!json_get_bool(call->args, LIT("keep_devices"), false)) {
        TRY(hs_devices_delete_others(call->hs, call->ctx, account.user, (struct slice){0}));
    }
    answer_account(call, account.user_id, shown);
    return OK;
}

struct err admin_users_deactivate(struct admin_call *call)
{
    struct account account;
    TRY(admin_account(call, &account));
    bool erase = json_get_bool(call->args, LIT("erase"), false);
    TRY(hs_account_deactivate(call->hs, call->ctx, account.user,
                              erase ? ACCOUNT_ERASE : ACCOUNT_KEEP_CONTENT));
    answer_account(call, account.user_id, (struct slice){0});
    return OK;
}

static struct err set_flag(struct admin_call *call, uint32_t flag, uint32_t value)
{
    struct account account;
    bool found = false;
    TRY(admin_account(call, &account));
    TRY(hs_account_set_flags(call->hs, call->ctx, account.user, flag, value));
    TRY(hs_account_get(call->hs, call->ctx, account.user, &account, &found));
    json_out_object(call->out);
    write_account(call->out, &account);
    json_out_object_end(call->out);
    return OK;
}

struct err admin_users_lock(struct admin_call *call)
{
    return set_flag(call, ACCOUNT_LOCKED, ACCOUNT_LOCKED);
}

struct err admin_users_unlock(struct admin_call *call)
{
    return set_flag(call, ACCOUNT_LOCKED, 0);
}

struct err admin_users_suspend(struct admin_call *call)
{
    return set_flag(call, ACCOUNT_SUSPENDED, ACCOUNT_SUSPENDED);
}

struct err admin_users_unsuspend(struct admin_call *call)
{
    return set_flag(call, ACCOUNT_SUSPENDED, 0);
}

struct err admin_users_make_admin(struct admin_call *call)
{
    return set_flag(call, ACCOUNT_ADMIN, ACCOUNT_ADMIN);
}

struct err admin_users_remove_admin(struct admin_call *call)
{
    return set_flag(call, ACCOUNT_ADMIN, 0);
}

/* --- devices --- */

struct err admin_devices_list(struct admin_call *call)
{
    struct account account;
    struct devices devices;
    TRY(admin_account(call, &account));
    TRY(hs_devices_list(call->hs, call->ctx, account.user, &devices));
    json_out_object(call->out);
    json_out_key_array(call->out, LIT("devices"));
    for (size_t i = 0; i < devices.count; i++) {
        const struct device *device = &devices.items[i];
        json_out_object(call->out);
        json_out_key_string(call->out, LIT("device_id"), device->device_id);
        json_out_key_string(call->out, LIT("display_name"), device->display_name);
        json_out_key_int(call->out, LIT("created_ms"), device->created_ms);
        json_out_key_int(call->out, LIT("last_seen_ms"), device->last_seen_ms);
        json_out_key_string(call->out, LIT("last_seen_ip"), device->last_seen_ip);
        json_out_object_end(call->out);
    }
    json_out_array_end(call->out);
    json_out_object_end(call->out);
    return OK;
}

struct err admin_devices_delete(struct admin_call *call)
{
    struct account account;
    struct device device;
    struct slice device_id;
    bool found = false;
    TRY(admin_account(call, &account));
    TRY(admin_text(call, LIT("device"), &device_id));
    TRY(hs_device_get(call->hs, call->ctx, account.user, device_id, &device, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "The account has no such device.");
    }
    TRY(hs_devices_delete(call->hs, call->ctx, account.user, &device_id, 1));
    json_out_object(call->out);
    json_out_key_string(call->out, LIT("device_id"), device_id);
    json_out_object_end(call->out);
    return OK;
}

/* --- registration tokens --- */

static void write_token(struct json_out *out, const struct registration_token *token)
{
    json_out_object(out);
    json_out_key_string(out, LIT("token"), token->token);
    if (token->uses_allowed >= 0) {
        json_out_key_int(out, LIT("uses_allowed"), token->uses_allowed);
    } else {
        json_out_key(out, LIT("uses_allowed"));
        json_out_null(out);
    }
    json_out_key_int(out, LIT("uses"), token->uses);
    json_out_key_int(out, LIT("expires_ms"), token->expires_ms);
    json_out_object_end(out);
}

struct err admin_tokens_list(struct admin_call *call)
{
    struct registration_tokens tokens;
    TRY(hs_registration_token_list(call->hs, call->ctx, &tokens));
    json_out_object(call->out);
    json_out_key_array(call->out, LIT("registration_tokens"));
    for (size_t i = 0; i < tokens.count; i++) {
        write_token(call->out, &tokens.items[i]);
    }
    json_out_array_end(call->out);
    json_out_object_end(call->out);
    return OK;
}

struct err admin_tokens_create(struct admin_call *call)
{
    struct registration_token token = {.token = json_get_string(call->args, LIT("token"))};
    int64_t days = 0;
    TRY(admin_int(call, LIT("uses_allowed"), 0, -1, &token.uses_allowed));
    TRY(admin_int(call, LIT("days"), 1, 0, &days));
    if (days > INT64_C(36500)) {
        return err_public(ERR_M_INVALID_PARAM, "A token lives 36500 days at most.");
    }
    token.expires_ms = days ? now_wall_ms(call->ctx->now) + days * DAY_MS : 0;
    if (!token.token.ptr) {
        token.token = token_random_name(call->ctx->arena, TOKEN_LETTERS);
    }
    TRY(hs_registration_token_put(call->hs, call->ctx, &token));
    write_token(call->out, &token);
    return OK;
}

struct err admin_tokens_delete(struct admin_call *call)
{
    struct slice token;
    bool found = false;
    TRY(admin_text(call, LIT("token"), &token));
    TRY(hs_registration_token_delete(call->hs, call->ctx, token, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "There is no such token.");
    }
    json_out_object(call->out);
    json_out_key_string(call->out, LIT("token"), token);
    json_out_object_end(call->out);
    return OK;
}
