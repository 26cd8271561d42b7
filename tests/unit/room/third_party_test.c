#include "homeserver/room/third_party.h"

#include "crypto/base64.h"
#include "crypto/json_sign.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct arena *arena;

static int open_arena(void **state)
{
    (void)state;
    arena = arena_new();
    return 0;
}

static int close_arena(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

static struct slice text_of(const struct ed25519_key *key)
{
    struct ed25519_public public_key = ed25519_public_of(key);
    return base64_encode(arena,
                         (struct slice){(const char *)public_key.bytes, sizeof public_key.bytes},
                         BASE64_STANDARD);
}

static struct json proof_of(void)
{
    struct json proof = json_object();
    json_set(arena, &proof, LIT("mxid"), json_string(LIT("@u:h")));
    json_set(arena, &proof, LIT("token"), json_string(LIT("t")));
    return proof;
}

static void sign(struct json *proof, struct slice key_id, const struct ed25519_key *key)
{
    struct json_signer signer = {ids_trust_server(LIT("id.org")), key_id, key};
    json_sign(arena, proof, &signer);
}

static void any_signature_fits_its_key(void **state)
{
    struct ed25519_key first = ed25519_generate();
    struct ed25519_key second = ed25519_generate();
    struct ed25519_key other = ed25519_generate();
    struct json proof = proof_of();
    (void)state;
    sign(&proof, LIT("ed25519:1"), &first);
    sign(&proof, LIT("ed25519:2"), &second);
    struct third_party_proof read = third_party_read(arena, &proof);
    assert_int_equal(read.count, 2);
    assert_true(third_party_fits(&read, text_of(&first)));
    assert_true(third_party_fits(&read, text_of(&second)));
    assert_false(third_party_fits(&read, text_of(&other)));
}

static void what_is_no_proof_fits_nothing(void **state)
{
    struct ed25519_key key = ed25519_generate();
    struct json proof = proof_of();
    (void)state;
    struct third_party_proof none = third_party_read(arena, NULL);
    assert_false(third_party_fits(&none, text_of(&key)));
    sign(&proof, LIT("rsa:1"), &key);
    struct third_party_proof strange = third_party_read(arena, &proof);
    assert_false(third_party_fits(&strange, text_of(&key)));
    sign(&proof, LIT("ed25519:1"), &key);
    struct third_party_proof good = third_party_read(arena, &proof);
    assert_false(third_party_fits(&good, (struct slice){0}));
    assert_false(third_party_fits(&good, LIT("no key")));
    json_set(arena, &proof, LIT("mxid"), json_string(LIT("@v:h")));
    struct third_party_proof changed = third_party_read(arena, &proof);
    assert_false(third_party_fits(&changed, text_of(&key)));
}

/* Both stand in events, so hundreds of each may come. */
static void many_signatures_and_keys_take_bounded_work(void **state)
{
    enum { SIGNATURES = 400, KEYS = 1000 };
    struct ed25519_key stranger = ed25519_generate();
    struct ed25519_key key = ed25519_generate();
    struct json proof = proof_of();
    (void)state;
    for (int i = 0; i < SIGNATURES; i++) {
        sign(&proof, arena_printf(arena, "ed25519:%d", i), &stranger);
    }
    struct third_party_proof read = third_party_read(arena, &proof);
    assert_int_equal(read.count, THIRD_PARTY_SIGNATURES_MAX);
    for (int i = 0; i < KEYS; i++) {
        assert_false(third_party_fits(&read, text_of(&key)));
    }
    assert_int_equal(read.tries, THIRD_PARTY_TRIES_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(any_signature_fits_its_key, open_arena, close_arena),
        cmocka_unit_test_setup_teardown(what_is_no_proof_fits_nothing, open_arena, close_arena),
        cmocka_unit_test_setup_teardown(many_signatures_and_keys_take_bounded_work, open_arena,
                                        close_arena),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
