#include "homeserver/sync/token.h"

#include "spec/errcodes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void a_token_survives_the_round_trip(void **state)
{
    (void)state;
    static const struct sync_token tokens[] = {{0, 0}, {1, 1}, {77, 12}, {UINT64_MAX, 0}};
    struct arena *arena = arena_new();
    for (size_t i = 0; i < COUNT_OF(tokens); i++) {
        struct sync_token back = {0};
        struct slice text = sync_token_encode(arena, tokens[i]);
        assert_int_equal(sync_token_parse(text, &back).code, 0);
        assert_true(back.pos == tokens[i].pos);
        assert_true(back.inbox == tokens[i].inbox);
    }
    arena_free(&arena);
}

static void fields_of_later_versions_are_skipped(void **state)
{
    (void)state;
    struct sync_token token = {0};
    assert_int_equal(sync_token_parse(LIT("s9_7_1_2"), &token).code, 0);
    assert_int_equal(token.pos, 9);
    assert_int_equal(token.inbox, 7);
}

static void junk_is_refused(void **state)
{
    (void)state;
    static const char *const junk[] = {"",
                                       "s",
                                       "s-1",
                                       "t5",
                                       "s1x",
                                       "s1_",
                                       "s_1",
                                       "s01",
                                       " s1",
                                       "s1 ",
                                       "s1_2",
                                       "5",
                                       "s1__1",
                                       "s1_1_1_1_1_1_1_1_1",
                                       "s99999999999999999999"};
    struct sync_token token;
    for (size_t i = 0; i < COUNT_OF(junk); i++) {
        assert_int_equal(sync_token_parse(slice_of(junk[i]), &token).code, ERR_M_INVALID_PARAM);
    }
}

static void tokens_from_the_future_are_refused(void **state)
{
    (void)state;
    struct sync_token token;
    assert_int_equal(sync_token_check(LIT("s10"), 10, &token).code, 0);
    assert_int_equal(sync_token_check(LIT("s11"), 10, &token).code, ERR_M_INVALID_PARAM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_survives_the_round_trip),
        cmocka_unit_test(fields_of_later_versions_are_skipped),
        cmocka_unit_test(junk_is_refused),
        cmocka_unit_test(tokens_from_the_future_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
