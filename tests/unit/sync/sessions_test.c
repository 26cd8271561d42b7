/* Entries, marks and waiters over a store in memory; rooms come from a table. */
#include "homeserver/sync/sessions.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

struct fixture {
    struct store *store;
    struct positions *positions;
    struct workers *workers;
    struct sync_sessions *sessions;
    struct ctx ctx;
};

/* User n is joined to rooms n and n + 1, so neighbours share one. */
static struct err rooms_joined(void *arg, struct ctx *ctx, uint64_t user, uint64_t **rooms_out,
                               size_t *count_out)
{
    (void)arg;
    *rooms_out = arena_array(ctx->arena, 2, sizeof **rooms_out);
    (*rooms_out)[0] = user;
    (*rooms_out)[1] = user + 1;
    *count_out = 2;
    return OK;
}

static struct err users_sharing(void *arg, struct ctx *ctx, uint64_t user, uint64_t **users_out,
                                size_t *count_out)
{
    (void)arg;
    *users_out = arena_array(ctx->arena, 2, sizeof **users_out);
    (*users_out)[0] = user - 1;
    (*users_out)[1] = user + 1;
    *count_out = 2;
    return OK;
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    fixture->ctx = (struct ctx){.arena = arena_new()};
    struct store_config store = {.cache_bytes = 1 << 20};
    assert_int_equal(store_open(&store, &fixture->store).code, 0);
    assert_int_equal(positions_open(fixture->store, &fixture->ctx, &fixture->positions).code, 0);
    fixture->workers = workers_new("test", 2, 64);
    fixture->sessions = sync_sessions_new(&(struct sync_sessions_config){
        .positions = fixture->positions,
        .workers = fixture->workers,
        .source = {.rooms_joined = rooms_joined, .users_sharing = users_sharing},
        .users_max = 4,
    });
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    positions_close(&fixture->positions);
    workers_free(&fixture->workers);
    sync_sessions_free(&fixture->sessions);
    store_close(&fixture->store);
    arena_free(&fixture->ctx.arena);
    free(fixture);
    return 0;
}

static uint64_t publish(struct fixture *fixture, struct change change)
{
    change.pos = positions_reserve(fixture->positions);
    positions_complete(fixture->positions, &change, 0);
    positions_wait(fixture->positions, change.pos);
    return change.pos;
}

static struct sync_look look(struct fixture *fixture, uint64_t user, uint64_t since)
{
    struct sync_look look;
    struct err err = sync_sessions_look(fixture->sessions, &fixture->ctx, user, since, &look);
    assert_int_equal(err.code, 0);
    return look;
}

/* Counts wakes; wait_for gives up never: a wake that does not come is a hanging test. */
struct alarm_bell {
    pthread_mutex_t lock;
    pthread_cond_t rung;
    int count;
    struct sync_waiter waiter;
};

static void ring(void *arg)
{
    struct alarm_bell *bell = arg;
    pthread_mutex_lock(&bell->lock);
    bell->count++;
    pthread_cond_signal(&bell->rung);
    pthread_mutex_unlock(&bell->lock);
}

static void bell_init(struct alarm_bell *bell, const char *device)
{
    *bell =
        (struct alarm_bell){.lock = PTHREAD_MUTEX_INITIALIZER, .rung = PTHREAD_COND_INITIALIZER};
    sync_waiter_init(&bell->waiter, slice_of(device), ring, bell);
}

static void wait_for(struct alarm_bell *bell, int count)
{
    pthread_mutex_lock(&bell->lock);
    while (bell->count < count) {
        pthread_cond_wait(&bell->rung, &bell->lock);
    }
    pthread_mutex_unlock(&bell->lock);
}

static void marks_name_the_rooms_that_changed(void **state)
{
    struct fixture *fixture = *state;
    struct sync_look first = look(fixture, 5, 0);
    assert_false(first.complete && first.upto > 0);
    uint64_t pos = publish(fixture, (struct change){.kind = CHANGE_EVENT, .room = 5});
    publish(fixture, (struct change){.kind = CHANGE_RECEIPT, .room = 6});
    publish(fixture, (struct change){.kind = CHANGE_EVENT, .room = 9});
    struct sync_look second = look(fixture, 5, first.upto);
    assert_true(second.complete);
    assert_false(second.nothing);
    assert_int_equal(second.room_count, 2);
    assert_int_equal(second.rooms[0], 5);
    assert_int_equal(look(fixture, 5, pos).room_count, 1);
    assert_true(look(fixture, 5, second.upto).nothing);
}

