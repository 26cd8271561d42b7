/* Rooms with a policy server: "remote:8448", which signs what it recommends. */
#include "crypto/base64.h"
#include "homeserver/base/mem.h"
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
    w = mem_alloc(sizeof *w);
    inbound_open(w, "11");
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
    inbound_close(w);
    mem_free(w);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(an_event_without_its_signature_fails_softly),
        WITH_WORLD(a_signed_event_is_taken_without_a_question),
        WITH_WORLD(a_signature_is_asked_for_and_kept),
        WITH_WORLD(without_a_user_of_it_in_the_room_it_has_no_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
