/* Rooms with a policy server: "remote:8448", which signs what it recommends. */
#include "crypto/base64.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/profiles.h"
#include "homeserver/service/users.h"
#include "tests/support/inbound_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static struct inbound_world *w;
static struct ed25519_key policy_key;

static int open_world(void **state)
{
    unsigned char seed[ED25519_SEED_BYTES] = {42};
    (void)state;
    w = inbound_new("11");
    policy_key = ed25519_from_seed(seed);
    struct ed25519_public key = ed25519_public_of(&policy_key);
    struct slice text =
        base64_encode(w->house.conf_arena,
                      (struct slice){(const char *)key.bytes, sizeof key.bytes}, BASE64_STANDARD);
    const char *content = arena_printf(w->house.conf_arena,
                                       "{\"via\":\"remote:8448\",\"public_keys\":{\"ed25519\":"
                                       "\"%.*s\"}}",
                                       (int)text.len, text.ptr)
                              .ptr;
    size_t policy = inbound_make(w, "m.room.policy", "", content);
    inbound_send(w, &policy, 1);
    assert_true(inbound_has(w, policy));
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    inbound_free(&w);
    return 0;
}

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

static struct json_signer policy_signer(void)
{
    return (struct json_signer){.server = ids_trust_server(w->remote.name),
                                .key_id = LIT("ed25519:policy_server"),
                                .key = &policy_key};
}

static void an_event_without_its_signature_fails_softly(void **state)
{
    (void)state;
    size_t event = inbound_say(w, NULL, 0);
    struct json results = inbound_send(w, &event, 1);
    assert_null(inbound_error(&results, peer_get(&w->theirs, event)->id.s).ptr);
    assert_false(inbound_has(w, event));
    assert_int_equal(inbound_asked(w, "/policy/v1/sign"), 1);
}

static void a_signed_event_is_taken_without_a_question(void **state)
{
    struct event signed_event;
    struct json_signer signer = policy_signer();
    (void)state;
    size_t event = inbound_say(w, NULL, 0);
    assert_int_equal(
        event_add_signature(w->house.ctx.arena, peer_get(&w->theirs, event), &signer, &signed_event)
            .code,
        0);
    const char *pdu = arena_cstr(w->house.ctx.arena, signed_event.json);
    inbound_send_text(w, &pdu, 1);
    assert_true(inbound_has(w, event));
    assert_int_equal(inbound_asked(w, "/policy/v1/sign"), 0);
}

/* What waits would else be asked about each time that the room moves on. */
static void what_cannot_be_judged_yet_is_not_asked_about(void **state)
{
    size_t events[2];
    (void)state;
    w->is_down = true; /* what lies before it does not come yet */
    events[0] = inbound_say(w, NULL, 0);
    events[1] = inbound_say(w, NULL, 0);
    inbound_send(w, &events[1], 1);
    assert_int_equal(inbound_asked(w, "/policy/v1/sign"), 0);
    w->is_down = false;
    fed_peer_alive(w->fed, w->remote.name);
    inbound_send(w, &events[0], 1);
    assert_true(inbound_asked(w, "/policy/v1/sign") > 0);
}

static bool signs(struct inbound_world *world, struct arena *arena, struct slice path,
                  struct slice *body)
{
    struct event signed_event;
    struct json_signer signer = policy_signer();
    if (!slice_contains(path, LIT("/policy/v1/sign"))) {
        return false;
    }
    const struct event *event = peer_get(&world->theirs, world->theirs.count - 1);
    ASSERT(event_add_signature(arena, event, &signer, &signed_event).code == 0);
    const struct json *all = json_get_object(event_tree(arena, &signed_event), LIT("signatures"));
    struct json answer = json_object();
    json_set(arena, &answer, world->remote.name, *json_get(all, world->remote.name));
    *body = json_canonical(arena, &answer);
    return true;
}

static void a_signature_is_asked_for_and_kept(void **state)
{
    struct stored_event stored;
    bool found = false;
    (void)state;
    size_t event = inbound_say(w, NULL, 0);
    w->lie = signs;
    inbound_send(w, &event, 1);
    assert_true(inbound_has(w, event));
    assert_int_equal(hs_event_find(&w->house.hs, &w->house.ctx, w->room,
                                   peer_get(&w->theirs, event)->id.s, &stored, &found)
                         .code,
                     0);
    assert_true(slice_contains(stored.event.json, LIT("ed25519:policy_server")));
    assert_true(slice_contains(stored.event.json, LIT("ed25519:1")));
}

