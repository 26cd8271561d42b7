#include "homeserver/base/map.h"
#include "homeserver/base/pack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void entries_survive_growth_and_removal(void **state)
{
    (void)state;
    struct map *map = map_new();
    uint64_t value = 0;
    for (uint64_t i = 0; i < 5000; i++) {
        map_set(map, map_key_u64(&i), i * 3);
    }
    for (uint64_t i = 0; i < 5000; i += 2) {
        assert_true(map_remove(map, map_key_u64(&i)));
    }
    assert_int_equal(map_count(map), 2500);
    for (uint64_t i = 0; i < 5000; i++) {
        assert_int_equal(map_get(map, map_key_u64(&i), &value), i % 2 == 1);
        assert_true(i % 2 == 0 || value == i * 3);
    }
    map_free(&map);
    assert_null(map);
}

static void keys_of_all_lengths_are_told_apart(void **state)
{
    static const char bytes[32] = {0};
    (void)state;
    struct map *map = map_new();
    uint64_t value = 0;
    for (size_t len = 0; len <= sizeof bytes; len++) {
        map_set(map, (struct slice){bytes, len}, len);
    }
    assert_int_equal(map_count(map), sizeof bytes + 1);
    for (size_t len = 0; len <= sizeof bytes; len += 2) {
        assert_true(map_remove(map, (struct slice){bytes, len}));
    }
    for (size_t len = 0; len <= sizeof bytes; len++) {
        assert_int_equal(map_get(map, (struct slice){bytes, len}, &value), len % 2 == 1);
    }
    size_t cursor = 0;
    struct slice key;
    while (map_next(map, &cursor, &key, &value)) {
        assert_int_equal(key.len, value);
        assert_memory_equal(key.ptr, bytes, key.len);
    }
    map_free(&map);
}

static void every_entry_is_visited_once(void **state)
{
    (void)state;
    struct map *map = map_new();
    size_t cursor = 0;
    uint64_t sum = 0;
    uint64_t value = 0;
    struct slice key;
    for (uint64_t i = 1; i <= 100; i++) {
        map_set(map, map_key_u64(&i), i);
    }
    while (map_next(map, &cursor, &key, &value)) {
        sum += value;
    }
    assert_int_equal(sum, 5050);
    map_free(&map);
}

static void records_come_back_and_short_ones_are_refused(void **state)
{
    static const int64_t numbers[] = {0, 1, -1, 127, 128, -64, INT64_MAX, INT64_MIN};
    (void)state;
    struct buf out;
    buf_init(&out, 1000);
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        pack_i64(&out, numbers[i]);
        pack_be_i64(&out, numbers[i]);
    }
    pack_bytes(&out, LIT("text"));
    struct unpack in = unpack_of(buf_slice(&out));
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        assert_true(unpack_i64(&in) == numbers[i]);
        assert_true(unpack_be_i64(&in) == numbers[i]);
    }
    assert_true(slice_eq(unpack_bytes(&in), LIT("text")));
    assert_int_equal(unpack_check(&in).code, 0);
    unpack_u64(&in);
    assert_int_equal(unpack_check(&in).code, ERR_CORRUPT);
    buf_deinit(&out);
}

static void signed_keys_sort_like_their_numbers(void **state)
{
    (void)state;
    struct buf low;
    struct buf high;
    buf_init(&low, 8);
    buf_init(&high, 8);
    pack_be_i64(&low, -5);
    pack_be_i64(&high, 3);
    assert_true(slice_cmp(buf_slice(&low), buf_slice(&high)) < 0);
    buf_deinit(&low);
    buf_deinit(&high);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_survive_growth_and_removal),
        cmocka_unit_test(keys_of_all_lengths_are_told_apart),
        cmocka_unit_test(every_entry_is_visited_once),
        cmocka_unit_test(records_come_back_and_short_ones_are_refused),
        cmocka_unit_test(signed_keys_sort_like_their_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
