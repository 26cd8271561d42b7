/* Sliding sync over all services and a store in memory. */
#include "homeserver/sync/sliding.h"

#include "homeserver/service/device_keys.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/to_device.h"
#include "tests/support/couple.h"
#include "tests/support/sliding_asking.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define PUBLIC "{\"preset\":\"public_chat\",\"room_version\":\"11\"}"
#define NAMED "{\"preset\":\"public_chat\",\"room_version\":\"11\",\"name\":\"Garden\"}"
#define ALL                                                                                        \
    "{\"lists\":{\"all\":{\"ranges\":[[0,99]],\"timeline_limit\":5,"                               \
    "\"required_state\":[[\"m.room.topic\",\"\"]]}}}"

/* --- asking --- */

static struct err ask(struct fixture *f, const struct guest *guest, const char *request_text,
                      struct slice pos, struct asked *out)
{
    return sliding_ask(&f->house, guest, request_text, pos, out);
}

static struct asked first(struct fixture *f, const struct guest *guest, const char *request)
{
    struct asked asked = {0};
    assert_int_equal(ask(f, guest, request, (struct slice){0}, &asked).code, 0);
    return asked;
}

static struct asked then(struct fixture *f, const struct guest *guest, const char *request,
                         const struct asked *before)
{
    struct asked asked = {0};
    assert_int_equal(ask(f, guest, request, before->pos, &asked).code, 0);
    return asked;
}

static const struct json *room_of(const struct asked *asked, const struct room *room)
{
    return json_get(json_get(&asked->body, LIT("rooms")), hs_room_info(room).room_id);
}

static size_t room_count(const struct asked *asked)
{
    return json_get(&asked->body, LIT("rooms"))->count;
}

static int64_t list_count(const struct asked *asked, const char *list)
{
    int64_t count = -1;
    const struct json *lists = json_get(&asked->body, LIT("lists"));
    (void)json_get_int(json_get(lists, slice_of(list)), LIT("count"), &count);
    return count;
}

static int64_t number_of(const struct json *object, const char *name)
{
    int64_t value = -1;
    (void)json_get_int(object, slice_of(name), &value);
    return value;
}

/* "type/state_key body ..." of the events, for comparing; "-" for a stub. */
static const char *types_of(struct fixture *f, const struct json *room, const char *part)
{
    const struct json *events = json_get_array(room, slice_of(part));
    struct buf buf;
    buf_init_arena(&buf, f->house.ctx.arena, 1 << 16);
    for (uint32_t i = 0; events != NULL && i < events->count; i++) {
        const struct json *event = &events->items[i];
        struct slice body = json_get_string(json_get(event, LIT("content")), LIT("body"));
        struct slice key = json_get_string(event, LIT("state_key"));
        buf_add(&buf, i > 0 ? LIT(" ") : LIT(""));
        buf_add(&buf, json_get(event, LIT("content")) ? LIT("") : LIT("-"));
        buf_add(&buf, body.ptr ? body : json_get_string(event, LIT("type")));
        buf_add(&buf, key.len > 0 ? LIT("/") : LIT(""));
        buf_add(&buf, key);
    }
    return arena_cstr(f->house.ctx.arena, buf_slice(&buf));
}

static bool flag(const struct json *room, const char *name)
{
    return json_get_bool(room, slice_of(name), false);
}

/* --- rooms --- */

static void the_first_answer_has_the_rooms_of_the_window(void **state)
{
    struct fixture *f = *state;
    struct room *garden = house_room(&f->house, &f->alice, NAMED);
    struct room *other = house_room(&f->house, &f->alice, PUBLIC);
    house_state(&f->house, garden, &f->alice, "m.room.topic", "{\"topic\":\"flowers\"}");
    house_say(&f->house, garden, &f->alice, "one");
    struct asked asked = first(f, &f->alice, ALL);
    assert_int_equal(room_count(&asked), 2);
    assert_int_equal(list_count(&asked, "all"), 2);
    const struct json *room = room_of(&asked, garden);
    assert_true(flag(room, "initial"));
    assert_true(json_is_string(json_get(room, LIT("name")), LIT("Garden")));
    assert_true(json_is_string(json_get(room, LIT("membership")), LIT("join")));
    assert_string_equal(types_of(f, room, "required_state"), "m.room.topic");
    assert_string_equal(types_of(f, room, "timeline"),
                        "m.room.join_rules m.room.history_visibility m.room.name m.room.topic one");
    assert_true(flag(room, "limited"));
    assert_int_equal(number_of(room, "num_live"), 0);
    assert_int_equal(number_of(room, "joined_count"), 1);
    assert_true(number_of(room, "bump_stamp") > number_of(room_of(&asked, other), "bump_stamp"));
    assert_null(json_get(room_of(&asked, other), LIT("name")));
    assert_non_null(json_get(room_of(&asked, other), LIT("heroes")));
}

