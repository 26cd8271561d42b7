#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "crypto/base64.h"
#include "homeserver/room/event.h"
#include "homeserver/room/redact.h"
#include "spec/errcodes.h"

struct fixture {
    struct arena *arena;
    struct json vectors;
    struct ed25519_key key;
    struct json_signer signer;
};

static int set_up(void **state)
{
    static struct fixture f;
    unsigned char seed[ED25519_SEED_BYTES];
    f.arena = arena_new();
    FILE *file = fopen(TEST_DATA_DIR "/signing.json", "rb");
    assert_non_null(file);
    char *text = arena_alloc(f.arena, 1 << 20);
    size_t len = fread(text, 1, 1 << 20, file);
    fclose(file);
    assert_int_equal(json_parse(f.arena, (struct slice){text, len}, &f.vectors).code, 0);
    const struct json *key = json_get(&f.vectors, LIT("signing_key"));
    assert_true(
        base64_decode_exact(json_get_string(key, LIT("seed_unpadded_base64")), seed, sizeof seed));
    f.key = ed25519_from_seed(seed);
    f.signer = (struct json_signer){ids_trust_server(LIT("domain")), LIT("ed25519:1"), &f.key};
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    arena_free(&f->arena);
    return 0;
}

static const struct room_rules *version(const char *number)
{
    return room_rules_get(slice_of(number));
}

static void assert_same(struct slice have, struct slice want)
{
    if (!slice_eq(have, want)) {
        fail_msg("have %.*s, want %.*s", (int)have.len, have.ptr, (int)want.len, want.ptr);
    }
}

static struct json parse(struct fixture *f, const char *text)
{
    struct json value;
    struct err err = json_parse(f->arena, slice_of(text), &value);
    if (err.code != 0) {
        fail_msg("%s: %s", err.text, text);
    }
    return value;
}

static const char message_text[] =
    "{\"type\":\"m.room.message\",\"room_id\":\"!r:domain\",\"sender\":\"@u:domain\","
    "\"content\":{\"body\":\"hi \\\"there\\\"\",\"msgtype\":\"m.text\"},\"depth\":7,"
    "\"origin_server_ts\":1000,\"prev_events\":[\"$a\",\"$b\"],\"auth_events\":[\"$c\"]}";

static void sealing_matches_the_first_vector(void **state)
{
    struct fixture *f = *state;
    const struct json *row = &json_get(&f->vectors, LIT("event_signing"))->items[0];
    const struct json *want = json_get(row, LIT("expected"));
    struct event event;
    assert_int_equal(
        event_seal(f->arena, version("4"), json_get(row, LIT("input")), &f->signer, &event).code,
        0);
    const struct json *have = event_tree(f->arena, &event);
    assert_true(json_eq(json_get(have, LIT("hashes")), json_get(want, LIT("hashes"))));
    assert_true(json_eq(json_get(have, LIT("signatures")), json_get(want, LIT("signatures"))));
    struct slice hash = json_get_string(json_get(row, LIT("derived")),
                                        LIT("reference_hash_urlsafe_unpadded_base64"));
    assert_same(slice_from(event.id.s, 1), hash);
}

static void reference_hash_matches_the_second_vector(void **state)
{
    struct fixture *f = *state;
    const struct json *row = &json_get(&f->vectors, LIT("event_signing"))->items[1];
    struct slice have =
        event_reference_hash(f->arena, version("1"), json_get(row, LIT("expected")));
    assert_same(have, json_get_string(json_get(row, LIT("derived")),
                                      LIT("reference_hash_unpadded_base64")));
}

static bool give_key(void *arg, struct server_name server, struct slice key_id,
                     struct ed25519_public *key_out)
{
    struct fixture *f = arg;
    *key_out = ed25519_public_of(&f->key);
    return slice_eq(server.s, LIT("domain")) && slice_eq(key_id, LIT("ed25519:1"));
}

static void a_sealed_event_checks_in_every_version(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 2; room_rules_at(i); i++) {
        const struct room_rules *rules = room_rules_at(i);
        struct json draft = parse(f, message_text);
        struct event sealed;
        struct event parsed;
        struct server_name server;
        assert_int_equal(event_seal(f->arena, rules, &draft, &f->signer, &sealed).code, 0);
        assert_int_equal(event_parse(f->arena, rules, sealed.json, &parsed).code, 0);
        assert_same(parsed.json, sealed.json);
        assert_same(parsed.id.s, sealed.id.s);
        assert_same(parsed.content_json, sealed.content_json);
        assert_true(event_check_hash(f->arena, &parsed));
        assert_int_equal(event_check_signatures(f->arena, &parsed, give_key, f, &server).code, 0);
    }
}

