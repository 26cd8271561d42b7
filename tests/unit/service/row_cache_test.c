#include "homeserver/service/row_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { BYTES_MAX = 1 << 16 };

static void a_row_that_was_offered_is_found(void **state)
{
    struct arena *arena = arena_new();
    struct row_cache *cache = row_cache_new(BYTES_MAX);
    struct slice row;
    (void)state;
    assert_false(row_cache_get(cache, arena, 1, -7, &row));
    row_cache_offer(cache, 1, -7, LIT("bytes"), row_cache_version(cache));
    assert_true(row_cache_get(cache, arena, 1, -7, &row));
    assert_true(slice_eq(row, LIT("bytes")));
    assert_false(row_cache_get(cache, arena, 2, -7, &row));
    row_cache_free(&cache);
    arena_free(&arena);
}

static void a_row_that_was_read_before_a_drop_is_not_taken_in(void **state)
{
    struct arena *arena = arena_new();
    struct row_cache *cache = row_cache_new(BYTES_MAX);
    struct slice row;
    (void)state;
    uint64_t version = row_cache_version(cache);
    row_cache_drop(cache, 1, 5);
    row_cache_offer(cache, 1, 5, LIT("old"), version);
    assert_false(row_cache_get(cache, arena, 1, 5, &row));
    row_cache_free(&cache);
    arena_free(&arena);
}

static void rooms_and_rows_are_dropped(void **state)
{
    struct arena *arena = arena_new();
    struct row_cache *cache = row_cache_new(BYTES_MAX);
    struct slice row;
    (void)state;
    for (int64_t number = 1; number <= 40; number++) {
        row_cache_offer(cache, 1, number, LIT("one"), row_cache_version(cache));
        row_cache_offer(cache, 2, number, LIT("two"), row_cache_version(cache));
    }
    row_cache_drop(cache, 2, 3);
    row_cache_drop_room(cache, 1);
    assert_false(row_cache_get(cache, arena, 1, 40, &row));
    assert_false(row_cache_get(cache, arena, 2, 3, &row));
    assert_true(row_cache_get(cache, arena, 2, 4, &row));
    row_cache_free(&cache);
    arena_free(&arena);
}

static void the_bound_holds_and_the_newest_stay(void **state)
{
    struct arena *arena = arena_new();
    struct row_cache *cache = row_cache_new(BYTES_MAX);
    struct slice row;
    size_t kept = 0;
    (void)state;
    for (int64_t number = 1; number <= 5000; number++) {
        row_cache_offer(cache, 1, number, LIT("a row"), row_cache_version(cache));
        assert_true(row_cache_get(cache, arena, 1, number, &row));
    }
    for (int64_t number = 1; number <= 5000; number++) {
        kept += row_cache_get(cache, arena, 1, number, &row) ? 1 : 0;
    }
    assert_true(kept > 100 && kept < BYTES_MAX / 50);
    assert_false(row_cache_get(cache, arena, 1, 1, &row));
    row_cache_free(&cache);
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_that_was_offered_is_found),
        cmocka_unit_test(a_row_that_was_read_before_a_drop_is_not_taken_in),
        cmocka_unit_test(rooms_and_rows_are_dropped),
        cmocka_unit_test(the_bound_holds_and_the_newest_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
