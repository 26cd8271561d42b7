/* EDUs of another server, taken in over a house: each concerns users of its origin alone. */
#include "federation/device_lists.h"
#include "federation/fed_priv.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/remote_devices.h"
#include "homeserver/service/to_device.h"
#include "homeserver/service/users.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct house h;
static struct fed fed;
static struct guest ann;
static struct room *room;
static uint64_t bob;

static size_t asked;

static struct err fetch(void *arg, struct ctx *ctx, const struct http_fetch_request *request,
                        struct http_fetch_reply *reply_out)
{
    (void)arg;
    (void)ctx;
    (void)request;
    (void)reply_out;
    asked++;
    return err_make(ERR_UNAVAILABLE, "nobody is there");
}

static struct err find_srv(void *arg, struct ctx *ctx, struct slice service, struct slice host,
                           struct http_dns_srvs *srvs_out)
{
    (void)arg;
    (void)ctx;
    (void)service;
    (void)host;
    *srvs_out = (struct http_dns_srvs){0};
    return OK;
}

static void join_remote(const char *user_id, uint64_t *user_out)
{
    struct json content;
    struct hs_sent sent;
    assert_int_equal(hs_user_intern(&h.hs, &h.ctx, slice_of(user_id), user_out).code, 0);
    assert_int_equal(json_parse(h.ctx.arena, LIT("{\"membership\":\"join\"}"), &content).code, 0);
    struct hs_draft draft = {.sender = slice_of(user_id),
                             .sender_number = *user_out,
                             .type = LIT("m.room.member"),
                             .state_key = slice_of(user_id),
                             .content = content};
    assert_int_equal(hs_send(&h.hs, &h.ctx, room, &draft, &sent).code, 0);
}

static int begin(void **state)
{
    (void)state;
    house_open(&h);
    asked = 0;
    fed = (struct fed){.hs = &h.hs, .net = {.fetch = fetch, .find_srv = find_srv}};
    fed.device_lists = device_lists_new();
    h.hs.fed = &fed;
    h.hs.waiters = workers_new("waiter", 1, 100);
    ann = house_guest(&h, "ann");
    room = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    join_remote("@bob:far", &bob);
    fed.peers = fed_peers_new();
    fed.destinations = fed_destinations_new();
    return 0;
}

static int end(void **state)
{
    (void)state;
    workers_free(&h.hs.waiters);
    device_lists_free(&fed.device_lists);
    fed_peers_free(&fed.peers);
    fed_destinations_free(&fed.destinations);
    house_close(&h);
    return 0;
}

static uint32_t receive_from(const char *origin, const char *type, const char *content)
{
    struct json edu = json_object();
    struct json json;
    assert_int_equal(json_parse(h.ctx.arena, slice_of(content), &json).code, 0);
    json_set(h.ctx.arena, &edu, LIT("edu_type"), json_string(slice_of(type)));
    json_set(h.ctx.arena, &edu, LIT("content"), json);
    return fed_edu_receive(&fed, &h.ctx, slice_of(origin), &edu).code;
}

static uint32_t receive(const char *type, const char *content)
{
    return receive_from("far", type, content);
}

static const char *with_room(const char *format)
{
    struct slice id = hs_room_info(room).room_id;
    return arena_printf(h.ctx.arena, format, (int)id.len, id.ptr).ptr;
}

static size_t typists(void)
{
    struct slice *users = NULL;
    uint64_t pos = 0;
    return hs_typing_get(&h.hs, &h.ctx, hs_room_info(room).number, &users, &pos);
}

static void typing_of_members_is_shown(void **state)
{
    (void)state;
    const char *on = with_room("{\"room_id\":\"%.*s\",\"user_id\":\"@bob:far\",\"typing\":true}");
    const char *off = with_room("{\"room_id\":\"%.*s\",\"user_id\":\"@bob:far\",\"typing\":false}");
    const char *eve = with_room("{\"room_id\":\"%.*s\",\"user_id\":\"@eve:far\",\"typing\":true}");
    assert_int_equal(receive("m.typing", on), 0);
    assert_int_equal(typists(), 1);
    assert_int_equal(receive("m.typing", off), 0);
    assert_int_equal(typists(), 0);
    assert_int_equal(receive("m.typing", eve), 0);
    assert_int_equal(typists(), 0);
    assert_int_equal(receive_from("other", "m.typing", on), ERR_M_FORBIDDEN);
    assert_int_equal(typists(), 0);
}

static void servers_shut_out_are_not_heard(void **state)
{
    (void)state;
    house_state(&h, room, &ann, "m.room.server_acl", "{\"allow\":[\"*\"],\"deny\":[\"far\"]}");
    const char *on = with_room("{\"room_id\":\"%.*s\",\"user_id\":\"@bob:far\",\"typing\":true}");
    assert_int_equal(receive("m.typing", on), ERR_M_FORBIDDEN);
    assert_int_equal(typists(), 0);
}

static size_t receipts(void)
{
    struct receipts found;
    assert_int_equal(hs_receipts_of_user(&h.hs, &h.ctx, room, bob, &found).code, 0);
    return found.count;
}

static void receipts_of_threads_stand_apart(void **state)
{
    (void)state;
    assert_int_equal(
        receive("m.receipt",
                with_room("{\"%.*s\":{\"m.read\":{\"@bob:far\":{\"event_ids\":[\"$e\"],"
                          "\"data\":{\"ts\":5}}}},\"!none:far\":{}}")),
        0);
    assert_int_equal(receipts(), 1);
    assert_int_equal(
        receive("m.receipt",
                with_room("{\"%.*s\":{\"m.read\":{\"@bob:far\":{\"event_ids\":[\"$e\"],"
                          "\"data\":{\"ts\":5,\"thread_id\":\"main\"}}}}}")),
        0);
    assert_int_equal(receipts(), 2);
}

