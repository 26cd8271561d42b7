/* A bounded pool of worker threads with lanes. Jobs of one lane run one at a time and in order;
 * jobs without a lane (0) run at will. A job may also enter a lane itself for the length of a call,
 * if it holds none. Nobody waits for the network inside a lane. */
#pragma once
#include "homeserver/base/slice.h"

struct workers;

typedef void (*job_fn)(void *arg);

/* A thread is started when there is a job and no thread sleeps, up to `thread_max`. `name` stays
 * the caller's. */
struct workers *workers_new(const char *name, size_t thread_max, size_t queue_max);
/* Runs what is queued, then ends the threads; nothing can be queued afterwards. Pools whose jobs
 * queue jobs in each other are all joined before any is freed. */
void workers_join(struct workers *workers);
/* Joins and frees. */
void workers_free(struct workers **workers);
/* Queues a job; false when the queue is full (answer 503). lane 0 = none. */
bool workers_submit(struct workers *workers, uint64_t lane, job_fn fn, void *arg);
/* Enters a lane from a running job (waits for its turn). Entering the lane that the job already
 * holds is fine and counted; holding another lane is a fault. */
void workers_lane_enter(struct workers *workers, uint64_t lane);
void workers_lane_leave(struct workers *workers, uint64_t lane);
/* At most `awake_max` threads run at once; the others sleep until one of these waits for a lane or
 * pauses. More threads than cores that all run would only switch. Without a call: all run. */
void workers_limit_awake(struct workers *workers, size_t awake_max);
/* Around a long wait or computation in a job: another thread may run meanwhile. Does nothing on
 * threads that belong to no pool. */
void workers_pause(void);
void workers_resume(void);
size_t workers_queued(struct workers *workers);

/* Lane keys: rooms and users never collide with each other. */
uint64_t lane_of_room(uint64_t room_number);
uint64_t lane_of_user(uint64_t user_number);
