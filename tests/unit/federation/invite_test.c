/* Invites between servers: what is signed, what is refused with which code, and how they end. */
#include "federation/resident.h"
#include "homeserver/service/entering.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/prefs.h"
#include "tests/support/street_fixture.h"

#include <stdio.h>
#include <string.h>

static int open_street(void **state)
{
    (void)state;
    return open_with("{\"preset\":\"private_chat\",\"name\":\"Cabin\"}");
}

static int open_old(void **state)
{
    (void)state;
    return open_with("{\"preset\":\"private_chat\",\"room_version\":\"1\"}");
}

static int open_stripped(void **state)
{
    (void)state;
    return open_with("{\"preset\":\"private_chat\",\"room_version\":\"10\"}");
}

static struct arena *arena(void)
{
    return street.houses[0].ctx.arena;
}

static struct json parse(const char *text)
{
    struct json value;
    assert_int_equal(json_parse(arena(), slice_of(text), &value).code, 0);
    return value;
}

/* The invite of bob by alice, or another event of the room, as A would seal it. */
struct making {
    const char *type, *state_key, *content;
};
static const struct making good = {"m.room.member", "@bob:b.test:1", "{\"membership\":\"invite\"}"};

static struct event make(const struct making *making)
{
    struct house *a = &street.houses[0];
    struct event event;
    struct json content = parse(making->content);
    struct hs_draft draft = {.sender = alice.actor.user_id,
                             .sender_number = alice.actor.user,
                             .type = slice_of(making->type),
                             .state_key = slice_of(making->state_key),
                             .content = content};
    struct err err = hs_compose(&a->hs, &a->ctx, room, &draft, &event);
    if (err.code) {
        print_error("%s\n", err.text);
    }
    assert_int_equal(err.code, 0);
    return event;
}

static int put(const char *format, struct slice id, const struct json *content)
{
    return ask_about(&(struct about){0, 1, "PUT", format, id, content});
}

static const char v2[] = "/_matrix/federation/v2/invite/%s/%s";
static const char v1[] = "/_matrix/federation/v1/invite/%s/%s";

static struct json room_state(void)
{
    struct house *a = &street.houses[0];
    struct json list;
    assert_int_equal(resident_room_state(&a->hs, &a->ctx, room, &list).code, 0);
    return list;
}

static struct json wrap(const struct json *pdu, const char *version)
{
    struct json wrapped = json_object();
    json_set(arena(), &wrapped, LIT("room_version"), json_string(slice_of(version)));
    json_set(arena(), &wrapped, LIT("event"), *pdu);
    json_set(arena(), &wrapped, LIT("invite_room_state"), room_state());
    return wrapped;
}

static int invite(const struct event *event)
{
    struct json content = wrap(event_tree(arena(), event), "12");
    return put(v2, event->id.s, &content);
}

/* Bob's own row about the room; membership NONE when there is none. */
static struct user_room row_of_bob(void)
{
    struct house *b = &street.houses[1];
    struct user_rooms rooms;
    assert_int_equal(hs_user_rooms(&b->hs, &b->ctx, bob.actor.user, &rooms).code, 0);
    return rooms.count ? rooms.items[0] : (struct user_room){0};
}

/* --- what is signed --- */

static void a_good_invite_is_signed_and_kept(void **state)
{
    (void)state;
    struct event event = make(&good);
    assert_answer(invite(&event), 200, "");
    const struct json *signatures =
        json_get_object(json_get_object(&body, LIT("event")), LIT("signatures"));
    assert_non_null(json_get(signatures, street_name(0)));
    assert_non_null(json_get(signatures, street_name(1)));
    struct user_room row = row_of_bob();
    assert_int_equal(row.membership, MEMBERSHIP_INVITE);
    assert_true(slice_contains(row.invite_state, LIT("@bob:b.test:1")));
    assert_answer(invite(&event), 200, ""); /* once more is no harm */
}

