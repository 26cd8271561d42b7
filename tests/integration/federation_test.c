/* Two servers over TLS: requests, keys, and the check of signatures. */
#include "federation/xmatrix.h"
#include "tests/support/pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

static struct pair pair;

static int open_pair(void **state)
{
    (void)state;
    pair_open(&pair, "");
    return 0;
}

static int close_pair(void **state)
{
    (void)state;
    pair_close(&pair);
    return 0;
}

static struct slice name_of(size_t index)
{
    return slice_of(pair.servers[index].name);
}

static void a_server_reads_the_keys_of_another(void **state)
{
    struct fed_call call = {.destination = name_of(1), .path = LIT("/_matrix/key/v2/server")};
    struct json answer;
    (void)state;
    struct err err = fed_call_json(pair.servers[0].hs->fed, &pair.ctx, &call, &answer);
    assert_int_equal(err.code, 0);
    assert_true(slice_eq(json_get_string(&answer, LIT("server_name")), name_of(1)));
    pair.ctx.may_wait = false;
    err = fed_call_json(pair.servers[0].hs->fed, &pair.ctx, &call, &answer);
    assert_int_equal(err.code, ERR_WAITS);
}

/* A request as the front hands it over. */
static struct http_request request_of(struct slice target, const struct json *content)
{
    struct hs *sender = pair.servers[0].hs;
    struct slice body = content ? json_canonical(pair.ctx.arena, content) : (struct slice){0};
    struct xmatrix_request parts = {LIT("PUT"), target, name_of(1), body};
    struct http_request request = {.method = HTTP_PUT, .target = target};
    request.authorizations[0] = xmatrix_sign(sender, pair.ctx.arena, &parts);
    request.authorization_count = 1;
    if (content) {
        request.json = *content;
        request.body = body;
    }
    return request;
}

static struct err check(struct http_request *request)
{
    struct http_reply reply = {0};
    return fed_authenticate(pair.servers[1].hs->fed, &pair.ctx, request, &reply);
}

static void a_signed_request_is_known_by_its_origin(void **state)
{
    struct json content = json_object();
    (void)state;
    json_set(pair.ctx.arena, &content, LIT("b"), json_int(2));
    struct http_request request = request_of(LIT("/_matrix/x?y=%20z"), &content);
    pair.ctx.may_wait = false; /* keys must come first */
    assert_int_equal(check(&request).code, ERR_WAITS);
    pair.ctx.may_wait = true;
    assert_int_equal(check(&request).code, 0);
    assert_true(slice_eq(fed_origin(&request), name_of(0)));
    pair.ctx.may_wait = false; /* and are here now */
    request.server = (struct slice){0};
    assert_int_equal(check(&request).code, 0);
    request.target = LIT("/_matrix/x?y=%20Z");
    assert_int_equal(check(&request).code, ERR_M_UNAUTHORIZED);
}

static void keys_outlive_a_restart_of_both(void **state)
{
    struct ed25519_public key;
    bool found = false;
    (void)state;
    struct fed_key_query query = {.server = name_of(0),
                                  .key_id = pair.servers[0].hs->signer.key_id,
                                  .use = FED_KEY_REQUEST,
                                  .ts_ms = now_wall_ms(&pair.now)};
    query.key_id = arena_copy(pair.ctx.arena, query.key_id);
    assert_int_equal(fed_key_get(pair.servers[1].hs->fed, &pair.ctx, &query, &key, &found).code, 0);
    assert_true(found);
    pair_stop(&pair, 0);
    pair_stop(&pair, 1);
    pair_start(&pair, 1);
    pair.ctx.may_wait = false;
    assert_int_equal(fed_key_get(pair.servers[1].hs->fed, &pair.ctx, &query, &key, &found).code, 0);
    assert_true(found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_server_reads_the_keys_of_another, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(a_signed_request_is_known_by_its_origin, open_pair,
                                        close_pair),
        cmocka_unit_test_setup_teardown(keys_outlive_a_restart_of_both, open_pair, close_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
