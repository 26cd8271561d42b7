/* Delayed events: their times, their rows, what becomes of them. */
#include "homeserver/service/delayed.h"

#include "homeserver/service/users.h"
#include "tests/support/failing.h"
#include "tests/support/house_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct house h;
static struct guest ann;
static struct room *room;
static struct slice room_id;

static void furnish(void)
{
    ann = house_guest(&h, "ann");
    room = house_room(&h, &ann, "{}");
    room_id = arena_copy(h.conf_arena, hs_room_info(room).room_id);
}

static struct house_plan plan = {&h, furnish};

static struct err schedule_as(const char *txn_id, int64_t delay_ms, const char *content,
                              struct slice *delay_id_out)
{
    int64_t retry_after_ms = 0;
    struct delayed_wish wish = {
        .event = {.user = ann.actor.user,
                  .user_id = ann.actor.user_id,
                  .room_id = room_id,
                  .type = LIT("org.example.later"),
                  .content = slice_of(content),
                  .delay_ms = delay_ms},
        .txn = {.device_id = ann.device_id},
        .retry_after_ms_out = &retry_after_ms,
    };
    if (txn_id) {
        wish.txn.txn_id = slice_of(txn_id);
    }
    return hs_delayed_schedule(&h.hs, &h.ctx, &wish, delay_id_out);
}

static struct slice schedule(int64_t delay_ms, const char *content)
{
    struct slice delay_id;
    assert_int_equal(schedule_as(NULL, delay_ms, content, &delay_id).code, 0);
    return delay_id;
}

static void let_pass(int64_t ms)
{
    h.wall_ms += ms;
    h.mono_ms += ms;
    hs_delayed_run(&h.hs);
}

/* How many were sent, and the content of the newest. */
static size_t sent(struct slice *content_out)
{
    struct stored_events events;
    struct event_range range = {.from = 0, .limit = 1000, .order = EVENTS_FORWARD};
    size_t count = 0;
    house_settle(&h);
    assert_int_equal(hs_room_get_by_id(&h.hs, &h.ctx, room_id, &room).code, 0);
    assert_int_equal(hs_events_read(&h.hs, &h.ctx, room, range, &events).code, 0);
    for (size_t i = 0; i < events.count; i++) {
        if (slice_eq(events.items[i].event.type, LIT("org.example.later"))) {
            count++;
            *content_out = events.items[i].event.content_json;
        }
    }
    return count;
}

static size_t sent_count(void)
{
    struct slice content;
    return sent(&content);
}

static struct delayed_event look(struct slice delay_id)
{
    struct delayed_event event;
    bool found = false;
    assert_int_equal(delayed_row_find(&h.hs, &h.ctx, delay_id, &event, &found).code, 0);
    assert_true(found);
    return event;
}

/* As a restart does: what was in memory is gone. */
static void forget_and_load(int64_t off_ms)
{
    hs_delayed_free(&h.hs.delayed);
    h.wall_ms += off_ms;
    h.hs.delayed = hs_delayed_new(&h.hs);
    assert_int_equal(hs_delayed_load(&h.hs, &h.ctx).code, 0);
}

static void an_event_is_sent_when_due_and_not_before(void **state)
{
    (void)state;
    struct slice delay_id = schedule(1000, "{\"n\":1}");
    let_pass(999);
    assert_int_equal(sent_count(), 0);
    let_pass(1);
    assert_int_equal(sent_count(), 1);
    let_pass(5000);
    assert_int_equal(sent_count(), 1);
    assert_int_equal(look(delay_id).state, DELAYED_SENT);
    assert_true(look(delay_id).event_id.len > 0);
}

static void events_are_sent_in_the_order_of_their_times(void **state)
{
    (void)state;
    struct slice content;
    schedule(300, "{\"n\":3}");
    schedule(100, "{\"n\":1}");
    schedule(200, "{\"n\":2}");
    let_pass(1000);
    assert_int_equal(sent(&content), 3);
    assert_true(slice_eq(content, LIT("{\"n\":3}")));
}

static void a_jump_of_the_wall_clock_hurries_nothing(void **state)
{
    (void)state;
    schedule(1000, "{}");
    h.wall_ms += 3600000;
    hs_delayed_run(&h.hs);
    assert_int_equal(sent_count(), 0);
    h.wall_ms -= 2 * 3600000;
    let_pass(1000);
    assert_int_equal(sent_count(), 1);
}