static void presence_holds_for_half_an_hour(void **state)
{
    (void)state;
    struct presence_state shown;
    assert_int_equal(receive("m.presence", "{\"push\":[{\"user_id\":\"@bob:far\",\"presence\":"
                                           "\"online\",\"last_active_ago\":5}]}"),
                     0);
    assert_true(hs_presence_get(&h.hs, &h.ctx, bob, &shown));
    assert_int_equal(shown.presence, PRESENCE_ONLINE);
}

static size_t inbox(void)
{
    struct to_device_messages messages;
    struct inbox_range range = {.upto = positions_newest(h.hs.positions), .limit = 100};
    struct err err = hs_inbox_read(&h.hs, &h.ctx, ann.actor.user, ann.device_id, range, &messages);
    assert_int_equal(err.code, 0);
    return messages.count;
}

static void a_message_comes_once(void **state)
{
    (void)state;
    const char *message = "{\"sender\":\"@bob:far\",\"type\":\"m.t\",\"message_id\":\"1\","
                          "\"messages\":{\"@ann:test\":{\"DEVICE\":{\"a\":1}}}}";
    assert_int_equal(receive("m.direct_to_device", message), 0);
    assert_int_equal(receive("m.direct_to_device", message), 0);
    assert_int_equal(inbox(), 1);
    assert_int_equal(receive_from("other", "m.direct_to_device", message), ERR_M_FORBIDDEN);
    assert_int_equal(inbox(), 1);
}

static struct remote_list list_of_bob(void)
{
    struct remote_list list;
    assert_int_equal(hs_remote_list_get(&h.hs, &h.ctx, bob, &list).code, 0);
    return list;
}

static void keep_list(int64_t stream_id)
{
    bool kept = false;
    struct remote_whole whole = {.asked = list_of_bob(),
                                 .cross = {.user = bob, .user_id = LIT("@bob:far")},
                                 .stream_id = stream_id};
    assert_int_equal(hs_remote_devices_replace(&h.hs, &h.ctx, &whole, &kept).code, 0);
    assert_true(kept);
}

static const char *update(int stream_id, int prev_id)
{
    return arena_printf(h.ctx.arena,
                        "{\"user_id\":\"@bob:far\",\"device_id\":\"D\",\"stream_id\":%d,"
                        "\"prev_id\":[%d],\"keys\":{\"user_id\":\"@bob:far\",\"device_id\":\"D\"}}",
                        stream_id, prev_id)
        .ptr;
}

static void updates_in_sequence_are_applied(void **state)
{
    (void)state;
    struct json keys;
    bool found = false;
    keep_list(5);
    assert_int_equal(receive("m.device_list_update", update(6, 5)), 0);
    assert_int_equal(list_of_bob().stream_id, 6);
    assert_false(list_of_bob().is_stale);
    struct err err = hs_device_keys_get(&h.hs, &h.ctx, bob, LIT("D"), &keys, &found);
    assert_int_equal(err.code, 0);
    assert_true(found);
    assert_int_equal(receive("m.device_list_update", update(6, 5)), 0); /* once more */
    assert_false(list_of_bob().is_stale);
}

static void a_gap_makes_the_list_stale(void **state)
{
    (void)state;
    keep_list(5);
    assert_int_equal(receive("m.device_list_update", update(8, 7)), 0);
    assert_true(list_of_bob().is_stale);
    assert_int_equal(list_of_bob().stream_id, 5);
    keep_list(8);
    assert_false(list_of_bob().is_stale);
}

static void an_answer_older_than_the_news_is_not_kept(void **state)
{
    (void)state;
    bool kept = true;
    struct remote_whole whole = {
        .asked = list_of_bob(), .cross = {.user = bob, .user_id = LIT("@bob:far")}, .stream_id = 7};
    assert_int_equal(receive("m.device_list_update", update(8, 7)), 0);
    assert_int_equal(hs_remote_devices_replace(&h.hs, &h.ctx, &whole, &kept).code, 0);
    assert_false(kept);
}

static void lists_of_strangers_are_forgotten(void **state)
{
    (void)state;
    keep_list(5);
    struct err err =
        hs_member_kick(&h.hs, &h.ctx, room, &ann.actor, LIT("@bob:far"), (struct slice){0});
    assert_int_equal(err.code, 0);
    assert_int_equal(hs_remote_devices_unfollow(&h.hs, &h.ctx, bob).code, 0);
    assert_false(list_of_bob().is_followed);
    assert_int_equal(receive("m.device_list_update", update(6, 5)), 0);
    assert_false(list_of_bob().is_followed);
}

static void what_is_malformed_is_refused(void **state)
{
    (void)state;
    assert_int_equal(receive("m.typing", "{}"), ERR_M_BAD_JSON);
    assert_int_equal(receive("m.presence", "{}"), ERR_M_BAD_JSON);
    assert_int_equal(receive("m.device_list_update", "{}"), ERR_M_BAD_JSON);
    assert_int_equal(receive("m.signing_key_update", "{}"), ERR_M_BAD_JSON);
    assert_int_equal(receive("m.direct_to_device", "{}"), ERR_M_BAD_JSON);
    assert_int_equal(receive("m.unknown", "{}"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(typing_of_members_is_shown),
        TEST(servers_shut_out_are_not_heard),
        TEST(receipts_of_threads_stand_apart),
        TEST(presence_holds_for_half_an_hour),
        TEST(a_message_comes_once),
        TEST(updates_in_sequence_are_applied),
        TEST(a_gap_makes_the_list_stale),
        TEST(an_answer_older_than_the_news_is_not_kept),
        TEST(lists_of_strangers_are_forgotten),
        TEST(what_is_malformed_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
