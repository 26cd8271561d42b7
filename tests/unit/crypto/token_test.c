#include "crypto/token.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

/* Synapse CVE-2019-5885, CVE-2019-11842. */
static void tokens_are_formed_and_differ(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct slice a = token_make(arena, LIT("mya"));
    struct slice b = token_make(arena, LIT("mya"));
    assert_int_equal(a.len, 4 + 48);
    assert_false(slice_eq(a, b));
    assert_true(token_is_formed(a, LIT("mya")));
    assert_false(token_is_formed(a, LIT("myr")));
    arena_free(&arena);
}

static void every_changed_character_is_noticed(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct slice token = token_make(arena, LIT("mya"));
    for (size_t i = 0; i < token.len; i++) {
        char *changed = arena_cstr(arena, token);
        changed[i] = changed[i] == 'x' ? 'z' : 'x';
        assert_false(token_is_formed((struct slice){changed, token.len}, LIT("mya")));
    }
    assert_false(token_is_formed(slice_sub(token, 0, token.len - 1), LIT("mya")));
    assert_false(token_is_formed(LIT(""), LIT("mya")));
    arena_free(&arena);
}

static void comparison_needs_all_bytes(void **state)
{
    (void)state;
    assert_true(token_eq(LIT("abc"), LIT("abc")));
    assert_false(token_eq(LIT("abc"), LIT("abd")));
    assert_false(token_eq(LIT("abc"), LIT("abcd")));
}

/* RFC 2202, test case 2. */
static void hmac_sha1_is_that_of_the_rfc(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    assert_true(
        slice_eq(token_hmac_sha1_hex(arena, LIT("Jefe"), LIT("what do ya want for nothing?")),
                 LIT("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")));
    assert_int_equal(token_random_letters(arena, 10).len, 10);
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_formed_and_differ),
        cmocka_unit_test(every_changed_character_is_noticed),
        cmocka_unit_test(comparison_needs_all_bytes),
        cmocka_unit_test(hmac_sha1_is_that_of_the_rfc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
