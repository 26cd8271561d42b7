#include "homeserver/service/rooms.h"

#include "homeserver/base/map.h"
#include "homeserver/service/check.h"
#include "homeserver/service/memberships.h"
#include "homeserver/service/room_create.h"
#include "homeserver/service/room_priv.h"
#include "spec/errcodes.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { CACHED_MAX = 8, MADE = 40 };

static struct house h;
static struct guest ann;

static int open_house(void **state)
{
    (void)state;
    house_open(&h);
    hs_rooms_free(&h.hs.rooms);
    h.hs.rooms = hs_rooms_new(&h.hs, CACHED_MAX);
    ann = house_guest(&h, "ann");
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    house_close(&h);
    return 0;
}

static void rooms_that_left_the_cache_come_back_whole(void **state)
{
    uint64_t numbers[MADE];
    (void)state;
    for (size_t i = 0; i < MADE; i++) {
        struct room *room = house_room(&h, &ann, "{\"name\":\"kept\"}");
        numbers[i] = hs_room_info(room).number;
        house_next_job(&h);
    }
    assert_in_range(map_count(h.hs.rooms->by_number), 1, CACHED_MAX);
    for (size_t i = 0; i < MADE; i++) {
        struct room *room = NULL;
        struct stored_event name;
        bool found = false;
        assert_int_equal(hs_room_get(&h.hs, &h.ctx, numbers[i], &room).code, 0);
        assert_int_equal(hs_state_event(&h.hs, &h.ctx, room, hs_room_head(room).root,
                                        LIT("m.room.name"), LIT(""), &name, &found)
                             .code,
                         0);
        assert_true(found);
        house_say(&h, room, &ann, "again");
        house_next_job(&h);
    }
}

static void rooms_that_nobody_uses_leave_memory(void **state)
{
    static const int64_t later_ms = 600001;
    struct hs_rooms_figures figures;
    (void)state;
    h.mono_ms += later_ms;
    hs_rooms_tend(&h.hs);
    struct room *room = house_room(&h, &ann, "{}");
    uint64_t left = hs_room_info(room).number;
    uint64_t used = hs_room_info(house_room(&h, &ann, "{}")).number;
    house_next_job(&h);
    hs_rooms_tend(&h.hs); /* too early */
    h.mono_ms += later_ms;
    hs_rooms_tend(&h.hs);
    assert_int_equal(hs_room_get(&h.hs, &h.ctx, used, &room).code, 0);
    house_next_job(&h);
    hs_rooms_get_figures(&h.hs, &figures);
    assert_int_equal(figures.room_count, 2);
    h.mono_ms += later_ms;
    hs_rooms_tend(&h.hs);
    hs_rooms_get_figures(&h.hs, &figures);
    assert_int_equal(figures.room_count, 1);
    assert_int_equal(hs_room_get(&h.hs, &h.ctx, left, &room).code, 0);
    house_say(&h, room, &ann, "again");
}

static void rooms_that_a_job_holds_stay(void **state)
{
    struct room *rooms[CACHED_MAX * 2];
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rooms); i++) {
        rooms[i] = house_room(&h, &ann, "{}");
    }
    assert_int_equal(map_count(h.hs.rooms->by_number), COUNT_OF(rooms));
    house_say(&h, rooms[0], &ann, "held");
}

static void a_room_is_not_made_with_endless_invites(void **state)
{
    struct json invites = json_array();
    struct json body = json_object();
    struct slice room_id;
    (void)state;
    for (int i = 0; i < 1001; i++) {
        json_push(h.ctx.arena, &invites,
                  json_string(arena_printf(h.ctx.arena, "@guest%d:test", i)));
    }
    json_set(h.ctx.arena, &body, LIT("invite"), invites);
    struct err err = hs_room_create(&h.hs, &h.ctx, &ann.actor, &body, &room_id);
    assert_int_equal(err.code, ERR_M_INVALID_PARAM);
}

static struct json levels_of_room(const char *body)
{
    struct room *room = house_room(&h, &ann, body);
    struct stored_event levels;
    bool found = false;
    struct json content;
    assert_int_equal(hs_state_event(&h.hs, &h.ctx, room, hs_room_head(room).root,
                                    LIT("m.room.power_levels"), LIT(""), &levels, &found)
                         .code,
                     0);
    assert_true(found);
    content = *levels.event.content;
    return content;
}

static const struct json *users_of(const struct json *levels)
{
    const struct json *users = json_get_object(levels, LIT("users"));
    assert_non_null(users);
    return users;
}

static int64_t level_of(const struct json *levels, struct slice user)
{
    int64_t level = 0;
    assert_true(json_get_int(users_of(levels), user, &level));
    return level;
}

