/* Invites of an address that turns into a user of another server: from the identity server's word
 * to the invite. */
#include "crypto/base64.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/sending.h"
#include "tests/support/street.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct street street;
static struct guest alice, bob; /* of A, of B */
static struct room *room;       /* of A */
static struct ed25519_key identity;

static struct arena *arena(void)
{
    return street.houses[0].ctx.arena;
}

/* What stands in the room for the address, until it is somebody. */
static void invite_address(const char *token)
{
    struct house *a = &street.houses[0];
    struct hs_sent sent;
    struct json content = json_object();
    struct ed25519_public key = ed25519_public_of(&identity);
    struct slice bytes = {(const char *)key.bytes, sizeof key.bytes};
    json_set(arena(), &content, LIT("display_name"), json_string(LIT("b...@e...")));
    json_set(arena(), &content, LIT("public_key"),
             json_string(base64_encode(arena(), bytes, BASE64_STANDARD)));
    struct send_request request = {.actor = &alice.actor,
                                   .type = LIT("m.room.third_party_invite"),
                                   .state_key = slice_of(token),
                                   .content = &content};
    assert_int_equal(hs_send_state(&a->hs, &a->ctx, room, &request, &sent).code, 0);
}

static int open_street(void **state)
{
    unsigned char seed[ED25519_SEED_BYTES] = {7};
    (void)state;
    identity = ed25519_from_seed(seed);
    street_open(&street);
    alice = house_guest(&street.houses[0], "alice");
    bob = house_guest(&street.houses[1], "bob");
    room = house_room(&street.houses[0], &alice, "{\"preset\":\"private_chat\"}");
    invite_address("token");
    return 0;
}

static int close_street(void **state)
{
    (void)state;
    street_close(&street);
    return 0;
}

static struct json signed_by(const struct ed25519_key *key, struct slice mxid, const char *token)
{
    struct json proof = json_object();
    struct json_signer signer = {
        .server = ids_trust_server(LIT("id.test")), .key_id = LIT("ed25519:0"), .key = key};
    json_set(arena(), &proof, LIT("mxid"), json_string(mxid));
    json_set(arena(), &proof, LIT("token"), json_string(slice_of(token)));
    json_sign(arena(), &proof, &signer);
    return proof;
}

static struct json bound_invite(struct json proof)
{
    struct json invite = json_object();
    json_set(arena(), &invite, LIT("medium"), json_string(LIT("email")));
    json_set(arena(), &invite, LIT("address"), json_string(LIT("bob@example.com")));
    json_set(arena(), &invite, LIT("mxid"), json_string(bob.actor.user_id));
    json_set(arena(), &invite, LIT("room_id"), json_string(hs_room_info(room).room_id));
    json_set(arena(), &invite, LIT("sender"), json_string(alice.actor.user_id));
    json_set(arena(), &invite, LIT("signed"), proof);
    return invite;
}

/* The identity server tells B. */
static int tell_b(struct json invite)
{
    struct slice body;
    struct json content = json_object();
    struct json invites = json_array();
    json_push(arena(), &invites, invite);
    json_set(arena(), &content, LIT("medium"), json_string(LIT("email")));
    json_set(arena(), &content, LIT("address"), json_string(LIT("bob@example.com")));
    json_set(arena(), &content, LIT("mxid"), json_string(bob.actor.user_id));
    json_set(arena(), &content, LIT("invites"), invites);
    struct street_request request = {.from = 2,
                                     .to = 1,
                                     .method = "PUT",
                                     .target = LIT("/_matrix/federation/v1/3pid/onbind"),
                                     .content = &content};
    return street_ask(&street, &request, &body);
}

static bool bob_in_a(struct stored_event *member_out)
{
    struct house *a = &street.houses[0];
    bool found = false;
    assert_int_equal(hs_state_event(&a->hs, &a->ctx, room, hs_room_head(room).root,
                                    LIT("m.room.member"), bob.actor.user_id, member_out, &found)
                         .code,
                     0);
    return found;
}

