/* The same behaviours on both backends; what only one has is tested at the end. */
#include "store/store.h"

#include "spec/errcodes.h"

#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <signal.h>
#include <cmocka.h>

struct bench {
    struct store *store;
    struct ctx ctx;
    char path[64]; /* empty = in memory */
};

static const struct store_object room = {.kind = STORE_ROOM, .id = {"r1", 2}};

static void bench_open(struct bench *bench)
{
    struct store_config config = {
        .path = slice_of(bench->path), .arena = bench->ctx.arena, .cache_bytes = 8 << 20};
    struct err err = store_open(&config, &bench->store);
    assert_int_equal(err.code, 0);
}

static void bench_reopen(struct bench *bench)
{
    store_close(&bench->store);
    assert_null(bench->store);
    bench_open(bench);
}

static int setup_memory(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    bench->ctx.arena = arena_new();
    bench_open(bench);
    *state = bench;
    return 0;
}

static int setup_rocksdb(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    bench->ctx.arena = arena_new();
    snprintf(bench->path, sizeof bench->path, "/tmp/myelin-store-XXXXXX");
    assert_non_null(mkdtemp(bench->path));
    bench_open(bench);
    *state = bench;
    return 0;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *at)
{
    (void)info;
    (void)type;
    (void)at;
    return remove(path);
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    store_close(&bench->store);
    arena_free(&bench->ctx.arena);
    if (bench->path[0]) {
        assert_int_equal(nftw(bench->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
    }
    free(bench);
    return 0;
}

static void put(struct bench *bench, struct store_object object, const char *key, const char *value)
{
    struct store_update *update = store_update_new(&bench->ctx, object);
    store_put(update, slice_of(key), slice_of(value));
    assert_int_equal(store_write(bench->store, &bench->ctx, &update, 1).code, 0);
}

/* The value under key, or "-". */
static const char *get(struct bench *bench, struct store_object object, const char *key)
{
    struct slice value;
    bool found;
    struct err err = store_get(bench->store, &bench->ctx, object, slice_of(key), &value, &found);
    assert_int_equal(err.code, 0);
    return found ? arena_cstr(bench->ctx.arena, value) : "-";
}

/* The keys of a range, joined by spaces. */
static const char *keys(struct bench *bench, struct store_object object, struct store_range range)
{
    struct store_rows rows;
    struct slice text = LIT("");
    struct err err = store_read_range(bench->store, &bench->ctx, object, range, &rows);
    assert_int_equal(err.code, 0);
    for (size_t i = 0; i < rows.count; i++) {
        text = arena_concat(bench->ctx.arena, text, rows.rows[i].key);
        text = i + 1 < rows.count ? arena_concat(bench->ctx.arena, text, LIT(" ")) : text;
    }
    return arena_cstr(bench->ctx.arena, text);
}

static void rows_are_read_back_changed_and_deleted(void **state)
{
    struct bench *bench = *state;
    put(bench, room, "a", "1");
    put(bench, room, "empty", "");
    assert_string_equal(get(bench, room, "a"), "1");
    assert_string_equal(get(bench, room, "empty"), "");
    assert_string_equal(get(bench, room, "b"), "-");
    put(bench, room, "a", "2");
    assert_string_equal(get(bench, room, "a"), "2");
    struct store_update *update = store_update_new(&bench->ctx, room);
    store_delete(update, LIT("a"));
    assert_int_equal(store_write(bench->store, &bench->ctx, &update, 1).code, 0);
    assert_string_equal(get(bench, room, "a"), "-");
}

static void ranges_keep_order_limits_and_bounds(void **state)
{
    struct bench *bench = *state;
    const char *all[] = {"d", "a", "c", "b", "e"};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        put(bench, room, all[i], "x");
    }
    struct store_range some = {.from = LIT("b"), .to = LIT("e")};
    struct store_range back = {.from = LIT("b"), .to = LIT("e"), .order = STORE_REVERSE};
    assert_string_equal(keys(bench, room, (struct store_range){0}), "a b c d e");
    assert_string_equal(keys(bench, room, (struct store_range){.limit = 2}), "a b");
    assert_string_equal(keys(bench, room, some), "b c d");
    assert_string_equal(keys(bench, room, back), "d c b");
    back.limit = 1;
    assert_string_equal(keys(bench, room, back), "d");
    back = (struct store_range){.order = STORE_REVERSE};
    assert_string_equal(keys(bench, room, back), "e d c b a");
    some = (struct store_range){.from = LIT("d"), .to = LIT("b")};
    assert_string_equal(keys(bench, room, some), "");
}

static void objects_do_not_overlap(void **state)
{
    static const struct store_object objects[] = {
        {STORE_ROOM, {"", 0}},      {STORE_ROOM, {"a", 1}},        {STORE_ROOM, {"aa", 2}},
        {STORE_ROOM, {"\xff", 1}},  {STORE_ROOM, {"\xff\xff", 2}}, {STORE_ROOM, {"a\0", 2}},
        {STORE_ROOM_IDS, {"a", 1}}, {STORE_USER, {"\xff\xff", 2}}, {STORE_ROOM, {"\0", 1}},
    };
    struct bench *bench = *state;
    char key[8];
    for (size_t i = 0; i < COUNT_OF(objects); i++) {
        snprintf(key, sizeof key, "a%zu", i);
        put(bench, objects[i], key, "x");
    }
    for (size_t i = 0; i < COUNT_OF(objects); i++) {
        struct store_range back = {.order = STORE_REVERSE};
        snprintf(key, sizeof key, "a%zu", i);
        assert_string_equal(keys(bench, objects[i], (struct store_range){0}), key);
        assert_string_equal(keys(bench, objects[i], back), key);
    }
}

static void an_update_applies_in_order(void **state)
{
    struct bench *bench = *state;
    put(bench, room, "k3", "old");
    struct store_update *update = store_update_new(&bench->ctx, room);
    store_put(update, LIT("k1"), LIT("1"));
    store_put(update, LIT("k5"), LIT("5"));
    store_delete_range(update, LIT("k1"), LIT("k4"));
    store_put(update, LIT("k2"), LIT("2"));
    store_delete_range(update, LIT("k9"), LIT("k1")); /* empty */
    assert_int_equal(store_write(bench->store, &bench->ctx, &update, 1).code, 0);
    assert_string_equal(keys(bench, room, (struct store_range){0}), "k2 k5");
}

static void large_ranges_are_deleted_within_their_object(void **state)
{
    struct bench *bench = *state;
    const struct store_object other = {STORE_ROOM, LIT("r2")};
    char key[16];
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "k%03d", i);
        put(bench, room, key, "x");
    }
    put(bench, other, "k000", "x");
    struct store_update *update = store_update_new(&bench->ctx, room);
    store_delete_range(update, LIT("k001"), LIT("k299"));
    assert_int_equal(store_write(bench->store, &bench->ctx, &update, 1).code, 0);
    assert_string_equal(keys(bench, room, (struct store_range){0}), "k000 k299");
    update = store_update_new(&bench->ctx, room);
    store_delete_range(update, LIT(""), LIT(""));
    assert_int_equal(store_write(bench->store, &bench->ctx, &update, 1).code, 0);
    assert_int_equal(store_compact(bench->store, STORE_ROOM).code, 0);
    assert_int_equal(store_compact_object(bench->store, &bench->ctx, other).code, 0);
    assert_string_equal(keys(bench, room, (struct store_range){0}), "");
    assert_string_equal(keys(bench, other, (struct store_range){0}), "k000");
}