/* A change in room 5 by user 5, whose reply has not left. */
static uint64_t publish_gated(struct fixture *fixture, struct gate *gate)
{
    return publish(fixture, (struct change){.kind = CHANGE_EVENT, .room = 5, .gate = gate});
}

static void a_users_own_sessions_wait_for_the_reply(void **state)
{
    struct fixture *fixture = *state;
    struct gate *gate = gate_new(5);
    struct alarm_bell own, other;
    bell_init(&own, "");
    bell_init(&other, "");
    uint64_t before = look(fixture, 5, 0).upto;
    assert_true(sync_sessions_wait(fixture->sessions, 5, before, &own.waiter));
    look(fixture, 4, 0);
    assert_true(sync_sessions_wait(fixture->sessions, 4, before, &other.waiter));
    uint64_t pos = publish_gated(fixture, gate);
    wait_for(&other, 1);
    publish_gated(fixture, gate); /* the same request goes on */
    assert_int_equal(look(fixture, 4, before).upto, pos + 1);
    assert_int_equal(look(fixture, 5, before).upto, pos - 1);
    assert_int_equal(own.count, 0);
    gate_open(gate);
    wait_for(&own, 1);
    assert_int_equal(look(fixture, 5, before).upto, pos + 1);
    uint64_t late = publish_gated(fixture, gate); /* open already */
    assert_int_equal(look(fixture, 5, before).upto, late);
    gate_release(&gate);
}

static void a_session_that_is_held_back_can_wait(void **state)
{
    struct fixture *fixture = *state;
    struct gate *gates[2] = {gate_new(5), gate_new(5)};
    struct alarm_bell bell;
    bell_init(&bell, "");
    look(fixture, 5, 0);
    uint64_t first = publish_gated(fixture, gates[0]);
    uint64_t second = publish_gated(fixture, gates[1]);
    assert_true(sync_sessions_wait(fixture->sessions, 5, first - 1, &bell.waiter));
    publish(fixture, (struct change){.kind = CHANGE_RECEIPT, .room = 6});
    assert_int_equal(bell.count, 0);
    gate_open(gates[0]);
    wait_for(&bell, 1);
    assert_int_equal(look(fixture, 5, first - 1).upto, second - 1);
    assert_true(sync_sessions_wait(fixture->sessions, 5, second - 1, &bell.waiter));
    gate_open(gates[1]);
    wait_for(&bell, 2);
    sync_sessions_settle(fixture->sessions, 5);
    assert_int_equal(look(fixture, 5, first).upto, second + 1);
    gate_release(&gates[0]);
    gate_release(&gates[1]);
}

static void a_reply_that_does_not_leave_holds_nothing_for_long(void **state)
{
    struct fixture *fixture = *state;
    struct gate *gate = gate_new(5);
    struct alarm_bell bell;
    bell_init(&bell, "");
    look(fixture, 5, 0);
    uint64_t pos = publish_gated(fixture, gate);
    assert_true(sync_sessions_wait(fixture->sessions, 5, pos - 1, &bell.waiter));
    sync_sessions_settle(fixture->sessions, 5);
    wait_for(&bell, 1);
    assert_int_equal(look(fixture, 5, 0).upto, pos);
    uint64_t next = publish_gated(fixture, gate);
    assert_int_equal(look(fixture, 5, 0).upto, next);
    gate_open(gate);
    gate_release(&gate);
}

static void tokens_from_before_the_entry_are_not_complete(void **state)
{
    struct fixture *fixture = *state;
    uint64_t pos = publish(fixture, (struct change){.kind = CHANGE_EVENT, .room = 5});
    struct sync_look old = look(fixture, 5, pos - 1);
    assert_false(old.complete);
    assert_false(old.nothing);
    assert_true(look(fixture, 5, old.upto).complete);
}

static void joining_a_room_subscribes_and_leaving_ends_it(void **state)
{
    struct fixture *fixture = *state;
    struct sync_look before = look(fixture, 5, 0);
    uint64_t joined =
        publish(fixture, (struct change){.kind = CHANGE_MEMBERSHIP, .room = 40, .user = 5});
    uint64_t talk = publish(fixture, (struct change){.kind = CHANGE_EVENT, .room = 40});
    assert_int_equal(look(fixture, 5, before.upto).room_count, 1);
    assert_int_equal(look(fixture, 5, joined).room_count, 1);
    sync_sessions_leave(fixture->sessions, 5, 40, joined - 1); /* older than the membership */
    uint64_t more = publish(fixture, (struct change){.kind = CHANGE_EVENT, .room = 40});
    assert_int_equal(look(fixture, 5, talk).room_count, 1);
    sync_sessions_leave(fixture->sessions, 5, 40, more);
    publish(fixture, (struct change){.kind = CHANGE_EVENT, .room = 40});
    assert_true(look(fixture, 5, more).nothing);
}

