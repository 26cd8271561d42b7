/* History from before the join; redactions that come before their targets; invites from elsewhere;
 * many forward extremities; failures of the store. */
#include "tests/support/away.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { CALLS_MAX = 120 };

static struct away a;
static size_t old[4]; /* messages from before the join, each after the one before it */

static int open_house(void **state)
{
    (void)state;
    away_open(&a, "10");
    for (size_t i = 0; i < 4; i++) {
        old[i] = away_say(&a, i % 2 ? &a.by_ria : &a.by_rob, NULL, 0);
    }
    away_join(&a, AWAY_WHOLE);
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    away_close(&a);
    return 0;
}

static struct err fill(size_t first, size_t count, size_t *added_out)
{
    const struct event *events[4];
    struct event_id ids[16];
    const struct resolve_set *before = &a.r.events[old[first]].before;
    for (size_t i = 0; i < count; i++) {
        events[i] = peer_get(&a.r, old[first + i]);
    }
    for (size_t i = 0; i < before->count; i++) {
        ids[i] = before->items[i].event;
    }
    struct intake_history history = {
        .events = events, .count = count, .state = ids, .state_count = before->count};
    return hs_intake_history(&a.h.hs, &a.h.ctx, a.room, &history, added_out);
}

static size_t edge_count(struct intake_edge **edges_out)
{
    size_t count = 0;
    assert_int_equal(hs_intake_edges(&a.h.hs, &a.h.ctx, a.room, edges_out, &count).code, 0);
    return count;
}

static void history_is_placed_below(void **state)
{
    struct intake_edge *edges = NULL;
    struct stored_events events;
    size_t added = 0;
    (void)state;
    assert_int_equal(edge_count(&edges), 1);
    assert_true(ids_event_eq(edges[0].missing, peer_get(&a.r, old[3])->id));
    assert_int_equal(edges[0].cited_by, hs_room_head(a.room).number);
    assert_int_equal(fill(2, 2, &added).code, 0);
    assert_int_equal(added, 2);
    assert_int_equal(edge_count(&edges), 1);
    assert_true(ids_event_eq(edges[0].missing, peer_get(&a.r, old[1])->id));
    assert_int_equal(fill(0, 4, &added).code, 0);
    assert_int_equal(added, 2);
    struct event_range range = {
        .from = hs_room_head(a.room).number, .limit = 10, .order = EVENTS_REVERSE};
    assert_int_equal(hs_events_read(&a.h.hs, &a.h.ctx, a.room, range, &events).code, 0);
    assert_int_equal(events.count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_true(events.items[i].number < 0);
        assert_true(ids_event_eq(events.items[i].event.id, peer_get(&a.r, old[3 - i])->id));
    }
    assert_int_equal(away_end_count(&a), 1);
}

static void forged_history_is_left_out(void **state)
{
    size_t added = 0;
    struct event forged = *peer_get(&a.r, old[1]);
    (void)state;
    forged.sender = ids_trust_user(LIT("@nobody:far"));
    forged.id = ids_trust_event(LIT("$forged"));
    const struct event *events[] = {&forged};
    const struct resolve_set *before = &a.r.events[old[1]].before;
    struct event_id ids[16];
    for (size_t i = 0; i < before->count; i++) {
        ids[i] = before->items[i].event;
    }
    struct intake_history history = {
        .events = events, .count = 1, .state = ids, .state_count = before->count};
    assert_int_equal(hs_intake_history(&a.h.hs, &a.h.ctx, a.room, &history, &added).code, 0);
    assert_int_equal(added, 0);
}

static size_t redact(size_t target, const struct peer_draft *by)
{
    struct peer_draft draft = *by;
    draft.type = "m.room.redaction";
    draft.content = "{}";
    draft.redacts = arena_cstr(a.r.arena_owned, peer_get(&a.r, target)->id.s);
    return peer_make(&a.r, &draft);
}

