/* Each write path of an account with the store failing at its k-th call. */
#include "homeserver/service/devices.h"
#include "homeserver/service/openid.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/profiles.h"
#include "homeserver/service/pushers.h"
#include "homeserver/service/registration.h"
#include "homeserver/service/registration_tokens.h"
#include "homeserver/service/reports.h"
#include "spec/errcodes.h"
#include "tests/support/failing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct house h;
static struct guest ann, bob;
static uint64_t room;
static const struct slice invitation = {"abc", 3};

static void put_invitation(void)
{
    struct registration_token token = {.token = invitation, .uses_allowed = 1};
    assert_int_equal(hs_registration_token_put(&h.hs, &h.ctx, &token).code, 0);
}

static void furnish(void)
{
    ann = house_guest(&h, "ann");
    bob = house_guest(&h, "bob");
    struct room *where = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    room = hs_room_info(where).number;
    house_member(&h, where, &bob, &bob, MEMBERSHIP_JOIN);
    put_invitation();
}

static void fail_each(struct err (*step)(void), void (*check_done)(void))
{
    failing_each_call(&(struct failing){&h, furnish, step, check_done, NULL});
}

/* --- registering --- */

static struct err register_cem(void)
{
    struct issued_tokens tokens;
    struct registration wish = {.draft = {.user_id = LIT("@cem:test"),
                                          .password = LIT("secret"),
                                          .display_name = LIT("Cem")},
                                .token = invitation,
                                .session = {.device_id = LIT("C")}};
    return hs_register(&h.hs, &h.ctx, &wish, &tokens);
}

static void cem_is_there(void)
{
    struct registration_tokens tokens;
    struct json profile;
    assert_int_equal(hs_registration_token_list(&h.hs, &h.ctx, &tokens).code, 0);
    assert_int_equal(tokens.items[0].uses, 1);
    assert_int_equal(hs_profile_get(&h.hs, &h.ctx, LIT("@cem:test"), &profile).code, 0);
    assert_true(json_is_string(json_get(&profile, LIT("displayname")), LIT("Cem")));
}

/* Account and use of the token come and go together. */
static void cem_is_there_or_not(void)
{
    struct registration_tokens tokens;
    uint64_t user = 0;
    uint32_t flags = 0;
    bool found = false;
    assert_int_equal(hs_registration_token_list(&h.hs, &h.ctx, &tokens).code, 0);
    assert_int_equal(hs_user_find(&h.hs, &h.ctx, LIT("@cem:test"), &user, &found).code, 0);
    if (found) {
        assert_int_equal(hs_account_flags(&h.hs, &h.ctx, user, &flags, &found).code, 0);
    }
    assert_int_equal(tokens.items[0].uses, found ? 1 : 0);
}

static void a_registration_fails_whole(void **state)
{
    (void)state;
    failing_each_call(
        &(struct failing){&h, furnish, register_cem, cem_is_there, cem_is_there_or_not});
}

static struct err change_token(void)
{
    struct registration_token token = {.token = LIT("def"), .uses_allowed = 7};
    bool found = false;
    bool usable = false;
    TRY(hs_registration_token_put(&h.hs, &h.ctx, &token));
    TRY(hs_registration_token_check(&h.hs, &h.ctx, token.token, &usable));
    assert_true(usable);
    return hs_registration_token_delete(&h.hs, &h.ctx, invitation, &found);
}

static void registration_tokens_change_whole(void **state)
{
    (void)state;
    fail_each(change_token, NULL);
}

/* --- signing in and out --- */

static struct slice access_token;

static struct err sign_in(void)
{
    struct sign_in sign_in = {.user = ann.actor.user, .device_id = LIT("NEW")};
    struct issued_tokens tokens;
    TRY(hs_token_issue(&h.hs, &h.ctx, &sign_in, &tokens));
    access_token = tokens.access_token;
    return OK;
}

static void token_counts(void)
{
    struct requester requester;
    enum token_state token = TOKEN_UNKNOWN;
    assert_int_equal(hs_token_find(&h.hs, &h.ctx, access_token, &requester, &token).code, 0);
    assert_int_equal(token, TOKEN_VALID);
}

