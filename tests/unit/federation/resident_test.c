/* What a resident server takes from others, and what it refuses with which code. */
#include "homeserver/service/check.h"
#include "homeserver/service/entering.h"
#include "homeserver/service/intake.h"
#include "tests/support/street_fixture.h"

#include <stdio.h>
#include <string.h>

static int open_street(void **state)
{
    (void)state;
    return open_with("{\"preset\":\"public_chat\"}");
}

static int open_knock(void **state)
{
    (void)state;
    return open_with("{\"preset\":\"private_chat\",\"name\":\"Door\",\"initial_state\":[{\"type\":"
                     "\"m.room.join_rules\",\"content\":{\"join_rule\":\"knock\"}}]}");
}

static struct arena *arena(void)
{
    return street.houses[1].ctx.arena;
}

/* A request of B at A about the room and something else. */
static int ask(const char *method, const char *format, struct slice second,
               const struct json *content)
{
    return ask_about(&(struct about){1, 0, method, format, second, content});
}

/* --- make_* --- */

static const char make_join[] = "/_matrix/federation/v1/make_join/%s/%s?ver=11&ver=12";
static const char make_leave[] = "/_matrix/federation/v1/make_leave/%s/%s";
static const char make_knock[] = "/_matrix/federation/v1/make_knock/%s/%s?ver=12";
static const char send_join[] = "/_matrix/federation/v2/send_join/%s/%s";
static const char send_join_v1[] = "/_matrix/federation/v1/send_join/%s/%s";
static const char send_leave[] = "/_matrix/federation/v2/send_leave/%s/%s";
static const char send_leave_v1[] = "/_matrix/federation/v1/send_leave/%s/%s";
static const char send_knock[] = "/_matrix/federation/v1/send_knock/%s/%s";

static void a_template_is_for_users_of_the_asker_alone(void **state)
{
    (void)state;
    assert_answer(ask("GET", make_join, bob.actor.user_id, NULL), 200, "");
    assert_true(json_is_string(json_get(&body, LIT("room_version")), LIT("12")));
    const struct json *event = json_get_object(&body, LIT("event"));
    assert_true(json_is_string(json_get(event, LIT("sender")), bob.actor.user_id));
    assert_null(json_get(event, LIT("signatures")));
    assert_answer(ask("GET", make_join, LIT("@carol:c.test:1"), NULL), 403, "M_FORBIDDEN");
    assert_answer(ask("GET", make_join, alice.actor.user_id, NULL), 403, "M_FORBIDDEN");
    assert_answer(ask("GET", make_leave, alice.actor.user_id, NULL), 403, "M_FORBIDDEN");
    assert_answer(ask("GET", make_join, LIT("bob"), NULL), 400, "M_INVALID_PARAM");
}

static void a_version_that_the_asker_lacks_is_named(void **state)
{
    (void)state;
    assert_answer(
        ask("GET", "/_matrix/federation/v1/make_join/%s/%s?ver=10&ver=11", bob.actor.user_id, NULL),
        400, "M_INCOMPATIBLE_ROOM_VERSION");
    assert_true(json_is_string(json_get(&body, LIT("room_version")), LIT("12")));
    /* Without `ver` the asker knows version 1 alone. */
    assert_answer(ask("GET", "/_matrix/federation/v1/make_join/%s/%s", bob.actor.user_id, NULL),
                  400, "M_INCOMPATIBLE_ROOM_VERSION");
    assert_answer(
        ask("GET", "/_matrix/federation/v1/make_knock/%s/%s?ver=1", bob.actor.user_id, NULL), 400,
        "M_INCOMPATIBLE_ROOM_VERSION");
}

static void rooms_that_nobody_is_in_are_not_found(void **state)
{
    struct slice kept = room_id;
    (void)state;
    room_id = LIT("!none:a.test:1");
    assert_answer(ask("GET", make_join, bob.actor.user_id, NULL), 404, "M_NOT_FOUND");
    room_id = LIT("none");
    assert_answer(ask("GET", make_join, bob.actor.user_id, NULL), 400, "M_INVALID_PARAM");
    room_id = kept;
    house_member(&street.houses[0], room, &alice, &alice, MEMBERSHIP_LEAVE);
    assert_answer(ask("GET", make_join, bob.actor.user_id, NULL), 404, "M_NOT_FOUND");
    assert_answer(ask("GET", make_knock, bob.actor.user_id, NULL), 404, "M_NOT_FOUND");
    assert_answer(ask("GET", make_leave, bob.actor.user_id, NULL), 404, "M_NOT_FOUND");
}

