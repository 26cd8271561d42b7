#include "homeserver/service/memory.h"
#include "homeserver/service/rates.h"

#include "homeserver/service/requester.h"
#include "tests/support/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct world w;

static int open_world(void **state)
{
    (void)state;
    world_open(&w, 0);
    w.conf.rate_limits_login_burst = 2;
    w.conf.rate_limits_login_per_minute = 60;
    w.conf.rate_limits_message_burst = 1;
    w.conf.rate_limits_federation_burst = 1;
    w.hs.ratelimit = hs_rates_new(&w.conf);
    w.hs.memory = hs_memory_new(&w.conf, &w.now);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    hs_memory_free(&w.hs.memory);
    http_ratelimit_free(&w.hs.ratelimit);
    world_close(&w);
    return 0;
}

static uint32_t ask(enum http_rate rate, const struct http_request *like)
{
    struct http_route route = {.rate = rate};
    struct http_request request = *like;
    struct http_reply reply = {0};
    buf_init_arena(&reply.body, w.ctx.arena, 1 << 16);
    request.route = &route;
    return hs_check_rate(&w.hs, &w.ctx, &request, &reply).code;
}

static struct http_request sign_in(const char *address, const char *name)
{
    struct http_request request = {.remote_address = slice_of(address)};
    struct slice body = arena_printf(
        w.ctx.arena, "{\"identifier\":{\"type\":\"m.id.user\",\"user\":\"%s\"}}", name);
    assert_int_equal(json_parse(w.ctx.arena, body, &request.json).code, 0);
    return request;
}

static void signing_in_is_limited_by_address(void **state)
{
    (void)state;
    struct http_request ann = sign_in("10.0.0.1", "ann");
    struct http_request bob = sign_in("10.0.0.1", "bob");
    struct http_request carl = sign_in("10.0.0.1", "carl");
    assert_int_equal(ask(HTTP_RATE_LOGIN, &ann), 0);
    assert_int_equal(ask(HTTP_RATE_LOGIN, &bob), 0);
    assert_int_equal(ask(HTTP_RATE_LOGIN, &carl), ERR_M_LIMIT_EXCEEDED);
    world_wait(&w, 1100);
    assert_int_equal(ask(HTTP_RATE_LOGIN, &carl), 0);
}

static void signing_in_is_limited_by_account_however_it_is_spelt(void **state)
{
    (void)state;
    struct http_request first = sign_in("10.0.0.1", "ann");
    struct http_request second = sign_in("10.0.0.2", "@ann:test");
    struct http_request third = sign_in("10.0.0.3", "ANN");
    assert_int_equal(ask(HTTP_RATE_LOGIN, &first), 0);
    assert_int_equal(ask(HTTP_RATE_LOGIN, &second), 0);
    assert_int_equal(ask(HTTP_RATE_LOGIN, &third), ERR_M_LIMIT_EXCEEDED);
}

static void sending_is_limited_by_account_and_not_for_bridges(void **state)
{
    (void)state;
    struct requester ann = {.user_id = LIT("@ann:test")};
    struct requester bridge = {.user_id = LIT("@bridge:test"), .is_unlimited = true};
    struct http_request request = {.remote_address = LIT("10.0.0.1"), .requester = &ann};
    assert_int_equal(ask(HTTP_RATE_MESSAGE, &request), 0);
    request.remote_address = LIT("10.0.0.2");
    assert_int_equal(ask(HTTP_RATE_MESSAGE, &request), ERR_M_LIMIT_EXCEEDED);
    request.requester = &bridge;
    assert_int_equal(ask(HTTP_RATE_MESSAGE, &request), 0);
    assert_int_equal(ask(HTTP_RATE_MESSAGE, &request), 0);
}

static void servers_are_limited_by_name(void **state)
{
    (void)state;
    struct http_request request = {.server = LIT("one.example"), .remote_address = LIT("10.0.0.1")};
    assert_int_equal(ask(HTTP_RATE_FEDERATION, &request), 0);
    request.remote_address = LIT("10.0.0.2");
    assert_int_equal(ask(HTTP_RATE_FEDERATION, &request), ERR_M_LIMIT_EXCEEDED);
    request.server = LIT("two.example");
    assert_int_equal(ask(HTTP_RATE_FEDERATION, &request), 0);
    request.server = (struct slice){0};
    request.remote_address = LIT("10.0.0.1");
    assert_int_equal(ask(HTTP_RATE_FEDERATION, &request), 0);
}

static void limits_can_be_off(void **state)
{
    (void)state;
    http_ratelimit_free(&w.hs.ratelimit);
    w.conf.rate_limits_enabled = false;
    w.hs.ratelimit = hs_rates_new(&w.conf);
    struct http_request request = sign_in("10.0.0.1", "ann");
    for (int i = 0; i < 10; i++) {
        assert_int_equal(ask(HTTP_RATE_LOGIN, &request), 0);
    }
}

static void nobody_is_served_beyond_the_budget_of_memory(void **state)
{
    (void)state;
    struct http_request request = sign_in("10.0.0.1", "ann");
    assert_int_equal(ask(HTTP_RATE_READ, &request), 0);
    assert_true(hs_memory_resident_bytes() > 4096);
    hs_memory_free(&w.hs.memory);
    w.conf.memory_budget = 4096;
    w.hs.memory = hs_memory_new(&w.conf, &w.now);
    assert_int_equal(ask(HTTP_RATE_READ, &request), ERR_M_UNAVAILABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(signing_in_is_limited_by_address, open_world, close_world),
        cmocka_unit_test_setup_teardown(signing_in_is_limited_by_account_however_it_is_spelt,
                                        open_world, close_world),
        cmocka_unit_test_setup_teardown(sending_is_limited_by_account_and_not_for_bridges,
                                        open_world, close_world),
        cmocka_unit_test_setup_teardown(servers_are_limited_by_name, open_world, close_world),
        cmocka_unit_test_setup_teardown(limits_can_be_off, open_world, close_world),
        cmocka_unit_test_setup_teardown(nobody_is_served_beyond_the_budget_of_memory, open_world,
                                        close_world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