static void the_next_answer_has_only_what_is_new(void **state)
{
    struct fixture *f = *state;
    struct room *garden = house_room(&f->house, &f->alice, NAMED);
    house_room(&f->house, &f->alice, PUBLIC);
    struct asked asked = first(f, &f->alice, ALL);
    struct asked idle = then(f, &f->alice, ALL, &asked);
    assert_int_equal(room_count(&idle), 0);
    assert_int_equal(list_count(&idle, "all"), 2);
    assert_false(idle.answer.news);
    house_say(&f->house, garden, &f->alice, "two");
    struct asked next = then(f, &f->alice, ALL, &idle);
    assert_true(next.answer.news);
    assert_int_equal(room_count(&next), 1);
    const struct json *room = room_of(&next, garden);
    assert_false(flag(room, "initial"));
    assert_null(json_get(room, LIT("name")));
    assert_null(json_get(room, LIT("joined_count")));
    assert_string_equal(types_of(f, room, "timeline"), "two");
    assert_int_equal(number_of(room, "num_live"), 1);
    assert_false(flag(room, "limited"));
}

static void a_repeated_pos_gives_the_lost_answer_again(void **state)
{
    struct fixture *f = *state;
    struct room *garden = house_room(&f->house, &f->alice, NAMED);
    struct asked asked = first(f, &f->alice, ALL);
    house_say(&f->house, garden, &f->alice, "two");
    struct asked lost = then(f, &f->alice, ALL, &asked);
    struct asked again = then(f, &f->alice, ALL, &asked);
    assert_string_equal(types_of(f, room_of(&lost, garden), "timeline"), "two");
    assert_string_equal(types_of(f, room_of(&again, garden), "timeline"), "two");
    struct asked after = then(f, &f->alice, ALL, &again);
    assert_int_equal(room_count(&after), 0);
    struct asked stale = {0};
    assert_int_equal(ask(f, &f->alice, ALL, asked.pos, &stale).code, ERR_M_UNKNOWN_POS);
    assert_int_equal(ask(f, &f->alice, ALL, lost.pos, &stale).code, ERR_M_UNKNOWN_POS);
}

/* A client that takes a request back and sends another may have had the first one's answer. */
static void either_answer_to_a_pos_can_be_gone_on_from(void **state)
{
    struct fixture *f = *state;
    struct room *garden = house_room(&f->house, &f->alice, NAMED);
    struct asked asked = first(f, &f->alice, ALL);
    house_say(&f->house, garden, &f->alice, "two");
    struct asked one = then(f, &f->alice, ALL, &asked);
    house_say(&f->house, garden, &f->alice, "three");
    struct asked other = then(f, &f->alice, ALL, &asked);
    assert_string_equal(types_of(f, room_of(&other, garden), "timeline"), "two three");
    struct asked next = then(f, &f->alice, ALL, &one);
    assert_string_equal(types_of(f, room_of(&next, garden), "timeline"), "three");
}

static void a_pos_is_of_one_user_device_and_connection(void **state)
{
    struct fixture *f = *state;
    struct asked bad = {0};
    struct asked asked = first(f, &f->alice, ALL);
    assert_int_equal(ask(f, &f->bob, ALL, asked.pos, &bad).code, ERR_M_UNKNOWN_POS);
    assert_int_equal(ask(f, &f->alice, ALL, LIT("s1_1_1_1_1"), &bad).code, ERR_M_UNKNOWN_POS);
    assert_int_equal(ask(f, &f->alice, ALL, LIT("junk"), &bad).code, ERR_M_UNKNOWN_POS);
    assert_int_equal(ask(f, &f->alice, "{\"conn_id\":\"two\"}", asked.pos, &bad).code,
                     ERR_M_UNKNOWN_POS);
    struct asked anew = first(f, &f->alice, ALL);
    assert_int_equal(ask(f, &f->alice, ALL, asked.pos, &bad).code, ERR_M_UNKNOWN_POS);
    assert_int_equal(ask(f, &f->alice, ALL, anew.pos, &bad).code, 0);
}

/* --- windows --- */

static const char *window(struct fixture *f, int last)
{
    struct slice text = arena_printf(f->house.ctx.arena,
                                     "{\"lists\":{\"all\":{\"ranges\":[[0,%d]],"
                                     "\"timeline_limit\":1}}}",
                                     last);
    return arena_cstr(f->house.ctx.arena, text);
}

