/* Whose names are whose. */
#include "homeserver/service/appservices.h"

#include "homeserver/service/requester.h"
#include "homeserver/service/users.h"
#include "tests/support/bridge_fixture.h"

static int open_all(void **state)
{
    (void)state;
    open_bridge("");
    return 0;
}

static uint32_t user(const char *by, const char *user_id)
{
    return hs_appservice_check_user(&h.hs, slice_of(by), slice_of(user_id)).code;
}

static uint32_t alias(const char *by, const char *name)
{
    return hs_appservice_check_alias(&h.hs, slice_of(by), slice_of(name)).code;
}

static void exclusive_names_are_for_their_service(void **state)
{
    (void)state;
    assert_int_equal(user("", "@ann:test"), 0);
    assert_int_equal(user("", "@fax_one:test"), ERR_M_EXCLUSIVE);
    assert_int_equal(user("", "@fax_bot:test"), ERR_M_EXCLUSIVE);
    assert_int_equal(user("", "@fax_one:away"), 0);
    assert_int_equal(user("fax", "@fax_one:test"), 0);
    assert_int_equal(user("fax", "@fax_bot:test"), 0);
    assert_int_equal(user("fax", "@ann:test"), ERR_M_EXCLUSIVE);
    assert_int_equal(user("fax", "@fax_one:away"), ERR_M_EXCLUSIVE);
    assert_int_equal(alias("", "#hall:test"), 0);
    assert_int_equal(alias("", "#fax_hall:test"), ERR_M_EXCLUSIVE);
    assert_int_equal(alias("fax", "#fax_hall:test"), 0);
    assert_int_equal(alias("fax", "#hall:test"), ERR_M_EXCLUSIVE);
}

static void a_service_is_found_by_its_token_and_id(void **state)
{
    (void)state;
    const struct appservice *service = hs_appservice_by_token(&h.hs, LIT("secret"));
    assert_non_null(service);
    assert_ptr_equal(service, hs_appservice_by_id(&h.hs, LIT("fax")));
    assert_null(hs_appservice_by_token(&h.hs, LIT("other")));
    assert_null(hs_appservice_by_token(&h.hs, LIT("")));
    assert_null(hs_appservice_by_id(&h.hs, LIT("")));
    assert_true(hs_appservice_owns_user(&h.hs, service, LIT("@fax_one:test")));
    assert_false(hs_appservice_owns_user(&h.hs, service, LIT("@ann:test")));
}

/* The result of authenticating a request with the service's token and this query. */
static uint32_t authenticate(const char *query, struct requester *requester_out)
{
    static const struct http_route route = {.auth = HTTP_AUTH_USER, .path = "/test"};
    struct http_request request = {
        .route = &route, .token = LIT("secret"), .query = slice_of(query)};
    struct http_reply reply = {0};
    buf_init_arena(&reply.body, h.ctx.arena, 4096);
    struct err err = hs_authenticate(&h.hs, &h.ctx, &request, &reply);
    *requester_out = request.requester ? *request.requester : (struct requester){0};
    return err.code;
}

static void a_service_acts_as_the_users_it_has(void **state)
{
    (void)state;
    struct requester who;
    house_guest(&h, "ann");
    struct guest ghost = bridge_ghost(&fax, "fax_one");
    assert_int_equal(authenticate("", &who), 0);
    assert_true(slice_eq(who.user_id, LIT("@fax_bot:test")) && who.is_unlimited);
    assert_int_equal(authenticate("user_id=%40fax_one%3Atest", &who), 0);
    assert_int_equal(who.user, ghost.actor.user);
    assert_true(who.is_appservice && !who.is_unlimited && !who.device_id.ptr);
    assert_int_equal(authenticate("user_id=@ann:test", &who), ERR_M_FORBIDDEN);
    assert_int_equal(authenticate("user_id=@fax_none:test", &who), ERR_M_FORBIDDEN);
    assert_int_equal(authenticate("user_id=@fax_one:away", &who), ERR_M_FORBIDDEN);
    assert_int_equal(authenticate("device_id=PHONE", &who), ERR_M_UNKNOWN_DEVICE);
    assert_int_equal(
        hs_account_set_flags(&h.hs, &h.ctx, ghost.actor.user, ACCOUNT_LOCKED, ACCOUNT_LOCKED).code,
        0);
    assert_int_equal(authenticate("user_id=@fax_one:test", &who), ERR_M_USER_LOCKED);
}

static void a_question_waits_for_a_thread_that_may(void **state)
{
    (void)state;
    uint64_t number = 0;
    bool found = true;
    assert_int_equal(
        hs_appservices_find_user(&h.hs, &h.ctx, LIT("@fax_new:test"), &number, &found).code,
        ERR_WAITS);
    assert_int_equal(
        hs_appservices_find_user(&h.hs, &h.ctx, LIT("@stranger:test"), &number, &found).code, 0);
    assert_false(found);
    h.ctx.may_wait = true;
    fax.status = 404;
    int calls = fax.calls;
    assert_int_equal(
        hs_appservices_find_user(&h.hs, &h.ctx, LIT("@fax_new:test"), &number, &found).code, 0);
    assert_false(found);
    assert_int_equal(fax.calls, calls + 2); /* the old path, too */
    assert_true(slice_contains(fax.last_url, LIT("/users/%40fax_new%3Atest")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_all, close_all)
        TEST(exclusive_names_are_for_their_service),
        TEST(a_service_is_found_by_its_token_and_id),
        TEST(a_service_acts_as_the_users_it_has),
        TEST(a_question_waits_for_a_thread_that_may),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
