#include "store/positions.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

struct bench {
    struct store *store;
    struct positions *positions;
    struct ctx ctx;
    uint64_t seen[20000];
    size_t seen_count;
    uint64_t woken;
    bool early; /* a listener ran after its position was published */
};

static void on_change(void *arg, const struct change *change)
{
    struct bench *bench = arg;
    bench->early |= positions_published(bench->positions) >= change->pos;
    bench->seen[bench->seen_count++] = change->pos;
}

static void on_published(void *arg, uint64_t pos)
{
    struct bench *bench = arg;
    bench->early |= positions_published(bench->positions) != pos;
    bench->woken = pos;
}

static void open_positions(struct bench *bench)
{
    assert_int_equal(positions_open(bench->store, &bench->ctx, &bench->positions).code, 0);
    positions_listen(bench->positions, on_change, bench);
    positions_on_published(bench->positions, on_published, bench);
}

static int setup(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    bench->ctx.arena = arena_new();
    struct store_config config = {0};
    assert_int_equal(store_open(&config, &bench->store).code, 0);
    open_positions(bench);
    *state = bench;
    return 0;
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    positions_close(&bench->positions);
    store_close(&bench->store);
    arena_free(&bench->ctx.arena);
    free(bench);
    return 0;
}

static uint64_t write_row(struct bench *bench, uint64_t pos)
{
    struct ctx ctx = {.arena = arena_new()};
    struct store_update *update =
        store_update_new(&ctx, (struct store_object){.kind = STORE_POSITIONS});
    store_put(update, store_id_u64(ctx.arena, pos), LIT("x"));
    assert_int_equal(store_write(bench->store, &ctx, &update, 1).code, 0);
    arena_free(&ctx.arena);
    return ctx.write_ticket;
}

static void complete(struct bench *bench, uint64_t pos)
{
    struct change change = {.pos = pos, .kind = CHANGE_EVENT, .room = 1};
    positions_complete(bench->positions, &change, write_row(bench, pos));
}

static void changes_are_published_in_order(void **state)
{
    struct bench *bench = *state;
    uint64_t pos[5];
    for (size_t i = 0; i < 5; i++) {
        pos[i] = positions_reserve(bench->positions);
        assert_int_equal(pos[i], pos[0] + i);
    }
    assert_int_equal(positions_newest(bench->positions), pos[4]);
    complete(bench, pos[3]);
    complete(bench, pos[1]);
    positions_abandon(bench->positions, pos[2]);
    assert_int_equal(positions_published(bench->positions), pos[0] - 1);
    complete(bench, pos[0]);
    positions_wait(bench->positions, pos[3]);
    struct change unstored = {.pos = pos[4], .kind = CHANGE_TYPING};
    positions_complete(bench->positions, &unstored, 0);
    positions_wait(bench->positions, pos[4]);
    positions_close(&bench->positions);
    assert_int_equal(bench->seen_count, 4);
    assert_int_equal(bench->seen[0], pos[0]);
    assert_int_equal(bench->seen[1], pos[1]);
    assert_int_equal(bench->seen[2], pos[3]);
    assert_int_equal(bench->seen[3], pos[4]);
    assert_int_equal(bench->woken, pos[4]);
    assert_false(bench->early);
}

static void a_last_abandoned_position_counts_as_published(void **state)
{
    struct bench *bench = *state;
    uint64_t pos = positions_reserve(bench->positions);
    positions_abandon(bench->positions, pos);
    positions_wait(bench->positions, pos);
    assert_int_equal(positions_published(bench->positions), pos);
}

static void no_position_is_given_twice_over_restarts(void **state)
{
    struct bench *bench = *state;
    uint64_t last = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 6000; i++) {
            uint64_t pos = positions_reserve(bench->positions);
            assert_true(pos > last);
            last = pos;
            positions_abandon(bench->positions, pos);
        }
        positions_close(&bench->positions);
        open_positions(bench);
        assert_true(positions_published(bench->positions) >= last);
    }
}

static void nothing_is_published_when_the_disk_fails(void **state)
{
    struct bench *bench = *state;
    store_fail_after(bench->store, -1);
    uint64_t pos = positions_reserve(bench->positions);
    complete(bench, pos);
    positions_wait(bench->positions, pos); /* returns: it never will be */
    assert_true(positions_published(bench->positions) < pos);
    assert_int_equal(bench->seen_count, 0);
}

static void failing_to_open_is_reported(void **state)
{
    struct bench *bench = *state;
    positions_close(&bench->positions);
    for (int k = 1; k <= 2; k++) {
        store_fail_after(bench->store, k);
        struct err err = positions_open(bench->store, &bench->ctx, &bench->positions);
        assert_int_equal(err.code, ERR_IO);
        assert_null(bench->positions);
    }
}

static void *run_writer(void *arg)
{
    struct bench *bench = arg;
    for (int i = 0; i < 2000; i++) {
        uint64_t pos = positions_reserve(bench->positions);
        if (i % 7 == 0) {
            positions_abandon(bench->positions, pos);
        } else {
            complete(bench, pos);
        }
    }
    return NULL;
}

static void many_writers_keep_the_order(void **state)
{
    struct bench *bench = *state;
    pthread_t threads[4];
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, run_writer, bench), 0);
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    positions_wait(bench->positions, positions_newest(bench->positions));
    positions_close(&bench->positions);
    assert_int_equal(bench->seen_count, 4 * (2000 - 286));
    for (size_t i = 1; i < bench->seen_count; i++) {
        assert_true(bench->seen[i] > bench->seen[i - 1]);
    }
    assert_false(bench->early);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(changes_are_published_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_last_abandoned_position_counts_as_published, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(no_position_is_given_twice_over_restarts, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_published_when_the_disk_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(failing_to_open_is_reported, setup, teardown),
        cmocka_unit_test_setup_teardown(many_writers_keep_the_order, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
