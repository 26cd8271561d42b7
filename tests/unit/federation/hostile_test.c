/* Events as an enemy would send them. Those that follow published advisories name them: they are
 * about other servers, and ask whether this one would fall for the same. */
#include "federation/receipt.h"
#include "federation/staged.h"
#include "homeserver/service/intake.h"
#include "tests/support/inbound_fixture.h"

#include <stdio.h>
#include <string.h>

static struct json tree_of(size_t event)
{
    return *event_tree(w->house.ctx.arena, peer_get(&w->theirs, event));
}

static struct json send_tree(const struct json *tree)
{
    struct arena *arena = w->house.ctx.arena;
    const char *pdu = arena_cstr(arena, json_canonical(arena, tree));
    return inbound_send_text(w, &pdu, 1);
}

/* Signed anew by the other server. */
static struct event sealed(struct json tree)
{
    struct event event;
    json_remove(&tree, LIT("hashes"));
    json_remove(&tree, LIT("signatures"));
    assert_int_equal(
        event_seal(w->house.ctx.arena, w->theirs.rules, &tree, &w->remote.signer, &event).code, 0);
    return event;
}

static bool knows(struct slice id)
{
    uint64_t room = 0;
    int64_t number = 0;
    bool found = false;
    assert_int_equal(hs_event_locate(&w->house.hs, &w->house.ctx, id, &room, &number, &found).code,
                     0);
    return found;
}

/* Synapse CVE-2018-16515, Dendrite CVE-2022-39200: signatures that say nothing. */
static void malformed_signatures_count_for_nothing(void **state)
{
    static const char *const signatures[] = {
        "{}",
        "5",
        "[]",
        "{\"remote:8448\":{}}",
        "{\"remote:8448\":{\"ed25519:1\":\"\"}}",
        "{\"remote:8448\":{\"ed25519:1\":5}}",
        "{\"remote:8448\":\"x\"}",
        "{\"remote:8448\":{\"ed25519:1\":\"AAAA\"}}",
        "{\"remote:8448\":{\"rsa:1\":\"AAAA\"}}",
        ("{\"remote:8448\":{\"ed25519:1\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
         "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}}"),
        "{\"other\":{\"ed25519:1\":\"AAAA\"}}",
    };
    struct arena *arena = w->house.ctx.arena;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(signatures); i++) {
        struct json value;
        size_t event = inbound_say(w, &w->joined, 1);
        struct json tree = tree_of(event);
        assert_int_equal(json_parse(arena, slice_of(signatures[i]), &value).code, 0);
        json_set(arena, &tree, LIT("signatures"), value);
        send_tree(&tree);
        assert_false(knows(peer_get(&w->theirs, event)->id.s));
    }
}

/* The signature of another event does not fit. */
static void a_signature_fits_one_event_alone(void **state)
{
    (void)state;
    size_t first = inbound_say(w, &w->joined, 1);
    size_t second = inbound_say(w, &w->joined, 1);
    struct json tree = tree_of(second);
    struct json other = tree_of(first);
    json_set(w->house.ctx.arena, &tree, LIT("signatures"),
             *json_get_object(&other, LIT("signatures")));
    send_tree(&tree);
    assert_false(knows(peer_get(&w->theirs, second)->id.s));
}

static bool unsigned_events(struct inbound_world *world, struct arena *arena, struct slice path,
                            struct slice *body)
{
    struct json list;
    if (!lie_with_all(world, arena, path, &list)) {
        return false;
    }
    for (uint32_t i = 0; i < list.count; i++) {
        json_set(arena, &list.items[i], LIT("signatures"), json_object());
    }
    *body = as_body(arena, "events", list);
    return true;
}

/* Dendrite CVE-2022-39200: what is fetched is checked like what is sent. */
static void fetched_events_are_checked_too(void **state)
{
    (void)state;
    size_t hidden = inbound_say(w, NULL, 0);
    size_t event = inbound_say(w, NULL, 0);
    w->lie = unsigned_events;
    inbound_send(w, &event, 1);
    assert_false(inbound_has(w, hidden));
    assert_false(inbound_has(w, event));
}

