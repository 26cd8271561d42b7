/* Rooms joined with part of their state. */
#include "tests/support/away.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct away a;

static int open_house(void **state)
{
    (void)state;
    away_open(&a, "10");
    away_join(&a, AWAY_PARTIAL);
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    away_close(&a);
    return 0;
}

/* Fetches what was left out, and ends the partial time. */
static struct err complete(void)
{
    struct event_id ids[16];
    size_t count = 0;
    size_t join = 0;
    for (size_t i = 0; i < a.r.count; i++) {
        const struct event *event = peer_get(&a.r, i);
        join = event_is(event, LIT("m.room.member"), a.ann.actor.user_id) ? i : join;
    }
    const struct resolve_set *before = &a.r.events[join].before;
    for (size_t i = 0; i < before->count; i++) {
        struct intake_report report;
        const struct event *event = peer_get(&a.r, peer_find(&a.r, before->items[i].event.s));
        TRY(hs_intake_outlier(&a.h.hs, &a.h.ctx, a.room, event, &report));
        ids[count++] = before->items[i].event;
    }
    return away_complete(&a, ids, count);
}

static void a_partial_room_can_be_used(void **state)
{
    uint64_t *rooms = NULL;
    struct slice *servers = NULL;
    size_t count = 0;
    (void)state;
    assert_int_equal(away_membership(&a, a.rob), MEMBERSHIP_NONE);
    assert_int_equal(away_take(&a, away_say(&a, &a.by_rob, NULL, 0)).result, INTAKE_ACCEPTED);
    house_say(&a.h, a.room, &a.ann, "hello");
    away_restart(&a);
    assert_true(hs_room_is_partial(a.room));
    assert_int_equal(hs_rooms_partial(&a.h.hs, &a.h.ctx, &rooms, &count).code, 0);
    assert_int_equal(count, 1);
    assert_int_equal(rooms[0], hs_room_info(a.room).number);
    assert_int_equal(hs_room_servers(&a.h.hs, &a.h.ctx, a.room, &servers, &count).code, 0);
    assert_int_equal(count, 1);
}

static void a_room_becomes_whole(void **state)
{
    (void)state;
    size_t said = away_say(&a, &a.by_rob, NULL, 0);
    away_take(&a, said);
    house_say(&a.h, a.room, &a.ann, "hello");
    struct room_head before = hs_room_head(a.room);
    assert_int_equal(complete().code, 0);
    struct room_head after = hs_room_head(a.room);
    assert_false(hs_room_is_partial(a.room));
    assert_int_equal(away_membership(&a, a.rob), MEMBERSHIP_JOIN);
    assert_int_equal(after.joined_count, 3);
    assert_true(after.pos > before.pos);
    assert_int_equal(after.number, before.number);
    /* Whoever has seen the room up to here learns of the change. */
    int64_t number = 0;
    uint64_t root = 0;
    assert_int_equal(hs_room_at(&a.h.hs, &a.h.ctx, a.room, before.pos, &number, &root).code, 0);
    assert_int_equal(root, before.root);
    assert_int_equal(away_stored(&a, said).flags & EVENT_PARTIAL, 0);
    away_restart(&a);
    assert_int_equal(hs_room_head(a.room).root, after.root);
    assert_int_equal(hs_room_head(a.room).pos, after.pos);
    assert_int_equal(complete().code, 0);
    house_say(&a.h, a.room, &a.ann, "still here");
}

/* rob was never banned as far as this server knew: what he did falls with the whole state. */
static void what_the_whole_state_forbids_is_rejected(void **state)
{
    (void)state;
    peer_room_close(&a.r);
    house_close(&a.h);
    away_open(&a, "10");
    struct peer_draft by_ria = a.by_ria;
    size_t join = a.r.count - 1;
    peer_member(&a.r, &by_ria, a.rob, "ban");
    away_join(&a, AWAY_PARTIAL);
    struct event_id auth[] = {peer_get(&a.r, 0)->id, peer_get(&a.r, 2)->id,
                              peer_get(&a.r, join)->id};
    struct peer_draft draft = a.by_rob;
    draft.type = "m.room.topic";
    draft.state_key = "";
    draft.content = "{\"topic\":\"mine\"}";
    draft.auth = auth;
    draft.auth_count = 3;
    draft.type = "m.room.message";
    draft.state_key = NULL;
    size_t bad = peer_make(&a.r, &draft);
    assert_int_equal(away_take(&a, bad).result, INTAKE_ACCEPTED);
    house_say(&a.h, a.room, &a.ann, "hello");
    assert_int_equal(complete().code, 0);
    assert_true(away_stored(&a, bad).flags & EVENT_REJECTED);
    assert_int_equal(away_membership(&a, a.rob), MEMBERSHIP_BAN);
    assert_int_equal(away_end_count(&a), 1);
}

