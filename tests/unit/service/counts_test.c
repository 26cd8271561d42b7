/* Notification counts of ben in a room where ann speaks. */
#include "homeserver/service/prefs.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/signals.h"
#include "tests/support/house.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static struct house h;
static struct guest ann, ben;
static struct room *room;

static int open_house(void **state)
{
    (void)state;
    house_open(&h);
    ann = house_guest(&h, "ann");
    ben = house_guest(&h, "ben");
    room = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    house_member(&h, room, &ben, &ben, MEMBERSHIP_JOIN);
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    house_close(&h);
    return 0;
}

static struct unread_counts counts_at(uint64_t pos)
{
    struct unread_counts counts;
    assert_int_equal(hs_unread_counts(&h.hs, &h.ctx, room, ben.actor.user, pos, &counts).code, 0);
    return counts;
}

static struct unread_counts counts(void)
{
    return counts_at(positions_newest(h.hs.positions));
}

static uint32_t total(void)
{
    return counts().notify_all;
}

static uint32_t in_thread(struct slice root)
{
    struct unread_counts all = counts();
    for (size_t i = 0; i < all.thread_count; i++) {
        if (slice_eq(all.threads[i].thread, root)) {
            return all.threads[i].notify;
        }
    }
    return 0;
}

static struct slice relate(const char *type, const char *rel_type, struct slice target)
{
    struct slice content =
        arena_printf(h.ctx.arena,
                     "{\"msgtype\":\"m.text\",\"body\":\"x\",\"m.relates_to\":{\"rel_type\":\"%s\","
                     "\"event_id\":\"%.*s\",\"key\":\"k\"}}",
                     rel_type, (int)target.len, target.ptr);
    return house_send(&h, room, &ann, type, content.ptr);
}

static struct slice reply(struct slice root)
{
    return relate("m.room.message", "m.thread", root);
}

/* thread: ptr NULL = unthreaded. */
static uint32_t read_as(const char *type, struct slice event_id, struct slice thread)
{
    struct json name = json_string(thread);
    struct receipt_request request = {
        .type = slice_of(type), .event_id = event_id, .thread_id = thread.ptr ? &name : NULL};
    return hs_receipt_request(&h.hs, &h.ctx, room, &ben.actor, &request).code;
}

static void must_read(struct slice event_id, struct slice thread)
{
    assert_int_equal(read_as("m.read", event_id, thread), 0);
}

static const struct slice unthreaded = {0};

static void messages_count_until_they_are_read(void **state)
{
    (void)state;
    house_say(&h, room, &ann, "one");
    struct slice two = house_say(&h, room, &ann, "two");
    assert_int_equal(total(), 2);
    must_read(two, unthreaded);
    assert_int_equal(total(), 0);
    house_say(&h, room, &ann, "three");
    assert_int_equal(total(), 1);
}

static void a_private_receipt_reads_too(void **state)
{
    (void)state;
    struct slice one = house_say(&h, room, &ann, "one");
    assert_int_equal(read_as("m.read.private", one, unthreaded), 0);
    assert_int_equal(total(), 0);
}

static void an_older_receipt_brings_nothing_back(void **state)
{
    (void)state;
    struct slice one = house_say(&h, room, &ann, "one");
    struct slice two = house_say(&h, room, &ann, "two");
    must_read(two, unthreaded);
    must_read(one, unthreaded);
    assert_int_equal(total(), 0);
    must_read(LIT("$unknown-event"), unthreaded);
    assert_int_equal(total(), 0);
}

static void speaking_reads_what_came_before(void **state)
{
    (void)state;
    house_say(&h, room, &ann, "one");
    house_say(&h, room, &ben, "answer");
    assert_int_equal(total(), 0);
    house_say(&h, room, &ann, "two");
    assert_int_equal(total(), 1);
}

