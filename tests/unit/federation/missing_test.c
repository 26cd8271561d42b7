/* Events whose past is not here: what is asked for, what is believed, and what is not. */
#include "federation/staged.h"
#include "tests/support/inbound_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

static void say_many(size_t *events, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        events[i] = inbound_say(w, NULL, 0);
    }
}

static int64_t number_of(size_t at)
{
    struct stored_event stored = {0};
    bool found = false;
    assert_int_equal(
        hs_event_find(&w->house.hs, &w->house.ctx, w->room, id_of(at), &stored, &found).code, 0);
    assert_true(found);
    return stored.number;
}

static uint32_t flags_of(size_t at)
{
    struct stored_event stored = {0};
    bool found = false;
    assert_int_equal(
        hs_event_find(&w->house.hs, &w->house.ctx, w->room, id_of(at), &stored, &found).code, 0);
    return found ? stored.flags : UINT32_MAX;
}

static void a_small_gap_is_closed_without_asking_for_state(void **state)
{
    size_t events[6];
    (void)state;
    say_many(events, 6);
    struct json results = inbound_send(w, &events[5], 1);
    assert_null(inbound_error(&results, id_of(events[5])).ptr);
    for (size_t i = 0; i < 6; i++) {
        assert_true(inbound_has(w, events[i]));
        assert_true(i == 0 || number_of(events[i]) > number_of(events[i - 1]));
        assert_int_equal(flags_of(events[i]) & EVENT_AFTER_GAP, 0);
    }
    assert_int_equal(inbound_asked(w, "/get_missing_events/"), 1);
    assert_int_equal(inbound_asked(w, "/state"), 0);
    assert_int_equal(staged_count(w->fed->staged), 0);
}

static void a_wide_gap_is_bridged_by_the_state_at_it(void **state)
{
    size_t events[40];
    (void)state;
    inbound_make(w, "m.room.topic", "", "{\"topic\":\"in the gap\"}");
    say_many(events, 40);
    inbound_send(w, &events[39], 1);
    assert_true(inbound_has(w, events[39]));
    assert_true(inbound_has(w, events[38]));
    assert_false(inbound_has(w, events[0]));
    assert_int_equal(inbound_asked(w, "/get_missing_events/"), 1);
    assert_int_equal(inbound_asked(w, "/state_ids/"), 1);
    struct stored_event topic;
    bool found = false;
    assert_int_equal(hs_state_event(&w->house.hs, &w->house.ctx, w->room,
                                    hs_room_head(w->room).root, LIT("m.room.topic"), LIT(""),
                                    &topic, &found)
                         .code,
                     0);
    assert_true(found);
}

/* Spec: who sends an event must be able to give what it cites. */
static bool give_nothing(struct inbound_world *world, struct arena *arena, struct slice path,
                         struct slice *body)
{
    (void)world;
    (void)arena;
    *body = LIT("{\"events\":[]}");
    return slice_contains(path, LIT("/get_missing_events/"));
}

static void an_event_whose_sender_hides_its_past_gets_no_state(void **state)
{
    size_t events[3];
    (void)state;
    say_many(events, 3);
    w->lie = give_nothing;
    inbound_send(w, &events[2], 1);
    assert_false(inbound_has(w, events[2]));
    assert_int_equal(inbound_asked(w, "/state"), 0);
    assert_int_equal(staged_count(w->fed->staged), 0);
    w->lie = NULL; /* and is taken when it comes again */
    inbound_send(w, &events[2], 1);
    assert_true(inbound_has(w, events[2]));
}

static void it_gets_in_when_its_past_comes(void **state)
{
    size_t events[3];
    (void)state;
    say_many(events, 3);
    w->is_down = true;
    inbound_send(w, &events[2], 1);
    inbound_send(w, &events[1], 1);
    size_t asked = w->asked_count;
    inbound_send(w, &events[0], 1);
    assert_true(inbound_has(w, events[0]));
    assert_true(inbound_has(w, events[1]));
    assert_true(inbound_has(w, events[2]));
    assert_int_equal(w->asked_count, asked);
    assert_int_equal(staged_count(w->fed->staged), 0);
}

