/* The account endpoints over HTTP: registration, sign-in, tokens, devices, profiles, deactivation.
 */
#include "crypto/token.h"
#include "homeserver/client/routes_priv.h"
#include "homeserver/service/registration_tokens.h"
#include "tests/support/front.h"
#include "tests/support/world.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct world w;
static struct harness front;
static struct harness_reply raw;
static struct json body; /* of the last answer */

static int start(void **state)
{
    static struct http_route_table tables[9];
    (void)state;
    world_open(&w, 0);
    w.now = now_system();
    tables[0] = cs_versions_routes;
    tables[1] = cs_wellknown_routes;
    tables[2] = cs_capabilities_routes;
    tables[3] = cs_login_routes;
    tables[4] = cs_register_routes;
    tables[5] = cs_account_routes;
    tables[6] = cs_auth_pages_routes;
    tables[7] = cs_devices_routes;
    tables[8] = cs_profile_routes;
    struct http_server_config config = front_config(&w.hs, tables, COUNT_OF(tables));
    front_start(&front, &config);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    http_server_stop(front.server, 1000);
    workers_free(&w.hs.workers);
    http_server_free(&front.server);
    world_close(&w);
    return 0;
}

/* Sends one request; gives its status and leaves its JSON in `body`. */
static int call(const char *method, const char *path, struct slice token, const char *json)
{
    struct buf request;
    buf_init_arena(&request, w.ctx.arena, 1 << 18);
    buf_printf(&request, "%s %s%s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n", method,
               path[1] == '.' || path[1] == '_' ? "" : "/_matrix/client", path);
    if (token.len) {
        buf_printf(&request, "Authorization: Bearer %.*s\r\n", (int)token.len, token.ptr);
    }
    buf_printf(&request, "Content-Length: %zu\r\n\r\n%s", json ? strlen(json) : 0,
               json ? json : "");
    int fd = harness_connect(&front, 0);
    harness_write(fd, buf_slice(&request));
    assert_true(harness_read(fd, &raw));
    close(fd);
    struct slice text = arena_copy(w.ctx.arena, (struct slice){raw.body, raw.body_len});
    if (json_parse(w.ctx.arena, text, &body).code != 0) {
        body = json_object();
    }
    return raw.status;
}

static struct slice member(const char *name)
{
    return json_get_string(&body, slice_of(name));
}

static bool errcode_is(const char *errcode)
{
    if (!slice_eq(member("errcode"), slice_of(errcode))) {
        print_error("not %s: %s\n", errcode, raw.body);
        return false;
    }
    return true;
}

/* printf into the arena, as a NUL-terminated string. */
#define TEXT(...) (arena_printf(w.ctx.arena, __VA_ARGS__).ptr)

/* Registers in two requests; gives the access token. */
static struct slice register_user(const char *name, const char *more)
{
    const char *wish = TEXT("\"username\":\"%s\",\"password\":\"secret\"%s", name, more);
    assert_int_equal(call("POST", "/v3/register", LIT(""), TEXT("{%s}", wish)), 401);
    struct slice session = member("session");
    const char *auth = TEXT("{%s,\"auth\":{\"type\":\"m.login.dummy\",\"session\":\"%.*s\"}}", wish,
                            (int)session.len, session.ptr);
    assert_int_equal(call("POST", "/v3/register", LIT(""), auth), 200);
    return member("access_token");
}

/* Asks, gives the password of "ann" to the 401, and asks again. */
static int call_with_password(const char *method, const char *path, struct slice token,
                              const char *members)
{
    assert_int_equal(call(method, path, token, TEXT("{%s\"x\":0}", members)), 401);
    struct slice session = member("session");
    return call(
        method, path, token,
        TEXT("{%s\"auth\":{\"type\":\"m.login.password\",\"session\":\"%.*s\",\"identifier\":"
             "{\"type\":\"m.id.user\",\"user\":\"ann\"},\"password\":\"secret\"}}",
             members, (int)session.len, session.ptr));
}

static struct slice log_in(const char *more)
{
    assert_int_equal(call("POST", "/v3/login", LIT(""),
                          TEXT("{\"type\":\"m.login.password\",\"identifier\":{\"type\":"
                               "\"m.id.user\",\"user\":\"Ann\"},\"password\":\"secret\"%s}",
                               more)),
                     200);
    return member("access_token");
}

