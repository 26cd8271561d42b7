/* Spec: client-server, "Account registration", "Token-authenticated registration". */
#include "crypto/token.h"
#include "homeserver/client/account_priv.h"
#include "homeserver/service/appservices.h"
#include "homeserver/service/registration.h"
#include "homeserver/service/registration_tokens.h"

enum { MADE_UP_NAME_LETTERS = 12 };

/* The user id that a user name makes, folded to lower case; refused when the name is not valid. */
static struct err read_username(struct hs *hs, struct ctx *ctx, struct slice username,
                                struct slice *user_id_out)
{
    char *folded = arena_cstr(ctx->arena, username);
    for (size_t i = 0; i < username.len; i++) {
        folded[i] = (char)(folded[i] >= 'A' && folded[i] <= 'Z' ? folded[i] + 32 : folded[i]);
    }
    struct slice localpart = {folded, username.len};
    if (!ids_is_new_localpart(localpart)) {
        return err_public(ERR_M_INVALID_USERNAME,
                          "User names are made of a-z, 0-9 and the characters . _ = - / +");
    }
    *user_id_out = ids_make_user(ctx->arena, localpart, ids_trust_server(hs->server_name)).s;
    if (user_id_out->len > STORE_ID_BYTES_MAX) {
        return err_public(ERR_M_INVALID_USERNAME, "The user name is too long.");
    }
    if (hs->conf->server_notices_enabled && slice_eq(localpart, hs->conf->server_notices_user)) {
        return err_public(ERR_M_EXCLUSIVE, "This user name is reserved for the server.");
    }
    return OK;
}

static struct err check_free(struct hs *hs, struct ctx *ctx, struct slice user_id)
{
    uint64_t user = 0;
    uint32_t flags = 0;
    bool found = false;
    TRY(hs_user_find(hs, ctx, user_id, &user, &found));
    if (found) {
        TRY(hs_account_flags(hs, ctx, user, &flags, &found));
    }
    return found ? err_make(ERR_M_USER_IN_USE, "the account exists") : OK;
}

/* Free at this moment, and not an application service's. */
static struct err check_available(struct hs *hs, struct ctx *ctx, struct slice user_id)
{
    TRY(hs_appservice_check_user(hs, (struct slice){0}, user_id));
    return check_free(hs, ctx, user_id);
}

/* The user id of `username`, or a new one when there is none; free at this moment. */
static struct err choose_user_id(struct hs *hs, struct ctx *ctx, struct slice username,
                                 struct slice *user_id_out)
{
    if (!username.ptr) {
        username = token_random_name(ctx->arena, MADE_UP_NAME_LETTERS);
    }
    TRY(read_username(hs, ctx, username, user_id_out));
    return check_available(hs, ctx, *user_id_out);
}

/* Registers and replies. An account without a display name is called by its localpart. */
static struct err finish(struct hs *hs, struct ctx *ctx, struct http_reply *reply,
                         struct registration *wish)
{
    struct issued_tokens tokens;
    struct slice user_id = wish->draft.user_id;
    if (!wish->draft.display_name.len) {
        wish->draft.display_name = ids_user_localpart(ids_trust_user(user_id));
    }
    TRY(hs_register(hs, ctx, wish, &tokens));
    struct cs_signed_in in = {user_id, wish->kind == REGISTRATION_ALONE ? NULL : &tokens};
    cs_reply_signed_in(hs, reply, &in);
    return OK;
}

/* Spec: client-server, "Guest Access": only the device name counts, the rest is ignored. */
static struct err register_guest(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                                 struct http_reply *reply)
{
    struct registration wish = {.draft = {.flags = ACCOUNT_GUEST}};
    if (!hs->conf->registration_guests) {
        return err_public(ERR_M_FORBIDDEN, "Guests are not allowed on this server.");
    }
    TRY(cs_body_string(request, LIT("initial_device_display_name"), &wish.session.display_name));
    TRY(choose_user_id(hs, ctx, (struct slice){0}, &wish.draft.user_id));
    return finish(hs, ctx, reply, &wish);
}

