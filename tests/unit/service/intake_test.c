/* Taking in events of other servers, one at a time: rooms of made-up servers that this one joins.
 */
#include "homeserver/service/users.h"
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
    away_join(&a, AWAY_WHOLE);
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    away_close(&a);
    return 0;
}

/* --- joins --- */

static void a_join_brings_the_state_and_the_timeline_begins(void **state)
{
    struct stored_events events;
    struct event_range range = {
        .from = hs_room_head(a.room).number + 1, .limit = 10, .order = EVENTS_REVERSE};
    struct slice *servers = NULL;
    size_t count = 0;
    (void)state;
    assert_int_equal(hs_events_read(&a.h.hs, &a.h.ctx, a.room, range, &events).code, 0);
    assert_int_equal(events.count, 1);
    assert_true(events.items[0].flags & EVENT_AFTER_GAP);
    assert_int_equal(away_membership(&a, a.ria), MEMBERSHIP_JOIN);
    assert_int_equal(away_membership(&a, a.ann.actor.user_id), MEMBERSHIP_JOIN);
    assert_int_equal(hs_room_head(a.room).joined_count, 3);
    assert_int_equal(hs_room_servers(&a.h.hs, &a.h.ctx, a.room, &servers, &count).code, 0);
    assert_int_equal(count, 1);
    assert_true(slice_eq(servers[0], a.far.name));
}

static void a_room_joined_is_there_after_a_restart(void **state)
{
    (void)state;
    away_take(&a, away_say(&a, &a.by_rob, NULL, 0));
    struct room_head before = hs_room_head(a.room);
    house_next_job(&a.h);
    hs_rooms_free(&a.h.hs.rooms);
    a.h.hs.rooms = hs_rooms_new(&a.h.hs, 10);
    assert_int_equal(hs_room_get_by_id(&a.h.hs, &a.h.ctx, a.r.room_id, &a.room).code, 0);
    assert_int_equal(hs_room_head(a.room).root, before.root);
    assert_int_equal(hs_room_head(a.room).pos, before.pos);
    assert_int_equal(away_take(&a, away_say(&a, &a.by_rob, NULL, 0)).result, INTAKE_ACCEPTED);
    house_say(&a.h, a.room, &a.ann, "still here");
}

/* --- live events --- */

static void an_event_is_accepted_once(void **state)
{
    (void)state;
    size_t at = away_say(&a, &a.by_rob, NULL, 0);
    struct intake_report report = away_take(&a, at);
    assert_int_equal(report.result, INTAKE_ACCEPTED);
    assert_int_equal(report.sent.number, hs_room_head(a.room).number);
    assert_int_equal(away_take(&a, at).result, INTAKE_KNOWN);
    assert_int_equal(away_end_count(&a), 1);
}

static void what_is_missing_is_told(void **state)
{
    (void)state;
    size_t first = away_say(&a, &a.by_rob, NULL, 0);
    size_t second = away_say(&a, &a.by_rob, NULL, 0);
    struct intake_report report = away_take(&a, second);
    assert_int_equal(report.result, INTAKE_MISSING_PREV);
    assert_int_equal(report.missing_count, 1);
    assert_true(ids_event_eq(report.missing[0], peer_get(&a.r, first)->id));
    size_t renewed = peer_member(&a.r, &a.by_rob, a.rob, "join");
    report = away_take(&a, away_say(&a, &a.by_rob, NULL, 0));
    assert_int_equal(report.result, INTAKE_MISSING_AUTH);
    assert_true(ids_event_eq(report.missing[0], peer_get(&a.r, renewed)->id));
}

static void a_refused_event_is_kept_and_not_built_upon(void **state)
{
    (void)state;
    size_t bad = peer_member(&a.r, &a.by_rob, a.ria, "ban");
    struct intake_report report = away_take(&a, bad);
    assert_int_equal(report.result, INTAKE_REJECTED);
    assert_int_equal(report.step, INTAKE_STEP_AUTH_EVENTS);
    assert_true(report.reason.len > 0);
    assert_true(away_stored(&a, bad).flags & EVENT_REJECTED);
    assert_int_equal(away_membership(&a, a.ria), MEMBERSHIP_JOIN);
    /* What comes after it comes after the state before it. */
    assert_int_equal(away_take(&a, away_say(&a, &a.by_ria, NULL, 0)).result, INTAKE_ACCEPTED);
    assert_int_equal(away_membership(&a, a.ria), MEMBERSHIP_JOIN);
}

