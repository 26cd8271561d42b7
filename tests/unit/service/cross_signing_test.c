#include "homeserver/service/cross_signing.h"

#include "homeserver/service/device_keys.h"
#include "homeserver/service/devices.h"
#include "tests/support/cross_keys.h"
#include "tests/support/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct world w;
static struct cross_keys ann, bob;

static struct cross_keys make(const char *name)
{
    uint64_t user = world_user(&w, name);
    return cross_keys_make(w.ctx.arena, user, arena_printf(w.ctx.arena, "@%s:test", name));
}

static int open_world(void **state)
{
    (void)state;
    world_open(&w, 0);
    assert_int_equal(positions_open(w.hs.store, &w.ctx, &w.hs.positions).code, 0);
    w.hs.keys = hs_keys_new(&w.hs);
    ann = make("ann");
    bob = make("bob");
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    hs_keys_free(&w.hs.keys);
    positions_close(&w.hs.positions);
    world_close(&w);
    return 0;
}

static uint32_t upload(const struct cross_upload *given, enum cross_answer *answer_out)
{
    return hs_cross_signing_upload(&w.hs, &w.ctx, given, answer_out).code;
}

static void only_a_change_needs_proof(void **state)
{
    enum cross_answer answer = CROSS_NEEDS_PROOF;
    struct ed25519_key other = ed25519_generate();
    struct json master = cross_keys_object(w.ctx.arena, ann.user_id, CROSS_MASTER, &other);
    struct cross_upload first = cross_keys_upload(&ann);
    struct cross_upload change = {
        .user = ann.user, .user_id = ann.user_id, .keys = {[CROSS_MASTER] = &master}};
    (void)state;
    assert_int_equal(upload(&first, &answer), 0);
    assert_int_equal(answer, CROSS_DONE);
    assert_int_equal(upload(&first, &answer), 0);
    assert_int_equal(answer, CROSS_DONE);
    assert_int_equal(upload(&change, &answer), 0);
    assert_int_equal(answer, CROSS_NEEDS_PROOF);
    change.proof = CROSS_PROVEN;
    assert_int_equal(upload(&change, &answer), 0);
    assert_int_equal(answer, CROSS_DONE);
}

static void bad_keys_are_refused(void **state)
{
    enum cross_answer answer;
    struct cross_upload given = cross_keys_upload(&ann);
    struct json unsigned_key =
        cross_keys_object(w.ctx.arena, ann.user_id, CROSS_SELF_SIGNING, &ann.keys[1]);
    (void)state;
    given.keys[CROSS_SELF_SIGNING] = &unsigned_key;
    assert_int_equal(upload(&given, &answer), ERR_M_INVALID_SIGNATURE);
    given.keys[CROSS_SELF_SIGNING] = &ann.objects[CROSS_USER_SIGNING]; /* another usage */
    assert_int_equal(upload(&given, &answer), ERR_M_INVALID_PARAM);
    given = cross_keys_upload(&ann);
    given.keys[CROSS_MASTER] = NULL;
    assert_int_equal(upload(&given, &answer), ERR_M_MISSING_PARAM);
    given = cross_keys_upload(&ann);
    given.user_id = LIT("@bob:test");
    assert_int_equal(upload(&given, &answer), ERR_M_INVALID_PARAM);
    given = cross_keys_upload(&ann);
    assert_int_equal(hs_device_create(&w.hs, &w.ctx, ann.user,
                                      cross_keys_public(w.ctx.arena, &ann.keys[0]), LIT("x"))
                         .code,
                     0);
    assert_int_equal(upload(&given, &answer), ERR_M_INVALID_PARAM);
}

static bool sees(uint64_t viewer, enum cross_key key, struct slice text)
{
    struct cross_view view = {.user = bob.user, .viewer = viewer, .key = key};
    struct slice json;
    bool found = false;
    assert_int_equal(hs_cross_signing_get(&w.hs, &w.ctx, view, &json, &found).code, 0);
    return found && slice_contains(json, text);
}

static struct json sign_bob(struct json object)
{
    struct json objects = json_object();
    struct json users = json_object();
    struct json failures;
    json_set(w.ctx.arena, &objects, cross_keys_public(w.ctx.arena, &bob.keys[CROSS_MASTER]),
             object);
    json_set(w.ctx.arena, &users, bob.user_id, objects);
    struct signature_upload signatures = {ann.user, ann.user_id, &users};
    assert_int_equal(hs_signatures_upload(&w.hs, &w.ctx, &signatures, &failures).code, 0);
    return failures;
}

static void upload_both(void)
{
    enum cross_answer answer;
    struct cross_upload of_ann = cross_keys_upload(&ann);
    struct cross_upload of_bob = cross_keys_upload(&bob);
    assert_int_equal(upload(&of_ann, &answer), 0);
    assert_int_equal(upload(&of_bob, &answer), 0);
}

static void a_signature_on_another_user_is_seen_by_its_maker_alone(void **state)
{
    struct json object = bob.objects[CROSS_MASTER];
    struct json failures;
    (void)state;
    upload_both();
    cross_keys_sign(w.ctx.arena, &object, ann.user_id, &ann.keys[CROSS_USER_SIGNING]);
    failures = sign_bob(object);
    assert_int_equal(failures.count, 0);
    assert_true(sees(ann.user, CROSS_MASTER, LIT("@ann:test")));
    assert_false(sees(bob.user, CROSS_MASTER, LIT("@ann:test")));
    assert_false(sees(0, CROSS_MASTER, LIT("@ann:test")));
    assert_true(sees(bob.user, CROSS_USER_SIGNING, LIT("keys")));
    assert_false(sees(ann.user, CROSS_USER_SIGNING, LIT("keys")));
}

static void an_invalid_signature_is_reported_and_not_kept(void **state)
{
    struct json object = bob.objects[CROSS_MASTER];
    (void)state;
    upload_both();
    cross_keys_sign(w.ctx.arena, &object, ann.user_id, &ann.keys[CROSS_SELF_SIGNING]);
    struct json failures = sign_bob(object);
    const struct json *failure =
        json_get_object(json_get_object(&failures, bob.user_id),
                        cross_keys_public(w.ctx.arena, &bob.keys[CROSS_MASTER]));
    assert_true(json_is_string(json_get(failure, LIT("errcode")), LIT("M_INVALID_SIGNATURE")));
    assert_false(sees(ann.user, CROSS_MASTER, LIT("@ann:test")));
}

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(only_a_change_needs_proof),
        WITH_WORLD(bad_keys_are_refused),
        WITH_WORLD(a_signature_on_another_user_is_seen_by_its_maker_alone),
        WITH_WORLD(an_invalid_signature_is_reported_and_not_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
