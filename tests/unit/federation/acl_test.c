#include "federation/fed.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

struct acl_case {
    const char *acl, *server;
    bool allowed;
};

static void check_cases(const struct acl_case *cases, size_t count)
{
    struct arena *arena = arena_new();
    for (size_t i = 0; i < count; i++) {
        struct json content;
        assert_int_equal(json_parse(arena, slice_of(cases[i].acl), &content).code, 0);
        bool allowed = fed_acl_allows(&content, slice_of(cases[i].server));
        if (allowed != cases[i].allowed) {
            fail_msg("%s for %s", cases[i].acl, cases[i].server);
        }
    }
    arena_free(&arena);
}

static void a_room_without_a_list_is_open(void **state)
{
    (void)state;
    assert_true(fed_acl_allows(NULL, LIT("evil.com")));
    assert_true(fed_acl_allows(NULL, LIT("1.2.3.4:80")));
}

static void denied_goes_before_allowed(void **state)
{
    (void)state;
    static const struct acl_case cases[] = {
        {"{\"allow\":[\"*\"],\"deny\":[\"evil.com\"]}", "evil.com", false},
        {"{\"allow\":[\"*\"],\"deny\":[\"evil.com\"]}", "good.com", true},
        {"{\"allow\":[\"evil.com\"],\"deny\":[\"evil.com\"]}", "evil.com", false},
        {"{\"allow\":[\"*\"],\"deny\":[\"*.evil.com\"]}", "a.evil.com", false},
        {"{\"allow\":[\"*\"],\"deny\":[\"*.evil.com\"]}", "evil.com", true},
        {"{\"allow\":[\"h?.org\"]}", "h1.org", true},
        {"{\"allow\":[\"h?.org\"]}", "h12.org", false},
    };
    check_cases(cases, COUNT_OF(cases));
}

static void who_is_not_allowed_is_denied(void **state)
{
    (void)state;
    static const struct acl_case cases[] = {
        {"{}", "good.com", false},
        {"{\"allow\":[]}", "good.com", false},
        {"{\"deny\":[\"evil.com\"]}", "good.com", false},
        {"{\"allow\":[\"other.com\"]}", "good.com", false},
    };
    check_cases(cases, COUNT_OF(cases));
}

static void names_are_compared_without_port_and_case(void **state)
{
    (void)state;
    static const struct acl_case cases[] = {
        {"{\"allow\":[\"*\"],\"deny\":[\"EVIL.com\"]}", "evil.COM:8448", false},
        {"{\"allow\":[\"Good.com\"]}", "gOOD.com", true},
        {"{\"allow\":[\"*\"],\"deny\":[\"evil.com:8448\"]}", "evil.com:8448", true},
    };
    check_cases(cases, COUNT_OF(cases));
}

static void addresses_are_denied_by_the_flag(void **state)
{
    (void)state;
    static const struct acl_case cases[] = {
        {"{\"allow\":[\"*\"],\"allow_ip_literals\":false}", "1.2.3.4", false},
        {"{\"allow\":[\"*\"],\"allow_ip_literals\":false}", "1.2.3.4:8448", false},
        {"{\"allow\":[\"*\"],\"allow_ip_literals\":false}", "[::1]:8448", false},
        {"{\"allow\":[\"*\"],\"allow_ip_literals\":false}", "1.2.3.4.example", true},
        {"{\"allow\":[\"*\"],\"allow_ip_literals\":true}", "1.2.3.4", true},
        {"{\"allow\":[\"*\"]}", "[::1]", true},
        {"{\"allow\":[\"*\"],\"deny\":[\"[::1]\"]}", "[::1]:80", false},
    };
    check_cases(cases, COUNT_OF(cases));
}

/* Synapse CVE-2023-45129. */
static void a_hostile_list_takes_bounded_work(void **state)
{
    enum { PATTERNS = 1000 };
    struct json content = json_object();
    struct json deny = json_array();
    struct json allow = json_array();
    struct arena *arena = arena_new();
    char host[200];
    (void)state;
    memset(host, 'a', sizeof host);
    for (int i = 0; i < PATTERNS; i++) {
        json_push(arena, &deny,
                  json_string(LIT("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*ab")));
    }
    json_push(arena, &allow, json_string(LIT("*")));
    json_set(arena, &content, LIT("deny"), deny);
    json_set(arena, &content, LIT("allow"), allow);
    for (int i = 0; i < 100; i++) { /* a matcher that tries every way would not come back */
        assert_true(fed_acl_allows(&content, (struct slice){host, sizeof host}));
    }
    arena_free(&arena);
}