static uint32_t write_if(struct bench *bench, const char *key, struct slice expected)
{
    struct store_update *updates[2] = {
        store_update_new(&bench->ctx, (struct store_object){STORE_USER, LIT("u")}),
        store_update_new(&bench->ctx, room),
    };
    store_put(updates[0], LIT("other"), LIT("x"));
    store_put(updates[1], slice_of(key), LIT("new"));
    store_expect(updates[1], slice_of(key), expected);
    return store_write(bench->store, &bench->ctx, updates, 2).code;
}

static void conditions_hold_for_all_updates_or_none(void **state)
{
    struct bench *bench = *state;
    const struct store_object user = {STORE_USER, LIT("u")};
    put(bench, room, "a", "1");
    assert_int_equal(write_if(bench, "a", (struct slice){0}), ERR_CONFLICT);
    assert_int_equal(write_if(bench, "a", LIT("2")), ERR_CONFLICT);
    assert_int_equal(write_if(bench, "b", LIT("")), ERR_CONFLICT);
    assert_string_equal(get(bench, user, "other"), "-");
    assert_int_equal(write_if(bench, "a", LIT("1")), ERR_OK);
    assert_int_equal(write_if(bench, "b", (struct slice){0}), ERR_OK);
    assert_string_equal(get(bench, room, "a"), "new");
    assert_string_equal(get(bench, room, "b"), "new");
    assert_string_equal(get(bench, user, "other"), "x");
}

