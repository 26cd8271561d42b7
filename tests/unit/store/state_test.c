/* State trees against plain arrays, over random changes. */
#include "store/state_record.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { ROOM = 7, KEYS = 300, SNAPSHOTS = 400 };

struct bench {
    struct store *store;
    struct state_store *states;
    struct ctx ctx;
    uint64_t random;
    int64_t next_event;
    uint64_t roots[SNAPSHOTS];
    int64_t naive[SNAPSHOTS][KEYS + 1]; /* event per key, 0 = none */
};

static int setup(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    struct store_config config = {0};
    bench->ctx.arena = arena_new();
    bench->random = 42;
    bench->next_event = 1;
    assert_int_equal(store_open(&config, &bench->store).code, 0);
    bench->states = state_store_new(bench->store, 1 << 20);
    *state = bench;
    return 0;
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    state_store_free(&bench->states);
    store_close(&bench->store);
    arena_free(&bench->ctx.arena);
    free(bench);
    return 0;
}

static uint64_t draw(struct bench *bench, uint64_t below)
{
    bench->random = bench->random * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (bench->random >> 33) % below;
}

static struct store_update *update_new(struct bench *bench)
{
    struct store_object object = {STORE_ROOM_STATE, store_id_u64(bench->ctx.arena, ROOM)};
    return store_update_new(&bench->ctx, object);
}

static void write_update(struct bench *bench, struct store_update *update)
{
    assert_int_equal(store_write(bench->store, &bench->ctx, &update, 1).code, 0);
}

static uint64_t apply(struct bench *bench, uint64_t root, const struct state_entry *changes,
                      size_t count)
{
    uint64_t next = 0;
    struct store_update *update = update_new(bench);
    struct err err =
        state_apply(bench->states, &bench->ctx, ROOM, root, changes, count, update, &next);
    assert_int_equal(err.code, 0);
    write_update(bench, update);
    return next;
}

/* One to a few changes on top of a random older snapshot. */
static void grow_snapshot(struct bench *bench, size_t at)
{
    struct state_entry changes[60];
    size_t from = at == 0 ? 0 : draw(bench, 8) ? at - 1 : draw(bench, at);
    size_t count = draw(bench, 20) ? 1 + draw(bench, 3) : 60;
    uint64_t keys = 1 + at * KEYS / SNAPSHOTS; /* the tree grows in height over time */
    uint64_t root = at == 0 ? 0 : bench->roots[from];
    if (at) {
        memcpy(bench->naive[at], bench->naive[from], sizeof bench->naive[at]);
    }
    for (size_t i = 0; i < count; i++) {
        changes[i].key = 1 + draw(bench, keys);
        changes[i].event = draw(bench, 4) ? bench->next_event++ : 0;
        changes[i].event = draw(bench, 10) ? changes[i].event : -changes[i].event;
        if (draw(bench, 5) == 0) {
            changes[i].event = bench->naive[draw(bench, at + 1)][changes[i].key];
        }
        bench->naive[at][changes[i].key] = changes[i].event;
    }
    bench->roots[at] = apply(bench, root, changes, count);
}

static void check_snapshot(struct bench *bench, size_t at)
{
    struct state_entries entries;
    struct err err = state_read(bench->states, &bench->ctx, ROOM, bench->roots[at], &entries);
    size_t seen = 0;
    assert_int_equal(err.code, 0);
    for (uint64_t key = 1; key <= KEYS; key++) {
        int64_t event = 0;
        bool found = false;
        err = state_get(bench->states, &bench->ctx, ROOM, bench->roots[at], key, &event, &found);
        assert_int_equal(err.code, 0);
        assert_int_equal(event, bench->naive[at][key]);
        assert_int_equal(found, event != 0);
        if (event) {
            assert_true(seen < entries.count);
            assert_int_equal(entries.items[seen].key, key);
            assert_int_equal(entries.items[seen].event, event);
            seen++;
        }
    }
    assert_int_equal(entries.count, seen);
    arena_reset(bench->ctx.arena);
}

static void grow_all(struct bench *bench)
{
    for (size_t i = 0; i < SNAPSHOTS; i++) {
        grow_snapshot(bench, i);
    }
    arena_reset(bench->ctx.arena);
}

static void snapshots_equal_naive_maps(void **state)
{
    struct bench *bench = *state;
    grow_all(bench);
    for (size_t i = 0; i < SNAPSHOTS; i++) {
        check_snapshot(bench, i);
    }
    state_store_free(&bench->states);
    bench->states = state_store_new(bench->store, 0); /* cold, and hardly a cache */
    for (size_t i = 0; i < SNAPSHOTS; i++) {
        check_snapshot(bench, i);
    }
}

