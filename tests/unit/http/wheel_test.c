#include "homeserver/http/wheel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static int fired[4];

static void on_due(void *arg)
{
    ++*(int *)arg;
}

static void entries_fire_once_and_in_time(void **state)
{
    static struct http_wheel wheel;
    static const int64_t dues[4] = {1000050, 1000000 + 60000, 1000000 + 600000, 1000500};
    struct http_wheel_entry entries[4];
    (void)state;
    http_wheel_init(&wheel, 1000000);
    for (int i = 0; i < 4; i++) {
        entries[i] = (struct http_wheel_entry){.fn = on_due, .arg = &fired[i]};
        http_wheel_set(&wheel, &entries[i], dues[i]);
    }
    http_wheel_cancel(&wheel, &entries[3]);
    for (int64_t now = 1000000; now <= 1700000; now += 70) {
        http_wheel_advance(&wheel, now);
        for (int i = 0; i < 3; i++) {
            assert_true(fired[i] == 0 || now >= dues[i]);
            assert_true(fired[i] == 1 || now <= dues[i] + 2 * HTTP_WHEEL_TICK_MS);
        }
    }
    assert_int_equal(fired[3], 0);
    assert_int_equal(wheel.count, 0);
}

static void a_long_sleep_misses_nothing(void **state)
{
    static struct http_wheel wheel;
    int count = 0;
    struct http_wheel_entry entry = {.fn = on_due, .arg = &count};
    (void)state;
    http_wheel_init(&wheel, 0);
    http_wheel_set(&wheel, &entry, 12345);
    http_wheel_advance(&wheel, 100000000);
    assert_int_equal(count, 1);
    http_wheel_set(&wheel, &entry, 5); /* already due: at the next advance */
    http_wheel_advance(&wheel, 100000000 + HTTP_WHEEL_TICK_MS);
    assert_int_equal(count, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_fire_once_and_in_time),
        cmocka_unit_test(a_long_sleep_misses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