static void a_stranger_learns_what_there_is(void **state)
{
    (void)state;
    assert_int_equal(call("GET", "/versions", LIT(""), NULL), 200);
    assert_true(json_get_array(&body, LIT("versions"))->count > 10);
    assert_int_equal(call("GET", "/v3/login", LIT(""), NULL), 200);
    assert_int_equal(call("GET", "/v3/capabilities", LIT(""), NULL), 401);
    assert_true(errcode_is("M_MISSING_TOKEN"));
    assert_int_equal(call("GET", "/v3/account/whoami", LIT("x"), NULL), 401);
    assert_true(errcode_is("M_UNKNOWN_TOKEN"));
    assert_int_equal(call("GET", "/.well-known/matrix/client", LIT(""), NULL), 200);
    assert_true(
        slice_eq(json_get_string(json_get_object(&body, LIT("m.homeserver")), LIT("base_url")),
                 LIT("https://test")));
    assert_int_equal(call("GET", "/.well-known/matrix/server", LIT(""), NULL), 404);
}

static void registration_checks_names_first(void **state)
{
    static const struct {
        const char *name;
        const char *errcode;
    } cases[] = {{"\"a b\"", "M_INVALID_USERNAME"},
                 {"\"\"", "M_INVALID_USERNAME"},
                 {"\"\xc3\xa4\"", "M_INVALID_USERNAME"},
                 {"7", "M_BAD_JSON"},
                 {"\"ANN\"", "M_USER_IN_USE"}};
    (void)state;
    register_user("ann", "");
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *json = TEXT("{\"username\":%s,\"password\":\"x\"}", cases[i].name);
        assert_int_equal(call("POST", "/v3/register", LIT(""), json), 400);
        assert_true(errcode_is(cases[i].errcode));
    }
    assert_int_equal(call("GET", "/v3/register/available?username=ann", LIT(""), NULL), 400);
    assert_int_equal(call("GET", "/v3/register/available?username=bob", LIT(""), NULL), 200);
    assert_int_equal(call("POST", "/v3/register?kind=guest", LIT(""), "{}"), 403);
    assert_int_equal(call("POST", "/v3/register?kind=other", LIT(""), "{}"), 400);
    w.conf.registration_open = false;
    assert_int_equal(call("POST", "/v3/register", LIT(""), "{}"), 403);
    assert_true(errcode_is("M_FORBIDDEN"));
}

static void an_account_without_login_and_one_made_up(void **state)
{
    (void)state;
    assert_null(register_user("ann", ",\"inhibit_login\":true").ptr);
    assert_true(slice_eq(member("user_id"), LIT("@ann:test")));
    assert_int_equal(call("POST", "/v3/register", LIT(""), "{}"), 401);
    struct slice session = member("session");
    const char *auth = TEXT("{\"auth\":{\"type\":\"m.login.dummy\",\"session\":\"%.*s\"},"
                            "\"password\":\"x\",\"refresh_token\":true}",
                            (int)session.len, session.ptr);
    assert_int_equal(call("POST", "/v3/register", LIT(""), auth), 200);
    assert_true(slice_has_suffix(member("user_id"), LIT(":test")));
    assert_true(member("refresh_token").len > 0);
}

static void guests_may_do_little(void **state)
{
    (void)state;
    w.conf.registration_guests = true;
    assert_int_equal(call("POST", "/v3/register?kind=guest", LIT(""), "{\"username\":\"x\"}"), 200);
    struct slice token = member("access_token");
    assert_int_equal(call("GET", "/v3/account/whoami", token, NULL), 200);
    assert_true(json_get_bool(&body, LIT("is_guest"), false));
    assert_int_equal(call("POST", "/v1/login/get_token", token, "{}"), 403);
    assert_true(errcode_is("M_GUEST_ACCESS_FORBIDDEN"));
}

static void registration_tokens_are_used_up(void **state)
{
    struct registration_token row = {.token = LIT("abc"), .uses_allowed = 1};
    (void)state;
    w.conf.registration_require_token = true;
    assert_int_equal(hs_registration_token_put(&w.hs, &w.ctx, &row).code, 0);
    const char *validity = "/v1/register/m.login.registration_token/validity?token=abc";
    assert_int_equal(call("GET", validity, LIT(""), NULL), 200);
    assert_true(json_get_bool(&body, LIT("valid"), false));
    assert_int_equal(call("POST", "/v3/register", LIT(""), "{}"), 401);
    struct slice session = member("session");
    const char *json = TEXT("{\"username\":\"ann\",\"password\":\"x\",\"auth\":{\"type\":"
                            "\"m.login.registration_token\",\"token\":\"abc\",\"session\":"
                            "\"%.*s\"}}",
                            (int)session.len, session.ptr);
    assert_int_equal(call("POST", "/v3/register", LIT(""), json), 200);
    assert_int_equal(call("GET", validity, LIT(""), NULL), 200);
    assert_false(json_get_bool(&body, LIT("valid"), true));
}

