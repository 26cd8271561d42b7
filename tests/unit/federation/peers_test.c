/* Servers that do not answer are left alone, and for how long. */
#include "tests/support/fed_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>

static struct fed_world fw;
static const struct slice peer = {"peer.org:1", 10};
static unsigned revived;

static struct err answer(struct fed_world *world, const struct http_fetch_request *request,
                         struct http_fetch_reply *reply)
{
    (void)request;
    *reply = fed_world_reply(world, world->arg ? 503 : 200, world->arg ? "" : "{}", "");
    return OK;
}

static uint32_t call_with(uint32_t flags)
{
    struct fed_call call = {.destination = peer, .path = LIT("/x"), .flags = flags};
    struct fed_answer got;
    return fed_call(fw.fed, &fw.world.ctx, &call, &got).code;
}

static void pauses_grow_and_an_answer_ends_them(void **state)
{
    int64_t last_ms = 0;
    (void)state;
    for (int i = 0; i < 30; i++) {
        int64_t until_ms = 0;
        unsigned before = fw.fetches;
        assert_int_equal(call_with(0), ERR_UNAVAILABLE);
        assert_int_equal(fw.fetches, before + 1);
        assert_int_equal(call_with(0), ERR_UNAVAILABLE); /* without a request */
        assert_int_equal(fw.fetches, before + 1);
        assert_true(fed_peer_is_down(fw.fed, peer, &until_ms));
        int64_t pause_ms = until_ms - fw.world.wall_ms;
        assert_true(pause_ms >= (last_ms < 43200000 ? last_ms * 8 / 5 : 69120000));
        assert_true(pause_ms <= 103680000);
        last_ms = pause_ms;
        world_wait(&fw.world, pause_ms);
    }
    assert_true(last_ms > 69120000);
    fw.on_fetch = answer;
    assert_int_equal(call_with(0), 0);
    assert_false(fed_peer_is_down(fw.fed, peer, NULL));
}

/* Names cost whoever makes them up nothing; a server that was never asked must stay in reach. */
static void made_up_servers_take_nobodys_place(void **state)
{
    enum { MADE_UP = 101000 };
    char name[40];
    (void)state;
    for (int i = 0; i < 6; i++) { /* one that has been down for some time, whatever the chance */
        assert_int_equal(call_with(0), ERR_UNAVAILABLE);
        world_wait(&fw.world, i < 5 ? 1000000 : 0);
    }
    for (int i = 0; i < MADE_UP; i++) {
        snprintf(name, sizeof name, "n%d.invalid", i);
        fed_peer_note(fw.fed, &fw.world.ctx, slice_of(name), FED_PEER_FAILED);
    }
    assert_int_equal(fed_peer_enter(fw.fed, LIT("good.org")).code, 0);
    fed_peer_leave(fw.fed, LIT("good.org"));
    assert_true(fed_peer_is_down(fw.fed, peer, NULL));
    assert_true(fed_peer_is_down(fw.fed, slice_of(name), NULL));
}

static void a_sign_of_life_ends_a_pause(void **state)
{
    (void)state;
    assert_int_equal(call_with(0), ERR_UNAVAILABLE);
    assert_true(fed_peer_is_down(fw.fed, peer, NULL));
    fed_peer_alive(fw.fed, peer);
    assert_int_equal(revived, 1);
    assert_false(fed_peer_is_down(fw.fed, peer, NULL));
    fed_peer_alive(fw.fed, peer);
    assert_int_equal(revived, 1);
}

static void a_call_may_go_anyway(void **state)
{
    (void)state;
    assert_int_equal(call_with(0), ERR_UNAVAILABLE);
    fw.on_fetch = answer;
    assert_int_equal(call_with(FED_CALL_ANYWAY), 0);
    assert_int_equal(call_with(0), 0);
}

static void a_gateway_without_its_server_counts_as_a_failure(void **state)
{
    (void)state;
    fw.on_fetch = answer;
    fw.arg = &fw;
    assert_int_equal(call_with(0), 0);
    assert_true(fed_peer_is_down(fw.fed, peer, NULL));
}

static void on_alive(struct fed *fed, struct slice server)
{
    (void)fed;
    revived += slice_eq(server, peer);
}

static void long_pauses_outlive_a_restart(void **state)
{
    struct fed_net net = fw.fed->net;
    int64_t until_ms = 0;
    int64_t before_ms = 0;
    (void)state;
    for (int i = 0; i < 6; i++) {
        call_with(FED_CALL_ANYWAY);
        fed_peer_is_down(fw.fed, peer, &before_ms);
        world_wait(&fw.world, i < 5 ? before_ms - fw.world.wall_ms : 0);
    }
    fed_free(&fw.fed);
    assert_int_equal(fed_new(&fw.world.hs, &fw.fed).code, 0);
    fw.fed->net = net;
    assert_true(fed_peer_is_down(fw.fed, peer, &until_ms));
    assert_int_equal(until_ms, before_ms);
    fed_peer_alive(fw.fed, peer);
    fed_free(&fw.fed);
    assert_int_equal(fed_new(&fw.world.hs, &fw.fed).code, 0);
    assert_false(fed_peer_is_down(fw.fed, peer, NULL));
}