/* An event of another room under this one's name, and one that cites another room's events. */
static void rooms_do_not_mix(void **state)
{
    struct arena *arena = w->house.ctx.arena;
    (void)state;
    struct room *secret = house_room(&w->house, &w->alice, "{}");
    struct slice said = house_say(&w->house, secret, &w->alice, "secret");
    size_t event = inbound_say(w, NULL, 0);
    struct json tree = tree_of(event);
    struct json list = json_array();
    json_push(arena, &list, json_string(said));
    json_set(arena, &tree, LIT("prev_events"), list);
    struct event changed = sealed(tree);
    const char *pdu = arena_cstr(arena, changed.json);
    inbound_send_text(w, &pdu, 1);
    assert_false(knows(changed.id.s));
    tree = tree_of(event);
    json_set(arena, &tree, LIT("room_id"), json_string(hs_room_info(secret).room_id));
    changed = sealed(tree);
    pdu = arena_cstr(arena, changed.json);
    inbound_send_text(w, &pdu, 1);
    assert_false(knows(changed.id.s));
}

/* Synapse CVE-2018-10657: the greatest depth left a room unusable. */
static void after_the_greatest_depth_the_room_goes_on(void **state)
{
    (void)state;
    struct peer_draft draft = {.peer = &w->remote,
                               .sender = w->bob,
                               .type = "m.room.message",
                               .content = "{}",
                               .depth = JSON_INT_MAX};
    size_t deep = peer_make(&w->theirs, &draft);
    inbound_send(w, &deep, 1);
    assert_true(inbound_has(w, deep));
    house_say(&w->house, w->room, &w->alice, "still here");
    house_say(&w->house, w->room, &w->alice, "and here");
    size_t next = inbound_say(w, NULL, 0);
    inbound_send(w, &next, 1);
    assert_true(inbound_has(w, next));
}

/* Synapse CVE-2020-26890 and CVE-2025-30355: numbers that are none in canonical JSON. */
static void numbers_out_of_range_stay_outside(void **state)
{
    static const char *const numbers[] = {"1.5", "9007199254740992", "1e99", "-0.0", "1E2"};
    struct arena *arena = w->house.ctx.arena;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        size_t event = inbound_say(w, &w->joined, 1);
        struct json tree = tree_of(event);
        struct json content;
        const char *text = arena_printf(arena, "{\"n\":%s}", numbers[i]).ptr;
        assert_int_equal(json_parse(arena, slice_of(text), &content).code, 0);
        json_set(arena, &tree, LIT("content"), content);
        send_tree(&tree);
        assert_false(inbound_has(w, event));
        tree = tree_of(event);
        json_set(arena, &tree, LIT("depth"), *json_get(&content, LIT("n")));
        send_tree(&tree);
        assert_false(inbound_has(w, event));
    }
}

/* Any member of the wrong type, or missing. */
static void events_of_the_wrong_form_are_dropped(void **state)
{
    static const char *const members[] = {
        "auth_events",      "content", "depth",   "hashes",     "prev_events", "sender",
        "origin_server_ts", "type",    "room_id", "signatures", "state_key"};
    static const char *const values[] = {"null", "true", "5", "\"x\"", "[5]", "{\"a\":[]}"};
    struct arena *arena = w->house.ctx.arena;
    (void)state;
    size_t event = inbound_say(w, NULL, 0);
    for (size_t m = 0; m < COUNT_OF(members); m++) {
        for (size_t v = 0; v < COUNT_OF(values); v++) {
            struct json tree = tree_of(event);
            struct json value;
            assert_int_equal(json_parse(arena, slice_of(values[v]), &value).code, 0);
            json_set(arena, &tree, slice_of(members[m]), value);
            send_tree(&tree);
        }
        struct json tree = tree_of(event);
        json_remove(&tree, slice_of(members[m]));
        send_tree(&tree);
    }
    inbound_send(w, &event, 1);
    assert_true(inbound_has(w, event));
}

/* A flood of forward extremities: the room stays usable, and an event of ours cites few of them. */
/* Synapse CVE-2024-31208. */
static void a_flood_of_forks_is_brought_back_to_a_few(void **state)
{
    size_t forks[50];
    struct event_id *ends = NULL;
    size_t count = 0;
    (void)state;
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < 50; i++) {
            forks[i] = inbound_say(w, &w->joined, 1);
        }
        inbound_send(w, forks, 50);
    }
    for (int i = 0; i < 20; i++) {
        house_say(&w->house, w->room, &w->alice, "tidy");
    }
    assert_int_equal(hs_room_extremities(&w->house.hs, &w->house.ctx, w->room, &ends, &count).code,
                     0);
    assert_in_range(count, 1, 20);
}