static void sign_in_needs_the_right_password(void **state)
{
    static const struct {
        const char *json;
        int status;
        const char *errcode;
    } cases[] = {
        {"{}", 400, "M_MISSING_PARAM"},
        {"{\"type\":\"m.login.fingerprint\"}", 400, "M_UNKNOWN"},
        {"{\"type\":\"m.login.password\",\"user\":\"ann\"}", 400, "M_MISSING_PARAM"},
        {"{\"type\":\"m.login.password\",\"user\":\"ann\",\"password\":\"x\"}", 403, "M_FORBIDDEN"},
        {"{\"type\":\"m.login.password\",\"user\":\"nobody\",\"password\":\"x\"}", 403,
         "M_FORBIDDEN"},
        {"{\"type\":\"m.login.password\",\"user\":\"@ann:else\",\"password\":\"secret\"}", 403,
         "M_FORBIDDEN"},
        {"{\"type\":\"m.login.password\",\"identifier\":{\"type\":\"m.id.thirdparty\"},"
         "\"password\":\"x\"}",
         403, "M_FORBIDDEN"},
        {"{\"type\":\"m.login.password\",\"identifier\":{\"type\":\"m.id.odd\"},"
         "\"password\":\"x\"}",
         400, "M_UNKNOWN"},
        {"{\"type\":\"m.login.token\",\"token\":\"x\"}", 403, "M_FORBIDDEN"},
    };
    (void)state;
    register_user("ann", "");
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_int_equal(call("POST", "/v3/login", LIT(""), cases[i].json), cases[i].status);
        assert_true(errcode_is(cases[i].errcode));
    }
    struct slice token = log_in(",\"device_id\":\"A\",\"initial_device_display_name\":\"phone\"");
    assert_true(slice_eq(member("device_id"), LIT("A")));
    assert_int_equal(call("GET", "/v3/devices/A", token, NULL), 200);
    assert_true(slice_eq(member("display_name"), LIT("phone")));
    log_in(",\"device_id\":\"A\"");
    assert_int_equal(call("GET", "/v3/devices/A", token, NULL), 401);
}

static void a_login_token_signs_another_client_in_once(void **state)
{
    (void)state;
    struct slice token = register_user("ann", "");
    assert_int_equal(call_with_password("POST", "/v1/login/get_token", token, ""), 200);
    const char *json = TEXT("{\"type\":\"m.login.token\",\"token\":\"%s\"}",
                            arena_cstr(w.ctx.arena, member("login_token")));
    assert_int_equal(call("POST", "/v3/login", LIT(""), json), 200);
    assert_true(slice_eq(member("user_id"), LIT("@ann:test")));
    assert_int_equal(call("POST", "/v3/login", LIT(""), json), 403);
}

static void refreshing_and_signing_out(void **state)
{
    (void)state;
    register_user("ann", "");
    struct slice old = log_in(",\"refresh_token\":true,\"device_id\":\"A\"");
    const char *json =
        TEXT("{\"refresh_token\":\"%s\"}", arena_cstr(w.ctx.arena, member("refresh_token")));
    assert_int_equal(call("POST", "/v3/refresh", LIT(""), json), 200);
    struct slice fresh = member("access_token");
    assert_int_equal(call("GET", "/v3/account/whoami", fresh, NULL), 200);
    assert_true(slice_eq(member("device_id"), LIT("A")));
    assert_int_equal(call("GET", "/v3/account/whoami", old, NULL), 401);
    assert_int_equal(call("POST", "/v3/refresh", LIT(""), json), 401);
    assert_true(errcode_is("M_UNKNOWN_TOKEN"));
    struct slice other = log_in("");
    assert_int_equal(call("POST", "/v3/logout", fresh, NULL), 200);
    assert_int_equal(call("GET", "/v3/account/whoami", fresh, NULL), 401);
    assert_int_equal(call("GET", "/v3/devices", other, NULL), 200);
    assert_int_equal(json_get_array(&body, LIT("devices"))->count, 2);
    assert_int_equal(call("POST", "/v3/logout/all", other, NULL), 200);
    assert_int_equal(call("GET", "/v3/account/whoami", other, NULL), 401);
}

