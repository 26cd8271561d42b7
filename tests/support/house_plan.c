#include "tests/support/house_plan.h"

int house_setup(void **state)
{
    const struct house_plan *plan = *state;
    house_open(plan->house);
    plan->furnish();
    return 0;
}

int house_teardown(void **state)
{
    const struct house_plan *plan = *state;
    house_close(plan->house);
    return 0;
}