static void waiting_events_survive_a_restart(void **state)
{
    size_t events[3];
    (void)state;
    say_many(events, 3);
    w->is_down = true;
    inbound_send(w, &events[2], 1);
    assert_int_equal(staged_count(w->fed->staged), 1);
    fed_stop(w->fed);
    struct fed_net net = w->fed->net;
    fed_free(&w->fed);
    w->is_down = false;
    assert_int_equal(fed_new(&w->house.hs, &w->fed).code, 0);
    w->fed->net = net;
    assert_int_equal(fed_start(w->fed).code, 0);
    while (staged_is_busy(w->fed->staged)) {
        sched_yield();
    }
    assert_true(inbound_has(w, events[2]));
    assert_int_equal(staged_count(w->fed->staged), 0);
}

static void later_attempts_are_few_and_end(void **state)
{
    size_t events[3];
    (void)state;
    say_many(events, 3);
    w->is_down = true;
    inbound_send(w, &events[2], 1);
    for (int i = 0; i < 12; i++) {
        staged_tick(w->fed->staged);
        while (staged_is_busy(w->fed->staged)) {
            sched_yield();
        }
        w->house.mono_ms += 2 * 3600 * 1000;
        w->house.wall_ms += 2 * 3600 * 1000;
    }
    assert_int_equal(staged_count(w->fed->staged), 0);
    assert_in_range(inbound_asked(w, "/get_missing_events/"), 2, 6);
    assert_false(inbound_has(w, events[2]));
}

/* --- what others give --- */
static bool flood(struct inbound_world *world, struct arena *arena, struct slice path,
                  struct slice *body)
{
    struct json list;
    if (!lie_with_all(world, arena, path, &list)) {
        return false;
    }
    *body = as_body(arena, "events", list);
    return true;
}

static void events_beside_the_gap_are_not_taken(void **state)
{
    size_t forks[30];
    (void)state;
    for (size_t i = 0; i < 30; i++) { /* a flood of forward extremities */
        forks[i] = inbound_say(w, &w->joined, 1);
    }
    size_t missing = inbound_say(w, &w->joined, 1);
    size_t event = inbound_say(w, &missing, 1);
    w->lie = flood;
    inbound_send(w, &event, 1);
    assert_true(inbound_has(w, event));
    for (size_t i = 0; i < 30; i++) {
        assert_false(inbound_has(w, forks[i]));
    }
}

static bool other_event(struct inbound_world *world, struct arena *arena, struct slice path,
                        struct slice *body)
{
    if (!slice_contains(path, LIT("/event/"))) {
        return false;
    }
    struct json list = json_array();
    json_push(arena, &list, *event_tree(arena, peer_get(&world->theirs, world->joined)));
    *body = as_body(arena, "pdus", list);
    return true;
}

static void another_event_than_asked_for_is_not_believed(void **state)
{
    size_t events[40];
    (void)state;
    say_many(events, 40);
    w->lie = other_event;
    inbound_send(w, &events[39], 1);
    assert_false(inbound_has(w, events[39]));
    assert_int_equal(staged_count(w->fed->staged), 0);
}

static bool endless_auth(struct inbound_world *world, struct arena *arena, struct slice path,
                         struct slice *body)
{
    static _Atomic unsigned count;
    if (!slice_contains(path, LIT("/event/")) && !slice_contains(path, LIT("/event_auth/"))) {
        return false;
    }
    struct peer_draft draft = {.peer = &world->remote,
                               .sender = world->bob,
                               .type = "m.room.topic",
                               .state_key = "",
                               .content = "{}"};
    struct event_id cited = ids_trust_event(arena_printf(arena, "$never%u", ++count));
    draft.auth = &cited;
    draft.auth_count = 1;
    pthread_mutex_lock(&world->mutex);
    size_t made = peer_make(&world->theirs, &draft);
    pthread_mutex_unlock(&world->mutex);
    struct json list = json_array();
    struct json object = json_object();
    json_push(arena, &list, *event_tree(arena, peer_get(&world->theirs, made)));
    json_set(arena, &object, LIT("pdus"), list);
    json_set(arena, &object, LIT("auth_chain"), list);
    *body = json_canonical(arena, &object);
    return true;
}

