/* Names that only an application service knows, and one that does not answer.
 * Spec: application-service, "Querying". */
#include "homeserver/service/directory.h"
#include "tests/support/bridge_fixture.h"

static int open_all(void **state)
{
    (void)state;
    open_bridge("");
    h.ctx.may_wait = true;
    fax.calls = 0;
    return 0;
}

static uint32_t ask_alias(const char *alias, bool *made_out)
{
    return hs_appservices_ask_alias(&h.hs, &h.ctx, slice_of(alias), made_out).code;
}

static uint32_t ask_user(const char *user_id)
{
    uint64_t user = 0;
    bool found = false;
    return hs_appservices_find_user(&h.hs, &h.ctx, slice_of(user_id), &user, &found).code;
}

static void a_service_that_answers_is_asked_once(void **state)
{
    bool made = false;
    (void)state;
    assert_int_equal(ask_alias("#fax_lobby:test", &made), 0);
    assert_true(made);
    assert_int_equal(fax.calls, 1);
    assert_int_equal(ask_alias("#other:test", &made), 0);
    assert_false(made);
    assert_int_equal(fax.calls, 1);
    fax.status = 403;
    assert_int_equal(ask_alias("#fax_lobby:test", &made), 0);
    assert_false(made);
    assert_int_equal(fax.calls, 2);
    assert_int_equal(fax.pauses, 0);
}

static void one_that_misses_a_question_is_asked_again(void **state)
{
    bool made = false;
    (void)state;
    fax.silent = 2;
    assert_int_equal(ask_alias("#fax_lobby:test", &made), 0);
    assert_true(made);
    assert_int_equal(fax.calls, 3);
    assert_int_equal(fax.pauses, 2);
}

static void one_that_never_answers_leaves_the_question_open(void **state)
{
    bool made = false;
    (void)state;
    fax.status = 0;
    assert_int_equal(ask_alias("#fax_lobby:test", &made), ERR_M_REQUEST_TIMEOUT);
    assert_int_equal(fax.calls, 3);
    fax.status = 503; /* a gateway in front of it */
    assert_int_equal(ask_user("@fax_anna:test"), ERR_M_REQUEST_TIMEOUT);
    assert_int_equal(fax.calls, 6);
    assert_int_equal(ask_user("@ann:test"), 0);
    assert_int_equal(fax.calls, 6);
}

static void one_that_is_known_to_be_down_is_asked_once(void **state)
{
    bool made = false;
    (void)state;
    struct guest ann = house_guest(&h, "ann");
    struct guest ghost = bridge_ghost(&fax, "fax_one");
    struct room *room = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    fax.status = 0;
    house_member(&h, room, &ghost, &ghost, MEMBERSHIP_JOIN);
    bridge_settle(&fax);
    h.ctx.may_wait = true;
    fax.calls = 0;
    assert_int_equal(ask_alias("#fax_lobby:test", &made), ERR_M_REQUEST_TIMEOUT);
    assert_int_equal(fax.calls, 1);
    fax.status = 200;
    assert_int_equal(ask_alias("#fax_lobby:test", &made), 0);
    assert_true(made);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_service_that_answers_is_asked_once),
        TEST(one_that_misses_a_question_is_asked_again),
        TEST(one_that_never_answers_leaves_the_question_open),
        TEST(one_that_is_known_to_be_down_is_asked_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