/* --- versions 1 and 2, where the sender chooses the id --- */
static struct json referring(struct arena *arena, const char *id)
{
    struct json hash = json_object();
    struct json pair = json_array();
    struct json list = json_array();
    json_set(arena, &hash, LIT("sha256"), json_string(LIT("x")));
    json_push(arena, &pair, json_string(slice_of(id)));
    json_push(arena, &pair, hash);
    json_push(arena, &list, pair);
    return list;
}

static void an_id_cannot_be_used_twice(void **state)
{
    struct arena *arena = w->house.ctx.arena;
    struct stored_event stored;
    bool found = false;
    (void)state;
    size_t event = inbound_say(w, NULL, 0);
    inbound_send(w, &event, 1);
    struct json tree = tree_of(event);
    struct json content = json_object();
    json_set(arena, &content, LIT("body"), json_string(LIT("another")));
    json_set(arena, &tree, LIT("content"), content);
    struct event changed = sealed(tree);
    assert_true(ids_event_eq(changed.id, peer_get(&w->theirs, event)->id));
    const char *pdu = arena_cstr(arena, changed.json);
    inbound_send_text(w, &pdu, 1);
    assert_int_equal(
        hs_event_find(&w->house.hs, &w->house.ctx, w->room, changed.id.s, &stored, &found).code, 0);
    assert_true(found);
    assert_false(slice_contains(stored.event.json, LIT("another")));
}

static bool cycle(struct inbound_world *world, struct arena *arena, struct slice path,
                  struct slice *body)
{
    struct json list = json_array();
    struct json object = json_object();
    struct event event;
    static const char *const ids[] = {"$one:remote:8448", "$two:remote:8448"};
    if (!slice_contains(path, LIT("/get_missing_events/"))) {
        *body = (struct slice){0};
        return true;
    }
    for (size_t i = 0; i < 2; i++) {
        struct json tree = *event_tree(arena, peer_get(&world->theirs, world->joined + 1));
        json_set(arena, &tree, LIT("event_id"), json_string(slice_of(ids[i])));
        json_set(arena, &tree, LIT("prev_events"), referring(arena, ids[1 - i]));
        json_remove(&tree, LIT("hashes"));
        json_remove(&tree, LIT("signatures"));
        ASSERT(event_seal(arena, world->theirs.rules, &tree, &world->remote.signer, &event).code ==
               0);
        json_push(arena, &list, *event_tree(arena, &event));
    }
    json_set(arena, &object, LIT("events"), list);
    *body = json_canonical(arena, &object);
    return true;
}

static void a_cycle_comes_to_an_end(void **state)
{
    struct arena *arena = w->house.ctx.arena;
    (void)state;
    size_t event = inbound_say(w, NULL, 0);
    struct json tree = tree_of(event);
    json_set(arena, &tree, LIT("event_id"), json_string(LIT("$last:remote:8448")));
    json_set(arena, &tree, LIT("prev_events"), referring(arena, "$one:remote:8448"));
    struct event last = sealed(tree);
    w->lie = cycle;
    const char *pdu = arena_cstr(arena, last.json);
    inbound_send_text(w, &pdu, 1);
    assert_false(knows(LIT("$one:remote:8448")));
    assert_false(knows(LIT("$last:remote:8448")));
    assert_true(w->asked_count < 50);
    tree = tree_of(event); /* one that cites itself */
    json_set(arena, &tree, LIT("event_id"), json_string(LIT("$self:remote:8448")));
    json_set(arena, &tree, LIT("prev_events"), referring(arena, "$self:remote:8448"));
    last = sealed(tree);
    pdu = arena_cstr(arena, last.json);
    inbound_send_text(w, &pdu, 1);
    assert_false(knows(LIT("$self:remote:8448")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(malformed_signatures_count_for_nothing),
        WITH_WORLD(a_signature_fits_one_event_alone),
        WITH_WORLD(fetched_events_are_checked_too),
        WITH_WORLD(rooms_do_not_mix),
        WITH_WORLD(after_the_greatest_depth_the_room_goes_on),
        WITH_WORLD(numbers_out_of_range_stay_outside),
        WITH_WORLD(events_of_the_wrong_form_are_dropped),
        WITH_WORLD(a_flood_of_forks_is_brought_back_to_a_few),
        WITH_VERSION(an_id_cannot_be_used_twice, 1),
        WITH_VERSION(a_cycle_comes_to_an_end, 1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