static void a_redaction_waits_for_its_target(void **state)
{
    size_t added = 0;
    (void)state;
    size_t redaction = redact(old[2], &a.by_rob);
    assert_int_equal(away_take(&a, redaction).result, INTAKE_ACCEPTED);
    assert_true(away_stored(&a, redaction).flags & EVENT_WITHHELD);
    away_expect_sound(&a);
    assert_int_equal(fill(2, 2, &added).code, 0);
    assert_int_equal(added, 2);
    struct stored_event target = away_stored(&a, old[2]);
    assert_true(target.flags & EVENT_REDACTED);
    assert_int_equal(target.redacted_by, away_stored(&a, redaction).number);
    assert_null(json_get_string(target.event.content, LIT("body")).ptr);
    assert_int_equal(away_stored(&a, redaction).flags & EVENT_WITHHELD, 0);
}

static void a_redaction_that_may_not_be_applied_is_not_shown(void **state)
{
    (void)state;
    house_say(&a.h, a.room, &a.ann, "mine");
    struct event_id *ends = NULL;
    size_t count = 0;
    assert_int_equal(hs_room_extremities(&a.h.hs, &a.h.ctx, a.room, &ends, &count).code, 0);
    struct peer_draft draft = a.by_rob;
    draft.type = "m.room.redaction";
    draft.content = "{}";
    draft.redacts = arena_cstr(a.r.arena_owned, ends[0].s);
    size_t redaction = peer_make(&a.r, &draft);
    assert_int_equal(away_take(&a, redaction).result, INTAKE_ACCEPTED);
    assert_true(away_stored(&a, redaction).flags & EVENT_WITHHELD);
}

/* --- invites --- */

static struct user_room entry_of(struct guest *guest, struct slice room_id)
{
    struct user_room entry = {0};
    uint64_t number = 0;
    bool found = false;
    assert_int_equal(hs_room_find(&a.h.hs, &a.h.ctx, room_id, &number, &found).code, 0);
    assert_true(found);
    assert_int_equal(
        hs_user_room(&a.h.hs, &a.h.ctx, guest->actor.user, number, &entry, &found).code, 0);
    return entry;
}

static void an_invite_is_kept_and_turned_down(void **state)
{
    struct peer_room other;
    struct json stripped;
    (void)state;
    peer_room_open(&other, "12", &a.far, a.ria);
    size_t invite = peer_member(&other, &a.by_ria, a.ann.actor.user_id, "invite");
    assert_int_equal(
        json_parse(a.h.ctx.arena,
                   LIT("[{\"type\":\"m.room.name\",\"state_key\":\"\",\"sender\":\"@ria:far\","
                       "\"content\":{\"name\":\"n\"},\"depth\":9}]"),
                   &stripped)
            .code,
        0);
    struct intake_invite given = {.room_id = other.room_id,
                                  .version = LIT("12"),
                                  .event = peer_get(&other, invite),
                                  .room_state = &stripped};
    assert_int_equal(hs_intake_invite(&a.h.hs, &a.h.ctx, &given).code, 0);
    struct user_room entry = entry_of(&a.ann, other.room_id);
    assert_int_equal(entry.membership, MEMBERSHIP_INVITE);
    assert_true(slice_contains(entry.invite_state, LIT("\"name\":\"n\"")));
    assert_false(slice_contains(entry.invite_state, LIT("depth")));
    assert_true(slice_contains(entry.invite_state, LIT("\"membership\":\"invite\"")));
    away_expect_sound(&a);
    assert_int_equal(
        hs_intake_uninvite(&a.h.hs, &a.h.ctx, other.room_id, a.ann.actor.user, NULL).code, 0);
    assert_int_equal(entry_of(&a.ann, other.room_id).membership, MEMBERSHIP_LEAVE);
    peer_room_close(&other);
}

static void a_wrong_version_told_by_an_invite_binds_nobody(void **state)
{
    struct peer_room other;
    struct room *room = NULL;
    (void)state;
    peer_room_open(&other, "11", &a.far, a.ria);
    size_t invite = peer_member(&other, &a.by_ria, a.ann.actor.user_id, "invite");
    struct intake_invite given = {
        .room_id = LIT("!room2:far"), .version = LIT("9"), .event = peer_get(&other, invite)};
    assert_int_equal(hs_intake_invite(&a.h.hs, &a.h.ctx, &given).code, 0);
    house_next_job(&a.h);
    given.version = LIT("11");
    assert_int_equal(hs_intake_invite(&a.h.hs, &a.h.ctx, &given).code, 0);
    assert_int_equal(hs_room_get_by_id(&a.h.hs, &a.h.ctx, given.room_id, &room).code, 0);
    assert_string_equal(hs_room_info(room).rules->version.ptr, "11");
    peer_room_close(&other);
}