/* Synapse CVE-2022-39374. */
static void an_event_that_cites_a_rejected_one_is_rejected(void **state)
{
    (void)state;
    struct event_id auth[4];
    size_t bad = peer_member(&a.r, &a.by_rob, a.rob, "invite");
    assert_int_equal(away_take(&a, bad).result, INTAKE_REJECTED);
    for (size_t i = 0; i < 3; i++) {
        auth[i] = peer_get(&a.r, i == 1 ? 2 : (i == 2 ? bad : 0))->id;
    }
    struct peer_draft draft = a.by_rob;
    draft.type = "m.room.message";
    draft.content = "{}";
    draft.auth = auth;
    draft.auth_count = 3;
    struct intake_report report = away_take(&a, peer_make(&a.r, &draft));
    assert_int_equal(report.result, INTAKE_REJECTED);
    assert_int_equal(report.step, INTAKE_STEP_AUTH_EVENTS);
}

static void a_message_of_one_banned_meanwhile_fails_softly(void **state)
{
    (void)state;
    size_t before = a.r.count - 1;
    size_t ban = peer_member(&a.r, &a.by_ria, a.rob, "ban");
    away_take(&a, ban);
    size_t late = away_say(&a, &a.by_rob, &before, 1);
    struct intake_report report = away_take(&a, late);
    assert_int_equal(report.result, INTAKE_SOFT_FAILED);
    assert_int_equal(report.step, INTAKE_STEP_CURRENT_STATE);
    assert_int_equal(away_end_count(&a), 1);
    assert_true(away_stored(&a, late).flags & EVENT_SOFT_FAILED);
    assert_int_equal(away_take(&a, late).result, INTAKE_KNOWN);
}

static void a_missing_policy_signature_fails_softly(void **state)
{
    struct intake_report report;
    (void)state;
    struct intake intake = {.event = peer_get(&a.r, away_say(&a, &a.by_rob, NULL, 0)),
                            .policy_failed = true};
    assert_int_equal(hs_intake_event(&a.h.hs, &a.h.ctx, a.room, &intake, &report).code, 0);
    assert_int_equal(report.result, INTAKE_SOFT_FAILED);
    assert_string_equal(intake_step_name(report.step), "policy");
}

static void an_event_of_another_room_is_no_event_of_this_one(void **state)
{
    struct peer_room other;
    struct intake_report report;
    (void)state;
    peer_room_open(&other, "10", &a.far, a.ria);
    other.room_id = LIT("!other:far");
    struct peer_draft draft = a.by_ria;
    draft.type = "m.room.message";
    draft.content = "{}";
    struct intake intake = {.event = peer_get(&other, peer_make(&other, &draft))};
    assert_int_equal(hs_intake_event(&a.h.hs, &a.h.ctx, a.room, &intake, &report).code, 0);
    assert_int_equal(report.result, INTAKE_REJECTED);
    peer_room_close(&other);
}

static void an_outlier_gets_its_place_when_it_comes(void **state)
{
    struct intake_report report;
    (void)state;
    size_t topic = peer_member(&a.r, &a.by_rob, a.rob, "join");
    const struct event *event = peer_get(&a.r, topic);
    assert_int_equal(hs_intake_outlier(&a.h.hs, &a.h.ctx, a.room, event, &report).code, 0);
    assert_int_equal(report.result, INTAKE_ACCEPTED);
    int64_t apart = away_stored(&a, topic).number;
    assert_true(apart < 0);
    assert_int_equal(away_take(&a, topic).result, INTAKE_ACCEPTED);
    struct stored_event now = away_stored(&a, topic);
    assert_int_equal(now.number, hs_room_head(a.room).number);
    bool found = false;
    struct stored_event old;
    assert_int_equal(hs_event_load(&a.h.hs, &a.h.ctx, a.room, apart, &old, &found).code, 0);
    assert_true(found);
    assert_int_equal(old.number, now.number);
}