static void speaking_in_a_thread_reads_that_thread(void **state)
{
    (void)state;
    struct slice root = house_say(&h, room, &ann, "root");
    reply(root);
    struct slice content = arena_printf(
        h.ctx.arena,
        "{\"body\":\"me\",\"m.relates_to\":{\"rel_type\":\"m.thread\",\"event_id\":\"%.*s\"}}",
        (int)root.len, root.ptr);
    house_send(&h, room, &ben, "m.room.message", content.ptr);
    assert_int_equal(in_thread(root), 0);
    assert_int_equal(counts().main.notify, 1);
}

static void mentions_highlight(void **state)
{
    (void)state;
    house_send(&h, room, &ann, "m.room.message",
               "{\"body\":\"hey\",\"m.mentions\":{\"user_ids\":[\"@ben:test\"]}}");
    house_say(&h, room, &ann, "one");
    struct unread_counts all = counts();
    assert_int_equal(all.notify_all, 2);
    assert_int_equal(all.highlight_all, 1);
}

static void forget_rows(void)
{
    row_cache_drop_room(h.hs.rooms->rows_owned, room->number);
}

static void say_much(void)
{
    for (size_t i = 0; i < 90; i++) {
        house_say(&h, room, &ann, "more");
    }
}

static void counting_begins_where_one_spoke_last(void **state)
{
    (void)state;
    say_much();
    house_say(&h, room, &ben, "mine");
    house_say(&h, room, &ann, "one");
    house_say(&h, room, &ann, "two");
    forget_rows();
    assert_int_equal(total(), 2);
}

static void speaking_elsewhere_does_not_read_a_thread(void **state)
{
    (void)state;
    struct slice root = house_say(&h, room, &ann, "root");
    reply(root);
    say_much();
    house_say(&h, room, &ben, "mine");
    house_say(&h, room, &ann, "one");
    forget_rows();
    assert_int_equal(total(), 2);
    assert_int_equal(in_thread(root), 1);
}

static void rows_that_are_not_in_memory_count_the_same(void **state)
{
    (void)state;
    struct slice root = house_say(&h, room, &ann, "root");
    say_much();
    reply(root);
    house_send(&h, room, &ann, "m.room.message", "{\"body\":\"Ben?\"}");
    forget_rows();
    struct unread_counts all = counts();
    assert_int_equal(all.notify_all, 93);
    assert_int_equal(all.highlight_all, 1);
    assert_int_equal(in_thread(root), 1);
}

static void names_highlight_without_mentions_alone(void **state)
{
    (void)state;
    house_send(&h, room, &ann, "m.room.message", "{\"body\":\"ben-jo (BEN)\"}");
    house_send(&h, room, &ann, "m.room.message", "{\"body\":\"benny\"}");
    house_send(&h, room, &ann, "m.room.message", "{\"body\":\"ben\",\"m.mentions\":{}}");
    struct unread_counts all = counts();
    assert_int_equal(all.notify_all, 3);
    assert_int_equal(all.highlight_all, 1);
}

static void threads_are_counted_by_themselves(void **state)
{
    (void)state;
    struct slice root = house_say(&h, room, &ann, "root");
    reply(root);
    reply(root);
    assert_int_equal(counts().main.notify, 1);
    assert_int_equal(in_thread(root), 2);
    assert_int_equal(total(), 3);
}

static void a_threaded_receipt_reads_its_thread_alone(void **state)
{
    (void)state;
    struct slice root = house_say(&h, room, &ann, "root");
    struct slice first = reply(root);
    house_say(&h, room, &ann, "main");
    reply(root);
    must_read(root, LIT("main"));
    assert_int_equal(counts().main.notify, 1);
    assert_int_equal(in_thread(root), 2);
    must_read(first, root);
    assert_int_equal(counts().main.notify, 1);
    assert_int_equal(in_thread(root), 1);
}

static void an_unthreaded_receipt_reads_threads_up_to_it(void **state)
{
    (void)state;
    struct slice root = house_say(&h, room, &ann, "root");
    reply(root);
    struct slice main_event = house_say(&h, room, &ann, "main");
    reply(root);
    must_read(main_event, unthreaded);
    assert_int_equal(counts().main.notify, 0);
    assert_int_equal(in_thread(root), 1);
}