static void a_growing_window_brings_the_rooms_not_told_of_yet(void **state)
{
    struct fixture *f = *state;
    struct room *rooms[5];
    for (size_t i = 0; i < COUNT_OF(rooms); i++) {
        rooms[i] = house_room(&f->house, &f->alice, PUBLIC);
    }
    struct asked asked = first(f, &f->alice, window(f, 1));
    assert_int_equal(room_count(&asked), 2);
    assert_non_null(room_of(&asked, rooms[4]));
    assert_non_null(room_of(&asked, rooms[3]));
    assert_int_equal(list_count(&asked, "all"), 5);
    struct asked grown = then(f, &f->alice, window(f, 3), &asked);
    assert_int_equal(room_count(&grown), 2);
    assert_non_null(room_of(&grown, rooms[1]));
    house_say(&f->house, rooms[0], &f->alice, "bump");
    struct asked bumped = then(f, &f->alice, window(f, 3), &grown);
    assert_int_equal(room_count(&bumped), 1);
    assert_true(flag(room_of(&bumped, rooms[0]), "initial"));
    assert_int_equal(number_of(room_of(&bumped, rooms[0]), "num_live"), 1);
}

static void a_room_out_of_the_window_waits_with_its_news(void **state)
{
    struct fixture *f = *state;
    struct room *first_room = house_room(&f->house, &f->alice, PUBLIC);
    struct room *second = house_room(&f->house, &f->alice, PUBLIC);
    struct asked asked = first(f, &f->alice, window(f, 1));
    house_say(&f->house, first_room, &f->alice, "a");
    house_say(&f->house, second, &f->alice, "b");
    struct asked narrow = then(f, &f->alice, window(f, 0), &asked);
    assert_int_equal(room_count(&narrow), 1);
    assert_non_null(room_of(&narrow, second));
    struct asked wide = then(f, &f->alice, window(f, 1), &narrow);
    assert_int_equal(room_count(&wide), 1);
    assert_string_equal(types_of(f, room_of(&wide, first_room), "timeline"), "a");
}

/* --- changes of what is asked --- */

static void a_larger_timeline_limit_brings_older_events_at_once(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    house_say(&f->house, room, &f->alice, "one");
    house_say(&f->house, room, &f->alice, "two");
    struct asked asked = first(f, &f->alice, window(f, 9));
    assert_string_equal(types_of(f, room_of(&asked, room), "timeline"), "two");
    const char *deeper = "{\"lists\":{\"all\":{\"ranges\":[[0,9]],\"timeline_limit\":2}}}";
    struct asked more = then(f, &f->alice, deeper, &asked);
    assert_true(more.answer.news);
    assert_string_equal(types_of(f, room_of(&more, room), "timeline"), "one two");
    assert_true(flag(room_of(&more, room), "expanded_timeline"));
    assert_true(flag(room_of(&more, room), "unstable_expanded_timeline"));
    assert_false(flag(room_of(&more, room), "initial"));
    assert_int_equal(number_of(room_of(&more, room), "num_live"), 0);
    struct asked same = then(f, &f->alice, deeper, &more);
    assert_int_equal(room_count(&same), 0);
}

static void more_required_state_brings_that_state(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, NAMED);
    struct asked asked = first(f, &f->alice, window(f, 9));
    assert_string_equal(types_of(f, room_of(&asked, room), "required_state"), "");
    const char *more = "{\"lists\":{\"all\":{\"ranges\":[[0,9]],\"timeline_limit\":1,"
                       "\"required_state\":[[\"m.room.create\",\"\"]]}}}";
    struct asked created = then(f, &f->alice, more, &asked);
    assert_string_equal(types_of(f, room_of(&created, room), "required_state"), "m.room.create");
    const char *most = "{\"lists\":{\"all\":{\"range\":[0,9],\"timeline_limit\":1,"
                       "\"required_state\":{\"include\":[{}],\"exclude\":[{\"type\":"
                       "\"m.room.name\"}]}}}}";
    struct asked all = then(f, &f->alice, most, &created);
    assert_string_equal(types_of(f, room_of(&all, room), "required_state"),
                        "m.room.member/@alice:test m.room.power_levels m.room.join_rules "
                        "m.room.history_visibility");
    assert_null(json_get(room_of(&all, room), LIT("timeline")));
}