static void a_rejected_event_may_be_accepted_later(void **state)
{
    (void)state;
    size_t before = a.r.count - 1;
    size_t invite = away_say(&a, &a.by_rob, &before, 1);
    struct intake_report report;
    size_t told = 3; /* a state in which rob is not there */
    struct event_id poor[4];
    for (size_t i = 0; i < 4; i++) {
        poor[i] = peer_get(&a.r, i)->id;
    }
    (void)told;
    struct intake intake = {.event = peer_get(&a.r, invite), .state = poor, .state_count = 4};
    assert_int_equal(hs_intake_event(&a.h.hs, &a.h.ctx, a.room, &intake, &report).code, 0);
    assert_int_equal(report.result, INTAKE_REJECTED);
    assert_int_equal(report.step, INTAKE_STEP_STATE_BEFORE);
    assert_int_equal(away_take(&a, invite).result, INTAKE_ACCEPTED);
    assert_true(away_stored(&a, invite).number > 0);
}

/* --- forks --- */

static void a_ban_on_another_branch_undoes_what_the_banned_did(void **state)
{
    (void)state;
    size_t fork = a.r.count - 1;
    struct peer_draft ria_here = a.by_ria;
    struct peer_draft rob_here = a.by_rob;
    ria_here.prev = rob_here.prev = &fork;
    ria_here.prev_count = rob_here.prev_count = 1;
    away_take(&a, peer_member(&a.r, &rob_here, a.rob, "join"));
    size_t ban = peer_member(&a.r, &ria_here, a.rob, "ban");
    assert_int_equal(away_take(&a, ban).result, INTAKE_ACCEPTED);
    assert_int_equal(away_end_count(&a), 2);
    assert_int_equal(away_membership(&a, a.rob), MEMBERSHIP_BAN);
    assert_int_equal(hs_room_head(a.room).joined_count, 2);
    /* A local event joins the branches. */
    house_say(&a.h, a.room, &a.ann, "one again");
    assert_int_equal(away_end_count(&a), 1);
    assert_int_equal(away_membership(&a, a.rob), MEMBERSHIP_BAN);
}

static void a_local_user_banned_on_another_branch_is_out(void **state)
{
    struct user_room entry;
    bool found = false;
    (void)state;
    size_t fork = a.r.count - 1;
    struct peer_draft ria_here = a.by_ria;
    ria_here.prev = &fork;
    ria_here.prev_count = 1;
    house_say(&a.h, a.room, &a.ann, "I am here");
    away_take(&a, peer_member(&a.r, &ria_here, a.ann.actor.user_id, "ban"));
    assert_int_equal(away_membership(&a, a.ann.actor.user_id), MEMBERSHIP_BAN);
    assert_int_equal(hs_user_room(&a.h.hs, &a.h.ctx, a.ann.actor.user, hs_room_info(a.room).number,
                                  &entry, &found)
                         .code,
                     0);
    assert_int_equal(entry.membership, MEMBERSHIP_BAN);
    uint64_t *users = NULL;
    assert_int_equal(hs_room_local_users(&a.h.ctx, a.room, &users), 0);
}

static void a_join_undone_by_resolution_changes_the_users_rooms(void **state)
{
    struct user_room entry;
    bool found = false;
    (void)state;
    struct guest bob = house_guest(&a.h, "bob");
    size_t fork = a.r.count - 1;
    house_member(&a.h, a.room, &bob, &bob, MEMBERSHIP_JOIN);
    assert_int_equal(away_membership(&a, bob.actor.user_id), MEMBERSHIP_JOIN);
    struct peer_draft rules = a.by_ria;
    rules.type = "m.room.join_rules";
    rules.state_key = "";
    rules.content = "{\"join_rule\":\"invite\"}";
    rules.prev = &fork;
    rules.prev_count = 1;
    assert_int_equal(away_take(&a, peer_make(&a.r, &rules)).result, INTAKE_ACCEPTED);
    assert_int_equal(away_membership(&a, bob.actor.user_id), MEMBERSHIP_NONE);
    assert_int_equal(
        hs_user_room(&a.h.hs, &a.h.ctx, bob.actor.user, hs_room_info(a.room).number, &entry, &found)
            .code,
        0);
    assert_int_equal(entry.membership, MEMBERSHIP_LEAVE);
    assert_int_equal(entry.previous, MEMBERSHIP_JOIN);
    assert_int_equal(entry.pos, hs_room_head(a.room).pos);
}

