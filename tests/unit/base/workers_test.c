#include "homeserver/base/workers.h"

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <cmocka.h>

enum { JOBS = 4000, LANES = 7 };

struct shared {
    struct workers *workers;
    _Atomic int running[LANES]; /* jobs of the lane that run now */
    _Atomic int most;
    int next[LANES]; /* written inside the lane only */
    _Atomic int wrong, done;
    int plain[LANES];
};

struct job {
    struct shared *shared;
    int lane, number;
};

static struct shared shared;
static struct job jobs[JOBS];

static void note_inside(struct job *job)
{
    if (atomic_fetch_add(&job->shared->running[job->lane], 1) != 0) {
        atomic_fetch_add(&job->shared->wrong, 1);
    }
    job->shared->plain[job->lane]++;
    atomic_fetch_sub(&job->shared->running[job->lane], 1);
}

static void run_in_order(void *arg)
{
    struct job *job = arg;
    if (job->shared->next[job->lane]++ != job->number) {
        atomic_fetch_add(&job->shared->wrong, 1);
    }
    note_inside(job);
    atomic_fetch_add(&job->shared->done, 1);
}

static void run_entering(void *arg)
{
    struct job *job = arg;
    uint64_t lane = lane_of_room((uint64_t)job->lane);
    workers_lane_enter(job->shared->workers, lane);
    workers_lane_enter(job->shared->workers, lane);
    note_inside(job);
    workers_lane_leave(job->shared->workers, lane);
    workers_lane_leave(job->shared->workers, lane);
    atomic_fetch_add(&job->shared->done, 1);
}

static int setup(void **state)
{
    shared = (struct shared){.workers = workers_new("test", 4, JOBS)};
    *state = &shared;
    return 0;
}

static void jobs_of_a_lane_run_in_order_and_alone(void **state)
{
    struct shared *all = *state;
    for (int i = 0; i < JOBS; i++) {
        jobs[i] = (struct job){all, i % LANES, i / LANES};
        assert_true(workers_submit(all->workers, lane_of_room((uint64_t)(i % LANES)), run_in_order,
                                   &jobs[i]));
    }
    workers_free(&all->workers);
    assert_null(all->workers);
    assert_int_equal(all->done, JOBS);
    assert_int_equal(all->wrong, 0);
}

static void a_job_enters_a_lane_among_jobs_of_the_lane(void **state)
{
    struct shared *all = *state;
    for (int i = 0; i < JOBS; i++) {
        bool enters = i % 3 != 0;
        jobs[i] = (struct job){all, i % 2, 0};
        uint64_t lane = enters && i % 5 ? 0 : lane_of_room((uint64_t)(i % 2));
        assert_true(workers_submit(all->workers, lane, run_entering, &jobs[i]));
    }
    workers_free(&all->workers);
    assert_int_equal(all->done, JOBS);
    assert_int_equal(all->wrong, 0);
    assert_int_equal(all->plain[0] + all->plain[1], JOBS);
}

static void few_awake_threads_do_all_jobs(void **state)
{
    struct shared *all = *state;
    workers_limit_awake(all->workers, 2);
    for (int i = 0; i < JOBS; i++) {
        bool enters = i % 3 != 0;
        jobs[i] = (struct job){all, i % 2, 0};
        uint64_t lane = enters && i % 5 ? 0 : lane_of_room((uint64_t)(i % 2));
        assert_true(workers_submit(all->workers, lane, run_entering, &jobs[i]));
    }
    workers_free(&all->workers);
    assert_int_equal(all->done, JOBS);
    assert_int_equal(all->wrong, 0);
}

struct meeting {
    sem_t posted, over;
};

static void run_pausing(void *arg)
{
    struct meeting *meeting = arg;
    workers_pause();
    sem_wait(&meeting->posted);
    workers_resume();
    sem_post(&meeting->over);
}

static void run_posting(void *arg)
{
    struct meeting *meeting = arg;
    sem_post(&meeting->posted);
}

static void a_job_that_pauses_lets_another_run(void **state)
{
    struct shared *all = *state;
    struct meeting meeting;
    sem_init(&meeting.posted, 0, 0);
    sem_init(&meeting.over, 0, 0);
    workers_limit_awake(all->workers, 1);
    for (int i = 0; i < 3; i++) {
        assert_true(workers_submit(all->workers, 0, run_pausing, &meeting));
    }
    for (int i = 0; i < 3; i++) {
        assert_true(workers_submit(all->workers, 0, run_posting, &meeting));
    }
    for (int i = 0; i < 3; i++) {
        sem_wait(&meeting.over);
    }
    workers_free(&all->workers);
    sem_destroy(&meeting.posted);
    sem_destroy(&meeting.over);
}

static void a_full_queue_refuses(void **state)
{
    struct shared *all = *state;
    struct workers *small = workers_new("small", 1, 2);
    jobs[0] = (struct job){all, 0, 0};
    workers_lane_enter(small, lane_of_user(1)); /* keeps the jobs below from running */
    assert_true(workers_submit(small, lane_of_user(1), run_in_order, &jobs[0]));
    assert_true(workers_submit(small, lane_of_user(1), run_in_order, &jobs[0]));
    assert_false(workers_submit(small, lane_of_user(1), run_in_order, &jobs[0]));
    assert_int_equal(workers_queued(small), 2);
    workers_lane_leave(small, lane_of_user(1));
    workers_free(&small);
    workers_free(&all->workers);
    assert_int_equal(all->done, 2);
}

static void rooms_and_users_have_different_lanes(void **state)
{
    struct shared *all = *state;
    workers_free(&all->workers);
    for (uint64_t i = 0; i < 100; i++) {
        assert_true(lane_of_room(i) != 0 && lane_of_user(i) != 0);
        assert_true(lane_of_room(i) % 2 != lane_of_user(i) % 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(jobs_of_a_lane_run_in_order_and_alone, setup),
        cmocka_unit_test_setup(a_job_enters_a_lane_among_jobs_of_the_lane, setup),
        cmocka_unit_test_setup(few_awake_threads_do_all_jobs, setup),
        cmocka_unit_test_setup(a_job_that_pauses_lets_another_run, setup),
        cmocka_unit_test_setup(a_full_queue_refuses, setup),
        cmocka_unit_test_setup(rooms_and_users_have_different_lanes, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
