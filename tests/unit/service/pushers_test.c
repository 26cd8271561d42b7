#include "homeserver/service/pushers.h"

#include "homeserver/service/devices.h"
#include "tests/support/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct world w;
static uint64_t ann, ben;

static int open_world(void **state)
{
    (void)state;
    world_open(&w, 0);
    ann = world_user(&w, "ann");
    ben = world_user(&w, "ben");
    hs_pushers_hook(&w.hs);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    world_close(&w);
    return 0;
}

static uint32_t set(uint64_t user, const char *pushkey, const char *device, enum pusher_mode mode)
{
    struct pusher pusher = {.app_id = LIT("app"),
                            .pushkey = slice_of(pushkey),
                            .device_id = slice_of(device),
                            .json = LIT("{}")};
    return hs_pusher_set(&w.hs, &w.ctx, user, &pusher, mode).code;
}

static struct pushers list(uint64_t user)
{
    struct pushers pushers;
    assert_int_equal(hs_pushers_list(&w.hs, &w.ctx, user, &pushers).code, 0);
    return pushers;
}

static void the_same_app_and_key_is_one_pusher(void **state)
{
    (void)state;
    assert_int_equal(set(ann, "key", "A", PUSHER_REPLACE), 0);
    assert_int_equal(set(ann, "key", "B", PUSHER_REPLACE), 0);
    assert_int_equal(set(ann, "key2", "B", PUSHER_REPLACE), 0);
    struct pushers pushers = list(ann);
    assert_int_equal(pushers.count, 2);
    assert_true(slice_eq(pushers.items[0].device_id, LIT("B")));
    assert_true(slice_eq(pushers.items[0].pushkey, LIT("key")));
}

static void a_key_that_moves_to_another_user_leaves_the_first(void **state)
{
    (void)state;
    assert_int_equal(set(ann, "key", "A", PUSHER_REPLACE), 0);
    assert_int_equal(set(ben, "key", "A", PUSHER_APPEND), 0);
    assert_int_equal(list(ann).count, 1);
    assert_int_equal(set(ben, "key", "A", PUSHER_REPLACE), 0);
    assert_int_equal(list(ann).count, 0);
    assert_int_equal(list(ben).count, 1);
}

static void removing_one_leaves_the_others(void **state)
{
    (void)state;
    assert_int_equal(set(ann, "one", "A", PUSHER_REPLACE), 0);
    assert_int_equal(set(ann, "two", "A", PUSHER_REPLACE), 0);
    assert_int_equal(hs_pusher_delete(&w.hs, &w.ctx, ann, LIT("app"), LIT("one")).code, 0);
    assert_int_equal(hs_pusher_delete(&w.hs, &w.ctx, ann, LIT("app"), LIT("none")).code, 0);
    struct pushers pushers = list(ann);
    assert_int_equal(pushers.count, 1);
    assert_true(slice_eq(pushers.items[0].pushkey, LIT("two")));
}

static void pushers_go_with_their_device(void **state)
{
    struct slice gone = LIT("A");
    (void)state;
    assert_int_equal(hs_device_create(&w.hs, &w.ctx, ann, LIT("A"), (struct slice){0}).code, 0);
    assert_int_equal(hs_device_create(&w.hs, &w.ctx, ann, LIT("B"), (struct slice){0}).code, 0);
    assert_int_equal(set(ann, "one", "A", PUSHER_REPLACE), 0);
    assert_int_equal(set(ann, "two", "B", PUSHER_REPLACE), 0);
    assert_int_equal(hs_devices_delete(&w.hs, &w.ctx, ann, &gone, 1).code, 0);
    struct pushers pushers = list(ann);
    assert_int_equal(pushers.count, 1);
    assert_true(slice_eq(pushers.items[0].pushkey, LIT("two")));
}

static void there_is_a_maximum(void **state)
{
    (void)state;
    for (int i = 0; i < PUSHERS_OF_USER_MAX; i++) {
        struct slice key = arena_printf(w.ctx.arena, "key%d", i);
        assert_int_equal(set(ann, key.ptr, "A", PUSHER_REPLACE), 0);
    }
    assert_int_equal(set(ann, "more", "A", PUSHER_REPLACE), ERR_M_INVALID_PARAM);
    assert_int_equal(set(ann, "key5", "A", PUSHER_REPLACE), 0);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(the_same_app_and_key_is_one_pusher),
        IN_WORLD(a_key_that_moves_to_another_user_leaves_the_first),
        IN_WORLD(removing_one_leaves_the_others),
        IN_WORLD(pushers_go_with_their_device),
        IN_WORLD(there_is_a_maximum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