/* Page by page it is the same. */
static void check_diff_pages(struct bench *bench, size_t left, size_t right, size_t limit)
{
    struct state_page page = {
        .left = bench->roots[left], .right = bench->roots[right], .limit = limit};
    uint64_t key = 1;
    do {
        struct err err = state_diff_page(bench->states, &bench->ctx, ROOM, &page);
        assert_int_equal(err.code, 0);
        assert_true(page.count <= limit + 2 * STATE_LIST_MAX);
        for (size_t i = 0; i < page.count; i++) {
            while (key < page.items[i].key) {
                assert_int_equal(bench->naive[left][key], bench->naive[right][key]);
                key++;
            }
            assert_int_equal(page.items[i].key, key);
            assert_int_equal(page.items[i].left, bench->naive[left][key]);
            assert_int_equal(page.items[i].right, bench->naive[right][key]);
            assert_true(page.items[i].left != page.items[i].right);
            key++;
        }
    } while (page.more);
    for (; key <= KEYS; key++) {
        assert_int_equal(bench->naive[left][key], bench->naive[right][key]);
    }
}

static void check_diff(struct bench *bench, size_t left, size_t right)
{
    struct state_difference *items;
    size_t count;
    size_t seen = 0;
    bool equal = false;
    struct err err = state_diff(bench->states, &bench->ctx, ROOM, bench->roots[left],
                                bench->roots[right], &items, &count);
    assert_int_equal(err.code, 0);
    for (uint64_t key = 1; key <= KEYS; key++) {
        if (bench->naive[left][key] != bench->naive[right][key]) {
            assert_true(seen < count);
            assert_int_equal(items[seen].key, key);
            assert_int_equal(items[seen].left, bench->naive[left][key]);
            assert_int_equal(items[seen].right, bench->naive[right][key]);
            seen++;
        }
    }
    assert_int_equal(count, seen);
    err =
        state_eq(bench->states, &bench->ctx, ROOM, bench->roots[left], bench->roots[right], &equal);
    assert_int_equal(err.code, 0);
    assert_int_equal(equal, count == 0);
    check_diff_pages(bench, left, right, 1 + (left * 7 + right) % 20);
    arena_reset(bench->ctx.arena);
}

/* Reads old snapshots while newer ones are made. */
static void *read_old(void *arg)
{
    struct bench *shared = arg;
    struct ctx ctx = {.arena = arena_new()};
    for (uint64_t i = 0; i < 20000; i++) {
        size_t at = i * 7 % (SNAPSHOTS / 2);
        uint64_t key = 1 + i % KEYS;
        int64_t event = 0;
        bool found = false;
        struct err err =
            state_get(shared->states, &ctx, ROOM, shared->roots[at], key, &event, &found);
        ASSERT(err.code == 0);
        ASSERT(event == shared->naive[at][key]);
        arena_reset(ctx.arena);
    }
    arena_free(&ctx.arena);
    return NULL;
}

static void old_snapshots_are_read_while_new_ones_are_made(void **state)
{
    struct bench *bench = *state;
    pthread_t threads[3];
    state_store_free(&bench->states);
    bench->states = state_store_new(bench->store, 16 << 10); /* records come and go */
    for (size_t i = 0; i < SNAPSHOTS / 2; i++) {
        grow_snapshot(bench, i);
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, read_old, bench), 0);
    }
    for (size_t i = SNAPSHOTS / 2; i < SNAPSHOTS; i++) {
        grow_snapshot(bench, i);
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        pthread_join(threads[i], NULL);
    }
}

static void differences_equal_naive_ones(void **state)
{
    struct bench *bench = *state;
    grow_all(bench);
    for (size_t i = 0; i < 3000; i++) {
        check_diff(bench, draw(bench, SNAPSHOTS), draw(bench, SNAPSHOTS));
    }
}

