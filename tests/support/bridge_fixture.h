/* For test programs about one application service, "fax", of one server. Included by the program's
 * one file. */
#pragma once
#include "tests/support/bridge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct house h;
static struct bridge fax;

/* `more` goes to its registration. */
static inline void open_bridge(const char *more)
{
    house_open(&h);
    bridge_open(&fax, &h, more);
}

static inline int close_all(void **state)
{
    (void)state;
    bridge_close(&fax);
    house_close(&h);
    return 0;
}
