/* Transactions of another server, and the step that refuses each bad event. */
#include "federation/receipt.h"
#include "homeserver/base/stats.h"
#include "tests/support/inbound_fixture.h"

#include <stdio.h>
#include <string.h>

static uint64_t counted(enum receipt_step step)
{
    char want[128];
    struct buf out;
    uint64_t value = 0;
    buf_init(&out, 1 << 20);
    stats_render(w->house.hs.stats, &out);
    int len = snprintf(want, sizeof want, "federation_events_total{step=\"%s\"} ",
                       step == RECEIPT_NONE ? "accepted" : receipt_step_name(step));
    struct slice text = buf_slice(&out);
    for (size_t i = 0; i + (size_t)len < text.len; i++) {
        if (memcmp(text.ptr + i, want, (size_t)len) == 0) {
            struct slice number;
            slice_cut(slice_from(text, i + (size_t)len), '\n', &number);
            slice_parse_u64(number, &value);
        }
    }
    buf_deinit(&out);
    return value;
}

static void events_in_order_are_taken(void **state)
{
    size_t events[3];
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        events[i] = inbound_say(w, NULL, 0);
    }
    struct json results = inbound_send(w, events, 3);
    assert_int_equal(results.count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_null(inbound_error(&results, id_of(events[i])).ptr);
        assert_true(inbound_has(w, events[i]));
    }
    assert_int_equal(w->asked_count, 0);
    assert_int_equal(counted(RECEIPT_NONE), 3);
}

static void one_bad_event_does_not_harm_the_rest(void **state)
{
    const char *pdus[4];
    struct arena *arena = w->house.ctx.arena;
    (void)state;
    size_t first = inbound_say(w, NULL, 0);
    size_t second = inbound_say(w, NULL, 0);
    pdus[0] = "5";
    pdus[1] = arena_cstr(arena, peer_get(&w->theirs, first)->json);
    pdus[2] = "{\"room_id\":\"!elsewhere:remote\",\"type\":\"m.room.message\"}";
    pdus[3] = arena_cstr(arena, peer_get(&w->theirs, second)->json);
    struct json results = inbound_send_text(w, pdus, 4);
    assert_int_equal(results.count, 2);
    assert_true(inbound_has(w, first));
    assert_true(inbound_has(w, second));
}

static struct json nested(int levels)
{
    struct json content = json_object();
    for (int i = 1; i < levels; i++) {
        struct json outer = json_object();
        json_set(w->house.ctx.arena, &outer, LIT("a"), content);
        content = outer;
    }
    return content;
}

static uint32_t say_nested(int levels)
{
    struct json content = nested(levels);
    struct hs_sent sent;
    struct send_request request = {
        .actor = &w->alice.actor, .type = LIT("m.room.message"), .content = &content};
    return hs_send_message(&w->house.hs, &w->house.ctx, w->room, &request, &sent).code;
}

static void what_users_send_nests_as_others_can_read_it(void **state)
{
    (void)state;
    assert_int_equal(say_nested(LIMIT_EVENT_LEVELS - 1), 0);
    assert_int_equal(say_nested(LIMIT_EVENT_LEVELS), ERR_M_BAD_JSON);
}

/* Other servers let their users nest what they like, and send it with what others said. */
static void what_nests_deeply_is_taken_redacted(void **state)
{
    struct arena *arena = w->house.ctx.arena;
    struct stored_event stored;
    struct event deep;
    bool found = false;
    const char *pdus[2];
    (void)state;
    size_t first = inbound_say(w, NULL, 0);
    struct json tree = *event_tree(arena, peer_get(&w->theirs, first));
    json_set(arena, &tree, LIT("content"), nested(300));
    json_remove(&tree, LIT("hashes"));
    json_remove(&tree, LIT("signatures"));
    assert_int_equal(event_seal(arena, w->theirs.rules, &tree, &w->remote.signer, &deep).code, 0);
    pdus[0] = arena_cstr(arena, deep.json);
    pdus[1] = arena_cstr(arena, peer_get(&w->theirs, first)->json);
    struct json results = inbound_send_text(w, pdus, 2);
    assert_null(inbound_error(&results, deep.id.s).ptr);
    assert_true(inbound_has(w, first));
    assert_int_equal(
        hs_event_find(&w->house.hs, &w->house.ctx, w->room, deep.id.s, &stored, &found).code, 0);
    assert_true(found);
    assert_int_equal(stored.event.content->count, 0);
}

