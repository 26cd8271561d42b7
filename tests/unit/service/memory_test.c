/* The budget of memory: who is told to come back, and looks that meet each other. */
#include "homeserver/service/memory.h"

#include "spec/errcodes.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>

#include <cmocka.h>

enum { THREADS = 4, CALLS = 300, LEAP_MS = 3000 };

static _Atomic int64_t mono_ms;
static _Atomic int turned_away;

static int64_t leap(void *arg)
{
    (void)arg;
    return atomic_fetch_add(&mono_ms, LEAP_MS) + LEAP_MS;
}

static const struct now leaping = {leap, leap, NULL};

static struct hs_memory *open_with(int64_t budget_bytes)
{
    struct conf conf = {.memory_budget = budget_bytes};
    return hs_memory_new(&conf, &leaping);
}

static void over_the_budget_requests_are_turned_away(void **state)
{
    (void)state;
    struct hs_memory *small = open_with(1);
    struct hs_memory *large = open_with(INT64_MAX);
    assert_true(hs_memory_resident_bytes() > 1);
    assert_int_equal(hs_memory_check(small).code, ERR_M_UNAVAILABLE);
    assert_int_equal(hs_memory_check(large).code, 0);
    hs_memory_free(&small);
    hs_memory_free(&large);
    assert_null(small);
    hs_memory_free(&small);
}

static void *check_often(void *arg)
{
    for (int i = 0; i < CALLS; i++) {
        turned_away += hs_memory_check(arg).code != 0;
    }
    return NULL;
}

static void every_thread_may_look(void **state)
{
    (void)state;
    struct hs_memory *memory = open_with(INT64_MAX);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, check_often, memory), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(turned_away, 0);
    hs_memory_free(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(over_the_budget_requests_are_turned_away),
        cmocka_unit_test(every_thread_may_look),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
