/* Taking in events of other servers, one at a time: rooms of made-up servers that this one joins.
 */
#include "homeserver/service/intake.h"

#include "homeserver/service/check.h"
#include "tests/support/house.h"
#include "tests/support/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct house h;
static struct guest ann;
static struct peer far;
static struct peer_room r;
static struct slice ria, rob; /* users of the far server */
static struct room *room;
static struct peer_draft by_ria, by_rob, by_ann;

static void join_here(bool partial)
{
    struct intake_join *join = NULL;
    struct hs_sent sent;
    size_t before = r.count;
    size_t mine = peer_member(&r, &by_ann, ann.actor.user_id, "join");
    struct intake_join_start start = {.room_id = r.room_id,
                                      .version = r.rules->version,
                                      .join = peer_get(&r, mine),
                                      .is_partial = partial,
                                      .servers = &far.name,
                                      .server_count = 1};
    assert_int_equal(hs_intake_join_begin(&h.hs, &h.ctx, &start, &join).code, 0);
    for (size_t i = before; i > 0; i--) {
        const struct event *event = peer_get(&r, i - 1);
        bool in_state = false;
        for (size_t j = 0; j < r.events[mine].before.count; j++) {
            in_state |= ids_event_eq(r.events[mine].before.items[j].event, event->id);
        }
        bool left_out = partial && event_is(event, LIT("m.room.member"), rob);
        enum intake_join_role role = in_state && !left_out ? INTAKE_JOIN_STATE : INTAKE_JOIN_AUTH;
        if (event->has_state_key) {
            assert_int_equal(hs_intake_join_add(join, &h.ctx, role, event).code, 0);
        }
    }
    struct err err = hs_intake_join_finish(&join, &h.ctx, &room, &sent);
    if (err.code) {
        fail_msg("%s", err.text);
    }
    assert_null(join);
    assert_int_equal(hs_room_is_partial(room), partial);
}

static int open_with(const char *version)
{
    house_open(&h);
    ann = house_guest(&h, "ann");
    peer_init(&far, "far");
    ria = peer_user(h.conf_arena, &far, "ria");
    rob = peer_user(h.conf_arena, &far, "rob");
    by_ria = (struct peer_draft){.peer = &far, .sender = ria};
    by_rob = (struct peer_draft){.peer = &far, .sender = rob};
    by_ann = (struct peer_draft){.peer = &far, .sender = ann.actor.user_id};
    peer_room_open(&r, version, &far, ria);
    peer_member(&r, &by_rob, rob, "join");
    return 0;
}

static int open_house(void **state)
{
    (void)state;
    open_with("10");
    join_here(false);
    return 0;
}

static void tell(void *arg, const struct check_difference *difference)
{
    (void)arg;
    print_error("%s: %lld %.*s %s\n", check_index_name(difference->index),
                (long long)difference->number, (int)difference->event_id.len,
                difference->event_id.ptr, difference->what);
}

static void expect_sound(void)
{
    struct check_result result;
    struct check_options options = {.deep = true, .report = tell};
    house_settle(&h);
    assert_int_equal(hs_check(&h.hs, &h.ctx, &options, &result).code, 0);
    assert_int_equal(result.differences, 0);
}

static int close_house(void **state)
{
    (void)state;
    expect_sound();
    peer_room_close(&r);
    house_close(&h);
    return 0;
}

static struct intake_report take(size_t at)
{
    struct intake_report report;
    struct intake intake = {.event = peer_get(&r, at)};
    struct err err = hs_intake_event(&h.hs, &h.ctx, room, &intake, &report);
    if (err.code) {
        fail_msg("%s", err.text);
    }
    return report;
}

static size_t say(const struct peer_draft *by, const size_t *prev, size_t count)
{
    struct peer_draft draft = *by;
    draft.type = "m.room.message";
    draft.content = "{\"body\":\"b\",\"msgtype\":\"m.text\"}";
    draft.prev = prev;
    draft.prev_count = count;
    return peer_make(&r, &draft);
}

