/* The authorisation rules, one case each, from tests/vectors/auth_rules.json. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "homeserver/room/auth.h"

enum { STATE_MAX = 8 };

struct room {
    struct arena *arena;
    const struct room_rules *rules;
    struct event state[STATE_MAX];
    size_t count;
};

static struct slice text_or(const struct json *object, struct slice key, struct slice fallback)
{
    struct slice text = json_get_string(object, key);
    return text.ptr ? text : fallback;
}

static struct slice room_name(const struct room_rules *rules)
{
    return rules->hash_room_id ? LIT("!create") : LIT("!r:h");
}

static const struct json *copy(struct arena *arena, struct json value)
{
    struct json *kept = arena_alloc(arena, sizeof *kept);
    *kept = value;
    return kept;
}

/* The content of a row: given, or built from the short forms M, PL and JR. */
static struct json content_of(struct arena *arena, const struct json *row)
{
    const struct json *given = json_get_object(row, LIT("content"));
    struct json content = given ? json_without(arena, given, NULL, 0) : json_object();
    if (json_get(row, LIT("M"))) {
        json_set(arena, &content, LIT("membership"), *json_get(row, LIT("is")));
    } else if (json_get(row, LIT("JR"))) {
        json_set(arena, &content, LIT("join_rule"), *json_get(row, LIT("JR")));
    } else if (json_get(row, LIT("PL"))) {
        content = *json_get(row, LIT("PL"));
    }
    return content;
}

static void fill_type(const struct json *row, struct event *event)
{
    event->has_state_key = true;
    event->state_key = LIT("");
    if (json_get(row, LIT("M"))) {
        event->type = LIT("m.room.member");
        event->state_key = json_get_string(row, LIT("M"));
    } else if (json_get(row, LIT("JR"))) {
        event->type = LIT("m.room.join_rules");
    } else if (json_get(row, LIT("PL"))) {
        event->type = LIT("m.room.power_levels");
    } else {
        event->type = json_get_string(row, LIT("type"));
        event->has_state_key = json_get(row, LIT("state_key")) != NULL;
        event->state_key = json_get_string(row, LIT("state_key"));
    }
}

static struct event event_of(struct room *room, const struct json *row)
{
    const struct json *prev = json_get_array(row, LIT("prev"));
    size_t count = prev ? prev->count : 0;
    struct event_id *ids = arena_array(room->arena, count, sizeof *ids);
    for (size_t i = 0; i < count; i++) {
        ids[i] = ids_trust_event(prev->items[i].text);
    }
    struct event event = {
        .rules = room->rules,
        .content = copy(room->arena, content_of(room->arena, row)),
        .id = ids_trust_event(text_or(row, LIT("id"), LIT("$event:h"))),
        .room_id = ids_trust_room(text_or(row, LIT("room"), room_name(room->rules))),
        .sender = ids_trust_user(text_or(row, LIT("sender"), LIT("@c:h"))),
        .redacts = ids_trust_event(json_get_string(row, LIT("redacts"))),
        .prev_events = ids,
        .prev_event_count = count,
    };
    fill_type(row, &event);
    return event;
}

static void add_state(struct room *room, const char *text)
{
    struct json row;
    assert_int_equal(json_parse(room->arena, slice_of(text), &row).code, 0);
    room->state[room->count++] = event_of(room, &row);
}

static struct room room_of(struct arena *arena, const struct room_rules *rules,
                           const struct json *test)
{
    struct room room = {.arena = arena, .rules = rules};
    const struct json *state = json_get_array(test, LIT("state"));
    add_state(&room, "{\"type\":\"m.room.create\",\"state_key\":\"\",\"id\":\"$create\","
                     "\"content\":{\"creator\":\"@c:h\"}}");
    const struct json *more = json_get_object(test, LIT("create"));
    struct json content = json_without(arena, room.state[0].content, NULL, 0);
    for (uint32_t i = 0; more && i < more->count; i++) {
        json_set(arena, &content, more->members[i].key, more->members[i].value);
    }
    room.state[0].content = copy(arena, content);
    if (!json_get_bool(test, LIT("bare"), false)) {
        add_state(&room, "{\"M\":\"@c:h\",\"is\":\"join\"}");
    }
    for (uint32_t i = 0; state && i < state->count; i++) {
        room.state[room.count++] = event_of(&room, &state->items[i]);
    }
    return room;
}

static const struct event *lookup(void *arg, struct slice type, struct slice state_key)
{
    struct room *room = arg;
    for (size_t i = 0; i < room->count; i++) {
        if (event_is(&room->state[i], type, state_key)) {
            return &room->state[i];
        }
    }
    return NULL;
}