/* A reaction to a reference to the root is the newest of the thread. */
static void relations_of_the_root_may_mark_the_thread(void **state)
{
    (void)state;
    struct slice root = house_say(&h, room, &ann, "root");
    reply(root);
    struct slice reference = relate("m.room.message", "m.reference", root);
    struct slice reaction = relate("m.reaction", "m.annotation", reference);
    must_read(reaction, root);
    assert_int_equal(in_thread(root), 0);
    assert_int_equal(counts().main.notify, 2);
}

static void a_receipt_must_fit_its_thread(void **state)
{
    (void)state;
    struct slice root = house_say(&h, room, &ann, "root");
    struct slice first = reply(root);
    struct slice other = house_say(&h, room, &ann, "other");
    assert_int_equal(read_as("m.read", other, root), ERR_M_INVALID_PARAM);
    assert_int_equal(read_as("m.read", first, LIT("main")), ERR_M_INVALID_PARAM);
    assert_int_equal(read_as("m.read", first, first), ERR_M_INVALID_PARAM);
    assert_int_equal(read_as("m.read", first, LIT("")), ERR_M_INVALID_PARAM);
    assert_int_equal(read_as("m.fully_read", other, LIT("main")), ERR_M_INVALID_PARAM);
    assert_int_equal(read_as("m.seen", other, unthreaded), ERR_M_INVALID_PARAM);
    assert_int_equal(read_as("m.read", root, root), 0);
}

static void a_reaction_to_a_reply_counts_for_its_thread(void **state)
{
    (void)state;
    struct slice root = house_say(&h, room, &ann, "root");
    struct slice first = reply(root);
    relate("m.room.message", "m.reference", first);
    assert_int_equal(counts().main.notify, 1);
    assert_int_equal(in_thread(root), 2);
}

static void what_is_redacted_does_not_count(void **state)
{
    struct hs_sent sent;
    struct json content = json_object();
    struct send_request request = {.actor = &ann.actor, .content = &content};
    (void)state;
    struct slice one = house_say(&h, room, &ann, "one");
    assert_int_equal(hs_redact(&h.hs, &h.ctx, room, &request, one, &sent).code, 0);
    assert_int_equal(total(), 0);
}

static void what_is_redacted_later_counts_no_more(void **state)
{
    struct hs_sent sent;
    struct json content = json_object();
    struct send_request request = {.actor = &ann.actor, .content = &content};
    (void)state;
    struct slice one = house_say(&h, room, &ann, "one");
    house_say(&h, room, &ann, "two");
    assert_int_equal(total(), 2);
    assert_int_equal(hs_redact(&h.hs, &h.ctx, room, &request, one, &sent).code, 0);
    assert_int_equal(total(), 1);
}

/* Threads come and go; each is counted by itself all the same. */
static void many_threads_are_told_apart(void **state)
{
    struct slice root = {0};
    (void)state;
    for (int i = 0; i < 300; i++) {
        root = house_say(&h, room, &ann, "root");
        struct slice newest = reply(root);
        assert_int_equal(in_thread(root), 1);
        must_read(newest, i % 2 ? root : unthreaded);
        assert_int_equal(in_thread(root), 0);
    }
    reply(root);
    assert_int_equal(in_thread(root), 1);
}

static void ignored_senders_do_not_count(void **state)
{
    (void)state;
    house_say(&h, room, &ann, "one");
    assert_int_equal(total(), 1);
    assert_int_equal(hs_account_data_put(&h.hs, &h.ctx, ben.actor.user, 0,
                                         LIT("m.ignored_user_list"),
                                         LIT("{\"ignored_users\":{\"@ann:test\":{}}}"))
                         .code,
                     0);
    assert_int_equal(total(), 0);
}

/* What a sync up to an earlier position shows must not hold what came later. */
static void counts_are_those_of_the_position(void **state)
{
    (void)state;
    house_say(&h, room, &ann, "one");
    uint64_t then = positions_newest(h.hs.positions);
    house_say(&h, room, &ann, "two");
    assert_int_equal(total(), 2);
    assert_int_equal(counts_at(then).notify_all, 1);
    assert_int_equal(total(), 2);
}