static enum membership membership(struct slice user)
{
    enum membership found = MEMBERSHIP_NONE;
    uint64_t root = hs_room_head(room).root;
    assert_int_equal(hs_membership_at(&h.hs, &h.ctx, room, root, user, &found).code, 0);
    return found;
}

static size_t end_count(void)
{
    struct event_id *ids = NULL;
    size_t count = 0;
    assert_int_equal(hs_room_extremities(&h.hs, &h.ctx, room, &ids, &count).code, 0);
    return count;
}

static struct stored_event stored(size_t at)
{
    struct stored_event event = {0};
    bool found = false;
    struct slice id = peer_get(&r, at)->id.s;
    assert_int_equal(hs_event_find(&h.hs, &h.ctx, room, id, &event, &found).code, 0);
    assert_true(found);
    return event;
}

/* --- joins --- */

static void a_join_brings_the_state_and_the_timeline_begins(void **state)
{
    struct stored_events events;
    struct event_range range = {
        .from = hs_room_head(room).number + 1, .limit = 10, .order = EVENTS_REVERSE};
    struct slice *servers = NULL;
    size_t count = 0;
    (void)state;
    assert_int_equal(hs_events_read(&h.hs, &h.ctx, room, range, &events).code, 0);
    assert_int_equal(events.count, 1);
    assert_true(events.items[0].flags & EVENT_AFTER_GAP);
    assert_int_equal(membership(ria), MEMBERSHIP_JOIN);
    assert_int_equal(membership(ann.actor.user_id), MEMBERSHIP_JOIN);
    assert_int_equal(hs_room_head(room).joined_count, 3);
    assert_int_equal(hs_room_servers(&h.hs, &h.ctx, room, &servers, &count).code, 0);
    assert_int_equal(count, 1);
    assert_true(slice_eq(servers[0], far.name));
}

static void a_room_joined_is_there_after_a_restart(void **state)
{
    (void)state;
    take(say(&by_rob, NULL, 0));
    struct room_head before = hs_room_head(room);
    house_next_job(&h);
    hs_rooms_free(&h.hs.rooms);
    h.hs.rooms = hs_rooms_new(&h.hs, 10);
    assert_int_equal(hs_room_get_by_id(&h.hs, &h.ctx, r.room_id, &room).code, 0);
    assert_int_equal(hs_room_head(room).root, before.root);
    assert_int_equal(hs_room_head(room).pos, before.pos);
    assert_int_equal(take(say(&by_rob, NULL, 0)).result, INTAKE_ACCEPTED);
    house_say(&h, room, &ann, "still here");
}

/* --- live events --- */

static void an_event_is_accepted_once(void **state)
{
    (void)state;
    size_t at = say(&by_rob, NULL, 0);
    struct intake_report report = take(at);
    assert_int_equal(report.result, INTAKE_ACCEPTED);
    assert_int_equal(report.sent.number, hs_room_head(room).number);
    assert_int_equal(take(at).result, INTAKE_KNOWN);
    assert_int_equal(end_count(), 1);
}

static void what_is_missing_is_told(void **state)
{
    (void)state;
    size_t first = say(&by_rob, NULL, 0);
    size_t second = say(&by_rob, NULL, 0);
    struct intake_report report = take(second);
    assert_int_equal(report.result, INTAKE_MISSING_PREV);
    assert_int_equal(report.missing_count, 1);
    assert_true(ids_event_eq(report.missing[0], peer_get(&r, first)->id));
    size_t renewed = peer_member(&r, &by_rob, rob, "join");
    report = take(say(&by_rob, NULL, 0));
    assert_int_equal(report.result, INTAKE_MISSING_AUTH);
    assert_true(ids_event_eq(report.missing[0], peer_get(&r, renewed)->id));
}

static void a_refused_event_is_kept_and_not_built_upon(void **state)
{
    (void)state;
    size_t bad = peer_member(&r, &by_rob, ria, "ban");
    struct intake_report report = take(bad);
    assert_int_equal(report.result, INTAKE_REJECTED);
    assert_int_equal(report.step, INTAKE_STEP_AUTH_EVENTS);
    assert_true(report.reason.len > 0);
    assert_true(stored(bad).flags & EVENT_REJECTED);
    assert_int_equal(membership(ria), MEMBERSHIP_JOIN);
    /* What comes after it comes after the state before it. */
    assert_int_equal(take(say(&by_ria, NULL, 0)).result, INTAKE_ACCEPTED);
    assert_int_equal(membership(ria), MEMBERSHIP_JOIN);
}