enum { COUNTING_THREADS = 4, COUNTS_EACH = 200 };

/* Adds one to the row "count", again and again, by compare and update. */
static void *count_up(void *arg)
{
    struct bench *shared = arg;
    struct ctx ctx = {.arena = arena_new()};
    for (int done = 0; done < COUNTS_EACH;) {
        struct slice old = {0};
        uint64_t number = 0;
        bool found = false;
        struct err err = store_get(shared->store, &ctx, room, LIT("count"), &old, &found);
        struct store_update *update = store_update_new(&ctx, room);
        slice_parse_u64(old, &number);
        store_expect(update, LIT("count"), old);
        store_put(update, LIT("count"), arena_printf(ctx.arena, "%d", (int)number + 1));
        err = err.code ? err : store_write(shared->store, &ctx, &update, 1);
        done += err.code == 0;
        ASSERT(err.code == 0 || err.code == ERR_CONFLICT);
        arena_reset(ctx.arena);
    }
    arena_free(&ctx.arena);
    return NULL;
}

static void racing_compare_and_update_loses_nothing(void **state)
{
    struct bench *bench = *state;
    pthread_t threads[COUNTING_THREADS];
    char expected[16];
    for (size_t i = 0; i < COUNTING_THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, bench), 0);
    }
    for (size_t i = 0; i < COUNTING_THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    snprintf(expected, sizeof expected, "%d", COUNTING_THREADS * COUNTS_EACH);
    assert_string_equal(get(bench, room, "count"), expected);
}

static struct err collect(void *arg, struct slice id)
{
    struct bench *bench = arg;
    put(bench, (struct store_object){STORE_SERVER, LIT("seen")}, arena_cstr(bench->ctx.arena, id),
        "1");
    return OK;
}

static void each_object_is_visited_once(void **state)
{
    struct bench *bench = *state;
    char id[8];
    for (int i = 0; i < 600; i++) {
        snprintf(id, sizeof id, "%04d", i);
        struct store_object object = {STORE_INBOX, slice_of(id)};
        put(bench, object, "a", "x");
        put(bench, object, "b", "x");
    }
    struct err err = store_each_object(bench->store, &bench->ctx, STORE_INBOX, collect, bench);
    assert_int_equal(err.code, 0);
    struct store_rows rows;
    struct store_object seen = {STORE_SERVER, LIT("seen")};
    err = store_read_range(bench->store, &bench->ctx, seen, (struct store_range){0}, &rows);
    assert_int_equal(err.code, 0);
    assert_int_equal(rows.count, 600);
}

static void count_call(void *arg, struct err err)
{
    int *calls = arg;
    *calls += err.code == 0 ? 1 : 100;
}

