/* The outbox over a house and a network that tests play: order, retries, restarts, catching up,
 * many dead servers. */
#include "federation/outbox.h"

#include "homeserver/base/mem.h"
#include "homeserver/service/destinations.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/users.h"
#include "tests/support/house.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { IDS_MAX = 20000, LETTERS_MAX = 2000, HELD_MAX = 2000, THREADS = 4 };

/* What the servers of the world got. */
struct letter {
    char destination[64], txn_id[32];
    size_t pdus, edus;
    uint64_t hash;
    int status;
};
struct network {
    pthread_mutex_t lock;
    struct arena *arena;
    struct letter letters[LETTERS_MAX];
    size_t count;
    struct slice ids[IDS_MAX]; /* hashes of PDUs in the order of arrival, of accepted letters */
    size_t id_count;
    struct slice edus; /* of the last letter that had some */
    int status;        /* 0: no answer */
    const char *dead;  /* servers with this prefix never answer */
    size_t attempts_dead;
    const char *refuse; /* a PDU that holds this text fails its transaction */
    const char *silent; /* servers with this prefix neither answer nor refuse */
    const char *near;   /* servers with this prefix have a connection; NULL: nobody */
    size_t early_max;   /* how many may be held when one of those has its letter */
    size_t late;        /* letters of those for which more were */
    struct outbox_receipt held[HELD_MAX];
    size_t held_count;
    pthread_cond_t arrived;
};

static struct house h;
static struct network net;
static struct outbox *outbox;
static struct guest ann;
static struct room *room;

static void keep(struct letter *letter, const struct json *body, bool accepted)
{
    const struct json *pdus = json_get_array(body, LIT("pdus"));
    const struct json *edus = json_get_array(body, LIT("edus"));
    letter->pdus = pdus ? pdus->count : 0;
    letter->edus = edus ? edus->count : 0;
    for (size_t i = 0; accepted && i < letter->pdus && net.id_count < IDS_MAX; i++) {
        const struct json *content = json_get_object(&pdus->items[i], LIT("content"));
        net.ids[net.id_count++] = arena_copy(net.arena, json_get_string(content, LIT("body")));
    }
    if (edus) {
        net.edus = json_canonical(net.arena, edus);
    }
}

/* A transaction that was accepted before; it must be the same again. */
static bool is_again(const struct letter *letter)
{
    for (size_t i = 0; i < net.count; i++) {
        const struct letter *other = &net.letters[i];
        if (other != letter && other->status == 200 &&
            strcmp(other->destination, letter->destination) == 0 &&
            strcmp(other->txn_id, letter->txn_id) == 0) {
            assert_true(other->hash == letter->hash);
            return true;
        }
    }
    return false;
}

static bool is_dead(struct slice destination)
{
    return net.dead && slice_has_prefix(destination, slice_of(net.dead));
}

static struct err deliver(void *arg, struct ctx *ctx, const struct outbox_letter *letter,
                          struct fed_answer *answer_out)
{
    struct json body;
    struct letter dropped;
    (void)arg;
    (void)ctx;
    pthread_mutex_lock(&net.lock);
    assert_int_equal(json_parse(net.arena, arena_copy(net.arena, letter->body), &body).code, 0);
    struct slice again = json_canonical(net.arena, &body);
    assert_true(slice_eq(again, letter->body)); /* what was spliced is canonical */
    struct letter *kept = net.count < LETTERS_MAX ? &net.letters[net.count++] : &dropped;
    memcpy(kept->destination, letter->destination.ptr, letter->destination.len);
    memcpy(kept->txn_id, letter->txn_id.ptr, letter->txn_id.len);
    kept->hash = slice_hash(letter->body);
    kept->status = is_dead(letter->destination) ? 0 : net.status;
    if (net.refuse && slice_contains(letter->body, slice_of(net.refuse))) {
        kept->status = 400;
    }
    net.attempts_dead += is_dead(letter->destination) ? 1 : 0;
    keep(kept, &body, kept->status == 200 && !is_again(kept));
    if (net.near && slice_has_prefix(letter->destination, slice_of(net.near))) {
        net.late += net.held_count > net.early_max ? 1 : 0;
    }
    *answer_out = (struct fed_answer){.status = kept->status};
    int status = kept->status;
    pthread_cond_signal(&net.arrived);
    pthread_mutex_unlock(&net.lock);
    return status ? OK : err_make(ERR_UNAVAILABLE, "nobody answers");
}

