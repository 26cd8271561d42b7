/* cmocka's set-up and tear-down for tests in a house. HOUSE_TEST is a test whose file has a `plan`.
 */
#pragma once
#include "tests/support/house.h"

struct house_plan {
    struct house *house;
    void (*furnish)(void); /* after the house was opened */
};
int house_setup(void **state);
int house_teardown(void **state);
#define HOUSE_TEST(test)                                                                           \
    cmocka_unit_test_prestate_setup_teardown(test, house_setup, house_teardown, &plan)
