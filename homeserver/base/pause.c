#include "homeserver/base/pause.h"

#include <sys/random.h>
#include <time.h>

int64_t pause_after_failures(uint32_t failures, int64_t least_ms, int64_t most_ms)
{
    uint32_t random = 0;
    int64_t pause = least_ms;
    for (uint32_t i = 1; i < failures && pause < most_ms; i++) {
        pause *= 2;
    }
    pause = pause > most_ms ? most_ms : pause;
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) {
        random = failures;
    }
    return pause - pause / 5 + (int64_t)(random % (uint32_t)(pause / 5 * 2 + 1));
}

void pause_on(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t wait_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += wait_ms / 1000;
    until.tv_nsec += wait_ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(cond, lock, &until);
}

int64_t pause_earlier(int64_t a, int64_t b)
{
    if (a == 0 || b == 0) {
        return a + b;
    }
    return a < b ? a : b;
}