static void the_rules_of_the_room_hold_for_templates(void **state)
{
    (void)state;
    assert_answer(ask("GET", make_knock, bob.actor.user_id, NULL), 403, "M_FORBIDDEN");
    assert_answer(ask("GET", make_leave, bob.actor.user_id, NULL), 403, "M_FORBIDDEN");
    house_member(&street.houses[0], room, &alice, &bob, MEMBERSHIP_BAN);
    assert_answer(ask("GET", make_join, bob.actor.user_id, NULL), 403, "M_FORBIDDEN");
}

static void servers_that_the_room_bars_get_nothing(void **state)
{
    (void)state;
    house_state(&street.houses[0], room, &alice, "m.room.server_acl",
                "{\"allow\":[\"*\"],\"deny\":[\"b.test\"]}");
    assert_answer(ask("GET", make_join, bob.actor.user_id, NULL), 403, "M_FORBIDDEN");
    struct json nothing = json_object();
    assert_answer(ask("PUT", send_join, LIT("$x"), &nothing), 403, "M_FORBIDDEN");
    assert_answer(ask("PUT", send_leave, LIT("$x"), &nothing), 403, "M_FORBIDDEN");
    assert_answer(ask("PUT", send_knock, LIT("$x"), &nothing), 403, "M_FORBIDDEN");
}

/* --- send_* --- */

/* What is changed of a good event before it is sealed. */
struct twist {
    const char *key, *value; /* value is JSON; NULL removes */
};

/* A template for bob, with changes, sealed by B. */
static struct event make_event(const char *make, const struct twist *changes, size_t count)
{
    static const struct slice drop[] = {{"hashes", 6}, {"signatures", 10}};
    struct event event;
    assert_answer(ask("GET", make, bob.actor.user_id, NULL), 200, "");
    struct json draft = json_without(arena(), json_get(&body, LIT("event")), drop, COUNT_OF(drop));
    for (size_t i = 0; i < count; i++) {
        struct json value;
        if (!changes[i].value) {
            json_remove(&draft, slice_of(changes[i].key));
            continue;
        }
        assert_int_equal(json_parse(arena(), slice_of(changes[i].value), &value).code, 0);
        json_set(arena(), &draft, slice_of(changes[i].key), value);
    }
    struct err err =
        event_seal(arena(), hs_room_info(room).rules, &draft, &street.houses[1].hs.signer, &event);
    if (err.code) {
        print_error("%s\n", err.text);
    }
    assert_int_equal(err.code, 0);
    return event;
}

static int send_event(const char *send, const struct event *event)
{
    return ask("PUT", send, event->id.s, event_tree(arena(), event));
}

static enum membership bob_in_a(void)
{
    struct house *house = &street.houses[0];
    enum membership membership = MEMBERSHIP_NONE;
    assert_int_equal(hs_membership_at(&house->hs, &house->ctx, room, hs_room_head(room).root,
                                      bob.actor.user_id, &membership)
                         .code,
                     0);
    return membership;
}

static void a_good_join_is_answered_with_the_state_before_it(void **state)
{
    (void)state;
    struct event event = make_event(make_join, NULL, 0);
    assert_answer(send_event(send_join, &event), 200, "");
    assert_int_equal(bob_in_a(), MEMBERSHIP_JOIN);
    const struct json *list = json_get_array(&body, LIT("state"));
    const struct json *chain = json_get_array(&body, LIT("auth_chain"));
    assert_true(list->count >= 5);
    assert_true(chain->count >= 3);
    for (uint32_t i = 0; i < list->count; i++) {
        assert_false(
            json_is_string(json_get(&list->items[i], LIT("state_key")), bob.actor.user_id));
    }
    assert_non_null(json_get_object(&body, LIT("event")));
    assert_false(json_get_bool(&body, LIT("members_omitted"), true));
}