static struct err answer_deeply(struct fed_world *world, const struct http_fetch_request *request,
                                struct http_fetch_reply *reply)
{
    struct buf text;
    (void)request;
    buf_init_arena(&text, world->world.ctx.arena, 1 << 20);
    buf_add(&text, LIT("{\"a\":"));
    for (int i = 0; i < 100000; i++) {
        buf_add_byte(&text, '[');
    }
    *reply = (struct http_fetch_reply){.status = 200, .body = buf_slice(&text)};
    return OK;
}

static void an_answer_that_is_no_json_object_is_none(void **state)
{
    struct fed_call call = {.destination = peer, .path = LIT("/x")};
    struct json got;
    (void)state;
    fw.on_fetch = answer_deeply;
    assert_int_equal(fed_call_json(fw.fed, &fw.world.ctx, &call, &got).code, ERR_UNAVAILABLE);
    assert_int_equal(call_with(0), 0);
}

static struct err refuse(struct fed_world *world, const struct http_fetch_request *request,
                         struct http_fetch_reply *reply)
{
    (void)request;
    *reply = fed_world_reply(world, 400, world->arg, "");
    return OK;
}

static void refusals_keep_what_concerns_the_user(void **state)
{
    static const struct {
        const char *body;
        uint32_t code;
        const char *text;
    } cases[] = {
        {"{\"errcode\":\"M_FORBIDDEN\",\"error\":\"You are %s banned\"}", ERR_M_FORBIDDEN,
         "You are %s banned"},
        {"{\"errcode\":\"M_NOT_FOUND\"}", ERR_M_NOT_FOUND, "refused by the other server"},
        {"{\"errcode\":\"M_MISSING_PARAM\",\"error\":\"x\"}", ERR_M_REMOTE,
         "The other server refused: x"},
        {"{\"errcode\":\"M_UNKNOWN_TOKEN\"}", ERR_M_REMOTE, "The other server refused: "},
        {"{\"errcode\":5}", ERR_M_REMOTE, "The other server refused: "},
        {"<html>", ERR_UNAVAILABLE, "the other server answered with an error"},
    };
    struct fed_call call = {.destination = peer, .path = LIT("/x")};
    (void)state;
    fw.on_fetch = refuse;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct json got;
        fw.arg = (void *)(uintptr_t)cases[i].body;
        struct err err = fed_call_json(fw.fed, &fw.world.ctx, &call, &got);
        assert_int_equal(err.code, cases[i].code);
        assert_string_equal(err.text, cases[i].text);
    }
}

static void calls_know_where_not_to_go(void **state)
{
    struct fed_call call = {.destination = LIT("test"), .path = LIT("/x")};
    struct slice patterns[] = {LIT("peer.*")};
    struct fed_answer got;
    (void)state;
    assert_int_equal(fed_call(fw.fed, &fw.world.ctx, &call, &got).code, ERR_M_INVALID_PARAM);
    call.destination = LIT("no name");
    assert_int_equal(fed_call(fw.fed, &fw.world.ctx, &call, &got).code, ERR_M_INVALID_PARAM);
    fw.world.conf.federation_deny = (struct conf_texts){patterns, 1};
    assert_int_equal(call_with(0), ERR_M_FORBIDDEN);
    fw.world.conf.federation_deny.count = 0;
    fw.world.ctx.may_wait = false;
    assert_int_equal(call_with(0), ERR_WAITS);
    assert_int_equal(fw.fetches, 0);
}

static int open_world(void **state)
{
    (void)state;
    fed_world_open(&fw);
    fw.fed->on_alive = on_alive;
    revived = 0;
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    fed_world_close(&fw);
    return 0;
}

int main(void)
{
#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        WORLD_TEST(made_up_servers_take_nobodys_place),
        WORLD_TEST(pauses_grow_and_an_answer_ends_them),
        WORLD_TEST(a_sign_of_life_ends_a_pause),
        WORLD_TEST(a_call_may_go_anyway),
        WORLD_TEST(a_gateway_without_its_server_counts_as_a_failure),
        WORLD_TEST(long_pauses_outlive_a_restart),
        WORLD_TEST(calls_know_where_not_to_go),
        WORLD_TEST(an_answer_that_is_no_json_object_is_none),
        WORLD_TEST(refusals_keep_what_concerns_the_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