static void what_was_due_while_off_is_sent_at_the_start(void **state)
{
    (void)state;
    struct slice content;
    schedule(2000, "{\"n\":2}");
    schedule(1000, "{\"n\":1}");
    schedule(9000, "{\"n\":9}");
    forget_and_load(5000);
    let_pass(0);
    assert_int_equal(sent(&content), 2);
    assert_true(slice_eq(content, LIT("{\"n\":2}")));
    let_pass(4000);
    assert_int_equal(sent_count(), 3);
}

static void a_clock_that_was_set_back_while_off_delays_by_no_more_than_asked(void **state)
{
    (void)state;
    schedule(1000, "{}");
    forget_and_load(-3600000);
    let_pass(1000);
    assert_int_equal(sent_count(), 1);
}

static void the_same_transaction_is_scheduled_once(void **state)
{
    (void)state;
    struct slice first, again;
    assert_int_equal(schedule_as("a", 1000, "{}", &first).code, 0);
    assert_int_equal(schedule_as("a", 1000, "{}", &again).code, 0);
    assert_true(slice_eq(first, again));
    let_pass(1000);
    assert_int_equal(sent_count(), 1);
}

static void what_was_sent_before_a_crash_is_not_sent_again(void **state)
{
    (void)state;
    struct delayed_event event = look(schedule(1000, "{}"));
    struct delayed_txn none = {0};
    let_pass(1000);
    event.state = DELAYED_SCHEDULED; /* as if the note that it was sent had been lost */
    assert_int_equal(delayed_row_add(&h.hs, &h.ctx, &event, &none).code, 0);
    forget_and_load(0);
    let_pass(0);
    assert_int_equal(sent_count(), 1);
    assert_int_equal(look(event.delay_id).state, DELAYED_SENT);
}

static void a_cancelled_event_is_never_sent(void **state)
{
    (void)state;
    struct slice delay_id = schedule(1000, "{}");
    assert_int_equal(hs_delayed_cancel(&h.hs, &h.ctx, delay_id).code, 0);
    assert_int_equal(hs_delayed_cancel(&h.hs, &h.ctx, delay_id).code, 0);
    assert_int_equal(hs_delayed_send(&h.hs, &h.ctx, delay_id).code, ERR_M_UNKNOWN_409);
    assert_int_equal(hs_delayed_restart(&h.hs, &h.ctx, delay_id).code, ERR_M_UNKNOWN_409);
    let_pass(1000);
    assert_int_equal(sent_count(), 0);
}

static void a_restart_begins_the_delay_anew(void **state)
{
    (void)state;
    struct slice delay_id = schedule(1000, "{}");
    let_pass(800);
    assert_int_equal(hs_delayed_restart(&h.hs, &h.ctx, delay_id).code, 0);
    let_pass(800);
    assert_int_equal(sent_count(), 0);
    forget_and_load(200);
    let_pass(0);
    assert_int_equal(sent_count(), 1);
}

static void an_event_is_sent_at_once_when_asked_for(void **state)
{
    (void)state;
    struct slice delay_id = schedule(100000, "{}");
    assert_int_equal(hs_delayed_send(&h.hs, &h.ctx, delay_id).code, 0);
    assert_int_equal(hs_delayed_send(&h.hs, &h.ctx, delay_id).code, 0);
    assert_int_equal(hs_delayed_cancel(&h.hs, &h.ctx, delay_id).code, ERR_M_UNKNOWN_409);
    let_pass(100000);
    assert_int_equal(sent_count(), 1);
}

static void what_may_not_be_sent_keeps_its_error(void **state)
{
    (void)state;
    struct slice delay_id = schedule(1000, "{}");
    house_member(&h, room, &ann, &ann, MEMBERSHIP_LEAVE);
    assert_int_equal(hs_delayed_send(&h.hs, &h.ctx, delay_id).code, ERR_M_FORBIDDEN);
    assert_int_equal(look(delay_id).state, DELAYED_SCHEDULED);
    let_pass(1000);
    assert_int_equal(look(delay_id).state, DELAYED_FAILED);
    assert_true(slice_has_prefix(look(delay_id).error, LIT("{\"errcode\":\"M_FORBIDDEN\"")));
}

static void limits_are_kept(void **state)
{
    (void)state;
    struct slice delay_id;
    h.conf.delayed_events_per_user = 2;
    h.conf.delayed_events_max_delay = 5000;
    assert_int_equal(schedule_as(NULL, 5001, "{}", &delay_id).code, ERR_M_FORBIDDEN);
    schedule(5000, "{}");
    schedule(1000, "{}");
    assert_int_equal(schedule_as(NULL, 1000, "{}", &delay_id).code, ERR_M_LIMIT_EXCEEDED);
    let_pass(1000);
    schedule(1000, "{}");
    h.conf.delayed_events_per_user = 0;
    assert_int_equal(schedule_as(NULL, 1000, "{}", &delay_id).code, ERR_M_FORBIDDEN);
}