static void without_a_user_of_it_in_the_room_it_has_no_say(void **state)
{
    (void)state;
    size_t policy = inbound_make(w, "m.room.policy", "",
                                 "{\"via\":\"elsewhere\",\"public_keys\":{\"ed25519\":\"AAAA\"}}");
    inbound_send(w, &policy, 1);
    assert_true(inbound_has(w, policy));
    size_t event = inbound_say(w, NULL, 0);
    inbound_send(w, &event, 1);
    assert_true(inbound_has(w, event));
}

/* --- what users of this server do --- */

/* The policy server signs whatever it is shown. */
static bool signs_all(struct inbound_world *world, struct arena *arena, struct slice path,
                      struct slice *body)
{
    struct json tree;
    struct event event;
    struct event signed_event;
    struct json answer = json_object();
    struct json_signer signer = policy_signer();
    if (!slice_contains(path, LIT("/policy/v1/sign"))) {
        return false;
    }
    ASSERT(json_parse(arena, world->given, &tree).code == 0);
    ASSERT(event_parse_tree(arena, world->theirs.rules, &tree, &event).code == 0);
    ASSERT(event_add_signature(arena, &event, &signer, &signed_event).code == 0);
    const struct json *all = json_get_object(event_tree(arena, &signed_event), LIT("signatures"));
    json_set(arena, &answer, world->remote.name, *json_get(all, world->remote.name));
    *body = json_canonical(arena, &answer);
    return true;
}

static bool refuses(struct inbound_world *world, struct arena *arena, struct slice path,
                    struct slice *body)
{
    (void)world;
    (void)arena;
    (void)body;
    return slice_contains(path, LIT("/policy/v1/sign"));
}

static struct err say(const char *text)
{
    struct hs_sent sent;
    struct json content = json_object();
    json_set(w->house.ctx.arena, &content, LIT("body"), json_string(slice_of(text)));
    struct send_request request = {
        .actor = &w->alice.actor, .type = LIT("m.room.message"), .content = &content};
    return hs_send_message(&w->house.hs, &w->house.ctx, w->room, &request, &sent);
}

static struct err leave(void)
{
    struct hs_sent sent;
    struct member_change change = {.target = w->alice.actor.user_id,
                                   .membership = MEMBERSHIP_LEAVE};
    return hs_member_set(&w->house.hs, &w->house.ctx, w->room, &w->alice.actor, &change, &sent);
}

static struct stored_event newest(void)
{
    struct stored_event event;
    bool found = false;
    assert_int_equal(hs_event_load(&w->house.hs, &w->house.ctx, w->room,
                                   hs_room_head(w->room).number, &event, &found)
                         .code,
                     0);
    assert_true(found);
    return event;
}

static enum membership alice_is(void)
{
    enum membership membership = MEMBERSHIP_NONE;
    assert_int_equal(hs_membership_at(&w->house.hs, &w->house.ctx, w->room,
                                      hs_room_head(w->room).root, w->alice.actor.user_id,
                                      &membership)
                         .code,
                     0);
    return membership;
}

static void what_users_do_goes_out_with_its_signature(void **state)
{
    struct json name = json_string(LIT("Alice"));
    (void)state;
    w->lie = signs_all;
    assert_int_equal(say("hello").code, 0);
    assert_true(slice_contains(newest().event.json, LIT("ed25519:policy_server")));
    assert_int_equal(
        hs_profile_set(&w->house.hs, &w->house.ctx, w->alice.actor.user, LIT("displayname"), &name)
            .code,
        0);
    assert_true(slice_contains(newest().event.json, LIT("ed25519:policy_server")));
    assert_true(slice_contains(newest().event.json, LIT("Alice")));
    assert_int_equal(leave().code, 0);
    assert_true(slice_contains(newest().event.json, LIT("ed25519:policy_server")));
    assert_int_equal(alice_is(), MEMBERSHIP_LEAVE);
    assert_int_equal(inbound_asked(w, "/policy/v1/sign"), 3);
}

static void what_it_refuses_does_not_happen(void **state)
{
    int64_t before = hs_room_head(w->room).number;
    (void)state;
    w->lie = refuses;
    assert_int_not_equal(say("hello").code, 0);
    assert_int_not_equal(leave().code, 0);
    assert_int_equal(hs_room_head(w->room).number, before);
}