static void run_case(struct arena *arena, const struct json *test)
{
    struct slice name = json_get_string(test, LIT("name"));
    const struct json *expect = json_get_object(test, LIT("expect"));
    for (uint32_t i = 0; i < expect->count; i++) {
        const struct room_rules *rules = room_rules_get(expect->members[i].key);
        struct room room = room_of(arena, rules, test);
        struct event event = event_of(&room, json_get(test, LIT("event")));
        struct auth_input input = {.arena = arena,
                                   .event = &event,
                                   .create = &room.state[0],
                                   .state = lookup,
                                   .state_arg = &room};
        struct auth_verdict verdict = auth_check_event(&input);
        struct slice want = expect->members[i].value.text;
        if (verdict.allowed != (want.len == 0) || !slice_eq(slice_of(verdict.rule), want)) {
            fail_msg("%.*s, version %.*s: have '%s' (%s), want '%.*s'", (int)name.len, name.ptr,
                     (int)rules->version.len, rules->version.ptr, verdict.rule,
                     verdict.text ? verdict.text : "allowed", (int)want.len, want.ptr);
        }
    }
}

/* Synapse CVE-2022-31152. */
static void each_rule_refuses_by_its_number(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct json file;
    FILE *in = fopen(TEST_DATA_DIR "/auth_rules.json", "rb");
    assert_non_null(in);
    char *text = arena_alloc(arena, 1 << 18);
    size_t len = fread(text, 1, 1 << 18, in);
    fclose(in);
    assert_int_equal(json_parse(arena, (struct slice){text, len}, &file).code, 0);
    const struct json *cases = json_get_array(&file, LIT("cases"));
    assert_true(cases->count > 80);
    for (uint32_t i = 0; i < cases->count; i++) {
        run_case(arena, &cases->items[i]);
    }
    arena_free(&arena);
}

static struct event cited_event(const struct room_rules *rules, struct slice type,
                                struct slice state_key)
{
    return (struct event){.rules = rules,
                          .type = type,
                          .state_key = state_key,
                          .has_state_key = true,
                          .room_id = ids_trust_room(LIT("!r:h"))};
}

static void check_cited(const struct event *event, struct event *cited, size_t count,
                        const char *want)
{
    const struct event *list[4];
    for (size_t i = 0; i < count; i++) {
        list[i] = &cited[i];
    }
    struct auth_verdict verdict = auth_check_auth_events(event, list, count);
    assert_string_equal(verdict.rule, want);
    assert_int_equal(verdict.allowed, want[0] == 0);
}

static void auth_events_are_checked_as_a_set(void **state)
{
    (void)state;
    const struct room_rules *rules = room_rules_get(LIT("11"));
    struct json content = json_object();
    struct event event = {.rules = rules,
                          .type = LIT("m.room.message"),
                          .sender = ids_trust_user(LIT("@u:h")),
                          .room_id = ids_trust_room(LIT("!r:h")),
                          .content = &content};
    struct event cited[] = {cited_event(rules, LIT("m.room.create"), LIT("")),
                            cited_event(rules, LIT("m.room.member"), LIT("@u:h")),
                            cited_event(rules, LIT("m.room.member"), LIT("@u:h"))};
    check_cited(&event, cited, 2, "");
    check_cited(&event, cited, 3, "2.1");
    check_cited(&event, cited + 1, 1, "2.4");
    cited[2] = cited_event(rules, LIT("m.room.member"), LIT("@other:h"));
    check_cited(&event, cited, 3, "2.2");
    cited[1].rejected = true;
    check_cited(&event, cited, 2, "2.3");
    cited[1].rejected = false;
    cited[1].room_id = ids_trust_room(LIT("!other:h"));
    check_cited(&event, cited, 2, "2.5");
    event.rules = room_rules_get(LIT("12"));
    check_cited(&event, cited, 1, "3.2");
    check_cited(&event, cited, 0, "");
}

static void selection_follows_type_and_membership(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct auth_key keys[AUTH_EVENTS_MAX];
    struct json content;
    assert_int_equal(json_parse(arena,
                                LIT("{\"membership\":\"join\","
                                    "\"join_authorised_via_users_server\":\"@v:h\"}"),
                                &content)
                         .code,
                     0);
    struct event event = {.rules = room_rules_get(LIT("10")),
                          .type = LIT("m.room.member"),
                          .sender = ids_trust_user(LIT("@u:h")),
                          .state_key = LIT("@u:h"),
                          .has_state_key = true,
                          .content = &content};
    assert_int_equal(auth_events_select(&event, keys), 5); /* create, levels, own, rules, voucher */
    event.rules = room_rules_get(LIT("7"));
    assert_int_equal(auth_events_select(&event, keys), 4);
    event.rules = room_rules_get(LIT("12"));
    assert_int_equal(auth_events_select(&event, keys), 4);
    event.type = LIT("m.room.create");
    assert_int_equal(auth_events_select(&event, keys), 0);
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rule_refuses_by_its_number),
        cmocka_unit_test(auth_events_are_checked_as_a_set),
        cmocka_unit_test(selection_follows_type_and_membership),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
