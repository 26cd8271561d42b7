/* Answers of the engine, over all services and a store in memory. */
#include "homeserver/service/device_keys.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/signals.h"
#include "homeserver/service/to_device.h"
#include "tests/support/couple.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct asking {
    const char *since; /* NULL = initial */
    const char *filter;
    bool full_state, use_state_after;
};

static struct json sync_as(struct fixture *f, const struct guest *guest, struct asking asking)
{
    struct house *house = &f->house;
    struct sync_filter filter = sync_filter_all();
    struct sync_request request = {.user = guest->actor.user,
                                   .user_id = guest->actor.user_id,
                                   .device_id = guest->device_id,
                                   .filter = &filter,
                                   .full_state = asking.full_state,
                                   .use_state_after = asking.use_state_after};
    struct sync_answer answer;
    struct buf body;
    struct json json;
    house_settle(house);
    if (asking.filter) {
        struct err err = sync_find_filter(house->hs.sync, &house->ctx, request.user,
                                          slice_of(asking.filter), &filter);
        assert_int_equal(err.code, 0);
    }
    struct slice since = asking.since ? slice_of(asking.since) : (struct slice){0};
    assert_int_equal(sync_parse_since(house->hs.sync, since, &request).code, 0);
    buf_init_arena(&body, house->ctx.arena, 1 << 26);
    struct err err = sync_respond(house->hs.sync, &house->ctx, &request, &body, &answer);
    assert_int_equal(err.code, 0);
    struct slice text = buf_slice(&body);
    if (getenv("SHOW")) {
        printf("%.*s\n\n", (int)text.len, text.ptr);
    }
    assert_int_equal(json_parse(house->ctx.arena, text, &json).code, 0);
    return json;
}

static const char *next_batch(struct fixture *f, const struct json *answer)
{
    return arena_cstr(f->house.ctx.arena, json_get_string(answer, LIT("next_batch")));
}

/* rooms.<category>.<room>, or NULL. */
static const struct json *room_of(const struct json *answer, const char *category,
                                  const struct room *room)
{
    const struct json *rooms = json_get(answer, LIT("rooms"));
    return json_get(json_get(rooms, slice_of(category)), hs_room_info(room).room_id);
}

static const struct json *events_of(const struct json *room, const char *part)
{
    return json_get_array(json_get(room, slice_of(part)), LIT("events"));
}

/* "type/state_key type ..." of the events, for comparing. */
static const char *types_of(struct fixture *f, const struct json *events)
{
    struct buf buf;
    buf_init_arena(&buf, f->house.ctx.arena, 1 << 16);
    for (uint32_t i = 0; events != NULL && i < events->count; i++) {
        const struct json *event = &events->items[i];
        struct slice body = json_get_string(json_get(event, LIT("content")), LIT("body"));
        struct slice key = json_get_string(event, LIT("state_key"));
        buf_add(&buf, i > 0 ? LIT(" ") : LIT(""));
        buf_add(&buf, body.ptr ? body : json_get_string(event, LIT("type")));
        buf_add(&buf, key.len > 0 ? LIT("/") : LIT(""));
        buf_add(&buf, key);
    }
    return arena_cstr(f->house.ctx.arena, buf_slice(&buf));
}

static bool is_limited(const struct json *room)
{
    return json_get_bool(json_get(room, LIT("timeline")), LIT("limited"), false);
}

#define PUBLIC "{\"preset\":\"public_chat\",\"room_version\":\"11\"}"

static void an_initial_sync_has_state_before_the_timeline_and_no_event_twice(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    house_say(&f->house, room, &f->alice, "one");
    struct json answer =
        sync_as(f, &f->alice, (struct asking){.filter = "{\"room\":{\"timeline\":{\"limit\":2}}}"});
    const struct json *joined = room_of(&answer, "join", room);
    assert_string_equal(types_of(f, events_of(joined, "timeline")),
                        "m.room.history_visibility one");
    assert_true(is_limited(joined));
    assert_string_equal(types_of(f, events_of(joined, "state")),
                        "m.room.create m.room.member/@alice:test m.room.power_levels "
                        "m.room.join_rules");
    int64_t count = 0;
    assert_true(
        json_get_int(json_get(joined, LIT("summary")), LIT("m.joined_member_count"), &count));
    assert_int_equal(count, 1);
}

