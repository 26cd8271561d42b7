/* Who logs out, or is locked out, while a request of his waits gets nothing more by it. */
#include "homeserver/client/routes_priv.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/tokens.h"
#include "homeserver/service/users.h"
#include "tests/support/front.h"
#include "tests/support/house.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { QUIET_MS = 1000 }; /* who is not answered by then waits */

static struct house house;
static struct harness front;
static struct harness_reply reply;
static struct guest ann, bob;
static struct room *room;
static char token[128];

static int start(void **state)
{
    static struct http_route_table tables[1];
    struct sign_in sign_in = {.device_id = LIT("PHONE")};
    struct issued_tokens issued;
    (void)state;
    house_open(&house);
    ann = house_guest(&house, "ann");
    bob = house_guest(&house, "bob");
    room = house_room(&house, &bob, "{\"preset\":\"public_chat\"}");
    house_member(&house, room, &ann, &ann, MEMBERSHIP_JOIN);
    sign_in.user = ann.actor.user;
    assert_int_equal(hs_token_issue(&house.hs, &house.ctx, &sign_in, &issued).code, 0);
    snprintf(token, sizeof token, "%.*s", (int)issued.access_token.len, issued.access_token.ptr);
    house_settle(&house);
    tables[0] = cs_sync_routes;
    struct http_server_config config = front_config(&house.hs, tables, COUNT_OF(tables));
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

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    return poll(&wait, 1, timeout_ms) == 1;
}

/* A connection whose sync waits for what comes. */
static int park(void)
{
    char since[64] = "";
    int fd = harness_connect(&front, 0);
    bool waits = false;
    for (int tries = 0; !waits && tries < 20; tries++) {
        front_ask_sync(fd, token, since, tries == 0 ? 0 : 20000);
        waits = tries > 0 && !is_readable(fd, QUIET_MS);
        if (!waits) {
            assert_true(harness_read(fd, &reply));
            assert_int_equal(reply.status, 200);
            front_take_since(&reply, since);
        }
    }
    assert_true(waits);
    return fd;
}

static void expect_refusal(int fd, const char *errcode, const char *soft_logout)
{
    house_say(&house, room, &bob, "a secret");
    house_settle(&house);
    assert_true(harness_read(fd, &reply));
    assert_int_equal(reply.status, 401);
    assert_non_null(strstr(reply.body, errcode));
    assert_non_null(strstr(reply.body, soft_logout));
    assert_null(strstr(reply.body, "secret"));
    close(fd);
}

static void who_logs_out_hears_no_more(void **state)
{
    struct slice phone = LIT("PHONE");
    (void)state;
    int fd = park();
    assert_int_equal(hs_devices_delete(&house.hs, &house.ctx, ann.actor.user, &phone, 1).code, 0);
    expect_refusal(fd, "M_UNKNOWN_TOKEN", "\"soft_logout\":false");
}

static void who_is_locked_hears_no_more(void **state)
{
    (void)state;
    int fd = park();
    assert_int_equal(
        hs_account_set_flags(&house.hs, &house.ctx, ann.actor.user, ACCOUNT_LOCKED, ACCOUNT_LOCKED)
            .code,
        0);
    expect_refusal(fd, "M_USER_LOCKED", "\"soft_logout\":true");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_logs_out_hears_no_more, start, stop),
        cmocka_unit_test_setup_teardown(who_is_locked_hears_no_more, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
