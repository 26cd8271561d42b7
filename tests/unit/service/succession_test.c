#include "homeserver/service/prefs.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static struct house h;
static struct guest ann, ben;
static struct room *old_room;
static struct slice old_id;

static int open_house(void **state)
{
    (void)state;
    house_open(&h);
    ann = house_guest(&h, "ann");
    ben = house_guest(&h, "ben");
    old_room = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    old_id = hs_room_info(old_room).room_id;
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    house_close(&h);
    return 0;
}

/* The format's first text is the old room's id. */
static struct slice with_old(const char *format)
{
    struct slice at = slice_of(format);
    struct slice head;
    struct slice rest = slice_cut(at, '@', &head);
    return rest.ptr ? arena_concat(h.ctx.arena, arena_concat(h.ctx.arena, head, old_id), rest) : at;
}

static struct room *upgrade(void)
{
    struct slice body =
        with_old("{\"preset\":\"public_chat\",\"creation_content\":{\"predecessor\":"
                 "{\"room_id\":\"@\",\"event_id\":\"$x\"}}}");
    return house_room(&h, &ann, arena_copy(h.ctx.arena, body).ptr);
}

static struct err take(void *arg, struct ctx *ctx, struct json *stored)
{
    return json_parse(ctx->arena, *(struct slice *)arg, stored);
}

static void set_rules(const struct guest *guest, const char *format)
{
    struct slice text = with_old(format);
    assert_int_equal(hs_push_rules_edit(&h.hs, &h.ctx, guest->actor.user, take, &text).code, 0);
}

static struct slice datum(const struct guest *guest, struct room *room, const char *type)
{
    struct slice content;
    bool found = false;
    uint64_t number = room ? hs_room_info(room).number : 0;
    assert_int_equal(hs_account_data_get(&h.hs, &h.ctx, guest->actor.user, number, slice_of(type),
                                         &content, &found)
                         .code,
                     0);
    return found ? content : LIT("absent");
}

static void put(const struct guest *guest, uint64_t room, const char *type, struct slice content)
{
    assert_int_equal(
        hs_account_data_put(&h.hs, &h.ctx, guest->actor.user, room, slice_of(type), content).code,
        0);
}

static bool in_rules(const struct guest *guest, const char *format, struct room *room)
{
    struct slice id = hs_room_info(room).room_id;
    struct slice text = arena_printf(h.ctx.arena, format, (int)id.len, id.ptr);
    return slice_contains(datum(guest, NULL, "m.push_rules"), text);
}

static void a_room_rule_goes_along(void **state)
{
    (void)state;
    set_rules(&ann, "{\"global\":{\"room\":[{\"rule_id\":\"@\",\"actions\":[]}]}}");
    struct room *room = upgrade();
    assert_true(in_rules(&ann, "\"rule_id\":\"%.*s\"", room));
    assert_true(in_rules(&ann, "\"rule_id\":\"%.*s\"", old_room));
}

static void an_override_that_names_the_room_goes_along(void **state)
{
    (void)state;
    set_rules(&ann,
              "{\"global\":{\"override\":[{\"rule_id\":\"mute\",\"actions\":[],\"conditions\":"
              "[{\"kind\":\"event_match\",\"key\":\"room_id\",\"pattern\":\"@\"}]}]}}");
    struct room *room = upgrade();
    assert_true(in_rules(&ann, "\"pattern\":\"%.*s\"", room));
    assert_true(in_rules(&ann, "\"rule_id\":\"%.*s\"", room));
    assert_true(in_rules(&ann, "\"pattern\":\"%.*s\"", old_room));
}

static void who_joins_later_takes_along_too(void **state)
{
    (void)state;
    house_member(&h, old_room, &ben, &ben, MEMBERSHIP_JOIN);
    set_rules(&ben, "{\"global\":{\"room\":[{\"rule_id\":\"@\",\"actions\":[]}]}}");
    struct room *room = upgrade();
    assert_false(in_rules(&ben, "\"rule_id\":\"%.*s\"", room));
    house_member(&h, room, &ben, &ben, MEMBERSHIP_JOIN);
    assert_true(in_rules(&ben, "\"rule_id\":\"%.*s\"", room));
}

static void tags_and_direct_chats_go_along(void **state)
{
    (void)state;
    put(&ann, hs_room_info(old_room).number, "m.tag", LIT("{\"tags\":{\"u.work\":{}}}"));
    struct slice direct = arena_concat(h.ctx.arena, LIT("{\"@ben:test\":[\""), old_id);
    put(&ann, 0, "m.direct", arena_concat(h.ctx.arena, direct, LIT("\"]}")));
    struct room *room = upgrade();
    assert_true(slice_contains(datum(&ann, room, "m.tag"), LIT("u.work")));
    assert_true(slice_contains(datum(&ann, NULL, "m.direct"), hs_room_info(room).room_id));
    assert_true(slice_contains(datum(&ann, NULL, "m.direct"), old_id));
}

static void image_packs_stay_enabled(void **state)
{
    (void)state;
    put(&ann, 0, "m.image_pack.rooms",
        with_old("{\"rooms\":{\"!other:test\":{\"\":{}},\"@\":{\"cats\":{\"org.example\":1}}}}"));
    struct room *room = upgrade();
    struct slice id = hs_room_info(room).room_id;
    struct slice packs = datum(&ann, NULL, "m.image_pack.rooms");
    assert_true(
        slice_contains(packs, arena_printf(h.ctx.arena, "\"%.*s\":{\"cats\":{\"org.example\":1}}",
                                           (int)id.len, id.ptr)));
    assert_true(slice_contains(packs, LIT("!other:test")));
    assert_true(slice_contains(packs, old_id));
}

static void strangers_to_the_old_room_take_nothing(void **state)
{
    (void)state;
    set_rules(&ben, "{\"global\":{\"room\":[{\"rule_id\":\"@\",\"actions\":[]}]}}");
    struct room *room = upgrade();
    uint64_t before = positions_newest(h.hs.positions);
    house_member(&h, room, &ben, &ben, MEMBERSHIP_JOIN);
    assert_int_equal(positions_newest(h.hs.positions), before + 1);
    assert_false(in_rules(&ben, "\"rule_id\":\"%.*s\"", room));
}

#define IN_HOUSE(test) cmocka_unit_test_setup_teardown(test, open_house, close_house)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_HOUSE(a_room_rule_goes_along),
        IN_HOUSE(an_override_that_names_the_room_goes_along),
        IN_HOUSE(who_joins_later_takes_along_too),
        IN_HOUSE(tags_and_direct_chats_go_along),
        IN_HOUSE(image_packs_stay_enabled),
        IN_HOUSE(strangers_to_the_old_room_take_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
