/* Threads that a user follows, also with a store that fails. */
#include "homeserver/service/thread_subs.h"

#include "tests/support/failing.h"
#include "tests/support/house_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct house h;
static struct guest ann;
static uint64_t room;

static void furnish(void)
{
    ann = house_guest(&h, "ann");
    room = hs_room_info(house_room(&h, &ann, "{}")).number;
}

static struct house_plan plan = {&h, furnish};

static struct err follow(int64_t cause)
{
    struct thread_sub_wish wish = {ann.actor.user, room, LIT("$root"), cause};
    return hs_thread_subscribe(&h.hs, &h.ctx, &wish);
}

static struct err unfollow(int64_t newest)
{
    struct thread_sub_wish wish = {ann.actor.user, room, LIT("$root"), newest};
    return hs_thread_unsubscribe(&h.hs, &h.ctx, &wish);
}

static struct thread_sub look(void)
{
    struct thread_sub sub = {0};
    bool found = false;
    assert_int_equal(
        hs_thread_sub_get(&h.hs, &h.ctx, ann.actor.user, room, LIT("$root"), &sub, &found).code, 0);
    return sub;
}

static size_t changed_since(uint64_t since)
{
    struct thread_subs subs;
    struct thread_sub_window window = {since, UINT64_MAX - 1, 10};
    assert_int_equal(hs_thread_subs_changed(&h.hs, &h.ctx, ann.actor.user, window, &subs).code, 0);
    return subs.count;
}

static void what_the_user_chose_stays(void **state)
{
    (void)state;
    assert_int_equal(follow(5).code, 0);
    assert_true(look().automatic);
    assert_int_equal(follow(0).code, 0);
    assert_false(look().automatic);
    assert_int_equal(follow(9).code, 0);
    assert_false(look().automatic);
}

static void what_the_user_left_is_not_followed_by_older_events(void **state)
{
    (void)state;
    assert_int_equal(follow(5).code, 0);
    assert_int_equal(unfollow(7).code, 0);
    assert_int_equal(follow(7).code, ERR_M_CONFLICTING_UNSUBSCRIPTION);
    assert_false(look().subscribed);
    assert_int_equal(follow(8).code, 0);
    assert_true(look().subscribed);
}

static void each_thread_is_told_once(void **state)
{
    (void)state;
    assert_int_equal(follow(0).code, 0);
    uint64_t first = look().pos;
    assert_int_equal(changed_since(0), 1);
    assert_int_equal(changed_since(first), 0);
    assert_int_equal(unfollow(1).code, 0);
    assert_int_equal(changed_since(0), 1);
    assert_int_equal(changed_since(first), 1);
    uint64_t second = look().pos;
    assert_int_equal(unfollow(2).code, 0);
    assert_int_equal(changed_since(second), 0);
}

static struct err follow_step(void)
{
    return follow(0);
}

static void it_is_followed(void)
{
    assert_true(look().subscribed);
    assert_int_equal(changed_since(0), 1);
}

static void following_with_a_failing_store(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish, follow_step, .check_done = it_is_followed});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(what_the_user_chose_stays),
        HOUSE_TEST(what_the_user_left_is_not_followed_by_older_events),
        HOUSE_TEST(each_thread_is_told_once),
        cmocka_unit_test(following_with_a_failing_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