static void signing_in_fails_whole(void **state)
{
    (void)state;
    fail_each(sign_in, token_counts);
}

static void furnish_full(void)
{
    furnish();
    h.conf.limits_devices_per_user = 1;
}

static void signing_in_with_one_device_too_many_fails_whole(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_full, sign_in, token_counts, NULL});
}

static struct slice refresh_token;

static void furnish_refreshable(void)
{
    furnish();
    struct sign_in sign_in = {
        .user = ann.actor.user, .device_id = LIT("NEW"), .kind = SIGN_IN_REFRESHABLE};
    struct issued_tokens tokens;
    assert_int_equal(hs_token_issue(&h.hs, &h.ctx, &sign_in, &tokens).code, 0);
    refresh_token = tokens.refresh_token;
    access_token = tokens.access_token;
}

/* The first use of the new token ends the old one. */
static struct err refresh(void)
{
    struct issued_tokens tokens;
    struct requester requester;
    enum token_state token = TOKEN_UNKNOWN;
    TRY(hs_token_refresh(&h.hs, &h.ctx, refresh_token, &tokens));
    access_token = tokens.access_token;
    refresh_token = tokens.refresh_token;
    TRY(hs_token_find(&h.hs, &h.ctx, access_token, &requester, &token));
    assert_int_equal(token, TOKEN_VALID);
    return OK;
}

static void refreshing_fails_whole(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_refreshable, refresh, token_counts, NULL});
}

static struct err change_devices(void)
{
    struct slice other = LIT("OTHER");
    struct seen seen = {LIT("::1"), LIT("agent")};
    struct devices devices;
    TRY(hs_device_create(&h.hs, &h.ctx, ann.actor.user, other, LIT("one")));
    TRY(hs_device_rename(&h.hs, &h.ctx, ann.actor.user, other, LIT("two")));
    TRY(hs_device_seen(&h.hs, &h.ctx, ann.actor.user, other, &seen));
    TRY(hs_devices_delete(&h.hs, &h.ctx, ann.actor.user, &other, 1));
    TRY(hs_device_create(&h.hs, &h.ctx, ann.actor.user, other, LIT("three")));
    TRY(hs_devices_delete_others(&h.hs, &h.ctx, ann.actor.user, ann.device_id));
    TRY(hs_devices_list(&h.hs, &h.ctx, ann.actor.user, &devices));
    assert_int_equal(devices.count, 1);
    return OK;
}

static void devices_change_whole(void **state)
{
    (void)state;
    fail_each(change_devices, NULL);
}

/* --- the account --- */

static bool password_is(struct slice password)
{
    bool right = false;
    assert_int_equal(
        hs_account_check_password(&h.hs, &h.ctx, ann.actor.user, password, &right).code, 0);
    return right;
}

static struct err change_password(void)
{
    return hs_account_set_password(&h.hs, &h.ctx, ann.actor.user, LIT("other"));
}

static void one_password_counts(void)
{
    assert_true(password_is(LIT("secret")) != password_is(LIT("other")));
}

static void a_password_changes_whole(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish, change_password, NULL, one_password_counts});
}

static struct err lock_account(void)
{
    return hs_account_set_flags(&h.hs, &h.ctx, ann.actor.user, ACCOUNT_LOCKED, ACCOUNT_LOCKED);
}

static void account_is_locked(void)
{
    uint32_t flags = 0;
    bool found = false;
    assert_int_equal(hs_account_flags(&h.hs, &h.ctx, ann.actor.user, &flags, &found).code, 0);
    assert_int_equal(flags, ACCOUNT_LOCKED);
}

static void flags_change_whole(void **state)
{
    (void)state;
    fail_each(lock_account, account_is_locked);
}

static struct err deactivate(void)
{
    return hs_account_deactivate(&h.hs, &h.ctx, bob.actor.user, ACCOUNT_ERASE);
}

