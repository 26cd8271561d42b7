/* The dehydrated device of a user, also with a store that fails. */
#include "homeserver/service/dehydrated.h"

#include "homeserver/service/devices.h"
#include "tests/support/failing.h"
#include "tests/support/house_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct house h;
static struct guest ann;

static void furnish(void)
{
    ann = house_guest(&h, "ann");
}

static struct house_plan plan = {&h, furnish};

static struct json parsed(struct slice text)
{
    struct json json;
    assert_int_equal(json_parse(h.ctx.arena, text, &json).code, 0);
    return json;
}

/* `named`: the device that the keys name. */
static struct err put(const char *device_id, const char *named)
{
    struct json data = parsed(LIT("{\"algorithm\":\"m.dehydration.v2\"}"));
    struct json keys = parsed(arena_printf(h.ctx.arena,
                                           "{\"user_id\":\"@ann:test\",\"device_id\":\"%s\","
                                           "\"algorithms\":[],\"keys\":{},\"signatures\":{}}",
                                           named));
    struct dehydrated_draft draft = {.keys = {.user = ann.actor.user,
                                              .user_id = ann.actor.user_id,
                                              .device_id = slice_of(device_id),
                                              .device_keys = &keys},
                                     .data = &data};
    return hs_dehydrated_put(&h.hs, &h.ctx, &draft);
}

static struct slice present(void)
{
    struct dehydrated device;
    bool found = false;
    assert_int_equal(hs_dehydrated_get(&h.hs, &h.ctx, ann.actor.user, &device, &found).code, 0);
    return found ? device.device_id : LIT("none");
}

static size_t device_count(void)
{
    struct devices devices;
    assert_int_equal(hs_devices_list(&h.hs, &h.ctx, ann.actor.user, &devices).code, 0);
    return devices.count;
}

static void a_new_one_takes_the_place_of_the_one_before(void **state)
{
    (void)state;
    assert_int_equal(put("ONE", "ONE").code, 0);
    assert_int_equal(put("TWO", "TWO").code, 0);
    assert_true(slice_eq(present(), LIT("TWO")));
    assert_int_equal(device_count(), 2);
    assert_int_equal(put("TWO", "TWO").code, 0);
    assert_int_equal(device_count(), 2);
}

static void an_ordinary_device_does_not_become_one(void **state)
{
    (void)state;
    assert_int_equal(put("DEVICE", "DEVICE").code, ERR_M_INVALID_PARAM);
    assert_true(slice_eq(present(), LIT("none")));
    assert_int_equal(device_count(), 1);
}

static void keys_that_are_refused_leave_the_one_before(void **state)
{
    (void)state;
    assert_int_equal(put("ONE", "ONE").code, 0);
    assert_int_not_equal(put("TWO", "OTHER").code, 0);
    assert_true(slice_eq(present(), LIT("ONE")));
    assert_int_equal(device_count(), 2);
}

static void one_that_was_deleted_as_a_device_is_gone(void **state)
{
    (void)state;
    struct slice id = LIT("ONE");
    bool found = true;
    assert_int_equal(put("ONE", "ONE").code, 0);
    assert_int_equal(hs_devices_delete(&h.hs, &h.ctx, ann.actor.user, &id, 1).code, 0);
    assert_true(slice_eq(present(), LIT("none")));
    assert_int_equal(hs_dehydrated_delete(&h.hs, &h.ctx, ann.actor.user, &id, &found).code, 0);
    assert_false(found);
}

/* --- with a store that fails --- */

static void furnish_one(void)
{
    furnish();
    assert_int_equal(put("ONE", "ONE").code, 0);
}

static struct err put_step(void)
{
    return put("TWO", "TWO");
}

static void one_of_the_two_is_there(void)
{
    assert_true(slice_eq(present(), LIT("ONE")) || slice_eq(present(), LIT("TWO")));
}

static void only_the_new_one_is_there(void)
{
    assert_true(slice_eq(present(), LIT("TWO")));
    assert_int_equal(device_count(), 2);
}

static void putting_with_a_failing_store(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_one, put_step, only_the_new_one_is_there,
                                        one_of_the_two_is_there});
}

static struct err delete_step(void)
{
    struct slice id;
    bool found = false;
    return hs_dehydrated_delete(&h.hs, &h.ctx, ann.actor.user, &id, &found);
}

static void none_is_there(void)
{
    assert_true(slice_eq(present(), LIT("none")));
    assert_int_equal(device_count(), 1);
}

static void deleting_with_a_failing_store(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_one, delete_step, .check_done = none_is_there});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(a_new_one_takes_the_place_of_the_one_before),
        HOUSE_TEST(an_ordinary_device_does_not_become_one),
        HOUSE_TEST(keys_that_are_refused_leave_the_one_before),
        HOUSE_TEST(one_that_was_deleted_as_a_device_is_gone),
        cmocka_unit_test(putting_with_a_failing_store),
        cmocka_unit_test(deleting_with_a_failing_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
