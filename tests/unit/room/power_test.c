#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "homeserver/room/power.h"
#include "spec/errcodes.h"

static struct json parse(struct arena *arena, const char *text)
{
    struct json value;
    assert_int_equal(json_parse(arena, slice_of(text), &value).code, 0);
    return value;
}

struct level_row {
    const char *version;
    const char *value;
    bool good;
    int64_t level;
};

static void levels_are_read_as_the_version_allows(void **state)
{
    (void)state;
    static const struct level_row rows[] = {
        {"1", "50", true, 50},
        {"1", "-5", true, -5},
        {"1", "\" +0050\\t\"", true, 50},
        {"1", "\"-7\"", true, -7},
        {"1", "\"\"", false, 0},
        {"1", "\"+-1\"", false, 0},
        {"1", "\"1.5\"", false, 0},
        {"1", "\"1 2\"", false, 0},
        {"1", "50.57", true, 50},
        {"1", "-1.9", true, -1},
        {"1", "5.114698E4", true, 51146},
        {"1", "1e400", false, 0},
        {"5", "1.5", true, 1},
        {"6", "1.5", false, 0},
        {"9", "\"10\"", true, 10},
        {"10", "\"10\"", false, 0},
        {"10", "10", true, 10},
        {"10", "1e1", false, 0},
        {"1", "null", false, 0},
        {"1", "true", false, 0},
        {"1", "[]", false, 0},
    };
    struct arena *arena = arena_new();
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct json value = parse(arena, rows[i].value);
        int64_t level = 0;
        bool good = power_parse_level(room_rules_get(slice_of(rows[i].version)), &value, &level);
        if (good != rows[i].good || (good && level != rows[i].level)) {
            fail_msg("version %s: %s", rows[i].version, rows[i].value);
        }
    }
    arena_free(&arena);
}

/* Synapse CVE-2018-12423, Dendrite CVE-2022-36009. */
static void a_room_without_levels_has_defaults(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct json content = parse(arena, "{\"creator\":\"@c:h\",\"additional_creators\":[\"@d:h\"]}");
    struct event create = {.sender = ids_trust_user(LIT("@c:h")), .content = &content};
    create.rules = room_rules_get(LIT("10"));
    struct power_levels levels = power_load(create.rules, &create, NULL);
    assert_int_equal(power_of_user(&levels, ids_trust_user(LIT("@c:h"))), 100);
    assert_int_equal(power_of_user(&levels, ids_trust_user(LIT("@d:h"))), 0);
    assert_int_equal(levels.state_default, 50);
    assert_int_equal(levels.invite, 0);
    assert_int_equal(power_needed_for(&levels, LIT("x"), POWER_STATE), 50);
    assert_int_equal(power_needed_for(&levels, LIT("x"), POWER_MESSAGE), 0);
    assert_int_equal(power_needed_to_notify(&levels, LIT("room")), 50);
    create.rules = room_rules_get(LIT("12"));
    levels = power_load(create.rules, &create, NULL);
    assert_true(power_of_user(&levels, ids_trust_user(LIT("@d:h"))) == POWER_INFINITE);
    arena_free(&arena);
}

static void creators_of_version_12_stay_above_all(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct json none = json_object();
    struct json content = parse(arena, "{\"users\":{\"@c:h\":1,\"@x:h\":9007199254740991}}");
    struct event create = {.sender = ids_trust_user(LIT("@c:h")), .content = &none};
    struct event event = {.content = &content};
    create.rules = room_rules_get(LIT("12"));
    struct power_levels levels = power_load(create.rules, &create, &event);
    assert_true(power_of_user(&levels, ids_trust_user(LIT("@c:h"))) >
                power_of_user(&levels, ids_trust_user(LIT("@x:h"))));
    create.rules = room_rules_get(LIT("11"));
    levels = power_load(create.rules, &create, &event);
    assert_int_equal(power_of_user(&levels, ids_trust_user(LIT("@c:h"))), 1);
    arena_free(&arena);
}

struct content_row {
    const char *version;
    const char *content;
    bool good;
};

static void content_of_clients_is_checked(void **state)
{
    (void)state;
    static const struct content_row rows[] = {
        {"11", "{}", true},
        {"11", "{\"ban\":\"50\"}", false},
        {"9", "{\"ban\":\"50\"}", true},
        {"11", "{\"users\":{\"@x:h\":9007199254740992}}", false},
        {"11", "{\"users\":[]}", false},
        {"11", "{\"users\":{\"x\":1}}", false},
        {"11", "{\"events\":{\"t\":null}}", false},
        {"11", "{\"notifications\":{\"room\":1}}", true},
        {"11", "{\"users\":{\"@c:h\":1}}", true},
        {"12", "{\"users\":{\"@c:h\":1}}", false},
        {"12", "{\"users\":{\"@x:h\":1}}", true},
    };
    struct arena *arena = arena_new();
    struct json none = json_object();
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const struct room_rules *rules = room_rules_get(slice_of(rows[i].version));
        struct event create = {
            .rules = rules, .sender = ids_trust_user(LIT("@c:h")), .content = &none};
        struct json content = parse(arena, rows[i].content);
        struct err err = power_check_content(arena, rules, &create, &content);
        if (err.code != (rows[i].good ? 0 : ERR_M_BAD_JSON)) {
            fail_msg("version %s: %s", rows[i].version, rows[i].content);
        }
    }
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_are_read_as_the_version_allows),
        cmocka_unit_test(a_room_without_levels_has_defaults),
        cmocka_unit_test(creators_of_version_12_stay_above_all),
        cmocka_unit_test(content_of_clients_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