static bool hold(const struct outbox_letter *letter, const struct outbox_receipt *receipt)
{
    pthread_mutex_lock(&net.lock);
    bool holds = net.silent && slice_has_prefix(letter->destination, slice_of(net.silent));
    if (holds) {
        assert_true(net.held_count < HELD_MAX);
        net.held[net.held_count++] = *receipt;
    }
    pthread_cond_signal(&net.arrived);
    pthread_mutex_unlock(&net.lock);
    return holds;
}

static void send_off(void *arg, struct ctx *ctx, const struct outbox_letter *letter,
                     const struct outbox_receipt *receipt)
{
    struct fed_answer answer = {0};
    receipt->started(receipt->arg);
    if (hold(letter, receipt)) {
        return;
    }
    struct err err = deliver(arg, ctx, letter, &answer);
    receipt->fn(receipt->arg, ctx, err, &answer);
}

static bool never_down(void *arg, struct slice server, int64_t *until_out)
{
    (void)arg;
    (void)server;
    (void)until_out;
    return false;
}

static bool is_near(void *arg, struct slice server)
{
    (void)arg;
    return net.near && slice_has_prefix(server, slice_of(net.near));
}

static void open_outbox(void)
{
    struct outbox_port port = {
        .send = send_off, .is_down = never_down, .is_near = is_near, .acl = fed_acl_allows};
    assert_int_equal(outbox_new(&h.hs, &port, &outbox).code, 0);
    assert_int_equal(outbox_start(outbox).code, 0);
}

/* The server ends without a word, as after kill -9: nothing more is written down. */
static void crash(void)
{
    house_settle(&h);
    outbox_abandon(outbox);
    outbox_free(&outbox);
}

static void join_remote(const char *user)
{
    struct guest guest = {.actor = {.user_id = slice_of(user)}};
    struct json content;
    struct hs_sent sent;
    assert_int_equal(hs_user_intern(&h.hs, &h.ctx, guest.actor.user_id, &guest.actor.user).code, 0);
    assert_int_equal(json_parse(h.ctx.arena, LIT("{\"membership\":\"join\"}"), &content).code, 0);
    struct hs_draft draft = {.sender = guest.actor.user_id,
                             .sender_number = guest.actor.user,
                             .type = LIT("m.room.member"),
                             .state_key = guest.actor.user_id,
                             .content = content};
    assert_int_equal(hs_send(&h.hs, &h.ctx, room, &draft, &sent).code, 0);
}

static int begin(void **state)
{
    (void)state;
    net = (struct network){.arena = arena_new(), .status = 200};
    pthread_mutex_init(&net.lock, NULL);
    pthread_cond_init(&net.arrived, NULL);
    house_open(&h);
    h.hs.waiters = workers_new("waiter", THREADS, 100000);
    open_outbox();
    ann = house_guest(&h, "ann");
    room = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    join_remote("@bob:far");
    return 0;
}

static int end(void **state)
{
    (void)state;
    if (outbox) {
        outbox_stop(outbox);
        outbox_free(&outbox);
    }
    workers_free(&h.hs.waiters);
    house_close(&h);
    pthread_cond_destroy(&net.arrived);
    pthread_mutex_destroy(&net.lock);
    arena_free(&net.arena);
    return 0;
}

static void say(size_t number)
{
    char text[32];
    snprintf(text, sizeof text, "m%zu", number);
    house_say(&h, room, &ann, text);
}

static void settle(void)
{
    house_settle(&h);
    outbox_settle(outbox);
}

/* m0, m1, ... arrived, each once, in order. */
static void check_arrived(size_t count)
{
    assert_int_equal(net.id_count, count);
    for (size_t i = 0; i < count; i++) {
        char text[32];
        snprintf(text, sizeof text, "m%zu", i);
        if (!slice_eq(net.ids[i], slice_of(text))) {
            fail_msg("%zu: %.*s", i, (int)net.ids[i].len, net.ids[i].ptr);
        }
    }
}

/* --- events --- */

static void events_arrive_in_order_each_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < 200; i++) {
        say(i);
    }
    settle();
    check_arrived(200);
    for (size_t i = 0; i < net.count; i++) {
        assert_true(net.letters[i].pdus <= OUTBOX_PDUS_MAX);
    }
}

static void events_before_the_server_joined_stay_here(void **state)
{
    (void)state;
    join_remote("@eve:late");
    say(0);
    settle();
    assert_int_equal(net.id_count, 2); /* to both */
    assert_int_equal(net.count, 2);
    assert_int_equal(net.letters[0].pdus, 1);
    assert_int_equal(net.letters[1].pdus, 1);
}

