#include "homeserver/http/ratelimit.h"

#include "spec/errcodes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static const struct http_rate_rule rules[HTTP_RATES] = {
    [HTTP_RATE_MESSAGE] = {.burst = 3, .per_1000_seconds = 2000},
    [HTTP_RATE_LOGIN] = {.burst = 1, .per_1000_seconds = 10},
};

static void a_burst_passes_and_then_tokens_come_back(void **state)
{
    struct http_ratelimit *limit = http_ratelimit_new(rules, 1000);
    struct slice user = LIT("@a:x");
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(http_ratelimit_take(limit, HTTP_RATE_MESSAGE, user, 1000), 0);
    }
    assert_int_equal(http_ratelimit_take(limit, HTTP_RATE_MESSAGE, user, 1000), 500);
    assert_int_equal(http_ratelimit_take(limit, HTTP_RATE_MESSAGE, user, 1400), 100);
    assert_int_equal(http_ratelimit_take(limit, HTTP_RATE_MESSAGE, user, 1500), 0);
    assert_int_equal(http_ratelimit_take(limit, HTTP_RATE_MESSAGE, user, 1500), 500);
    assert_int_equal(http_ratelimit_take(limit, HTTP_RATE_MESSAGE, LIT("@b:x"), 1500), 0);
    assert_int_equal(http_ratelimit_take(limit, HTTP_RATE_LOGIN, user, 1500), 0);
    assert_int_equal(http_ratelimit_take(limit, HTTP_RATE_READ, user, 1500), 0);
    http_ratelimit_free(&limit);
    assert_null(limit);
}

static void slow_rates_do_not_lose_time_to_rounding(void **state)
{
    struct http_ratelimit *limit = http_ratelimit_new(rules, 1000);
    (void)state;
    assert_int_equal(http_ratelimit_take(limit, HTTP_RATE_LOGIN, LIT("k"), 0), 0);
    for (int64_t at = 30; at < 100000; at += 30) {
        assert_true(http_ratelimit_take(limit, HTTP_RATE_LOGIN, LIT("k"), at) > 0);
    }
    assert_int_equal(http_ratelimit_take(limit, HTTP_RATE_LOGIN, LIT("k"), 100000), 0);
    http_ratelimit_free(&limit);
}

static void many_keys_fit_a_small_table(void **state)
{
    struct http_ratelimit *limit = http_ratelimit_new(rules, 64);
    (void)state;
    for (uint64_t i = 0; i < 10000; i++) {
        struct slice key = {(const char *)&i, sizeof i};
        http_ratelimit_take(limit, HTTP_RATE_MESSAGE, key, (int64_t)i);
    }
    http_ratelimit_free(&limit);
}

static void the_answer_says_when_to_come_back(void **state)
{
    struct http_ratelimit *limit = http_ratelimit_new(rules, 64);
    struct arena *arena = arena_new();
    struct now now = now_system();
    struct ctx ctx = {.arena = arena, .now = &now};
    struct http_reply reply = {.file_fd = -1};
    (void)state;
    buf_init_arena(&reply.body, arena, 1000);
    struct err err = http_ratelimit_check(limit, &ctx, HTTP_RATE_LOGIN, LIT("k"), &reply);
    assert_int_equal(err.code, 0);
    err = http_ratelimit_check(limit, &ctx, HTTP_RATE_LOGIN, LIT("k"), &reply);
    assert_int_equal(err.code, ERR_M_LIMIT_EXCEEDED);
    assert_int_equal(reply.status, 429);
    assert_true(slice_contains(buf_slice(&reply.body), LIT("\"retry_after_ms\":")));
    assert_true(slice_eq(reply.headers[0].name, LIT("Retry-After")));
    assert_true(slice_eq(reply.headers[0].value, LIT("100")));
    arena_free(&arena);
    http_ratelimit_free(&limit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_burst_passes_and_then_tokens_come_back),
        cmocka_unit_test(slow_rates_do_not_lose_time_to_rounding),
        cmocka_unit_test(many_keys_fit_a_small_table),
        cmocka_unit_test(the_answer_says_when_to_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