static void devices_are_renamed_and_removed(void **state)
{
    (void)state;
    struct slice token = register_user("ann", ",\"device_id\":\"A\"");
    log_in(",\"device_id\":\"B\"");
    log_in(",\"device_id\":\"C\"");
    assert_int_equal(call("PUT", "/v3/devices/B", token, "{\"display_name\":\"tv\"}"), 200);
    assert_int_equal(call("PUT", "/v3/devices/B", token, "{\"display_name\":7}"), 400);
    assert_int_equal(call("PUT", "/v3/devices/X", token, "{\"display_name\":\"tv\"}"), 404);
    assert_int_equal(call("GET", "/v3/devices/B", token, NULL), 200);
    assert_true(slice_eq(member("display_name"), LIT("tv")));
    assert_int_equal(call_with_password("DELETE", "/v3/devices/B", token, ""), 200);
    assert_int_equal(call("GET", "/v3/devices/B", token, NULL), 404);
    assert_int_equal(call("POST", "/v3/delete_devices", token, "{}"), 400);
    assert_int_equal(
        call_with_password("POST", "/v3/delete_devices", token, "\"devices\":[\"C\",\"X\"],"), 200);
    assert_int_equal(call("GET", "/v3/devices", token, NULL), 200);
    assert_int_equal(json_get_array(&body, LIT("devices"))->count, 1);
}

static void a_new_password_ends_other_sessions(void **state)
{
    (void)state;
    struct slice token = register_user("ann", "");
    struct slice other = log_in("");
    assert_int_equal(call_with_password("POST", "/v3/account/password", token,
                                        "\"new_password\":\"new\",\"logout_devices\":false,"),
                     200);
    assert_int_equal(call("GET", "/v3/account/whoami", other, NULL), 200);
    const char *old = "{\"type\":\"m.login.password\",\"user\":\"ann\",\"password\":\"secret\"}";
    assert_int_equal(call("POST", "/v3/login", LIT(""), old), 403);
}

static void the_password_may_be_changed_without_a_token(void **state)
{
    (void)state;
    struct slice token = register_user("ann", "");
    assert_int_equal(
        call_with_password("POST", "/v3/account/password", LIT(""), "\"new_password\":\"new\","),
        200);
    assert_int_equal(call("GET", "/v3/account/whoami", token, NULL), 401);
}

static void deactivation_ends_the_account(void **state)
{
    (void)state;
    struct slice token = register_user("ann", "");
    assert_int_equal(call_with_password("POST", "/v3/account/deactivate", token, ""), 200);
    assert_true(slice_eq(member("id_server_unbind_result"), LIT("success")));
    assert_int_equal(call("GET", "/v3/account/whoami", token, NULL), 401);
    const char *json = "{\"type\":\"m.login.password\",\"user\":\"ann\",\"password\":\"secret\"}";
    assert_int_equal(call("POST", "/v3/login", LIT(""), json), 403);
    assert_int_equal(call("GET", "/v3/profile/@ann:test", LIT(""), NULL), 404);
    json = "{\"username\":\"ann\",\"password\":\"x\"}";
    assert_int_equal(call("POST", "/v3/register", LIT(""), json), 400);
    assert_true(errcode_is("M_USER_IN_USE"));
}

static void profiles_are_public_and_ones_own(void **state)
{
    (void)state;
    struct slice token = register_user("ann", "");
    register_user("bob", "");
#define ANN "/v3/profile/@ann:test"
    assert_int_equal(call("GET", ANN, LIT(""), NULL), 200);
    assert_true(slice_eq(member("displayname"), LIT("ann")));
    assert_int_equal(call("PUT", ANN "/displayname", token, "{\"displayname\":\"Ann\"}"), 200);
    assert_int_equal(call("PUT", ANN "/displayname", token, "{}"), 400);
    assert_true(errcode_is("M_MISSING_PARAM"));
    assert_int_equal(call("PUT", ANN "/m.tz", token, "{\"m.tz\":\"Europe/Paris\"}"), 200);
    assert_int_equal(call("GET", ANN "/displayname", LIT(""), NULL), 200);
    assert_true(slice_eq(member("displayname"), LIT("Ann")));
    assert_int_equal(call("DELETE", ANN "/m.tz", token, NULL), 200);
    assert_int_equal(call("GET", ANN "/m.tz", LIT(""), NULL), 404);
    assert_int_equal(
        call("PUT", "/v3/profile/@bob:test/displayname", token, "{\"displayname\":\"x\"}"), 403);
    assert_int_equal(call("GET", "/v3/profile/nonsense", LIT(""), NULL), 400);
    assert_int_equal(call("GET", "/v3/profile/@nobody:test", LIT(""), NULL), 404);
}

