#include "homeserver/base/conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

struct fixture {
    struct arena *arena;
    struct conf conf;
    struct buf problems;
};

static struct fixture start(void)
{
    struct fixture f = {.arena = arena_new()};
    buf_init_arena(&f.problems, f.arena, 1 << 16);
    return f;
}

static bool parses(struct fixture *f, struct slice text)
{
    return conf_parse(f->arena, text, LIT("f.yaml"), &f->conf, &f->problems).code == 0;
}

static void only_the_server_name_is_required(void **state)
{
    (void)state;
    struct fixture f = start();
    assert_true(parses(&f, LIT("server_name: example.org\n")));
    assert_true(slice_eq(f.conf.server_name, LIT("example.org")));
    assert_int_equal(f.conf.listen.count, 1);
    assert_int_equal(f.conf.listen.items[0].port, 8008);
    assert_int_equal(f.conf.tokens_access_life, 3600000);
    assert_int_equal(f.conf.limits_upload_bytes, 50 * 1024 * 1024);
    assert_int_equal(f.conf.password_hash_cost, CONF_PASSWORD_COST_INTERACTIVE);
    assert_false(parses(&f, LIT("admins: []\n")));
    assert_true(
        slice_contains(buf_slice(&f.problems), LIT("f.yaml:1: server_name: this setting is")));
    arena_free(&f.arena);
}

static void json_with_all_parts_is_read(void **state)
{
    (void)state;
    struct fixture f = start();
    assert_true(parses(
        &f, LIT("{\"server_name\": \"hs1\", \"listen\": [{\"host\": \"127.0.0.1\", \"port\": 8448, "
                "\"tls\": true}], \"tls\": {\"certificate\": \"/c\", \"key\": \"/k\", "
                "\"trusted_ca\": [\"/ca\"]},\n"
                "\"rate_limits\": {\"enabled\": false, \"login\": {\"burst\": 7}}, "
                "\"default_room_version\": \"11\", \"password_hash_cost\": \"lowest\", "
                "\"well_known\": {\"client\": {\"a.b\": {\"n\": 1, \"s\": \"1\", \"l\": [true]}}}, "
                "\"log\": {\"level\": \"debug\"}}")));
    assert_true(f.conf.listen.items[0].tls);
    assert_true(slice_eq(f.conf.tls_trusted_ca.items[0], LIT("/ca")));
    assert_false(f.conf.rate_limits_enabled);
    assert_int_equal(f.conf.rate_limits_login_burst, 7);
    assert_int_equal(f.conf.password_hash_cost, CONF_PASSWORD_COST_LOWEST);
    assert_true(
        slice_eq(f.conf.well_known_client, LIT("{\"a.b\":{\"n\":1,\"s\":\"1\",\"l\":[true]}}")));
    assert_int_equal(f.conf.log_level, 3);
    arena_free(&f.arena);
}

static void all_problems_are_reported_with_their_lines(void **state)
{
    (void)state;
    static const char *const expected[] = {
        "f.yaml:2: listne: there is no such setting; did you mean listen?",
        "f.yaml:3: registration.open: expected true or false",
        "f.yaml:4: registration.password_min: the value is out of range (1 .. 512 bytes)",
        "f.yaml:5: password_hash_cost: expected one of the choices",
        "f.yaml:6: tls.certificate: set tls.certificate and tls.key together",
        "f.yaml:7: tls: this is a section",
        "f.yaml:8: admins: expected a list",
        "f.yaml:9: server_name: this setting stands twice",
        "f.yaml:10: limits.idle_timeout: expected a number (1s .. 1h, with ms, s, m, h, d or w)",
    };
    struct fixture f = start();
    assert_false(parses(&f, LIT("server_name: example.org\n"
                                "listne: []\n"
                                "registration: {open: \"yes\",\n"
                                "  password_min: 5000}\n"
                                "password_hash_cost: high\n"
                                "tls: {certificate: /c}\n"
                                "tls: 5\n"
                                "admins: a\n"
                                "server_name: b\n"
                                "limits: {idle_timeout: 5}\n")));
    for (size_t i = 0; i < COUNT_OF(expected); i++) {
        if (!slice_contains(buf_slice(&f.problems), slice_of(expected[i]))) {
            fail_msg("missing: %s\nin: %.*s", expected[i], (int)f.problems.len, f.problems.ptr);
        }
    }
    arena_free(&f.arena);
}

static void impossible_combinations_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "server_name: a b",
        "server_name: a\npublic_baseurl: ftp://x",
        "server_name: a\nlisten: [{host: h, port: 1}, {host: h, port: 1}]",
        "server_name: a\nlisten: [{host: h}]",
        "server_name: a\nlisten: [{host: h, port: 1, tsl: true}]",
        "server_name: a\nregistration: {require_token: true}",
        "server_name: a\nmemory: {budget: 64M}",
        "server_name: a\nwell_known: {client: &a {a: *a}}",
        "- a",
        "server_name: [",
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        struct fixture f = start();
        assert_false(parses(&f, slice_of(texts[i])));
        assert_true(f.problems.len > 0);
        arena_free(&f.arena);
    }
}

static void the_example_parses_back_to_the_defaults(void **state)
{
    (void)state;
    struct fixture f = start();
    struct conf fallback;
    struct buf example;
    struct buf again;
    buf_init_arena(&example, f.arena, 1 << 16);
    buf_init_arena(&again, f.arena, 1 << 16);
    conf_write_example(&example, LIT("example.org"));
    assert_false(example.overflow);
    bool parsed = parses(&f, buf_slice(&example));
    assert_string_equal(arena_cstr(f.arena, buf_slice(&f.problems)), "");
    assert_true(parsed);
    conf_defaults(f.arena, LIT("example.org"), &fallback);
#define SECTION(path, doc)
#define CONF(kind, field, ...) EQUAL_##kind(f.conf.field, fallback.field);
#define EQUAL_TEXT(a, b) assert_true(slice_eq((a), (b)))
#define EQUAL_PATH EQUAL_TEXT
#define EQUAL_JSON EQUAL_TEXT
#define EQUAL_BOOL(a, b) assert_true((a) == (b))
#define EQUAL_INT EQUAL_BOOL
#define EQUAL_BYTES EQUAL_BOOL
#define EQUAL_TIME EQUAL_BOOL
#define EQUAL_CHOICE EQUAL_BOOL
#define EQUAL_TEXTS(a, b) assert_true((a).count == (b).count)
#define EQUAL_PATHS EQUAL_TEXTS
#define EQUAL_LISTEN EQUAL_TEXTS
#include "homeserver/base/conf.def"
    arena_free(&f.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_server_name_is_required),
        cmocka_unit_test(json_with_all_parts_is_read),
        cmocka_unit_test(all_problems_are_reported_with_their_lines),
        cmocka_unit_test(impossible_combinations_are_refused),
        cmocka_unit_test(the_example_parses_back_to_the_defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
