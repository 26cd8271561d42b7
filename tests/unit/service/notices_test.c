/* The room of server notices of each user, also with a store that fails. */
#include "homeserver/service/notices.h"

#include "homeserver/service/entering.h"
#include "homeserver/service/invite_filter.h"
#include "homeserver/service/prefs.h"
#include "tests/support/failing.h"
#include "tests/support/house_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct house h;
static struct guest ann;

static void furnish(void)
{
    h.conf.server_notices_enabled = true;
    ann = house_guest(&h, "ann");
}

static struct house_plan plan = {&h, furnish};

static struct err tell(const char *txn_id, struct slice *event_id_out)
{
    struct account account;
    bool found = false;
    struct json content = hs_notice_text(h.ctx.arena, LIT("hello"));
    struct notice notice = {.content = &content};
    if (txn_id) {
        notice.txn_id = slice_of(txn_id);
    }
    h.wall_ms++;
    TRY(hs_account_get(&h.hs, &h.ctx, ann.actor.user, &account, &found));
    assert_true(found);
    return hs_notice_send(&h.hs, &h.ctx, &account, &notice, event_id_out);
}

/* The one room that ann is invited to or in. */
static struct user_room room_of_ann(void)
{
    struct user_rooms rooms;
    house_settle(&h);
    assert_int_equal(hs_user_rooms(&h.hs, &h.ctx, ann.actor.user, &rooms).code, 0);
    assert_int_equal(rooms.count, 1);
    return rooms.items[0];
}

static struct err leave(void)
{
    struct room *room = NULL;
    TRY(hs_room_get(&h.hs, &h.ctx, room_of_ann().room, &room));
    return hs_room_leave(&h.hs, &h.ctx, &ann.actor, hs_room_info(room).room_id, (struct slice){0});
}

static void join(void)
{
    struct room *room = NULL;
    assert_int_equal(hs_room_get(&h.hs, &h.ctx, room_of_ann().room, &room).code, 0);
    house_member(&h, room, &ann, &ann, MEMBERSHIP_JOIN);
}

static struct err kick_oneself(void)
{
    struct room *room = NULL;
    assert_int_equal(hs_room_get(&h.hs, &h.ctx, room_of_ann().room, &room).code, 0);
    return hs_member_kick(&h.hs, &h.ctx, room, &ann.actor, ann.actor.user_id, (struct slice){0});
}

static void a_notice_invites_to_a_tagged_room(void **state)
{
    (void)state;
    struct slice event_id;
    struct slice tags;
    bool found = false;
    assert_int_equal(tell(NULL, &event_id).code, 0);
    struct user_room mine = room_of_ann();
    assert_int_equal(mine.membership, MEMBERSHIP_INVITE);
    assert_int_equal(
        hs_account_data_get(&h.hs, &h.ctx, ann.actor.user, mine.room, LIT("m.tag"), &tags, &found)
            .code,
        0);
    assert_true(found);
    assert_true(slice_contains(tags, LIT("m.server_notice")));
}

static void the_invite_cannot_be_refused_but_the_room_be_left(void **state)
{
    (void)state;
    struct slice event_id;
    assert_int_equal(tell(NULL, &event_id).code, 0);
    assert_int_equal(leave().code, ERR_M_CANNOT_LEAVE_SERVER_NOTICE_ROOM);
    assert_int_equal(kick_oneself().code, ERR_M_CANNOT_LEAVE_SERVER_NOTICE_ROOM);
    join();
    assert_int_equal(leave().code, 0);
    uint64_t room = room_of_ann().room;
    assert_int_equal(tell(NULL, &event_id).code, 0);
    assert_int_equal(room_of_ann().room, room);
    assert_int_equal(room_of_ann().membership, MEMBERSHIP_INVITE);
}

static void the_same_transaction_is_one_notice(void **state)
{
    (void)state;
    struct slice first, again;
    assert_int_equal(tell("a", &first).code, 0);
    assert_int_equal(tell("a", &again).code, 0);
    assert_true(slice_eq(first, again));
}

static void notices_reach_who_blocks_invites(void **state)
{
    (void)state;
    struct slice event_id;
    enum invite_verdict verdict = INVITE_ALLOWED;
    assert_int_equal(hs_account_data_put(&h.hs, &h.ctx, ann.actor.user, 0,
                                         LIT("m.invite_permission_config"),
                                         LIT("{\"default_action\":\"block\"}"))
                         .code,
                     0);
    assert_int_equal(
        hs_invite_verdict(&h.hs, &h.ctx, ann.actor.user, LIT("@ben:test"), &verdict).code, 0);
    assert_int_equal(verdict, INVITE_BLOCKED);
    assert_int_equal(tell(NULL, &event_id).code, 0);
    assert_int_equal(room_of_ann().membership, MEMBERSHIP_INVITE);
}

static void notices_that_are_off_are_refused(void **state)
{
    (void)state;
    struct slice event_id;
    h.conf.server_notices_enabled = false;
    assert_int_equal(tell(NULL, &event_id).code, ERR_M_FORBIDDEN);
}

/* --- with a store that fails --- */

static struct err tell_step(void)
{
    struct slice event_id;
    return tell("once", &event_id);
}

static void she_is_invited_to_one_room(void)
{
    assert_int_equal(room_of_ann().membership, MEMBERSHIP_INVITE);
}

static void telling_with_a_failing_store(void **state)
{
    (void)state;
    failing_each_call(
        &(struct failing){&h, furnish, tell_step, .check_done = she_is_invited_to_one_room});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(a_notice_invites_to_a_tagged_room),
        HOUSE_TEST(the_invite_cannot_be_refused_but_the_room_be_left),
        HOUSE_TEST(the_same_transaction_is_one_notice),
        HOUSE_TEST(notices_reach_who_blocks_invites),
        HOUSE_TEST(notices_that_are_off_are_refused),
        cmocka_unit_test(telling_with_a_failing_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
