/* What other servers get of a room's history. */
#include "federation/inbound.h"
#include "tests/support/inbound_fixture.h"

#include <stdio.h>
#include <string.h>

static const char *target(const char *format, struct slice a, struct slice b)
{
    return arena_printf(w->house.ctx.arena, format, (int)a.len, a.ptr, (int)b.len, b.ptr).ptr;
}

static struct slice room_id(void)
{
    return hs_room_info(w->room).room_id;
}

static struct err get(struct slice server, const char *format, struct slice event_id,
                      struct json *answer)
{
    return inbound_get(w, server, target(format, room_id(), event_id), answer);
}

static const struct json *list_of(const struct json *answer, const char *name)
{
    const struct json *list = json_get_array(answer, slice_of(name));
    assert_non_null(list);
    return list;
}

static bool holds(const struct json *list, struct slice type)
{
    bool found = false;
    for (uint32_t i = 0; i < list->count && !found; i++) {
        found = json_is_string(json_get(&list->items[i], LIT("type")), type);
    }
    return found;
}

static void backfill_gives_the_newest_first(void **state)
{
    struct json answer;
    (void)state;
    house_say(&w->house, w->room, &w->alice, "1");
    struct slice second = house_say(&w->house, w->room, &w->alice, "2");
    assert_int_equal(get(w->remote.name, "backfill/%.*s?limit=2&v=%.*s", second, &answer).code, 0);
    const struct json *pdus = list_of(&answer, "pdus");
    assert_int_equal(pdus->count, 2);
    const struct json *content = json_get_object(&pdus->items[0], LIT("content"));
    assert_true(json_is_string(json_get(content, LIT("body")), LIT("2")));
    assert_int_equal(get(w->remote.name, "backfill/%.*s?v=%.*s", second, &answer).code,
                     ERR_M_MISSING_PARAM);
}

static void missing_events_come_oldest_first(void **state)
{
    struct json answer;
    (void)state;
    struct slice first = house_say(&w->house, w->room, &w->alice, "1");
    house_say(&w->house, w->room, &w->alice, "2");
    house_say(&w->house, w->room, &w->alice, "3");
    struct slice last = house_say(&w->house, w->room, &w->alice, "4");
    const char *body =
        target("{\"earliest_events\":[\"%.*s\"],\"latest_events\":[\"%.*s\"]}", first, last);
    const char *path = target("get_missing_events/%.*s%.*s", room_id(), LIT(""));
    assert_int_equal(inbound_post(w, w->remote.name, path, body, &answer).code, 0);
    const struct json *events = list_of(&answer, "events");
    assert_int_equal(events->count, 2);
    const struct json *content = json_get_object(&events->items[0], LIT("content"));
    assert_true(json_is_string(json_get(content, LIT("body")), LIT("2")));
    assert_int_equal(
        inbound_post(w, w->remote.name, path, "{\"earliest_events\":[]}", &answer).code,
        ERR_M_BAD_JSON);
}

/* Synapse CVE-2018-12291, CVE-2022-39335. */
static void strangers_get_nothing_that_is_not_for_everybody(void **state)
{
    struct json answer;
    struct slice stranger = LIT("stranger");
    static const char *const targets[] = {"event_auth/%.*s/%.*s", "state/%.*s?event_id=%.*s",
                                          "state_ids/%.*s?event_id=%.*s"};
    (void)state;
    struct slice event = house_say(&w->house, w->room, &w->alice, "secret");
    for (size_t i = 0; i < COUNT_OF(targets); i++) {
        assert_int_equal(get(stranger, targets[i], event, &answer).code, ERR_M_FORBIDDEN);
    }
    assert_int_equal(
        inbound_get(w, stranger, target("event/%.*s%.*s", event, LIT("")), &answer).code,
        ERR_M_FORBIDDEN);
    assert_int_equal(get(stranger, "backfill/%.*s?limit=9&v=%.*s", event, &answer).code, 0);
    assert_int_equal(list_of(&answer, "pdus")->count, 0);
    assert_int_equal(get(stranger, "timestamp_to_event/%.*s?dir=f&ts=0%.*s", LIT(""), &answer).code,
                     ERR_M_FORBIDDEN);
}

static void servers_that_the_room_keeps_out_get_nothing(void **state)
{
    struct json answer;
    (void)state;
    struct slice event = house_say(&w->house, w->room, &w->alice, "1");
    size_t acl =
        inbound_make(w, "m.room.server_acl", "", "{\"allow\":[\"*\"],\"deny\":[\"remote\"]}");
    inbound_send(w, &acl, 1);
    static const char *const targets[] = {"event_auth/%.*s/%.*s", "state/%.*s?event_id=%.*s",
                                          "state_ids/%.*s?event_id=%.*s",
                                          "backfill/%.*s?limit=9&v=%.*s"};
    for (size_t i = 0; i < COUNT_OF(targets); i++) {
        assert_int_equal(get(w->remote.name, targets[i], event, &answer).code, ERR_M_FORBIDDEN);
    }
}