/* The state before an event that was refused is not what it was thought to be, either. */
static void what_follows_a_refused_event_stands(void **state)
{
    struct peer_draft draft = a.by_rob;
    (void)state;
    draft.type = "m.room.name";
    draft.state_key = "";
    draft.content = "{\"name\":\"mine\"}";
    size_t bad = peer_make(&a.r, &draft);
    assert_int_equal(away_take(&a, bad).result, INTAKE_REJECTED);
    size_t worse = peer_make(&a.r, &draft);
    assert_int_equal(away_take(&a, worse).result, INTAKE_REJECTED);
    size_t said = away_say(&a, &a.by_rob, NULL, 0);
    assert_int_equal(away_take(&a, said).result, INTAKE_ACCEPTED);
    assert_int_equal(complete().code, 0);
    assert_true(away_stored(&a, bad).flags & EVENT_REJECTED);
    assert_true(away_stored(&a, worse).flags & EVENT_REJECTED);
    assert_false(away_stored(&a, said).flags & EVENT_REJECTED);
    assert_int_equal(away_membership(&a, a.rob), MEMBERSHIP_JOIN);
}

/* rob, who was banned, seemed to be there and seemed to kick cid; what cid did is a part of the
 * state that follows it all the same. */
static size_t make_kicked(void)
{
    away_close(&a);
    away_open(&a, "10");
    struct slice cid = peer_user(a.h.conf_arena, &a.far, "cid");
    struct peer_draft by_cid = {.peer = &a.far, .sender = cid};
    size_t rob_join = a.r.count - 1;
    size_t cid_join = peer_member(&a.r, &by_cid, cid, "join");
    struct peer_draft levels = a.by_ria;
    levels.type = "m.room.power_levels";
    levels.state_key = "";
    levels.content =
        arena_printf(a.h.conf_arena, "{\"users\":{\"%.*s\":100,\"%.*s\":100,\"%.*s\":50}}",
                     (int)a.ria.len, a.ria.ptr, (int)a.rob.len, a.rob.ptr, (int)cid.len, cid.ptr)
            .ptr;
    size_t power = peer_make(&a.r, &levels);
    struct peer_draft bye = a.by_rob;
    peer_member(&a.r, &bye, a.rob, "leave");
    away_join(&a, AWAY_PARTIAL);
    struct event_id auth[] = {peer_get(&a.r, 0)->id, peer_get(&a.r, power)->id,
                              peer_get(&a.r, rob_join)->id, peer_get(&a.r, cid_join)->id};
    struct peer_draft kick = a.by_rob;
    kick.auth = auth;
    kick.auth_count = COUNT_OF(auth);
    size_t bad = peer_member(&a.r, &kick, cid, "leave");
    assert_int_equal(away_take(&a, bad).result, INTAKE_ACCEPTED);
    by_cid.type = "m.room.name";
    by_cid.state_key = "";
    by_cid.content = "{\"name\":\"ours\"}";
    size_t named = peer_make(&a.r, &by_cid);
    assert_int_equal(away_take(&a, named).result, INTAKE_REJECTED);
    return named;
}

static void what_the_whole_state_allows_counts_in_what_follows(void **state)
{
    struct stored_event name;
    bool found = false;
    (void)state;
    size_t named = make_kicked();
    size_t said = away_say(&a, &a.by_ria, NULL, 0);
    assert_int_equal(away_take(&a, said).result, INTAKE_ACCEPTED);
    assert_int_equal(complete().code, 0);
    assert_true(away_stored(&a, named - 1).flags & EVENT_REJECTED);
    assert_int_equal(away_stored(&a, named).flags & (EVENT_REJECTED | EVENT_SOFT_FAILED), 0);
    assert_int_equal(hs_state_event(&a.h.hs, &a.h.ctx, a.room, away_stored(&a, said).state_before,
                                    LIT("m.room.name"), LIT(""), &name, &found)
                         .code,
                     0);
    assert_true(found);
    assert_int_equal(hs_state_event(&a.h.hs, &a.h.ctx, a.room, hs_room_head(a.room).root,
                                    LIT("m.room.name"), LIT(""), &name, &found)
                         .code,
                     0);
    assert_true(found);
}

/* In the first versions a server chooses the ids of its events, and may have them cite in a ring.
 */
static void a_ring_of_citations_is_left_out(void **state)
{
    (void)state;
    away_close(&a);
    away_open(&a, "1");
    struct slice cid = peer_user(a.h.conf_arena, &a.far, "cid");
    struct event_id later =
        ids_trust_event(arena_printf(a.r.arena_owned, "$%zu:far", a.r.count + 1));
    struct peer_draft draft = {.peer = &a.far, .sender = cid, .auth = &later, .auth_count = 1};
    size_t first = peer_member(&a.r, &draft, cid, "join");
    draft.auth = &peer_get(&a.r, first)->id;
    peer_member(&a.r, &draft, cid, "join");
    away_join(&a, AWAY_WHOLE);
    assert_int_equal(away_membership(&a, cid), MEMBERSHIP_NONE);
    assert_int_equal(away_membership(&a, a.rob), MEMBERSHIP_JOIN);
    assert_true(away_stored(&a, first).flags & EVENT_REJECTED);
}