static struct uia_flow registration_flow(const struct conf *conf)
{
    struct uia_flow flow = {0};
    if (conf->registration_require_token) {
        flow.stages[flow.count++] = UIA_REGISTRATION_TOKEN;
    }
    if (conf->registration_terms.len > 0) {
        flow.stages[flow.count++] = UIA_TERMS;
    }
    if (flow.count == 0) {
        flow.stages[flow.count++] = UIA_DUMMY;
    }
    return flow;
}

static struct err read_session(const struct http_request *request, struct registration *wish)
{
    bool inhibit_login = false;
    TRY(cs_body_bool(request, LIT("inhibit_login"), false, &inhibit_login));
    wish->kind = inhibit_login ? REGISTRATION_ALONE : REGISTRATION_WITH_SESSION;
    return cs_read_sign_in(request, &wish->session);
}

/* Spec: client-server, "Guest Access": a guest upgrades with its token and its own name. */
static struct err read_guest(struct hs *hs, struct ctx *ctx, struct slice token,
                             struct slice username, struct registration *wish)
{
    struct requester guest;
    enum token_state state = TOKEN_UNKNOWN;
    TRY(hs_token_find(hs, ctx, token, &guest, &state));
    if (state != TOKEN_VALID || !guest.is_guest) {
        return err_public(ERR_M_INVALID_PARAM, "`guest_access_token` is no token of a guest.");
    }
    if (!slice_eq(username, ids_user_localpart(ids_trust_user(guest.user_id)))) {
        return err_public(ERR_M_INVALID_USERNAME,
                          "`username` must be the guest's own name, which it keeps.");
    }
    wish->guest = guest.user;
    wish->draft.user_id = guest.user_id;
    return OK;
}

/* What a registration asks for, checked before anybody has to prove anything. */
static struct err read_wish(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                            struct registration *wish_out)
{
    struct slice username;
    struct slice guest_token;
    *wish_out = (struct registration){0};
    TRY(cs_body_string(request, LIT("username"), &username));
    TRY(cs_body_string(request, LIT("guest_access_token"), &guest_token));
    TRY(cs_body_string(request, LIT("password"), &wish_out->draft.password));
    TRY(read_session(request, wish_out));
    if (wish_out->draft.password.ptr) {
        TRY(cs_check_new_password(hs, wish_out->draft.password));
    }
    return guest_token.ptr ? read_guest(hs, ctx, guest_token, username, wish_out)
                           : choose_user_id(hs, ctx, username, &wish_out->draft.user_id);
}

static struct err register_user(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct registration wish;
    struct uia_result result;
    struct uia_check check = {.request = request, .flow = registration_flow(hs->conf)};
    if (!hs->conf->registration_open) {
        return err_public(ERR_M_FORBIDDEN, "Registration is closed on this server.");
    }
    /* Spec: client-server, "User-Interactive Authentication API": who retries a completed stage
     * gets the result of the call. */
    if (hs_uia_answer_again(hs, ctx, request, reply)) {
        return OK;
    }
    TRY(read_wish(hs, ctx, request, &wish));
    TRY(hs_uia_check(hs, ctx, &check, reply, &result));
    if (!result.complete) {
        return OK;
    }
    if (!wish.draft.password.ptr) {
        return err_public(ERR_M_MISSING_PARAM, "password is missing.");
    }
    wish.token = result.registration_token;
    TRY(finish(hs, ctx, reply, &wish));
    hs_uia_keep_answer(hs, ctx, request, reply);
    return OK;
}

/* Spec: application-service, "Server admin style permissions": a user without a password. The name
 * is taken as it is, for the service will call the user by it. */
static struct err register_for_service(struct hs *hs, struct ctx *ctx,
                                       const struct http_request *request, struct http_reply *reply)
{
    const struct appservice *service = NULL;
    struct slice username;
    struct registration wish = {0};
    TRY(hs_authenticate_appservice(hs, request, &service));
    TRY(cs_body_required(request, LIT("username"), &username));
    TRY(read_session(request, &wish));
    TRY(read_username(hs, ctx, username, &wish.draft.user_id));
    if (!slice_eq(ids_user_localpart(ids_trust_user(wish.draft.user_id)), username)) {
        return err_public(ERR_M_INVALID_USERNAME, "User names have no upper-case letters.");
    }
    TRY(hs_appservice_check_user(hs, service->id, wish.draft.user_id));
    TRY(check_free(hs, ctx, wish.draft.user_id));
    wish.draft.appservice = service->id;
    return finish(hs, ctx, reply, &wish);
}