static void nothing_is_left_of_bob(void)
{
    struct room *where = NULL;
    struct devices devices;
    struct store_rows notes;
    struct store_object object = {STORE_SERVER, LIT("deactivations")};
    enum membership membership = MEMBERSHIP_JOIN;
    assert_int_equal(hs_devices_list(&h.hs, &h.ctx, bob.actor.user, &devices).code, 0);
    assert_int_equal(devices.count, 0);
    assert_int_equal(hs_room_get(&h.hs, &h.ctx, room, &where).code, 0);
    assert_int_equal(hs_membership_at(&h.hs, &h.ctx, where, hs_room_head(where).root,
                                      bob.actor.user_id, &membership)
                         .code,
                     0);
    assert_int_equal(membership, MEMBERSHIP_LEAVE);
    assert_int_equal(
        store_read_range(h.hs.store, &h.ctx, object, (struct store_range){0}, &notes).code, 0);
    assert_int_equal(notes.count, 0);
    ctx_finish(&h.ctx);
}

static void a_deactivation_can_be_repeated(void **state)
{
    (void)state;
    fail_each(deactivate, nothing_is_left_of_bob);
}

/* The server is stopped after the failure: the next start finishes what was begun. */
static struct err deactivate_and_restart(void)
{
    uint32_t flags = 0;
    bool found = false;
    struct err err = deactivate();
    store_fail_after(h.hs.store, 0);
    ctx_finish(&h.ctx);
    assert_int_equal(hs_deactivations_finish(&h.hs, &h.ctx).code, 0);
    assert_int_equal(hs_account_flags(&h.hs, &h.ctx, bob.actor.user, &flags, &found).code, 0);
    if (flags & ACCOUNT_DEACTIVATED) {
        nothing_is_left_of_bob();
    }
    return err;
}

static void a_deactivation_is_finished_by_the_next_start(void **state)
{
    (void)state;
    fail_each(deactivate_and_restart, nothing_is_left_of_bob);
}

/* --- what an account has --- */

static struct err rename_ann(void)
{
    struct json name = json_string(LIT("Ann"));
    return hs_profile_set(&h.hs, &h.ctx, ann.actor.user, LIT("displayname"), &name);
}

static void ann_is_called_so_everywhere(void)
{
    struct room *where = NULL;
    struct room_member member;
    struct json profile;
    bool found = false;
    assert_int_equal(hs_profile_get(&h.hs, &h.ctx, ann.actor.user_id, &profile).code, 0);
    assert_true(json_is_string(json_get(&profile, LIT("displayname")), LIT("Ann")));
    assert_int_equal(hs_room_get(&h.hs, &h.ctx, room, &where).code, 0);
    assert_int_equal(hs_room_member(&h.hs, &h.ctx, where, ann.actor.user, &member, &found).code, 0);
    assert_true(slice_eq(member.display_name, LIT("Ann")));
    ctx_finish(&h.ctx);
}

static void a_name_reaches_all_rooms(void **state)
{
    (void)state;
    fail_each(rename_ann, ann_is_called_so_everywhere);
}

static struct err put_tag(void)
{
    return hs_account_data_put(&h.hs, &h.ctx, ann.actor.user, room, LIT("m.tag"),
                               LIT("{\"tags\":{\"m.favourite\":{}}}"));
}

static void account_data_fails_whole(void **state)
{
    (void)state;
    fail_each(put_tag, NULL);
}

static struct err add_rule(void *arg, struct ctx *ctx, struct json *stored)
{
    struct json global = json_object();
    (void)arg;
    json_set(ctx->arena, stored, LIT("global"), global);
    return OK;
}

static struct err change_rules(void)
{
    return hs_push_rules_edit(&h.hs, &h.ctx, ann.actor.user, add_rule, NULL);
}

static void push_rules_fail_whole(void **state)
{
    (void)state;
    fail_each(change_rules, NULL);
}

static struct err put_filter(void)
{
    struct slice filter_id;
    struct slice json;
    bool found = false;
    TRY(hs_filter_put(&h.hs, &h.ctx, ann.actor.user, LIT("{}"), &filter_id));
    TRY(hs_filter_get(&h.hs, &h.ctx, ann.actor.user, filter_id, &json, &found));
    assert_true(found);
    return OK;
}