static void an_event_that_cites_a_rejected_one_is_rejected(void **state)
{
    (void)state;
    struct event_id auth[4];
    size_t bad = peer_member(&r, &by_rob, rob, "invite");
    assert_int_equal(take(bad).result, INTAKE_REJECTED);
    for (size_t i = 0; i < 3; i++) {
        auth[i] = peer_get(&r, i == 1 ? 2 : (i == 2 ? bad : 0))->id;
    }
    struct peer_draft draft = by_rob;
    draft.type = "m.room.message";
    draft.content = "{}";
    draft.auth = auth;
    draft.auth_count = 3;
    struct intake_report report = take(peer_make(&r, &draft));
    assert_int_equal(report.result, INTAKE_REJECTED);
    assert_int_equal(report.step, INTAKE_STEP_AUTH_EVENTS);
}

static void a_message_of_one_banned_meanwhile_fails_softly(void **state)
{
    (void)state;
    size_t before = r.count - 1;
    size_t ban = peer_member(&r, &by_ria, rob, "ban");
    take(ban);
    size_t late = say(&by_rob, &before, 1);
    struct intake_report report = take(late);
    assert_int_equal(report.result, INTAKE_SOFT_FAILED);
    assert_int_equal(report.step, INTAKE_STEP_CURRENT_STATE);
    assert_int_equal(end_count(), 1);
    assert_true(stored(late).flags & EVENT_SOFT_FAILED);
    assert_int_equal(take(late).result, INTAKE_KNOWN);
}

static void a_missing_policy_signature_fails_softly(void **state)
{
    struct intake_report report;
    (void)state;
    struct intake intake = {.event = peer_get(&r, say(&by_rob, NULL, 0)), .policy_failed = true};
    assert_int_equal(hs_intake_event(&h.hs, &h.ctx, room, &intake, &report).code, 0);
    assert_int_equal(report.result, INTAKE_SOFT_FAILED);
    assert_string_equal(intake_step_name(report.step), "policy");
}

static void an_event_of_another_room_is_no_event_of_this_one(void **state)
{
    struct peer_room other;
    struct intake_report report;
    (void)state;
    peer_room_open(&other, "10", &far, ria);
    other.room_id = LIT("!other:far");
    struct peer_draft draft = by_ria;
    draft.type = "m.room.message";
    draft.content = "{}";
    struct intake intake = {.event = peer_get(&other, peer_make(&other, &draft))};
    assert_int_equal(hs_intake_event(&h.hs, &h.ctx, room, &intake, &report).code, 0);
    assert_int_equal(report.result, INTAKE_REJECTED);
    peer_room_close(&other);
}

static void an_outlier_gets_its_place_when_it_comes(void **state)
{
    struct intake_report report;
    (void)state;
    size_t topic = peer_member(&r, &by_rob, rob, "join");
    const struct event *event = peer_get(&r, topic);
    assert_int_equal(hs_intake_outlier(&h.hs, &h.ctx, room, event, &report).code, 0);
    assert_int_equal(report.result, INTAKE_ACCEPTED);
    int64_t apart = stored(topic).number;
    assert_true(apart < 0);
    assert_int_equal(take(topic).result, INTAKE_ACCEPTED);
    struct stored_event now = stored(topic);
    assert_int_equal(now.number, hs_room_head(room).number);
    bool found = false;
    struct stored_event old;
    assert_int_equal(hs_event_load(&h.hs, &h.ctx, room, apart, &old, &found).code, 0);
    assert_true(found);
    assert_int_equal(old.number, now.number);
}

