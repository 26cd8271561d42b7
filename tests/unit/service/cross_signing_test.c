#include "homeserver/service/cross_signing.h"

#include "crypto/base64.h"
#include "homeserver/service/device_keys.h"
#include "homeserver/service/devices.h"
#include "tests/support/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

/* A user with a device and cross-signing keys. */
struct signer_of_all {
    uint64_t user;
    struct slice user_id;
    struct ed25519_key keys[CROSS_KEY_COUNT];
    struct json objects[CROSS_KEY_COUNT];
};

static struct world w;
static struct signer_of_all ann, bob;

static struct slice public_text(const struct ed25519_key *key)
{
    struct ed25519_public public = ed25519_public_of(key);
    return base64_encode(w.ctx.arena,
                         (struct slice){(const char *)public.bytes, ED25519_PUBLIC_BYTES},
                         BASE64_STANDARD);
}

static struct slice key_id_of(const struct ed25519_key *key)
{
    return arena_concat(w.ctx.arena, LIT("ed25519:"), public_text(key));
}

static void sign(struct json *object, struct slice user_id, const struct ed25519_key *key)
{
    struct json_signer signer = {ids_trust_server(user_id), key_id_of(key), key};
    json_sign(w.ctx.arena, object, &signer);
}

static struct json key_object(struct slice user_id, enum cross_key usage,
                              const struct ed25519_key *key)
{
    struct arena *arena = w.ctx.arena;
    struct json object = json_object();
    struct json keys = json_object();
    struct json usages = json_array();
    json_push(arena, &usages, json_string(hs_cross_key_usage(usage)));
    json_set(arena, &keys, key_id_of(key), json_string(public_text(key)));
    json_set(arena, &object, LIT("user_id"), json_string(user_id));
    json_set(arena, &object, LIT("usage"), usages);
    json_set(arena, &object, LIT("keys"), keys);
    return object;
}

static void make(struct signer_of_all *all, const char *name)
{
    all->user = world_user(&w, name);
    all->user_id = arena_printf(w.ctx.arena, "@%s:test", name);
    for (int i = 0; i < CROSS_KEY_COUNT; i++) {
        all->keys[i] = ed25519_generate();
        all->objects[i] = key_object(all->user_id, (enum cross_key)i, &all->keys[i]);
        if (i != CROSS_MASTER) {
            sign(&all->objects[i], all->user_id, &all->keys[CROSS_MASTER]);
        }
    }
}

static int open_world(void **state)
{
    (void)state;
    world_open(&w, 0);
    assert_int_equal(positions_open(w.hs.store, &w.ctx, &w.hs.positions).code, 0);
    w.hs.keys = hs_keys_new(&w.hs);
    make(&ann, "ann");
    make(&bob, "bob");
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

static struct cross_upload upload_of(struct signer_of_all *all)
{
    return (struct cross_upload){.user = all->user,
                                 .user_id = all->user_id,
                                 .keys = {&all->objects[0], &all->objects[1], &all->objects[2]}};
}

static uint32_t upload(const struct cross_upload *given, enum cross_answer *answer_out)
{
    return hs_cross_signing_upload(&w.hs, &w.ctx, given, answer_out).code;
}

static void only_a_change_needs_proof(void **state)
{
    enum cross_answer answer = CROSS_NEEDS_PROOF;
    struct ed25519_key other = ed25519_generate();
    struct json master = key_object(ann.user_id, CROSS_MASTER, &other);
    struct cross_upload first = upload_of(&ann);
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
    struct cross_upload given = upload_of(&ann);
    struct json unsigned_key = key_object(ann.user_id, CROSS_SELF_SIGNING, &ann.keys[1]);
    (void)state;
    given.keys[CROSS_SELF_SIGNING] = &unsigned_key;
    assert_int_equal(upload(&given, &answer), ERR_M_INVALID_SIGNATURE);
    given.keys[CROSS_SELF_SIGNING] = &ann.objects[CROSS_USER_SIGNING]; /* another usage */
    assert_int_equal(upload(&given, &answer), ERR_M_INVALID_PARAM);
    given = upload_of(&ann);
    given.keys[CROSS_MASTER] = NULL;
    assert_int_equal(upload(&given, &answer), ERR_M_MISSING_PARAM);
    given = upload_of(&ann);
    given.user_id = LIT("@bob:test");
    assert_int_equal(upload(&given, &answer), ERR_M_INVALID_PARAM);
    given = upload_of(&ann);
    assert_int_equal(
        hs_device_create(&w.hs, &w.ctx, ann.user, public_text(&ann.keys[0]), LIT("x")).code, 0);
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
    json_set(w.ctx.arena, &objects, public_text(&bob.keys[CROSS_MASTER]), object);
    json_set(w.ctx.arena, &users, bob.user_id, objects);
    struct signature_upload signatures = {ann.user, ann.user_id, &users};
    assert_int_equal(hs_signatures_upload(&w.hs, &w.ctx, &signatures, &failures).code, 0);
    return failures;
}

static void upload_both(void)
{
    enum cross_answer answer;
    struct cross_upload of_ann = upload_of(&ann);
    struct cross_upload of_bob = upload_of(&bob);
    assert_int_equal(upload(&of_ann, &answer), 0);
    assert_int_equal(upload(&of_bob, &answer), 0);
}

static void a_signature_on_another_user_is_seen_by_its_maker_alone(void **state)
{
    struct json object = bob.objects[CROSS_MASTER];
    struct json failures;
    (void)state;
    upload_both();
    sign(&object, ann.user_id, &ann.keys[CROSS_USER_SIGNING]);
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
    sign(&object, ann.user_id, &ann.keys[CROSS_SELF_SIGNING]);
    struct json failures = sign_bob(object);
    const struct json *failure = json_get_object(json_get_object(&failures, bob.user_id),
                                                 public_text(&bob.keys[CROSS_MASTER]));
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
