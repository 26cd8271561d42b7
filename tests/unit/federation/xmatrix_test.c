/* The X-Matrix header: its many spellings, and which of them are refused. */
#include "federation/xmatrix.h"

#include "tests/support/fed_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

struct spelling {
    const char *header;
    const char *want; /* "origin|destination|key|sig"; "" = refused */
};

static const struct spelling spellings[] = {
    {"X-Matrix origin=\"a.org\",destination=\"b.org\",key=\"ed25519:1\",sig=\"AB+/c\"",
     "a.org|b.org|ed25519:1|AB+/c"},
    {"x-mATRIX origin=a.org,destination=b.org,key=ed25519:1,sig=AB", "a.org|b.org|ed25519:1|AB"},
    {"X-Matrix   origin=a.org:8448 ,\tDESTINATION=b.org  ,  Key=\"ed25519:1\",sig=\"AB\"",
     "a.org:8448|b.org|ed25519:1|AB"},
    {"X-Matrix sig=\"AB\",key=\"ed25519:1\",origin=\"a.org\"", "a.org||ed25519:1|AB"},
    {"X-Matrix origin=\"a\\.o\\\\rg\",key=\"k\\\"\",sig=\"s\"", "a.o\\rg||k\"|s"},
    {"X-Matrix origin=\"a, b\",key=\"k\",sig=\"s\"", "a, b||k|s"},
    {"X-Matrix origin=a,key=k,sig=s,more=\"x,origin=y\",other=1", "a||k|s"},
    {"X-Matrix origin=\"[::1]:8448\",key=k,sig=s", "[::1]:8448||k|s"},
    {"X-Matrix origin=[::1]:8448,key=k,sig=ab==", "[::1]:8448||k|ab=="},
    {"X-Matrix ,, origin=a,,key=k, ,sig=s,", "a||k|s"},
    {"X-Matrix origin = a , key = k , sig = \"s\" ", "a||k|s"},
    {"X-Matrix destination=\"\",origin=a,key=k,sig=s", "a||k|s"},
    {"Bearer origin=a,key=k,sig=s", ""},
    {"X-Matrix", ""},
    {"X-Matrixorigin=a,key=k,sig=s", ""},
    {"X-Matrix origin=a,key=k", ""},
    {"X-Matrix origin=\"\",key=k,sig=s", ""},
    {"X-Matrix origin=a,origin=b,key=k,sig=s", ""},
    {"X-Matrix origin=a,key=k,sig=\"s", ""},
    {"X-Matrix origin=a,key=k,sig=\"s\\", ""},
    {"X-Matrix origin=a key=k,sig=s", ""},
    {"X-Matrix origin=\"a\"b,key=k,sig=s", ""},
    {"X-Matrix origin,key=k,sig=s", ""},
    {"X-Matrix =a,origin=a,key=k,sig=s", ""},
    {"", ""},
};

static void headers_are_read_in_all_their_spellings(void **state)
{
    struct arena *arena = arena_new();
    (void)state;
    for (size_t i = 0; i < COUNT_OF(spellings); i++) {
        struct xmatrix header;
        struct slice got = {0};
        if (xmatrix_parse(arena, slice_of(spellings[i].header), &header)) {
            got = arena_printf(arena, "%.*s|%.*s|%.*s|%.*s", (int)header.origin.len,
                               header.origin.ptr, (int)header.destination.len,
                               header.destination.ptr, (int)header.key.len, header.key.ptr,
                               (int)header.sig.len, header.sig.ptr);
        }
        if (!slice_eq(got, slice_of(spellings[i].want))) {
            print_error("%s: %.*s\n", spellings[i].header, (int)got.len, got.ptr);
        }
        assert_true(slice_eq(got, slice_of(spellings[i].want)));
    }
    arena_free(&arena);
}

/* --- checking --- */

static struct fed_world fw;
static struct ed25519_key peer_key, old_key;

