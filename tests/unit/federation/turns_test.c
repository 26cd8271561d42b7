#include "federation/turns.h"

#include "homeserver/base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

struct waiter {
    struct turn turn;
    int woken;
    bool gave_up;
};

static bool wake(struct turn *turn)
{
    struct waiter *waiter = (struct waiter *)turn;
    waiter->woken++;
    return !waiter->gave_up;
}

static struct waiter waiter_of(size_t bytes)
{
    return (struct waiter){.turn = {.wake = wake, .bytes = bytes}};
}

static void one_transaction_of_an_origin_runs_at_a_time(void **state)
{
    struct turns *turns = turns_new();
    (void)state;
    assert_true(turns_enter(turns, LIT("a")));
    assert_false(turns_enter(turns, LIT("a")));
    turns_leave(turns, LIT("a"));
    assert_true(turns_enter(turns, LIT("a")));
    turns_free(&turns);
}

static void origins_do_not_wait_for_each_other(void **state)
{
    struct turns *turns = turns_new();
    (void)state;
    assert_true(turns_enter(turns, LIT("slow")));
    assert_true(turns_enter(turns, LIT("quick")));
    turns_free(&turns);
}

static void who_waits_comes_in_order(void **state)
{
    struct turns *turns = turns_new();
    struct waiter first = waiter_of(1);
    struct waiter second = waiter_of(1);
    (void)state;
    assert_true(turns_enter(turns, LIT("a")));
    assert_true(turns_queue(turns, LIT("a"), &first.turn));
    assert_true(turns_queue(turns, LIT("a"), &second.turn));
    assert_int_equal(first.woken, 0);
    turns_leave(turns, LIT("a"));
    assert_int_equal(first.woken, 1);
    assert_int_equal(second.woken, 0);
    assert_false(turns_enter(turns, LIT("a")));
    turns_leave(turns, LIT("a"));
    assert_int_equal(second.woken, 1);
    turns_leave(turns, LIT("a"));
    assert_true(turns_enter(turns, LIT("a")));
    turns_free(&turns);
}

static void who_gave_up_is_passed_over(void **state)
{
    struct turns *turns = turns_new();
    struct waiter gone = waiter_of(1);
    struct waiter next = waiter_of(1);
    struct waiter withdrawn = waiter_of(1);
    (void)state;
    gone.gave_up = true;
    assert_true(turns_enter(turns, LIT("a")));
    assert_true(turns_queue(turns, LIT("a"), &withdrawn.turn));
    assert_true(turns_queue(turns, LIT("a"), &gone.turn));
    assert_true(turns_queue(turns, LIT("a"), &next.turn));
    assert_true(turns_withdraw(turns, LIT("a"), &withdrawn.turn));
    assert_false(turns_withdraw(turns, LIT("a"), &withdrawn.turn));
    turns_leave(turns, LIT("a"));
    assert_int_equal(withdrawn.woken, 0);
    assert_int_equal(next.woken, 1);
    turns_free(&turns);
}

static void who_comes_as_the_origin_falls_idle_has_its_turn(void **state)
{
    struct turns *turns = turns_new();
    struct waiter late = waiter_of(1);
    (void)state;
    assert_true(turns_enter(turns, LIT("a")));
    turns_leave(turns, LIT("a"));
    assert_true(turns_queue(turns, LIT("a"), &late.turn));
    assert_int_equal(late.woken, 1);
    assert_false(turns_enter(turns, LIT("a")));
    turns_free(&turns);
}

static void what_an_origin_keeps_waiting_is_bounded(void **state)
{
    struct turns *turns = turns_new();
    struct waiter waiters[20];
    struct waiter large = waiter_of(65 << 20);
    size_t queued = 0;
    (void)state;
    assert_true(turns_enter(turns, LIT("a")));
    for (size_t i = 0; i < COUNT_OF(waiters); i++) {
        waiters[i] = waiter_of(1);
        queued += turns_queue(turns, LIT("a"), &waiters[i].turn) ? 1 : 0;
    }
    assert_int_equal(queued, 4);
    assert_true(turns_enter(turns, LIT("b")));
    assert_false(turns_queue(turns, LIT("b"), &large.turn));
    turns_free(&turns);
}

static bool recalls(struct turns *turns, const char *origin, const char *txn_id, const char *body)
{
    struct buf out;
    uint64_t ticket = 0;
    buf_init(&out, 1000);
    bool found = turns_recall(turns, slice_of(origin), slice_of(txn_id), &out, &ticket) &&
                 slice_eq(buf_slice(&out), slice_of(body)) && ticket == 7;
    buf_deinit(&out);
    return found;
}

static void an_answer_is_given_again(void **state)
{
    struct turns *turns = turns_new();
    (void)state;
    assert_true(turns_enter(turns, LIT("a")));
    turns_remember(turns, LIT("a"), LIT("1"), LIT("{}"), 7);
    assert_true(recalls(turns, "a", "1", "{}"));
    assert_false(recalls(turns, "a", "2", "{}"));
    assert_false(recalls(turns, "b", "1", "{}"));
    turns_remember(turns, LIT("a"), LIT("2"), LIT("[]"), 7);
    assert_true(recalls(turns, "a", "1", "{}"));
    assert_true(recalls(turns, "a", "2", "[]"));
    turns_free(&turns);
}

static void memory_for_many_origins_is_bounded(void **state)
{
    struct turns *turns = turns_new();
    char name[32];
    (void)state;
    for (int i = 0; i < 10000; i++) {
        struct slice origin = {name, (size_t)snprintf(name, sizeof name, "origin%d", i)};
        assert_true(turns_enter(turns, origin));
        turns_remember(turns, origin, LIT("1"), LIT("{}"), 7);
        turns_leave(turns, origin);
    }
    assert_false(recalls(turns, "origin0", "1", "{}"));
    assert_true(recalls(turns, "origin9999", "1", "{}"));
    turns_free(&turns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_transaction_of_an_origin_runs_at_a_time),
        cmocka_unit_test(origins_do_not_wait_for_each_other),
        cmocka_unit_test(who_waits_comes_in_order),
        cmocka_unit_test(who_gave_up_is_passed_over),
        cmocka_unit_test(who_comes_as_the_origin_falls_idle_has_its_turn),
        cmocka_unit_test(what_an_origin_keeps_waiting_is_bounded),
        cmocka_unit_test(an_answer_is_given_again),
        cmocka_unit_test(memory_for_many_origins_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