static void a_user_taken_out_hears_of_it(void **state)
{
    (void)state;
    struct err err =
        hs_member_kick(&h.hs, &h.ctx, room, &ann.actor, LIT("@bob:far"), (struct slice){0});
    assert_int_equal(err.code, 0);
    settle();
    assert_int_equal(net.count, 1);
    say(0);
    settle();
    assert_int_equal(net.count, 1); /* and of nothing more */
}

static void servers_shut_out_get_nothing(void **state)
{
    (void)state;
    join_remote("@eve:evil.com");
    house_state(&h, room, &ann, "m.room.server_acl", "{\"allow\":[\"*\"],\"deny\":[\"evil.com\"]}");
    settle();
    size_t before = net.count;
    say(0);
    settle();
    assert_int_equal(net.count, before + 1);
    assert_string_equal(net.letters[before].destination, "far");
}

static void a_retry_sends_the_same_again(void **state)
{
    (void)state;
    net.status = 0;
    say(0);
    settle();
    say(1);
    settle();
    assert_int_equal(net.count, 1);
    net.status = 200;
    h.wall_ms += 5000;
    outbox_peer_alive(outbox, LIT("far"));
    settle();
    assert_int_equal(net.count, 3);
    assert_string_equal(net.letters[0].txn_id, net.letters[1].txn_id);
    assert_true(net.letters[0].hash == net.letters[1].hash);
    assert_string_not_equal(net.letters[1].txn_id, net.letters[2].txn_id);
    check_arrived(2);
}

static void what_waits_survives_a_restart(void **state)
{
    (void)state;
    net.status = 0;
    for (size_t i = 0; i < 60; i++) {
        say(i);
    }
    settle();
    outbox_stop(outbox);
    outbox_free(&outbox);
    net.status = 200;
    size_t before = net.count;
    open_outbox();
    settle();
    check_arrived(60);
    assert_string_equal(net.letters[before].txn_id, net.letters[before - 1].txn_id);
    assert_true(net.letters[before].hash == net.letters[before - 1].hash);
}

static void what_waits_survives_a_crash(void **state)
{
    (void)state;
    for (size_t i = 0; i < 10; i++) {
        say(i);
    }
    settle();
    net.status = 0;
    for (size_t i = 10; i < 80; i++) {
        say(i);
    }
    settle();
    crash();
    net.status = 200;
    open_outbox();
    settle();
    check_arrived(80);
}

/* Wherever the store fails, a restart loses nothing and sends nothing twice. */
static void failures_of_the_store_lose_nothing(void **state)
{
    (void)state;
    size_t said = 0;
    for (int32_t k = 1; k < 60; k++) {
        store_fail_after(h.hs.store, 0);
        say(said++);
        house_settle(&h);
        store_fail_after(h.hs.store, k);
        settle();
        store_fail_after(h.hs.store, 0);
        if (k % 3 == 0) {
            outbox_abandon(outbox);
            outbox_free(&outbox);
            open_outbox();
        }
        house_next_job(&h);
        struct err err = hs_room_get_by_id(&h.hs, &h.ctx, hs_room_info(room).room_id, &room);
        assert_int_equal(err.code, 0);
        h.wall_ms += 10000;
        outbox_peer_alive(outbox, LIT("far"));
    }
    h.wall_ms += 3600 * 1000;
    outbox_retry(outbox, (struct slice){0});
    settle();
    outbox_retry(outbox, (struct slice){0});
    settle();
    check_arrived(said);
}

static void after_a_long_absence_the_newest_event_is_enough(void **state)
{
    (void)state;
    net.status = 0;
    for (size_t i = 0; i < 400; i++) {
        say(i);
        if (i % 50 == 0) {
            settle();
        }
    }
    settle();
    net.status = 200;
    outbox_peer_alive(outbox, LIT("far"));
    settle();
    assert_true(net.id_count <= 51); /* the transaction under way, and the newest */
    assert_true(slice_eq(net.ids[net.id_count - 1], LIT("m399")));
    say(400);
    settle();
    assert_true(slice_eq(net.ids[net.id_count - 1], LIT("m400")));
}

/* Synapse CVE-2023-32323, CVE-2025-61672. */
static void a_refused_event_is_given_up_alone(void **state)
{
    (void)state;
    struct destination_refused *refused = NULL;
    size_t count = 0;
    net.status = 0;
    say(0);
    settle();
    for (size_t i = 1; i < 5; i++) {
        say(i);
    }
    house_say(&h, room, &ann, "poison");
    say(5);
    settle();
    net.status = 200;
    net.refuse = "poison";
    outbox_peer_alive(outbox, LIT("far"));
    settle();
    check_arrived(6);
    struct err err = hs_destination_refusals(&h.hs, &h.ctx, LIT("far"), &refused, &count);
    assert_int_equal(err.code, 0);
    assert_int_equal(count, 1);
    assert_true(slice_has_prefix(refused[0].reason, LIT("status 400")));
}