static struct slice public_text(struct arena *arena, const struct ed25519_key *key)
{
    struct ed25519_public public_key = ed25519_public_of(key);
    return arena_copy(arena, fed_world_base64(&fw, public_key.bytes, sizeof public_key.bytes));
}

static struct err publish_keys(struct fed_world *world, const struct http_fetch_request *request,
                               struct http_fetch_reply *reply)
{
    struct arena *arena = world->world.ctx.arena;
    struct json keys;
    struct json_signer signer = {ids_trust_server(LIT("peer.org:1")), LIT("ed25519:1"), &peer_key};
    assert_true(slice_eq(request->url, LIT("https://peer.org:1/_matrix/key/v2/server")));
    struct slice now_key = public_text(arena, &peer_key);
    struct slice then_key = public_text(arena, &old_key);
    struct slice text = arena_printf(
        arena,
        "{\"server_name\":\"peer.org:1\",\"valid_until_ts\":%lld,"
        "\"verify_keys\":{\"ed25519:1\":{\"key\":\"%.*s\"}},"
        "\"old_verify_keys\":{\"ed25519:0\":{\"key\":\"%.*s\",\"expired_ts\":9999999999999}}}",
        (long long)world->world.wall_ms + 3600000, (int)now_key.len, now_key.ptr, (int)then_key.len,
        then_key.ptr);
    assert_int_equal(json_parse(arena, text, &keys).code, 0);
    json_sign(arena, &keys, &signer);
    *reply = (struct http_fetch_reply){.status = 200, .body = json_canonical(arena, &keys)};
    return OK;
}

struct signed_request {
    const char *origin, *destination, *key_id; /* destination NULL: signed, not named */
    const struct ed25519_key *key;
    const char *body;
};

static struct slice sign(const struct signed_request *from)
{
    struct arena *arena = fw.world.ctx.arena;
    struct json object = json_object();
    struct json body;
    struct json_signer signer = {ids_trust_server(slice_of(from->origin)), slice_of(from->key_id),
                                 from->key};
    json_set(arena, &object, LIT("method"), json_string(LIT("PUT")));
    json_set(arena, &object, LIT("uri"), json_string(LIT("/x")));
    json_set(arena, &object, LIT("origin"), json_string(slice_of(from->origin)));
    json_set(arena, &object, LIT("destination"),
             json_string(slice_of(from->destination ? from->destination : "test")));
    if (from->body && !json_parse(arena, slice_of(from->body), &body).code) {
        json_set(arena, &object, LIT("content"), body);
    }
    json_sign(arena, &object, &signer);
    struct slice sig = json_sign_find(&object, slice_of(from->origin), signer.key_id);
    const char *destination = from->destination ? from->destination : "";
    return arena_printf(arena, "X-Matrix origin=\"%s\",%s%s%skey=\"%s\",sig=\"%.*s\"", from->origin,
                        from->destination ? "destination=\"" : "", destination,
                        from->destination ? "\"," : "", from->key_id, (int)sig.len, sig.ptr);
}

static uint32_t ask(const struct slice *headers, size_t count, const char *body)
{
    struct http_reply reply = {0};
    struct http_request request = {.method = HTTP_PUT, .target = LIT("/x")};
    for (size_t i = 0; i < count; i++) {
        request.authorizations[request.authorization_count++] = headers[i];
    }
    if (body) {
        request.body = slice_of(body);
        assert_int_equal(json_parse(fw.world.ctx.arena, request.body, &request.json).code, 0);
    }
    struct err err = fed_authenticate(fw.fed, &fw.world.ctx, &request, &reply);
    assert_true(err.code || slice_eq(fed_origin(&request), LIT("peer.org:1")));
    return err.code;
}

