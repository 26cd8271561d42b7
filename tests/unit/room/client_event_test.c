#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "homeserver/room/client_event.h"
#include "homeserver/room/property_path.h"

struct fixture {
    struct arena *arena;
    struct buf buf;
    struct json_out out;
};

static int set_up(void **state)
{
    static struct fixture f;
    f.arena = arena_new();
    buf_init_arena(&f.buf, f.arena, 1 << 20);
    f.out = json_out_to(&f.buf);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    arena_free(&f->arena);
    return 0;
}

static struct event stored(struct fixture *f, const char *version, const char *json)
{
    struct event event;
    struct err err = event_scan_stored(f->arena, room_rules_get(slice_of(version)), slice_of(json),
                                       ids_trust_event(LIT("$e")), &event);
    assert_int_equal(err.code, 0);
    return event;
}

static void assert_written(struct fixture *f, const char *want)
{
    struct slice have = buf_slice(&f->buf);
    if (!slice_eq(have, slice_of(want))) {
        fail_msg("have %.*s\nwant %s", (int)have.len, have.ptr, want);
    }
}

#define EVENT(content, more)                                                                       \
    "{\"auth_events\":[],\"content\":" content ",\"depth\":1,\"hashes\":{},"                       \
    "\"origin_server_ts\":5,\"prev_events\":[]," more "\"room_id\":\"!r:h\",\"sender\":\"@u:h\","  \
    "\"signatures\":{},"

static void keys_of_federation_stay_out(void **state)
{
    struct fixture *f = *state;
    struct event event =
        stored(f, "11", EVENT("{\"a\":\"\\\"\"}", "") "\"state_key\":\"k\",\"type\":\"t\"}");
    const struct client_event_options options = {.unsigned_json = LIT("{\"age\":1}")};
    client_event_write(f->arena, &f->out, &event, &options);
    assert_written(f, "{\"content\":{\"a\":\"\\\"\"},\"event_id\":\"$e\",\"origin_server_ts\":5,"
                      "\"room_id\":\"!r:h\",\"sender\":\"@u:h\",\"state_key\":\"k\","
                      "\"type\":\"t\",\"unsigned\":{\"age\":1}}");
}

static void sync_leaves_the_room_out(void **state)
{
    struct fixture *f = *state;
    struct event event = stored(f, "11", EVENT("{}", "") "\"type\":\"t\"}");
    const struct client_event_options options = {.room_id = CLIENT_EVENT_WITHOUT_ROOM_ID};
    client_event_write(f->arena, &f->out, &event, &options);
    assert_written(f, "{\"content\":{},\"event_id\":\"$e\",\"origin_server_ts\":5,"
                      "\"sender\":\"@u:h\",\"type\":\"t\"}");
}

static void redacts_stands_in_both_places(void **state)
{
    struct fixture *f = *state;
    const struct client_event_options options = {.room_id = CLIENT_EVENT_WITHOUT_ROOM_ID};
    struct event event =
        stored(f, "10",
               EVENT("{\"reason\":\"r\"}", "\"redacts\":\"$t\",") "\"type\":\"m.room.redaction\"}");
    client_event_write(f->arena, &f->out, &event, &options);
    assert_written(f, "{\"content\":{\"reason\":\"r\",\"redacts\":\"$t\"},\"event_id\":\"$e\","
                      "\"origin_server_ts\":5,\"redacts\":\"$t\",\"sender\":\"@u:h\","
                      "\"type\":\"m.room.redaction\"}");
    buf_clear(&f->buf);
    f->out = json_out_to(&f->buf);
    event = stored(f, "11", EVENT("{\"redacts\":\"$t\"}", "") "\"type\":\"m.room.redaction\"}");
    client_event_write(f->arena, &f->out, &event, &options);
    assert_written(f, "{\"content\":{\"redacts\":\"$t\"},\"event_id\":\"$e\","
                      "\"origin_server_ts\":5,\"redacts\":\"$t\",\"sender\":\"@u:h\","
                      "\"type\":\"m.room.redaction\"}");
}

static void fields_are_picked_by_path(void **state)
{
    struct fixture *f = *state;
    const struct slice fields[] = {LIT("content.body"), LIT("type"), LIT("content.a\\.b"),
                                   LIT("missing.x"), LIT("sender.x")};
    const struct client_event_options options = {.fields = fields, .field_count = 5};
    struct event event = stored(
        f, "11", EVENT("{\"a.b\":{\"c\":1},\"body\":\"x\",\"other\":1}", "") "\"type\":\"t\"}");
    client_event_write(f->arena, &f->out, &event, &options);
    assert_written(f, "{\"content\":{\"a.b\":{\"c\":1},\"body\":\"x\"},\"type\":\"t\"}");
}

static void stripped_state_has_four_members(void **state)
{
    struct fixture *f = *state;
    struct event event = stored(f, "11", EVENT("{}", "") "\"state_key\":\"\",\"type\":\"t\"}");
    client_event_write_stripped(&f->out, &event);
    assert_written(f, "{\"content\":{},\"sender\":\"@u:h\",\"state_key\":\"\",\"type\":\"t\"}");
}

static void odd_stripped_state_is_left_out(void **state)
{
    struct fixture *f = *state;
    static const char *const rows[] = {
        "{\"content\":5,\"sender\":\"@u:h\",\"state_key\":\"\",\"type\":\"t\"}",
        "{\"content\":{},\"sender\":\"u\",\"state_key\":\"\",\"type\":\"t\"}",
        "{\"content\":{},\"sender\":\"@u:h\",\"type\":\"t\"}",
        "5",
    };
    struct json tree;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        assert_int_equal(json_parse(f->arena, slice_of(rows[i]), &tree).code, 0);
        assert_false(client_event_write_stripped_tree(&f->out, &tree));
    }
    assert_int_equal(
        json_parse(f->arena,
                   LIT("{\"content\":{},\"extra\":1,\"sender\":\"@u:h\",\"state_key\":\"\","
                       "\"type\":\"t\"}"),
                   &tree)
            .code,
        0);
    assert_true(client_event_write_stripped_tree(&f->out, &tree));
    assert_written(f, "{\"content\":{},\"sender\":\"@u:h\",\"state_key\":\"\",\"type\":\"t\"}");
}

static void paths_unescape_dots_and_backslashes(void **state)
{
    struct fixture *f = *state;
    struct property_path path = property_path_parse(f->arena, LIT("a\\.b.c\\\\d.\\x."));
    assert_int_equal(path.count, 4);
    assert_true(slice_eq(path.names[0], LIT("a.b")));
    assert_true(slice_eq(path.names[1], LIT("c\\d")));
    assert_true(slice_eq(path.names[2], LIT("\\x")));
    assert_int_equal(path.names[3].len, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(keys_of_federation_stay_out),         TEST(sync_leaves_the_room_out),
        TEST(redacts_stands_in_both_places),       TEST(fields_are_picked_by_path),
        TEST(stripped_state_has_four_members),     TEST(odd_stripped_state_is_left_out),
        TEST(paths_unescape_dots_and_backslashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
