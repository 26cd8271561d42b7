/* Parts that run at once, and many threads that ask for one key. */
#include "federation/parallel.h"
#include "tests/support/fed_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>

enum { PARTS = 500, THREADS = 8 };

static struct fed_world fw;

struct tally {
    _Atomic unsigned done[PARTS];
    _Atomic unsigned at_once, most;
};

static void count_part(void *arg, struct ctx *ctx, size_t index)
{
    struct tally *tally = arg;
    unsigned now = atomic_fetch_add(&tally->at_once, 1) + 1;
    unsigned most = tally->most;
    while (now > most && !atomic_compare_exchange_weak(&tally->most, &most, now)) {
    }
    assert_true(ctx->may_wait);
    arena_alloc(ctx->arena, 100);
    tally->done[index]++;
    atomic_fetch_sub(&tally->at_once, 1);
}

static void each_part_runs_once(void **state)
{
    static struct tally tally;
    (void)state;
    for (int round = 0; round < 20; round++) {
        const struct fed_parts parts = {
            .count = PARTS, .width_max = 4, .within_ms = 1000, .fn = count_part, .arg = &tally};
        fed_parallel(fw.fed, &fw.world.ctx, &parts);
        for (size_t i = 0; i < PARTS; i++) {
            assert_int_equal(tally.done[i], round + 1);
        }
    }
    assert_true(tally.most <= 4);
}

static void end_the_time(void *arg, struct ctx *ctx, size_t index)
{
    (void)index;
    ((struct tally *)arg)->done[0]++;
    assert_int_equal(ctx->deadline_mono_ms, 1000 + 50);
    fw.world.mono_ms += 50;
}

static void parts_that_come_too_late_are_left_out(void **state)
{
    static struct tally tally;
    struct workers *waiters = fw.world.hs.waiters;
    const struct fed_parts parts = {
        .count = PARTS, .width_max = 4, .within_ms = 50, .fn = end_the_time, .arg = &tally};
    (void)state;
    fw.world.hs.waiters = NULL; /* one after the other */
    fed_parallel(fw.fed, &fw.world.ctx, &parts);
    fw.world.hs.waiters = waiters;
    assert_int_equal(tally.done[0], 1);
}

static _Atomic unsigned asked;

static struct err answer_nothing(struct fed_world *world, const struct http_fetch_request *request,
                                 struct http_fetch_reply *reply)
{
    (void)world;
    (void)request;
    (void)reply;
    atomic_fetch_add(&asked, 1);
    return err_make(ERR_UNAVAILABLE, "down");
}

static void *ask_for_a_key(void *arg)
{
    struct ctx ctx = {.arena = arena_new(), .now = &fw.world.now, .may_wait = true};
    struct fed_key_query query = {LIT("peer.org:1"), LIT("ed25519:1"), FED_KEY_REQUEST,
                                  fw.world.wall_ms};
    struct ed25519_public key;
    bool found = true;
    (void)arg;
    struct err err = fed_key_get(fw.fed, &ctx, &query, &key, &found);
    ASSERT(err.code == 0);
    ASSERT(!found);
    arena_free(&ctx.arena);
    return NULL;
}

static void many_who_want_a_key_cost_one_request(void **state)
{
    pthread_t threads[THREADS];
    (void)state;
    fw.on_fetch = answer_nothing;
    asked = 0;
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, ask_for_a_key, NULL), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(asked, 1);
}

static int open_world(void **state)
{
    (void)state;
    fed_world_open(&fw);
    fw.world.hs.waiters = workers_new("wait", 6, 1000);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    workers_free(&fw.world.hs.waiters);
    fed_world_close(&fw);
    return 0;
}

int main(void)
{
#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        WORLD_TEST(each_part_runs_once),
        WORLD_TEST(parts_that_come_too_late_are_left_out),
        WORLD_TEST(many_who_want_a_key_cost_one_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
