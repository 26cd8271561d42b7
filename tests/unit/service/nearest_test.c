/* The event of a room that is nearest to a moment. */
#include "homeserver/service/nearest.h"
#include "tests/support/house_plan.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct house h;
static struct guest ann;
static struct room *room;

static void furnish(void)
{
    ann = house_guest(&h, "ann");
    room = house_room(&h, &ann, "{}");
}

static struct house_plan plan = {&h, furnish};

static struct slice say_at(int64_t ts_ms)
{
    struct hs_sent sent;
    struct hs_draft draft = {.sender = ann.actor.user_id,
                             .sender_number = ann.actor.user,
                             .type = LIT("m.room.message"),
                             .content = json_object(),
                             .origin_server_ts = ts_ms};
    json_set(h.ctx.arena, &draft.content, LIT("body"), json_string(LIT("x")));
    assert_int_equal(hs_send(&h.hs, &h.ctx, room, &draft, &sent).code, 0);
    return arena_copy(h.conf_arena, sent.event_id);
}

static void assert_nearest(struct nearest_query query, struct slice wanted)
{
    struct stored_event event;
    bool found = false;
    assert_int_equal(hs_event_nearest(&h.hs, &h.ctx, room, query, &event, &found).code, 0);
    assert_int_equal(found, wanted.len > 0);
    if (found) {
        assert_true(slice_eq(event.event.id.s, wanted));
    }
}

static void of_one_moment_the_nearest_on_the_way_is_taken(void **state)
{
    int64_t now = h.wall_ms;
    (void)state;
    struct slice early = say_at(now + 10);
    struct slice first = say_at(now + 20);
    struct slice second = say_at(now + 20);
    assert_nearest((struct nearest_query){now + 20, NEAREST_BEFORE, NULL}, second);
    assert_nearest((struct nearest_query){now + 20, NEAREST_AFTER, NULL}, first);
    assert_nearest((struct nearest_query){now + 19, NEAREST_BEFORE, NULL}, early);
    assert_nearest((struct nearest_query){now + 25, NEAREST_BEFORE, NULL}, second);
    assert_nearest((struct nearest_query){now + 21, NEAREST_AFTER, NULL}, (struct slice){0});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(of_one_moment_the_nearest_on_the_way_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