static void an_auth_chain_without_end_is_given_up(void **state)
{
    (void)state;
    struct event_id cited = ids_trust_event(LIT("$no-such-event"));
    struct peer_draft draft = {.peer = &w->remote,
                               .sender = w->bob,
                               .type = "m.room.message",
                               .content = "{}",
                               .auth = &cited,
                               .auth_count = 1};
    size_t event = peer_make(&w->theirs, &draft);
    w->lie = endless_auth;
    inbound_send(w, &event, 1);
    assert_false(inbound_has(w, event));
    assert_true(w->asked_count < 1000);
}

static bool hide_auth(struct inbound_world *world, struct arena *arena, struct slice path,
                      struct slice *body)
{
    (void)world;
    (void)arena;
    *body = (struct slice){0};
    return slice_contains(path, LIT("/event"));
}

static void an_event_without_its_authorisation_is_not_taken(void **state)
{
    (void)state;
    size_t levels = inbound_make(w, "m.room.power_levels", "",
                                 "{\"users\":{\"@bob:remote:8448\":100},\"events_default\":1}");
    struct event_id auth[3];
    const struct resolve_set *before = &w->theirs.events[levels].before;
    size_t count = 0;
    for (size_t i = 0; i < before->count; i++) {
        bool own = slice_eq(before->items[i].state_key, w->bob);
        bool create = slice_eq(before->items[i].type, LIT("m.room.create"));
        if (own || create) {
            auth[count++] = before->items[i].event;
        }
    }
    auth[count++] = peer_get(&w->theirs, levels)->id;
    struct peer_draft draft = {.peer = &w->remote,
                               .sender = w->bob,
                               .type = "m.room.message",
                               .content = "{}",
                               .prev = &w->joined,
                               .prev_count = 1,
                               .auth = auth,
                               .auth_count = count};
    size_t event = peer_make(&w->theirs, &draft);
    w->lie = hide_auth;
    inbound_send(w, &event, 1);
    assert_false(inbound_has(w, event));
    assert_int_equal(flags_of(event), UINT32_MAX);
    w->lie = NULL;
    assert_true(inbound_asked(w, "/event_auth/") > 0);
}

static void its_authorisation_is_fetched(void **state)
{
    (void)state;
    size_t levels = inbound_make(w, "m.room.power_levels", "",
                                 "{\"users\":{\"@bob:remote:8448\":100},\"events_default\":1}");
    size_t event = inbound_say(w, &levels, 1);
    size_t last = inbound_say(w, &event, 1);
    inbound_send(w, &last, 1);
    assert_true(inbound_has(w, last));
    assert_true(inbound_has(w, levels));
}

/* Depth is what its sender says; it must not decide what is fetched or how long. */
static void a_giant_depth_changes_nothing(void **state)
{
    (void)state;
    struct peer_draft draft = {.peer = &w->remote,
                               .sender = w->bob,
                               .type = "m.room.message",
                               .content = "{}",
                               .depth = JSON_INT_MAX};
    size_t deep = peer_make(&w->theirs, &draft);
    size_t next = inbound_say(w, &deep, 1);
    inbound_send(w, &next, 1);
    assert_true(inbound_has(w, deep));
    assert_true(inbound_has(w, next));
    house_say(&w->house, w->room, &w->alice, "still here");
}

/* An event of theirs whose past nobody has. */
static void hide_past(int at, struct event *event_out)
{
    struct arena *arena = w->house.ctx.arena;
    size_t event = inbound_say(w, &w->joined, 1);
    struct json tree = *event_tree(arena, peer_get(&w->theirs, event));
    struct json list = json_array();
    json_push(arena, &list, json_string(arena_printf(arena, "$missing%d", at)));
    json_set(arena, &tree, LIT("prev_events"), list);
    json_remove(&tree, LIT("hashes"));
    json_remove(&tree, LIT("signatures"));
    assert_int_equal(event_seal(arena, w->theirs.rules, &tree, &w->remote.signer, event_out).code,
                     0);
}

