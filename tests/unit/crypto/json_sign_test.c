/* The vectors of the appendices: base64, canonical JSON, signed JSON. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>

#include "crypto/base64.h"
#include "crypto/json_sign.h"

struct fixture {
    struct arena *arena;
    struct json vectors;
};

static struct slice read_file(struct arena *arena, const char *path)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *text = arena_alloc(arena, 1 << 20);
    size_t len = fread(text, 1, 1 << 20, file);
    fclose(file);
    return (struct slice){text, len};
}

static int set_up(void **state)
{
    static struct fixture fixture;
    fixture.arena = arena_new();
    struct slice text = read_file(fixture.arena, TEST_DATA_DIR "/signing.json");
    assert_int_equal(json_parse(fixture.arena, text, &fixture.vectors).code, 0);
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    arena_free(&fixture->arena);
    return 0;
}

static void assert_same(struct slice have, struct slice want)
{
    if (!slice_eq(have, want)) {
        fail_msg("have %.*s, want %.*s", (int)have.len, have.ptr, (int)want.len, want.ptr);
    }
}

static struct ed25519_key vector_key(struct fixture *f)
{
    unsigned char seed[ED25519_SEED_BYTES];
    const struct json *key = json_get(&f->vectors, LIT("signing_key"));
    assert_true(
        base64_decode_exact(json_get_string(key, LIT("seed_unpadded_base64")), seed, sizeof seed));
    return ed25519_from_seed(seed);
}

static void base64_matches_the_vectors(void **state)
{
    struct fixture *f = *state;
    const struct json *rows = json_get(&f->vectors, LIT("unpadded_base64"));
    for (uint32_t i = 0; i < rows->count; i++) {
        struct slice data = json_get_string(&rows->items[i], LIT("input_utf8"));
        struct slice text = json_get_string(&rows->items[i], LIT("expected"));
        struct slice back;
        assert_same(base64_encode(f->arena, data, BASE64_STANDARD), text);
        assert_true(base64_decode(f->arena, text, &back));
        assert_same(back, data);
    }
}

static void base64_has_two_alphabets_and_refuses_junk(void **state)
{
    struct fixture *f = *state;
    struct slice data = LIT("\xfb\xff");
    struct slice back;
    assert_same(base64_encode(f->arena, data, BASE64_STANDARD), LIT("+/8"));
    assert_same(base64_encode(f->arena, data, BASE64_URL), LIT("-_8"));
    assert_true(base64_decode(f->arena, LIT("-/8="), &back));
    assert_same(back, data);
    assert_false(base64_decode(f->arena, LIT("a"), &back));
    assert_false(base64_decode(f->arena, LIT("ab c"), &back));
    assert_false(base64_decode(f->arena, LIT("=abc"), &back));
}

static void public_key_follows_from_the_seed(void **state)
{
    struct fixture *f = *state;
    struct ed25519_key key = vector_key(f);
    struct ed25519_public public_key = ed25519_public_of(&key);
    struct slice bytes = {(const char *)public_key.bytes, sizeof public_key.bytes};
    const struct json *row = json_get(&f->vectors, LIT("signing_key"));
    assert_same(base64_encode(f->arena, bytes, BASE64_STANDARD),
                json_get_string(row, LIT("derived_public_key_unpadded_base64")));
}

static void signed_json_matches_the_vectors(void **state)
{
    struct fixture *f = *state;
    struct ed25519_key key = vector_key(f);
    struct ed25519_public public_key = ed25519_public_of(&key);
    const struct json_signer signer = {ids_trust_server(LIT("domain")), LIT("ed25519:1"), &key};
    const struct json *rows = json_get(&f->vectors, LIT("json_signing"));
    for (uint32_t i = 0; i < rows->count; i++) {
        struct json object = *json_get(&rows->items[i], LIT("input"));
        json_sign(f->arena, &object, &signer);
        assert_true(json_eq(&object, json_get(&rows->items[i], LIT("expected"))));
        assert_true(
            json_sign_verify(f->arena, &object, LIT("domain"), LIT("ed25519:1"), &public_key));
        assert_false(
            json_sign_verify(f->arena, &object, LIT("other"), LIT("ed25519:1"), &public_key));
    }
}

static void a_changed_object_does_not_verify(void **state)
{
    struct fixture *f = *state;
    struct ed25519_key key = vector_key(f);
    struct ed25519_public public_key = ed25519_public_of(&key);
    const struct json_signer signer = {ids_trust_server(LIT("domain")), LIT("ed25519:1"), &key};
    struct json object = json_object();
    json_sign(f->arena, &object, &signer);
    json_set(f->arena, &object, LIT("unsigned"), json_int(1)); /* not covered */
    assert_true(json_sign_verify(f->arena, &object, LIT("domain"), LIT("ed25519:1"), &public_key));
    json_set(f->arena, &object, LIT("one"), json_int(1));
    assert_false(json_sign_verify(f->arena, &object, LIT("domain"), LIT("ed25519:1"), &public_key));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(base64_matches_the_vectors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(base64_has_two_alphabets_and_refuses_junk, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(public_key_follows_from_the_seed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(signed_json_matches_the_vectors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_changed_object_does_not_verify, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