static void a_whole_small_room_is_not_limited(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    struct json answer = sync_as(
        f, &f->alice, (struct asking){.filter = "{\"room\":{\"timeline\":{\"limit\":100}}}"});
    const struct json *joined = room_of(&answer, "join", room);
    assert_false(is_limited(joined));
    assert_int_equal(events_of(joined, "state")->count, 0);
    assert_int_equal(events_of(joined, "timeline")->count, 5);
}

static void an_incremental_sync_brings_what_is_new_and_then_nothing(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    struct json first = sync_as(f, &f->alice, (struct asking){0});
    house_say(&f->house, room, &f->alice, "one");
    house_say(&f->house, room, &f->alice, "two");
    struct json second = sync_as(f, &f->alice, (struct asking){.since = next_batch(f, &first)});
    struct json again = sync_as(f, &f->alice, (struct asking){.since = next_batch(f, &first)});
    const struct json *joined = room_of(&second, "join", room);
    assert_string_equal(types_of(f, events_of(joined, "timeline")), "one two");
    assert_false(is_limited(joined));
    assert_true(json_eq(&second, &again));
    struct json third = sync_as(f, &f->alice, (struct asking){.since = next_batch(f, &second)});
    assert_null(json_get(&third, LIT("rooms")));
}

static void a_limited_timeline_has_the_state_changes_of_the_gap(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    struct json first = sync_as(f, &f->alice, (struct asking){0});
    house_state(&f->house, room, &f->alice, "m.room.topic", "{\"topic\":\"x\"}");
    house_state(&f->house, room, &f->alice, "m.room.name", "{\"name\":\"a\"}");
    house_say(&f->house, room, &f->alice, "one");
    house_state(&f->house, room, &f->alice, "m.room.name", "{\"name\":\"b\"}");
    const char *filter = "{\"room\":{\"timeline\":{\"limit\":2}}}";
    struct json second =
        sync_as(f, &f->alice, (struct asking){next_batch(f, &first), filter, false, false});
    const struct json *joined = room_of(&second, "join", room);
    assert_string_equal(types_of(f, events_of(joined, "timeline")), "one m.room.name");
    assert_true(is_limited(joined));
    assert_string_equal(types_of(f, events_of(joined, "state")), "m.room.topic m.room.name");
    struct json after =
        sync_as(f, &f->alice, (struct asking){next_batch(f, &first), filter, false, true});
    joined = room_of(&after, "join", room);
    assert_null(events_of(joined, "state"));
    assert_string_equal(types_of(f, events_of(joined, "state_after")), "m.room.topic m.room.name");
}

static void state_that_a_filter_keeps_out_of_the_timeline_comes_as_state(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    struct json first = sync_as(f, &f->alice, (struct asking){0});
    house_state(&f->house, room, &f->alice, "m.room.topic", "{\"topic\":\"x\"}");
    house_say(&f->house, room, &f->alice, "one");
    struct json second = sync_as(
        f, &f->alice,
        (struct asking){.since = next_batch(f, &first),
                        .filter = "{\"room\":{\"timeline\":{\"types\":[\"m.room.message\"]}}}"});
    const struct json *joined = room_of(&second, "join", room);
    assert_string_equal(types_of(f, events_of(joined, "timeline")), "one");
    assert_string_equal(types_of(f, events_of(joined, "state")), "m.room.topic");
}

static void a_room_joined_since_comes_whole_and_not_as_left(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    struct json first = sync_as(f, &f->bob, (struct asking){0});
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_LEAVE);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    struct json second =
        sync_as(f, &f->bob,
                (struct asking){next_batch(f, &first), "{\"room\":{\"timeline\":{\"limit\":1}}}",
                                false, false});
    const struct json *joined = room_of(&second, "join", room);
    assert_string_equal(types_of(f, events_of(joined, "timeline")), "m.room.member/@bob:test");
    assert_int_equal(events_of(joined, "state")->count, 6);
    assert_null(room_of(&second, "leave", room));
    const struct json *lists = json_get(&second, LIT("device_lists"));
    assert_true(
        json_is_string(&json_get_array(lists, LIT("changed"))->items[0], LIT("@alice:test")));
}

