#include "homeserver/base/pattern.h"

#include "homeserver/base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static bool matches(const char *text, const char *subject)
{
    struct arena *arena = arena_new();
    struct pattern *pattern = NULL;
    assert_int_equal(pattern_new(arena, slice_of(text), &pattern).code, 0);
    bool result = pattern_matches_start(pattern, slice_of(subject));
    pattern_free(&pattern);
    assert_null(pattern);
    arena_free(&arena);
    return result;
}

static void a_pattern_matches_at_the_start(void **state)
{
    (void)state;
    assert_true(matches("@_irc_.*", "@_irc_ann:example.org"));
    assert_true(matches("@_irc_", "@_irc_ann:example.org"));
    assert_false(matches("_irc_.*", "@_irc_ann:example.org"));
    assert_true(matches("@fax_\\d+:example\\.org$", "@fax_17:example.org"));
    assert_false(matches("@fax_\\d+:example\\.org$", "@fax_17:example.org.evil"));
    assert_true(matches("@(a|b):x", "@b:x"));
    assert_true(matches(".*", ""));
    assert_true(matches("@\xc3\xa4.:x", "@\xc3\xa4\xc3\xb6:x"));
}

static void what_is_no_pattern_is_refused_with_its_place(void **state)
{
    (void)state;
    static const char *const wrong[] = {"@(", "[", "*", "(?P<", "\\C"};
    struct arena *arena = arena_new();
    struct pattern *pattern = NULL;
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        struct err err = pattern_new(arena, slice_of(wrong[i]), &pattern);
        assert_int_equal(err.code, ERR_SYNTAX);
        assert_true(err.is_public);
        assert_non_null(strstr(err.text, "at byte"));
        assert_null(pattern);
    }
    arena_free(&arena);
}

static void a_hostile_pattern_takes_bounded_work(void **state)
{
    (void)state;
    char subject[200];
    memset(subject, 'a', sizeof subject - 1);
    subject[sizeof subject - 1] = '\0';
    assert_false(matches("(a+)+$b", subject));
    assert_false(matches("(a|aa)+c", subject));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pattern_matches_at_the_start),
        cmocka_unit_test(what_is_no_pattern_is_refused_with_its_place),
        cmocka_unit_test(a_hostile_pattern_takes_bounded_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
