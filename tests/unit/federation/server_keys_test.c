/* Which answers about keys count, and until when. */
#include "federation/server_keys.h"

#include "crypto/base64.h"
#include "crypto/json_sign.h"
#include "spec/errcodes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct arena *arena;
static struct ed25519_key own, other;
static const int64_t now_ms = 1700000000000;
static const int64_t week_ms = INT64_C(7) * 24 * 3600 * 1000;

static struct slice text_of(const struct ed25519_key *key)
{
    struct ed25519_public public_key = ed25519_public_of(key);
    struct slice bytes = {(const char *)public_key.bytes, sizeof public_key.bytes};
    return base64_encode(arena, bytes, BASE64_STANDARD);
}

/* %s of the format: the own key, twice. */
static struct json object_of(const char *format)
{
    struct json object;
    struct slice key = text_of(&own);
    struct slice text = arena_printf(arena, format, key.ptr, key.ptr);
    assert_int_equal(json_parse(arena, text, &object).code, 0);
    return object;
}

static uint32_t parse(struct json *object, const struct ed25519_key *signs,
                      struct server_keys *keys)
{
    struct json_signer signer = {ids_trust_server(LIT("a.org")), LIT("ed25519:1"), signs};
    json_sign(arena, object, &signer);
    return server_keys_parse(arena, object, LIT("a.org"), now_ms, keys).code;
}

static void keys_count_at_most_a_week(void **state)
{
    struct server_keys keys;
    (void)state;
    struct json object =
        object_of("{\"server_name\":\"a.org\",\"valid_until_ts\":1700000001000,"
                  "\"verify_keys\":{\"ed25519:1\":{\"key\":\"%s\"}},"
                  "\"old_verify_keys\":{\"ed25519:0\":{\"key\":\"%s\",\"expired_ts\":5}}}");
    assert_int_equal(parse(&object, &own, &keys), 0);
    assert_int_equal(keys.count, 2);
    assert_int_equal(keys.keys[0].valid_until_ms, 1700000001000);
    assert_false(keys.keys[0].is_old);
    assert_int_equal(keys.keys[1].valid_until_ms, 5);
    assert_true(keys.keys[1].is_old);
    object = object_of("{\"server_name\":\"a.org\",\"valid_until_ts\":9000000000000000,"
                       "\"verify_keys\":{\"ed25519:1\":{\"key\":\"%s\"}}}");
    assert_int_equal(parse(&object, &own, &keys), 0);
    assert_int_equal(keys.keys[0].valid_until_ms, now_ms + week_ms);
}

static void answers_of_another_form_or_hand_are_refused(void **state)
{
    static const struct {
        const char *format;
        uint32_t code;
    } cases[] = {
        {"{\"server_name\":\"b.org\",\"valid_until_ts\":1700000001000,"
         "\"verify_keys\":{\"ed25519:1\":{\"key\":\"%s\"}}}",
         ERR_M_BAD_JSON},
        {"{\"server_name\":\"a.org\",\"verify_keys\":{\"ed25519:1\":{\"key\":\"%s\"}}}",
         ERR_M_BAD_JSON},
        {"{\"server_name\":\"a.org\",\"valid_until_ts\":\"1\","
         "\"verify_keys\":{\"ed25519:1\":{\"key\":\"%s\"}}}",
         ERR_M_BAD_JSON},
        {"{\"server_name\":\"a.org\",\"valid_until_ts\":1,\"verify_keys\":{}}", ERR_M_FORBIDDEN},
        {"{\"server_name\":\"a.org\",\"valid_until_ts\":1,\"verify_keys\":[]}", ERR_M_FORBIDDEN},
        {"{\"server_name\":\"a.org\",\"valid_until_ts\":1,"
         "\"verify_keys\":{\"ed25519:1\":{\"key\":\"AAAA\"}}}",
         ERR_M_FORBIDDEN},
        /* an old key does not sign for new ones */
        {"{\"server_name\":\"a.org\",\"valid_until_ts\":1,\"verify_keys\":{},"
         "\"old_verify_keys\":{\"ed25519:1\":{\"key\":\"%s\",\"expired_ts\":1}}}",
         ERR_M_FORBIDDEN},
    };
    struct server_keys keys;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct json object = object_of(cases[i].format);
        assert_int_equal(parse(&object, &own, &keys), cases[i].code);
    }
    struct json object = object_of("{\"server_name\":\"a.org\",\"valid_until_ts\":1700000001000,"
                                   "\"verify_keys\":{\"ed25519:1\":{\"key\":\"%s\"}}}");
    assert_int_equal(parse(&object, &other, &keys), ERR_M_FORBIDDEN);
}

static int open_arena(void **state)
{
    (void)state;
    arena = arena_new();
    own = ed25519_generate();
    other = ed25519_generate();
    return 0;
}

static int close_arena(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_count_at_most_a_week),
        cmocka_unit_test(answers_of_another_form_or_hand_are_refused),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