static void a_filter_fails_whole(void **state)
{
    (void)state;
    fail_each(put_filter, NULL);
}

static const struct pusher pusher = {
    .app_id = {"app", 3}, .pushkey = {"key", 3}, .device_id = {"DEVICE", 6}, .json = {"{}", 2}};

static void furnish_pusher(void)
{
    furnish();
    assert_int_equal(hs_pusher_set(&h.hs, &h.ctx, bob.actor.user, &pusher, PUSHER_APPEND).code, 0);
}

static struct err take_pusher(void)
{
    return hs_pusher_set(&h.hs, &h.ctx, ann.actor.user, &pusher, PUSHER_REPLACE);
}

static size_t pushers_of(const struct guest *guest)
{
    struct pushers pushers;
    assert_int_equal(hs_pushers_list(&h.hs, &h.ctx, guest->actor.user, &pushers).code, 0);
    return pushers.count;
}

static void ann_has_the_pusher(void)
{
    assert_int_equal(pushers_of(&ann), 1);
    assert_int_equal(pushers_of(&bob), 0);
}

static void a_pusher_moves_whole(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_pusher, take_pusher, ann_has_the_pusher, NULL});
}

static struct err delete_pusher(void)
{
    return hs_pusher_delete(&h.hs, &h.ctx, bob.actor.user, pusher.app_id, pusher.pushkey);
}

static void a_pusher_goes_whole(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_pusher, delete_pusher, NULL, NULL});
}

static struct err sign_bob_out(void)
{
    return hs_devices_delete(&h.hs, &h.ctx, bob.actor.user, &bob.device_id, 1);
}

static void bob_has_no_pusher(void)
{
    assert_int_equal(pushers_of(&bob), 0);
}

static void a_device_goes_with_its_pushers(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_pusher, sign_bob_out, bob_has_no_pusher, NULL});
}

/* --- what goes to others --- */

static struct err report(void)
{
    struct report wanted = {.reporter = ann.actor.user_id, .user_id = bob.actor.user_id};
    return hs_report_add(&h.hs, &h.ctx, &wanted);
}

static void one_report_is_there(void)
{
    struct reports reports;
    assert_int_equal(hs_reports_list(&h.hs, &h.ctx, 0, 10, &reports).code, 0);
    assert_int_equal(reports.count, 1);
}

static void a_report_is_kept_once(void **state)
{
    (void)state;
    fail_each(report, one_report_is_there);
}

static struct err vouch(void)
{
    struct slice token;
    struct slice user_id;
    bool found = false;
    TRY(hs_openid_issue(&h.hs, &h.ctx, ann.actor.user, &token));
    TRY(hs_openid_find(&h.hs, &h.ctx, token, &user_id, &found));
    assert_true(found);
    return OK;
}

static void an_openid_token_fails_whole(void **state)
{
    (void)state;
    fail_each(vouch, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_registration_fails_whole),
        cmocka_unit_test(registration_tokens_change_whole),
        cmocka_unit_test(signing_in_fails_whole),
        cmocka_unit_test(signing_in_with_one_device_too_many_fails_whole),
        cmocka_unit_test(refreshing_fails_whole),
        cmocka_unit_test(devices_change_whole),
        cmocka_unit_test(a_password_changes_whole),
        cmocka_unit_test(flags_change_whole),
        cmocka_unit_test(a_deactivation_can_be_repeated),
        cmocka_unit_test(a_deactivation_is_finished_by_the_next_start),
        cmocka_unit_test(a_name_reaches_all_rooms),
        cmocka_unit_test(account_data_fails_whole),
        cmocka_unit_test(push_rules_fail_whole),
        cmocka_unit_test(a_filter_fails_whole),
        cmocka_unit_test(a_pusher_moves_whole),
        cmocka_unit_test(a_pusher_goes_whole),
        cmocka_unit_test(a_device_goes_with_its_pushers),
        cmocka_unit_test(a_report_is_kept_once),
        cmocka_unit_test(an_openid_token_fails_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
