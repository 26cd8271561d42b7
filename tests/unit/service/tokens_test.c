#include "crypto/token.h"
#include "homeserver/service/devices.h"
#include "tests/support/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct world w;
static uint64_t ann;

static int open_world(void **state)
{
    (void)state;
    world_open(&w, 0);
    ann = world_user(&w, "ann");
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    world_close(&w);
    return 0;
}

static enum token_state state_of(struct slice token)
{
    struct requester requester;
    enum token_state state = TOKEN_UNKNOWN;
    assert_int_equal(hs_token_find(&w.hs, &w.ctx, token, &requester, &state).code, 0);
    return state;
}

static struct issued_tokens sign_in(struct slice device_id, int kind)
{
    struct sign_in in = {.user = ann, .device_id = device_id, .display_name = LIT("phone")};
    struct issued_tokens tokens;
    in.kind = kind ? SIGN_IN_REFRESHABLE : SIGN_IN_PLAIN;
    assert_int_equal(hs_token_issue(&w.hs, &w.ctx, &in, &tokens).code, 0);
    return tokens;
}

static struct issued_tokens refresh(struct slice token)
{
    struct issued_tokens tokens;
    assert_int_equal(hs_token_refresh(&w.hs, &w.ctx, token, &tokens).code, 0);
    return tokens;
}

static void forget_memory(void)
{
    hs_tokens_free(&w.hs.tokens);
    w.hs.tokens = hs_tokens_new(&w.hs);
}

static void a_token_says_who_calls(void **state)
{
    struct issued_tokens tokens = sign_in((struct slice){0}, 0);
    struct requester requester;
    enum token_state token_state = TOKEN_UNKNOWN;
    (void)state;
    assert_null(tokens.refresh_token.ptr);
    assert_int_equal(tokens.expires_in_ms, 0);
    for (int i = 0; i < 3; i++) {
        if (i == 2) {
            forget_memory();
        }
        assert_int_equal(
            hs_token_find(&w.hs, &w.ctx, tokens.access_token, &requester, &token_state).code, 0);
        assert_int_equal(token_state, TOKEN_VALID);
        assert_int_equal(requester.user, ann);
        assert_true(slice_eq(requester.user_id, LIT("@ann:test")));
        assert_true(slice_eq(requester.device_id, tokens.device_id));
        assert_false(requester.is_admin || requester.is_guest || requester.is_locked);
    }
    assert_int_equal(state_of(LIT("mya_nonsense")), TOKEN_UNKNOWN);
}

static void signing_in_again_on_a_device_ends_its_old_token(void **state)
{
    struct issued_tokens first = sign_in(LIT("PHONE"), 1);
    struct issued_tokens ignored;
    (void)state;
    assert_int_equal(state_of(first.access_token), TOKEN_VALID);
    struct issued_tokens second = sign_in(LIT("PHONE"), 0);
    assert_int_equal(state_of(first.access_token), TOKEN_UNKNOWN);
    assert_int_equal(state_of(second.access_token), TOKEN_VALID);
    assert_int_equal(hs_token_refresh(&w.hs, &w.ctx, first.refresh_token, &ignored).code,
                     ERR_M_UNKNOWN_TOKEN);
    forget_memory();
    assert_int_equal(state_of(first.access_token), TOKEN_UNKNOWN);
}

static void an_expired_token_is_a_soft_logout_until_the_device_goes(void **state)
{
    struct issued_tokens tokens = sign_in(LIT("PHONE"), 1);
    struct slice phone = LIT("PHONE");
    (void)state;
    world_wait(&w, tokens.expires_in_ms - 1);
    assert_int_equal(state_of(tokens.access_token), TOKEN_VALID);
    world_wait(&w, 1);
    assert_int_equal(state_of(tokens.access_token), TOKEN_EXPIRED);
    assert_int_equal(hs_devices_delete(&w.hs, &w.ctx, ann, &phone, 1).code, 0);
    assert_int_equal(state_of(tokens.access_token), TOKEN_UNKNOWN);
}

