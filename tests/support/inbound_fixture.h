/* For test programs whose tests each begin with a fresh inbound_world: `w`, what opens and closes
 * it, and WITH_WORLD, the row of such a test. Included by the program's one file. */
#pragma once
#include "tests/support/inbound_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct inbound_world *w;

static inline int open_version_1(void **state)
{
    (void)state;
    w = inbound_new("1");
    return 0;
}

static inline int open_version_10(void **state)
{
    (void)state;
    w = inbound_new("10");
    return 0;
}

static inline int open_version_11(void **state)
{
    (void)state;
    w = inbound_new("11");
    return 0;
}

static inline int close_world(void **state)
{
    (void)state;
    inbound_free(&w);
    return 0;
}

#define WITH_VERSION(test, version)                                                                \
    cmocka_unit_test_setup_teardown(test, open_version_##version, close_world)
#define WITH_WORLD(test) WITH_VERSION(test, 11)

static inline struct slice id_of(size_t at)
{
    return peer_get(&w->theirs, at)->id.s;
}