static void leaving_shows_the_room_once_up_to_the_leave(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    struct json first = sync_as(f, &f->bob, (struct asking){0});
    house_say(&f->house, room, &f->alice, "before");
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_LEAVE);
    house_say(&f->house, room, &f->alice, "after");
    struct json second = sync_as(f, &f->bob, (struct asking){.since = next_batch(f, &first)});
    const struct json *left = room_of(&second, "leave", room);
    assert_string_equal(types_of(f, events_of(left, "timeline")), "before m.room.member/@bob:test");
    const struct json *lists = json_get(&second, LIT("device_lists"));
    assert_true(json_is_string(&json_get_array(lists, LIT("left"))->items[0], LIT("@alice:test")));
    struct json third = sync_as(f, &f->bob, (struct asking){.since = next_batch(f, &second)});
    assert_null(json_get(&third, LIT("rooms")));
    struct json whole = sync_as(f, &f->bob, (struct asking){0});
    assert_null(room_of(&whole, "leave", room));
    whole = sync_as(f, &f->bob, (struct asking){.filter = "{\"room\":{\"include_leave\":true}}"});
    left = room_of(&whole, "leave", room);
    assert_non_null(left);
    const struct json *events = events_of(left, "timeline");
    assert_true(json_is_string(json_get(&events->items[events->count - 1], LIT("state_key")),
                               LIT("@bob:test")));
}

static void an_invite_comes_with_stripped_state_and_its_refusal_as_left(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, "{\"preset\":\"private_chat\"}");
    struct json first = sync_as(f, &f->bob, (struct asking){0});
    house_member(&f->house, room, &f->alice, &f->bob, MEMBERSHIP_INVITE);
    struct json second = sync_as(f, &f->bob, (struct asking){.since = next_batch(f, &first)});
    const struct json *stripped = events_of(room_of(&second, "invite", room), "invite_state");
    assert_string_equal(types_of(f, stripped), "m.room.create m.room.join_rules "
                                               "m.room.member/@bob:test m.room.member/@alice:test");
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_LEAVE);
    struct json third = sync_as(f, &f->bob, (struct asking){.since = next_batch(f, &second)});
    const struct json *left = room_of(&third, "leave", room);
    assert_string_equal(types_of(f, events_of(left, "timeline")), "m.room.member/@bob:test");
    assert_null(room_of(&third, "invite", room));
}

static void lazy_loading_sends_the_members_that_speak_once(void **state)
{
    struct fixture *f = *state;
    const char *filter = "{\"room\":{\"state\":{\"lazy_load_members\":true},\"timeline\":{\"limit\""
                         ":1}}}";
    struct room *room = house_room(&f->house, &f->alice,
                                   "{\"preset\":\"public_chat\",\"name\":"
                                   "\"n\",\"room_version\":\"11\"}");
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    struct guest carol = house_guest(&f->house, "carol");
    house_member(&f->house, room, &carol, &carol, MEMBERSHIP_JOIN);
    house_say(&f->house, room, &f->bob, "one");
    struct json first = sync_as(f, &f->alice, (struct asking){.filter = filter});
    const char *types = types_of(f, events_of(room_of(&first, "join", room), "state"));
    assert_string_equal(types, "m.room.create m.room.power_levels m.room.join_rules "
                               "m.room.history_visibility m.room.name "
                               "m.room.member/@bob:test m.room.member/@alice:test");
    house_say(&f->house, room, &f->bob, "two");
    house_say(&f->house, room, &carol, "three");
    struct json second =
        sync_as(f, &f->alice, (struct asking){next_batch(f, &first), filter, false, false});
    assert_string_equal(types_of(f, events_of(room_of(&second, "join", room), "state")),
                        "m.room.member/@carol:test");
    /* The same since gives the same again; the next one finds nothing to add. */
    struct json again =
        sync_as(f, &f->alice, (struct asking){next_batch(f, &first), filter, false, false});
    assert_true(json_eq(&second, &again));
    house_say(&f->house, room, &carol, "four");
    struct json third =
        sync_as(f, &f->alice, (struct asking){next_batch(f, &second), filter, false, false});
    assert_string_equal(types_of(f, events_of(room_of(&third, "join", room), "state")), "");
}