static void a_subscription_needs_no_window(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, NAMED);
    struct room *secret = house_room(&f->house, &f->bob, PUBLIC);
    house_room(&f->house, &f->alice, PUBLIC);
    struct slice body =
        arena_printf(f->house.ctx.arena,
                     "{\"room_subscriptions\":{\"%s\":{\"timeline_limit\":1,\"required_state\":"
                     "[[\"m.room.member\",\"$ME\"]]},\"%s\":{\"timeline_limit\":1},\"!no:where\":"
                     "{\"timeline_limit\":1}}}",
                     arena_cstr(f->house.ctx.arena, hs_room_info(room).room_id),
                     arena_cstr(f->house.ctx.arena, hs_room_info(secret).room_id));
    const char *text = arena_cstr(f->house.ctx.arena, body);
    struct asked asked = first(f, &f->alice, text);
    assert_int_equal(room_count(&asked), 1);
    assert_string_equal(types_of(f, room_of(&asked, room), "required_state"),
                        "m.room.member/@alice:test");
    assert_null(json_get(room_of(&asked, room), LIT("lists")));
    house_say(&f->house, secret, &f->bob, "hidden");
    assert_int_equal(room_count(&(struct asked){.body = then(f, &f->alice, text, &asked).body}), 0);
}

/* --- state --- */

static void lazy_members_come_with_their_events_once(void **state)
{
    struct fixture *f = *state;
    const char *lazy = "{\"lists\":{\"all\":{\"ranges\":[[0,9]],\"timeline_limit\":1,"
                       "\"required_state\":[[\"m.room.member\",\"$LAZY\"]]}}}";
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    house_say(&f->house, room, &f->alice, "one");
    struct asked asked = first(f, &f->alice, lazy);
    assert_string_equal(types_of(f, room_of(&asked, room), "required_state"),
                        "m.room.member/@alice:test");
    house_say(&f->house, room, &f->bob, "two");
    struct asked next = then(f, &f->alice, lazy, &asked);
    assert_string_equal(types_of(f, room_of(&next, room), "required_state"),
                        "m.room.member/@bob:test");
    struct asked lost = then(f, &f->alice, lazy, &asked);
    assert_string_equal(types_of(f, room_of(&lost, room), "required_state"),
                        "m.room.member/@bob:test");
    house_say(&f->house, room, &f->bob, "three");
    struct asked last = then(f, &f->alice, lazy, &lost);
    assert_string_equal(types_of(f, room_of(&last, room), "required_state"), "");
}

static void a_changed_name_and_state_are_told(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, NAMED);
    struct asked asked = first(f, &f->alice, ALL);
    house_state(&f->house, room, &f->alice, "m.room.name", "{}");
    house_state(&f->house, room, &f->alice, "m.room.topic", "{\"topic\":\"t\"}");
    struct asked next = then(f, &f->alice, ALL, &asked);
    const struct json *told = room_of(&next, room);
    assert_int_equal(json_get(told, LIT("name"))->type, JSON_NULL);
    assert_non_null(json_get(told, LIT("heroes")));
    assert_string_equal(types_of(f, told, "required_state"), "m.room.topic");
    assert_string_equal(types_of(f, told, "timeline"), "m.room.name m.room.topic");
}

/* --- memberships --- */

static void an_invite_has_stripped_state_and_a_join_begins_anew(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, NAMED);
    struct asked none = first(f, &f->bob, ALL);
    assert_int_equal(room_count(&none), 0);
    house_member(&f->house, room, &f->alice, &f->bob, MEMBERSHIP_INVITE);
    struct asked asked = then(f, &f->bob, ALL, &none);
    const struct json *invite = room_of(&asked, room);
    assert_true(json_is_string(json_get(invite, LIT("membership")), LIT("invite")));
    assert_true(json_get_array(invite, LIT("invite_state"))->count > 0);
    assert_true(json_get_array(invite, LIT("stripped_state"))->count > 0);
    assert_null(json_get(invite, LIT("timeline")));
    struct asked idle = then(f, &f->bob, ALL, &asked);
    assert_int_equal(room_count(&idle), 0);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    struct asked joined = then(f, &f->bob, ALL, &idle);
    assert_true(flag(room_of(&joined, room), "initial"));
    assert_non_null(json_get(room_of(&joined, room), LIT("timeline")));
}

/* Synapse CVE-2024-53867. */
static void a_left_room_is_told_of_once(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, NAMED);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    struct asked asked = first(f, &f->bob, ALL);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_LEAVE);
    house_say(&f->house, room, &f->alice, "after");
    struct asked left = then(f, &f->bob, ALL, &asked);
    const struct json *told = room_of(&left, room);
    assert_true(json_is_string(json_get(told, LIT("membership")), LIT("leave")));
    assert_string_equal(types_of(f, told, "timeline"), "m.room.member/@bob:test");
    assert_int_equal(list_count(&left, "all"), 0);
    struct asked idle = then(f, &f->bob, ALL, &left);
    assert_int_equal(room_count(&idle), 0);
    struct asked anew = first(f, &f->bob, ALL);
    assert_int_equal(room_count(&anew), 0);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    struct asked back = then(f, &f->bob, ALL, &anew);
    assert_true(flag(room_of(&back, room), "initial"));
}