static void a_bound_address_becomes_an_invited_user(void **state)
{
    struct stored_event member;
    struct user_rooms rooms;
    struct house *b = &street.houses[1];
    (void)state;
    assert_int_equal(tell_b(bound_invite(signed_by(&identity, bob.actor.user_id, "token"))), 200);
    assert_true(bob_in_a(&member));
    assert_int_equal(membership_of(&member.event), MEMBERSHIP_INVITE);
    assert_true(slice_eq(member.event.sender.s, alice.actor.user_id));
    assert_true(slice_contains(member.event.json, LIT("id.test")));
    assert_int_equal(hs_user_rooms(&b->hs, &b->ctx, bob.actor.user, &rooms).code, 0);
    assert_int_equal(rooms.count, 1);
    assert_int_equal(rooms.items[0].membership, MEMBERSHIP_INVITE);
}

/* Spec: client-server, m.room.member: `display_name` is shown "instead of their third-party
 * identifier". */
static void the_address_stays_out_of_the_room(void **state)
{
    struct stored_event member;
    (void)state;
    assert_int_equal(tell_b(bound_invite(signed_by(&identity, bob.actor.user_id, "token"))), 200);
    assert_true(bob_in_a(&member));
    assert_true(slice_contains(member.event.json, LIT("b...@e...")));
    assert_false(slice_contains(member.event.json, LIT("bob@example.com")));
}

static void proofs_that_do_not_hold_invite_nobody(void **state)
{
    struct stored_event member;
    unsigned char seed[ED25519_SEED_BYTES] = {8};
    struct ed25519_key other = ed25519_from_seed(seed);
    (void)state;
    tell_b(bound_invite(signed_by(&other, bob.actor.user_id, "token")));
    assert_false(bob_in_a(&member));
    tell_b(bound_invite(signed_by(&identity, bob.actor.user_id, "other")));
    assert_false(bob_in_a(&member));
    tell_b(bound_invite(signed_by(&identity, LIT("@eve:c.test:1"), "token")));
    assert_false(bob_in_a(&member));
    struct json invite = bound_invite(signed_by(&identity, bob.actor.user_id, "token"));
    json_set(arena(), &invite, LIT("sender"), json_string(LIT("@carol:a.test:1")));
    tell_b(invite);
    assert_false(bob_in_a(&member));
}

static void a_proof_is_for_one_user(void **state)
{
    struct slice body;
    struct json content = json_object();
    struct json third_party = json_object();
    struct json exchange = json_object();
    struct slice room_id = hs_room_info(room).room_id;
    (void)state;
    json_set(arena(), &third_party, LIT("display_name"), json_string(LIT("x")));
    json_set(arena(), &third_party, LIT("signed"),
             signed_by(&identity, bob.actor.user_id, "token"));
    json_set(arena(), &content, LIT("membership"), json_string(LIT("invite")));
    json_set(arena(), &content, LIT("third_party_invite"), third_party);
    json_set(arena(), &exchange, LIT("type"), json_string(LIT("m.room.member")));
    json_set(arena(), &exchange, LIT("room_id"), json_string(room_id));
    json_set(arena(), &exchange, LIT("sender"), json_string(alice.actor.user_id));
    json_set(arena(), &exchange, LIT("state_key"), json_string(LIT("@eve:c.test:1")));
    json_set(arena(), &exchange, LIT("content"), content);
    struct street_request request = {.from = 2, .to = 0, .method = "PUT", .content = &exchange};
    request.target = fed_path(&street.houses[0].ctx,
                              "/_matrix/federation/v1/exchange_third_party_invite/%s", &room_id, 1);
    assert_int_equal(street_ask(&street, &request, &body), 400);
}

static void an_unknown_user_is_bound_to_nothing(void **state)
{
    (void)state;
    bob.actor.user_id = LIT("@nobody:b.test:1");
    assert_int_equal(tell_b(bound_invite(signed_by(&identity, bob.actor.user_id, "token"))), 404);
    bob.actor.user_id = LIT("@eve:c.test:1");
    assert_int_equal(tell_b(bound_invite(signed_by(&identity, bob.actor.user_id, "token"))), 400);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_street, close_street)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_bound_address_becomes_an_invited_user), TEST(the_address_stays_out_of_the_room),
        TEST(proofs_that_do_not_hold_invite_nobody),   TEST(a_proof_is_for_one_user),
        TEST(an_unknown_user_is_bound_to_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