static void tickets_become_durable_in_order(void **state)
{
    struct bench *bench = *state;
    int calls = 0;
    uint64_t before = bench->ctx.write_ticket;
    put(bench, room, "a", "1");
    uint64_t first = bench->ctx.write_ticket;
    assert_true(first > before);
    put(bench, room, "a", "2");
    assert_true(bench->ctx.write_ticket > first);
    store_when_durable(bench->store, first, count_call, &calls);
    assert_int_equal(store_wait_durable(bench->store, bench->ctx.write_ticket).code, 0);
    assert_int_equal(calls, 1);
    assert_true(store_durable_ticket(bench->store) >= first);
    store_when_durable(bench->store, first, count_call, &calls);
    assert_int_equal(calls, 2); /* at once */
    struct store_stats stats;
    store_get_stats(bench->store, &stats);
    assert_true(stats.writes >= 2);
    assert_true(stats.flushes >= 1);
    assert_int_equal(stats.pending, 0);
}

static void blobs_are_published_whole_and_replaced(void **state)
{
    struct bench *bench = *state;
    struct store_blob_writer *writer;
    int fd;
    int64_t size;
    bool found;
    char text[8] = {0};
    assert_int_equal(store_blob_open(bench->store, LIT("b1"), &fd, &size, &found).code, 0);
    assert_false(found);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(store_blob_begin(bench->store, &writer).code, 0);
        assert_int_equal(store_blob_append(writer, LIT("he")).code, 0);
        assert_int_equal(store_blob_append(writer, LIT("llo")).code, 0);
        assert_int_equal(store_blob_commit(&writer, LIT("b1")).code, 0);
        assert_null(writer);
    }
    assert_int_equal(store_blob_open(bench->store, LIT("b1"), &fd, &size, &found).code, 0);
    assert_true(found);
    assert_int_equal(size, 5);
    assert_int_equal(read(fd, text, sizeof text), 5);
    assert_string_equal(text, "hello");
    close(fd);
    assert_int_equal(store_blob_delete(bench->store, LIT("b1")).code, 0);
    assert_int_equal(store_blob_delete(bench->store, LIT("b1")).code, 0);
    assert_int_equal(store_blob_open(bench->store, LIT("b1"), &fd, &size, &found).code, 0);
    assert_false(found);
}

static void bad_blob_names_are_refused_and_leave_nothing(void **state)
{
    static const char *names[] = {"", "..", "a/b", "a.b", "\xc3\xa9"};
    struct bench *bench = *state;
    struct store_blob_writer *writer;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        assert_int_equal(store_blob_begin(bench->store, &writer).code, 0);
        assert_int_equal(store_blob_commit(&writer, slice_of(names[i])).code, ERR_INTERNAL);
        assert_null(writer);
    }
    store_blob_abort(&writer);
}

static void keys_that_are_too_long_are_refused_and_not_found(void **state)
{
    struct bench *bench = *state;
    struct slice value;
    bool found = true;
    char *bytes = arena_alloc(bench->ctx.arena, STORE_KEY_BYTES_MAX + 1);
    memset(bytes, 'k', STORE_KEY_BYTES_MAX + 1);
    struct slice key = {bytes, STORE_KEY_BYTES_MAX + 1};
    struct store_update *update = store_update_new(&bench->ctx, room);
    store_put(update, LIT("a"), LIT("1"));
    store_put(update, key, LIT("1"));
    assert_int_equal(store_write(bench->store, &bench->ctx, &update, 1).code, ERR_M_TOO_LARGE);
    assert_string_equal(get(bench, room, "a"), "-");
    assert_int_equal(store_get(bench->store, &bench->ctx, room, key, &value, &found).code, 0);
    assert_false(found);
}

/* --- faults (in memory) --- */