static void a_ban_is_told_of_to_everybody_a_ban_of_a_stranger_is_not(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, NAMED);
    struct room *other = house_room(&f->house, &f->alice, NAMED);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    house_member(&f->house, room, &f->alice, &f->bob, MEMBERSHIP_BAN);
    house_member(&f->house, other, &f->alice, &f->bob, MEMBERSHIP_BAN);
    struct asked asked = first(f, &f->bob, ALL);
    assert_int_equal(room_count(&asked), 1);
    assert_true(json_is_string(json_get(room_of(&asked, room), LIT("membership")), LIT("ban")));
    struct asked idle = then(f, &f->bob, ALL, &asked);
    assert_int_equal(room_count(&idle), 0);
}

/* --- filters --- */

static int64_t count_with(struct fixture *f, const char *filters)
{
    struct slice text = arena_printf(f->house.ctx.arena,
                                     "{\"lists\":{\"l\":{\"ranges\":[[0,9]],\"timeline_limit\":0,"
                                     "\"filters\":%s}}}",
                                     filters);
    struct asked asked = first(f, &f->alice, arena_cstr(f->house.ctx.arena, text));
    int64_t count = list_count(&asked, "l");
    assert_int_equal(room_count(&asked), count);
    return count;
}

static void put_data(struct fixture *f, const struct room *room, const char *type,
                     struct slice content)
{
    uint64_t number = room ? hs_room_info(room).number : 0;
    assert_int_equal(hs_account_data_put(&f->house.hs, &f->house.ctx, f->alice.actor.user, number,
                                         slice_of(type), content)
                         .code,
                     0);
}

/* plain becomes a child of the space. */
static void house_child(struct fixture *f, struct room *space, const struct room *child)
{
    struct json content;
    assert_int_equal(json_parse(f->house.ctx.arena, LIT("{\"via\":[\"test\"]}"), &content).code, 0);
    struct hs_sent sent;
    struct send_request request = {.actor = &f->alice.actor,
                                   .device_id = f->alice.device_id,
                                   .type = LIT("m.space.child"),
                                   .state_key = hs_room_info(child).room_id,
                                   .content = &content};
    struct err err = hs_send_state(&f->house.hs, &f->house.ctx, space, &request, &sent);
    assert_int_equal(err.code, 0);
}

static void filters_choose_rooms(void **state)
{
    struct fixture *f = *state;
    struct room *space = house_room(&f->house, &f->alice,
                                    "{\"room_version\":\"11\",\"creation_content\":{\"type\":"
                                    "\"m.space\"}}");
    struct room *plain = house_room(&f->house, &f->alice, PUBLIC);
    struct room *secret = house_room(&f->house, &f->alice, PUBLIC);
    struct room *invite = house_room(&f->house, &f->bob, PUBLIC);
    house_state(&f->house, secret, &f->alice, "m.room.encryption", "{\"algorithm\":\"x\"}");
    house_member(&f->house, invite, &f->bob, &f->alice, MEMBERSHIP_INVITE);
    assert_int_equal(count_with(f, "{}"), 4);
    assert_int_equal(count_with(f, "{\"room_types\":[\"m.space\"]}"), 1);
    assert_int_equal(count_with(f, "{\"room_types\":[null]}"), 3);
    assert_int_equal(count_with(f, "{\"not_room_types\":[\"m.space\"]}"), 3);
    assert_int_equal(count_with(f, "{\"room_types\":[null],\"not_room_types\":[null]}"), 0);
    assert_int_equal(count_with(f, "{\"is_encrypted\":true}"), 1);
    assert_int_equal(count_with(f, "{\"is_invite\":true}"), 1);
    assert_int_equal(count_with(f, "{\"is_invited\":false}"), 3);
    assert_int_equal(count_with(f, "{\"is_dm\":true}"), 0);
    put_data(f, NULL, "m.direct",
             arena_printf(f->house.ctx.arena, "{\"@bob:test\":[\"%s\"]}",
                          arena_cstr(f->house.ctx.arena, hs_room_info(plain).room_id)));
    assert_int_equal(count_with(f, "{\"is_dm\":true}"), 1);
    assert_int_equal(count_with(f, "{\"is_dm\":false}"), 3);
    put_data(f, plain, "m.tag", LIT("{\"tags\":{\"m.favourite\":{}}}"));
    assert_int_equal(count_with(f, "{\"tags\":[\"m.favourite\"]}"), 1);
    assert_int_equal(count_with(f, "{\"not_tags\":[\"m.favourite\",\"x\"]}"), 3);
    put_data(f, plain, "m.tag", LIT("{\"tags\":{}}"));
    assert_int_equal(count_with(f, "{\"tags\":[\"m.favourite\"]}"), 0);
    struct slice space_id = hs_room_info(space).room_id;
    struct slice by_space = arena_printf(f->house.ctx.arena, "{\"spaces\":[\"%.*s\"]}",
                                         (int)space_id.len, space_id.ptr);
    const char *in_space = arena_cstr(f->house.ctx.arena, by_space);
    assert_int_equal(count_with(f, in_space), 0);
    house_child(f, space, plain);
    assert_int_equal(count_with(f, in_space), 1);
}