/* Nothing cites the create event of a version 12 room, and yet all that is there rests on it. */
static void the_create_event_is_in_every_auth_chain(void **state)
{
    static const char state_ids[] = "/_matrix/federation/v1/state_ids/%s?event_id=%s";
    static const char event_auth[] = "/_matrix/federation/v1/event_auth/%s/%s";
    struct slice create =
        slice_of(arena_printf(arena(), "$%.*s", (int)room_id.len - 1, room_id.ptr + 1).ptr);
    uint32_t found = 0;
    (void)state;
    struct event event = make_event(make_join, NULL, 0);
    assert_answer(send_event(send_join, &event), 200, "");
    const struct json *chain = json_get_array(&body, LIT("auth_chain"));
    for (uint32_t i = 0; i < chain->count; i++) {
        found += json_is_string(json_get(&chain->items[i], LIT("type")), LIT("m.room.create"));
    }
    assert_int_equal(found, 1);
    assert_answer(ask("GET", state_ids, event.id.s, NULL), 200, "");
    const struct json *ids = json_get_array(&body, LIT("auth_chain_ids"));
    for (uint32_t i = 0; i < ids->count; i++) {
        found += json_is_string(&ids->items[i], create);
    }
    assert_int_equal(found, 2);
    assert_answer(ask("GET", event_auth, create, NULL), 200, "");
    assert_int_equal(json_get_array(&body, LIT("auth_chain"))->count, 0);
}

static void the_old_form_is_a_pair(void **state)
{
    (void)state;
    struct event event = make_event(make_join, NULL, 0);
    assert_int_equal(send_event(send_join_v1, &event), 200);
    assert_int_equal(body.type, JSON_ARRAY);
    assert_int_equal(body.items[0].integer, 200);
    assert_non_null(json_get_array(&body.items[1], LIT("state")));
    event = make_event(make_leave, NULL, 0);
    assert_int_equal(send_event(send_leave_v1, &event), 200);
    assert_int_equal(body.type, JSON_ARRAY);
    assert_int_equal(bob_in_a(), MEMBERSHIP_LEAVE);
}

static void members_may_be_left_out(void **state)
{
    struct house *house = &street.houses[0];
    (void)state;
    house_state(house, room, &alice, "m.room.name", "{\"name\":\"Hall\"}");
    for (int i = 0; i < 8; i++) {
        char name[8];
        snprintf(name, sizeof name, "m%d", i);
        struct guest guest = house_guest(house, name);
        house_member(house, room, &guest, &guest, MEMBERSHIP_JOIN);
    }
    struct event event = make_event(make_join, NULL, 0);
    static const char partial[] = "/_matrix/federation/v2/send_join/%s/%s?omit_members=true";
    assert_answer(send_event(partial, &event), 200, "");
    const struct json *list = json_get_array(&body, LIT("state"));
    const struct json *servers = json_get_array(&body, LIT("servers_in_room"));
    assert_true(json_get_bool(&body, LIT("members_omitted"), false));
    assert_int_equal(servers->count, 1);
    assert_true(json_is_string(&servers->items[0], street_name(0)));
    for (uint32_t i = 0; i < list->count; i++) {
        assert_false(json_is_string(json_get(&list->items[i], LIT("type")), LIT("m.room.member")));
    }
    /* The creator's membership is cited by the power levels. */
    const struct json *chain = json_get_array(&body, LIT("auth_chain"));
    assert_true(chain->count >= 1);
    for (uint32_t i = 0; i < chain->count; i++) {
        assert_true(json_is_string(json_get(&chain->items[i], LIT("type")), LIT("m.room.member")));
    }
}

static void heroes_come_with_a_room_without_name(void **state)
{
    (void)state;
    struct event event = make_event(make_join, NULL, 0);
    static const char partial[] = "/_matrix/federation/v2/send_join/%s/%s?omit_members=true";
    assert_answer(send_event(partial, &event), 200, "");
    const struct json *list = json_get_array(&body, LIT("state"));
    uint32_t members = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        members +=
            json_is_string(json_get(&list->items[i], LIT("type")), LIT("m.room.member")) ? 1 : 0;
    }
    assert_int_equal(members, 1);
    assert_int_equal(json_get_array(&body, LIT("auth_chain"))->count, 0);
}

static const struct twist shapes[] = {
    {"type", "\"m.room.name\""},
    {"state_key", NULL},
    {"state_key", "\"@ben:b.test:1\""},
    {"sender", "\"@alice:a.test:1\""},
    {"content", "{\"membership\":\"ban\"}"},
    {"content", "{\"membership\":\"invite\"}"},
    {"content", "{}"},
    {"room_id", "\"!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\""},
    {"prev_events", "[\"$nobody-knows-it\"]"},
};

