/* The event stream from before /sync, and who waits for the events of a room. */
#include "homeserver/sync/peek.h"

#include "homeserver/sync/priv.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>

#include <cmocka.h>

static struct house h;
static struct guest ann, ben;
static struct room *room;

static const char open_room[] =
    "{\"preset\":\"public_chat\",\"initial_state\":[{\"type\":\"m.room.history_visibility\","
    "\"content\":{\"history_visibility\":\"world_readable\"}}]}";

static int setup(void **state)
{
    (void)state;
    house_open(&h);
    ann = house_guest(&h, "ann");
    ben = house_guest(&h, "ben");
    room = house_room(&h, &ann, open_room);
    house_settle(&h);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    house_close(&h);
    return 0;
}

struct answer {
    struct json json;
    const struct json *chunk;
    bool news;
    uint64_t upto;
    struct err err;
};

static struct answer peek_as(const struct guest *guest, uint64_t where, uint64_t since)
{
    struct answer answer = {0};
    struct buf body;
    struct sync_peek peek = {.user = guest->actor.user,
                             .user_id = guest->actor.user_id,
                             .device_id = guest->device_id,
                             .room = where,
                             .since = since};
    house_settle(&h);
    buf_init_arena(&body, h.ctx.arena, 1 << 24);
    answer.err = sync_peek_respond(h.hs.sync, &h.ctx, &peek, &body, &answer.news, &answer.upto);
    if (answer.err.code == 0) {
        assert_int_equal(json_parse(h.ctx.arena, buf_slice(&body), &answer.json).code, 0);
        answer.chunk = json_get_array(&answer.json, LIT("chunk"));
    }
    return answer;
}

static uint64_t now_pos(void)
{
    house_settle(&h);
    return positions_published(h.hs.positions);
}

static void a_stranger_sees_the_events_of_an_open_room(void **state)
{
    (void)state;
    uint64_t since = now_pos();
    struct slice said = house_say(&h, room, &ann, "hello");
    struct answer answer = peek_as(&ben, hs_room_info(room).number, since);
    assert_int_equal(answer.err.code, 0);
    assert_true(answer.news);
    assert_int_equal(answer.chunk->count, 1);
    assert_true(json_is_string(json_get(&answer.chunk->items[0], LIT("event_id")), said));
    answer = peek_as(&ben, hs_room_info(room).number, answer.upto);
    assert_false(answer.news);
}

static void a_stranger_sees_nothing_of_a_closed_room(void **state)
{
    (void)state;
    struct room *closed = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    struct answer answer = peek_as(&ben, hs_room_info(closed).number, 0);
    assert_int_equal(answer.err.code, ERR_M_FORBIDDEN);
}

static void all_rooms_come_in_the_order_of_the_stream(void **state)
{
    (void)state;
    struct room *other = house_room(&h, &ann, "{}");
    uint64_t since = now_pos();
    struct slice first = house_say(&h, other, &ann, "one");
    struct slice second = house_say(&h, room, &ann, "two");
    struct slice third = house_say(&h, other, &ann, "three");
    struct answer answer = peek_as(&ann, 0, since);
    assert_int_equal(answer.chunk->count, 3);
    const struct json *items = answer.chunk->items;
    assert_true(json_is_string(json_get(&items[0], LIT("event_id")), first));
    assert_true(json_is_string(json_get(&items[1], LIT("event_id")), second));
    assert_true(json_is_string(json_get(&items[2], LIT("event_id")), third));
    assert_int_equal(peek_as(&ben, 0, since).chunk->count, 0);
}

static void what_does_not_fit_comes_next(void **state)
{
    (void)state;
    enum { SAID = SYNC_PEEK_EVENTS_MAX + 30 };
    uint64_t since = now_pos();
    for (int i = 0; i < SAID; i++) {
        house_say(&h, room, &ann, "again");
    }
    struct answer answer = peek_as(&ann, 0, since);
    assert_int_equal(answer.chunk->count, SYNC_PEEK_EVENTS_MAX);
    answer = peek_as(&ann, 0, answer.upto);
    assert_int_equal(answer.chunk->count, SAID - SYNC_PEEK_EVENTS_MAX);
    assert_false(peek_as(&ann, 0, answer.upto).news);
}

struct alarm {
    sem_t rung;
    _Atomic int count;
};

static void wake(void *arg)
{
    struct alarm *alarm = arg;
    atomic_fetch_add(&alarm->count, 1);
    sem_post(&alarm->rung);
}

static void a_watcher_is_woken_once_by_its_room_alone(void **state)
{
    (void)state;
    struct alarm alarm = {0};
    struct sync_room_watch *watch = h.hs.sync->watch;
    struct sync_watcher watcher = {.wake = wake, .arg = &alarm, .room = hs_room_info(room).number};
    uint64_t upto = now_pos();
    sem_init(&alarm.rung, 0, 0);
    assert_true(sync_room_watch_wait(watch, &watcher, hs_room_head(room).pos, upto));
    struct room *other = house_room(&h, &ann, "{}");
    house_say(&h, other, &ann, "elsewhere");
    house_settle(&h);
    assert_int_equal(atomic_load(&alarm.count), 0);
    house_say(&h, room, &ann, "here");
    house_say(&h, room, &ann, "here again");
    house_settle(&h);
    assert_false(sync_room_watch_wait(watch, &watcher, hs_room_head(room).pos, upto));
    assert_int_equal(sem_wait(&alarm.rung), 0);
    assert_int_equal(atomic_load(&alarm.count), 1);
}

static void a_cancelled_watcher_is_not_woken(void **state)
{
    (void)state;
    struct alarm alarm = {0};
    struct sync_room_watch *watch = h.hs.sync->watch;
    struct sync_watcher watcher = {.wake = wake, .arg = &alarm, .room = hs_room_info(room).number};
    assert_true(sync_room_watch_wait(watch, &watcher, hs_room_head(room).pos, now_pos()));
    assert_true(sync_room_watch_cancel(watch, &watcher));
    assert_false(sync_room_watch_cancel(watch, &watcher));
    house_say(&h, room, &ann, "here");
    house_settle(&h);
    assert_int_equal(atomic_load(&alarm.count), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_stranger_sees_the_events_of_an_open_room),
        TEST(a_stranger_sees_nothing_of_a_closed_room),
        TEST(all_rooms_come_in_the_order_of_the_stream),
        TEST(what_does_not_fit_comes_next),
        TEST(a_watcher_is_woken_once_by_its_room_alone),
        TEST(a_cancelled_watcher_is_not_woken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
