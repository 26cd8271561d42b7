/* Users of one server who enter rooms of another. */
#include "homeserver/service/entering.h"
#include "homeserver/service/users.h"
#include "tests/support/street.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct street street;
static struct guest alice, gil; /* of A; a guest of B */
static struct room *room;       /* of A */

static void open_with(const char *guest_access)
{
    street_open(&street);
    alice = house_guest(&street.houses[0], "alice");
    gil = house_guest(&street.houses[1], "gil");
    gil.actor.is_guest = true;
    room = house_room(&street.houses[0], &alice, "{\"preset\":\"public_chat\"}");
    house_state(&street.houses[0], room, &alice, "m.room.guest_access", guest_access);
}

static int open_street(void **state)
{
    (void)state;
    open_with("{\"guest_access\":\"can_join\"}");
    return 0;
}

static int open_without_guests(void **state)
{
    (void)state;
    open_with("{\"guest_access\":\"forbidden\"}");
    return 0;
}

static int close_street(void **state)
{
    (void)state;
    street_close(&street);
    return 0;
}

static struct err enter(struct slice *version_out)
{
    struct house *b = &street.houses[1];
    struct slice via = street_name(0);
    struct slice room_id;
    struct hs_entering entering = {.actor = &gil.actor,
                                   .name = hs_room_info(room).room_id,
                                   .membership = MEMBERSHIP_JOIN,
                                   .via = &via,
                                   .via_count = 1,
                                   .version_out = version_out};
    return hs_room_enter(&b->hs, &b->ctx, &entering, &room_id);
}

static enum membership gil_in_a(void)
{
    struct house *a = &street.houses[0];
    enum membership membership = MEMBERSHIP_NONE;
    assert_int_equal(hs_membership_at(&a->hs, &a->ctx, room, hs_room_head(room).root,
                                      gil.actor.user_id, &membership)
                         .code,
                     0);
    return membership;
}

static void a_guest_joins_a_room_elsewhere_where_guests_may(void **state)
{
    (void)state;
    assert_int_equal(enter(NULL).code, 0);
    assert_int_equal(gil_in_a(), MEMBERSHIP_JOIN);
}

static void a_guest_stays_out_where_guests_may_not(void **state)
{
    (void)state;
    assert_int_equal(enter(NULL).code, ERR_M_GUEST_ACCESS_FORBIDDEN);
    assert_int_equal(gil_in_a(), MEMBERSHIP_NONE);
}

/* The server that is asked says that guests may come in, the room's state does not. */
static bool lies_about_guests(struct street *s, size_t to, const struct http_fetch_request *request,
                              struct http_fetch_reply *reply)
{
    (void)s;
    (void)to;
    if (!slice_contains(request->url, LIT("/hierarchy/"))) {
        return false;
    }
    *reply = (struct http_fetch_reply){
        .status = 200, .body = LIT("{\"room\":{\"guest_can_join\":true},\"children\":[]}")};
    return true;
}

static void a_guest_leaves_a_room_that_takes_no_guests(void **state)
{
    (void)state;
    street.intercept = lies_about_guests;
    assert_int_equal(enter(NULL).code, ERR_M_GUEST_ACCESS_FORBIDDEN);
    struct house *b = &street.houses[1];
    struct user_rooms rooms;
    assert_int_equal(hs_user_rooms(&b->hs, &b->ctx, gil.actor.user, &rooms).code, 0);
    assert_int_equal(rooms.count, 1);
    assert_int_equal(rooms.items[0].membership, MEMBERSHIP_LEAVE);
}

static bool has_a_new_version(struct street *s, size_t to, const struct http_fetch_request *request,
                              struct http_fetch_reply *reply)
{
    (void)s;
    (void)to;
    if (!slice_contains(request->url, LIT("/make_join/"))) {
        return false;
    }
    *reply = (struct http_fetch_reply){
        .status = 400,
        .body = LIT("{\"errcode\":\"M_INCOMPATIBLE_ROOM_VERSION\",\"error\":\"no\","
                    "\"room_version\":\"org.example.new\"}")};
    return true;
}

