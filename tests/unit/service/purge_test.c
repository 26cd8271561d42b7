#include "homeserver/service/purge.h"

#include "homeserver/service/check.h"
#include "homeserver/service/directory.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/room_priv.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct house h;
static struct guest ann, bob;
static struct room *room, *other;
static struct slice room_id;
static uint64_t number;

static int open_house(void **state)
{
    (void)state;
    house_open(&h);
    ann = house_guest(&h, "ann");
    bob = house_guest(&h, "bob");
    other = house_room(&h, &bob, "{\"preset\":\"public_chat\",\"room_alias_name\":\"stays\"}");
    room = house_room(
        &h, &ann,
        "{\"preset\":\"public_chat\",\"visibility\":\"public\",\"room_alias_name\":\"goes\"}");
    number = hs_room_info(room).number;
    room_id = arena_copy(h.conf_arena, hs_room_info(room).room_id);
    house_member(&h, room, &bob, &bob, MEMBERSHIP_JOIN);
    struct slice said = house_say(&h, room, &ann, "first");
    struct receipt receipt = {.user = bob.actor.user, .event_id = said, .number = 9};
    assert_int_equal(hs_receipt_set(&h.hs, &h.ctx, room, &receipt).code, 0);
    for (uint64_t of = number - 1; of <= number; of++) {
        assert_int_equal(hs_account_data_put(&h.hs, &h.ctx, bob.actor.user, of, LIT("m.tag"),
                                             LIT("{\"tags\":{}}"))
                             .code,
                         0);
    }
    house_settle(&h);
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    house_close(&h);
    return 0;
}

static void assert_sound(uint64_t rooms)
{
    struct check_result result;
    struct check_options options = {0};
    assert_int_equal(hs_check(&h.hs, &h.ctx, &options, &result).code, 0);
    assert_int_equal(result.differences, 0);
    assert_int_equal(result.rooms, rooms);
}

static void count_rows(void *arg, struct store_object object)
{
    struct store_rows rows;
    assert_int_equal(
        store_read_range(h.hs.store, &h.ctx, object, (struct store_range){0}, &rows).code, 0);
    *(size_t *)arg += rows.count;
}

static void nothing_of_a_purged_room_is_left(void **state)
{
    struct purge_result result;
    struct user_rooms rooms;
    struct slice content;
    uint64_t found_number = 0;
    uint64_t creator = 0;
    size_t rows = 0;
    bool found = false;
    (void)state;
    assert_int_equal(hs_room_purge(&h.hs, &h.ctx, number, &result).code, 0);
    assert_true(result.events > 6);
    assert_int_equal(result.members, 2);
    house_next_job(&h);
    assert_int_equal(hs_room_find(&h.hs, &h.ctx, room_id, &found_number, &found).code, 0);
    assert_false(found);
    assert_int_equal(
        hs_alias_get(&h.hs, &h.ctx, LIT("#goes:test"), &found_number, &creator, &found).code, 0);
    assert_false(found);
    assert_int_equal(hs_user_rooms(&h.hs, &h.ctx, bob.actor.user, &rooms).code, 0);
    assert_int_equal(rooms.count, 1);
    assert_int_equal(
        hs_account_data_get(&h.hs, &h.ctx, bob.actor.user, number, LIT("m.tag"), &content, &found)
            .code,
        0);
    assert_false(found);
    assert_int_equal(hs_account_data_get(&h.hs, &h.ctx, bob.actor.user, number - 1, LIT("m.tag"),
                                         &content, &found)
                         .code,
                     0);
    assert_true(found);
    count_rows(&rows, room_object(&h.ctx, number));
    count_rows(&rows, room_derived_object(&h.ctx, number));
    count_rows(&rows, room_state_object(&h.ctx, number));
    assert_int_equal(rows, 0);
    assert_sound(1);
}

static void who_held_the_room_hears_that_it_is_gone(void **state)
{
    struct purge_result result;
    struct hs_sent sent;
    struct room *found = NULL;
    struct json content = json_object();
    struct send_request request = {.actor = &ann.actor,
                                   .device_id = ann.device_id,
                                   .type = LIT("m.room.message"),
                                   .content = &content};
    struct receipt receipt = {.user = bob.actor.user, .event_id = LIT("$x"), .number = 10};
    (void)state;
    assert_int_equal(hs_room_purge(&h.hs, &h.ctx, number, &result).code, 0);
    assert_int_equal(hs_send_message(&h.hs, &h.ctx, room, &request, &sent).code, ERR_M_NOT_FOUND);
    assert_int_equal(hs_receipt_set(&h.hs, &h.ctx, room, &receipt).code, ERR_M_NOT_FOUND);
    house_next_job(&h);
    assert_int_equal(hs_room_get(&h.hs, &h.ctx, number, &found).code, ERR_M_NOT_FOUND);
    assert_int_equal(hs_room_purge(&h.hs, &h.ctx, number, &result).code, ERR_M_NOT_FOUND);
    assert_sound(1);
}

static void its_number_never_names_another_room(void **state)
{
    struct purge_result result;
    (void)state;
    assert_int_equal(hs_room_purge(&h.hs, &h.ctx, number, &result).code, 0);
    house_next_job(&h);
    hs_rooms_free(&h.hs.rooms); /* as after a restart */
    h.hs.rooms = hs_rooms_new(&h.hs, 100);
    assert_int_equal(hs_room_info(house_room(&h, &ann, "{}")).number, number + 1);
}

static void an_interrupted_purge_is_finished_later(void **state)
{
    int32_t calls = 1;
    struct err err = {.code = ERR_IO};
    (void)state;
    for (; err.code != 0 && calls < 200; calls++) {
        struct purge_result result;
        close_house(NULL);
        open_house(NULL);
        house_next_job(&h);
        store_fail_after(h.hs.store, calls);
        err = hs_room_purge(&h.hs, &h.ctx, number, &result);
        store_fail_after(h.hs.store, 0);
        house_next_job(&h);
        assert_int_equal(hs_purges_finish(&h.hs, &h.ctx).code, 0);
        house_next_job(&h);
        struct slice row;
        bool there = false;
        assert_int_equal(store_get(h.hs.store, &h.ctx,
                                   (struct store_object){STORE_ROOM_IDS, LIT("ids")}, room_id, &row,
                                   &there)
                             .code,
                         0);
        assert_sound(there ? 2 : 1); /* not begun at all, or done */
    }
    assert_true(calls > 10);
    assert_int_equal(err.code, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_of_a_purged_room_is_left, open_house, close_house),
        cmocka_unit_test_setup_teardown(who_held_the_room_hears_that_it_is_gone, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(its_number_never_names_another_room, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(an_interrupted_purge_is_finished_later, open_house,
                                        close_house),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