static void events_of_another_shape_are_invalid(void **state)
{
    static const char *const sends[] = {send_join, send_join_v1, send_leave, send_leave_v1,
                                        send_knock};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        struct event event = make_event(make_join, &shapes[i], 1);
        for (size_t s = 0; s < COUNT_OF(sends); s++) {
            assert_answer(send_event(sends[s], &event), 400, "M_INVALID_PARAM");
        }
    }
    struct event join = make_event(make_join, NULL, 0);
    assert_answer(send_event(send_leave, &join), 400, "M_INVALID_PARAM");
    assert_answer(send_event(send_knock, &join), 400, "M_INVALID_PARAM");
    assert_answer(ask("PUT", send_join, LIT("$other"), event_tree(arena(), &join)), 400,
                  "M_INVALID_PARAM");
    assert_int_equal(bob_in_a(), MEMBERSHIP_NONE);
}

static void events_without_a_good_signature_are_invalid(void **state)
{
    (void)state;
    struct event join = make_event(make_join, NULL, 0);
    struct json tree = json_without(arena(), event_tree(arena(), &join), NULL, 0);
    json_set(arena(), &tree, LIT("signatures"), json_object());
    assert_answer(ask("PUT", send_join, join.id.s, &tree), 400, "M_INVALID_PARAM");
    tree = json_without(arena(), event_tree(arena(), &join), NULL, 0);
    json_set(arena(), &tree, LIT("unhashed"), json_int(1));
    assert_answer(ask("PUT", send_join, join.id.s, &tree), 400, "M_INVALID_PARAM");
    assert_int_equal(bob_in_a(), MEMBERSHIP_NONE);
}

/* The ban stands in the state before the join, though the join does not cite it. */
static void a_banned_user_does_not_come_in_with_an_old_template(void **state)
{
    (void)state;
    struct event join = make_event(make_join, NULL, 0);
    house_member(&street.houses[0], room, &alice, &bob, MEMBERSHIP_BAN);
    assert_answer(send_event(send_join, &join), 403, "M_FORBIDDEN");
    assert_answer(send_event(send_join, &join), 403, "M_FORBIDDEN");
    assert_int_equal(bob_in_a(), MEMBERSHIP_BAN);
}

static void a_knock_is_answered_with_what_the_room_is(void **state)
{
    (void)state;
    assert_answer(ask("GET", make_join, bob.actor.user_id, NULL), 403, "M_FORBIDDEN");
    struct event event = make_event(make_knock, NULL, 0);
    assert_answer(send_event(send_knock, &event), 200, "");
    assert_int_equal(bob_in_a(), MEMBERSHIP_KNOCK);
    const struct json *list = json_get_array(&body, LIT("knock_room_state"));
    bool has_create = false;
    for (uint32_t i = 0; i < list->count; i++) {
        has_create = has_create ||
                     json_is_string(json_get(&list->items[i], LIT("type")), LIT("m.room.create"));
        assert_non_null(json_get(&list->items[i], LIT("signatures"))); /* whole events */
    }
    assert_true(has_create);
    event = make_event(make_leave, NULL, 0);
    assert_answer(send_event(send_leave, &event), 200, "");
    assert_int_equal(bob_in_a(), MEMBERSHIP_LEAVE);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_street, close_street)

/* The first fork of a room is a state event: the index that resolving begins to keep has it too. */
static void a_join_beside_another_event_is_found_by_what_it_cites(void **state)
{
    struct house *house = &street.houses[0];
    struct check_options options = {.deep = true};
    struct check_result result;
    (void)state;
    struct event join = make_event(make_join, NULL, 0);
    house_say(house, room, &alice, "meanwhile");
    assert_answer(send_event(send_join, &join), 200, "");
    house_settle(house);
    assert_int_equal(hs_check(&house->hs, &house->ctx, &options, &result).code, 0);
    assert_true(result.of[CHECK_CITES].rows > 0);
    assert_int_equal(result.differences, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_template_is_for_users_of_the_asker_alone),
        TEST(a_version_that_the_asker_lacks_is_named),
        TEST(rooms_that_nobody_is_in_are_not_found),
        TEST(the_rules_of_the_room_hold_for_templates),
        TEST(servers_that_the_room_bars_get_nothing),
        TEST(a_good_join_is_answered_with_the_state_before_it),
        TEST(the_create_event_is_in_every_auth_chain),
        TEST(the_old_form_is_a_pair),
        TEST(members_may_be_left_out),
        TEST(heroes_come_with_a_room_without_name),
        TEST(events_of_another_shape_are_invalid),
        TEST(events_without_a_good_signature_are_invalid),
        TEST(a_banned_user_does_not_come_in_with_an_old_template),
        cmocka_unit_test_setup_teardown(a_knock_is_answered_with_what_the_room_is, open_knock,
                                        close_street),
        cmocka_unit_test_setup_teardown(a_join_beside_another_event_is_found_by_what_it_cites,
                                        open_street, close_street),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