static void the_version_of_the_room_comes_with_the_refusal(void **state)
{
    struct slice version = {0};
    (void)state;
    gil.actor.is_guest = false;
    street.intercept = has_a_new_version;
    assert_int_equal(enter(&version).code, ERR_M_INCOMPATIBLE_ROOM_VERSION);
    assert_true(slice_eq(version, LIT("org.example.new")));
}

static bool knows_no_knocks(struct street *s, size_t to, const struct http_fetch_request *request,
                            struct http_fetch_reply *reply)
{
    (void)s;
    (void)to;
    if (!slice_contains(request->url, LIT("/make_knock/"))) {
        return false;
    }
    *reply = (struct http_fetch_reply){
        .status = 404, .body = LIT("{\"errcode\":\"M_UNRECOGNIZED\",\"error\":\"what?\"}")};
    return true;
}

/* M_UNRECOGNIZED would tell the client that its own server knows no knocks. */
static void what_the_other_server_lacks_is_not_our_lack(void **state)
{
    struct house *b = &street.houses[1];
    struct slice via = street_name(0);
    struct slice room_id;
    struct hs_entering entering = {.actor = &gil.actor,
                                   .name = hs_room_info(room).room_id,
                                   .membership = MEMBERSHIP_KNOCK,
                                   .via = &via,
                                   .via_count = 1};
    (void)state;
    gil.actor.is_guest = false;
    street.intercept = knows_no_knocks;
    assert_int_equal(hs_room_enter(&b->hs, &b->ctx, &entering, &room_id).code, ERR_M_REMOTE);
}

/* --- what is left of a user who was erased --- */

static int ask_event(size_t from, struct slice event_id, struct slice *body_out)
{
    struct street_request request = {.from = from, .to = 0, .method = "GET"};
    request.target =
        fed_path(&street.houses[0].ctx, "/_matrix/federation/v1/event/%s", &event_id, 1);
    return street_ask(&street, &request, body_out);
}

/* Spec: client-server, POST /account/deactivate: "any users (or servers) which join the room after
 * the erasure request are served redacted copies". */
static void servers_that_join_later_get_redacted_copies_of_an_erased_user(void **state)
{
    struct house *a = &street.houses[0];
    struct slice body;
    (void)state;
    gil.actor.is_guest = false;
    struct slice before = arena_copy(a->conf_arena, house_say(a, room, &alice, "secret one"));
    assert_int_equal(enter(NULL).code, 0);
    struct slice after = arena_copy(a->conf_arena, house_say(a, room, &alice, "secret two"));
    assert_int_equal(ask_event(1, before, &body), 200);
    assert_true(slice_contains(body, LIT("secret one")));
    assert_int_equal(hs_account_deactivate(&a->hs, &a->ctx, alice.actor.user, ACCOUNT_ERASE).code,
                     0);
    assert_int_equal(ask_event(1, before, &body), 200);
    assert_false(slice_contains(body, LIT("secret one")));
    assert_true(slice_contains(body, LIT("m.room.message")));
    assert_int_equal(ask_event(1, after, &body), 200);
    assert_true(slice_contains(body, LIT("secret two")));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_street, close_street)
#define CLOSED(f) cmocka_unit_test_setup_teardown(f, open_without_guests, close_street)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_guest_joins_a_room_elsewhere_where_guests_may),
        CLOSED(a_guest_stays_out_where_guests_may_not),
        CLOSED(a_guest_leaves_a_room_that_takes_no_guests),
        TEST(the_version_of_the_room_comes_with_the_refusal),
        TEST(what_the_other_server_lacks_is_not_our_lack),
        TEST(servers_that_join_later_get_redacted_copies_of_an_erased_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