/* Before room version 6 the time that a server tells may be any 64-bit number. */
static void a_time_far_away_is_shown(void **state)
{
    const int64_t times[] = {INT64_MIN + 1, INT64_MAX - 10};
    (void)state;
    away_close(&a);
    away_open(&a, "1");
    away_join(&a, AWAY_WHOLE);
    for (size_t i = 0; i < COUNT_OF(times); i++) {
        struct buf text;
        struct json json;
        int64_t age = 0;
        struct viewer viewer = {.user = a.ann.actor.user, .user_id = a.ann.actor.user_id};
        a.r.ts = times[i];
        size_t said = away_say(&a, &a.by_rob, NULL, 0);
        assert_int_equal(away_take(&a, said).result, INTAKE_ACCEPTED);
        struct stored_event event = away_stored(&a, said);
        assert_int_equal(event.event.origin_server_ts, times[i]);
        buf_init_arena(&text, a.h.ctx.arena, 100000);
        struct json_out out = json_out_to(&text);
        assert_int_equal(hs_write_event(&a.h.hs, &a.h.ctx, a.room, &viewer, &event, 0, &out).code,
                         0);
        assert_int_equal(json_parse(a.h.ctx.arena, buf_slice(&text), &json).code, 0);
        assert_true(json_get_int(json_get_object(&json, LIT("unsigned")), LIT("age"), &age));
        assert_int_equal(age, times[i] < 0 ? JSON_INT_MAX : -JSON_INT_MAX);
    }
}

static void guests_are_shut_out_by_other_servers_too(void **state)
{
    (void)state;
    struct guest bob = house_guest(&a.h, "bob");
    house_member(&a.h, a.room, &bob, &bob, MEMBERSHIP_JOIN);
    assert_int_equal(
        hs_account_set_flags(&a.h.hs, &a.h.ctx, bob.actor.user, ACCOUNT_GUEST, ACCOUNT_GUEST).code,
        0);
    struct peer_draft access = a.by_ria;
    access.type = "m.room.guest_access";
    access.state_key = "";
    access.content = "{\"guest_access\":\"can_join\"}";
    assert_int_equal(away_take(&a, peer_make(&a.r, &access)).result, INTAKE_ACCEPTED);
    assert_int_equal(away_membership(&a, bob.actor.user_id), MEMBERSHIP_JOIN);
    access.content = "{\"guest_access\":\"forbidden\"}";
    assert_int_equal(away_take(&a, peer_make(&a.r, &access)).result, INTAKE_ACCEPTED);
    assert_int_equal(away_membership(&a, bob.actor.user_id), MEMBERSHIP_LEAVE);
    assert_int_equal(away_membership(&a, a.ann.actor.user_id), MEMBERSHIP_JOIN);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, open_house, close_house)
    const struct CMUnitTest tests[] = {
        CASE(a_join_brings_the_state_and_the_timeline_begins),
        CASE(a_room_joined_is_there_after_a_restart),
        CASE(an_event_is_accepted_once),
        CASE(what_is_missing_is_told),
        CASE(a_refused_event_is_kept_and_not_built_upon),
        CASE(an_event_that_cites_a_rejected_one_is_rejected),
        CASE(a_message_of_one_banned_meanwhile_fails_softly),
        CASE(a_missing_policy_signature_fails_softly),
        CASE(an_event_of_another_room_is_no_event_of_this_one),
        CASE(an_outlier_gets_its_place_when_it_comes),
        CASE(a_time_far_away_is_shown),
        CASE(a_rejected_event_may_be_accepted_later),
        CASE(a_ban_on_another_branch_undoes_what_the_banned_did),
        CASE(a_local_user_banned_on_another_branch_is_out),
        CASE(a_join_undone_by_resolution_changes_the_users_rooms),
        CASE(guests_are_shut_out_by_other_servers_too),
    };
#undef CASE
    return cmocka_run_group_tests(tests, NULL, NULL);
}