static void a_direct_chat_is_told_when_it_becomes_one(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    struct asked asked = first(f, &f->alice, ALL);
    assert_null(json_get(room_of(&asked, room), LIT("is_dm")));
    put_data(f, NULL, "m.direct",
             arena_printf(f->house.ctx.arena, "{\"@bob:test\":[\"%s\"]}",
                          arena_cstr(f->house.ctx.arena, hs_room_info(room).room_id)));
    struct asked next = then(f, &f->alice, ALL, &asked);
    assert_true(flag(room_of(&next, room), "is_dm"));
    put_data(f, NULL, "m.direct", LIT("{}"));
    struct asked last = then(f, &f->alice, ALL, &next);
    assert_int_equal(json_get(room_of(&last, room), LIT("is_dm"))->type, JSON_BOOL);
    assert_false(flag(room_of(&last, room), "is_dm"));
}

/* --- counts --- */

static void unread_counts_follow_messages_and_receipts(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    struct asked asked = first(f, &f->bob, ALL);
    struct slice event_id = house_say(&f->house, room, &f->alice, "unread");
    struct asked unread = then(f, &f->bob, ALL, &asked);
    assert_int_equal(number_of(room_of(&unread, room), "notification_count"), 1);
    struct receipt receipt = {.user = f->bob.actor.user,
                              .user_id = f->bob.actor.user_id,
                              .type = RECEIPT_READ,
                              .event_id = event_id,
                              .number = hs_room_head(room).number,
                              .ts_ms = 1};
    assert_int_equal(hs_receipt_set(&f->house.hs, &f->house.ctx, room, &receipt).code, 0);
    struct asked read = then(f, &f->bob, ALL, &unread);
    assert_int_equal(number_of(room_of(&read, room), "notification_count"), 0);
    assert_null(json_get(room_of(&read, room), LIT("timeline")));
    struct asked idle = then(f, &f->bob, ALL, &read);
    assert_int_equal(room_count(&idle), 0);
}

/* --- extensions --- */

#define EXTENSIONS                                                                                 \
    "{\"lists\":{\"all\":{\"ranges\":[[0,9]],\"timeline_limit\":1}},\"extensions\":{"              \
    "\"account_data\":{\"enabled\":true},\"receipts\":{\"enabled\":true},"                         \
    "\"typing\":{\"enabled\":true}}}"

static void account_data_comes_with_its_extension(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    put_data(f, NULL, "org.example.a", LIT("{\"a\":1}"));
    put_data(f, room, "org.example.r", LIT("{\"r\":1}"));
    struct asked asked = first(f, &f->alice, EXTENSIONS);
    const struct json *data = asked_extension(&asked, "account_data");
    assert_int_equal(json_get_array(data, LIT("global"))->count, 2); /* and m.push_rules */
    const struct json *rooms = json_get(data, LIT("rooms"));
    assert_int_equal(json_get(rooms, hs_room_info(room).room_id)->count, 1);
    struct asked idle = then(f, &f->alice, EXTENSIONS, &asked);
    assert_null(asked_extension(&idle, "account_data"));
    put_data(f, room, "org.example.r", LIT("{\"r\":2}"));
    struct asked next = then(f, &f->alice, EXTENSIONS, &idle);
    assert_true(next.answer.news);
    data = asked_extension(&next, "account_data");
    assert_null(json_get(data, LIT("global")));
    assert_int_equal(json_get(json_get(data, LIT("rooms")), hs_room_info(room).room_id)->count, 1);
}