static void nothing_is_done_where_it_cannot_be_asked(void **state)
{
    int64_t before = hs_room_head(w->room).number;
    (void)state;
    w->house.ctx.may_wait = false;
    assert_int_equal(say("hello").code, ERR_WAITS);
    assert_int_equal(leave().code, ERR_WAITS);
    assert_int_equal(hs_room_head(w->room).number, before);
}

static void a_deactivated_user_leaves_all_the_same(void **state)
{
    (void)state;
    w->lie = refuses;
    assert_int_equal(hs_account_deactivate(&w->house.hs, &w->house.ctx, w->alice.actor.user,
                                           ACCOUNT_KEEP_CONTENT)
                         .code,
                     0);
    assert_int_equal(alice_is(), MEMBERSHIP_LEAVE);
    assert_int_equal(inbound_asked(w, "/policy/v1/sign"), 1);
}

/* While the policy server thinks, bob takes alice out of the room. */
static bool signs_too_late(struct inbound_world *world, struct arena *arena, struct slice path,
                           struct slice *body)
{
    struct peer_draft draft = {.peer = &world->remote, .sender = world->bob};
    struct intake_report report;
    if (!signs_all(world, arena, path, body)) {
        return false;
    }
    size_t kick = peer_member(&world->theirs, &draft, world->alice.actor.user_id, "leave");
    struct intake intake = {.event = peer_get(&world->theirs, kick)};
    ASSERT(
        hs_intake_event(&world->house.hs, &world->house.ctx, world->room, &intake, &report).code ==
        0);
    ASSERT(report.result == INTAKE_ACCEPTED);
    return true;
}

static void the_room_is_asked_again_after_it(void **state)
{
    (void)state;
    w->lie = signs_too_late;
    assert_int_equal(say("hello").code, ERR_M_FORBIDDEN);
    assert_int_equal(alice_is(), MEMBERSHIP_LEAVE);
}

static void a_change_that_happened_meanwhile_is_not_made_twice(void **state)
{
    (void)state;
    w->lie = signs_too_late;
    assert_int_equal(leave().code, 0);
    assert_true(slice_eq(newest().event.sender.s, w->bob));
}

/* --- what users of other servers do through this one --- */

static struct err join_through_us(size_t *join_out)
{
    struct json answer;
    struct slice cid = peer_user(w->house.conf_arena, &w->remote, "cid");
    struct peer_draft draft = {.peer = &w->remote, .sender = cid};
    *join_out = peer_member(&w->theirs, &draft, cid, "join");
    const struct event *event = peer_get(&w->theirs, *join_out);
    const char *target =
        arena_printf(w->house.ctx.arena, "send_join/%.*s/%.*s", (int)w->theirs.room_id.len,
                     w->theirs.room_id.ptr, (int)event->id.s.len, event->id.s.ptr)
            .ptr;
    return inbound_put(w, w->remote.name, target, arena_cstr(w->house.ctx.arena, event->json),
                       &answer);
}

static void a_join_through_this_server_gets_its_signature(void **state)
{
    size_t join = 0;
    (void)state;
    w->lie = signs_all;
    assert_int_equal(join_through_us(&join).code, 0);
    assert_true(inbound_has(w, join));
    assert_true(slice_contains(newest().event.json, LIT("ed25519:policy_server")));
}

static void a_join_that_it_refuses_is_refused(void **state)
{
    size_t join = 0;
    (void)state;
    w->lie = refuses;
    assert_int_equal(join_through_us(&join).code, ERR_M_FORBIDDEN);
    assert_false(inbound_has(w, join));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(an_event_without_its_signature_fails_softly),
        WITH_WORLD(what_cannot_be_judged_yet_is_not_asked_about),
        WITH_WORLD(a_signed_event_is_taken_without_a_question),
        WITH_WORLD(a_signature_is_asked_for_and_kept),
        WITH_WORLD(without_a_user_of_it_in_the_room_it_has_no_say),
        WITH_WORLD(what_users_do_goes_out_with_its_signature),
        WITH_WORLD(what_it_refuses_does_not_happen),
        WITH_WORLD(nothing_is_done_where_it_cannot_be_asked),
        WITH_WORLD(a_deactivated_user_leaves_all_the_same),
        WITH_WORLD(the_room_is_asked_again_after_it),
        WITH_WORLD(a_change_that_happened_meanwhile_is_not_made_twice),
        WITH_WORLD(a_join_through_this_server_gets_its_signature),
        WITH_WORLD(a_join_that_it_refuses_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
