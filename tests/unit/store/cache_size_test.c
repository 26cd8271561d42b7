#include "store/cache_size.h"

#include "homeserver/base/slice.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

enum { MB = 1 << 20 };

/* Seconds with so many reads each and a cache that is full. */
static void pass(struct cache_size *size, struct cache_use *use, int seconds, uint64_t reads)
{
    for (int i = 0; i < seconds; i++) {
        use->now_ms += 1000;
        use->reads += reads;
        use->used_bytes = size->bytes;
        cache_size_judge(size, use);
    }
}

static void it_begins_small_and_within_its_bound(void **state)
{
    (void)state;
    assert_int_equal(cache_size_of(128 * MB).bytes, CACHE_BYTES_LEAST);
    assert_int_equal(cache_size_of(1 * MB).bytes, 1 * MB);
}

static void it_grows_to_its_bound_while_it_is_missed(void **state)
{
    (void)state;
    struct cache_size size = cache_size_of(128 * MB);
    struct cache_use use = {0};
    pass(&size, &use, 10, 5000);
    assert_in_range(size.bytes, 30 * MB, 60 * MB);
    pass(&size, &use, 60, 5000);
    assert_int_equal(size.bytes, 128 * MB);
}

static void it_stays_while_it_is_missed_now_and_then(void **state)
{
    (void)state;
    struct cache_size size = cache_size_of(128 * MB);
    struct cache_use use = {0};
    pass(&size, &use, 60, 5000);
    pass(&size, &use, 60, 100);
    assert_int_equal(size.bytes, 128 * MB);
}

static void it_goes_down_when_nothing_is_read(void **state)
{
    (void)state;
    struct cache_size size = cache_size_of(128 * MB);
    struct cache_use use = {0};
    pass(&size, &use, 60, 5000);
    pass(&size, &use, 300, 0);
    assert_int_equal(size.bytes, CACHE_BYTES_LEAST);
}

static void what_is_not_filled_does_not_grow(void **state)
{
    (void)state;
    struct cache_size size = cache_size_of(128 * MB);
    struct cache_use use = {.used_bytes = MB};
    for (int i = 0; i < 10; i++) {
        use.now_ms += 1000;
        use.reads += 5000; /* of what is not to be kept */
        assert_false(cache_size_judge(&size, &use));
    }
    assert_int_equal(size.bytes, CACHE_BYTES_LEAST);
}

static void it_is_judged_once_a_second(void **state)
{
    (void)state;
    struct cache_size size = cache_size_of(128 * MB);
    struct cache_use use = {.used_bytes = 4 * MB, .now_ms = 5000, .reads = 50000};
    assert_true(cache_size_judge(&size, &use));
    use.now_ms += 10;
    use.reads += 50000;
    assert_false(cache_size_judge(&size, &use));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_begins_small_and_within_its_bound),
        cmocka_unit_test(it_grows_to_its_bound_while_it_is_missed),
        cmocka_unit_test(it_stays_while_it_is_missed_now_and_then),
        cmocka_unit_test(it_goes_down_when_nothing_is_read),
        cmocka_unit_test(what_is_not_filled_does_not_grow),
        cmocka_unit_test(it_is_judged_once_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
