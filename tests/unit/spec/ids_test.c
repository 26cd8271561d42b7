#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "homeserver/base/arena.h"
#include "spec/ids.h"
#include "spec/room_rules.h"

struct row {
    const char *text;
    bool good;
};

static void check_rows(bool (*is_good)(struct slice), const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (is_good(slice_of(rows[i].text)) != rows[i].good) {
            fail_msg("%s should be %s", rows[i].text, rows[i].good ? "good" : "refused");
        }
    }
}

static void server_names_follow_the_grammar(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"matrix.org", true},
        {"matrix.org:8888", true},
        {"1.2.3.4", true},
        {"1.2.3.4:1234", true},
        {"[1234:5678::abcd]", true},
        {"[::1]:5678", true},
        {"localhost", true},
        {"a:1", true},
        {"a:12345", true},
        {"", false},
        {":80", false},
        {"a:", false},
        {"a:123456", false},
        {"a:port", false},
        {"a_b", false},
        {"[1234", false},
        {"[zz::1]", false},
        {"a b", false},
        {"[::1]x", false},
        {"a:1:2", false},
    };
    check_rows(ids_is_server_name, rows, COUNT_OF(rows));
}

static void user_ids_follow_the_historical_grammar(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"@alice:example.org", true},
        {"@:example.org", true},
        {"@A b\xc3\xa4!:h", true},
        {"@a:h:80", true},
        {"alice:example.org", false},
        {"@alice", false},
        {"@alice:", false},
        {"@a:b_c", false},
        {"", false},
        {"@a\xff:h", false},
    };
    check_rows(ids_is_user, rows, COUNT_OF(rows));
    char longest[300] = {'@'};
    for (size_t i = 1; i < 253; i++) {
        longest[i] = 'x';
    }
    longest[253] = ':';
    longest[254] = 'h';
    assert_true(ids_is_user((struct slice){longest, 255}));
    longest[255] = 'h';
    assert_false(ids_is_user((struct slice){longest, 256}));
}

static void new_users_have_a_stricter_grammar(void **state)
{
    (void)state;
    struct user_id user;
    assert_int_equal(ids_parse_new_user(LIT("@a.b_c=d-e/f+0:h"), &user).code, 0);
    assert_int_not_equal(ids_parse_new_user(LIT("@Alice:h"), &user).code, 0);
    assert_int_not_equal(ids_parse_new_user(LIT("@:h"), &user).code, 0);
}

static void room_ids_come_with_and_without_a_domain(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"!abc:example.org", true},
        {"!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", true},
        {"!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogL", false},
        {"!abc", false},
        {"#abc:example.org", false},
    };
    check_rows(ids_is_room, rows, COUNT_OF(rows));
}

static void parts_are_found(void **state)
{
    (void)state;
    uint16_t port = 0;
    struct user_id user = ids_trust_user(LIT("@alice:h:80"));
    assert_true(slice_eq(ids_user_localpart(user), LIT("alice")));
    assert_true(slice_eq(ids_user_domain(user).s, LIT("h:80")));
    assert_true(slice_eq(ids_server_host(ids_user_domain(user), &port), LIT("h")));
    assert_int_equal(port, 80);
    assert_true(slice_eq(ids_server_host(ids_trust_server(LIT("[::1]")), &port), LIT("[::1]")));
    assert_int_equal(port, 0);
    assert_int_equal(ids_room_domain(ids_trust_room(LIT("!hash"))).s.len, 0);
}

static void rules_of_a_version_add_up(void **state)
{
    (void)state;
    assert_null(room_rules_get(LIT("13")));
    assert_null(room_rules_get(LIT("")));
    assert_true(slice_eq(room_rules_default()->version, LIT("12")));
    const struct room_rules *first = room_rules_get(LIT("1"));
    const struct room_rules *fifth = room_rules_get(LIT("5"));
    const struct room_rules *tenth = room_rules_get(LIT("10"));
    const struct room_rules *last = room_rules_get(LIT("12"));
    assert_true(first->signed_by_id_domain && first->stateres == STATERES_1);
    assert_false(first->key_validity || first->restricted);
    assert_true(fifth->key_validity && fifth->aliases_auth && fifth->stateres == STATERES_2);
    assert_false(fifth->redaction_auth || fifth->strict_canonical);
    assert_true(tenth->int_levels_only && tenth->knock_restricted && tenth->knock);
    assert_false(tenth->redacts_in_content || tenth->float_levels || tenth->aliases_auth);
    assert_true(last->creator_infinite && last->hash_room_id && last->byte_limits);
    assert_int_equal(last->redaction_set, REDACTION_E);
    assert_int_equal(last->event_format, EVENT_FORMAT_12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(server_names_follow_the_grammar),
        cmocka_unit_test(user_ids_follow_the_historical_grammar),
        cmocka_unit_test(new_users_have_a_stricter_grammar),
        cmocka_unit_test(room_ids_come_with_and_without_a_domain),
        cmocka_unit_test(parts_are_found),
        cmocka_unit_test(rules_of_a_version_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