static void equal_states_by_two_roads_are_equal(void **state)
{
    struct bench *bench = *state;
    uint64_t up = 0;
    uint64_t down = 0;
    bool equal = false;
    struct state_difference *items;
    size_t count;
    for (int64_t i = 1; i <= 200; i++) {
        up = apply(bench, up, &(struct state_entry){(uint64_t)i, i}, 1);
        down = apply(bench, down, &(struct state_entry){(uint64_t)(201 - i), 201 - i}, 1);
        arena_reset(bench->ctx.arena);
    }
    struct err err = state_eq(bench->states, &bench->ctx, ROOM, up, down, &equal);
    assert_int_equal(err.code, 0);
    assert_true(equal);
    assert_true(up != down);
    err = state_diff(bench->states, &bench->ctx, ROOM, up, down, &items, &count);
    assert_int_equal(err.code, 0);
    assert_int_equal(count, 0);
}

static void idle_changes_give_the_root_back(void **state)
{
    struct bench *bench = *state;
    const struct state_entry set[] = {{1, 10}, {2, 20}};
    const struct state_entry back[] = {{1, 99}, {1, 10}, {3, 0}};
    const struct state_entry clear[] = {{1, 0}, {2, 0}};
    uint64_t root = apply(bench, 0, set, 2);
    assert_int_equal(apply(bench, root, set, 2), root);
    assert_int_equal(apply(bench, root, back, 3), root);
    assert_int_equal(apply(bench, root, NULL, 0), root);
    assert_int_equal(apply(bench, root, clear, 2), 0);
}

static void unwritten_roots_can_be_built_upon(void **state)
{
    struct bench *bench = *state;
    uint64_t root = 0;
    struct store_update *update = update_new(bench);
    state_store_free(&bench->states);
    bench->states = state_store_new(bench->store, 0);
    for (int64_t i = 1; i <= 100; i++) {
        struct state_entry change = {(uint64_t)i, i};
        struct err err =
            state_apply(bench->states, &bench->ctx, ROOM, root, &change, 1, update, &root);
        assert_int_equal(err.code, 0);
        bench->naive[0][i] = i;
    }
    write_update(bench, update);
    bench->roots[0] = root;
    check_snapshot(bench, 0);
}

static struct err check_root(void *arg, uint64_t root)
{
    struct bench *bench = arg;
    bench->next_event--; /* counts */
    return state_check(bench->states, &bench->ctx, ROOM, root);
}

static void all_stored_roots_have_their_hashes(void **state)
{
    struct bench *bench = *state;
    uint64_t root = 0;
    for (int64_t i = 0; i < 2500; i++) {
        struct state_entry change = {1 + draw(bench, KEYS), i + 1};
        root = apply(bench, root, &change, 1);
    }
    bench->next_event = 2500;
    struct err err = state_each_root(bench->states, &bench->ctx, ROOM, check_root, bench);
    assert_int_equal(err.code, 0);
    assert_int_equal(bench->next_event, 0);
}

static void sweeping_keeps_what_roots_reach(void **state)
{
    struct bench *bench = *state;
    uint64_t kept[SNAPSHOTS / 10];
    uint64_t removed = 0;
    grow_all(bench);
    for (size_t i = 0; i < COUNT_OF(kept); i++) {
        kept[i] = bench->roots[i * 10];
    }
    struct err err = state_sweep(bench->states, &bench->ctx, ROOM, kept, COUNT_OF(kept), &removed);
    assert_int_equal(err.code, 0);
    assert_true(removed > SNAPSHOTS / 2);
    for (size_t i = 0; i < COUNT_OF(kept); i++) {
        check_snapshot(bench, i * 10);
    }
    assert_int_equal(state_sweep(bench->states, &bench->ctx, ROOM, NULL, 0, &removed).code, 0);
    struct store_object object = {STORE_ROOM_STATE, store_id_u64(bench->ctx.arena, ROOM)};
    struct store_rows rows;
    err = store_read_range(bench->store, &bench->ctx, object, (struct store_range){0}, &rows);
    assert_int_equal(err.code, 0);
    assert_int_equal(rows.count, 0);
    uint64_t newest = bench->roots[SNAPSHOTS - 1];
    assert_true(apply(bench, 0, &(struct state_entry){1, 1}, 1) > newest);
}

/* Builds a room with members 1 .. count in one change. */
static uint64_t fill_room(struct bench *bench, size_t count)
{
    struct state_entry *members = calloc(count, sizeof *members);
    for (size_t i = 0; i < count; i++) {
        members[i] = (struct state_entry){i + 1, (int64_t)i + 1};
    }
    bench->next_event = (int64_t)count + 1;
    uint64_t root = apply(bench, 0, members, count);
    free(members);
    return root;
}

