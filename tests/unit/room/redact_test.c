/* What each room version keeps of an event. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "homeserver/room/event.h"
#include "homeserver/room/power.h"
#include "homeserver/room/redact.h"

struct row {
    const char *versions; /* one letter each: '1'..'9', 'A' = 10, 'B' = 11, 'C' = 12 */
    const char *type;
    const char *content;
    const char *kept;
};

static const struct row rows[] = {
    {"123456789ABC", "m.room.message", "{\"body\":\"x\"}", "{}"},
    {"123456789ABC", "org.example", "{\"membership\":\"x\"}", "{}"},
    {"12345678", "m.room.member",
     "{\"display\":1,\"join_authorised_via_users_server\":\"@a:b\",\"membership\":\"join\"}",
     "{\"membership\":\"join\"}"},
    {"9ABC", "m.room.member",
     "{\"display\":1,\"join_authorised_via_users_server\":\"@a:b\",\"membership\":\"join\"}",
     "{\"join_authorised_via_users_server\":\"@a:b\",\"membership\":\"join\"}"},
    {"9A", "m.room.member", "{\"third_party_invite\":{\"display_name\":\"x\",\"signed\":{}}}",
     "{}"},
    {"BC", "m.room.member", "{\"third_party_invite\":{\"display_name\":\"x\",\"signed\":{}}}",
     "{\"third_party_invite\":{\"signed\":{}}}"},
    {"BC", "m.room.member", "{\"third_party_invite\":{\"display_name\":\"x\"}}", "{}"},
    {"123456789A", "m.room.create", "{\"creator\":\"@a:b\",\"room_version\":\"1\"}",
     "{\"creator\":\"@a:b\"}"},
    {"BC", "m.room.create", "{\"creator\":\"@a:b\",\"room_version\":\"1\"}",
     "{\"creator\":\"@a:b\",\"room_version\":\"1\"}"},
    {"1234567", "m.room.join_rules", "{\"allow\":[],\"join_rule\":\"x\",\"y\":1}",
     "{\"join_rule\":\"x\"}"},
    {"89ABC", "m.room.join_rules", "{\"allow\":[],\"join_rule\":\"x\",\"y\":1}",
     "{\"allow\":[],\"join_rule\":\"x\"}"},
    {"123456789A", "m.room.power_levels",
     "{\"ban\":1,\"events\":{},\"invite\":2,\"notifications\":{},\"users\":{}}",
     "{\"ban\":1,\"events\":{},\"users\":{}}"},
    {"BC", "m.room.power_levels",
     "{\"ban\":1,\"events\":{},\"invite\":2,\"notifications\":{},\"users\":{}}",
     "{\"ban\":1,\"events\":{},\"invite\":2,\"users\":{}}"},
    {"12345", "m.room.aliases", "{\"aliases\":[\"#a:b\"],\"x\":1}", "{\"aliases\":[\"#a:b\"]}"},
    {"6789ABC", "m.room.aliases", "{\"aliases\":[\"#a:b\"]}", "{}"},
    {"123456789ABC", "m.room.history_visibility", "{\"history_visibility\":\"x\",\"y\":1}",
     "{\"history_visibility\":\"x\"}"},
    {"123456789A", "m.room.redaction", "{\"reason\":\"r\",\"redacts\":\"$x\"}", "{}"},
    {"BC", "m.room.redaction", "{\"reason\":\"r\",\"redacts\":\"$x\"}", "{\"redacts\":\"$x\"}"},
};

static const struct room_rules *version_of(char letter)
{
    size_t index = letter >= 'A' ? (size_t)(letter - 'A') + 9 : (size_t)(letter - '1');
    return room_rules_at(index);
}