static void a_rejected_event_may_be_accepted_later(void **state)
{
    (void)state;
    size_t before = r.count - 1;
    size_t invite = say(&by_rob, &before, 1);
    struct intake_report report;
    size_t told = 3; /* a state in which rob is not there */
    struct event_id poor[4];
    for (size_t i = 0; i < 4; i++) {
        poor[i] = peer_get(&r, i)->id;
    }
    (void)told;
    struct intake intake = {.event = peer_get(&r, invite), .state = poor, .state_count = 4};
    assert_int_equal(hs_intake_event(&h.hs, &h.ctx, room, &intake, &report).code, 0);
    assert_int_equal(report.result, INTAKE_REJECTED);
    assert_int_equal(report.step, INTAKE_STEP_STATE_BEFORE);
    assert_int_equal(take(invite).result, INTAKE_ACCEPTED);
    assert_true(stored(invite).number > 0);
}

/* --- forks --- */

static void a_ban_on_another_branch_undoes_what_the_banned_did(void **state)
{
    (void)state;
    size_t fork = r.count - 1;
    struct peer_draft ria_here = by_ria;
    struct peer_draft rob_here = by_rob;
    ria_here.prev = rob_here.prev = &fork;
    ria_here.prev_count = rob_here.prev_count = 1;
    take(peer_member(&r, &rob_here, rob, "join"));
    size_t ban = peer_member(&r, &ria_here, rob, "ban");
    assert_int_equal(take(ban).result, INTAKE_ACCEPTED);
    assert_int_equal(end_count(), 2);
    assert_int_equal(membership(rob), MEMBERSHIP_BAN);
    assert_int_equal(hs_room_head(room).joined_count, 2);
    /* A local event joins the branches. */
    house_say(&h, room, &ann, "one again");
    assert_int_equal(end_count(), 1);
    assert_int_equal(membership(rob), MEMBERSHIP_BAN);
}

static void a_local_user_banned_on_another_branch_is_out(void **state)
{
    struct user_room entry;
    bool found = false;
    (void)state;
    size_t fork = r.count - 1;
    struct peer_draft ria_here = by_ria;
    ria_here.prev = &fork;
    ria_here.prev_count = 1;
    house_say(&h, room, &ann, "I am here");
    take(peer_member(&r, &ria_here, ann.actor.user_id, "ban"));
    assert_int_equal(membership(ann.actor.user_id), MEMBERSHIP_BAN);
    assert_int_equal(
        hs_user_room(&h.hs, &h.ctx, ann.actor.user, hs_room_info(room).number, &entry, &found).code,
        0);
    assert_int_equal(entry.membership, MEMBERSHIP_BAN);
    uint64_t *users = NULL;
    assert_int_equal(hs_room_local_users(&h.ctx, room, &users), 0);
}

static void a_join_undone_by_resolution_changes_the_users_rooms(void **state)
{
    struct user_room entry;
    bool found = false;
    (void)state;
    struct guest bob = house_guest(&h, "bob");
    size_t fork = r.count - 1;
    house_member(&h, room, &bob, &bob, MEMBERSHIP_JOIN);
    assert_int_equal(membership(bob.actor.user_id), MEMBERSHIP_JOIN);
    struct peer_draft rules = by_ria;
    rules.type = "m.room.join_rules";
    rules.state_key = "";
    rules.content = "{\"join_rule\":\"invite\"}";
    rules.prev = &fork;
    rules.prev_count = 1;
    assert_int_equal(take(peer_make(&r, &rules)).result, INTAKE_ACCEPTED);
    assert_int_equal(membership(bob.actor.user_id), MEMBERSHIP_NONE);
    assert_int_equal(
        hs_user_room(&h.hs, &h.ctx, bob.actor.user, hs_room_info(room).number, &entry, &found).code,
        0);
    assert_int_equal(entry.membership, MEMBERSHIP_LEAVE);
    assert_int_equal(entry.previous, MEMBERSHIP_JOIN);
    assert_int_equal(entry.pos, hs_room_head(room).pos);
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
        CASE(a_rejected_event_may_be_accepted_later),
        CASE(a_ban_on_another_branch_undoes_what_the_banned_did),
        CASE(a_local_user_banned_on_another_branch_is_out),
        CASE(a_join_undone_by_resolution_changes_the_users_rooms),
    };
#undef CASE
    return cmocka_run_group_tests(tests, NULL, NULL);
}