static struct err register_account(void *app, struct ctx *ctx, const struct http_request *request,
                                   struct http_reply *reply)
{
    struct slice kind = http_query_get(ctx, request, LIT("kind"));
    if (slice_eq(kind, LIT("guest"))) {
        return register_guest(app, ctx, request, reply);
    }
    if (kind.ptr && !slice_eq(kind, LIT("user"))) {
        return err_public(ERR_M_INVALID_PARAM, "kind is either user or guest.");
    }
    if (json_is_string(json_get(&request->json, LIT("type")), LIT("m.login.application_service"))) {
        return register_for_service(app, ctx, request, reply);
    }
    return register_user(app, ctx, request, reply);
}

static struct err get_available(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct hs *hs = app;
    struct slice user_id;
    struct slice username = http_query_get(ctx, request, LIT("username"));
    if (!hs->conf->registration_open) {
        return err_public(ERR_M_FORBIDDEN, "Registration is closed on this server.");
    }
    if (!username.ptr) {
        return err_public(ERR_M_MISSING_PARAM, "username is missing.");
    }
    TRY(choose_user_id(hs, ctx, username, &user_id));
    buf_add(&reply->body, LIT("{\"available\":true}"));
    return OK;
}

static struct err get_validity(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct hs *hs = app;
    bool valid = false;
    struct slice token = http_query_get(ctx, request, LIT("token"));
    if (!hs->conf->registration_open) {
        return err_public(ERR_M_FORBIDDEN, "Registration is closed on this server.");
    }
    if (!token.ptr) {
        return err_public(ERR_M_MISSING_PARAM, "token is missing.");
    }
    TRY(hs_registration_token_check(hs, ctx, token, &valid));
    buf_add(&reply->body, valid ? LIT("{\"valid\":true}") : LIT("{\"valid\":false}"));
    return OK;
}

/* --- with a shared secret, as tools for Synapse do it --- */

enum { NONCE_LIFE_MS = 60000, NONCE_LETTERS = 16 };

/* A nonce vouches for itself: "<time>.<random>.<HMAC of both>". Using one twice gains nothing, as
 * the account exists after the first time. */
static struct slice seal_nonce(struct hs *hs, struct ctx *ctx, struct slice plain)
{
    struct slice mac = token_hmac_sha1_hex(ctx->arena, hs->conf->registration_shared_secret, plain);
    return arena_printf(ctx->arena, "%.*s.%.*s", (int)plain.len, plain.ptr, (int)mac.len, mac.ptr);
}

static bool nonce_is_fresh(struct hs *hs, struct ctx *ctx, struct slice nonce)
{
    struct slice time_text;
    int64_t made_ms = 0;
    struct slice plain = slice_sub(nonce, 0, slice_find_last(nonce, '.'));
    slice_cut(plain, '.', &time_text);
    int64_t age_ms = 0;
    if (!slice_parse_i64(time_text, &made_ms) ||
        __builtin_sub_overflow(now_wall_ms(ctx->now), made_ms, &age_ms)) {
        return false;
    }
    return age_ms >= 0 && age_ms < NONCE_LIFE_MS && token_eq(nonce, seal_nonce(hs, ctx, plain));
}

static struct err check_secret(struct hs *hs)
{
    return hs->conf->registration_shared_secret.len > 0
               ? OK
               : err_public(ERR_M_UNKNOWN_400, "Registration by shared secret is off.");
}

static struct err get_nonce(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    (void)request;
    TRY(check_secret(app));
    struct slice random = token_random_name(ctx->arena, NONCE_LETTERS);
    struct slice plain = arena_printf(ctx->arena, "%lld.%.*s", (long long)now_wall_ms(ctx->now),
                                      (int)random.len, random.ptr);
    struct json_out out = json_out_to(&reply->body);
    json_out_object(&out);
    json_out_key_string(&out, LIT("nonce"), seal_nonce(app, ctx, plain));
    json_out_object_end(&out);
    return OK;
}