static void nothing_counts_for_those_who_left(void **state)
{
    (void)state;
    house_say(&h, room, &ann, "one");
    house_member(&h, room, &ben, &ben, MEMBERSHIP_LEAVE);
    assert_int_equal(total(), 0);
    house_say(&h, room, &ann, "two");
    house_member(&h, room, &ben, &ben, MEMBERSHIP_JOIN);
    assert_int_equal(total(), 0);
}

static struct err store_rules(void *arg, struct ctx *ctx, struct json *stored)
{
    return json_parse(ctx->arena, slice_of(arg), stored);
}

static void set_rules(char *json)
{
    struct err err = hs_push_rules_edit(&h.hs, &h.ctx, ben.actor.user, store_rules, json);
    assert_int_equal(err.code, 0);
}

static void *count_as_another(void *arg)
{
    struct ctx ctx = {.arena = arena_new(), .now = &h.now};
    struct unread_counts counts = {0};
    uint64_t pos = positions_newest(h.hs.positions);
    struct err err = hs_unread_counts(&h.hs, &ctx, room, ben.actor.user, pos, &counts);
    *(uint32_t *)arg = err.code == 0 ? counts.notify_all : UINT32_MAX;
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return NULL;
}

/* What did not count under the old rules does not begin to, however many ask. */
static void two_sessions_count_alike_after_a_change_of_rules(void **state)
{
    (void)state;
    set_rules("{\"global\":{\"content\":[{\"rule_id\":\"x\",\"pattern\":\"quiet\","
              "\"actions\":[]}]}}");
    for (int i = 0; i < 30; i++) {
        house_say(&h, room, &ann, "quiet");
    }
    assert_int_equal(total(), 0);
    set_rules("{}");
    for (uint32_t i = 1; i <= 100; i++) {
        enum { SESSIONS = 4 };
        pthread_t threads[SESSIONS];
        uint32_t found[SESSIONS] = {0};
        house_say(&h, room, &ann, "loud");
        for (size_t j = 0; j < SESSIONS; j++) {
            pthread_create(&threads[j], NULL, count_as_another, &found[j]);
        }
        for (size_t j = 0; j < SESSIONS; j++) {
            pthread_join(threads[j], NULL);
            assert_int_equal(found[j], i);
        }
    }
}

#define IN_HOUSE(test) cmocka_unit_test_setup_teardown(test, open_house, close_house)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_HOUSE(two_sessions_count_alike_after_a_change_of_rules),
        IN_HOUSE(messages_count_until_they_are_read),
        IN_HOUSE(a_private_receipt_reads_too),
        IN_HOUSE(an_older_receipt_brings_nothing_back),
        IN_HOUSE(speaking_reads_what_came_before),
        IN_HOUSE(speaking_in_a_thread_reads_that_thread),
        IN_HOUSE(mentions_highlight),
        IN_HOUSE(counting_begins_where_one_spoke_last),
        IN_HOUSE(speaking_elsewhere_does_not_read_a_thread),
        IN_HOUSE(rows_that_are_not_in_memory_count_the_same),
        IN_HOUSE(names_highlight_without_mentions_alone),
        IN_HOUSE(threads_are_counted_by_themselves),
        IN_HOUSE(a_threaded_receipt_reads_its_thread_alone),
        IN_HOUSE(an_unthreaded_receipt_reads_threads_up_to_it),
        IN_HOUSE(relations_of_the_root_may_mark_the_thread),
        IN_HOUSE(a_receipt_must_fit_its_thread),
        IN_HOUSE(a_reaction_to_a_reply_counts_for_its_thread),
        IN_HOUSE(what_is_redacted_does_not_count),
        IN_HOUSE(what_is_redacted_later_counts_no_more),
        IN_HOUSE(many_threads_are_told_apart),
        IN_HOUSE(ignored_senders_do_not_count),
        IN_HOUSE(counts_are_those_of_the_position),
        IN_HOUSE(nothing_counts_for_those_who_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
