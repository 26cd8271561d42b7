/* Vectors of RFC 8188 (section 3), RFC 8291 (section 5) and RFC 8292 (section 2.4). */
#include "crypto/webpush.h"

#include "crypto/base64.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static struct slice decode(const char *text)
{
    struct slice bytes;
    assert_true(base64_decode(arena, slice_of(text), &bytes));
    return bytes;
}

static void expect_base64(struct slice bytes, const char *text)
{
    struct slice found = base64_encode(arena, bytes, BASE64_URL);
    assert_string_equal(arena_cstr(arena, found), text);
}

static const char ua_public[] =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7"
    "Vd8pZGH6SRpkNtoIAiw4";
static const char ua_auth[] = "BTBZMqHH6r4Tts7J_aSIgg";

static struct webpush_subscriber subscriber(void)
{
    struct webpush_subscriber found;
    assert_true(webpush_parse_subscriber(slice_of(ua_public), slice_of(ua_auth), &found));
    return found;
}

static void a_record_is_coded_as_in_rfc_8188(void **state)
{
    (void)state;
    struct slice body;
    struct webpush_record record = {.input = decode("yqdlZ-tYemfogSmv7Ws5PQ"),
                                    .salt = decode("I1BsxtFttlv3u_Oo94xnmw")};
    assert_int_equal(webpush_encode(arena, &record, LIT("I am the walrus"), &body).code, 0);
    expect_base64(body, "I1BsxtFttlv3u_Oo94xnmwAAEAAA-NAVub2qFgBEuQKRapoZu-IxkIva3MEB1PD-ly8Thjg");
}

static void a_message_is_encrypted_as_in_rfc_8291(void **state)
{
    (void)state;
    struct webpush_once once;
    struct webpush_subscriber to = subscriber();
    struct slice body;
    struct slice secret = decode("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw");
    assert_true(p256_from_secret((const unsigned char *)secret.ptr, &once.key));
    memcpy(once.salt, decode("DGv6ra1nlYgDCS1FRnbzlw").ptr, sizeof once.salt);
    struct slice text = LIT("When I grow up, I want to be a watermelon");
    assert_int_equal(webpush_encrypt_with(arena, &to, &once, text, &body).code, 0);
    expect_base64(body,
                  "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll"
                  "6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks"
                  "3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN");
}

static void the_other_side_finds_the_same_secret(void **state)
{
    (void)state;
    struct p256_key ours, theirs;
    unsigned char a[P256_SHARED_BYTES], b[P256_SHARED_BYTES];
    assert_int_equal(p256_make(&ours).code, 0);
    assert_int_equal(p256_make(&theirs).code, 0);
    assert_true(p256_agree(&ours, theirs.public_key, a));
    assert_true(p256_agree(&theirs, ours.public_key, b));
    assert_memory_equal(a, b, sizeof a);
}

static void two_messages_share_nothing(void **state)
{
    (void)state;
    struct webpush_subscriber to = subscriber();
    struct slice a, b;
    assert_int_equal(webpush_encrypt(arena, &to, LIT("hello"), &a).code, 0);
    assert_int_equal(webpush_encrypt(arena, &to, LIT("hello"), &b).code, 0);
    assert_int_equal(a.len, WEBPUSH_OVERHEAD_BYTES + 5);
    assert_false(slice_eq(slice_sub(a, 0, 16), slice_sub(b, 0, 16)));
}

static void a_message_fills_what_push_services_take(void **state)
{
    (void)state;
    struct webpush_subscriber to = subscriber();
    struct slice body;
    char text[WEBPUSH_TEXT_BYTES_MAX + 1];
    memset(text, 'x', sizeof text);
    struct slice most = {text, WEBPUSH_TEXT_BYTES_MAX};
    assert_int_equal(webpush_encrypt(arena, &to, most, &body).code, 0);
    assert_int_equal(body.len, WEBPUSH_BODY_BYTES_MAX);
    most.len++;
    assert_int_equal(webpush_encrypt(arena, &to, most, &body).code, ERR_LIMIT);
}

static void keys_that_are_none_are_refused(void **state)
{
    (void)state;
    struct webpush_subscriber found;
    char off_curve[sizeof ua_public];
    memcpy(off_curve, ua_public, sizeof off_curve);
    off_curve[40] = off_curve[40] == 'A' ? 'B' : 'A';
    assert_false(webpush_parse_subscriber(slice_of(off_curve), slice_of(ua_auth), &found));
    assert_false(webpush_parse_subscriber(LIT(""), slice_of(ua_auth), &found));
    assert_false(webpush_parse_subscriber(slice_of(ua_public), LIT("AAAA"), &found));
    assert_false(
        webpush_parse_subscriber(slice_from(slice_of(ua_public), 1), slice_of(ua_auth), &found));
}