/* Large rooms take another way to the same answer. */
static void lazy_loading_in_a_crowd_sends_only_who_is_needed(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    for (int i = 0; i < 101; i++) {
        struct guest guest = {.actor = f->alice.actor};
        guest.actor.user_id = arena_printf(f->house.ctx.arena, "@crowd%d:test", i);
        house_member(&f->house, room, &f->alice, &guest, MEMBERSHIP_INVITE);
    }
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    house_say(&f->house, room, &f->bob, "one");
    struct json answer =
        sync_as(f, &f->alice,
                (struct asking){.filter = "{\"room\":{\"state\":{\"lazy_load_members\":true},"
                                          "\"timeline\":{\"limit\":1}}}"});
    /* Without a name for the room, its heroes are needed too. */
    assert_string_equal(types_of(f, events_of(room_of(&answer, "join", room), "state")),
                        "m.room.create m.room.history_visibility "
                        "m.room.join_rules m.room.power_levels m.room.member/@bob:test "
                        "m.room.member/@alice:test m.room.member/@crowd0:test "
                        "m.room.member/@crowd1:test m.room.member/@crowd2:test "
                        "m.room.member/@crowd3:test m.room.member/@crowd4:test");
}

static void fields_and_federation_format_change_how_events_look(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    house_say(&f->house, room, &f->alice, "one");
    struct json answer = sync_as(
        f, &f->alice,
        (struct asking){
            .filter =
                "{\"event_fields\":[\"content.body\"],\"room\":{\"timeline\":{\"limit\":1}}}"});
    const struct json *events = events_of(room_of(&answer, "join", room), "timeline");
    assert_null(json_get(&events->items[0], LIT("sender")));
    assert_string_equal(types_of(f, events), "one");
    answer = sync_as(
        f, &f->alice,
        (struct asking){
            .filter = "{\"event_format\":\"federation\",\"room\":{\"timeline\":{\"limit\":1}}}"});
    events = events_of(room_of(&answer, "join", room), "timeline");
    assert_non_null(json_get(&events->items[0], LIT("hashes")));
}

static void history_before_a_join_is_shown_only_where_it_is_shared(void **state)
{
    struct fixture *f = *state;
    const char *hidden = "{\"preset\":\"public_chat\",\"initial_state\":[{\"type\":"
                         "\"m.room.history_visibility\",\"content\":{\"history_visibility\":"
                         "\"joined\"}}]}";
    struct room *room = house_room(&f->house, &f->alice, hidden);
    house_say(&f->house, room, &f->alice, "secret");
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    house_say(&f->house, room, &f->alice, "open");
    struct json answer =
        sync_as(f, &f->bob, (struct asking){.filter = "{\"room\":{\"timeline\":{\"limit\":3}}}"});
    assert_string_equal(types_of(f, events_of(room_of(&answer, "join", room), "timeline")),
                        "m.room.history_visibility m.room.member/@bob:test open");
}

/* Carol's join came while bob was out, and her invite before: shown after the state that holds the
 * join, the invite would undo it. */
static void a_timeline_begins_behind_changes_that_are_not_shown(void **state)
{
    struct fixture *f = *state;
    const char *hidden = "{\"preset\":\"public_chat\",\"initial_state\":[{\"type\":"
                         "\"m.room.history_visibility\",\"content\":{\"history_visibility\":"
                         "\"joined\"}}]}";
    struct guest carol = house_guest(&f->house, "carol");
    struct room *room = house_room(&f->house, &f->alice, hidden);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    house_member(&f->house, room, &f->alice, &carol, MEMBERSHIP_INVITE);
    struct json first = sync_as(f, &f->bob, (struct asking){0});
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_LEAVE);
    house_member(&f->house, room, &carol, &carol, MEMBERSHIP_JOIN);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    struct json answer = sync_as(f, &f->bob, (struct asking){.since = next_batch(f, &first)});
    const struct json *joined = room_of(&answer, "join", room);
    assert_string_equal(types_of(f, events_of(joined, "timeline")), "m.room.member/@bob:test");
    assert_true(is_limited(joined));
    const char *types = types_of(f, events_of(joined, "state"));
    assert_non_null(strstr(types, "m.room.member/@carol:test"));
}

/* What was hidden for a while and is open again undoes nothing: older events are shown with it. */
static void a_hidden_change_that_was_changed_again_cuts_nothing(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    const char *steps[] = {"joined", "invited", "shared"};
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        char content[64];
        snprintf(content, sizeof content, "{\"history_visibility\":\"%s\"}", steps[i]);
        house_state(&f->house, room, &f->alice, "m.room.history_visibility", content);
    }
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    struct json answer =
        sync_as(f, &f->bob, (struct asking){.filter = "{\"room\":{\"timeline\":{\"limit\":3}}}"});
    assert_string_equal(types_of(f, events_of(room_of(&answer, "join", room), "timeline")),
                        "m.room.history_visibility m.room.history_visibility "
                        "m.room.member/@bob:test");
}