static void a_failed_call_changes_nothing(void **state)
{
    struct bench *bench = *state;
    int calls = 0;
    put(bench, room, "a", "1");
    for (uint32_t code = ERR_IO; code == ERR_IO; calls++) {
        assert_string_equal(get(bench, room, "b"), "-");
        store_fail_after(bench->store, calls + 1);
        struct store_update *update = store_update_new(&bench->ctx, room);
        store_put(update, LIT("a"), LIT("2"));
        store_put(update, LIT("b"), LIT("2"));
        store_expect(update, LIT("a"), LIT("1"));
        code = store_write(bench->store, &bench->ctx, &update, 1).code;
        store_fail_after(bench->store, 0);
    }
    assert_int_equal(calls, 3); /* the check, the write, then success */
    assert_string_equal(get(bench, room, "a"), "2");
    assert_string_equal(get(bench, room, "b"), "2");
}

static void failed_reads_are_reported(void **state)
{
    struct bench *bench = *state;
    struct slice value;
    struct store_rows rows;
    bool found;
    put(bench, room, "a", "1");
    store_fail_after(bench->store, 1);
    struct err err = store_get(bench->store, &bench->ctx, room, LIT("a"), &value, &found);
    assert_int_equal(err.code, ERR_IO);
    store_fail_after(bench->store, 1);
    err = store_read_range(bench->store, &bench->ctx, room, (struct store_range){0}, &rows);
    assert_int_equal(err.code, ERR_IO);
}

static void a_failed_flush_stops_all_writing(void **state)
{
    struct bench *bench = *state;
    int calls = 0;
    put(bench, room, "a", "1");
    assert_int_equal(store_wait_durable(bench->store, bench->ctx.write_ticket).code, 0);
    store_fail_after(bench->store, -1);
    put(bench, room, "a", "2");
    store_when_durable(bench->store, bench->ctx.write_ticket, count_call, &calls);
    assert_int_equal(store_wait_durable(bench->store, bench->ctx.write_ticket).code, ERR_IO);
    assert_int_equal(calls, 100);
    struct store_update *update = store_update_new(&bench->ctx, room);
    store_put(update, LIT("a"), LIT("3"));
    assert_int_equal(store_write(bench->store, &bench->ctx, &update, 1).code, ERR_IO);
    assert_string_equal(get(bench, room, "a"), "2");
}

/* --- on disk --- */

static void data_survives_closing(void **state)
{
    struct bench *bench = *state;
    put(bench, room, "a", "1");
    bench_reopen(bench);
    assert_string_equal(get(bench, room, "a"), "1");
    put(bench, room, "a", "2");
    bench_reopen(bench);
    assert_string_equal(get(bench, room, "a"), "2");
}

/* Its own process: writes rows until it is killed, and tells on `fd` which are durable. */
static int write_until_killed(const char *path, int fd)
{
    struct bench bench = {.ctx.arena = arena_new()};
    char key[16];
    snprintf(bench.path, sizeof bench.path, "%s", path);
    bench_open(&bench);
    for (uint32_t i = 0;; i++) {
        snprintf(key, sizeof key, "k%06u", i);
        put(&bench, room, key, "x");
        if (i % 16 == 15) {
            struct err err = store_wait_durable(bench.store, bench.ctx.write_ticket);
            if (err.code != 0 || write(fd, &i, sizeof i) != sizeof i) {
                return 1;
            }
            arena_reset(bench.ctx.arena);
        }
    }
}

static void durable_rows_survive_a_kill(void **state)
{
    struct bench *bench = *state;
    int pipe_fds[2];
    uint32_t last = 0;
    char key[16];
    store_close(&bench->store);
    assert_int_equal(pipe(pipe_fds), 0);
    snprintf(key, sizeof key, "%d", pipe_fds[1]);
    pid_t child = fork();
    if (child == 0) {
        execl("/proc/self/exe", "writer", bench->path, key, NULL);
        _exit(1);
    }
    close(pipe_fds[1]);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(read(pipe_fds[0], &last, sizeof last), sizeof last);
    }
    kill(child, SIGKILL);
    while (read(pipe_fds[0], &last, sizeof last) == sizeof last) {
    }
    close(pipe_fds[0]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    bench_open(bench);
    for (uint32_t i = 0; i <= last; i++) {
        snprintf(key, sizeof key, "k%06u", i);
        assert_string_equal(get(bench, room, key), "x");
    }
}

