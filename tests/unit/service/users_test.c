#include "homeserver/service/devices.h"
#include "homeserver/service/profiles.h"
#include "tests/support/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct world w;

static int open_world(void **state)
{
    (void)state;
    world_open(&w, 0);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    world_close(&w);
    return 0;
}

static bool password_is(uint64_t user, struct slice password)
{
    bool right = false;
    assert_int_equal(hs_account_check_password(&w.hs, &w.ctx, user, password, &right).code, 0);
    return right;
}

static void every_id_has_one_number_and_back(void **state)
{
    uint64_t a = 0;
    uint64_t b = 0;
    uint64_t again = 0;
    bool found = true;
    struct slice user_id;
    (void)state;
    assert_int_equal(hs_user_find(&w.hs, &w.ctx, LIT("@a:remote"), &a, &found).code, 0);
    assert_false(found);
    assert_int_equal(hs_user_intern(&w.hs, &w.ctx, LIT("@a:remote"), &a).code, 0);
    assert_int_equal(hs_user_intern(&w.hs, &w.ctx, LIT("@b:test"), &b).code, 0);
    assert_int_equal(hs_user_intern(&w.hs, &w.ctx, LIT("@a:remote"), &again).code, 0);
    assert_true(a != 0 && a != b && a == again);
    hs_users_free(&w.hs.users); /* what follows comes from the store */
    w.hs.users = hs_users_new(&w.hs);
    assert_int_equal(hs_user_id_of(&w.hs, &w.ctx, b, &user_id).code, 0);
    assert_true(slice_eq(user_id, LIT("@b:test")));
    assert_int_equal(hs_user_intern(&w.hs, &w.ctx, LIT("@c:test"), &again).code, 0);
    assert_true(again > a && again > b);
    assert_int_equal(hs_user_id_of(&w.hs, &w.ctx, 999, &user_id).code, ERR_CORRUPT);
}

static void an_account_is_made_once(void **state)
{
    uint64_t user = world_user(&w, "ann");
    uint64_t other = 0;
    struct account_draft draft = {.user_id = LIT("@ann:test"), .password = LIT("x")};
    struct account account;
    bool found = false;
    (void)state;
    assert_int_equal(hs_account_create(&w.hs, &w.ctx, &draft, &other).code, ERR_M_USER_IN_USE);
    assert_int_equal(hs_account_get(&w.hs, &w.ctx, user, &account, &found).code, 0);
    assert_true(found);
    assert_true(slice_eq(account.user_id, LIT("@ann:test")));
    assert_int_equal(account.created_ms, w.wall_ms);
    assert_true(password_is(user, LIT("secret")));
    assert_false(password_is(user, LIT("x")));
    assert_false(password_is(0, LIT("secret")));
}

static void flags_change_and_are_remembered(void **state)
{
    uint64_t user = world_user(&w, "ann");
    uint32_t flags = 99;
    bool found = false;
    (void)state;
    assert_int_equal(hs_account_flags(&w.hs, &w.ctx, user, &flags, &found).code, 0);
    assert_int_equal(flags, 0);
    assert_int_equal(
        hs_account_set_flags(&w.hs, &w.ctx, user, ACCOUNT_LOCKED | ACCOUNT_ADMIN, ACCOUNT_LOCKED)
            .code,
        0);
    assert_int_equal(hs_account_flags(&w.hs, &w.ctx, user, &flags, &found).code, 0);
    assert_int_equal(flags, ACCOUNT_LOCKED);
    assert_int_equal(hs_account_flags(&w.hs, &w.ctx, user + 1, &flags, &found).code, 0);
    assert_false(found);
    assert_int_equal(hs_account_set_flags(&w.hs, &w.ctx, 77, 1, 1).code, ERR_M_NOT_FOUND);
}

