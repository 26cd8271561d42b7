#include "homeserver/service/to_device.h"

#include "homeserver/service/devices.h"
#include "tests/support/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct world w;
static uint64_t ann, bob;
static struct json content;

static int open_world(void **state)
{
    (void)state;
    world_open(&w, 0);
    assert_int_equal(positions_open(w.hs.store, &w.ctx, &w.hs.positions).code, 0);
    w.hs.inbox = hs_inbox_new(&w.hs);
    ann = world_user(&w, "ann");
    bob = world_user(&w, "bob");
    assert_int_equal(hs_device_create(&w.hs, &w.ctx, ann, LIT("A"), LIT("a")).code, 0);
    assert_int_equal(hs_device_create(&w.hs, &w.ctx, bob, LIT("B1"), LIT("b")).code, 0);
    assert_int_equal(hs_device_create(&w.hs, &w.ctx, bob, LIT("B2"), LIT("b")).code, 0);
    content = json_object();
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    hs_inbox_free(&w.hs.inbox);
    positions_close(&w.hs.positions);
    world_close(&w);
    return 0;
}

static struct err send_to(const char *device_id, const char *txn_id)
{
    struct to_device_item item = {
        .user_id = LIT("@bob:test"), .device_id = slice_of(device_id), .content = &content};
    struct to_device_send send = {.sender = LIT("@ann:test"),
                                  .type = LIT("m.test"),
                                  .items = &item,
                                  .count = 1,
                                  .user = ann,
                                  .device_id = LIT("A"),
                                  .txn_id = slice_of(txn_id)};
    return hs_to_device_send(&w.hs, &w.ctx, &send);
}

static size_t waiting(const char *device_id, uint64_t since, size_t limit, uint64_t *last_out)
{
    struct to_device_messages messages;
    struct inbox_range wanted = {since, UINT64_MAX / 2, limit};
    assert_int_equal(hs_inbox_read(&w.hs, &w.ctx, bob, slice_of(device_id), wanted, &messages).code,
                     0);
    for (size_t i = 0; i < messages.count; i++) {
        assert_true(messages.items[i].pos > since);
        since = messages.items[i].pos;
    }
    *last_out = since;
    return messages.count;
}

static void a_star_reaches_all_devices_once(void **state)
{
    uint64_t last = 0;
    (void)state;
    assert_int_equal(send_to("*", "t1").code, 0);
    assert_int_equal(send_to("*", "t1").code, 0);
    assert_int_equal(waiting("B1", 0, 100, &last), 1);
    assert_int_equal(waiting("B2", 0, 100, &last), 1);
    assert_int_equal(send_to("*", "t2").code, 0);
    assert_int_equal(waiting("B2", 0, 100, &last), 2);
}

static void messages_stay_until_they_are_acknowledged(void **state)
{
    uint64_t first = 0;
    uint64_t last = 0;
    (void)state;
    assert_int_equal(send_to("B1", "1").code, 0);
    assert_int_equal(send_to("B1", "2").code, 0);
    assert_int_equal(send_to("B1", "3").code, 0);
    assert_int_equal(waiting("B1", 0, 2, &first), 2);
    assert_int_equal(waiting("B1", 0, 2, &first), 2);
    assert_int_equal(hs_inbox_acknowledge(&w.hs, &w.ctx, bob, LIT("B1"), first).code, 0);
    assert_int_equal(waiting("B1", 0, 100, &last), 1);
    assert_true(hs_inbox_may_have(&w.hs, bob, LIT("B1"), first));
    assert_false(hs_inbox_may_have(&w.hs, bob, LIT("B1"), last));
}

static void unknown_devices_get_nothing(void **state)
{
    uint64_t last = 0;
    (void)state;
    assert_int_equal(send_to("B3", "1").code, 0);
    assert_int_equal(hs_device_create(&w.hs, &w.ctx, bob, LIT("B3"), LIT("b")).code, 0);
    assert_int_equal(waiting("B3", 0, 100, &last), 0);
}

static void an_inbox_goes_with_its_device(void **state)
{
    struct slice device_id = LIT("B1");
    uint64_t last = 0;
    (void)state;
    assert_int_equal(send_to("B1", "1").code, 0);
    assert_int_equal(hs_devices_delete(&w.hs, &w.ctx, bob, &device_id, 1).code, 0);
    assert_int_equal(waiting("B1", 0, 100, &last), 0);
}

/* Whatever call of the store fails: nothing is sent, or all is sent, and a repeat repairs it. */
static void a_failed_send_can_be_repeated(void **state)
{
    (void)state;
    for (int32_t call = 1; call < 12; call++) {
        const char *txn_id = arena_cstr(w.ctx.arena, arena_printf(w.ctx.arena, "f%d", call));
        uint64_t last = 0;
        size_t before = waiting("B1", 0, 1000, &last);
        store_fail_after(w.hs.store, call);
        struct err err = send_to("*", txn_id);
        store_fail_after(w.hs.store, 0);
        assert_int_equal(waiting("B1", 0, 1000, &last), before + (err.code == 0 ? 1 : 0));
        assert_int_equal(send_to("*", txn_id).code, 0);
        assert_int_equal(waiting("B1", 0, 1000, &last), before + 1);
        assert_int_equal(waiting("B2", 0, 1000, &last), before + 1);
    }
}

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(a_star_reaches_all_devices_once),
        WITH_WORLD(messages_stay_until_they_are_acknowledged),
        WITH_WORLD(unknown_devices_get_nothing),
        WITH_WORLD(an_inbox_goes_with_its_device),
        WITH_WORLD(a_failed_send_can_be_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