static void what_may_wait_is_bounded(void **state)
{
    size_t refused = 0;
    (void)state;
    w->is_down = true;
    for (int i = 0; i < 520; i++) {
        struct event event;
        hide_past(i, &event);
        const char *pdu = arena_cstr(w->house.ctx.arena, event.json);
        struct json results = inbound_send_text(w, &pdu, 1);
        refused += inbound_error(&results, event.id.s).ptr ? 1 : 0;
    }
    assert_int_equal(staged_count(w->fed->staged), 500);
    assert_int_equal(refused, 20);
    /* One server leaves place for another. */
    struct event event;
    hide_past(520, &event);
    struct staged_event theirs = {w->room, LIT("slow.org"), &event, true};
    struct staged_event others = {w->room, LIT("good.org"), &event, true};
    assert_int_equal(staged_add(w->fed->staged, &w->house.ctx, &others).code, 0);
    for (int i = 521; i < 545; i++) {
        hide_past(i, &event);
        bool fits = staged_add(w->fed->staged, &w->house.ctx, &theirs).code == 0;
        assert_int_equal(fits, i < 541);
    }
}

/* --- one that takes its time --- */

enum { SLOW_EVENTS = 10, SLOW_MS = 20000 };

static struct {
    pthread_mutex_t gate;
    size_t fills;
    size_t good_at; /* the fill that was of the other origin */
} slow = {.gate = PTHREAD_MUTEX_INITIALIZER};

static struct err fill_slowly(struct fed *fed, struct ctx *ctx, const struct staged_event *event,
                              struct staged_outcome *outcome)
{
    (void)fed;
    (void)ctx;
    pthread_mutex_lock(&slow.gate);
    slow.fills++;
    if (slice_eq(event->origin, LIT("good.org"))) {
        slow.good_at = slow.fills;
        outcome->is_final = true;
    } else {
        w->house.mono_ms += SLOW_MS;
    }
    pthread_mutex_unlock(&slow.gate);
    return OK;
}

static void a_slow_server_does_not_take_the_time_of_others(void **state)
{
    struct staged *staged = staged_new(w->fed, fill_slowly);
    (void)state;
    slow.fills = 0;
    slow.good_at = 0;
    pthread_mutex_lock(&slow.gate);
    for (int i = 0; i <= SLOW_EVENTS; i++) {
        struct event event;
        hide_past(i, &event);
        struct staged_event one = {w->room, i < SLOW_EVENTS ? LIT("slow.org") : LIT("good.org"),
                                   &event, true};
        assert_int_equal(staged_add(staged, &w->house.ctx, &one).code, 0);
    }
    pthread_mutex_unlock(&slow.gate);
    while (staged_is_busy(staged)) {
        sched_yield();
    }
    assert_int_equal(slow.fills, SLOW_EVENTS + 1); /* each was tried, once */
    assert_in_range(slow.good_at, 1, SLOW_EVENTS / 2);
    assert_int_equal(staged_count(staged), SLOW_EVENTS);
    staged_stop(staged);
    staged_free(&staged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(a_small_gap_is_closed_without_asking_for_state),
        WITH_WORLD(a_wide_gap_is_bridged_by_the_state_at_it),
        WITH_WORLD(an_event_whose_sender_hides_its_past_gets_no_state),
        WITH_WORLD(it_gets_in_when_its_past_comes),
        WITH_WORLD(waiting_events_survive_a_restart),
        WITH_WORLD(later_attempts_are_few_and_end),
        WITH_WORLD(events_beside_the_gap_are_not_taken),
        WITH_WORLD(another_event_than_asked_for_is_not_believed),
        WITH_WORLD(an_auth_chain_without_end_is_given_up),
        WITH_WORLD(an_event_without_its_authorisation_is_not_taken),
        WITH_WORLD(its_authorisation_is_fetched),
        WITH_WORLD(a_giant_depth_changes_nothing),
        WITH_WORLD(what_may_wait_is_bounded),
        WITH_WORLD(a_slow_server_does_not_take_the_time_of_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