static void the_settings_name_administrators(void **state)
{
    struct slice names[] = {LIT("ann"), LIT("@bob:test")};
    uint64_t users[] = {world_user(&w, "ann"), world_user(&w, "bob"), world_user(&w, "cid")};
    (void)state;
    w.conf.admins = (struct conf_texts){names, 2};
    for (size_t i = 0; i < COUNT_OF(users); i++) {
        uint32_t flags = 0;
        bool found = false;
        assert_int_equal(hs_account_flags(&w.hs, &w.ctx, users[i], &flags, &found).code, 0);
        assert_int_equal(flags, i < 2 ? ACCOUNT_ADMIN : 0);
    }
}

static void names_at_sign_in_are_folded(void **state)
{
    struct slice user_id;
    static const char *const good[] = {"ann", "Ann", "@ANN:test", "@ann:test"};
    static const char *const bad[] = {"@ann:elsewhere", "@ann", "a:b:c\001", ""};
    (void)state;
    world_user(&w, "ann");
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        assert_int_equal(hs_user_resolve_login(&w.hs, &w.ctx, slice_of(good[i]), &user_id).code, 0);
        assert_true(slice_eq(user_id, LIT("@ann:test")));
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct err err = hs_user_resolve_login(&w.hs, &w.ctx, slice_of(bad[i]), &user_id);
        assert_true(err.code == ERR_M_INVALID_USERNAME || slice_eq(user_id, LIT("@:test")));
    }
}

static int left_rooms;
static struct err leave_rooms(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice user_id)
{
    (void)hs;
    (void)ctx;
    (void)user;
    left_rooms += slice_eq(user_id, LIT("@ann:test"));
    return OK;
}

static void deactivation_takes_everything(void **state)
{
    uint64_t user = world_user(&w, "ann");
    struct sign_in sign_in = {.user = user};
    struct issued_tokens tokens;
    struct requester requester;
    enum token_state token_state = TOKEN_VALID;
    struct devices devices;
    struct json profile;
    struct json name = json_string(LIT("Ann"));
    (void)state;
    hs_on_deactivated(&w.hs, leave_rooms);
    assert_int_equal(hs_token_issue(&w.hs, &w.ctx, &sign_in, &tokens).code, 0);
    assert_int_equal(hs_profile_set(&w.hs, &w.ctx, user, LIT("displayname"), &name).code, 0);
    assert_int_equal(hs_account_deactivate(&w.hs, &w.ctx, user, ACCOUNT_ERASE).code, 0);
    assert_int_equal(left_rooms, 1);
    assert_false(password_is(user, LIT("secret")));
    assert_false(password_is(user, LIT("")));
    assert_int_equal(
        hs_token_find(&w.hs, &w.ctx, tokens.access_token, &requester, &token_state).code, 0);
    assert_int_equal(token_state, TOKEN_UNKNOWN);
    assert_int_equal(hs_devices_list(&w.hs, &w.ctx, user, &devices).code, 0);
    assert_int_equal(devices.count, 0);
    assert_int_equal(hs_profile_get(&w.hs, &w.ctx, LIT("@ann:test"), &profile).code,
                     ERR_M_NOT_FOUND);
}

static void a_costlier_setting_renews_the_hash(void **state)
{
    uint64_t user = world_user(&w, "ann");
    struct account before;
    struct account after;
    bool found = false;
    (void)state;
    assert_int_equal(hs_account_get(&w.hs, &w.ctx, user, &before, &found).code, 0);
    hs_users_free(&w.hs.users);
    w.conf.password_hash_cost = CONF_PASSWORD_COST_INTERACTIVE;
    w.hs.users = hs_users_new(&w.hs);
    assert_true(password_is(user, LIT("secret")));
    assert_int_equal(hs_account_get(&w.hs, &w.ctx, user, &after, &found).code, 0);
    assert_false(slice_eq(before.password_hash, after.password_hash));
    assert_true(password_is(user, LIT("secret")));
}

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(every_id_has_one_number_and_back),
        WITH_WORLD(an_account_is_made_once),
        WITH_WORLD(flags_change_and_are_remembered),
        WITH_WORLD(the_settings_name_administrators),
        WITH_WORLD(names_at_sign_in_are_folded),
        WITH_WORLD(deactivation_takes_everything),
        WITH_WORLD(a_costlier_setting_renews_the_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
