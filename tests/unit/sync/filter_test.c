#include "homeserver/sync/filter.h"

#include "spec/errcodes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void filters_of_wrong_form_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "{\"presence\":\"no\"}",
        "{\"presence\":{\"senders\":\"no\"}}",
        "{\"room\":[]}",
        "{\"room\":{\"state\":\"no\"}}",
        "{\"room\":{\"timeline\":\"no\"}}",
        "{\"room\":{\"ephemeral\":1}}",
        "{\"room\":{\"account_data\":[]}}",
        "{\"room\":{\"rooms\":\"!a:b\"}}",
        "{\"room\":{\"not_rooms\":[\"#a:b\"]}}",
        "{\"room\":{\"include_leave\":1}}",
        "{\"room\":{\"timeline\":{\"rooms\":[\"not_a_room_id\"]}}}",
        "{\"room\":{\"timeline\":{\"senders\":[\"not_a_user_id\"]}}}",
        "{\"room\":{\"timeline\":{\"lazy_load_members\":\"true\"}}}",
        "{\"room\":{\"state\":{\"types\":[1]}}}",
        "{\"room\":{\"state\":{\"limit\":\"5\"}}}",
        "{\"room\":{\"state\":{\"limit\":-5}}}",
        "{\"room\":{\"state\":{\"contains_url\":\"x\"}}}",
        "{\"event_format\":\"other\"}",
        "{\"event_fields\":\"content\"}",
        "[]",
    };
    struct arena *arena = arena_new();
    struct sync_filter filter;
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        struct err err = sync_filter_parse_text(arena, slice_of(wrong[i]), &filter);
        assert_int_equal(err.code, ERR_M_BAD_JSON);
    }
    assert_int_equal(sync_filter_parse_text(arena, LIT("{"), &filter).code, ERR_M_NOT_JSON);
    arena_free(&arena);
}

static struct sync_event_filter events(struct arena *arena, const char *text)
{
    struct json tree;
    struct sync_event_filter filter;
    assert_int_equal(json_parse(arena, slice_of(text), &tree).code, 0);
    assert_int_equal(sync_filter_parse_events(arena, &tree, &filter).code, 0);
    return filter;
}

static void relations_are_matched_by_their_kind(void **state)
{
    (void)state;
    static const struct {
        const char *filter, *content;
        bool takes;
    } cases[] = {
        {"{\"org.matrix.msc3874.rel_types\":[\"m.thread\"]}",
         "{\"m.relates_to\":{\"rel_type\":\"m.thread\",\"event_id\":\"$a\"}}", true},
        {"{\"org.matrix.msc3874.rel_types\":[\"m.thread\"]}",
         "{\"m.relates_to\":{\"rel_type\":\"m.reference\",\"event_id\":\"$a\"}}", false},
        {"{\"org.matrix.msc3874.rel_types\":[\"m.thread\"]}", "{}", false},
        {"{\"org.matrix.msc3874.rel_types\":[]}", "{}", false},
        {"{\"org.matrix.msc3874.not_rel_types\":[\"m.thread\"]}",
         "{\"m.relates_to\":{\"rel_type\":\"m.thread\",\"event_id\":\"$a\"}}", false},
        {"{\"org.matrix.msc3874.not_rel_types\":[\"m.thread\"]}", "{}", true},
    };
    struct arena *arena = arena_new();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct json content;
        struct sync_event_filter filter = events(arena, cases[i].filter);
        assert_int_equal(json_parse(arena, slice_of(cases[i].content), &content).code, 0);
        assert_int_equal(
            sync_filter_takes_event(&filter, LIT("m.room.message"), LIT("@a:b"), &content),
            cases[i].takes);
    }
    arena_free(&arena);
}

static void types_match_with_wildcards_and_exclusion_wins(void **state)
{
    (void)state;
    static const struct {
        const char *filter, *type;
        bool takes;
    } cases[] = {
        {"{}", "m.x", true},
        {"{\"types\":[]}", "m.x", false},
        {"{\"types\":[\"m.room.*\"]}", "m.room.name", true},
        {"{\"types\":[\"m.room.*\"]}", "m.roomname", false},
        {"{\"types\":[\"m.*.n*e\"]}", "m.room.name", true},
        {"{\"types\":[\"m.*.n*e\"]}", "m.room.names", false},
        {"{\"types\":[\"*\"],\"not_types\":[\"m.room.name\"]}", "m.room.name", false},
        {"{\"not_types\":[\"m.call.*\"]}", "m.call.invite", false},
        {"{\"not_types\":[\"m.call.*\"]}", "m.calls", true},
    };
    struct arena *arena = arena_new();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct sync_event_filter filter = events(arena, cases[i].filter);
        assert_int_equal(
            sync_filter_takes_event(&filter, slice_of(cases[i].type), LIT("@u:hs"), NULL),
            cases[i].takes);
    }
    arena_free(&arena);
}

static void senders_urls_and_rooms_are_judged(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct json with;
    struct json without;
    assert_int_equal(json_parse(arena, LIT("{\"url\":\"mxc://a/b\"}"), &with).code, 0);
    assert_int_equal(json_parse(arena, LIT("{}"), &without).code, 0);
    struct sync_event_filter filter = events(
        arena, "{\"senders\":[\"@a:h\",\"@b:h\"],\"not_senders\":[\"@b:h\"],\"contains_url\":true,"
               "\"rooms\":[\"!r:h\",\"!s:h\"],\"not_rooms\":[\"!s:h\"]}");
    assert_true(sync_filter_takes_event(&filter, LIT("x"), LIT("@a:h"), &with));
    assert_false(sync_filter_takes_event(&filter, LIT("x"), LIT("@a:h"), &without));
    assert_false(sync_filter_takes_event(&filter, LIT("x"), LIT("@b:h"), &with));
    assert_false(sync_filter_takes_event(&filter, LIT("x"), LIT("@c:h"), &with));
    assert_true(sync_filter_takes_room(&filter, LIT("!r:h")));
    assert_false(sync_filter_takes_room(&filter, LIT("!s:h")));
    assert_false(sync_filter_takes_room(&filter, LIT("!t:h")));
    arena_free(&arena);
}

static void limits_are_bounded_and_flags_kept(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct sync_filter filter;
    struct slice text =
        LIT("{\"room\":{\"timeline\":{\"limit\":900000,\"unread_thread_notifications"
            "\":true},\"state\":{\"lazy_load_members\":true},\"include_leave\":true}"
            ",\"event_format\":\"federation\"}");
    assert_int_equal(sync_filter_parse_text(arena, text, &filter).code, 0);
    assert_int_equal(filter.room_timeline.limit, SYNC_TIMELINE_MAX);
    assert_true(filter.room_timeline.unread_thread_notifications);
    assert_true(filter.room_state.lazy_load_members);
    assert_true(filter.include_leave);
    assert_true(filter.federation_format);
    assert_true(filter.presence.takes_all);
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filters_of_wrong_form_are_refused),
        cmocka_unit_test(relations_are_matched_by_their_kind),
        cmocka_unit_test(types_match_with_wildcards_and_exclusion_wins),
        cmocka_unit_test(senders_urls_and_rooms_are_judged),
        cmocka_unit_test(limits_are_bounded_and_flags_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