static void a_second_opener_is_refused(void **state)
{
    struct bench *bench = *state;
    struct store *second = NULL;
    struct store_config config = {.path = slice_of(bench->path), .arena = bench->ctx.arena};
    struct err err = store_open(&config, &second);
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, "in use"));
    assert_null(second);
}

static void a_foreign_folder_is_refused(void **state)
{
    struct bench *bench = *state;
    struct store *second = NULL;
    char path[80];
    snprintf(path, sizeof path, "%s/media", bench->path);
    struct store_blob_writer *writer;
    assert_int_equal(store_blob_begin(bench->store, &writer).code, 0);
    struct store_config config = {.path = slice_of(path), .arena = bench->ctx.arena};
    struct err err = store_open(&config, &second);
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, "path right"));
    store_blob_abort(&writer);
}

static void a_newer_schema_is_refused(void **state)
{
    struct bench *bench = *state;
    struct store_object meta = {.kind = STORE_META};
    put(bench, meta, "schema", "\x63");
    store_close(&bench->store);
    struct store_config config = {.path = slice_of(bench->path), .arena = bench->ctx.arena};
    struct err err = store_open(&config, &bench->store);
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, "newer version"));
    assert_null(bench->store);
}

static void a_closed_store_can_be_read_without_changing_it(void **state)
{
    struct bench *bench = *state;
    put(bench, room, "a", "1");
    store_close(&bench->store);
    struct store_config config = {
        .path = slice_of(bench->path), .arena = bench->ctx.arena, .access = STORE_READ_ONLY};
    assert_int_equal(store_open(&config, &bench->store).code, 0);
    assert_string_equal(get(bench, room, "a"), "1");
    struct store_update *update = store_update_new(&bench->ctx, room);
    store_put(update, LIT("a"), LIT("3"));
    assert_int_equal(store_write(bench->store, &bench->ctx, &update, 1).code, ERR_IO);
}

#define BOTH(test)                                                                                 \
    cmocka_unit_test_setup_teardown(test, setup_memory, teardown),                                 \
        cmocka_unit_test_setup_teardown(test, setup_rocksdb, teardown)
#define MEMORY(test) cmocka_unit_test_setup_teardown(test, setup_memory, teardown)
#define ON_DISK(test) cmocka_unit_test_setup_teardown(test, setup_rocksdb, teardown)

int main(int argc, char **argv)
{
    if (argc == 3) {
        uint64_t fd = 0;
        return slice_parse_u64(slice_of(argv[2]), &fd) ? write_until_killed(argv[1], (int)fd) : 2;
    }
    const struct CMUnitTest tests[] = {
        BOTH(rows_are_read_back_changed_and_deleted),
        BOTH(ranges_keep_order_limits_and_bounds),
        BOTH(objects_do_not_overlap),
        BOTH(an_update_applies_in_order),
        BOTH(large_ranges_are_deleted_within_their_object),
        BOTH(conditions_hold_for_all_updates_or_none),
        BOTH(racing_compare_and_update_loses_nothing),
        BOTH(each_object_is_visited_once),
        BOTH(tickets_become_durable_in_order),
        BOTH(blobs_are_published_whole_and_replaced),
        BOTH(bad_blob_names_are_refused_and_leave_nothing),
        BOTH(keys_that_are_too_long_are_refused_and_not_found),
        MEMORY(a_failed_call_changes_nothing),
        MEMORY(failed_reads_are_reported),
        MEMORY(a_failed_flush_stops_all_writing),
        ON_DISK(data_survives_closing),
        ON_DISK(durable_rows_survive_a_kill),
        ON_DISK(a_second_opener_is_refused),
        ON_DISK(a_foreign_folder_is_refused),
        ON_DISK(a_newer_schema_is_refused),
        ON_DISK(a_closed_store_can_be_read_without_changing_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
