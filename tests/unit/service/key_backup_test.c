#include "homeserver/service/key_backup.h"

#include "homeserver/service/device_keys.h"
#include "tests/support/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct world w;
static uint64_t ann, version;
static struct key_backup backup;

static uint64_t create(void)
{
    struct key_backup draft = {.algorithm = LIT("m.test"), .auth_data = LIT("{}")};
    uint64_t made = 0;
    assert_int_equal(hs_key_backup_create(&w.hs, &w.ctx, ann, &draft, &made).code, 0);
    return made;
}

static int open_world(void **state)
{
    (void)state;
    world_open(&w, 0);
    assert_int_equal(positions_open(w.hs.store, &w.ctx, &w.hs.positions).code, 0);
    w.hs.keys = hs_keys_new(&w.hs);
    ann = world_user(&w, "ann");
    version = create();
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    hs_keys_free(&w.hs.keys);
    positions_close(&w.hs.positions);
    world_close(&w);
    return 0;
}

static uint32_t put(const char *room_id, const char *session_id, const char *data)
{
    struct json json;
    assert_int_equal(json_parse(w.ctx.arena, slice_of(data), &json).code, 0);
    struct backup_key key = {slice_of(room_id), slice_of(session_id), &json};
    return hs_backup_keys_put(&w.hs, &w.ctx, ann, version, &key, 1, &backup).code;
}

static uint32_t put_ranked(int first_index, int forwarded, const char *verified)
{
    return put(
        "!r", "s",
        arena_cstr(w.ctx.arena, arena_printf(w.ctx.arena,
                                             "{\"first_message_index\":%d,\"forwarded_count\":%d,"
                                             "\"is_verified\":%s,\"session_data\":{}}",
                                             first_index, forwarded, verified)));
}

static struct slice listed(const char *room_id)
{
    struct backup_scope scope = {.user = ann, .version = version, .room_id = slice_of(room_id)};
    struct buf buf;
    buf_init_arena(&buf, w.ctx.arena, 1 << 20);
    struct json_out out = json_out_to(&buf);
    scope.room_id = room_id ? scope.room_id : (struct slice){0};
    assert_int_equal(hs_backup_keys_write(&w.hs, &w.ctx, &scope, &out).code, 0);
    return buf_slice(&buf);
}

static void the_better_key_stays(void **state)
{
    static const struct {
        int first_index, forwarded;
        const char *verified;
        uint64_t etag;
    } cases[] = {
        {10, 5, "false", 1}, {11, 5, "false", 1}, {10, 6, "false", 1}, {10, 5, "false", 1},
        {10, 4, "false", 2}, {9, 9, "false", 3},  {99, 9, "true", 4},  {1, 1, "false", 4},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_int_equal(put_ranked(cases[i].first_index, cases[i].forwarded, cases[i].verified),
                         0);
        assert_int_equal(backup.etag, cases[i].etag);
        assert_int_equal(backup.count, 1);
    }
}

static void only_the_newest_version_takes_keys(void **state)
{
    (void)state;
    assert_int_equal(put_ranked(1, 1, "true"), 0);
    uint64_t newer = create();
    assert_int_equal(put_ranked(0, 0, "true"), ERR_M_WRONG_ROOM_KEYS_VERSION);
    assert_int_equal(backup.version, newer);
    assert_int_equal(hs_key_backup_delete(&w.hs, &w.ctx, ann, newer).code, 0);
    assert_int_equal(hs_key_backup_delete(&w.hs, &w.ctx, ann, newer).code, 0);
    assert_int_equal(put_ranked(0, 0, "true"), 0);
    assert_true(create() > newer);
}

static void keys_are_listed_and_deleted_by_room(void **state)
{
    static const char data[] = "{\"first_message_index\":1,\"forwarded_count\":0,"
                               "\"is_verified\":true,\"session_data\":{}}";
    struct backup_scope scope = {.user = ann, .version = version, .room_id = LIT("!a")};
    (void)state;
    assert_int_equal(put("!a", "1", data), 0);
    assert_int_equal(put("!a", "2", data), 0);
    assert_int_equal(put("!ab", "1", data), 0);
    assert_true(slice_has_prefix(listed("!a"), LIT("{\"sessions\":{\"1\":{")));
    assert_true(slice_has_prefix(listed(NULL), LIT("{\"rooms\":{\"!a\":{\"sessions\":{\"1\":")));
    assert_int_equal(hs_backup_keys_delete(&w.hs, &w.ctx, &scope, &backup).code, 0);
    assert_int_equal(backup.count, 1);
    assert_true(slice_eq(listed("!a"), LIT("{\"sessions\":{}}")));
    assert_true(slice_contains(listed(NULL), LIT("!ab")));
}

static void malformed_keys_are_refused(void **state)
{
    (void)state;
    assert_int_equal(put("!a", "1", "{}"), ERR_M_BAD_JSON);
    assert_int_equal(put("!a", "1", "[]"), ERR_M_BAD_JSON);
    assert_int_equal(put_ranked(-1, 0, "true"), ERR_M_BAD_JSON);
    assert_int_equal(put_ranked(1, 0, "1"), ERR_M_BAD_JSON);
}

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(the_better_key_stays),
        WITH_WORLD(only_the_newest_version_takes_keys),
        WITH_WORLD(keys_are_listed_and_deleted_by_room),
        WITH_WORLD(malformed_keys_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