static void locked_and_suspended_accounts_are_held(void **state)
{
    uint64_t user = 0;
    bool found = false;
    (void)state;
    struct slice token = register_user("ann", "");
    assert_int_equal(hs_user_find(&w.hs, &w.ctx, LIT("@ann:test"), &user, &found).code, 0);
    assert_int_equal(hs_account_set_flags(&w.hs, &w.ctx, user, ACCOUNT_LOCKED, ACCOUNT_LOCKED).code,
                     0);
    assert_int_equal(call("GET", "/v3/account/whoami", token, NULL), 401);
    assert_true(errcode_is("M_USER_LOCKED"));
    assert_true(json_get_bool(&body, LIT("soft_logout"), false));
    assert_int_equal(hs_account_set_flags(&w.hs, &w.ctx, user, ACCOUNT_LOCKED | ACCOUNT_SUSPENDED,
                                          ACCOUNT_SUSPENDED)
                         .code,
                     0);
    assert_int_equal(call("GET", "/v3/account/whoami", token, NULL), 200);
    assert_int_equal(call("PUT", ANN "/displayname", token, "{\"displayname\":\"x\"}"), 403);
    assert_true(errcode_is("M_USER_SUSPENDED"));
    assert_int_equal(call("POST", "/v3/logout", token, NULL), 200);
}

static const char *secret_wish(struct slice nonce, const char *admin, struct slice mac)
{
    return TEXT("{\"nonce\":\"%.*s\",\"username\":\"root\",\"password\":\"pw\",\"admin\":%s,"
                "\"mac\":\"%.*s\"}",
                (int)nonce.len, nonce.ptr, admin, (int)mac.len, mac.ptr);
}

static void a_shared_secret_makes_accounts(void **state)
{
    (void)state;
#define SECRET "/_synapse/admin/v1/register"
    assert_int_equal(call("GET", SECRET, LIT(""), NULL), 400);
    w.conf.registration_shared_secret = LIT("s3");
    assert_int_equal(call("GET", SECRET, LIT(""), NULL), 200);
    struct slice nonce = member("nonce");
    struct buf message;
    buf_init_arena(&message, w.ctx.arena, 4096);
    buf_add(&message, nonce);
    buf_add(&message, LIT("\0root\0pw\0admin"));
    struct slice mac = token_hmac_sha1_hex(w.ctx.arena, LIT("s3"), buf_slice(&message));
    assert_int_equal(call("POST", SECRET, LIT(""), secret_wish(nonce, "false", mac)), 403);
    assert_int_equal(call("POST", SECRET, LIT(""), secret_wish(LIT("1.x.y"), "true", mac)), 400);
    assert_int_equal(call("POST", SECRET, LIT(""), secret_wish(nonce, "true", mac)), 200);
    assert_true(member("access_token").len > 0);
    assert_int_equal(call("POST", SECRET, LIT(""), secret_wish(nonce, "true", mac)), 400);
    assert_true(errcode_is("M_USER_IN_USE"));
}

static void pages_stand_in_for_clients(void **state)
{
    (void)state;
    assert_int_equal(call("POST", "/v3/register", LIT(""), "{}"), 401);
    struct slice session = member("session");
    const char *page =
        TEXT("/v3/auth/m.login.dummy/fallback/web?session=%.*s", (int)session.len, session.ptr);
    assert_int_equal(call("GET", page, LIT(""), NULL), 200);
    assert_non_null(strstr(raw.head, "text/html"));
    assert_non_null(strstr(raw.body, "onAuthDone"));
    assert_int_equal(call("POST", "/v3/auth/m.login.dummy/fallback/web", LIT(""),
                          TEXT("{\"session\":\"%.*s\"}", (int)session.len, session.ptr)),
                     200);
    assert_int_equal(call("GET", page, LIT(""), NULL), 400);
    const char *json = TEXT("{\"username\":\"ann\",\"password\":\"x\",\"auth\":{\"session\":"
                            "\"%.*s\"}}",
                            (int)session.len, session.ptr);
    assert_int_equal(call("POST", "/v3/register", LIT(""), json), 200);
}

#define LIVE(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIVE(a_stranger_learns_what_there_is),
        LIVE(registration_checks_names_first),
        LIVE(an_account_without_login_and_one_made_up),
        LIVE(guests_may_do_little),
        LIVE(registration_tokens_are_used_up),
        LIVE(sign_in_needs_the_right_password),
        LIVE(a_login_token_signs_another_client_in_once),
        LIVE(refreshing_and_signing_out),
        LIVE(devices_are_renamed_and_removed),
        LIVE(a_new_password_ends_other_sessions),
        LIVE(the_password_may_be_changed_without_a_token),
        LIVE(deactivation_ends_the_account),
        LIVE(profiles_are_public_and_ones_own),
        LIVE(locked_and_suspended_accounts_are_held),
        LIVE(a_shared_secret_makes_accounts),
        LIVE(pages_stand_in_for_clients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