static void a_changed_content_breaks_the_hash_but_not_the_signature(void **state)
{
    struct fixture *f = *state;
    struct json draft = parse(f, message_text);
    struct event sealed;
    struct event changed;
    struct event redacted;
    struct server_name server;
    assert_int_equal(event_seal(f->arena, version("11"), &draft, &f->signer, &sealed).code, 0);
    struct json tree = json_without(f->arena, event_tree(f->arena, &sealed), NULL, 0);
    json_set(f->arena, &tree, LIT("content"), json_object());
    assert_int_equal(event_parse_tree(f->arena, version("11"), &tree, &changed).code, 0);
    assert_same(changed.id.s, sealed.id.s);
    assert_false(event_check_hash(f->arena, &changed));
    assert_int_equal(event_check_signatures(f->arena, &changed, give_key, f, &server).code, 0);
    assert_int_equal(event_redacted(f->arena, &sealed, &redacted).code, 0);
    assert_same(redacted.json, changed.json);
    json_set(f->arena, &tree, LIT("depth"), json_int(8));
    assert_int_equal(event_parse_tree(f->arena, version("11"), &tree, &changed).code, 0);
    assert_int_equal(event_check_signatures(f->arena, &changed, give_key, f, &server).code,
                     ERR_M_FORBIDDEN);
    assert_same(server.s, LIT("domain"));
}

static void stored_events_read_back_equal(void **state)
{
    struct fixture *f = *state;
    struct json draft = parse(f, message_text);
    struct slice key = LIT("a\"\\b\xc3\xa4");
    struct event sealed;
    struct event stored;
    json_set(f->arena, &draft, LIT("state_key"), json_string(key));
    for (size_t i = 2; room_rules_at(i); i++) {
        assert_int_equal(event_seal(f->arena, room_rules_at(i), &draft, &f->signer, &sealed).code,
                         0);
        assert_int_equal(
            event_parse_stored(f->arena, room_rules_at(i), sealed.json, sealed.id, &stored).code,
            0);
        assert_same(stored.type, LIT("m.room.message"));
        assert_same(stored.state_key, key);
        assert_same(stored.sender.s, LIT("@u:domain"));
        assert_same(stored.room_id.s, LIT("!r:domain"));
        assert_same(stored.content_json, sealed.content_json);
        assert_true(json_eq(stored.content, sealed.content));
        assert_int_equal(stored.depth, 7);
        assert_int_equal(stored.origin_server_ts, 1000);
        assert_int_equal(stored.prev_event_count, 2);
        assert_same(stored.prev_events[1].s, LIT("$b"));
        assert_int_equal(stored.auth_event_count, 1);
    }
}

static void stored_events_of_version_1_have_pairs(void **state)
{
    struct fixture *f = *state;
    struct event event;
    struct slice json =
        LIT("{\"auth_events\":[[\"$c:d\",{\"sha256\":\"x,y\"}]],\"content\":{},\"depth\":1,"
            "\"event_id\":\"$e:d\",\"hashes\":{},\"origin_server_ts\":5,"
            "\"prev_events\":[[\"$a:d\",{}],[\"$b:d\",{\"sha256\":\"z\"}]],"
            "\"redacts\":\"$t:d\",\"room_id\":\"!r:d\",\"sender\":\"@u:d\",\"signatures\":{},"
            "\"type\":\"m.room.redaction\"}");
    assert_int_equal(
        event_parse_stored(f->arena, version("1"), json, (struct event_id){0}, &event).code, 0);
    assert_int_equal(event.prev_event_count, 2);
    assert_same(event.prev_events[1].s, LIT("$b:d"));
    assert_int_equal(event.auth_event_count, 1);
    assert_same(event.id.s, LIT("$e:d"));
    assert_same(event.redacts.s, LIT("$t:d"));
    assert_false(event.has_state_key);
}