static void nothing_of_an_account_that_ended_is_sent(void **state)
{
    (void)state;
    struct slice delay_id = schedule(1000, "{}");
    assert_int_equal(
        hs_account_deactivate(&h.hs, &h.ctx, ann.actor.user, ACCOUNT_KEEP_CONTENT).code, 0);
    assert_int_equal(look(delay_id).state, DELAYED_CANCELLED);
    let_pass(1000);
    assert_int_equal(sent_count(), 0);
}

static void unknown_ids_are_not_found(void **state)
{
    (void)state;
    assert_int_equal(hs_delayed_cancel(&h.hs, &h.ctx, LIT("nothing")).code, ERR_M_NOT_FOUND);
    assert_int_equal(hs_delayed_restart(&h.hs, &h.ctx, LIT("nothing")).code, ERR_M_NOT_FOUND);
    assert_int_equal(hs_delayed_send(&h.hs, &h.ctx, LIT("")).code, ERR_M_NOT_FOUND);
}

/* --- with a store that fails --- */

static struct slice kept_id;

static struct err schedule_step(void)
{
    struct slice delay_id;
    return schedule_as("txn", 1000, "{}", &delay_id);
}

static void it_fires_once(void)
{
    let_pass(20000);
    assert_int_equal(sent_count(), 1);
}

static void scheduling_with_a_failing_store(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish, schedule_step, .check_done = it_fires_once});
}

static void furnish_one(void)
{
    furnish();
    kept_id = arena_copy(h.conf_arena, schedule(1000, "{}"));
}

static struct err send_step(void)
{
    return hs_delayed_send(&h.hs, &h.ctx, kept_id);
}

static void sending_with_a_failing_store(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_one, send_step, .check_done = it_fires_once});
}

static struct err restart_step(void)
{
    return hs_delayed_restart(&h.hs, &h.ctx, kept_id);
}

static void restarting_with_a_failing_store(void **state)
{
    (void)state;
    failing_each_call(
        &(struct failing){&h, furnish_one, restart_step, .check_done = it_fires_once});
}

static struct err cancel_step(void)
{
    return hs_delayed_cancel(&h.hs, &h.ctx, kept_id);
}

static void it_never_fires(void)
{
    let_pass(20000);
    assert_int_equal(sent_count(), 0);
}

static void cancelling_with_a_failing_store(void **state)
{
    (void)state;
    failing_each_call(
        &(struct failing){&h, furnish_one, cancel_step, .check_done = it_never_fires});
}

/* The queue swallows errors: the event stays scheduled and comes again. */
static struct err due_step(void)
{
    h.wall_ms += 1000;
    h.mono_ms += 6000;
    hs_delayed_run(&h.hs);
    struct delayed_event event;
    bool found = false;
    TRY(delayed_row_find(&h.hs, &h.ctx, kept_id, &event, &found));
    return event.state == DELAYED_SENT ? OK : err_make(ERR_IO, "not sent yet");
}

static void being_due_with_a_failing_store(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_one, due_step, .check_done = it_fires_once});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(an_event_is_sent_when_due_and_not_before),
        HOUSE_TEST(events_are_sent_in_the_order_of_their_times),
        HOUSE_TEST(a_jump_of_the_wall_clock_hurries_nothing),
        HOUSE_TEST(what_was_due_while_off_is_sent_at_the_start),
        HOUSE_TEST(a_clock_that_was_set_back_while_off_delays_by_no_more_than_asked),
        HOUSE_TEST(the_same_transaction_is_scheduled_once),
        HOUSE_TEST(what_was_sent_before_a_crash_is_not_sent_again),
        HOUSE_TEST(a_cancelled_event_is_never_sent),
        HOUSE_TEST(a_restart_begins_the_delay_anew),
        HOUSE_TEST(an_event_is_sent_at_once_when_asked_for),
        HOUSE_TEST(what_may_not_be_sent_keeps_its_error),
        HOUSE_TEST(limits_are_kept),
        HOUSE_TEST(nothing_of_an_account_that_ended_is_sent),
        HOUSE_TEST(unknown_ids_are_not_found),
        cmocka_unit_test(scheduling_with_a_failing_store),
        cmocka_unit_test(sending_with_a_failing_store),
        cmocka_unit_test(restarting_with_a_failing_store),
        cmocka_unit_test(cancelling_with_a_failing_store),
        cmocka_unit_test(being_due_with_a_failing_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
