/* Globs of other people: push rules and access lists. */
#include "homeserver/room/glob.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void stars_and_marks_stand_for_text(void **state)
{
    static const struct {
        const char *pattern, *text;
        bool matches;
    } cases[] = {
        {"*", "", true},
        {"?", "", false},
        {"a?c", "abc", true},
        {"a*c", "abbbc", true},
        {"a*c", "abbbd", false},
        {"*.org", "x.org", true},
        {"*.org", "x.org.", false},
        {"**a**", "bab", true},
        {"A*", "abc", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(glob_matches(slice_of(cases[i].pattern), slice_of(cases[i].text)),
                         cases[i].matches);
    }
}

/* Synapse CVE-2021-29471. */
static void a_hostile_glob_takes_bounded_work(void **state)
{
    char pattern[2001];
    static char text[60000];
    (void)state;
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i + 1 < sizeof pattern; i += 2) {
        pattern[i] = '*';
        pattern[i + 1] = 'a';
    }
    pattern[sizeof pattern - 1] = 'b'; /* it nearly matches, in more ways than can be tried */
    assert_false(
        glob_matches((struct slice){pattern, sizeof pattern}, (struct slice){text, sizeof text}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stars_and_marks_stand_for_text),
        cmocka_unit_test(a_hostile_glob_takes_bounded_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