struct secret_wish {
    struct slice nonce, username, password, mac, user_type, displayname;
    bool admin;
};

static bool mac_is_right(struct hs *hs, struct ctx *ctx, const struct secret_wish *wish)
{
    struct buf message;
    buf_init_arena(&message, ctx->arena, CS_ACCOUNT_BODY_BYTES_MAX);
    buf_add(&message, wish->nonce);
    buf_add_byte(&message, 0);
    buf_add(&message, wish->username);
    buf_add_byte(&message, 0);
    buf_add(&message, wish->password);
    buf_add_byte(&message, 0);
    buf_add(&message, wish->admin ? LIT("admin") : LIT("notadmin"));
    if (wish->user_type.ptr) {
        buf_add_byte(&message, 0);
        buf_add(&message, wish->user_type);
    }
    struct slice mac =
        token_hmac_sha1_hex(ctx->arena, hs->conf->registration_shared_secret, buf_slice(&message));
    return !message.overflow && token_eq(mac, wish->mac);
}

static struct err read_secret_wish(const struct http_request *request, struct secret_wish *wish)
{
    TRY(cs_body_required(request, LIT("nonce"), &wish->nonce));
    TRY(cs_body_required(request, LIT("username"), &wish->username));
    TRY(cs_body_required(request, LIT("password"), &wish->password));
    TRY(cs_body_required(request, LIT("mac"), &wish->mac));
    TRY(cs_body_string(request, LIT("user_type"), &wish->user_type));
    TRY(cs_body_string(request, LIT("displayname"), &wish->displayname));
    return cs_body_bool(request, LIT("admin"), false, &wish->admin);
}

static struct err register_by_secret(void *app, struct ctx *ctx, const struct http_request *request,
                                     struct http_reply *reply)
{
    struct hs *hs = app;
    struct secret_wish asked;
    struct registration wish = {0};
    TRY(check_secret(hs));
    TRY(read_secret_wish(request, &asked));
    if (!nonce_is_fresh(hs, ctx, asked.nonce)) {
        return err_public(ERR_M_UNKNOWN_400, "The nonce is not known; ask for a new one.");
    }
    if (!mac_is_right(hs, ctx, &asked)) {
        return err_public(ERR_M_FORBIDDEN, "The MAC is wrong.");
    }
    TRY(cs_check_new_password(hs, asked.password));
    TRY(choose_user_id(hs, ctx, asked.username, &wish.draft.user_id));
    TRY(read_session(request, &wish));
    wish.draft.password = asked.password;
    wish.draft.display_name = asked.displayname;
    wish.draft.flags = asked.admin ? ACCOUNT_ADMIN : 0;
    return finish(hs, ctx, reply, &wish);
}

#define SECRET "/_synapse/admin/v1/register"
static const struct http_route routes[] = {
    {HTTP_POST, "/_matrix/client/v3/register", HTTP_AUTH_NONE, HTTP_RATE_REGISTER,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, CS_ACCOUNT_BODY_BYTES_MAX, register_account,
     "Account registration", NULL, 0},
    {HTTP_GET, "/_matrix/client/v3/register/available", HTTP_AUTH_NONE, HTTP_RATE_REGISTER,
     HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_available, "Account registration", NULL, 0},
    {HTTP_GET, "/_matrix/client/v1/register/m.login.registration_token/validity", HTTP_AUTH_NONE,
     HTTP_RATE_REGISTER, HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_validity,
     "Token-authenticated registration", NULL, 0},
    {HTTP_GET, SECRET, HTTP_AUTH_NONE, HTTP_RATE_REGISTER, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     get_nonce, "Account registration", NULL, 0},
    {HTTP_POST, SECRET, HTTP_AUTH_NONE, HTTP_RATE_REGISTER, HTTP_BODY_JSON, HTTP_LANE_NONE,
     CS_ACCOUNT_BODY_BYTES_MAX, register_by_secret, "Account registration", NULL, 0},
};
const struct http_route_table cs_register_routes = {routes, COUNT_OF(routes)};
