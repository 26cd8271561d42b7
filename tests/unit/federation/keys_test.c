/* Keys of other servers over time: fetched, refreshed, rotated, lost; from servers and notaries. */
#include "federation/keys_priv.h"
#include "federation/notary.h"
#include "tests/support/fed_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

enum { PADDING_BYTES = 20000 };

static struct fed_world fw;
static struct ed25519_key peer_key, new_key, notary_key;

/* What the servers of this network say now. */
static struct {
    bool peer_down;
    bool rotated;       /* new_key is in force, peer_key old */
    bool forged;        /* the notary's signature is not its own */
    bool unsigned_peer; /* the answer is not signed by its server */
    bool padded;        /* the answer is much larger than its keys */
    int64_t valid_until_ms;
    unsigned asked_peer, asked_notary;
    int64_t asked_for_ms; /* of the notary; -1: it was no number of canonical JSON */
} net;

static struct slice key_text(const struct ed25519_key *key)
{
    struct ed25519_public public_key = ed25519_public_of(key);
    return fed_world_base64(&fw, public_key.bytes, sizeof public_key.bytes);
}

static void sign_as(struct json *object, const char *server, const char *key_id,
                    const struct ed25519_key *key)
{
    struct json_signer signer = {ids_trust_server(slice_of(server)), slice_of(key_id), key};
    json_sign(fw.world.ctx.arena, object, &signer);
}

static struct json parse(struct slice text)
{
    struct json object;
    assert_int_equal(json_parse(fw.world.ctx.arena, text, &object).code, 0);
    return object;
}

static struct json peer_keys(void)
{
    struct arena *arena = fw.world.ctx.arena;
    struct slice current = key_text(net.rotated ? &new_key : &peer_key);
    struct slice old = key_text(&peer_key);
    struct json object = parse(arena_printf(
        arena,
        "{\"server_name\":\"peer.org:1\",\"valid_until_ts\":%lld,\"verify_keys\":"
        "{\"ed25519:%s\":{\"key\":\"%.*s\"}},\"old_verify_keys\":{%s%.*s%s}}",
        (long long)net.valid_until_ms, net.rotated ? "new" : "one", (int)current.len, current.ptr,
        net.rotated ? "\"ed25519:one\":{\"expired_ts\":1700000000500,\"key\":\"" : "",
        net.rotated ? (int)old.len : 0, old.ptr, net.rotated ? "\"}" : ""));
    if (net.padded) {
        char *padding = arena_alloc(arena, PADDING_BYTES);
        memset(padding, 'x', PADDING_BYTES);
        json_set(arena, &object, LIT("padding"),
                 json_string((struct slice){padding, PADDING_BYTES}));
    }
    if (!net.unsigned_peer) {
        sign_as(&object, "peer.org:1", net.rotated ? "ed25519:new" : "ed25519:one",
                net.rotated ? &new_key : &peer_key);
    }
    return object;
}

static struct json notary_keys(void)
{
    struct slice key = key_text(&notary_key);
    struct json object = parse(arena_printf(
        fw.world.ctx.arena,
        "{\"server_name\":\"notary.org:1\",\"valid_until_ts\":1800000000000,\"verify_keys\":"
        "{\"ed25519:n\":{\"key\":\"%.*s\"}}}",
        (int)key.len, key.ptr));
    sign_as(&object, "notary.org:1", "ed25519:n", &notary_key);
    return object;
}

static struct json notary_says(const struct http_fetch_request *request)
{
    struct arena *arena = fw.world.ctx.arena;
    struct json question = parse(request->body);
    struct json answer = json_object();
    struct json list = json_array();
    struct json object = peer_keys();
    const struct json *keys =
        json_get_object(json_get_object(&question, LIT("server_keys")), LIT("peer.org:1"));
    assert_non_null(keys);
    if (!json_get_int(json_get_object(keys, LIT("ed25519:one")), LIT("minimum_valid_until_ts"),
                      &net.asked_for_ms)) {
        net.asked_for_ms = -1;
    }
    sign_as(&object, "notary.org:1", "ed25519:n", net.forged ? &peer_key : &notary_key);
    json_push(arena, &list, object);
    json_set(arena, &answer, LIT("server_keys"), list);
    return answer;
}

static struct err on_fetch(struct fed_world *world, const struct http_fetch_request *request,
                           struct http_fetch_reply *reply)
{
    struct json object;
    (void)world;
    if (slice_eq(request->url, LIT("https://peer.org:1/_matrix/key/v2/server"))) {
        net.asked_peer++;
        if (net.peer_down) {
            return err_make(ERR_UNAVAILABLE, "down");
        }
        object = peer_keys();
    } else if (slice_eq(request->url, LIT("https://notary.org:1/_matrix/key/v2/server"))) {
        object = notary_keys();
    } else {
        assert_true(slice_eq(request->url, LIT("https://notary.org:1/_matrix/key/v2/query")));
        net.asked_notary++;
        object = notary_says(request);
    }
    *reply = (struct http_fetch_reply){.status = 200,
                                       .body = json_canonical(fw.world.ctx.arena, &object)};
    return OK;
}

