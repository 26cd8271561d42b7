#include "homeserver/service/row_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { BYTES_MAX = 1 << 16 };

/* Whether the row is here, as that text. */
static bool has(struct row_cache *cache, uint64_t room, int64_t number, struct slice text)
{
    struct cached_row *row = row_cache_hold(cache, room, number);
    bool same = row && slice_eq(cached_row_bytes(row), text);
    if (row) {
        row_cache_release(row);
    }
    return same;
}

static void a_row_that_was_offered_is_found(void **state)
{
    struct row_cache *cache = row_cache_new(BYTES_MAX);
    (void)state;
    assert_false(has(cache, 1, -7, LIT("bytes")));
    row_cache_offer(cache, 1, -7, LIT("bytes"), row_cache_version(cache));
    assert_true(has(cache, 1, -7, LIT("bytes")));
    assert_false(has(cache, 2, -7, LIT("bytes")));
    row_cache_free(&cache);
}

static void a_row_that_was_read_before_a_drop_is_not_taken_in(void **state)
{
    struct row_cache *cache = row_cache_new(BYTES_MAX);
    (void)state;
    uint64_t version = row_cache_version(cache);
    row_cache_drop(cache, 1, 5);
    row_cache_offer(cache, 1, 5, LIT("old"), version);
    assert_false(has(cache, 1, 5, LIT("old")));
    row_cache_free(&cache);
}

static void rooms_and_rows_are_dropped(void **state)
{
    struct row_cache *cache = row_cache_new(BYTES_MAX);
    (void)state;
    for (int64_t number = 1; number <= 40; number++) {
        row_cache_offer(cache, 1, number, LIT("one"), row_cache_version(cache));
        row_cache_offer(cache, 2, number, LIT("two"), row_cache_version(cache));
    }
    row_cache_drop(cache, 2, 3);
    row_cache_drop_room(cache, 1);
    assert_false(has(cache, 1, 40, LIT("one")));
    assert_false(has(cache, 2, 3, LIT("two")));
    assert_true(has(cache, 2, 4, LIT("two")));
    row_cache_free(&cache);
}

static void the_bound_holds_and_the_newest_stay(void **state)
{
    struct row_cache *cache = row_cache_new(BYTES_MAX);
    size_t kept = 0;
    (void)state;
    for (int64_t number = 1; number <= 5000; number++) {
        row_cache_offer(cache, 1, number, LIT("a row"), row_cache_version(cache));
        assert_true(has(cache, 1, number, LIT("a row")));
    }
    for (int64_t number = 1; number <= 5000; number++) {
        kept += has(cache, 1, number, LIT("a row")) ? 1 : 0;
    }
    assert_true(kept > 100 && kept < BYTES_MAX / 50);
    assert_false(has(cache, 1, 1, LIT("a row")));
    row_cache_free(&cache);
}

static void a_held_row_outlives_the_cache(void **state)
{
    struct row_cache *cache = row_cache_new(BYTES_MAX);
    (void)state;
    row_cache_offer(cache, 1, 5, LIT("bytes"), row_cache_version(cache));
    struct cached_row *row = row_cache_hold(cache, 1, 5);
    row_cache_drop(cache, 1, 5);
    row_cache_free(&cache);
    assert_true(slice_eq(cached_row_bytes(row), LIT("bytes")));
    row_cache_release(row);
}

static void what_hangs_on_a_row_counts_for_the_bound(void **state)
{
    struct row_cache *cache = row_cache_new(BYTES_MAX);
    struct arena *arena = arena_new();
    struct stored_event event = {.event = {.content_json = LIT("{}"), .type = LIT("m.type")}};
    size_t kept = 0;
    (void)state;
    for (int64_t number = 1; number <= 1000; number++) {
        row_cache_offer(cache, 1, number, LIT("a row"), row_cache_version(cache));
        struct cached_row *row = row_cache_hold(cache, 1, number);
        const struct stored_event *copy = cached_row_give_event(cache, row, arena, &event);
        assert_ptr_equal(copy, cached_row_give_event(cache, row, arena, &event));
        assert_true(slice_eq(copy->event.type, LIT("m.type")));
        assert_ptr_not_equal(copy->event.type.ptr, event.event.type.ptr);
        row_cache_release(row);
    }
    for (int64_t number = 1; number <= 1000; number++) {
        kept += has(cache, 1, number, LIT("a row")) ? 1 : 0;
    }
    assert_true(kept > 20 && kept < BYTES_MAX / sizeof event);
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
        cmocka_unit_test(a_held_row_outlives_the_cache),
        cmocka_unit_test(what_hangs_on_a_row_counts_for_the_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
