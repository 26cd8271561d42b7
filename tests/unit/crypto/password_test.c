#include "crypto/password.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void only_the_right_password_matches(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct password_gate *gate = password_gate_new(PASSWORD_COST_LOWEST, 1, 1);
    struct slice hash;
    bool right = false;
    assert_int_equal(password_hash(gate, arena, LIT("s3cret"), &hash).code, 0);
    assert_true(slice_has_prefix(hash, LIT("$argon2id$")));
    assert_int_equal(password_check(gate, LIT("s3cret"), hash, &right).code, 0);
    assert_true(right);
    assert_int_equal(password_check(gate, LIT("s3cret "), hash, &right).code, 0);
    assert_false(right);
    assert_int_equal(password_check(gate, LIT(""), (struct slice){0}, &right).code, 0);
    assert_false(right);
    password_gate_free(&gate);
    arena_free(&arena);
}

static void another_cost_makes_a_hash_stale(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct password_gate *low = password_gate_new(PASSWORD_COST_LOWEST, 1, 1);
    struct password_gate *high = password_gate_new(PASSWORD_COST_INTERACTIVE, 1, 1);
    struct slice hash;
    assert_int_equal(password_hash(low, arena, LIT("x"), &hash).code, 0);
    assert_false(password_is_stale(low, hash));
    assert_true(password_is_stale(high, hash));
    password_gate_free(&low);
    password_gate_free(&high);
    arena_free(&arena);
}

enum { CALLERS = 8 };
struct call {
    struct password_gate *gate;
    struct slice hash;
    uint32_t code;
};

static void *check_once(void *arg)
{
    struct call *call = arg;
    bool right = false;
    call->code = password_check(call->gate, LIT("x"), call->hash, &right).code;
    return NULL;
}

static void the_gate_refuses_but_never_fails_otherwise(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct password_gate *gate = password_gate_new(PASSWORD_COST_LOWEST, 1, 2);
    struct slice hash;
    pthread_t threads[CALLERS];
    struct call calls[CALLERS];
    size_t served = 0;
    assert_int_equal(password_hash(gate, arena, LIT("x"), &hash).code, 0);
    for (size_t i = 0; i < CALLERS; i++) {
        calls[i] = (struct call){.gate = gate, .hash = hash};
        assert_int_equal(pthread_create(&threads[i], NULL, check_once, &calls[i]), 0);
    }
    for (size_t i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(calls[i].code == ERR_OK || calls[i].code == ERR_UNAVAILABLE);
        served += calls[i].code == ERR_OK;
    }
    assert_true(served >= 1);
    password_gate_free(&gate);
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_right_password_matches),
        cmocka_unit_test(another_cost_makes_a_hash_stale),
        cmocka_unit_test(the_gate_refuses_but_never_fails_otherwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
