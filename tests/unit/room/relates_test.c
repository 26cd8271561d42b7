#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "homeserver/room/join_rules.h"
#include "homeserver/room/relates.h"

static struct json parse(struct arena *arena, const char *text)
{
    struct json value;
    assert_int_equal(json_parse(arena, slice_of(text), &value).code, 0);
    return value;
}

static void relations_are_read(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct json content =
        parse(arena, "{\"m.relates_to\":{\"rel_type\":\"m.thread\",\"event_id\":\"$root\","
                     "\"is_falling_back\":true,\"m.in_reply_to\":{\"event_id\":\"$last\"}}}");
    struct relation relation = relates_parse(&content);
    assert_true(relates_is(&relation, LIT("m.thread")));
    assert_true(slice_eq(relation.event_id.s, LIT("$root")));
    assert_true(slice_eq(relation.in_reply_to.s, LIT("$last")));
    assert_true(relation.is_falling_back);
    assert_true(slice_eq(relates_thread_root(&content).s, LIT("$root")));
    assert_false(relates_may_be_thread_root(&content));
    content = parse(arena, "{\"m.relates_to\":{\"rel_type\":\"m.annotation\",\"event_id\":\"$e\","
                           "\"key\":\"+1\"}}");
    relation = relates_parse(&content);
    assert_true(slice_eq(relation.key, LIT("+1")));
    assert_int_equal(relates_thread_root(&content).s.len, 0);
    arena_free(&arena);
}

static void malformed_relations_are_none(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    static const char *const rows[] = {
        "{}",
        "{\"m.relates_to\":5}",
        "{\"m.relates_to\":{\"rel_type\":\"m.thread\"}}",
        "{\"m.relates_to\":{\"rel_type\":5,\"event_id\":\"$e\"}}",
        "{\"m.relates_to\":{\"event_id\":\"$e\"}}",
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct json content = parse(arena, rows[i]);
        struct relation relation = relates_parse(&content);
        assert_int_equal(relation.rel_type.len + relation.event_id.s.len, 0);
    }
    arena_free(&arena);
}

struct row {
    const char *sender;
    const char *type;
    const char *content;
    bool valid;
};

static void edits_are_valid_by_the_list(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct json plain = parse(arena, "{\"body\":\"x\"}");
    struct event original = {.id = ids_trust_event(LIT("$o")),
                             .room_id = ids_trust_room(LIT("!r")),
                             .sender = ids_trust_user(LIT("@a:h")),
                             .type = LIT("m.room.message"),
                             .content = &plain};
    static const char good[] = "{\"m.new_content\":{},\"m.relates_to\":{\"rel_type\":"
                               "\"m.replace\",\"event_id\":\"$o\"}}";
    static const char bare[] =
        "{\"m.relates_to\":{\"rel_type\":\"m.replace\",\"event_id\":\"$o\"}}";
    static const char other[] = "{\"m.new_content\":{},\"m.relates_to\":{\"rel_type\":"
                                "\"m.replace\",\"event_id\":\"$x\"}}";
    static const struct row rows[] = {
        {"@a:h", "m.room.message", good, true},   {"@b:h", "m.room.message", good, false},
        {"@a:h", "m.sticker", good, false},       {"@a:h", "m.room.message", bare, false},
        {"@a:h", "m.room.message", other, false},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct json content = parse(arena, rows[i].content);
        struct event edit = original;
        edit.sender = ids_trust_user(slice_of(rows[i].sender));
        edit.type = slice_of(rows[i].type);
        edit.content = &content;
        assert_int_equal(relates_is_valid_edit(&edit, &original), rows[i].valid);
    }
    struct json content = parse(arena, good);
    struct event edit = original;
    edit.content = &content;
    edit.has_state_key = true;
    assert_false(relates_is_valid_edit(&edit, &original));
    edit.has_state_key = false;
    original.content = &content; /* an edit of an edit */
    assert_false(relates_is_valid_edit(&edit, &original));
    arena_free(&arena);
}

static void the_newest_edit_wins(void **state)
{
    (void)state;
    struct event a = {.id = ids_trust_event(LIT("$a")), .origin_server_ts = 5};
    struct event b = {.id = ids_trust_event(LIT("$b")), .origin_server_ts = 5};
    assert_true(relates_is_newer_edit(&b, &a));
    assert_false(relates_is_newer_edit(&a, &b));
    a.origin_server_ts = 6;
    assert_true(relates_is_newer_edit(&a, &b));
}

static void join_rules_are_read_by_version(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct json content =
        parse(arena, "{\"join_rule\":\"restricted\",\"allow\":["
                     "{\"type\":\"m.room_membership\",\"room_id\":\"!a:h\"},{\"type\":\"x\"},5,"
                     "{\"type\":\"m.room_membership\",\"room_id\":\"bad\"},"
                     "{\"type\":\"m.room_membership\",\"room_id\":\"!b:h\"}]}");
    struct event event = {.rules = room_rules_get(LIT("8")), .content = &content};
    struct join_rules rules = join_rules_parse(arena, &event);
    assert_int_equal(rules.rule, JOIN_RULE_RESTRICTED);
    assert_int_equal(rules.allowed_room_count, 2);
    assert_true(slice_eq(rules.allowed_rooms[1].s, LIT("!b:h")));
    event.rules = room_rules_get(LIT("7"));
    assert_int_equal(join_rules_rule(&event), JOIN_RULE_OTHER);
    assert_int_equal(join_rules_rule(NULL), JOIN_RULE_INVITE);
    assert_true(join_rules_allow_knock(JOIN_RULE_KNOCK_RESTRICTED));
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(relations_are_read),
        cmocka_unit_test(malformed_relations_are_none),
        cmocka_unit_test(edits_are_valid_by_the_list),
        cmocka_unit_test(the_newest_edit_wins),
        cmocka_unit_test(join_rules_are_read_by_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
