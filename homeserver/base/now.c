#include "homeserver/base/now.h"

#include <stddef.h>
#include <time.h>

static int64_t read_us(clockid_t id)
{
    struct timespec at;
    clock_gettime(id, &at);
    return (int64_t)at.tv_sec * 1000000 + at.tv_nsec / 1000;
}

static int64_t system_wall_ms(void *arg)
{
    (void)arg;
    return read_us(CLOCK_REALTIME) / 1000;
}

static int64_t system_mono_ms(void *arg)
{
    (void)arg;
    return read_us(CLOCK_MONOTONIC) / 1000;
}

struct now now_system(void)
{
    return (struct now){.wall_ms_fn = system_wall_ms, .mono_ms_fn = system_mono_ms};
}

int64_t now_wall_ms(const struct now *now)
{
    return now->wall_ms_fn(now->arg);
}

int64_t now_mono_ms(const struct now *now)
{
    return now->mono_ms_fn(now->arg);
}

int64_t now_mono_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}