/* Conduit CVE-2024-6300. */
static void content_is_cut_down_as_the_version_says(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        for (const char *letter = rows[i].versions; *letter; letter++) {
            struct json content;
            assert_int_equal(json_parse(arena, slice_of(rows[i].content), &content).code, 0);
            struct json kept =
                redact_content(arena, version_of(*letter), slice_of(rows[i].type), &content);
            struct slice text = json_canonical(arena, &kept);
            if (!slice_eq(text, slice_of(rows[i].kept))) {
                fail_msg("row %zu, version %c: have %.*s", i, *letter, (int)text.len, text.ptr);
            }
        }
    }
    arena_free(&arena);
}

static void members_of_the_event_are_kept_by_list(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct json pdu;
    assert_int_equal(
        json_parse(arena,
                   LIT("{\"auth_events\":[],\"content\":{\"a\":1},\"depth\":1,\"event_id\":\"$e\","
                       "\"hashes\":{},\"membership\":\"join\",\"origin\":\"o\","
                       "\"origin_server_ts\":1,\"other\":1,\"prev_events\":[],\"prev_state\":[],"
                       "\"redacts\":\"$x\",\"room_id\":\"!r\",\"sender\":\"@s\","
                       "\"signatures\":{},\"state_key\":\"\",\"type\":\"t\",\"unsigned\":{}}"),
                   &pdu)
            .code,
        0);
    struct json kept = redact_event(arena, room_rules_get(LIT("10")), &pdu);
    assert_true(slice_eq(
        json_canonical(arena, &kept),
        LIT("{\"auth_events\":[],\"content\":{},\"depth\":1,\"event_id\":\"$e\",\"hashes\":{},"
            "\"membership\":\"join\",\"origin\":\"o\",\"origin_server_ts\":1,\"prev_events\":[],"
            "\"prev_state\":[],\"room_id\":\"!r\",\"sender\":\"@s\",\"signatures\":{},"
            "\"state_key\":\"\",\"type\":\"t\"}")));
    kept = redact_event(arena, room_rules_get(LIT("11")), &pdu);
    assert_true(slice_eq(
        json_canonical(arena, &kept),
        LIT("{\"auth_events\":[],\"content\":{},\"depth\":1,\"event_id\":\"$e\",\"hashes\":{},"
            "\"origin_server_ts\":1,\"prev_events\":[],\"room_id\":\"!r\",\"sender\":\"@s\","
            "\"signatures\":{},\"state_key\":\"\",\"type\":\"t\"}")));
    arena_free(&arena);
}

static struct event message_of(const struct room_rules *rules, const char *sender, const char *id)
{
    return (struct event){.rules = rules,
                          .sender = ids_trust_user(slice_of(sender)),
                          .id = ids_trust_event(slice_of(id)),
                          .room_id = ids_trust_room(LIT("!r:h"))};
}

/* Conduit CVE-2024-6302. */
static void redactions_need_power_or_the_same_server(void **state)
{
    (void)state;
    const struct room_rules *rules = room_rules_get(LIT("10"));
    struct event redaction = message_of(rules, "@a:h", "$r:x");
    struct event near = message_of(rules, "@b:h", "$t:y");
    struct event far = message_of(rules, "@c:far", "$u:x");
    struct power_levels levels = power_load(rules, NULL, NULL);
    assert_true(redact_is_allowed(&redaction, &near, &levels));
    assert_false(redact_is_allowed(&redaction, &far, &levels));
    assert_false(redact_is_allowed(&redaction, &redaction, &levels));
    redaction.rules = room_rules_get(LIT("2")); /* there the ids' servers count */
    assert_false(redact_is_allowed(&redaction, &near, &levels));
    assert_true(redact_is_allowed(&redaction, &far, &levels));
    levels.redact = 0;
    assert_true(redact_is_allowed(&redaction, &near, &levels));
    near.room_id = ids_trust_room(LIT("!other:h"));
    assert_false(redact_is_allowed(&redaction, &near, &levels));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_is_cut_down_as_the_version_says),
        cmocka_unit_test(members_of_the_event_are_kept_by_list),
        cmocka_unit_test(redactions_need_power_or_the_same_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