/* --- EDUs --- */

static void queue(const char *content, bool durable, const char *key)
{
    struct json json;
    struct slice server = LIT("far");
    assert_int_equal(json_parse(h.ctx.arena, slice_of(content), &json).code, 0);
    struct fed_edu edu = {
        .type = LIT("m.test"), .content = &json, .is_durable = durable, .key = slice_of(key)};
    assert_int_equal(outbox_queue(outbox, &h.ctx, &server, 1, &edu).code, 0);
}

static void durable_edus_survive_and_others_pass(void **state)
{
    (void)state;
    net.status = 0;
    queue("{\"n\":1}", true, NULL);
    settle();
    queue("{\"n\":2}", true, NULL);
    queue("{\"n\":3}", false, NULL); /* dropped: the server is down */
    settle();
    crash();
    net.status = 200;
    open_outbox();
    settle();
    assert_int_equal(net.letters[net.count - 1].edus, 1);
    assert_true(slice_contains(net.edus, LIT("\"n\":2")));
    assert_false(slice_contains(net.edus, LIT("\"n\":3")));
}

/* Spec: server-server, "Device Management": `keys` "may be absent if the device has no E2E keys".
 */
static void devices_without_keys_are_told_of(void **state)
{
    (void)state;
    struct slice device = LIT("PHONE");
    assert_int_equal(
        hs_device_create(&h.hs, &h.ctx, ann.actor.user, device, (struct slice){0}).code, 0);
    settle();
    assert_int_equal(hs_device_rename(&h.hs, &h.ctx, ann.actor.user, device, LIT("my phone")).code,
                     0);
    settle();
    assert_true(slice_contains(net.edus, LIT("\"device_display_name\":\"my phone\"")));
    assert_false(slice_contains(net.edus, LIT("\"deleted\"")));
    assert_int_equal(
        hs_devices_delete_others(&h.hs, &h.ctx, ann.actor.user, (struct slice){0}).code, 0);
    settle();
    assert_true(slice_contains(net.edus, LIT("\"deleted\":true")));
}

static void typing_starts_and_stops(void **state)
{
    (void)state;
    settle();
    hs_typing_set(&h.hs, hs_room_info(room).number, ann.actor.user, 30000);
    settle();
    assert_true(slice_contains(net.edus, LIT("\"typing\":true")));
    hs_typing_set(&h.hs, hs_room_info(room).number, ann.actor.user, 0);
    settle();
    assert_true(slice_contains(net.edus, LIT("\"typing\":false")));
}

static void receipts_of_threads_take_an_edu_each(void **state)
{
    (void)state;
    struct receipt receipt = {
        .user = ann.actor.user, .user_id = ann.actor.user_id, .event_id = LIT("$e"), .ts_ms = 5};
    settle();
    assert_int_equal(hs_receipt_set(&h.hs, &h.ctx, room, &receipt).code, 0);
    settle();
    assert_true(slice_contains(net.edus, LIT("\"event_ids\":[\"$e\"]")));
    receipt.type = RECEIPT_READ_PRIVATE;
    size_t before = net.count;
    assert_int_equal(hs_receipt_set(&h.hs, &h.ctx, room, &receipt).code, 0);
    settle();
    assert_int_equal(net.count, before);
    receipt.type = RECEIPT_READ;
    receipt.thread = LIT("main");
    assert_int_equal(hs_receipt_set(&h.hs, &h.ctx, room, &receipt).code, 0);
    settle();
    assert_true(slice_contains(net.edus, LIT("\"thread_id\":\"main\"")));
}

static void presence_goes_to_those_who_share_a_room(void **state)
{
    (void)state;
    struct guest lone = house_guest(&h, "lone");
    settle();
    size_t before = net.count;
    hs_presence_set(&h.hs, lone.actor.user, PRESENCE_ONLINE, (struct slice){0});
    settle();
    assert_int_equal(net.count, before);
    hs_presence_set(&h.hs, ann.actor.user, PRESENCE_ONLINE, LIT("here"));
    settle();
    assert_true(slice_contains(net.edus, LIT("\"status_msg\":\"here\"")));
}

/* --- many --- */