/* Their version is this server's choice: the client may not know that its creators stand apart. */
static void creators_may_be_listed_by_those_who_name_no_version(void **state)
{
    static const char *const bodies[] = {
        "{\"power_level_content_override\":{\"users\":{\"@ann:test\":100,\"@bob:test\":50}}}",
        "{\"initial_state\":[{\"type\":\"m.room.power_levels\","
        "\"content\":{\"users\":{\"@ann:test\":9001,\"@bob:test\":50}}}]}",
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bodies); i++) {
        struct json levels = levels_of_room(bodies[i]);
        assert_int_equal(users_of(&levels)->count, 1);
        assert_int_equal(level_of(&levels, LIT("@bob:test")), 50);
    }
    struct json body;
    struct slice room_id;
    struct slice text = LIT("{\"room_version\":\"12\",\"power_level_content_override\":"
                            "{\"users\":{\"@ann:test\":100}}}");
    assert_int_equal(json_parse(h.ctx.arena, text, &body).code, 0);
    assert_int_equal(hs_room_create(&h.hs, &h.ctx, &ann.actor, &body, &room_id).code,
                     ERR_M_BAD_JSON);
}

static void levels_in_the_initial_state_replace_the_generated_ones(void **state)
{
    (void)state;
    struct json levels = levels_of_room(
        "{\"room_version\":\"11\",\"initial_state\":[{\"type\":\"m.room.power_levels\","
        "\"state_key\":\"\",\"content\":{\"users\":{\"@ann:test\":9001}}}]}");
    assert_int_equal(level_of(&levels, LIT("@ann:test")), 9001);
    assert_null(json_get(&levels, LIT("events")));
}

/* The rows of a room are written before its first event, and the server stopped in between. */
static void a_room_without_a_first_event_harms_nothing(void **state)
{
    struct room *room = NULL;
    struct room_view view;
    struct hs_sent sent;
    struct buf row;
    struct check_result result;
    struct check_options options = {0};
    const uint64_t number = 7;
    (void)state;
    struct store_object ids_object = {STORE_ROOM_IDS, LIT("ids")};
    struct store_object numbers_object = {STORE_ROOM_IDS, LIT("numbers")};
    struct store_update *updates[] = {store_update_new(&h.ctx, ids_object),
                                      store_update_new(&h.ctx, numbers_object)};
    buf_init_arena(&row, h.ctx.arena, 16);
    pack_u64(&row, number);
    store_put(updates[0], LIT("!torn:test"), buf_slice(&row));
    store_put(updates[1], store_id_u64(h.ctx.arena, number),
              state_pair(&h.ctx, LIT("11"), LIT("!torn:test")));
    assert_int_equal(store_write(h.hs.store, &h.ctx, updates, 2).code, 0);
    assert_int_equal(hs_room_get_by_id(&h.hs, &h.ctx, LIT("!torn:test"), &room).code, 0);
    assert_int_equal(hs_room_view(&h.hs, &h.ctx, room, ann.actor.user, &view).code,
                     ERR_M_FORBIDDEN);
    struct member_change join = {.target = ann.actor.user_id, .membership = MEMBERSHIP_JOIN};
    assert_int_equal(hs_member_set(&h.hs, &h.ctx, room, &ann.actor, &join, &sent).code,
                     ERR_M_FORBIDDEN);
    struct room *next = house_room(&h, &ann, "{}");
    assert_int_equal(hs_room_info(next).number, number + 1);
    house_settle(&h);
    assert_int_equal(hs_check(&h.hs, &h.ctx, &options, &result).code, 0);
    assert_int_equal(result.differences, 0);
}

/* Where a room's id is the hash of its first event, equal rooms of one moment differ in their date
 * alone; so many of them would once use up the dates that were tried. */
static void equal_rooms_of_one_moment_are_many_rooms(void **state)
{
    enum { ROOMS = 300 };
    uint64_t before = 0;
    (void)state;
    for (int i = 0; i < ROOMS; i++) {
        struct json body = json_object();
        struct slice room_id;
        struct room *room = NULL;
        h.wall_ms -= i == ROOMS / 2 ? 100 : 0; /* the clock is set back */
        assert_int_equal(hs_room_create(&h.hs, &h.ctx, &ann.actor, &body, &room_id).code, 0);
        assert_int_equal(hs_room_get_by_id(&h.hs, &h.ctx, room_id, &room).code, 0);
        assert_true(hs_room_info(room).number > before);
        before = hs_room_info(room).number;
        house_next_job(&h);
    }
    assert_true(h.hs.rooms->create_date_ms < h.wall_ms + 2 * (int64_t)ROOMS);
}

#define IN_HOUSE(test) cmocka_unit_test_setup_teardown(test, open_house, close_house)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_HOUSE(rooms_that_left_the_cache_come_back_whole),
        IN_HOUSE(rooms_that_nobody_uses_leave_memory),
        IN_HOUSE(rooms_that_a_job_holds_stay),
        IN_HOUSE(equal_rooms_of_one_moment_are_many_rooms),
        IN_HOUSE(creators_may_be_listed_by_those_who_name_no_version),
        IN_HOUSE(levels_in_the_initial_state_replace_the_generated_ones),
        IN_HOUSE(a_room_without_a_first_event_harms_nothing),
        IN_HOUSE(a_room_is_not_made_with_endless_invites),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
