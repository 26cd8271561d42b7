#include "homeserver/service/device_keys.h"

#include "homeserver/service/devices.h"
#include "tests/support/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct world w;
static uint64_t ann;

static int open_world(void **state)
{
    (void)state;
    world_open(&w, 0);
    assert_int_equal(positions_open(w.hs.store, &w.ctx, &w.hs.positions).code, 0);
    w.hs.keys = hs_keys_new(&w.hs);
    ann = world_user(&w, "ann");
    assert_int_equal(hs_device_create(&w.hs, &w.ctx, ann, LIT("A"), LIT("my phone")).code, 0);
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

static uint32_t upload(const char *body)
{
    struct json json;
    assert_int_equal(json_parse(w.ctx.arena, slice_of(body), &json).code, 0);
    struct key_upload upload = {.user = ann,
                                .user_id = LIT("@ann:test"),
                                .device_id = LIT("A"),
                                .device_keys = json_get(&json, LIT("device_keys")),
                                .one_time_keys = json_get(&json, LIT("one_time_keys")),
                                .fallback_keys = json_get(&json, LIT("fallback_keys"))};
    return hs_keys_upload(&w.hs, &w.ctx, &upload).code;
}

static struct key_counts counts(void)
{
    struct key_counts counts;
    assert_int_equal(hs_key_counts(&w.hs, &w.ctx, ann, LIT("A"), &counts).code, 0);
    return counts;
}

/* The name of what a claim gives; "" = nothing. */
static struct slice claim(void)
{
    struct key_claim claim = {.device_id = LIT("A"), .algorithm = LIT("signed_curve25519")};
    assert_int_equal(hs_keys_claim(&w.hs, &w.ctx, ann, &claim, 1).code, 0);
    return claim.found ? claim.key_name : LIT("");
}

static void one_time_keys_go_out_once_in_order_of_upload(void **state)
{
    (void)state;
    assert_int_equal(upload("{\"one_time_keys\":{\"signed_curve25519:2\":{\"key\":\"b\"}}}"), 0);
    assert_int_equal(upload("{\"one_time_keys\":{\"signed_curve25519:1\":{\"key\":\"a\"}}}"), 0);
    assert_int_equal(counts().one_time[0].count, 2);
    assert_true(slice_eq(claim(), LIT("signed_curve25519:2")));
    assert_true(slice_eq(claim(), LIT("signed_curve25519:1")));
    assert_true(slice_eq(claim(), LIT("")));
    /* A repeated upload does not bring a claimed key back. */
    assert_int_equal(upload("{\"one_time_keys\":{\"signed_curve25519:1\":{\"key\":\"a\"}}}"), 0);
    assert_true(slice_eq(claim(), LIT("")));
    assert_int_equal(counts().one_time[0].count, 0);
}

static void an_id_cannot_get_another_key(void **state)
{
    (void)state;
    assert_int_equal(upload("{\"one_time_keys\":{\"x:1\":{\"key\":\"a\"}}}"), 0);
    assert_int_equal(upload("{\"one_time_keys\":{\"x:1\":{\"key\":\"a\"},\"x:2\":\"b\"}}"), 0);
    assert_int_equal(upload("{\"one_time_keys\":{\"x:1\":{\"key\":\"b\"}}}"), ERR_M_UNKNOWN_400);
    assert_int_equal(counts().one_time[0].count, 2);
}

static void a_fallback_key_is_used_when_all_others_are_gone(void **state)
{
    static const char body[] = "{\"fallback_keys\":{\"signed_curve25519:F\":{\"key\":\"f\"}}}";
    (void)state;
    assert_int_equal(upload(body), 0);
    assert_int_equal(counts().unused_fallback_count, 1);
    assert_true(slice_eq(claim(), LIT("signed_curve25519:F")));
    assert_true(slice_eq(claim(), LIT("signed_curve25519:F")));
    assert_int_equal(counts().unused_fallback_count, 0);
    assert_int_equal(upload(body), 0); /* the same key again is as used as before */
    assert_int_equal(counts().unused_fallback_count, 0);
    assert_int_equal(upload("{\"fallback_keys\":{\"signed_curve25519:G\":{\"key\":\"g\"}}}"), 0);
    assert_int_equal(counts().unused_fallback_count, 1);
}

/* Synapse CVE-2025-61672. */
static void malformed_uploads_are_refused(void **state)
{
    static const struct {
        const char *body;
        uint32_t code;
    } cases[] = {
        {"{\"one_time_keys\":[]}", ERR_M_BAD_JSON},
        {"{\"one_time_keys\":{\"x:1\":{}}}", ERR_M_BAD_JSON},
        {"{\"one_time_keys\":{\"x\":\"k\"}}", ERR_M_INVALID_PARAM},
        {"{\"one_time_keys\":{\":1\":\"k\"}}", ERR_M_INVALID_PARAM},
        {"{\"fallback_keys\":{\"x:1\":{\"key\":\"a\",\"n\":1.5}}}", ERR_M_BAD_JSON},
        {"{\"device_keys\":7}", ERR_M_BAD_JSON},
        {"{\"device_keys\":{\"user_id\":\"@ann:test\",\"device_id\":\"A\"}}", ERR_M_BAD_JSON},
        {"{\"device_keys\":{\"user_id\":\"@ann:test\",\"device_id\":\"X\",\"algorithms\":[],"
         "\"keys\":{},\"signatures\":{}}}",
         ERR_M_INVALID_PARAM},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_int_equal(upload(cases[i].body), cases[i].code);
    }
}

static const char device_body[] =
    "{\"device_keys\":{\"user_id\":\"@ann:test\",\"device_id\":\"A\",\"algorithms\":[\"x\"],"
    "\"keys\":{\"ed25519:A\":\"k\"},\"signatures\":{},\"other\":1}}";

static struct slice devices_json(void)
{
    struct buf buf;
    buf_init_arena(&buf, w.ctx.arena, 100000);
    struct json_out out = json_out_to(&buf);
    assert_int_equal(hs_keys_write_devices(&w.hs, &w.ctx, ann, NULL, &out).code, 0);
    return buf_slice(&buf);
}

static size_t changes_since(uint64_t since)
{
    uint64_t *users = NULL;
    size_t count = 0;
    assert_int_equal(
        hs_device_changes(&w.hs, &w.ctx, since, positions_newest(w.hs.positions), &users, &count)
            .code,
        0);
    return count;
}

static void device_keys_are_served_as_uploaded_with_the_name(void **state)
{
    (void)state;
    assert_int_equal(upload(device_body), 0);
    struct slice json = devices_json();
    assert_true(slice_contains(json, LIT("\"other\":1")));
    assert_true(slice_contains(json, LIT("\"unsigned\":{\"device_display_name\":\"my phone\"}")));
}

static void list_changes_are_recorded_once_and_found_from_the_store_too(void **state)
{
    uint64_t *users = NULL;
    size_t count = 0;
    (void)state;
    uint64_t start = positions_newest(w.hs.positions);
    assert_int_equal(upload(device_body), 0);
    assert_int_equal(changes_since(start), 1);
    uint64_t after = positions_newest(w.hs.positions);
    assert_int_equal(upload(device_body), 0);
    assert_int_equal(changes_since(after), 0);
    assert_int_equal(hs_device_rename(&w.hs, &w.ctx, ann, LIT("A"), LIT("new")).code, 0);
    assert_int_equal(changes_since(after), 1);
    hs_keys_free(&w.hs.keys); /* as after a restart: memory knows nothing */
    w.hs.keys = hs_keys_new(&w.hs);
    uint64_t newest = positions_newest(w.hs.positions);
    assert_int_equal(hs_device_changes(&w.hs, &w.ctx, start, newest, &users, &count).code, 0);
    assert_int_equal(count, 1);
}

static void keys_go_with_the_device(void **state)
{
    struct slice device_id = LIT("A");
    (void)state;
    assert_int_equal(upload(device_body), 0);
    assert_int_equal(upload("{\"one_time_keys\":{\"signed_curve25519:1\":{\"key\":\"a\"}}}"), 0);
    uint64_t before = positions_newest(w.hs.positions);
    assert_int_equal(hs_devices_delete(&w.hs, &w.ctx, ann, &device_id, 1).code, 0);
    assert_true(slice_eq(devices_json(), LIT("{}")));
    assert_true(slice_eq(claim(), LIT("")));
    assert_int_equal(changes_since(before), 1);
    assert_int_equal(upload(device_body), ERR_M_UNKNOWN_TOKEN);
}

/* Whatever call of the store fails: no key goes out twice, none is lost but with an error. */
static void failed_claims_hand_nothing_out(void **state)
{
    (void)state;
    for (int32_t call = 1; call < 8; call++) {
        struct key_claim one = {.device_id = LIT("A"), .algorithm = LIT("signed_curve25519")};
        const char *body = arena_cstr(
            w.ctx.arena,
            arena_printf(w.ctx.arena,
                         "{\"one_time_keys\":{\"signed_curve25519:%d\":{\"key\":\"a\"}}}", call));
        assert_int_equal(upload(body), 0);
        store_fail_after(w.hs.store, call);
        struct err err = hs_keys_claim(&w.hs, &w.ctx, ann, &one, 1);
        store_fail_after(w.hs.store, 0);
        assert_int_equal(counts().one_time[0].count, err.code == 0 ? 0 : 1);
        if (err.code != 0) {
            assert_true(claim().len > 0);
        }
    }
}

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(one_time_keys_go_out_once_in_order_of_upload),
        WITH_WORLD(an_id_cannot_get_another_key),
        WITH_WORLD(a_fallback_key_is_used_when_all_others_are_gone),
        WITH_WORLD(malformed_uploads_are_refused),
        WITH_WORLD(device_keys_are_served_as_uploaded_with_the_name),
        WITH_WORLD(list_changes_are_recorded_once_and_found_from_the_store_too),
        WITH_WORLD(keys_go_with_the_device),
        WITH_WORLD(failed_claims_hand_nothing_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