/* --- many ends --- */

static void many_ends_are_tidied_up(void **state)
{
    (void)state;
    size_t from = a.r.count - 1;
    for (size_t i = 0; i < 1000; i++) {
        away_take(&a, away_say(&a, i % 2 ? &a.by_ria : &a.by_rob, &from, 1));
        if (i % 100 == 0) {
            house_next_job(&a.h);
            assert_int_equal(hs_room_get_by_id(&a.h.hs, &a.h.ctx, a.r.room_id, &a.room).code, 0);
        }
    }
    assert_true(away_end_count(&a) < 24);
    house_say(&a.h, a.room, &a.ann, "one");
    house_say(&a.h, a.room, &a.ann, "two");
    assert_int_equal(away_end_count(&a), 1);
}

/* Synapse CVE-2026-45076. */
static void a_giant_depth_is_no_obstacle(void **state)
{
    (void)state;
    struct peer_draft draft = a.by_rob;
    draft.type = "m.room.message";
    draft.content = "{}";
    draft.depth = 9007199254740991;
    assert_int_equal(away_take(&a, peer_make(&a.r, &draft)).result, INTAKE_ACCEPTED);
    house_say(&a.h, a.room, &a.ann, "deep");
    house_say(&a.h, a.room, &a.ann, "deeper");
    assert_int_equal(away_end_count(&a), 1);
}

/* --- failures --- */

static void reload(void)
{
    house_next_job(&a.h);
    assert_int_equal(hs_room_get_by_id(&a.h.hs, &a.h.ctx, a.r.room_id, &a.room).code, 0);
}

/* Takes the event with the store failing at the k-th call, for each k until it works. */
static void take_with_failures(size_t at)
{
    struct intake_report report;
    struct err err = {.code = 1};
    int failed = 0;
    for (int k = 1; k < CALLS_MAX * 4 && err.code != 0; k++) {
        struct intake intake = {.event = peer_get(&a.r, at)};
        store_fail_after(a.h.hs.store, k);
        err = hs_intake_event(&a.h.hs, &a.h.ctx, a.room, &intake, &report);
        store_fail_after(a.h.hs.store, 0);
        failed += err.code != 0;
        reload();
        away_expect_sound(&a);
    }
    assert_int_equal(err.code, 0);
    assert_true(report.result == INTAKE_ACCEPTED || report.result == INTAKE_KNOWN ||
                report.result == INTAKE_SOFT_FAILED);
    assert_true(failed > 0);
}

static void an_event_on_a_fork_fails_whole(void **state)
{
    (void)state;
    size_t fork = a.r.count - 1;
    struct peer_draft ria_here = a.by_ria;
    struct peer_draft rob_here = a.by_rob;
    ria_here.prev = rob_here.prev = &fork;
    ria_here.prev_count = rob_here.prev_count = 1;
    away_take(&a, peer_member(&a.r, &rob_here, a.rob, "join"));
    take_with_failures(peer_member(&a.r, &ria_here, a.rob, "ban"));
    assert_int_equal(away_membership(&a, a.rob), MEMBERSHIP_BAN);
    take_with_failures(away_say(&a, &a.by_rob, &fork, 1));
}

static void history_may_be_filled_again_after_a_failure(void **state)
{
    struct err err = {.code = 1};
    size_t added = 0;
    (void)state;
    for (int k = 1; k < CALLS_MAX * 4 && err.code != 0; k++) {
        store_fail_after(a.h.hs.store, k);
        err = fill(0, 4, &added);
        store_fail_after(a.h.hs.store, 0);
        reload();
        away_expect_sound(&a);
    }
    assert_int_equal(err.code, 0);
    for (size_t i = 0; i < 4; i++) {
        assert_true(away_stored(&a, old[i]).number < 0);
    }
}

