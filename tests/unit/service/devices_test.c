#include "homeserver/service/devices.h"

#include "tests/support/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct world w;
static uint64_t ann;
static int removed, renamed;

static struct err count_removed(struct hs *hs, struct ctx *ctx, uint64_t user,
                                struct slice device_id)
{
    struct device device;
    bool found = false;
    TRY(hs_device_get(hs, ctx, user, device_id, &device, &found));
    assert_true(found); /* what belongs to a device goes before it */
    removed++;
    return OK;
}

static struct err count_renamed(struct hs *hs, struct ctx *ctx, uint64_t user,
                                struct slice device_id)
{
    (void)hs;
    (void)ctx;
    (void)user;
    renamed += slice_eq(device_id, LIT("A"));
    return OK;
}

static int open_world(void **state)
{
    (void)state;
    world_open(&w, 0);
    ann = world_user(&w, "ann");
    removed = renamed = 0;
    hs_on_device_removed(&w.hs, count_removed);
    hs_on_device_renamed(&w.hs, count_renamed);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    world_close(&w);
    return 0;
}

static void add(const char *device_id)
{
    assert_int_equal(
        hs_device_create(&w.hs, &w.ctx, ann, slice_of(device_id), LIT("a device")).code, 0);
}

static void devices_are_listed_with_where_they_were_seen(void **state)
{
    struct devices devices;
    struct seen seen = {LIT("192.0.2.1"), LIT("Client/1")};
    (void)state;
    add("B");
    add("A");
    add("AB");
    assert_int_equal(hs_device_seen(&w.hs, &w.ctx, ann, LIT("AB"), &seen).code, 0);
    assert_int_equal(hs_devices_list(&w.hs, &w.ctx, ann, &devices).code, 0);
    assert_int_equal(devices.count, 3);
    assert_true(slice_eq(devices.items[1].device_id, LIT("AB")));
    assert_int_equal(devices.items[1].last_seen_ms, w.wall_ms);
    assert_true(slice_eq(devices.items[1].last_seen_ip, LIT("192.0.2.1")));
    assert_int_equal(devices.items[0].last_seen_ms, 0);
    assert_true(slice_eq(devices.items[2].display_name, LIT("a device")));
}

static void renaming_needs_a_device(void **state)
{
    struct device device;
    bool found = false;
    (void)state;
    add("A");
    assert_int_equal(hs_device_rename(&w.hs, &w.ctx, ann, LIT("A"), LIT("new")).code, 0);
    assert_int_equal(hs_device_rename(&w.hs, &w.ctx, ann, LIT("X"), LIT("new")).code,
                     ERR_M_NOT_FOUND);
    assert_int_equal(renamed, 1);
    assert_int_equal(hs_device_get(&w.hs, &w.ctx, ann, LIT("A"), &device, &found).code, 0);
    assert_true(found && slice_eq(device.display_name, LIT("new")));
    add("A"); /* is there: stays as it is */
    assert_int_equal(hs_device_get(&w.hs, &w.ctx, ann, LIT("A"), &device, &found).code, 0);
    assert_true(slice_eq(device.display_name, LIT("new")));
}

static void removing_runs_the_hooks_for_devices_that_are_there(void **state)
{
    struct slice ids[] = {LIT("A"), LIT("X"), LIT("")};
    struct devices devices;
    (void)state;
    add("A");
    add("B");
    add("C");
    assert_int_equal(hs_devices_delete(&w.hs, &w.ctx, ann, ids, COUNT_OF(ids)).code, 0);
    assert_int_equal(removed, 1);
    assert_int_equal(hs_devices_delete_others(&w.hs, &w.ctx, ann, LIT("C")).code, 0);
    assert_int_equal(removed, 2);
    assert_int_equal(hs_devices_list(&w.hs, &w.ctx, ann, &devices).code, 0);
    assert_int_equal(devices.count, 1);
    assert_true(slice_eq(devices.items[0].device_id, LIT("C")));
}

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(devices_are_listed_with_where_they_were_seen),
        WITH_WORLD(renaming_needs_a_device),
        WITH_WORLD(removing_runs_the_hooks_for_devices_that_are_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