static bool find(const char *key_id, enum fed_key_use use, int64_t ts_ms)
{
    struct fed_key_query query = {LIT("peer.org:1"), slice_of(key_id), use, ts_ms};
    struct ed25519_public key;
    bool found = false;
    assert_int_equal(fed_key_get(fw.fed, &fw.world.ctx, &query, &key, &found).code, 0);
    return found;
}

static bool find_now(const char *key_id)
{
    return find(key_id, FED_KEY_REQUEST, fw.world.wall_ms);
}

static void a_rotated_key_counts_for_its_events_alone(void **state)
{
    (void)state;
    assert_true(find_now("ed25519:one"));
    net.rotated = true;
    world_wait(&fw.world, 1000);
    assert_true(find_now("ed25519:new"));
    assert_false(find_now("ed25519:one"));
    assert_true(find("ed25519:one", FED_KEY_EVENT, 1700000000500));
    world_wait(&fw.world, 3600000);
    assert_false(find("ed25519:one", FED_KEY_EVENT, 1700000000501));
}

/* Conduit CVE-2024-6299. */
static void events_after_the_end_of_a_key_ask_again(void **state)
{
    (void)state;
    assert_true(find("ed25519:one", FED_KEY_EVENT, 0));
    assert_true(find("ed25519:one", FED_KEY_EVENT, net.valid_until_ms));
    unsigned before = net.asked_peer;
    net.valid_until_ms += 5000;
    assert_true(find("ed25519:one", FED_KEY_EVENT, net.valid_until_ms - 1));
    assert_int_equal(net.asked_peer, before + 1);
}

static void a_bad_refresh_loses_nothing(void **state)
{
    int64_t good_until_ms = net.valid_until_ms;
    (void)state;
    assert_true(find_now("ed25519:one"));
    for (int i = 0; i < 3; i++) {
        net.peer_down = i == 0;
        net.unsigned_peer = i == 1;
        net.valid_until_ms = i == 2 ? 5 : good_until_ms; /* an answer that has run out */
        assert_false(find("ed25519:other", FED_KEY_EVENT, 0));
        assert_true(find_now("ed25519:one"));
        assert_true(find("ed25519:one", FED_KEY_EVENT, good_until_ms));
        world_wait(&fw.world, 400000);
    }
    assert_true(net.asked_peer >= 4);
}

static void failures_are_not_repeated_at_once(void **state)
{
    (void)state;
    net.peer_down = true;
    for (int i = 0; i < 10; i++) {
        assert_false(find_now("ed25519:one"));
    }
    assert_int_equal(net.asked_peer, 1);
    world_wait(&fw.world, 300001);
    net.peer_down = false;
    assert_true(find_now("ed25519:one"));
}

static void a_notary_speaks_for_a_dead_server_with_both_signatures(void **state)
{
    static struct slice notaries[] = {{"notary.org:1", 12}};
    (void)state;
    fw.world.conf.trusted_key_servers = (struct conf_texts){notaries, 1};
    net.peer_down = true;
    net.forged = true;
    assert_false(find_now("ed25519:one"));
    world_wait(&fw.world, 300001);
    net.forged = false;
    net.unsigned_peer = true;
    assert_false(find_now("ed25519:one"));
    world_wait(&fw.world, 300001);
    net.unsigned_peer = false;
    assert_true(find_now("ed25519:one"));
    assert_int_equal(net.asked_notary, 3);
}

/* --- this server as a notary --- */

static struct json ask_notary(const char *keys, int64_t valid_until_ms)
{
    struct buf text;
    struct json criteria = parse(slice_of(keys));
    struct notary_question question = {LIT("peer.org:1"), &criteria, valid_until_ms};
    buf_init_arena(&text, fw.world.ctx.arena, 1 << 20);
    struct json_out out = json_out_to(&text);
    json_out_array(&out);
    assert_int_equal(notary_answer(fw.fed, &fw.world.ctx, &question, 1, &out).code, 0);
    json_out_array_end(&out);
    return parse(buf_slice(&text));
}

static void answers_of_a_notary_carry_both_signatures(void **state)
{
    struct ed25519_public peer_public = ed25519_public_of(&peer_key);
    struct ed25519_public own_public = ed25519_public_of(fw.world.hs.signer.key);
    struct arena *arena = fw.world.ctx.arena;
    (void)state;
    struct json list = ask_notary("{}", fw.world.wall_ms);
    assert_int_equal(list.count, 1);
    assert_true(json_sign_verify(arena, &list.items[0], LIT("peer.org:1"), LIT("ed25519:one"),
                                 &peer_public));
    assert_true(json_sign_verify(arena, &list.items[0], LIT("test"), fw.world.hs.signer.key_id,
                                 &own_public));
}

/* Before room version 6 an event may tell any 64-bit time. */
static void a_time_far_away_is_asked_for_within_bounds(void **state)
{
    static struct slice notaries[] = {{"notary.org:1", 12}};
    (void)state;
    fw.world.conf.trusted_key_servers = (struct conf_texts){notaries, 1};
    net.peer_down = true;
    assert_false(find("ed25519:one", FED_KEY_EVENT, INT64_MAX));
    assert_int_equal(net.asked_for_ms, JSON_INT_MAX);
}

