/* For test programs of sync: a house with alice and bob. Included by the program's one file. */
#pragma once
#include "tests/support/house.h"

#include <stdlib.h>

struct fixture {
    struct house house;
    struct guest alice, bob;
};

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    house_open(&f->house);
    f->alice = house_guest(&f->house, "alice");
    f->bob = house_guest(&f->house, "bob");
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    house_close(&f->house);
    free(f);
    return 0;
}