/* RFC 8292, 2.4: its token and its key. */
static void the_token_of_rfc_8292_counts(void **state)
{
    (void)state;
    struct slice token =
        LIT("eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbX"
            "BsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY2"
            "9tIn0");
    struct slice signature =
        decode("i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysa"
               "zNjjvW2L9OkSSHzvoD1oA");
    struct slice key =
        decode("BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq"
               "9ojSwk5Y2EmClBPs");
    const unsigned char *point = (const unsigned char *)key.ptr;
    assert_true(p256_check(point, token, (const unsigned char *)signature.ptr));
    assert_false(p256_check(point, slice_from(token, 1), (const unsigned char *)signature.ptr));
}

static void our_token_says_for_whom_and_how_long(void **state)
{
    (void)state;
    struct p256_key key;
    struct webpush_claims claims = {LIT("https://push.example"), LIT("mailto:a@b.example"), 1234};
    struct slice value, head, body, signature;
    assert_int_equal(p256_make(&key).code, 0);
    assert_int_equal(webpush_authorize(arena, &key, &claims, &value).code, 0);
    assert_true(slice_has_prefix(value, LIT("vapid t=")));
    struct slice token = slice_sub(value, 8, slice_find(value, ',') - 8);
    struct slice signed_part = slice_sub(token, 0, slice_find_last(token, '.'));
    body = slice_cut(signed_part, '.', &head);
    assert_true(
        slice_eq(decode(arena_cstr(arena, head)), LIT("{\"typ\":\"JWT\",\"alg\":\"ES256\"}")));
    assert_true(slice_eq(decode(arena_cstr(arena, body)),
                         LIT("{\"aud\":\"https://push.example\",\"exp\":1234,"
                             "\"sub\":\"mailto:a@b.example\"}")));
    signature = decode(arena_cstr(arena, slice_from(token, signed_part.len + 1)));
    assert_int_equal(signature.len, P256_SIGNATURE_BYTES);
    assert_true(p256_check(key.public_key, signed_part, (const unsigned char *)signature.ptr));
}

static void the_key_of_a_file_stays(void **state)
{
    (void)state;
    unsigned char first[P256_SECRET_BYTES];
    unsigned char second[P256_SECRET_BYTES];
    struct p256_key key;
    char path[] = "/tmp/myelin-vapid-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(p256_load(slice_of(path), first).code, ERR_CORRUPT); /* it is empty */
    unlink(path);
    assert_int_equal(p256_load(slice_of(path), first).code, 0);
    assert_int_equal(p256_load(slice_of(path), second).code, 0);
    assert_memory_equal(first, second, sizeof first);
    assert_true(p256_from_secret(first, &key));
    unlink(path);
}

/* 0, the order of the group and what is above it are no keys; the number below it is one. */
static void a_number_outside_the_group_is_no_key(void **state)
{
    static const struct {
        const char *line;
        uint32_t code;
    } cases[] = {
        {"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ERR_CORRUPT},
        {"_____wAAAAD__________7zm-q2nF56E87nKwvxjJVE", ERR_CORRUPT},
        {"__________________________________________8", ERR_CORRUPT},
        {"_____wAAAAD__________7zm-q2nF56E87nKwvxjJVA", 0},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char path[] = "/tmp/myelin-vapid-XXXXXX";
        unsigned char secret[P256_SECRET_BYTES];
        struct p256_key key;
        int fd = mkstemp(path);
        assert_int_equal(write(fd, cases[i].line, strlen(cases[i].line)), strlen(cases[i].line));
        close(fd);
        assert_int_equal(p256_load(slice_of(path), secret).code, cases[i].code);
        assert_true(cases[i].code != 0 || p256_from_secret(secret, &key));
        unlink(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_record_is_coded_as_in_rfc_8188, open_arena, close_arena),
        cmocka_unit_test_setup_teardown(a_message_is_encrypted_as_in_rfc_8291, open_arena,
                                        close_arena),
        cmocka_unit_test_setup_teardown(the_other_side_finds_the_same_secret, open_arena,
                                        close_arena),
        cmocka_unit_test_setup_teardown(two_messages_share_nothing, open_arena, close_arena),
        cmocka_unit_test_setup_teardown(a_message_fills_what_push_services_take, open_arena,
                                        close_arena),
        cmocka_unit_test_setup_teardown(keys_that_are_none_are_refused, open_arena, close_arena),
        cmocka_unit_test_setup_teardown(the_token_of_rfc_8292_counts, open_arena, close_arena),
        cmocka_unit_test_setup_teardown(our_token_says_for_whom_and_how_long, open_arena,
                                        close_arena),
        cmocka_unit_test_setup_teardown(the_key_of_a_file_stays, open_arena, close_arena),
        cmocka_unit_test(a_number_outside_the_group_is_no_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