static void a_notary_asks_again_when_keys_must_last_longer(void **state)
{
    (void)state;
    ask_notary("{}", fw.world.wall_ms);
    ask_notary("{}", net.valid_until_ms);
    assert_int_equal(net.asked_peer, 1);
    world_wait(&fw.world, 300001);
    ask_notary("{}", net.valid_until_ms + 1);
    assert_int_equal(net.asked_peer, 2);
    world_wait(&fw.world, 300001);
    char text[100];
    snprintf(text, sizeof text, "{\"ed25519:one\":{\"minimum_valid_until_ts\":%lld}}",
             (long long)net.valid_until_ms + 1);
    assert_int_equal(ask_notary(text, 0).count, 1);
    assert_int_equal(net.asked_peer, 3);
}

static void a_notary_remembers_the_dead_and_leaves_out_the_unknown(void **state)
{
    (void)state;
    net.peer_down = true;
    assert_int_equal(ask_notary("{}", fw.world.wall_ms).count, 0);
    world_wait(&fw.world, 300001);
    net.peer_down = false;
    assert_int_equal(ask_notary("{}", fw.world.wall_ms).count, 1);
    net.peer_down = true;
    world_wait(&fw.world, INT64_C(86400000) * 30);
    assert_int_equal(ask_notary("{}", fw.world.wall_ms).count, 1);
    net.peer_down = false;
    net.rotated = true; /* the old answer is kept beside the new one */
    net.valid_until_ms = fw.world.wall_ms + 86400000;
    world_wait(&fw.world, 300001);
    assert_int_equal(ask_notary("{}", fw.world.wall_ms).count, 1);
    assert_int_equal(ask_notary("{\"ed25519:one\":{}}", fw.world.wall_ms).count, 1);
}

/* Each key of an answer is kept with the whole of it: what servers make up costs nothing here. */
static void an_answer_that_is_large_is_not_kept_for_others(void **state)
{
    (void)state;
    net.padded = true;
    assert_int_equal(ask_notary("{}", fw.world.wall_ms).count, 0);
    assert_true(find_now("ed25519:one"));
    world_wait(&fw.world, 300001);
    net.padded = false;
    net.valid_until_ms += 1000;
    assert_int_equal(ask_notary("{}", net.valid_until_ms).count, 1);
    world_wait(&fw.world, 300001);
    net.padded = true;
    net.valid_until_ms += 1000;
    assert_int_equal(ask_notary("{}", net.valid_until_ms).count, 0);
}

/* Anybody may claim to be such a server, or ask for its keys, without any signature. */
static void the_longest_names_are_names_too(void **state)
{
    char name[LIMIT_SERVER_NAME];
    struct fed_key_query query = {.key_id = LIT("ed25519:a"), .use = FED_KEY_REQUEST};
    struct server_key key = {.id = query.key_id, .valid_until_ms = fw.world.wall_ms + 1000};
    struct fed_keys_answer answer = {.keys = {.keys = &key, .count = 1}, .is_direct = true};
    struct ed25519_public found_key;
    struct json object = json_object();
    (void)state;
    memset(name, 'a', sizeof name);
    answer.object = &object;
    for (size_t len = sizeof name - 8; len <= sizeof name; len++) {
        bool found = false;
        answer.server = query.server = (struct slice){name, len};
        assert_int_equal(fed_key_find(fw.fed, &fw.world.ctx, &query, &found_key, &found).code, 0);
        assert_false(found);
        assert_int_equal(fed_keys_take(fw.fed, &fw.world.ctx, &answer).code, 0);
        assert_int_equal(fed_key_find(fw.fed, &fw.world.ctx, &query, &found_key, &found).code, 0);
        assert_true(found);
    }
}

static int open_world(void **state)
{
    (void)state;
    peer_key = ed25519_generate();
    new_key = ed25519_generate();
    notary_key = ed25519_generate();
    fed_world_open(&fw);
    fw.on_fetch = on_fetch;
    memset(&net, 0, sizeof net);
    net.valid_until_ms = fw.world.wall_ms + 86400000;
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    fed_world_close(&fw);
    return 0;
}

int main(void)
{
#define WORLD_TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        WORLD_TEST(a_rotated_key_counts_for_its_events_alone),
        WORLD_TEST(events_after_the_end_of_a_key_ask_again),
        WORLD_TEST(a_bad_refresh_loses_nothing),
        WORLD_TEST(failures_are_not_repeated_at_once),
        WORLD_TEST(a_notary_speaks_for_a_dead_server_with_both_signatures),
        WORLD_TEST(answers_of_a_notary_carry_both_signatures),
        WORLD_TEST(a_time_far_away_is_asked_for_within_bounds),
        WORLD_TEST(a_notary_asks_again_when_keys_must_last_longer),
        WORLD_TEST(the_longest_names_are_names_too),
        WORLD_TEST(an_answer_that_is_large_is_not_kept_for_others),
        WORLD_TEST(a_notary_remembers_the_dead_and_leaves_out_the_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