static void requests_hold_only_with_a_key_of_now(void **state)
{
    static const struct {
        struct signed_request request;
        bool good;
    } cases[] = {
        {{"peer.org:1", "test", "ed25519:1", &peer_key, NULL}, true},
        {{"peer.org:1", NULL, "ed25519:1", &peer_key, NULL}, true},
        {{"peer.org:1", "test", "ed25519:1", &peer_key, "{\"b\":1,\"a\":[\"\\u00e9\"]}"}, true},
        {{"peer.org:1", "other", "ed25519:1", &peer_key, NULL}, false},
        {{"peer.org:1", "TEST", "ed25519:1", &peer_key, NULL}, false},
        {{"peer.org:1", "test", "ed25519:0", &old_key, NULL}, false},
        {{"peer.org:1", "test", "ed25519:1", &old_key, NULL}, false},
        {{"peer.org:1", "test", "ed25519:9", &peer_key, NULL}, false},
        {{"peer org", "test", "ed25519:1", &peer_key, NULL}, false},
        {{"peer.org:1x", "test", "ed25519:1", &peer_key, NULL}, false},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct slice header = sign(&cases[i].request);
        uint32_t code = ask(&header, 1, cases[i].request.body);
        assert_int_equal(code, cases[i].good ? 0 : ERR_M_UNAUTHORIZED);
    }
    struct slice header = sign(&cases[2].request);
    assert_int_equal(ask(&header, 1, "{\"b\":2}"), ERR_M_UNAUTHORIZED); /* another body */
    assert_int_equal(ask(NULL, 0, NULL), ERR_M_UNAUTHORIZED);
}

static void keys_are_fetched_once_for_many_requests(void **state)
{
    struct signed_request good = {"peer.org:1", "test", "ed25519:1", &peer_key, NULL};
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct slice header = sign(&good);
        assert_int_equal(ask(&header, 1, NULL), 0);
    }
    assert_int_equal(fw.fetches, 1);
    good.key_id = "ed25519:unknown"; /* asked for again, but not each time */
    for (int i = 0; i < 5; i++) {
        struct slice header = sign(&good);
        assert_int_equal(ask(&header, 1, NULL), ERR_M_UNAUTHORIZED);
    }
    assert_int_equal(fw.fetches, 2);
}

static void one_good_header_of_several_is_enough(void **state)
{
    struct signed_request good = {"peer.org:1", "test", "ed25519:1", &peer_key, NULL};
    struct signed_request unknown = {"peer.org:1", "test", "ed25519:2", &old_key, NULL};
    struct signed_request stranger = {"evil.org:1", "test", "ed25519:1", &old_key, NULL};
    (void)state;
    struct slice headers[] = {LIT("Bearer x"), sign(&unknown), sign(&good)};
    assert_int_equal(ask(headers, 3, NULL), 0);
    headers[0] = sign(&stranger); /* but all must be of one origin */
    assert_int_equal(ask(headers, 3, NULL), ERR_M_UNAUTHORIZED);
}

static void servers_that_are_denied_are_refused(void **state)
{
    struct signed_request good = {"peer.org:1", "test", "ed25519:1", &peer_key, NULL};
    struct slice patterns[] = {LIT("*.net"), LIT("peer.*")};
    struct slice header = sign(&good);
    (void)state;
    fw.world.conf.federation_deny = (struct conf_texts){patterns, 2};
    assert_int_equal(ask(&header, 1, NULL), ERR_M_FORBIDDEN);
    fw.world.conf.federation_deny.count = 1;
    assert_int_equal(ask(&header, 1, NULL), 0);
    fw.world.conf.federation_allow = (struct conf_texts){patterns, 1};
    assert_int_equal(ask(&header, 1, NULL), ERR_M_FORBIDDEN);
    fw.world.conf.federation_allow.count = 0;
}

static int open_world(void **state)
{
    (void)state;
    peer_key = ed25519_generate();
    old_key = ed25519_generate();
    fed_world_open(&fw);
    fw.on_fetch = publish_keys;
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    fed_world_close(&fw);
    return 0;
}

int main(void)
{
#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_read_in_all_their_spellings),
        WORLD_TEST(requests_hold_only_with_a_key_of_now),
        WORLD_TEST(keys_are_fetched_once_for_many_requests),
        WORLD_TEST(one_good_header_of_several_is_enough),
        WORLD_TEST(servers_that_are_denied_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