static void full_state_repeats_the_state_but_not_the_timeline(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    struct json first = sync_as(f, &f->alice, (struct asking){0});
    struct json second =
        sync_as(f, &f->alice, (struct asking){.since = next_batch(f, &first), .full_state = true});
    const struct json *joined = room_of(&second, "join", room);
    assert_int_equal(events_of(joined, "timeline")->count, 0);
    assert_int_equal(events_of(joined, "state")->count, 5);
    assert_false(is_limited(joined));
}

static void whisper(struct fixture *f, const struct guest *to, int64_t n)
{
    struct json content = json_object();
    json_set(f->house.ctx.arena, &content, LIT("n"), json_int(n));
    struct to_device_item item = {to->actor.user_id, to->device_id, &content};
    struct to_device_send send = {.sender = f->alice.actor.user_id,
                                  .type = LIT("x.y"),
                                  .items = &item,
                                  .count = 1,
                                  .user = f->alice.actor.user};
    assert_int_equal(hs_to_device_send(&f->house.hs, &f->house.ctx, &send).code, 0);
}

/* First and last n of the to-device messages, and how many there are. */
static size_t whispers(const struct json *answer, int64_t *first_out, int64_t *last_out)
{
    const struct json *events = json_get_array(json_get(answer, LIT("to_device")), LIT("events"));
    if (events == NULL) {
        return 0;
    }
    json_get_int(json_get(&events->items[0], LIT("content")), LIT("n"), first_out);
    json_get_int(json_get(&events->items[events->count - 1], LIT("content")), LIT("n"), last_out);
    return events->count;
}

static void acknowledge(struct fixture *f, const struct guest *guest, const char *since)
{
    struct sync_request request = {.user = guest->actor.user, .device_id = guest->device_id};
    assert_int_equal(sync_parse_since(f->house.hs.sync, slice_of(since), &request).code, 0);
    assert_int_equal(sync_acknowledge(f->house.hs.sync, &f->house.ctx, &request).code, 0);
}

static void to_device_messages_come_by_the_hundred_until_acknowledged(void **state)
{
    struct fixture *f = *state;
    struct json first = sync_as(f, &f->bob, (struct asking){0});
    int64_t from = 0;
    int64_t to = 0;
    for (int64_t n = 0; n < 150; n++) {
        whisper(f, &f->bob, n);
    }
    struct json second = sync_as(f, &f->bob, (struct asking){.since = next_batch(f, &first)});
    assert_int_equal(whispers(&second, &from, &to), 100);
    assert_int_equal(from, 0);
    struct json again = sync_as(f, &f->bob, (struct asking){.since = next_batch(f, &first)});
    assert_true(json_eq(&second, &again));
    acknowledge(f, &f->bob, next_batch(f, &second));
    struct json third = sync_as(f, &f->bob, (struct asking){.since = next_batch(f, &second)});
    assert_int_equal(whispers(&third, &from, &to), 50);
    assert_int_equal(from, 100);
    assert_int_equal(to, 149);
    struct json fourth = sync_as(f, &f->bob, (struct asking){.since = next_batch(f, &third)});
    assert_int_equal(whispers(&fourth, &from, &to), 0);
    acknowledge(f, &f->bob, next_batch(f, &third));
    fourth = sync_as(f, &f->bob, (struct asking){0});
    assert_int_equal(whispers(&fourth, &from, &to), 0);
}

static void account_data_comes_where_it_belongs(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    uint64_t user = f->alice.actor.user;
    struct json first = sync_as(f, &f->alice, (struct asking){0});
    assert_non_null(strstr(types_of(f, events_of(&first, "account_data")), "m.push_rules"));
    struct err err =
        hs_account_data_put(&f->house.hs, &f->house.ctx, user, 0, LIT("x.global"), LIT("{}"));
    assert_int_equal(err.code, 0);
    err = hs_account_data_put(&f->house.hs, &f->house.ctx, user, hs_room_info(room).number,
                              LIT("x.room"), LIT("{}"));
    assert_int_equal(err.code, 0);
    struct json second = sync_as(f, &f->alice, (struct asking){.since = next_batch(f, &first)});
    assert_string_equal(types_of(f, events_of(&second, "account_data")), "x.global");
    const struct json *joined = room_of(&second, "join", room);
    assert_string_equal(types_of(f, events_of(joined, "account_data")), "x.room");
    assert_int_equal(events_of(joined, "timeline")->count, 0);
}