static void the_create_event_names_a_room_of_version_12(void **state)
{
    struct fixture *f = *state;
    struct json draft = parse(f, "{\"type\":\"m.room.create\",\"sender\":\"@u:domain\","
                                 "\"state_key\":\"\",\"content\":{\"room_version\":\"12\"},"
                                 "\"depth\":1,\"origin_server_ts\":1,\"prev_events\":[],"
                                 "\"auth_events\":[]}");
    struct event event;
    struct event again;
    assert_int_equal(event_seal(f->arena, version("12"), &draft, &f->signer, &event).code, 0);
    assert_int_equal(event.room_id.s.ptr[0], '!');
    assert_same(slice_from(event.room_id.s, 1), slice_from(event.id.s, 1));
    assert_int_equal(event_parse_stored(f->arena, version("12"), event.json, event.id, &again).code,
                     0);
    assert_same(again.room_id.s, event.room_id.s);
    json_set(f->arena, &draft, LIT("room_id"), json_string(LIT("!x:domain")));
    assert_int_equal(event_seal(f->arena, version("12"), &draft, &f->signer, &event).code,
                     ERR_M_BAD_JSON);
}

struct change {
    const char *version;
    const char *member;
    const char *value; /* NULL: removed */
    bool good;
};

static void malformed_members_are_refused(void **state)
{
    struct fixture *f = *state;
    static const struct change rows[] = {
        {"11", "type", "5", false},
        {"11", "type", NULL, false},
        {"11", "sender", "\"u\"", false},
        {"11", "room_id", "\"r\"", false},
        {"11", "room_id", NULL, false},
        {"11", "content", "[]", false},
        {"11", "state_key", "null", false},
        {"11", "depth", "-1", false},
        {"11", "depth", "1.5", false},
        {"11", "depth", "9007199254740992", false},
        {"5", "depth", "9007199254740992", true},
        {"5", "depth", "9223372036854775808", false},
        {"11", "depth", "\"1\"", false},
        {"11", "origin_server_ts", NULL, false},
        {"11", "prev_events", "{}", false},
        {"11", "prev_events", "[5]", false},
        {"11", "prev_events", "[[\"$a:d\",{}]]", false},
        {"11", "auth_events", "[\"a\"]", false},
        {"11", "hashes", "5", false},
        {"11", "signatures", NULL, false},
        {"11", "content", "{\"a\":1.5}", false},
        {"11", "content", "{\"a\":{\"b\":[9007199254740993]}}", false},
        {"5", "content", "{\"a\":1.5}", true},
        {"11", "other", "{\"a\":1}", true},
        {"11", "event_id", "\"$stray\"", true},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct json draft = parse(f, message_text);
        struct event event;
        json_set(f->arena, &draft, LIT("hashes"), json_object());
        json_set(f->arena, &draft, LIT("signatures"), json_object());
        if (rows[i].value) {
            json_set(f->arena, &draft, slice_of(rows[i].member), parse(f, rows[i].value));
        } else {
            json_remove(&draft, slice_of(rows[i].member));
        }
        struct err err = event_parse_tree(f->arena, version(rows[i].version), &draft, &event);
        if ((err.code == 0) != rows[i].good) {
            fail_msg("row %zu: %s %s", i, rows[i].member, rows[i].value ? rows[i].value : "-");
        }
    }
}

static void sizes_are_limited(void **state)
{
    struct fixture *f = *state;
    struct event event;
    char text[70000];
    memset(text, 'x', sizeof text);
    struct json draft = parse(f, message_text);
    struct json content = json_object();
    json_set(f->arena, &content, LIT("body"), json_string((struct slice){text, 65000}));
    json_set(f->arena, &draft, LIT("content"), content);
    assert_int_equal(event_seal(f->arena, version("11"), &draft, &f->signer, &event).code, 0);
    json_set(f->arena, &content, LIT("body"), json_string((struct slice){text, 65536}));
    json_set(f->arena, &draft, LIT("content"), content);
    assert_int_equal(event_seal(f->arena, version("11"), &draft, &f->signer, &event).code,
                     ERR_M_TOO_LARGE);
}

static void state_keys_are_counted_in_bytes_from_version_11(void **state)
{
    struct fixture *f = *state;
    struct event event;
    char text[280];
    for (size_t i = 0; i < sizeof text; i += 4) {
        memcpy(text + i, "\xf0\x9f\x98\x80", 4);
    }
    struct json draft = parse(f, message_text);
    json_set(f->arena, &draft, LIT("state_key"), json_string((struct slice){text, sizeof text}));
    assert_int_equal(event_seal(f->arena, version("10"), &draft, &f->signer, &event).code, 0);
    assert_int_not_equal(event_seal(f->arena, version("11"), &draft, &f->signer, &event).code, 0);
}

