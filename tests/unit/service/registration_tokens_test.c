#include "homeserver/service/registration_tokens.h"

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

static uint32_t put(struct slice token, int64_t uses_allowed, int64_t expires_ms)
{
    struct registration_token row = {
        .token = token, .uses_allowed = uses_allowed, .expires_ms = expires_ms};
    return hs_registration_token_put(&w.hs, &w.ctx, &row).code;
}

static bool valid(struct slice token)
{
    bool is_valid = false;
    assert_int_equal(hs_registration_token_check(&w.hs, &w.ctx, token, &is_valid).code, 0);
    return is_valid;
}

static bool use(struct slice token)
{
    bool used = false;
    assert_int_equal(hs_registration_token_use(&w.hs, &w.ctx, token, &used).code, 0);
    return used;
}

static void uses_are_counted(void **state)
{
    struct registration_tokens tokens;
    (void)state;
    assert_int_equal(put(LIT("two"), 2, 0), 0);
    assert_int_equal(put(LIT("many"), -1, 0), 0);
    assert_true(use(LIT("two")) && valid(LIT("two")) && use(LIT("two")));
    assert_false(valid(LIT("two")));
    assert_false(use(LIT("two")));
    assert_true(use(LIT("many")) && use(LIT("many")) && use(LIT("many")));
    assert_int_equal(hs_registration_token_list(&w.hs, &w.ctx, &tokens).code, 0);
    assert_int_equal(tokens.count, 2);
    assert_int_equal(tokens.items[0].uses, 3);
}

static void time_ends_a_token(void **state)
{
    (void)state;
    assert_int_equal(put(LIT("short"), -1, w.wall_ms + 1000), 0);
    assert_true(valid(LIT("short")));
    world_wait(&w, 1000);
    assert_false(valid(LIT("short")) || use(LIT("short")));
}

static void names_follow_the_grammar(void **state)
{
    bool found = false;
    (void)state;
    assert_int_equal(put(LIT(""), 1, 0), ERR_M_INVALID_PARAM);
    assert_int_equal(put(LIT("a b"), 1, 0), ERR_M_INVALID_PARAM);
    assert_int_equal(put(LIT("A-z_0.9~"), 1, 0), 0);
    assert_false(valid(LIT("a b")) || valid(LIT("")) || valid(LIT("unknown")));
    assert_int_equal(hs_registration_token_delete(&w.hs, &w.ctx, LIT("A-z_0.9~"), &found).code, 0);
    assert_true(found);
    assert_false(valid(LIT("A-z_0.9~")));
}

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(uses_are_counted),
        WITH_WORLD(time_ends_a_token),
        WITH_WORLD(names_follow_the_grammar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