static void the_same_transaction_has_the_same_answer(void **state)
{
    (void)state;
    size_t event = inbound_say(w, NULL, 0);
    inbound_send(w, &event, 1);
    size_t other = inbound_say(w, NULL, 0);
    w->txn--; /* the id again, with another body */
    struct json results = inbound_send(w, &other, 1);
    assert_int_equal(results.count, 1);
    assert_non_null(json_get(&results, id_of(event)));
    assert_false(inbound_has(w, other));
}

static void an_event_sent_twice_is_taken_once(void **state)
{
    (void)state;
    size_t event = inbound_say(w, NULL, 0);
    size_t twice[] = {event, event};
    struct json results = inbound_send(w, twice, 2);
    assert_int_equal(results.count, 1);
    results = inbound_send(w, &event, 1);
    assert_null(inbound_error(&results, id_of(event)).ptr);
    assert_int_equal(counted(RECEIPT_NONE), 1);
}

static void transactions_have_limits(void **state)
{
    struct json body = json_object();
    struct json list = json_array();
    struct arena *arena = w->house.ctx.arena;
    struct json answer;
    (void)state;
    for (int i = 0; i < 51; i++) {
        json_push(arena, &list, json_object());
    }
    json_set(arena, &body, LIT("pdus"), list);
    struct slice text = json_canonical(arena, &body);
    assert_int_equal(
        inbound_put(w, w->remote.name, "send/x", arena_cstr(arena, text), &answer).code,
        ERR_M_INVALID_PARAM);
    assert_int_equal(inbound_put(w, w->remote.name, "send/x", "{\"pdus\":{}}", &answer).code,
                     ERR_M_BAD_JSON);
    for (int i = 51; i < 101; i++) {
        json_push(arena, &list, json_object());
    }
    body = json_object();
    json_set(arena, &body, LIT("edus"), list);
    text = json_canonical(arena, &body);
    assert_int_equal(
        inbound_put(w, w->remote.name, "send/x", arena_cstr(arena, text), &answer).code,
        ERR_M_INVALID_PARAM);
    assert_int_equal(inbound_put(w, w->remote.name, "send/y", "{}", &answer).code, 0);
}

/* --- what each step refuses --- */
static void assert_refused(const struct json *results, size_t event, enum receipt_step step)
{
    assert_non_null(inbound_error(results, id_of(event)).ptr);
    assert_false(inbound_has(w, event));
    assert_int_equal(counted(step), 1);
}

static void a_server_that_the_room_keeps_out_is_refused(void **state)
{
    (void)state;
    size_t acl = inbound_make(w, "m.room.server_acl", "", "{\"allow\":[\"test\"]}");
    size_t event = inbound_say(w, NULL, 0);
    struct json results = inbound_send(w, &acl, 1);
    assert_null(inbound_error(&results, id_of(acl)).ptr);
    results = inbound_send(w, &event, 1);
    assert_refused(&results, event, RECEIPT_ACL);
}

static void an_event_without_its_signature_is_refused(void **state)
{
    struct peer forger;
    (void)state;
    peer_init(&forger, "remote:8448");
    unsigned char seed[ED25519_SEED_BYTES] = {99};
    forger.key = ed25519_from_seed(seed);
    struct peer_draft draft = {.peer = &forger,
                               .sender = w->bob,
                               .type = "m.room.message",
                               .content = "{\"body\":\"forged\"}"};
    size_t event = peer_make(&w->theirs, &draft);
    struct json results = inbound_send(w, &event, 1);
    assert_refused(&results, event, RECEIPT_SIGNATURES);
}

static void an_event_in_our_name_is_refused(void **state)
{
    (void)state;
    struct peer_draft draft = {.peer = &w->remote,
                               .sender = w->alice.actor.user_id,
                               .type = "m.room.message",
                               .content = "{\"body\":\"not alice\"}"};
    size_t event = peer_make(&w->theirs, &draft);
    struct json results = inbound_send(w, &event, 1);
    assert_refused(&results, event, RECEIPT_SIGNATURES);
}

