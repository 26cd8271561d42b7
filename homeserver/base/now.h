/* Wall and monotonic time behind a struct, so that tests can set it. */
#pragma once
#include <stdint.h>

struct now {
    int64_t (*wall_ms_fn)(void *arg); /* milliseconds since 1970-01-01 UTC */
    int64_t (*mono_ms_fn)(void *arg); /* milliseconds, never goes back */
    void *arg;
};

/* The machine's clocks. */
struct now now_system(void);
int64_t now_wall_ms(const struct now *now);
int64_t now_mono_ms(const struct now *now);
/* Monotonic microseconds of the machine, for measuring durations. */
int64_t now_mono_us(void);