static void dead_servers_do_not_delay_the_living(void **state)
{
    (void)state;
    enum { SERVERS = 1000 };
    net.dead = "dead";
    for (int i = 0; i < SERVERS; i++) {
        char user[64];
        snprintf(user, sizeof user, "@u:%s%d.org", i % 2 ? "dead" : "alive", i);
        join_remote(arena_printf(h.conf_arena, "%s", user).ptr);
    }
    settle();
    net.attempts_dead = 0;
    say(0);
    settle();
    size_t got = net.id_count;
    say(1);
    settle();
    assert_int_equal(got, SERVERS / 2 + 1);
    assert_int_equal(net.id_count, 2 * (SERVERS / 2 + 1));
    assert_int_equal(net.attempts_dead, SERVERS / 2); /* tried once, then left alone */
}

/* Their patience is at an end. */
static void give_up_silent(void)
{
    struct fed_answer none = {0};
    for (size_t i = 0; i < net.held_count; i++) {
        struct ctx ctx = {.arena = arena_new(), .now = h.hs.now, .log = h.hs.log};
        net.held[i].fn(net.held[i].arg, &ctx, err_make(ERR_TIMEOUT, "no answer in time"), &none);
        ctx_finish(&ctx);
        arena_free(&ctx.arena);
    }
}

enum { MIXED = 1200 };

/* Every second one never answers from the second message on. */
static void join_mixed(void)
{
    for (int i = 0; i < MIXED; i++) {
        char user[64];
        snprintf(user, sizeof user, "@u:%s%d.org", i % 2 ? "mute" : "alive", i);
        join_remote(arena_printf(h.conf_arena, "%s", user).ptr);
    }
    say(0);
    settle();
    net.id_count = 0;
    net.silent = "mute";
}

static void await_living(size_t held)
{
    house_settle(&h);
    pthread_mutex_lock(&net.lock);
    while (net.id_count < MIXED / 2 + 1 || net.held_count < held) {
        pthread_cond_wait(&net.arrived, &net.lock);
    }
    pthread_mutex_unlock(&net.lock);
}

/* A dead server has mostly lost its connection, which a living one keeps: those who have one do not
 * stand behind those who need one, and these have a turn now and then. */
static void servers_without_a_connection_take_few_turns(void **state)
{
    (void)state;
    join_mixed();
    net.near = "alive";
    net.early_max = MIXED / 2 / (OUTBOX_FAR_TURN - 1) + 1 + THREADS;
    say(1);
    await_living(MIXED / 2);
    give_up_silent();
    settle();
    assert_in_range(net.late, 0, THREADS); /* which may have stood still with one each */
}

/* Those that did not answer have no more than their share of attempts, and the living all turns. */
static void servers_that_stay_silent_have_a_bound_to_themselves(void **state)
{
    (void)state;
    join_mixed();
    say(1);
    await_living(MIXED / 2);
    give_up_silent();
    settle();
    net.id_count = 0;
    net.held_count = 0;
    outbox_retry(outbox, (struct slice){0});
    say(2);
    await_living(OUTBOX_DOUBTFUL_MAX);
    assert_int_equal(net.held_count, OUTBOX_DOUBTFUL_MAX);
    net.silent = NULL;
    give_up_silent();
    settle();
}

/* All that fall silent are tried while nobody has given up: the living have the message before. */
static void servers_that_fall_silent_hold_nobody_up(void **state)
{
    (void)state;
    join_mixed();
    say(1);
    await_living(MIXED / 2);
    give_up_silent();
    settle();
    assert_int_equal(net.id_count, MIXED / 2 + 1);
    net.silent = NULL;
    outbox_peer_alive(outbox, LIT("mute1.org")); /* what was not acknowledged comes once more */
    settle();
    assert_int_equal(net.id_count, MIXED / 2 + 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(events_arrive_in_order_each_once),
        TEST(events_before_the_server_joined_stay_here),
        TEST(a_user_taken_out_hears_of_it),
        TEST(servers_shut_out_get_nothing),
        TEST(a_retry_sends_the_same_again),
        TEST(what_waits_survives_a_restart),
        TEST(what_waits_survives_a_crash),
        TEST(failures_of_the_store_lose_nothing),
        TEST(after_a_long_absence_the_newest_event_is_enough),
        TEST(a_refused_event_is_given_up_alone),
        TEST(durable_edus_survive_and_others_pass),
        TEST(devices_without_keys_are_told_of),
        TEST(typing_starts_and_stops),
        TEST(receipts_of_threads_take_an_edu_each),
        TEST(presence_goes_to_those_who_share_a_room),
        TEST(dead_servers_do_not_delay_the_living),
        TEST(servers_that_fall_silent_hold_nobody_up),
        TEST(servers_without_a_connection_take_few_turns),
        TEST(servers_that_stay_silent_have_a_bound_to_themselves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
