/* Waiting: how long after a failure, and on a condition for a while. */
#pragma once
#include <pthread.h>
#include <stdint.h>

/* Milliseconds until the next try: `least_ms` after the first failure, twice as long after each
 * further one, at most `most_ms`; give or take a fifth, so that not all come at once. */
int64_t pause_after_failures(uint32_t failures, int64_t least_ms, int64_t most_ms);
/* Waits on a condition of CLOCK_MONOTONIC, `wait_ms` at most. Lock held. */
void pause_on(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t wait_ms);
/* The earlier of two times at which something is due; 0 = nothing is. */
int64_t pause_earlier(int64_t a, int64_t b);