/* Spec: client-server, "Refreshing access tokens" */
static void the_old_pair_counts_until_the_new_one_is_used(void **state)
{
    struct issued_tokens first = sign_in(LIT("PHONE"), 1);
    struct issued_tokens ignored;
    (void)state;
    struct issued_tokens lost = refresh(first.refresh_token);
    struct issued_tokens second = refresh(first.refresh_token);
    assert_int_equal(state_of(first.access_token), TOKEN_VALID);
    assert_int_equal(state_of(second.access_token), TOKEN_VALID);
    assert_int_equal(state_of(first.access_token), TOKEN_UNKNOWN);
    assert_int_equal(hs_token_refresh(&w.hs, &w.ctx, first.refresh_token, &ignored).code,
                     ERR_M_UNKNOWN_TOKEN);
    assert_int_equal(state_of(lost.access_token), TOKEN_VALID);
    struct issued_tokens third = refresh(second.refresh_token);
    struct issued_tokens fourth = refresh(third.refresh_token); /* using it ends the second */
    assert_int_equal(state_of(second.access_token), TOKEN_UNKNOWN);
    assert_int_equal(state_of(fourth.access_token), TOKEN_VALID);
    forget_memory();
    assert_int_equal(state_of(second.access_token), TOKEN_UNKNOWN);
    assert_int_equal(state_of(fourth.access_token), TOKEN_VALID);
}

static void refreshing_over_and_over_keeps_a_few_pairs(void **state)
{
    struct issued_tokens first = sign_in(LIT("PHONE"), 1);
    struct issued_tokens last = first;
    (void)state;
    for (int i = 0; i < 20; i++) {
        last = refresh(first.refresh_token);
    }
    assert_int_equal(state_of(first.access_token), TOKEN_VALID);
    assert_int_equal(state_of(last.access_token), TOKEN_VALID);
    for (int i = 0; i < 20; i++) {
        last = refresh(last.refresh_token);
    }
    assert_int_equal(state_of(last.access_token), TOKEN_VALID);
}

static uint32_t recheck(struct slice token, const char *device_id)
{
    struct requester requester = {
        .user = ann, .device_id = slice_of(device_id), .token_hash = token_hash(token)};
    return hs_token_recheck(&w.hs, &w.ctx, &requester).code;
}

static void set_locked(uint32_t flags)
{
    assert_int_equal(hs_account_set_flags(&w.hs, &w.ctx, ann, ACCOUNT_LOCKED, flags).code, 0);
}

static void who_waited_is_looked_at_again(void **state)
{
    (void)state;
    struct issued_tokens old = sign_in(LIT("PHONE"), 1);
    struct slice gone[] = {LIT("PHONE")};
    assert_int_equal(recheck(old.access_token, "PHONE"), 0);
    struct issued_tokens fresh = refresh(old.refresh_token);
    assert_int_equal(state_of(fresh.access_token), TOKEN_VALID);
    assert_int_equal(state_of(old.access_token), TOKEN_UNKNOWN);
    assert_int_equal(recheck(old.access_token, "PHONE"), 0); /* the device is still there */
    set_locked(ACCOUNT_LOCKED);
    assert_int_equal(recheck(fresh.access_token, "PHONE"), ERR_M_USER_LOCKED);
    set_locked(0);
    assert_int_equal(hs_devices_delete(&w.hs, &w.ctx, ann, gone, 1).code, 0);
    assert_int_equal(recheck(fresh.access_token, "PHONE"), ERR_M_UNKNOWN_TOKEN);
}

static void login_tokens_work_once_and_for_a_while(void **state)
{
    struct slice token;
    uint64_t user = 0;
    (void)state;
    assert_int_equal(hs_login_token_make(&w.hs, &w.ctx, ann, &token).code, 0);
    assert_true(hs_login_token_take(&w.hs, token, &user));
    assert_int_equal(user, ann);
    assert_false(hs_login_token_take(&w.hs, token, &user));
    assert_int_equal(hs_login_token_make(&w.hs, &w.ctx, ann, &token).code, 0);
    world_wait(&w, w.conf.tokens_login_life);
    assert_false(hs_login_token_take(&w.hs, token, &user));
    assert_false(hs_login_token_take(&w.hs, LIT("myl_x"), &user));
}