/* The same with what lies below the join, as it is fetched for clients. */
static struct err fill_below_join(size_t first, size_t *added_out)
{
    const struct event *events[4];
    struct event_id ids[16];
    const struct resolve_set *before = &a.r.events[old[first]].before;
    for (size_t i = first; i < 4; i++) {
        events[i - first] = peer_get(&a.r, old[i]);
    }
    for (size_t i = 0; i < before->count; i++) {
        ids[i] = before->items[i].event;
    }
    struct intake_history history = {.events = events,
                                     .count = 4 - first,
                                     .before = hs_room_head(a.room).number,
                                     .state = ids,
                                     .state_count = before->count};
    return hs_intake_history(&a.h.hs, &a.h.ctx, a.room, &history, added_out);
}

/* How many of the page are here: always the oldest, in their order, with the edge above them. */
static size_t expect_oldest_in_order(void)
{
    struct intake_edge *edges = NULL;
    struct stored_events events;
    struct event_range range = {
        .from = hs_room_head(a.room).number, .limit = 10, .order = EVENTS_REVERSE};
    assert_int_equal(hs_events_read(&a.h.hs, &a.h.ctx, a.room, range, &events).code, 0);
    for (size_t i = 0; i < events.count; i++) {
        size_t at = events.count - 1 - i;
        assert_true(ids_event_eq(events.items[i].event.id, peer_get(&a.r, old[at])->id));
    }
    size_t count = edge_count(&edges);
    bool open_above = false;
    for (size_t i = 0; i < count; i++) {
        open_above = open_above || edges[i].cited_by == range.from;
    }
    assert_int_equal(open_above, events.count < 4);
    return events.count;
}

/* A server that is killed in the middle of a page: whatever part of the writes it made. */
static void a_page_of_history_that_broke_off_is_completed_in_order(void **state)
{
    size_t broken = 0;
    struct err err = {.code = 1};
    for (int k = 1; k < CALLS_MAX * 4 && err.code != 0; k++) {
        size_t added = 0;
        close_house(state);
        open_house(state);
        store_fail_after(a.h.hs.store, k);
        err = fill_below_join(0, &added);
        store_fail_after(a.h.hs.store, 0);
        reload();
        size_t here = expect_oldest_in_order();
        broken += here > 0 && here < 4;
        if (here < 4) {
            assert_int_equal(fill_below_join(here, &added).code, 0);
            assert_int_equal(added, 4 - here);
        }
        assert_int_equal(expect_oldest_in_order(), 4);
    }
    assert_int_equal(err.code, 0);
    assert_true(broken > 0);
}

static void a_join_that_failed_leaves_nothing_to_see(void **state)
{
    struct err err = {.code = 1};
    (void)state;
    away_close(&a);
    away_open(&a, "12");
    for (int k = 1; k < CALLS_MAX * 10 && err.code != 0; k += 7) {
        struct room *there = NULL;
        store_fail_after(a.h.hs.store, k);
        err = away_try_join(&a, AWAY_WHOLE);
        store_fail_after(a.h.hs.store, 0);
        house_next_job(&a.h);
        if (err.code != 0 && hs_room_get_by_id(&a.h.hs, &a.h.ctx, a.r.room_id, &there).code == 0) {
            assert_int_equal(hs_room_head(there).number, 0);
            assert_false(hs_room_is_resident(there));
        }
        away_expect_sound(&a);
    }
    assert_int_equal(err.code, 0);
    reload();
    house_say(&a.h, a.room, &a.ann, "in at last");
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, open_house, close_house)
    const struct CMUnitTest tests[] = {
        CASE(history_is_placed_below),
        CASE(forged_history_is_left_out),
        CASE(a_redaction_waits_for_its_target),
        CASE(a_redaction_that_may_not_be_applied_is_not_shown),
        CASE(an_invite_is_kept_and_turned_down),
        CASE(a_wrong_version_told_by_an_invite_binds_nobody),
        CASE(many_ends_are_tidied_up),
        CASE(a_giant_depth_is_no_obstacle),
        CASE(an_event_on_a_fork_fails_whole),
        CASE(history_may_be_filled_again_after_a_failure),
        CASE(a_page_of_history_that_broke_off_is_completed_in_order),
        CASE(a_join_that_failed_leaves_nothing_to_see),
    };
#undef CASE
    return cmocka_run_group_tests(tests, NULL, NULL);
}