static void receipts_and_typing_come_with_their_extensions(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    struct slice event_id = house_say(&f->house, room, &f->alice, "read me");
    struct receipt receipt = {.user = f->bob.actor.user,
                              .user_id = f->bob.actor.user_id,
                              .type = RECEIPT_READ,
                              .event_id = event_id,
                              .number = hs_room_head(room).number,
                              .ts_ms = 1};
    assert_int_equal(hs_receipt_set(&f->house.hs, &f->house.ctx, room, &receipt).code, 0);
    hs_typing_set(&f->house.hs, hs_room_info(room).number, f->bob.actor.user, 10000);
    struct asked asked = first(f, &f->alice, EXTENSIONS);
    struct slice room_id = hs_room_info(room).room_id;
    const struct json *rooms = json_get(asked_extension(&asked, "receipts"), LIT("rooms"));
    const struct json *content = json_get(json_get(rooms, room_id), LIT("content"));
    assert_non_null(json_get(content, event_id));
    rooms = json_get(asked_extension(&asked, "typing"), LIT("rooms"));
    content = json_get(json_get(rooms, room_id), LIT("content"));
    assert_int_equal(json_get_array(content, LIT("user_ids"))->count, 1);
    hs_typing_set(&f->house.hs, hs_room_info(room).number, f->bob.actor.user, 0);
    struct asked next = then(f, &f->alice, EXTENSIONS, &asked);
    rooms = json_get(asked_extension(&next, "typing"), LIT("rooms"));
    content = json_get(json_get(rooms, room_id), LIT("content"));
    assert_int_equal(json_get_array(content, LIT("user_ids"))->count, 0);
    assert_null(asked_extension(&next, "receipts"));
}

#define KEYS "{\"extensions\":{\"e2ee\":{\"enabled\":true},\"to_device\":{\"enabled\":true%s}}}"

static void who_types_is_told_of_when_the_room_is_in_view_again(void **state)
{
    struct fixture *f = *state;
    struct arena *arena = f->house.ctx.arena;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    struct slice id = hs_room_info(room).room_id;
    const char *none = "{\"extensions\":{\"typing\":{\"enabled\":true}}}";
    const char *view =
        arena_cstr(arena, arena_printf(arena,
                                       "{\"room_subscriptions\":{\"%.*s\":{\"timeline_limit\":1}},"
                                       "\"extensions\":{\"typing\":{\"enabled\":true}}}",
                                       (int)id.len, id.ptr));
    hs_typing_set(&f->house.hs, hs_room_info(room).number, f->bob.actor.user, 30000);
    struct asked asked = first(f, &f->alice, view);
    assert_non_null(asked_extension(&asked, "typing"));
    asked = then(f, &f->alice, view, &asked);
    assert_null(asked_extension(&asked, "typing"));
    asked = then(f, &f->alice, none, &asked);
    asked = then(f, &f->alice, view, &asked);
    assert_non_null(asked_extension(&asked, "typing"));
}

static const char *keys_request(struct fixture *f, struct slice since)
{
    struct slice more = {0};
    if (since.len > 0) {
        more = arena_printf(f->house.ctx.arena, ",\"since\":\"%.*s\"", (int)since.len, since.ptr);
    }
    struct slice text = arena_printf(f->house.ctx.arena, KEYS,
                                     more.len ? arena_cstr(f->house.ctx.arena, more) : "");
    return arena_cstr(f->house.ctx.arena, text);
}

static void send_to_bob(struct fixture *f)
{
    struct json content = json_object();
    struct to_device_item item = {f->bob.actor.user_id, LIT("*"), &content};
    struct to_device_send send = {
        .sender = f->alice.actor.user_id, .type = LIT("m.test"), .items = &item, .count = 1};
    assert_int_equal(hs_to_device_send(&f->house.hs, &f->house.ctx, &send).code, 0);
}

static void to_device_messages_stay_until_their_token_returns(void **state)
{
    struct fixture *f = *state;
    send_to_bob(f);
    struct slice none = {0};
    struct asked asked = first(f, &f->bob, keys_request(f, none));
    const struct json *inbox = asked_extension(&asked, "to_device");
    assert_int_equal(json_get_array(inbox, LIT("events"))->count, 1);
    struct asked again = then(f, &f->bob, keys_request(f, none), &asked);
    assert_int_equal(json_get_array(asked_extension(&again, "to_device"), LIT("events"))->count, 1);
    assert_true(again.answer.news);
    struct slice since = json_get_string(inbox, LIT("next_batch"));
    struct asked next = then(f, &f->bob, keys_request(f, since), &again);
    assert_int_equal(json_get_array(asked_extension(&next, "to_device"), LIT("events"))->count, 0);
    assert_false(next.answer.news);
    assert_non_null(json_get(asked_extension(&next, "e2ee"), LIT("device_one_time_keys_count")));
    struct asked back = then(f, &f->bob, keys_request(f, none), &next);
    assert_int_equal(json_get_array(asked_extension(&back, "to_device"), LIT("events"))->count, 0);
}