static void the_device_longest_unseen_makes_room(void **state)
{
    struct devices devices;
    (void)state;
    w.conf.limits_devices_per_user = 3;
    sign_in(LIT("A"), 0);
    world_wait(&w, 1000);
    struct issued_tokens b = sign_in(LIT("B"), 0);
    world_wait(&w, 1000);
    struct seen seen = {LIT("127.0.0.1"), LIT("test")};
    assert_int_equal(hs_device_seen(&w.hs, &w.ctx, ann, LIT("A"), &seen).code, 0);
    sign_in(LIT("C"), 0);
    sign_in(LIT("D"), 0);
    assert_int_equal(hs_devices_list(&w.hs, &w.ctx, ann, &devices).code, 0);
    assert_int_equal(devices.count, 3);
    assert_int_equal(state_of(b.access_token), TOKEN_UNKNOWN);
}

static void odd_device_ids_and_names_are_refused(void **state)
{
    char text[2000] = {0};
    struct issued_tokens tokens;
    struct sign_in in = {.user = ann, .device_id = {text, 256}};
    (void)state;
    assert_int_equal(hs_token_issue(&w.hs, &w.ctx, &in, &tokens).code, ERR_M_INVALID_PARAM);
    in.device_id = LIT("");
    assert_int_equal(hs_token_issue(&w.hs, &w.ctx, &in, &tokens).code, ERR_M_INVALID_PARAM);
    in.device_id = LIT("A");
    in.display_name = (struct slice){text, 1025};
    assert_int_equal(hs_token_issue(&w.hs, &w.ctx, &in, &tokens).code, ERR_M_INVALID_PARAM);
}

/* Signs in, refreshes and signs out with the k-th call of the store failing: whatever happens, no
 * token may outlive a sign-out that was answered. */
static void run_with_failure(int32_t k)
{
    struct issued_tokens tokens = {0};
    struct issued_tokens next = {0};
    struct sign_in in = {.user = 1, .device_id = LIT("A"), .kind = SIGN_IN_REFRESHABLE};
    struct account_draft draft = {.user_id = LIT("@ann:test"), .password = LIT("secret")};
    struct requester requester;
    enum token_state state = TOKEN_UNKNOWN;
    struct err err = hs_account_create(&w.hs, &w.ctx, &draft, &in.user);
    if (err.code == 0) {
        err = hs_token_issue(&w.hs, &w.ctx, &in, &tokens);
    }
    if (err.code == 0) {
        err = hs_token_refresh(&w.hs, &w.ctx, tokens.refresh_token, &next);
    }
    if (err.code == 0) {
        err = hs_token_find(&w.hs, &w.ctx, next.access_token, &requester, &state);
    }
    if (err.code == 0) {
        err = hs_devices_delete_others(&w.hs, &w.ctx, in.user, (struct slice){0});
    }
    if (err.code == 0) {
        err = hs_token_find(&w.hs, &w.ctx, next.access_token, &requester, &state);
        assert_int_equal(state, TOKEN_UNKNOWN);
    }
    assert_true(err.code == 0 || err.code == ERR_IO);
    (void)k;
}

static void a_failing_store_gives_errors_and_nothing_else(void **state)
{
    (void)state;
    for (int32_t k = 1; k < 60; k++) {
        world_open(&w, k);
        run_with_failure(k);
        world_close(&w);
    }
}

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(a_token_says_who_calls),
        WITH_WORLD(signing_in_again_on_a_device_ends_its_old_token),
        WITH_WORLD(an_expired_token_is_a_soft_logout_until_the_device_goes),
        WITH_WORLD(the_old_pair_counts_until_the_new_one_is_used),
        WITH_WORLD(refreshing_over_and_over_keeps_a_few_pairs),
        WITH_WORLD(who_waited_is_looked_at_again),
        WITH_WORLD(login_tokens_work_once_and_for_a_while),
        WITH_WORLD(the_device_longest_unseen_makes_room),
        WITH_WORLD(odd_device_ids_and_names_are_refused),
        cmocka_unit_test(a_failing_store_gives_errors_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
