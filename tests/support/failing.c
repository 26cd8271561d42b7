#include "tests/support/failing.h"

#include "homeserver/service/check.h"

#include <stdio.h>

enum { CALLS_MAX = 400, QUIET_MAX = 3 };

static void must(struct err err, const char *what, int k)
{
    if (err.code != 0) {
        fprintf(stderr, "%s, with call %d failing: %s\n", what, k, err.text);
    }
    ASSERT(err.code == 0);
}

static void print(void *arg, const struct check_difference *d)
{
    fprintf(stderr, "call %d left: %s %.*s %lld: %s\n", *(int *)arg, check_index_name(d->index),
            (int)d->room_id.len, d->room_id.ptr, (long long)d->number, d->what);
}

static void expect_sound(const struct failing *failing, int k)
{
    struct house *house = failing->house;
    struct check_result result;
    struct check_options options = {.report = print, .arg = &k};
    ctx_finish(&house->ctx);
    house_settle(house);
    must(hs_check(&house->hs, &house->ctx, &options, &result), "check", k);
    ASSERT(result.differences == 0);
    if (failing->check_whole) {
        failing->check_whole();
    }
}

/* True when the step failed. */
static bool fail_call(const struct failing *failing, int k)
{
    struct house *house = failing->house;
    house_open(house);
    failing->furnish();
    ctx_finish(&house->ctx);
    store_fail_after(house->hs.store, k);
    struct err err = failing->step();
    store_fail_after(house->hs.store, 0);
    expect_sound(failing, k);
    if (err.code != 0) {
        must(failing->step(), "the second attempt", k);
        expect_sound(failing, k);
    }
    if (failing->check_done) {
        failing->check_done();
    }
    house_close(house);
    return err.code != 0;
}

/* A step may swallow an error of a call that does not matter: only several in a row say that there
 * are no more calls. */
void failing_each_call(const struct failing *failing)
{
    int failed = 0;
    int quiet = 0;
    for (int k = 1; k <= CALLS_MAX && quiet < QUIET_MAX; k++) {
        bool fails = fail_call(failing, k);
        failed += fails ? 1 : 0;
        quiet = fails ? 0 : quiet + 1;
    }
    ASSERT(failed > 0);
    ASSERT(quiet == QUIET_MAX);
}