static void what_a_server_may_not_see_comes_redacted(void **state)
{
    struct json answer;
    (void)state;
    struct room *room = house_room(&w->house, &w->alice, "{\"preset\":\"public_chat\"}");
    house_state(&w->house, room, &w->alice, "m.room.history_visibility",
                "{\"history_visibility\":\"joined\"}");
    struct slice event = house_say(&w->house, room, &w->alice, "before they came");
    struct slice id = hs_room_info(room).room_id;
    /* A stranger to it: nothing; the server of a member: all. */
    assert_int_equal(
        inbound_get(w, w->remote.name, target("backfill/%.*s?limit=1&v=%.*s", id, event), &answer)
            .code,
        0);
    assert_int_equal(list_of(&answer, "pdus")->count, 0);
    struct server_view view;
    struct stored_event stored;
    struct slice json;
    bool found = false;
    assert_int_equal(server_view_init(&view, &w->house.hs, &w->house.ctx, room, LIT("other")).code,
                     0);
    view.is_resident = true; /* came later */
    assert_int_equal(hs_event_find(&w->house.hs, &w->house.ctx, room, event, &stored, &found).code,
                     0);
    assert_int_equal(server_view_event(&view, &w->house.ctx, &stored, &json).code, 0);
    assert_false(slice_contains(json, LIT("before they came")));
    assert_int_equal(server_view_init(&view, &w->house.hs, &w->house.ctx, room, LIT("test")).code,
                     0);
    assert_int_equal(server_view_event(&view, &w->house.ctx, &stored, &json).code, 0);
    assert_true(slice_contains(json, LIT("before they came")));
}

static void state_is_that_before_the_event(void **state)
{
    struct json answer;
    (void)state;
    size_t made = inbound_make(w, "m.room.topic", "", "{\"topic\":\"1\"}");
    inbound_send(w, &made, 1);
    struct slice topic = peer_get(&w->theirs, made)->id.s;
    struct slice next = house_say(&w->house, w->room, &w->alice, "1");
    assert_int_equal(get(w->remote.name, "state/%.*s?event_id=%.*s", topic, &answer).code, 0);
    assert_false(holds(list_of(&answer, "pdus"), LIT("m.room.topic")));
    assert_int_equal(get(w->remote.name, "state/%.*s?event_id=%.*s", next, &answer).code, 0);
    assert_true(holds(list_of(&answer, "pdus"), LIT("m.room.topic")));
    assert_true(holds(list_of(&answer, "auth_chain"), LIT("m.room.create")));
    uint32_t events = list_of(&answer, "pdus")->count;
    assert_int_equal(get(w->remote.name, "state_ids/%.*s?event_id=%.*s", next, &answer).code, 0);
    assert_int_equal(list_of(&answer, "pdu_ids")->count, events);
    assert_int_equal(get(w->remote.name, "state_ids/%.*s?other=%.*s", next, &answer).code,
                     ERR_M_MISSING_PARAM);
    assert_int_equal(get(w->remote.name, "state_ids/%.*s?event_id=%.*s", LIT("$x"), &answer).code,
                     ERR_M_NOT_FOUND);
}

/* Too large for memory: the answer is a file. */
static void a_large_state_is_whole(void **state)
{
    struct json answer;
    struct arena *arena = w->house.conf_arena;
    char *filler = arena_alloc(arena, 60000);
    (void)state;
    memset(filler, 'x', 59999);
    for (int i = 0; i < 25; i++) {
        const char *key = arena_printf(arena, "key%d", i).ptr;
        const char *content = arena_printf(arena, "{\"a\":\"%s\"}", filler).ptr;
        size_t made = inbound_make(w, "org.example.large", key, content);
        inbound_send(w, &made, 1);
    }
    struct slice event = house_say(&w->house, w->room, &w->alice, "after it");
    assert_int_equal(get(w->remote.name, "state/%.*s?event_id=%.*s", event, &answer).code, 0);
    assert_true(w->was_file);
    assert_true(list_of(&answer, "pdus")->count > 25);
    assert_true(holds(list_of(&answer, "auth_chain"), LIT("m.room.create")));
}

static void state_at_an_outlier_is_not_known(void **state)
{
    struct json answer;
    (void)state;
    struct slice create = peer_get(&w->theirs, 0)->id.s;
    assert_int_equal(get(w->remote.name, "state_ids/%.*s?event_id=%.*s", create, &answer).code,
                     ERR_M_NOT_FOUND);
    assert_int_equal(
        inbound_get(w, w->remote.name, target("event/%.*s%.*s", create, LIT("")), &answer).code, 0);
}

