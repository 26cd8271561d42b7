#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "homeserver/room/visibility.h"

struct row {
    struct visibility_input input;
    bool seen;
};

#define ROW(visibility, membership, later, expected)                                               \
    {                                                                                              \
        {HISTORY_##visibility, HISTORY_##visibility, MEMBERSHIP_##membership,                      \
         MEMBERSHIP_##membership, later},                                                          \
            expected                                                                               \
    }

static void each_setting_shows_what_it_promises(void **state)
{
    (void)state;
    static const struct row rows[] = {
        ROW(WORLD_READABLE, NONE, false, true), ROW(WORLD_READABLE, BAN, false, true),
        ROW(SHARED, JOIN, false, true),         ROW(SHARED, NONE, false, false),
        ROW(SHARED, NONE, true, true),          ROW(SHARED, LEAVE, true, true),
        ROW(SHARED, INVITE, false, false),      ROW(INVITED, INVITE, false, true),
        ROW(INVITED, JOIN, false, true),        ROW(INVITED, NONE, true, false),
        ROW(INVITED, KNOCK, true, false),       ROW(JOINED, JOIN, false, true),
        ROW(JOINED, INVITE, true, false),       ROW(JOINED, LEAVE, true, false),
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (visibility_allows_user(&rows[i].input) != rows[i].seen) {
            fail_msg("row %zu", i);
        }
    }
}

static void the_more_generous_side_of_a_change_counts(void **state)
{
    (void)state;
    struct visibility_input input = {HISTORY_JOINED, HISTORY_WORLD_READABLE, MEMBERSHIP_NONE,
                                     MEMBERSHIP_NONE, false};
    assert_true(visibility_allows_user(&input));
    input = (struct visibility_input){HISTORY_WORLD_READABLE, HISTORY_JOINED, MEMBERSHIP_NONE,
                                      MEMBERSHIP_NONE, false};
    assert_true(visibility_allows_user(&input));
    input = (struct visibility_input){HISTORY_JOINED, HISTORY_JOINED, MEMBERSHIP_NONE,
                                      MEMBERSHIP_JOIN, false};
    assert_true(visibility_allows_user(&input));
    input = (struct visibility_input){HISTORY_JOINED, HISTORY_JOINED, MEMBERSHIP_JOIN,
                                      MEMBERSHIP_BAN, false};
    assert_true(visibility_allows_user(&input));
}

static void words_are_read_and_unknown_ones_mean_shared(void **state)
{
    (void)state;
    assert_int_equal(visibility_parse(LIT("joined")), HISTORY_JOINED);
    assert_int_equal(visibility_parse(LIT("world_readable")), HISTORY_WORLD_READABLE);
    assert_int_equal(visibility_parse(LIT("odd")), HISTORY_SHARED);
    assert_int_equal(visibility_of(NULL), HISTORY_SHARED);
    assert_int_equal(membership_parse(LIT("dance")), MEMBERSHIP_OTHER);
    assert_int_equal(membership_of(NULL), MEMBERSHIP_NONE);
    assert_true(slice_eq(membership_word(MEMBERSHIP_KNOCK), LIT("knock")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_setting_shows_what_it_promises),
        cmocka_unit_test(the_more_generous_side_of_a_change_counts),
        cmocka_unit_test(words_are_read_and_unknown_ones_mean_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