static void a_draft_puts_redacts_where_the_version_wants_it(void **state)
{
    struct fixture *f = *state;
    struct json content = parse(f, "{\"reason\":\"r\",\"redacts\":\"$stray\"}");
    struct event_draft draft = {.room_id = ids_trust_room(LIT("!r:domain")),
                                .sender = ids_trust_user(LIT("@u:domain")),
                                .type = LIT("m.room.redaction"),
                                .content = &content,
                                .redacts = ids_trust_event(LIT("$t"))};
    draft.rules = version("10");
    struct json tree = event_draft_tree(f->arena, &draft);
    assert_same(json_get_string(&tree, LIT("redacts")), LIT("$t"));
    assert_null(json_get(json_get(&tree, LIT("content")), LIT("redacts")));
    draft.rules = version("11");
    tree = event_draft_tree(f->arena, &draft);
    assert_null(json_get(&tree, LIT("redacts")));
    assert_same(json_get_string(json_get(&tree, LIT("content")), LIT("redacts")), LIT("$t"));
    struct event event;
    assert_int_equal(event_seal(f->arena, draft.rules, &tree, &f->signer, &event).code, 0);
    assert_same(event.redacts.s, LIT("$t"));
}

static void signers_follow_version_and_content(void **state)
{
    struct fixture *f = *state;
    struct server_name signers[EVENT_SIGNERS_MAX];
    struct json join = parse(f, "{\"membership\":\"join\","
                                "\"join_authorised_via_users_server\":\"@v:other\"}");
    struct json invite = parse(f, "{\"membership\":\"invite\",\"third_party_invite\":{}}");
    struct event event = {.rules = version("7"),
                          .type = LIT("m.room.member"),
                          .sender = ids_trust_user(LIT("@u:domain")),
                          .id = ids_trust_event(LIT("$e:elsewhere")),
                          .content = &join};
    assert_int_equal(event_required_signers(&event, signers), 1);
    event.rules = version("8");
    assert_int_equal(event_required_signers(&event, signers), 2);
    assert_same(signers[1].s, LIT("other"));
    event.rules = version("2");
    assert_int_equal(event_required_signers(&event, signers), 2);
    assert_same(signers[1].s, LIT("elsewhere"));
    event.content = &invite;
    assert_int_equal(event_required_signers(&event, signers), 1);
    event.rules = version("11");
    assert_int_equal(event_required_signers(&event, signers), 0);
}

static void a_second_signature_keeps_the_first(void **state)
{
    struct fixture *f = *state;
    struct json draft = parse(f, message_text);
    struct event sealed;
    struct event both;
    const struct json_signer other = {ids_trust_server(LIT("other")), LIT("ed25519:x"), &f->key};
    assert_int_equal(event_seal(f->arena, version("9"), &draft, &f->signer, &sealed).code, 0);
    assert_int_equal(event_add_signature(f->arena, &sealed, &other, &both).code, 0);
    assert_same(both.id.s, sealed.id.s);
    const struct json *tree = event_tree(f->arena, &both);
    assert_non_null(json_sign_find(tree, LIT("domain"), LIT("ed25519:1")).ptr);
    assert_same(json_sign_find(tree, LIT("other"), LIT("ed25519:x")),
                json_sign_find(tree, LIT("domain"), LIT("ed25519:1")));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(sealing_matches_the_first_vector),
        TEST(reference_hash_matches_the_second_vector),
        TEST(a_sealed_event_checks_in_every_version),
        TEST(a_changed_content_breaks_the_hash_but_not_the_signature),
        TEST(stored_events_read_back_equal),
        TEST(stored_events_of_version_1_have_pairs),
        TEST(the_create_event_names_a_room_of_version_12),
        TEST(malformed_members_are_refused),
        TEST(sizes_are_limited),
        TEST(state_keys_are_counted_in_bytes_from_version_11),
        TEST(a_draft_puts_redacts_where_the_version_wants_it),
        TEST(signers_follow_version_and_content),
        TEST(a_second_signature_keeps_the_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