static void storage_stays_a_fifth_of_the_events(void **state)
{
    enum { MEMBERS = 10000, CHANGES = 100000, EVENT_BYTES = 850 };
    struct bench *bench = *state;
    uint64_t root = fill_room(bench, MEMBERS);
    struct store_stats before;
    struct store_stats after;
    store_get_stats(bench->store, &before);
    int64_t start_us = now_mono_us();
    for (size_t i = 0; i < CHANGES; i++) {
        struct state_entry change = {1 + draw(bench, MEMBERS), bench->next_event++};
        root = apply(bench, root, &change, 1);
        arena_reset(bench->ctx.arena);
    }
    int64_t used_us = now_mono_us() - start_us;
    store_get_stats(bench->store, &after);
    double bytes = (double)(after.disk_bytes - before.disk_bytes) / CHANGES;
    print_message("state: %.1f bytes a change (%.3f of %d), %.2f us each\n", bytes,
                  bytes / EVENT_BYTES, EVENT_BYTES, (double)used_us / CHANGES);
    assert_true(bytes < 0.2 * EVENT_BYTES);
}

static void forks_of_a_large_room_compare_by_what_differs(void **state)
{
    struct bench *bench = *state;
    uint64_t base = fill_room(bench, 100000);
    uint64_t forks[2] = {base, base};
    struct state_difference *items = NULL;
    size_t count = 0;
    for (size_t i = 0; i < 40; i++) {
        struct state_entry change = {1 + i * 2011, bench->next_event++};
        forks[i & 1] = apply(bench, forks[i & 1], &change, 1);
    }
    arena_reset(bench->ctx.arena);
    int64_t start_us = now_mono_us();
    struct err err =
        state_diff(bench->states, &bench->ctx, ROOM, forks[0], forks[1], &items, &count);
    int64_t used_us = now_mono_us() - start_us;
    assert_int_equal(err.code, 0);
    assert_int_equal(count, 40);
    print_message("state: two forks of 20 changes over 100,000 members: %lld us\n",
                  (long long)used_us);
    assert_true(arena_used_bytes(bench->ctx.arena) < 1 << 20); /* it did not read the room */
}

static void failing_calls_are_reported_and_change_nothing(void **state)
{
    struct bench *bench = *state;
    bench->roots[0] = fill_room(bench, KEYS);
    for (int64_t i = 1; i <= KEYS; i++) {
        bench->naive[0][i] = i;
    }
    uint32_t code = ERR_IO;
    int32_t k = 1;
    for (; code == ERR_IO; k++) {
        struct state_entry changes[40];
        uint64_t next = 0;
        for (size_t i = 0; i < COUNT_OF(changes); i++) {
            changes[i] = (struct state_entry){1 + i * 7, 5000 + (int64_t)i};
        }
        state_store_free(&bench->states);
        bench->states = state_store_new(bench->store, 1 << 20);
        struct store_update *update = update_new(bench);
        store_fail_after(bench->store, k);
        struct err err = state_apply(bench->states, &bench->ctx, ROOM, bench->roots[0], changes,
                                     COUNT_OF(changes), update, &next);
        err = err.code ? err : store_write(bench->store, &bench->ctx, &update, 1);
        store_fail_after(bench->store, 0);
        code = err.code;
        check_snapshot(bench, 0);
    }
    assert_int_equal(code, 0);
    assert_true(k > 4);
}

static void missing_and_malformed_records_are_reported(void **state)
{
    struct bench *bench = *state;
    int64_t event = 0;
    bool found = false;
    struct err err = state_get(bench->states, &bench->ctx, ROOM, 99, 1, &event, &found);
    assert_int_equal(err.code, ERR_CORRUPT);
    struct store_update *update = update_new(bench);
    store_put(update, (struct slice){"r\1\7", 3}, LIT("junk"));
    write_update(bench, update);
    err = state_get(bench->states, &bench->ctx, ROOM, 7, 1, &event, &found);
    assert_int_equal(err.code, ERR_CORRUPT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(snapshots_equal_naive_maps),
        TEST(old_snapshots_are_read_while_new_ones_are_made),
        TEST(differences_equal_naive_ones),
        TEST(equal_states_by_two_roads_are_equal),
        TEST(idle_changes_give_the_root_back),
        TEST(unwritten_roots_can_be_built_upon),
        TEST(all_stored_roots_have_their_hashes),
        TEST(sweeping_keeps_what_roots_reach),
        TEST(storage_stays_a_fifth_of_the_events),
        TEST(forks_of_a_large_room_compare_by_what_differs),
        TEST(failing_calls_are_reported_and_change_nothing),
        TEST(missing_and_malformed_records_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
