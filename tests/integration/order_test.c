/* The reply to a send leaves before the sender's own sync shows the event, whoever else is busy.
 * Sockets of one machine keep the order in which bytes were handed to them: when the sync can be
 * read, the reply must have been readable already. */
#include "homeserver/client/routes_priv.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/tokens.h"
#include "tests/support/front.h"
#include "tests/support/house.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS = 300, LOAD_THREADS = 2 };

static struct house house;
static struct harness front;
static struct harness_reply replies[2];
static char room_ids[1 + LOAD_THREADS][128], tokens[1 + LOAD_THREADS][128];
static _Atomic bool over;

static void add_user(const char *name, char token[128], char room_id[128])
{
    struct guest guest = house_guest(&house, name);
    struct sign_in sign_in = {.user = guest.actor.user, .device_id = LIT("PHONE")};
    struct issued_tokens issued;
    assert_int_equal(hs_token_issue(&house.hs, &house.ctx, &sign_in, &issued).code, 0);
    snprintf(token, 128, "%.*s", (int)issued.access_token.len, issued.access_token.ptr);
    struct room *room = house_room(&house, &guest, "{}");
    snprintf(room_id, 128, "%.*s", (int)room->room_id_len, room->room_id_owned);
    house_next_job(&house);
}

static void when_durable(void *store, uint64_t ticket, void (*fn)(void *arg, struct err err),
                         void *arg)
{
    store_when_durable(store, ticket, fn, arg);
}

static int start(void **state)
{
    static struct http_route_table tables[2];
    (void)state;
    house_open(&house);
    tables[0] = cs_send_routes;
    tables[1] = cs_sync_routes;
    add_user("ann", tokens[0], room_ids[0]);
    add_user("bob", tokens[1], room_ids[1]);
    add_user("cem", tokens[2], room_ids[2]);
    house_settle(&house);
    struct http_server_config config = front_config(&house.hs, tables, COUNT_OF(tables));
    config.loop_count = 2;
    config.when_durable = when_durable;
    config.store = house.hs.store;
    front_start(&front, &config);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    http_server_stop(front.server, 1000);
    workers_join(house.hs.workers);
    http_server_free(&front.server);
    house_close(&house);
    return 0;
}

static void send_text(int fd, size_t who, const char *text)
{
    char request[1024];
    char body[128];
    int body_len = snprintf(body, sizeof body, "{\"msgtype\":\"m.text\",\"body\":\"%s\"}", text);
    int len = snprintf(request, sizeof request,
                       "PUT /_matrix/client/v3/rooms/%s/send/m.room.message/%s HTTP/1.1\r\n"
                       "Host: a\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
                       room_ids[who], text, tokens[who], body_len, body);
    harness_write(fd, (struct slice){request, (size_t)len});
}

/* Others who talk all the time. */
static void *talk(void *arg)
{
    struct harness_reply *answer = calloc(1, sizeof *answer);
    size_t who = (size_t)(uintptr_t)arg;
    int fd = harness_connect(&front, 0);
    for (int i = 0; !over; i++) {
        char text[32];
        snprintf(text, sizeof text, "%d", i);
        send_text(fd, who, text);
        if (!harness_read(fd, answer) || answer->status != 200) {
            print_error("load: %d %s\n", answer->status, answer->body);
            break;
        }
    }
    close(fd);
    free(answer);
    return NULL;
}

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    return poll(&wait, 1, timeout_ms) == 1;
}

/* How often the event overtook the reply. `parked`: the sync waits before the event is sent;
 * otherwise it arrives while the event is on its way. */
static int count_early(bool parked, int timeout_ms)
{
    int early = 0;
    char since[64] = "";
    int sync_fd = harness_connect(&front, 0);
    int send_fd = harness_connect(&front, 0);
    front_ask_sync(sync_fd, tokens[0], since, 0);
    assert_true(harness_read(sync_fd, &replies[0]));
    front_take_since(&replies[0], since);
    for (int i = 0; i < ROUNDS; i++) {
        char text[32];
        bool answered = false;
        bool seen = false;
        snprintf(text, sizeof text, "own%d%d%d", parked, timeout_ms, i);
        if (!parked) {
            send_text(send_fd, 0, text);
        }
        front_ask_sync(sync_fd, tokens[0], since, timeout_ms);
        if (parked) {
            usleep(200);
            send_text(send_fd, 0, text);
        }
        for (int tries = 0; !seen && tries < 1000; tries++) {
            assert_true(is_readable(sync_fd, 10000));
            answered = answered || is_readable(send_fd, 0);
            assert_true(harness_read(sync_fd, &replies[0]));
            front_take_since(&replies[0], since);
            seen = strstr(replies[0].body, text) != NULL;
            if (!seen) {
                front_ask_sync(sync_fd, tokens[0], since, timeout_ms);
            }
        }
        assert_true(seen);
        early += !answered;
        assert_true(harness_read(send_fd, &replies[1]));
        assert_int_equal(replies[1].status, 200);
    }
    close(sync_fd);
    close(send_fd);
    return early;
}

static void replies_come_first(void **state)
{
    (void)state;
    assert_int_equal(count_early(true, 5000), 0);
    assert_int_equal(count_early(false, 5000), 0);
    assert_int_equal(count_early(false, 0), 0);
}

static void replies_come_first_under_load(void **state)
{
    pthread_t threads[LOAD_THREADS];
    over = false;
    for (size_t i = 0; i < LOAD_THREADS; i++) {
        pthread_create(&threads[i], NULL, talk, (void *)(uintptr_t)(i + 1));
    }
    int early = count_early(true, 5000) + count_early(false, 5000);
    over = true;
    for (size_t i = 0; i < LOAD_THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(early, 0);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(replies_come_first, start, stop),
        cmocka_unit_test_setup_teardown(replies_come_first_under_load, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
