/* A write path with the store failing at its k-th call, for each k: the error comes back, what is
 * stored stays sound, positions go on, and the same call succeeds when it is made again. */
#pragma once
#include "tests/support/house.h"

struct failing {
    struct house *house;
    void (*furnish)(void);    /* after the house was opened */
    struct err (*step)(void); /* the write path; makes its own arguments */
    void (*check_done)(void); /* after it succeeded; may be NULL */
    void (*check_whole)(
        void); /* after it failed or succeeded: nothing half is there; may be NULL */
};

/* Fails the test unless some call made the step fail. */
void failing_each_call(const struct failing *failing);
