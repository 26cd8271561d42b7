/* The thread and the jobs of delayed events: who is sent when, and in whose hand it is. */
#include "homeserver/service/delayed_queue.h"

#include <setjmp.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { ROOMS = 4, EACH = 50 };

struct stage {
    struct hs_delayed *queue;
    struct workers *workers;
    struct now now;
    sem_t sent, begun, go;
    bool blocks; /* each sending says that it has begun and waits for `go` */
    _Atomic int count, busy[ROOMS];
    int next[ROOMS]; /* each room's are sent in order, one at a time */
    _Atomic bool is_wrong;
};

static int64_t on_due(void *arg, struct slice delay_id)
{
    struct stage *stage = arg;
    int room = delay_id.ptr[0] - 'a';
    int number = 0;
    sscanf(delay_id.ptr + 1, "%d", &number);
    if (stage->blocks) {
        sem_post(&stage->begun);
        sem_wait(&stage->go);
    }
    if (atomic_fetch_add(&stage->busy[room], 1) != 0 || stage->next[room] != number) {
        stage->is_wrong = true;
    }
    stage->next[room]++;
    atomic_fetch_sub(&stage->busy[room], 1);
    atomic_fetch_add(&stage->count, 1);
    sem_post(&stage->sent);
    return 0;
}

static void open_stage(struct stage *stage)
{
    memset(stage, 0, sizeof *stage);
    stage->now = now_system();
    sem_init(&stage->sent, 0, 0);
    sem_init(&stage->begun, 0, 0);
    sem_init(&stage->go, 0, 0);
    stage->workers = workers_new("test", 4, 1000);
    stage->queue = delayed_queue_new(
        &(struct delayed_queue_config){.now = &stage->now, .due = on_due, .arg = stage});
}

static void close_stage(struct stage *stage)
{
    delayed_queue_stop(stage->queue);
    workers_free(&stage->workers);
    delayed_queue_free(&stage->queue);
}

static struct slice name(char *text, int room, int number)
{
    int len = snprintf(text, 16, "%c%d", 'a' + room, number);
    return (struct slice){text, (size_t)len};
}

static void add(struct stage *stage, int room, int number, int64_t after_ms)
{
    char text[16];
    char room_id[2] = {(char)('A' + room), 0};
    delayed_queue_add(stage->queue, name(text, room, number), slice_of(room_id), after_ms);
}

static void each_room_is_sent_in_order_one_at_a_time(void **state)
{
    struct stage stage;
    (void)state;
    open_stage(&stage);
    delayed_queue_start(stage.queue, stage.workers);
    for (int number = 0; number < EACH; number++) {
        for (int room = 0; room < ROOMS; room++) {
            add(&stage, room, number, number - EACH);
        }
    }
    for (int i = 0; i < ROOMS * EACH; i++) {
        assert_int_equal(sem_wait(&stage.sent), 0);
    }
    close_stage(&stage);
    assert_false(stage.is_wrong);
    assert_int_equal(atomic_load(&stage.count), ROOMS * EACH);
}

static void what_was_taken_and_ended_is_not_sent(void **state)
{
    struct stage stage;
    char text[16];
    (void)state;
    open_stage(&stage);
    add(&stage, 0, 0, -2);
    add(&stage, 0, 7, -1);
    delayed_queue_take(stage.queue, name(text, 0, 7));
    delayed_queue_end(stage.queue, name(text, 0, 7));
    delayed_queue_start(stage.queue, stage.workers);
    assert_int_equal(sem_wait(&stage.sent), 0);
    add(&stage, 0, 1, 0);
    assert_int_equal(sem_wait(&stage.sent), 0);
    close_stage(&stage);
    assert_false(stage.is_wrong);
    assert_int_equal(atomic_load(&stage.count), 2);
}

static void *take_first(void *arg)
{
    struct stage *stage = arg;
    char text[16];
    delayed_queue_take(stage->queue, name(text, 0, 0));
    return (void *)(intptr_t)atomic_load(&stage->count);
}

static void taking_waits_for_the_end_of_a_sending(void **state)
{
    struct stage stage;
    pthread_t thread;
    void *seen = NULL;
    (void)state;
    open_stage(&stage);
    stage.blocks = true;
    delayed_queue_start(stage.queue, stage.workers);
    add(&stage, 0, 0, 0);
    assert_int_equal(sem_wait(&stage.begun), 0);
    assert_int_equal(pthread_create(&thread, NULL, take_first, &stage), 0);
    sem_post(&stage.go);
    assert_int_equal(pthread_join(thread, &seen), 0);
    assert_int_equal(sem_wait(&stage.sent), 0);
    close_stage(&stage);
    assert_int_equal((intptr_t)seen, 1);
    assert_false(stage.is_wrong);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_room_is_sent_in_order_one_at_a_time),
        cmocka_unit_test(what_was_taken_and_ended_is_not_sent),
        cmocka_unit_test(taking_waits_for_the_end_of_a_sending),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