static void a_waiter_is_woken_once_for_many_changes(void **state)
{
    struct fixture *fixture = *state;
    struct alarm_bell bell;
    bell_init(&bell, "D");
    uint64_t upto = look(fixture, 5, 0).upto;
    assert_true(sync_sessions_wait(fixture->sessions, 5, upto, &bell.waiter));
    publish(fixture, (struct change){.kind = CHANGE_EVENT, .room = 77});
    for (int i = 0; i < 10; i++) {
        publish(fixture, (struct change){.kind = CHANGE_EVENT, .room = 5});
    }
    wait_for(&bell, 1);
    assert_false(sync_sessions_cancel(fixture->sessions, &bell.waiter));
    assert_int_equal(bell.count, 1);
    assert_false(sync_sessions_wait(fixture->sessions, 5, upto, &bell.waiter));
}

static void messages_to_another_device_wake_nobody(void **state)
{
    struct fixture *fixture = *state;
    struct alarm_bell bell;
    bell_init(&bell, "D");
    uint64_t upto = look(fixture, 5, 0).upto;
    assert_true(sync_sessions_wait(fixture->sessions, 5, upto, &bell.waiter));
    publish(fixture, (struct change){.kind = CHANGE_TO_DEVICE, .user = 5, .device_id = "E"});
    assert_true(sync_sessions_cancel(fixture->sessions, &bell.waiter));
    upto = look(fixture, 5, upto).upto;
    assert_true(sync_sessions_wait(fixture->sessions, 5, upto, &bell.waiter));
    publish(fixture, (struct change){.kind = CHANGE_TO_DEVICE, .user = 5, .device_id = "D"});
    wait_for(&bell, 1);
}

static void presence_wakes_those_who_share_a_room(void **state)
{
    struct fixture *fixture = *state;
    struct alarm_bell near;
    struct alarm_bell far;
    bell_init(&near, "D");
    bell_init(&far, "D");
    uint64_t upto = look(fixture, 5, 0).upto;
    (void)look(fixture, 50, 0);
    assert_true(sync_sessions_wait(fixture->sessions, 5, upto, &near.waiter));
    assert_true(sync_sessions_wait(fixture->sessions, 50, upto, &far.waiter));
    uint64_t pos = publish(fixture, (struct change){.kind = CHANGE_PRESENCE, .user = 6});
    wait_for(&near, 1);
    assert_true(sync_sessions_cancel(fixture->sessions, &far.waiter));
    struct sync_look after = look(fixture, 5, upto);
    assert_false(after.nothing);
    assert_int_equal(after.shared_pos, pos);
    assert_int_equal(after.room_count, 0);
}

static void the_entry_idle_longest_goes_first_but_no_waiting_one(void **state)
{
    struct fixture *fixture = *state;
    struct alarm_bell bell;
    struct sync_sessions_stats stats;
    bell_init(&bell, "D");
    uint64_t upto = look(fixture, 1, 0).upto;
    assert_true(sync_sessions_wait(fixture->sessions, 1, upto, &bell.waiter));
    for (uint64_t user = 2; user < 20; user++) {
        (void)look(fixture, user, 0);
    }
    sync_sessions_get_stats(fixture->sessions, &stats);
    assert_int_equal(stats.users, 4);
    assert_int_equal(stats.armed, 1);
    assert_int_equal(stats.rooms, 6);
    assert_true(sync_sessions_cancel(fixture->sessions, &bell.waiter));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(marks_name_the_rooms_that_changed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_users_own_sessions_wait_for_the_reply, setup, teardown),
        cmocka_unit_test_setup_teardown(a_session_that_is_held_back_can_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reply_that_does_not_leave_holds_nothing_for_long, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(tokens_from_before_the_entry_are_not_complete, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(joining_a_room_subscribes_and_leaving_ends_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_waiter_is_woken_once_for_many_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(messages_to_another_device_wake_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(presence_wakes_those_who_share_a_room, setup, teardown),
        cmocka_unit_test_setup_teardown(the_entry_idle_longest_goes_first_but_no_waiting_one, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
