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

/* What the other server may say where it is asked for missing events: all that came behind the
 * join, but for the newest. False when it is asked for something else. */
static inline bool lie_with_all(struct inbound_world *world, struct arena *arena, struct slice path,
                                struct json *list_out)
{
    *list_out = json_array();
    if (!slice_contains(path, LIT("/get_missing_events/"))) {
        return false;
    }
    for (size_t i = world->joined + 1; i + 1 < world->theirs.count; i++) {
        json_push(arena, list_out, *event_tree(arena, peer_get(&world->theirs, i)));
    }
    return true;
}

/* {"<name>": list} */
static inline struct slice as_body(struct arena *arena, const char *name, struct json list)
{
    struct json object = json_object();
    json_set(arena, &object, slice_of(name), list);
    return json_canonical(arena, &object);
}