/* As long as an event may be, for a name that nearly fits at each of its places. */
static void a_long_list_of_near_misses_takes_little_time(void **state)
{
    enum { PATTERNS = 600, CHECKS = 400, SECONDS_MAX = 10 };
    struct json content = json_object();
    struct json allow = json_array();
    struct arena *arena = arena_new();
    char host[230];
    char pattern[101] = "*";
    (void)state;
    memset(host, 'a', sizeof host);
    memset(pattern + 1, 'a', sizeof pattern - 2);
    pattern[sizeof pattern - 2] = 'b';
    for (int i = 0; i < PATTERNS; i++) {
        json_push(arena, &allow, json_string(slice_of(pattern)));
    }
    json_set(arena, &content, LIT("allow"), allow);
    clock_t from = clock(); /* of the processor, so other work does not count */
    for (int i = 0; i < CHECKS; i++) {
        assert_false(fed_acl_allows(&content, (struct slice){host, sizeof host}));
    }
    assert_true((clock() - from) / CLOCKS_PER_SEC < SECONDS_MAX);
    arena_free(&arena);
}

static void globs_match_as_a_whole(void **state)
{
    (void)state;
    static const struct acl_case cases[] = {
        {"{\"allow\":[\"*\"]}", "a", true},
        {"{\"allow\":[\"**\"]}", "good.com", true},
        {"{\"allow\":[\"\"]}", "good.com", false},
        {"{\"allow\":[\"?*\"]}", "a", true},
        {"{\"allow\":[\"??*\"]}", "a", false},
        {"{\"allow\":[\"*od*co*\"]}", "good.com", true},
        {"{\"allow\":[\"*od*od*\"]}", "good.com", false},
        {"{\"allow\":[\"good.com*\"]}", "good.com", true},
        {"{\"allow\":[\"good.co\"]}", "good.com", false},
        {"{\"allow\":[\"ood.com\"]}", "good.com", false},
        {"{\"allow\":[\"good.com?\"]}", "good.com", false},
        {"{\"allow\":[\"*?\"]}", "good.com", true},
        {"{\"allow\":[\"g\u00f6od.com\",\"*\u00f6*\"]}", "good.com", false},
        {"{\"allow\":[\"*.12345678901234567890123456789012345678901234567890123456789012345"
         ".c?m\"]}",
         "x.12345678901234567890123456789012345678901234567890123456789012345.com", true},
    };
    check_cases(cases, COUNT_OF(cases));
}

static void malformed_lists_are_read_as_far_as_they_go(void **state)
{
    (void)state;
    static const struct acl_case cases[] = {
        {"{\"allow\":\"*\"}", "good.com", false},
        {"{\"allow\":[\"*\",5,null,{}],\"deny\":[5,[],\"evil.com\"]}", "evil.com", false},
        {"{\"allow\":[5,null,\"*\"],\"deny\":\"evil.com\"}", "evil.com", true},
        {"{\"allow\":{\"a\":1},\"deny\":3}", "good.com", false},
        {"{\"allow\":[\"*\"],\"allow_ip_literals\":\"false\"}", "1.2.3.4", true},
    };
    check_cases(cases, COUNT_OF(cases));
}

static void the_current_state_of_the_room_decides(void **state)
{
    struct house house;
    (void)state;
    house_open(&house);
    struct guest alice = house_guest(&house, "alice");
    struct room *room = house_room(&house, &alice, "{}");
    assert_int_equal(fed_acl_check(&house.hs, &house.ctx, room, LIT("evil.com")).code, 0);
    house_state(&house, room, &alice, "m.room.server_acl",
                "{\"allow\":[\"*\"],\"deny\":[\"evil.com\"]}");
    assert_int_equal(fed_acl_check(&house.hs, &house.ctx, room, LIT("evil.com")).code,
                     ERR_M_FORBIDDEN);
    assert_int_equal(fed_acl_check(&house.hs, &house.ctx, room, LIT("good.com")).code, 0);
    house_close(&house);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_room_without_a_list_is_open),
        cmocka_unit_test(denied_goes_before_allowed),
        cmocka_unit_test(who_is_not_allowed_is_denied),
        cmocka_unit_test(names_are_compared_without_port_and_case),
        cmocka_unit_test(addresses_are_denied_by_the_flag),
        cmocka_unit_test(a_hostile_list_takes_bounded_work),
        cmocka_unit_test(a_long_list_of_near_misses_takes_little_time),
        cmocka_unit_test(globs_match_as_a_whole),
        cmocka_unit_test(malformed_lists_are_read_as_far_as_they_go),
        cmocka_unit_test(the_current_state_of_the_room_decides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