static void receipts_and_typing_come_as_ephemeral_events(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    struct slice event_id = house_say(&f->house, room, &f->alice, "one");
    struct json first = sync_as(f, &f->alice, (struct asking){0});
    struct receipt_request receipt = {.type = LIT("m.read"), .event_id = event_id};
    struct err err = hs_receipt_request(&f->house.hs, &f->house.ctx, room, &f->bob.actor, &receipt);
    assert_int_equal(err.code, 0);
    err = hs_typing_request(&f->house.hs, &f->house.ctx, room, &f->bob.actor, 30000);
    assert_int_equal(err.code, 0);
    struct json second = sync_as(f, &f->alice, (struct asking){.since = next_batch(f, &first)});
    const struct json *events = events_of(room_of(&second, "join", room), "ephemeral");
    assert_string_equal(types_of(f, events), "m.receipt m.typing");
    const struct json *read =
        json_get(json_get(json_get(&events->items[0], LIT("content")), event_id), LIT("m.read"));
    assert_non_null(json_get(read, LIT("@bob:test")));
    struct json third = sync_as(f, &f->alice, (struct asking){.since = next_batch(f, &second)});
    assert_null(json_get(&third, LIT("rooms")));
}

static void what_others_say_is_counted_until_it_is_read(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    struct slice event_id = house_say(&f->house, room, &f->alice, "one");
    struct json first = sync_as(f, &f->bob, (struct asking){0});
    const struct json *counts =
        json_get(room_of(&first, "join", room), LIT("unread_notifications"));
    int64_t count = 0;
    assert_true(json_get_int(counts, LIT("notification_count"), &count));
    assert_int_equal(count, 1);
    struct receipt_request receipt = {.type = LIT("m.read.private"), .event_id = event_id};
    struct err err = hs_receipt_request(&f->house.hs, &f->house.ctx, room, &f->bob.actor, &receipt);
    assert_int_equal(err.code, 0);
    struct json second = sync_as(f, &f->bob, (struct asking){.since = next_batch(f, &first)});
    counts = json_get(room_of(&second, "join", room), LIT("unread_notifications"));
    assert_true(json_get_int(counts, LIT("notification_count"), &count));
    assert_int_equal(count, 0);
}

static void ignored_users_are_not_heard_nor_their_invites(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    struct json first = sync_as(f, &f->bob, (struct asking){0});
    struct err err = hs_account_data_put(&f->house.hs, &f->house.ctx, f->bob.actor.user, 0,
                                         LIT("m.ignored_user_list"),
                                         LIT("{\"ignored_users\":{\"@alice:test\":{}}}"));
    assert_int_equal(err.code, 0);
    house_say(&f->house, room, &f->alice, "one");
    house_state(&f->house, room, &f->alice, "m.room.topic", "{\"topic\":\"x\"}");
    struct room *other = house_room(&f->house, &f->alice, PUBLIC);
    house_member(&f->house, other, &f->alice, &f->bob, MEMBERSHIP_INVITE);
    struct json second = sync_as(f, &f->bob, (struct asking){.since = next_batch(f, &first)});
    assert_string_equal(types_of(f, events_of(room_of(&second, "join", room), "timeline")),
                        "m.room.topic");
    assert_null(room_of(&second, "invite", other));
}

static void device_lists_follow_changes_and_departures(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    struct guest carol = house_guest(&f->house, "carol");
    struct json first = sync_as(f, &f->alice, (struct asking){0});
    assert_null(json_get(&first, LIT("device_lists")));
    struct hs *hs = &f->house.hs;
    assert_int_equal(hs_device_list_changed(hs, &f->house.ctx, f->bob.actor.user).code, 0);
    assert_int_equal(hs_device_list_changed(hs, &f->house.ctx, carol.actor.user).code, 0);
    struct json second = sync_as(f, &f->alice, (struct asking){.since = next_batch(f, &first)});
    const struct json *lists = json_get(&second, LIT("device_lists"));
    assert_int_equal(json_get_array(lists, LIT("changed"))->count, 1);
    assert_true(json_is_string(&json_get_array(lists, LIT("changed"))->items[0], LIT("@bob:test")));
    house_member(&f->house, room, &f->bob, &f->bob, MEMBERSHIP_LEAVE);
    struct json third = sync_as(f, &f->alice, (struct asking){.since = next_batch(f, &second)});
    lists = json_get(&third, LIT("device_lists"));
    assert_true(json_is_string(&json_get_array(lists, LIT("left"))->items[0], LIT("@bob:test")));
    struct json again = sync_as(f, &f->alice, (struct asking){.since = next_batch(f, &second)});
    assert_true(json_eq(&third, &again));
}