static void device_lists_tell_of_those_who_come_and_go(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    struct slice none = {0};
    struct asked asked = first(f, &f->alice, keys_request(f, none));
    assert_null(json_get(asked_extension(&asked, "e2ee"), LIT("device_lists")));
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    struct asked came = then(f, &f->alice, keys_request(f, none), &asked);
    assert_true(came.answer.news);
    const struct json *lists = json_get(asked_extension(&came, "e2ee"), LIT("device_lists"));
    assert_int_equal(json_get_array(lists, LIT("changed"))->count, 1);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_LEAVE);
    struct asked went = then(f, &f->alice, keys_request(f, none), &came);
    lists = json_get(asked_extension(&went, "e2ee"), LIT("device_lists"));
    assert_int_equal(json_get_array(lists, LIT("left"))->count, 1);
    assert_int_equal(json_get_array(lists, LIT("changed"))->count, 0);
}

static void a_connection_without_rooms_survives_a_restart(void **state)
{
    struct fixture *f = *state;
    struct slice none = {0};
    struct asked asked = first(f, &f->alice, keys_request(f, none));
    struct asked rooms = first(f, &f->bob, ALL);
    house_settle(&f->house);
    sync_sliding_forget(f->house.hs.sync); /* what a restart forgets */
    send_to_bob(f);
    struct asked next = then(f, &f->alice, keys_request(f, none), &asked);
    assert_false(next.answer.news);
    struct asked bad = {0};
    assert_int_equal(ask(f, &f->bob, ALL, rooms.pos, &bad).code, ERR_M_UNKNOWN_POS);
}

static uint32_t code_on_loop(struct fixture *f, const struct guest *guest, struct slice pos)
{
    struct asked asked = {0};
    house_settle(&f->house);
    f->house.ctx.on_loop = true;
    struct err err = ask(f, guest, ALL, pos, &asked);
    f->house.ctx.on_loop = false;
    return err.code;
}

static void a_loop_tells_of_nothing_new_and_leaves_the_rest(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    assert_int_equal(code_on_loop(f, &f->alice, (struct slice){0}), ERR_WAITS);
    struct asked asked = first(f, &f->alice, ALL);
    assert_int_equal(code_on_loop(f, &f->alice, asked.pos), 0);
    house_say(&f->house, room, &f->alice, "news");
    assert_int_equal(code_on_loop(f, &f->alice, asked.pos), ERR_WAITS);
    struct asked next = then(f, &f->alice, ALL, &asked);
    assert_non_null(room_of(&next, room));
    sync_sliding_forget(f->house.hs.sync);
    assert_int_equal(code_on_loop(f, &f->alice, next.pos), ERR_M_UNKNOWN_POS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(the_first_answer_has_the_rooms_of_the_window),
        TEST(the_next_answer_has_only_what_is_new),
        TEST(a_repeated_pos_gives_the_lost_answer_again),
        TEST(either_answer_to_a_pos_can_be_gone_on_from),
        TEST(a_pos_is_of_one_user_device_and_connection),
        TEST(a_growing_window_brings_the_rooms_not_told_of_yet),
        TEST(a_room_out_of_the_window_waits_with_its_news),
        TEST(a_larger_timeline_limit_brings_older_events_at_once),
        TEST(more_required_state_brings_that_state),
        TEST(a_subscription_needs_no_window),
        TEST(lazy_members_come_with_their_events_once),
        TEST(a_changed_name_and_state_are_told),
        TEST(an_invite_has_stripped_state_and_a_join_begins_anew),
        TEST(a_left_room_is_told_of_once),
        TEST(a_ban_is_told_of_to_everybody_a_ban_of_a_stranger_is_not),
        TEST(filters_choose_rooms),
        TEST(a_direct_chat_is_told_when_it_becomes_one),
        TEST(unread_counts_follow_messages_and_receipts),
        TEST(account_data_comes_with_its_extension),
        TEST(receipts_and_typing_come_with_their_extensions),
        TEST(who_types_is_told_of_when_the_room_is_in_view_again),
        TEST(to_device_messages_stay_until_their_token_returns),
        TEST(device_lists_tell_of_those_who_come_and_go),
        TEST(a_connection_without_rooms_survives_a_restart),
        TEST(a_loop_tells_of_nothing_new_and_leaves_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