static void an_event_with_another_content_is_taken_redacted(void **state)
{
    (void)state;
    struct arena *arena = w->house.ctx.arena;
    size_t event = inbound_say(w, NULL, 0);
    struct json tree = *event_tree(arena, peer_get(&w->theirs, event));
    struct json content = json_object();
    json_set(arena, &content, LIT("body"), json_string(LIT("changed on the way")));
    json_set(arena, &tree, LIT("content"), content);
    const char *pdu = arena_cstr(arena, json_canonical(arena, &tree));
    struct json results = inbound_send_text(w, &pdu, 1);
    assert_null(inbound_error(&results, id_of(event)).ptr);
    struct stored_event stored;
    bool found = false;
    assert_int_equal(
        hs_event_find(&w->house.hs, &w->house.ctx, w->room, id_of(event), &stored, &found).code, 0);
    assert_true(found);
    assert_int_equal(stored.event.content->count, 0);
}

static void the_rules_refuse_by_the_state_before(void **state)
{
    (void)state;
    struct peer_draft draft = {.peer = &w->remote,
                               .sender = peer_user(w->house.conf_arena, &w->remote, "mallory"),
                               .type = "m.room.message",
                               .content = "{\"body\":\"not in the room\"}"};
    size_t event = peer_make(&w->theirs, &draft);
    struct json results = inbound_send(w, &event, 1);
    assert_non_null(inbound_error(&results, id_of(event)).ptr);
    assert_int_equal(counted(RECEIPT_AUTH_EVENTS) + counted(RECEIPT_STATE_BEFORE), 1);
    assert_false(inbound_has(w, event));
}

static void an_event_too_large_is_refused(void **state)
{
    struct arena *arena = w->house.ctx.arena;
    char *body = arena_alloc(arena, 70000);
    (void)state;
    memset(body, 'x', 69999);
    size_t event = inbound_say(w, NULL, 0);
    struct json tree = *event_tree(arena, peer_get(&w->theirs, event));
    struct json content = json_object();
    json_set(arena, &content, LIT("body"), json_string(slice_of(body)));
    json_set(arena, &tree, LIT("content"), content);
    const char *pdu = arena_cstr(arena, json_canonical(arena, &tree));
    inbound_send_text(w, &pdu, 1);
    assert_int_equal(counted(RECEIPT_SIZE), 1);
    assert_false(inbound_has(w, event));
}

static void an_event_that_cites_hundreds_is_refused(void **state)
{
    (void)state;
    size_t event = inbound_say(w, NULL, 0);
    struct arena *arena = w->house.ctx.arena;
    struct json tree = *event_tree(arena, peer_get(&w->theirs, event));
    struct json list = json_array();
    for (size_t i = 0; i < 21; i++) {
        json_push(arena, &list, json_string(arena_printf(arena, "$%zu", i)));
    }
    json_set(arena, &tree, LIT("prev_events"), list);
    const char *pdu = arena_cstr(arena, json_canonical(arena, &tree));
    inbound_send_text(w, &pdu, 1);
    assert_false(inbound_has(w, event));
    assert_int_equal(counted(RECEIPT_NONE), 0);
    assert_int_equal(w->asked_count, 0);
}

static void a_room_of_others_is_refused(void **state)
{
    struct peer_room elsewhere;
    (void)state;
    peer_room_open(&elsewhere, "12", &w->remote, w->bob);
    const char *pdu =
        arena_cstr(w->house.ctx.arena, peer_get(&elsewhere, elsewhere.count - 1)->json);
    inbound_send_text(w, &pdu, 1);
    assert_int_equal(counted(RECEIPT_ROOM), 1);
    peer_room_close(&elsewhere);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_VERSION(events_in_order_are_taken, 10),
        WITH_VERSION(one_bad_event_does_not_harm_the_rest, 10),
        WITH_VERSION(what_nests_deeply_is_taken_redacted, 10),
        WITH_VERSION(what_users_send_nests_as_others_can_read_it, 10),
        WITH_VERSION(the_same_transaction_has_the_same_answer, 10),
        WITH_VERSION(an_event_sent_twice_is_taken_once, 10),
        WITH_VERSION(transactions_have_limits, 10),
        WITH_VERSION(a_server_that_the_room_keeps_out_is_refused, 10),
        WITH_VERSION(an_event_without_its_signature_is_refused, 10),
        WITH_VERSION(an_event_in_our_name_is_refused, 10),
        WITH_VERSION(an_event_with_another_content_is_taken_redacted, 10),
        WITH_VERSION(the_rules_refuse_by_the_state_before, 10),
        WITH_VERSION(an_event_too_large_is_refused, 10),
        WITH_VERSION(an_event_that_cites_hundreds_is_refused, 10),
        WITH_VERSION(a_room_of_others_is_refused, 10),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