/* Conduit and its heirs, CVE-2025-68667. */
static void only_invites_of_own_users_are_signed(void **state)
{
    static const struct making cases[] = {
        {"m.room.topic", "", "{\"topic\":\"x\"}"},
        {"m.room.member", "@bob:b.test:1", "{\"membership\":\"ban\"}"},
        {"m.room.member", "@carol:c.test:1", "{\"membership\":\"invite\"}"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct event event = make(&cases[i]);
        assert_answer(invite(&event), 400, "M_INVALID_PARAM");
    }
    struct event event = make(&good);
    struct json content = wrap(event_tree(arena(), &event), "12");
    assert_answer(put(v2, LIT("$other"), &content), 400, "M_INVALID_PARAM");
    room_id = LIT("!other:a.test:1");
    assert_answer(put(v2, event.id.s, &content), 400, "M_INVALID_PARAM");
    assert_int_equal(row_of_bob().membership, MEMBERSHIP_NONE);
}

static void forged_invites_are_refused(void **state)
{
    (void)state;
    struct event event = make(&good);
    struct json pdu = json_without(arena(), event_tree(arena(), &event), NULL, 0);
    json_set(arena(), &pdu, LIT("signatures"), json_object());
    struct json content = wrap(&pdu, "12");
    assert_answer(put(v2, event.id.s, &content), 400, "M_INVALID_PARAM");
    pdu = json_without(arena(), event_tree(arena(), &event), NULL, 0);
    json_set(arena(), &pdu, LIT("unhashed"), json_int(1));
    content = wrap(&pdu, "12");
    assert_answer(put(v2, event.id.s, &content), 400, "M_INVALID_PARAM");
    /* An event of A that C hands over. */
    struct slice parts[] = {room_id, event.id.s};
    struct slice text;
    content = wrap(event_tree(arena(), &event), "12");
    struct street_request request = {.from = 2, .to = 1, .method = "PUT", .content = &content};
    request.target = fed_path(&street.houses[0].ctx, v2, parts, 2);
    assert_int_equal(street_ask(&street, &request, &text), 400);
    assert_int_equal(row_of_bob().membership, MEMBERSHIP_NONE);
}

/* Matrix CVE-2025-54315. */
static void the_create_event_of_another_room_is_noticed(void **state)
{
    struct stored_event create;
    bool found = false;
    struct house *a = &street.houses[0];
    (void)state;
    struct event event = make(&good);
    struct json content = wrap(event_tree(arena(), &event), "12");
    struct json list = json_array();
    struct room *other = house_room(a, &alice, "{}");
    assert_int_equal(hs_state_event(&a->hs, &a->ctx, other, hs_room_head(other).root,
                                    LIT("m.room.create"), LIT(""), &create, &found)
                         .code,
                     0);
    json_push(arena(), &list, *event_tree(arena(), &create.event));
    json_set(arena(), &content, LIT("invite_room_state"), list);
    assert_answer(put(v2, event.id.s, &content), 400, "M_INVALID_PARAM");
}

/* Spec: PUT /v2/invite: "servers MAY apply to room versions 1 through 11 and SHOULD apply to all
 * other room versions". */
static void room_state_that_does_not_hold_is_refused(void **state)
{
    static const struct slice cut[] = {{"hashes", 6}, {"signatures", 10}, {"auth_events", 11}};
    (void)state;
    struct event event = make(&good);
    struct json content = wrap(event_tree(arena(), &event), "12");
    struct json whole = room_state();
    struct json list = json_array();
    json_set(arena(), &content, LIT("invite_room_state"), list);
    assert_answer(put(v2, event.id.s, &content), 400, "M_INVALID_PARAM");
    for (size_t i = 0; i < COUNT_OF(cut); i++) {
        list = json_array();
        for (uint32_t k = 0; k < whole.count; k++) {
            struct json one = json_without(arena(), &whole.items[k], &cut[i], k ? 1 : 0);
            json_push(arena(), &list, one);
        }
        json_set(arena(), &content, LIT("invite_room_state"), list);
        assert_int_equal(put(v2, event.id.s, &content), 400);
    }
    json_set(arena(), &content, LIT("invite_room_state"), whole);
    assert_answer(put(v2, event.id.s, &content), 200, "");
}

/* Before version 12 its events are taken as they are; the user's row is read with each list. */
static void what_comes_with_an_invite_is_cut(void **state)
{
    enum { EVENTS = 400, NAME_BYTES = 1000, ROW_BYTES_MAX = 80000 };
    struct json list = json_array();
    char name[NAME_BYTES + 1] = "";
    (void)state;
    memset(name, 'x', NAME_BYTES);
    for (int i = 0; i < EVENTS; i++) {
        struct slice text =
            arena_printf(arena(),
                         "{\"type\":\"m.room.name\",\"state_key\":\"%d\",\"sender\":"
                         "\"@alice:a.test:1\",\"content\":{\"name\":\"%s\"}}",
                         i, name);
        json_push(arena(), &list, parse(text.ptr));
    }
    struct event event = make(&good);
    struct json content = wrap(event_tree(arena(), &event), "10");
    json_set(arena(), &content, LIT("invite_room_state"), list);
    assert_answer(put(v2, event.id.s, &content), 200, "");
    struct user_room row = row_of_bob();
    assert_true(row.invite_state.len < ROW_BYTES_MAX);
    assert_true(slice_contains(row.invite_state, LIT("\"state_key\":\"0\"")));
    assert_true(slice_contains(row.invite_state, LIT("@bob:b.test:1")));
}

static void versions_and_members_of_the_body_are_checked(void **state)
{
    (void)state;
    struct event event = make(&good);
    struct json content = wrap(event_tree(arena(), &event), "mine");
    assert_answer(put(v2, event.id.s, &content), 400, "M_INCOMPATIBLE_ROOM_VERSION");
    assert_true(json_is_string(json_get(&body, LIT("room_version")), LIT("mine")));
    content = json_object();
    assert_answer(put(v2, event.id.s, &content), 400, "M_MISSING_PARAM");
    content = wrap(event_tree(arena(), &event), "1");
    assert_int_equal(put(v2, event.id.s, &content), 400);
    assert_answer(put(v1, event.id.s, event_tree(arena(), &event)), 400,
                  "M_INCOMPATIBLE_ROOM_VERSION");
}

static void users_that_are_not_there_or_want_no_invites(void **state)
{
    static const struct making nobody = {"m.room.member", "@nobody:b.test:1",
                                         "{\"membership\":\"invite\"}"};
    struct house *b = &street.houses[1];
    (void)state;
    struct event event = make(&nobody);
    assert_answer(invite(&event), 404, "M_NOT_FOUND");
    assert_int_equal(hs_account_data_put(&b->hs, &b->ctx, bob.actor.user, 0,
                                         LIT("m.invite_permission_config"),
                                         LIT("{\"default_action\":\"block\"}"))
                         .code,
                     0);
    event = make(&good);
    assert_answer(invite(&event), 403, "M_INVITE_BLOCKED");
    assert_int_equal(row_of_bob().membership, MEMBERSHIP_NONE);
}

static void the_old_form_serves_old_rooms(void **state)
{
    (void)state;
    struct event event = make(&good);
    assert_int_equal(put(v1, event.id.s, event_tree(arena(), &event)), 200);
    assert_int_equal(body.type, JSON_ARRAY);
    assert_int_equal(body.items[0].integer, 200);
    assert_non_null(json_get_object(&body.items[1], LIT("event")));
    assert_int_equal(row_of_bob().membership, MEMBERSHIP_INVITE);
}

/* --- from end to end --- */

static struct err send_invite(void)
{
    struct house *a = &street.houses[0];
    struct hs_sent sent;
    struct member_change change = {.target = bob.actor.user_id, .membership = MEMBERSHIP_INVITE};
    return hs_member_set(&a->hs, &a->ctx, room, &alice.actor, &change, &sent);
}

static enum membership bob_in_a(void)
{
    struct house *a = &street.houses[0];
    enum membership membership = MEMBERSHIP_NONE;
    assert_int_equal(hs_membership_at(&a->hs, &a->ctx, room, hs_room_head(room).root,
                                      bob.actor.user_id, &membership)
                         .code,
                     0);
    return membership;
}

static struct err leave(void)
{
    struct house *b = &street.houses[1];
    return hs_room_leave(&b->hs, &b->ctx, &bob.actor, room_id, (struct slice){0});
}

static void an_invite_waits_only_where_it_may(void **state)
{
    (void)state;
    street.houses[0].ctx.may_wait = false;
    assert_int_equal(send_invite().code, ERR_WAITS);
    assert_int_equal(bob_in_a(), MEMBERSHIP_NONE);
    street.houses[0].ctx.may_wait = true;
    assert_int_equal(send_invite().code, 0);
    assert_int_equal(bob_in_a(), MEMBERSHIP_INVITE);
    assert_int_equal(row_of_bob().membership, MEMBERSHIP_INVITE);
    assert_true(slice_contains(row_of_bob().invite_state, LIT("m.room.create")));
    assert_true(slice_contains(row_of_bob().invite_state, LIT("Cabin")));
    assert_false(slice_contains(row_of_bob().invite_state, LIT("signatures")));
}

static void an_invite_is_rejected_at_the_inviter(void **state)
{
    (void)state;
    assert_int_equal(send_invite().code, 0);
    assert_int_equal(leave().code, 0);
    assert_int_equal(bob_in_a(), MEMBERSHIP_LEAVE);
    assert_int_equal(row_of_bob().membership, MEMBERSHIP_LEAVE);
}

static void an_invite_is_rejected_though_the_inviter_is_gone(void **state)
{
    (void)state;
    assert_int_equal(send_invite().code, 0);
    street.is_down[0] = true;
    assert_int_equal(leave().code, 0);
    assert_int_equal(row_of_bob().membership, MEMBERSHIP_LEAVE);
    assert_true(row_of_bob().number != 0); /* an event for clients to see */
}

static void a_server_that_is_down_gets_no_invite(void **state)
{
    (void)state;
    street.is_down[1] = true;
    assert_int_not_equal(send_invite().code, 0);
    assert_int_equal(bob_in_a(), MEMBERSHIP_NONE);
}

static bool sign_nothing(struct street *s, size_t to, const struct http_fetch_request *request,
                         struct http_fetch_reply *reply)
{
    (void)s;
    if (to != 1 || !slice_contains(request->url, LIT("/invite/"))) {
        return false;
    }
    reply->status = 200;
    reply->body = LIT("{\"event\":{\"signatures\":{}}}");
    return true;
}

static void an_invite_without_their_signature_is_not_sent(void **state)
{
    (void)state;
    street.intercept = sign_nothing;
    assert_int_equal(send_invite().code, ERR_M_REMOTE);
    assert_int_equal(bob_in_a(), MEMBERSHIP_NONE);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_street, close_street)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_good_invite_is_signed_and_kept),
        TEST(only_invites_of_own_users_are_signed),
        TEST(forged_invites_are_refused),
        TEST(the_create_event_of_another_room_is_noticed),
        TEST(room_state_that_does_not_hold_is_refused),
        TEST(versions_and_members_of_the_body_are_checked),
        TEST(users_that_are_not_there_or_want_no_invites),
        cmocka_unit_test_setup_teardown(what_comes_with_an_invite_is_cut, open_stripped,
                                        close_street),
        cmocka_unit_test_setup_teardown(the_old_form_serves_old_rooms, open_old, close_street),
        TEST(an_invite_waits_only_where_it_may),
        TEST(an_invite_is_rejected_at_the_inviter),
        TEST(an_invite_is_rejected_though_the_inviter_is_gone),
        TEST(a_server_that_is_down_gets_no_invite),
        TEST(an_invite_without_their_signature_is_not_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
