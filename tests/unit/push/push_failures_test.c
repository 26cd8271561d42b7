/* What push writes, with the store failing at its k-th call. */
#include "homeserver/push/push_priv.h"

#include "tests/support/failing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct house h;
static struct guest ann, ben;
static struct push *push;
static struct change change;
static _Atomic size_t sent;

static struct err fetch(void *arg, struct ctx *ctx, const struct http_fetch_request *request,
                        struct http_fetch_reply *reply_out)
{
    (void)arg;
    (void)ctx;
    (void)request;
    sent++;
    *reply_out = (struct http_fetch_reply){.status = 200, .body = LIT("{\"rejected\":[]}")};
    return OK;
}

static struct err set_pusher(void)
{
    struct pusher pusher = {
        .app_id = LIT("app"),
        .pushkey = LIT("key"),
        .device_id = ben.device_id,
        .json = LIT("{\"data\":{\"url\":\"https://a.example/x\"},\"kind\":\"http\"}")};
    return hs_pusher_set(&h.hs, &h.ctx, ben.actor.user, &pusher, PUSHER_APPEND);
}

static void furnish_users(void)
{
    sent = 0;
    ann = house_guest(&h, "ann");
    ben = house_guest(&h, "ben");
}

/* A pusher, and a message that nobody has looked at. The consumer's thread does not run. */
static void furnish_message(void)
{
    struct push_config config = {.port = {.fetch = fetch}};
    furnish_users();
    struct room *room = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    house_member(&h, room, &ben, &ben, MEMBERSHIP_JOIN);
    assert_int_equal(set_pusher().code, 0);
    house_say(&h, room, &ann, "hello");
    house_settle(&h);
    change = (struct change){.kind = CHANGE_EVENT,
                             .pos = hs_room_head(room).pos,
                             .room = hs_room_info(room).number,
                             .number = hs_room_head(room).number};
    h.hs.waiters = workers_new("waiter", 1, 10);
    push = push_new(&h.hs, &config);
}

static void furnish_row(void)
{
    furnish_message();
    assert_int_equal(push_on_change(push, &h.ctx, &change).code, 0);
}

static size_t rows(void)
{
    struct push_items items;
    assert_int_equal(hs_push_read(&h.hs, &h.ctx, ben.actor.user,
                                  hs_pusher_name(&h.ctx, LIT("app"), LIT("key")), 0, &items)
                         .code,
                     0);
    return items.count;
}

static struct err decide(void)
{
    return push_on_change(push, &h.ctx, &change);
}

static void close_push(void)
{
    push_abandon(push);
    workers_free(&h.hs.waiters);
    push_free(&push);
}

static void there_is_one_row(void)
{
    assert_int_equal(rows(), 1);
    close_push();
}

static struct err send_it(void)
{
    h.wall_ms += 10000;
    push_pump(push);
    pthread_mutex_lock(&push->lock);
    while (push->sending > 0) {
        pthread_cond_wait(&push->calm, &push->lock);
    }
    bool waits = push->waiting != NULL;
    pthread_mutex_unlock(&push->lock);
    return waits ? err_make(ERR_IO, "the job failed") : OK;
}

static void it_was_sent(void)
{
    assert_int_equal(rows(), 0);
    assert_true(sent == 1 || sent == 2); /* the answer came, and could not be written down */
    close_push();
}

static void an_event_is_queued_once(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_message, decide, there_is_one_row, NULL});
}

static void what_is_queued_is_sent(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_row, send_it, it_was_sent, NULL});
}

static void pushers_are_set_whole(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_users, set_pusher, NULL, NULL});
}

static void furnish_pusher(void)
{
    furnish_users();
    assert_int_equal(set_pusher().code, 0);
}

static struct err delete_pusher(void)
{
    return hs_pusher_delete(&h.hs, &h.ctx, ben.actor.user, LIT("app"), LIT("key"));
}

static void pushers_are_deleted_whole(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_pusher, delete_pusher, NULL, NULL});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_is_queued_once),
        cmocka_unit_test(what_is_queued_is_sent),
        cmocka_unit_test(pushers_are_set_whole),
        cmocka_unit_test(pushers_are_deleted_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