static void an_auth_chain_holds_nothing_else(void **state)
{
    struct json answer;
    (void)state;
    const struct event *joined = peer_get(&w->theirs, w->joined);
    assert_int_equal(get(w->remote.name, "event_auth/%.*s/%.*s", joined->id.s, &answer).code, 0);
    const struct json *chain = list_of(&answer, "auth_chain");
    assert_false(holds(chain, LIT("m.room.history_visibility")));
    assert_true(holds(chain, LIT("m.room.create")));
    assert_true(holds(chain, LIT("m.room.join_rules")));
}

static void events_of_another_room_are_not_given(void **state)
{
    struct json answer;
    (void)state;
    struct room *other = house_room(&w->house, &w->alice, "{}");
    struct slice secret = house_say(&w->house, other, &w->alice, "secret");
    assert_int_equal(get(w->remote.name, "backfill/%.*s?limit=5&v=%.*s", secret, &answer).code, 0);
    assert_int_equal(list_of(&answer, "pdus")->count, 0);
    assert_int_equal(get(w->remote.name, "state/%.*s?event_id=%.*s", secret, &answer).code,
                     ERR_M_NOT_FOUND);
    assert_int_equal(get(w->remote.name, "event_auth/%.*s/%.*s", secret, &answer).code,
                     ERR_M_NOT_FOUND);
}

static void rejected_events_are_given_to_nobody(void **state)
{
    struct json answer;
    (void)state;
    struct peer_draft draft = {.peer = &w->remote,
                               .sender = peer_user(w->house.conf_arena, &w->remote, "mallory"),
                               .type = "m.room.message",
                               .content = "{\"body\":\"not in the room\"}"};
    size_t event = peer_make(&w->theirs, &draft);
    inbound_send(w, &event, 1);
    struct slice id = peer_get(&w->theirs, event)->id.s;
    assert_int_equal(
        inbound_get(w, w->remote.name, target("event/%.*s%.*s", id, LIT("")), &answer).code,
        ERR_M_NOT_FOUND);
    assert_int_equal(get(w->remote.name, "state_ids/%.*s?event_id=%.*s", id, &answer).code,
                     ERR_M_NOT_FOUND);
    assert_int_equal(get(w->remote.name, "backfill/%.*s?limit=1&v=%.*s", id, &answer).code, 0);
    const struct json *pdus = list_of(&answer, "pdus");
    assert_false(pdus->count &&
                 json_is_string(json_get(&pdus->items[0], LIT("sender")), draft.sender));
}

static void the_event_nearest_to_a_time_is_found(void **state)
{
    struct json answer;
    (void)state;
    struct slice events[5];
    int64_t start = w->house.wall_ms;
    for (int i = 0; i < 5; i++) {
        w->house.wall_ms = start + 1000 * (i + 1);
        events[i] = house_say(&w->house, w->room, &w->alice, "x");
    }
    const char *ts = arena_printf(w->house.ctx.arena, "%lld", (long long)start + 2500).ptr;
    assert_int_equal(
        get(w->remote.name, "timestamp_to_event/%.*s?dir=f&ts=%.*s", slice_of(ts), &answer).code,
        0);
    assert_true(slice_eq(json_get_string(&answer, LIT("event_id")), events[2]));
    assert_int_equal(
        get(w->remote.name, "timestamp_to_event/%.*s?dir=b&ts=%.*s", slice_of(ts), &answer).code,
        0);
    assert_true(slice_eq(json_get_string(&answer, LIT("event_id")), events[1]));
    assert_int_equal(
        get(w->remote.name, "timestamp_to_event/%.*s?dir=b&ts=0%.*s", LIT(""), &answer).code,
        ERR_M_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(backfill_gives_the_newest_first),
        WITH_WORLD(missing_events_come_oldest_first),
        WITH_WORLD(strangers_get_nothing_that_is_not_for_everybody),
        WITH_WORLD(servers_that_the_room_keeps_out_get_nothing),
        WITH_WORLD(what_a_server_may_not_see_comes_redacted),
        WITH_WORLD(state_is_that_before_the_event),
        WITH_WORLD(a_large_state_is_whole),
        WITH_WORLD(state_at_an_outlier_is_not_known),
        WITH_WORLD(an_auth_chain_holds_nothing_else),
        WITH_WORLD(events_of_another_room_are_not_given),
        WITH_WORLD(rejected_events_are_given_to_nobody),
        WITH_WORLD(the_event_nearest_to_a_time_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