/* What a handler gets that runs on a loop. */
static uint32_t code_on_loop(struct fixture *f, const struct guest *guest, const char *since)
{
    struct house *house = &f->house;
    struct sync_filter filter = sync_filter_all();
    struct sync_request request = {.user = guest->actor.user,
                                   .user_id = guest->actor.user_id,
                                   .device_id = guest->device_id,
                                   .filter = &filter};
    struct sync_answer answer;
    struct buf body;
    buf_init_arena(&body, house->ctx.arena, 1 << 26);
    house_settle(house);
    assert_int_equal(sync_parse_since(house->hs.sync, slice_of(since), &request).code, 0);
    house->ctx.on_loop = true;
    struct err err = sync_respond(house->hs.sync, &house->ctx, &request, &body, &answer);
    house->ctx.on_loop = false;
    return err.code;
}

static void a_loop_tells_of_nothing_new_and_leaves_the_rest(void **state)
{
    struct fixture *f = *state;
    struct room *room = house_room(&f->house, &f->alice, PUBLIC);
    house_settle(&f->house);
    char since[64];
    struct sync_token now = {positions_published(f->house.hs.positions),
                             positions_published(f->house.hs.positions)};
    struct slice text = sync_token_encode(f->house.ctx.arena, now);
    snprintf(since, sizeof since, "%.*s", (int)text.len, text.ptr);
    assert_int_equal(code_on_loop(f, &f->alice, since), ERR_WAITS); /* who is not known yet */
    struct json first = sync_as(f, &f->alice, (struct asking){0});
    assert_int_equal(code_on_loop(f, &f->alice, next_batch(f, &first)), 0);
    house_say(&f->house, room, &f->alice, "news");
    assert_int_equal(code_on_loop(f, &f->alice, next_batch(f, &first)), ERR_WAITS);
    struct json second = sync_as(f, &f->alice, (struct asking){.since = next_batch(f, &first)});
    assert_string_equal(types_of(f, events_of(room_of(&second, "join", room), "timeline")), "news");
    assert_int_equal(code_on_loop(f, &f->alice, next_batch(f, &second)), 0);
}

#define ENGINE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ENGINE_TEST(an_initial_sync_has_state_before_the_timeline_and_no_event_twice),
        ENGINE_TEST(a_whole_small_room_is_not_limited),
        ENGINE_TEST(an_incremental_sync_brings_what_is_new_and_then_nothing),
        ENGINE_TEST(a_limited_timeline_has_the_state_changes_of_the_gap),
        ENGINE_TEST(state_that_a_filter_keeps_out_of_the_timeline_comes_as_state),
        ENGINE_TEST(a_room_joined_since_comes_whole_and_not_as_left),
        ENGINE_TEST(leaving_shows_the_room_once_up_to_the_leave),
        ENGINE_TEST(an_invite_comes_with_stripped_state_and_its_refusal_as_left),
        ENGINE_TEST(lazy_loading_sends_the_members_that_speak_once),
        ENGINE_TEST(lazy_loading_in_a_crowd_sends_only_who_is_needed),
        ENGINE_TEST(fields_and_federation_format_change_how_events_look),
        ENGINE_TEST(history_before_a_join_is_shown_only_where_it_is_shared),
        ENGINE_TEST(a_timeline_begins_behind_changes_that_are_not_shown),
        ENGINE_TEST(a_hidden_change_that_was_changed_again_cuts_nothing),
        ENGINE_TEST(full_state_repeats_the_state_but_not_the_timeline),
        ENGINE_TEST(to_device_messages_come_by_the_hundred_until_acknowledged),
        ENGINE_TEST(account_data_comes_where_it_belongs),
        ENGINE_TEST(receipts_and_typing_come_as_ephemeral_events),
        ENGINE_TEST(what_others_say_is_counted_until_it_is_read),
        ENGINE_TEST(ignored_users_are_not_heard_nor_their_invites),
        ENGINE_TEST(device_lists_follow_changes_and_departures),
        ENGINE_TEST(a_loop_tells_of_nothing_new_and_leaves_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