/* ann leaves before the room is whole, misses a message, and joins again. */
static size_t stay_twice(size_t *said_out)
{
    *said_out = away_say(&a, &a.by_rob, NULL, 0);
    assert_int_equal(away_take(&a, *said_out).result, INTAKE_ACCEPTED);
    house_member(&a.h, a.room, &a.ann, &a.ann, MEMBERSHIP_LEAVE);
    size_t missed = away_say(&a, &a.by_rob, NULL, 0);
    away_join(&a, AWAY_PARTIAL);
    return missed;
}

static void history_from_between_two_stays_is_taken(void **state)
{
    struct event_id ids[16];
    size_t said = 0;
    size_t added = 0;
    (void)state;
    size_t missed = stay_twice(&said);
    assert_int_equal(complete().code, 0);
    const struct event *event = peer_get(&a.r, missed);
    const struct resolve_set *before = &a.r.events[missed].before;
    for (size_t i = 0; i < before->count; i++) {
        ids[i] = before->items[i].event;
    }
    struct intake_history history = {.events = &event,
                                     .count = 1,
                                     .before = hs_room_head(a.room).number,
                                     .state = ids,
                                     .state_count = before->count};
    assert_int_equal(hs_intake_history(&a.h.hs, &a.h.ctx, a.room, &history, &added).code, 0);
    assert_int_equal(added, 1);
}

/* Of the first stay rob's membership was never known. */
static void what_follows_on_a_stay_that_was_never_whole_stands(void **state)
{
    size_t said = 0;
    (void)state;
    stay_twice(&said);
    size_t early = away_say(&a, &a.by_rob, &said, 1);
    assert_int_equal(away_take(&a, early).result, INTAKE_ACCEPTED);
    assert_int_equal(complete().code, 0);
    assert_int_equal(away_stored(&a, early).flags & EVENT_REJECTED, 0);
    size_t late = away_say(&a, &a.by_rob, &said, 1);
    assert_int_equal(away_take(&a, late).result, INTAKE_ACCEPTED);
    away_restart(&a);
    size_t last = away_say(&a, &a.by_rob, &said, 1);
    assert_int_equal(away_take(&a, last).result, INTAKE_ACCEPTED);
    assert_int_equal(away_membership(&a, a.rob), MEMBERSHIP_JOIN);
}

static void completing_begins_anew_after_any_failure(void **state)
{
    (void)state;
    away_take(&a, away_say(&a, &a.by_rob, NULL, 0));
    house_say(&a.h, a.room, &a.ann, "hello");
    struct err err = {.code = 1};
    for (int k = 1; k < 400 && err.code != 0; k += 3) {
        store_fail_after(a.h.hs.store, k);
        err = complete();
        store_fail_after(a.h.hs.store, 0);
        house_next_job(&a.h);
        assert_int_equal(hs_room_get_by_id(&a.h.hs, &a.h.ctx, a.r.room_id, &a.room).code, 0);
    }
    assert_int_equal(err.code, 0);
    assert_false(hs_room_is_partial(a.room));
    assert_int_equal(away_membership(&a, a.rob), MEMBERSHIP_JOIN);
}

/* The room may be whole when the server is stopped, and that event still refused. */
static void what_the_whole_state_allows_is_taken_after_any_failure(void **state)
{
    struct err err = {.code = 1};
    bool was_whole = false;
    (void)state;
    size_t named = make_kicked();
    away_take(&a, away_say(&a, &a.by_ria, NULL, 0));
    for (int k = 1; k < 600 && err.code != 0; k++) {
        store_fail_after(a.h.hs.store, k);
        err = complete();
        err = err.code == 0 ? hs_room_take_again(&a.h.hs, &a.h.ctx, a.room) : err;
        store_fail_after(a.h.hs.store, 0);
        house_next_job(&a.h);
        assert_int_equal(hs_room_get_by_id(&a.h.hs, &a.h.ctx, a.r.room_id, &a.room).code, 0);
        was_whole = was_whole || (err.code != 0 && !hs_room_is_partial(a.room));
    }
    assert_true(was_whole);
    assert_int_equal(away_stored(&a, named).flags & (EVENT_REJECTED | EVENT_SOFT_FAILED), 0);
    assert_int_equal(hs_room_rest_done(&a.h.hs, &a.h.ctx, a.room).code, 0);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, open_house, close_house)
    const struct CMUnitTest tests[] = {
        CASE(a_partial_room_can_be_used),
        CASE(a_room_becomes_whole),
        CASE(what_the_whole_state_forbids_is_rejected),
        CASE(what_follows_a_refused_event_stands),
        CASE(what_the_whole_state_allows_counts_in_what_follows),
        CASE(a_ring_of_citations_is_left_out),
        CASE(history_from_between_two_stays_is_taken),
        CASE(what_follows_on_a_stay_that_was_never_whole_stands),
        CASE(completing_begins_anew_after_any_failure),
        CASE(what_the_whole_state_allows_is_taken_after_any_failure),
    };
#undef CASE
    return cmocka_run_group_tests(tests, NULL, NULL);
}
