#include "homeserver/service/rebuild.h"

#include "homeserver/service/directory.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/inbox_rows.h"
#include "homeserver/service/keys_priv.h"
#include "homeserver/service/media_usage.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/users.h"
#include "tests/support/private_rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct house h;
static struct guest ann, bob;
static uint64_t room;

static void redact(struct room *where, struct slice event_id)
{
    struct hs_sent sent;
    struct json content = json_object();
    struct send_request request = {
        .actor = &ann.actor, .device_id = ann.device_id, .content = &content};
    assert_int_equal(hs_redact(&h.hs, &h.ctx, where, &request, event_id, &sent).code, 0);
}

static struct slice relate(struct room *where, const char *type, struct slice target)
{
    struct slice content =
        arena_printf(h.ctx.arena,
                     "{\"body\":\"b\",\"msgtype\":\"m.text\",\"m.relates_to\":{\"rel_type\":\"%s\","
                     "\"event_id\":\"%.*s\",\"key\":\"k\"}}",
                     type, (int)target.len, target.ptr);
    return house_send(&h, where, &bob,
                      strcmp(type, "m.annotation") == 0 ? "m.reaction" : "m.room.message",
                      content.ptr);
}

static void say_with_txn(struct room *where)
{
    struct json content;
    struct hs_sent sent;
    assert_int_equal(json_parse(h.ctx.arena, LIT("{\"body\":\"x\"}"), &content).code, 0);
    struct send_request request = {.actor = &ann.actor,
                                   .device_id = ann.device_id,
                                   .txn_id = LIT("one"),
                                   .type = LIT("m.room.message"),
                                   .content = &content};
    assert_int_equal(hs_send_message(&h.hs, &h.ctx, where, &request, &sent).code, 0);
}

static void furnish(void)
{
    struct room *where = house_room(
        &h, &ann,
        "{\"preset\":\"public_chat\",\"visibility\":\"public\",\"room_alias_name\":\"a\"}");
    room = hs_room_info(where).number;
    house_member(&h, where, &bob, &bob, MEMBERSHIP_JOIN);
    struct slice first = house_say(&h, where, &ann, "first");
    struct slice second = house_say(&h, where, &ann, "second");
    redact(where, relate(where, "m.annotation", first));
    relate(where, "m.annotation", first);
    relate(where, "m.thread", first);
    relate(where, "m.thread", second);
    redact(where, relate(where, "m.thread", second));
    house_state(&h, where, &ann, "m.room.topic", "{\"topic\":\"t\"}");
    house_member(&h, where, &bob, &bob, MEMBERSHIP_LEAVE);
    assert_int_equal(room_cites_build(&h.hs, &h.ctx, where).code, 0);
    house_member(&h, where, &bob, &bob, MEMBERSHIP_JOIN);
    for (int i = 0; i < 40; i++) { /* so many that snapshots fold */
        house_state(&h, where, &ann, "m.room.topic",
                    arena_printf(h.ctx.arena, "{\"topic\":\"%d\"}", i).ptr);
    }
    say_with_txn(where);
    struct receipt receipt = {.user = bob.actor.user, .event_id = first, .number = 9};
    assert_int_equal(hs_receipt_set(&h.hs, &h.ctx, where, &receipt).code, 0);
    assert_int_equal(
        hs_account_data_put(&h.hs, &h.ctx, ann.actor.user, room, LIT("m.tag"), LIT("{}")).code, 0);
    house_room(&h, &bob, "{\"preset\":\"private_chat\",\"room_version\":\"6\"}");
    house_private_rows(&h, &ann, &bob);
}

static int open_house(void **state)
{
    (void)state;
    house_open(&h);
    ann = house_guest(&h, "ann");
    bob = house_guest(&h, "bob");
    furnish();
    house_settle(&h);
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    house_close(&h);
    return 0;
}

static void print(void *arg, const struct check_difference *d)
{
    (void)arg;
    if (getenv("VERBOSE")) {
        printf("%s %.*s %lld %.*s: %s\n", check_index_name(d->index), (int)d->room_id.len,
               d->room_id.ptr, (long long)d->number, (int)d->event_id.len, d->event_id.ptr,
               d->what);
    }
}

static struct check_result check(void)
{
    struct check_result result;
    struct check_options options = {.deep = true, .report = print};
    state_forget(h.hs.states, room);
    assert_int_equal(hs_check(&h.hs, &h.ctx, &options, &result).code, 0);
    return result;
}

static void a_sound_store_has_no_differences(void **state)
{
    (void)state;
    struct check_result result = check();
    assert_int_equal(result.differences, 0);
    assert_int_equal(result.rooms, 2);
    for (size_t i = 0; i < CHECK_COUNT; i++) {
        if (result.of[i].rows == 0) {
            fail_msg("nothing was compared of %s", check_index_name((enum check_index)i));
        }
    }
}

static void a_redacted_member_loses_its_names_everywhere(void **state)
{
    struct room *where = NULL;
    struct room_member member;
    struct json content;
    struct hs_sent sent;
    bool found = false;
    (void)state;
    assert_int_equal(hs_room_get(&h.hs, &h.ctx, room, &where).code, 0);
    assert_int_equal(json_parse(h.ctx.arena, LIT("{\"displayname\":\"B\"}"), &content).code, 0);
    struct member_change change = {
        .target = bob.actor.user_id, .membership = MEMBERSHIP_JOIN, .extra = &content};
    assert_int_equal(hs_member_set(&h.hs, &h.ctx, where, &bob.actor, &change, &sent).code, 0);
    assert_int_equal(hs_room_member(&h.hs, &h.ctx, where, bob.actor.user, &member, &found).code, 0);
    assert_true(slice_eq(member.display_name, LIT("B")));
    redact(where, sent.event_id);
    assert_int_equal(hs_room_member(&h.hs, &h.ctx, where, bob.actor.user, &member, &found).code, 0);
    assert_null(member.display_name.ptr);
    assert_int_equal(member.membership, MEMBERSHIP_JOIN);
    house_settle(&h);
    assert_int_equal(check().differences, 0);
}

/* --- damage --- */

enum damage { LOSE, CHANGE, INVENT };

struct corruption {
    enum check_index index;
    enum store_kind kind;
    const char *id; /* of the object; NULL = the room, "u" = the user ann, else see object_of */
    char prefix;    /* of the rows; 0 = any */
    enum damage damage;
};

static const struct corruption corruptions[] = {
    {CHECK_USER_IDS, STORE_USER_IDS, "", 'i', LOSE},
    {CHECK_USER_IDS, STORE_USER_IDS, "", 'n', LOSE},
    {CHECK_ROOM_IDS, STORE_ROOM_IDS, "ids", 0, LOSE},
    {CHECK_ROOM_IDS, STORE_ROOM_IDS, "ids", 0, INVENT},
    {CHECK_ALIASES, STORE_ROOM_IDS, "aliases_of", 0, LOSE},
    {CHECK_ALIASES, STORE_ROOM_IDS, "aliases_of", 0, INVENT},
    {CHECK_DIRECTORY, STORE_ROOM_IDS, "public", 0, INVENT},
    {CHECK_EVENT_IDS, STORE_EVENT_IDS, "ids", 0, LOSE},
    {CHECK_EVENT_IDS, STORE_EVENT_IDS, "ids", 0, CHANGE},
    {CHECK_EVENT_IDS, STORE_EVENT_IDS, "ids", 0, INVENT},
    {CHECK_TRANSACTIONS, STORE_ROOM, NULL, ROOM_KEY_TXN, LOSE},
    {CHECK_TRANSACTIONS, STORE_ROOM, NULL, ROOM_KEY_TXN, CHANGE},
    {CHECK_STATE_KEYS, STORE_ROOM, NULL, ROOM_KEY_STATE_KEY, LOSE},
    {CHECK_STATE_KEYS, STORE_ROOM, NULL, ROOM_KEY_STATE_NAME, LOSE},
    {CHECK_MEMBERS, STORE_ROOM_DERIVED, NULL, DERIVED_KEY_MEMBER, LOSE},
    {CHECK_MEMBERS, STORE_ROOM_DERIVED, NULL, DERIVED_KEY_MEMBER, CHANGE},
    {CHECK_MEMBERS, STORE_ROOM_DERIVED, NULL, DERIVED_KEY_MEMBER, INVENT},
    {CHECK_LOCAL_MEMBERS, STORE_ROOM_DERIVED, NULL, DERIVED_KEY_LOCAL, LOSE},
    {CHECK_LOCAL_MEMBERS, STORE_ROOM_DERIVED, NULL, DERIVED_KEY_LOCAL, INVENT},
    {CHECK_RELATIONS, STORE_ROOM_DERIVED, NULL, DERIVED_KEY_RELATION, LOSE},
    {CHECK_RELATIONS, STORE_ROOM_DERIVED, NULL, DERIVED_KEY_RELATION, CHANGE},
    {CHECK_RELATIONS, STORE_ROOM_DERIVED, NULL, DERIVED_KEY_RELATION, INVENT},
    {CHECK_THREADS, STORE_ROOM_DERIVED, NULL, DERIVED_KEY_THREAD, LOSE},
    {CHECK_THREADS, STORE_ROOM_DERIVED, NULL, DERIVED_KEY_THREADS, LOSE},
    {CHECK_THREADS, STORE_ROOM_DERIVED, NULL, DERIVED_KEY_THREAD, INVENT},
    {CHECK_THREADS, STORE_ROOM_DERIVED, NULL, DERIVED_KEY_THREADS, INVENT},
    {CHECK_RECEIPTS, STORE_ROOM_DERIVED, NULL, DERIVED_KEY_RECEIPT_POS, LOSE},
    {CHECK_RECEIPTS, STORE_ROOM_DERIVED, NULL, DERIVED_KEY_RECEIPT_POS, CHANGE},
    {CHECK_USER_ROOMS, STORE_USER, "u", USER_ROW_ROOM, LOSE},
    {CHECK_USER_ROOMS, STORE_USER, "u", USER_ROW_ROOM, CHANGE},
    {CHECK_USER_ROOMS, STORE_USER, "u", USER_ROW_ROOM, INVENT},
    {CHECK_ACCOUNT_DATA, STORE_USER, "u", USER_ROW_DATA_BY_POS, LOSE},
    {CHECK_ACCOUNT_DATA, STORE_USER, "u", USER_ROW_DATA_BY_POS, INVENT},
    {CHECK_TOKENS, STORE_TOKENS, "t", 0, LOSE},
    {CHECK_TOKENS, STORE_TOKENS, "t", 0, CHANGE},
    {CHECK_DEVICES, STORE_USER, "u", USER_ROW_DEVICE_SEEN, INVENT},
    {CHECK_PUSHERS, STORE_SERVER, "pushers", 0, LOSE},
    {CHECK_PUSHERS, STORE_SERVER, "pushers", 0, INVENT},
    {CHECK_DEVICE_KEYS, STORE_USER_KEYS, "k", KEYS_ROW_DEVICE, INVENT},
    {CHECK_ONE_TIME_KEYS, STORE_USER_KEYS, "k", KEYS_ROW_KEY_ID, LOSE},
    {CHECK_ONE_TIME_KEYS, STORE_USER_KEYS, "k", KEYS_ROW_KEY_ID, CHANGE},
    {CHECK_ONE_TIME_KEYS, STORE_USER_KEYS, "k", KEYS_ROW_KEY_ID, INVENT},
    {CHECK_ONE_TIME_KEYS, STORE_USER_KEYS, "k", KEYS_ROW_ONE_TIME, INVENT},
    {CHECK_ONE_TIME_KEYS, STORE_USER_KEYS, "k", KEYS_ROW_CLAIMED, CHANGE},
    {CHECK_ONE_TIME_KEYS, STORE_USER_KEYS, "k", KEYS_ROW_CLAIMED, INVENT},
    {CHECK_KEY_COUNTS, STORE_USER_KEYS, "k", KEYS_ROW_COUNTED, INVENT},
    {CHECK_DEVICE_LISTS, STORE_DEVICE_CHANGES, "v", LISTS_ROW_BY_POS, LOSE},
    {CHECK_DEVICE_LISTS, STORE_DEVICE_CHANGES, "v", LISTS_ROW_BY_POS, CHANGE},
    {CHECK_DEVICE_LISTS, STORE_DEVICE_CHANGES, "v", LISTS_ROW_BY_POS, INVENT},
    {CHECK_DEVICE_LISTS, STORE_DEVICE_CHANGES, "v", LISTS_ROW_BY_USER, LOSE},
    {CHECK_DEVICE_LISTS, STORE_DEVICE_CHANGES, "v", LISTS_ROW_BY_USER, CHANGE},
    {CHECK_DEVICE_LISTS, STORE_DEVICE_CHANGES, "v", LISTS_ROW_BY_USER, INVENT},
    {CHECK_CROSS_SIGNING, STORE_USER_KEYS, "k", KEYS_ROW_SIGNED, INVENT},
    {CHECK_KEY_BACKUPS, STORE_USER_KEYS, "k", KEYS_ROW_BACKUP_LAST, LOSE},
    {CHECK_INBOXES, STORE_INBOX, "b", INBOX_ROW_TXN_BY_TIME, LOSE},
    {CHECK_INBOXES, STORE_INBOX, "b", INBOX_ROW_TXN_BY_TIME, CHANGE},
    {CHECK_INBOXES, STORE_INBOX, "b", INBOX_ROW_TXN_BY_TIME, INVENT},
    {CHECK_MEDIA, STORE_MEDIA, "@", 0, LOSE},
    {CHECK_MEDIA, STORE_MEDIA, "@", 0, CHANGE},
    {CHECK_MEDIA, STORE_MEDIA, "@", 0, INVENT},
    {CHECK_MEDIA_USAGE, STORE_MEDIA, "~", '=', LOSE},
    {CHECK_MEDIA_USAGE, STORE_MEDIA, "~", '=', CHANGE},
    {CHECK_MEDIA_USAGE, STORE_MEDIA, "~", 'u', LOSE},
    {CHECK_MEDIA_USAGE, STORE_MEDIA, "~", 'u', CHANGE},
    {CHECK_MEDIA_USAGE, STORE_MEDIA, "~", 'u', INVENT},
};

static struct err note_token(void *arg, struct slice id)
{
    *(struct slice *)arg = arena_copy(h.ctx.arena, id);
    return OK;
}

/* The object of one of the tokens, named while it is there. */
static struct store_object token_object(void)
{
    static struct slice last;
    struct slice id = {0};
    assert_int_equal(store_each_object(h.hs.store, &h.ctx, STORE_TOKENS, note_token, &id).code, 0);
    last = id.len && last.len == 0 ? id : last;
    return (struct store_object){STORE_TOKENS, last};
}

static struct store_object object_of(const struct corruption *corruption)
{
    if (!corruption->id) {
        return (struct store_object){corruption->kind, store_id_u64(h.ctx.arena, room)};
    }
    if (strlen(corruption->id) != 1) {
        return (struct store_object){corruption->kind, slice_of(corruption->id)};
    }
    switch (corruption->id[0]) {
    case 'u':
        return user_object(&h.ctx, ann.actor.user);
    case 't':
        return token_object();
    case 'k':
        return keys_object(&h.ctx, ann.actor.user);
    case 'v':
        return lists_object(&h.ctx);
    case 'b':
        return inbox_object(&h.ctx, ann.actor.user, ann.device_id);
    case '~':
        return hs_media_usage_object(&h.ctx, ann.actor.user);
    default:
        return hs_media_pending_object(&h.ctx, ann.actor.user);
    }
}

/* The last row of the prefix is lost, gets another last byte, or a sister with another key. */
static void damage(const struct corruption *corruption)
{
    struct store_rows rows;
    struct store_object object = object_of(corruption);
    char from = corruption->prefix;
    char to = (char)(from + 1);
    struct store_range range = {.from = {&from, from ? 1 : 0},
                                .to = {&to, from ? 1 : 0},
                                .limit = 1,
                                .order = STORE_REVERSE};
    assert_int_equal(store_read_range(h.hs.store, &h.ctx, object, range, &rows).code, 0);
    assert_int_equal(rows.count, 1);
    struct store_update *update = store_update_new(&h.ctx, object);
    struct slice key = rows.rows[0].key;
    char *other = arena_cstr(h.ctx.arena, corruption->damage == INVENT ? key : rows.rows[0].value);
    size_t len = corruption->damage == INVENT ? key.len : rows.rows[0].value.len;
    if (len) {
        other[len - 1] = (char)(other[len - 1] ^ 0x15);
    }
    if (corruption->damage == LOSE) {
        store_delete(update, key);
    } else if (corruption->damage == CHANGE) {
        store_put(update, key, (struct slice){other, len});
    } else {
        store_put(update, (struct slice){other, len}, rows.rows[0].value);
    }
    assert_int_equal(store_write(h.hs.store, &h.ctx, &update, 1).code, 0);
}

/* All rows of the object, as one text. */
static struct slice dump(struct store_object object)
{
    struct store_rows rows;
    struct buf all;
    buf_init_arena(&all, h.ctx.arena, SIZE_MAX / 2);
    assert_int_equal(
        store_read_range(h.hs.store, &h.ctx, object, (struct store_range){0}, &rows).code, 0);
    for (size_t i = 0; i < rows.count; i++) {
        pack_bytes(&all, rows.rows[i].key);
        pack_bytes(&all, rows.rows[i].value);
    }
    return buf_slice(&all);
}

static void rebuild(void)
{
    struct check_result result;
    struct check_options options = {.report = print};
    state_forget(h.hs.states, room);
    hs_users_free(&h.hs.users); /* what is cached of users is from before */
    h.hs.users = hs_users_new(&h.hs);
    assert_int_equal(hs_rebuild(&h.hs, &h.ctx, &options, &result).code, 0);
}

static void each_damaged_index_is_found_and_healed(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(corruptions); i++) {
        const struct corruption *corruption = &corruptions[i];
        struct slice before = dump(object_of(corruption));
        damage(corruption);
        hs_users_free(&h.hs.users);
        h.hs.users = hs_users_new(&h.hs);
        struct check_result found = check();
        if (found.of[corruption->index].differences == 0) {
            fail_msg("corruption %zu of %s was not found", i, check_index_name(corruption->index));
        }
        rebuild();
        if (check().differences != 0 || !slice_eq(before, dump(object_of(corruption)))) {
            fail_msg("corruption %zu of %s was not healed", i, check_index_name(corruption->index));
        }
    }
}

/* The rows of several indexes are damaged, and a call of the rebuild fails: another one heals what
 * the first one left. */
static void an_interrupted_rebuild_is_repeated(void **state)
{
    bool failed = true;
    (void)state;
    for (int k = 1; failed && k < 4000; k += 37) {
        struct check_result result;
        struct check_options options = {0};
        for (size_t i = 0; i < COUNT_OF(corruptions); i += 3) {
            if (corruptions[i].damage == LOSE && corruptions[i].index != CHECK_TOKENS) {
                damage(&corruptions[i]);
            }
        }
        state_forget(h.hs.states, room);
        hs_users_free(&h.hs.users);
        h.hs.users = hs_users_new(&h.hs);
        store_fail_after(h.hs.store, k);
        failed = hs_rebuild(&h.hs, &h.ctx, &options, &result).code != 0;
        store_fail_after(h.hs.store, 0);
        rebuild();
        assert_int_equal(check().differences, 0);
        house_next_job(&h);
    }
    assert_false(failed);
}

/* --- records and snapshots --- */

typedef void (*record_fn)(struct room_record *record);

static void lie_about_counts(struct room_record *record)
{
    record->joined_count += 3;
}

static void lie_about_ends(struct room_record *record)
{
    static const int64_t ends[] = {1, 2};
    record->extremities = ends;
    record->extremity_count = 2;
}

static void lie_about_replaced(struct room_record *record)
{
    record->replaces = 1;
}

static void lie_about_state(struct room_record *record)
{
    record->state_before = 1;
    record->state_after = 2;
}

static void forget_relation(struct room_record *record)
{
    record->flags &= ~(uint32_t)EVENT_RELATED;
}

static struct room_record load(int64_t number, struct slice *key_out)
{
    struct slice row;
    struct room_record record;
    bool found = false;
    *key_out = key_i64(&h.ctx, ROOM_KEY_EVENT, number);
    assert_int_equal(
        store_get(h.hs.store, &h.ctx, room_object(&h.ctx, room), *key_out, &row, &found).code, 0);
    assert_true(found);
    assert_int_equal(room_record_decode(h.ctx.arena, row, &record).code, 0);
    return record;
}

static bool is_wanted(const struct room_record *record, enum check_index index)
{
    return index == CHECK_RELATED ? (record->flags & EVENT_RELATED) != 0
                                  : (record->flags & EVENT_STATE) != 0;
}

static void records_that_lie_are_found_and_healed(void **state)
{
    static const struct {
        enum check_index index;
        record_fn lie;
    } lies[] = {{CHECK_COUNTS, lie_about_counts},
                {CHECK_EXTREMITIES, lie_about_ends},
                {CHECK_STATE, lie_about_replaced},
                {CHECK_STATE, lie_about_state},
                {CHECK_RELATED, forget_relation}};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(lies); i++) {
        struct slice key;
        int64_t number = 9;
        struct room_record record = load(number, &key);
        while (!is_wanted(&record, lies[i].index)) {
            record = load(++number, &key);
        }
        struct buf row;
        lies[i].lie(&record);
        buf_init_arena(&row, h.ctx.arena, SIZE_MAX / 2);
        room_record_encode(&row, &record);
        struct store_update *update = store_update_new(&h.ctx, room_object(&h.ctx, room));
        store_put(update, key, buf_slice(&row));
        assert_int_equal(store_write(h.hs.store, &h.ctx, &update, 1).code, 0);
        assert_true(check().of[lies[i].index].differences > 0);
        rebuild();
        assert_int_equal(check().differences, 0);
    }
}

/* Every row of the snapshots in turn is lost. */
static void lost_snapshots_are_found_and_made_anew(void **state)
{
    (void)state;
    for (size_t i = 0; i < 60; i += 7) {
        struct store_rows rows;
        struct store_object object = room_state_object(&h.ctx, room);
        assert_int_equal(
            store_read_range(h.hs.store, &h.ctx, object, (struct store_range){0}, &rows).code, 0);
        struct store_update *update = store_update_new(&h.ctx, object);
        store_delete(update, rows.rows[i % rows.count].key);
        assert_int_equal(store_write(h.hs.store, &h.ctx, &update, 1).code, 0);
        assert_true(check().of[CHECK_STATE].differences > 0);
        rebuild();
        assert_int_equal(check().differences, 0);
    }
}

/* As after a crash between the log and what derives from it, on a store that keeps them apart. */
static void a_room_behind_its_log_is_healed_when_it_is_loaded(void **state)
{
    struct room *where = NULL;
    struct store_object derived = room_derived_object(&h.ctx, room);
    struct store_update *update = store_update_new(&h.ctx, derived);
    (void)state;
    struct slice before = dump(derived);
    store_delete_range(update, (struct slice){0}, LIT("c"));
    store_delete_range(update, LIT("d"), (struct slice){0});
    assert_int_equal(store_write(h.hs.store, &h.ctx, &update, 1).code, 0);
    house_settle(&h);
    assert_true(check().differences > 0);
    ctx_finish(&h.ctx);
    hs_rooms_free(&h.hs.rooms);
    h.hs.rooms = hs_rooms_new(&h.hs, 100);
    assert_int_equal(hs_room_get(&h.hs, &h.ctx, room, &where).code, 0);
    house_settle(&h);
    assert_int_equal(check().differences, 0);
    assert_true(slice_eq(before, dump(derived)));
}

/* The same with a store that fails while the room is loaded: it is loaded whole the next time. */
static void a_room_whose_healing_fails_is_healed_later(void **state)
{
    bool failed = true;
    (void)state;
    for (int k = 1; failed && k < 4000; k += 29) {
        struct room *where = NULL;
        struct store_update *update = store_update_new(&h.ctx, room_derived_object(&h.ctx, room));
        store_delete_range(update, (struct slice){0}, LIT("c"));
        store_delete_range(update, LIT("d"), (struct slice){0});
        assert_int_equal(store_write(h.hs.store, &h.ctx, &update, 1).code, 0);
        house_next_job(&h);
        hs_rooms_free(&h.hs.rooms);
        h.hs.rooms = hs_rooms_new(&h.hs, 100);
        store_fail_after(h.hs.store, k);
        failed = hs_room_get(&h.hs, &h.ctx, room, &where).code != 0;
        store_fail_after(h.hs.store, 0);
        assert_int_equal(hs_room_get(&h.hs, &h.ctx, room, &where).code, 0);
        house_settle(&h);
        assert_int_equal(check().differences, 0);
    }
    assert_false(failed);
}

static void positions_are_unique_and_below_the_counter(void **state)
{
    struct slice key;
    struct buf row;
    (void)state;
    struct room_record record = load(5, &key);
    record.pos = load(3, &key).pos;
    key = key_i64(&h.ctx, ROOM_KEY_EVENT, 5);
    buf_init_arena(&row, h.ctx.arena, SIZE_MAX / 2);
    room_record_encode(&row, &record);
    struct store_update *update = store_update_new(&h.ctx, room_object(&h.ctx, room));
    store_put(update, key, buf_slice(&row));
    assert_int_equal(store_write(h.hs.store, &h.ctx, &update, 1).code, 0);
    assert_int_equal(check().of[CHECK_POSITIONS].differences, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_sound_store_has_no_differences, open_house, close_house),
        cmocka_unit_test_setup_teardown(a_redacted_member_loses_its_names_everywhere, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(each_damaged_index_is_found_and_healed, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(an_interrupted_rebuild_is_repeated, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(a_room_whose_healing_fails_is_healed_later, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(records_that_lie_are_found_and_healed, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(lost_snapshots_are_found_and_made_anew, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(a_room_behind_its_log_is_healed_when_it_is_loaded,
                                        open_house, close_house),
        cmocka_unit_test_setup_teardown(positions_are_unique_and_below_the_counter, open_house,
                                        close_house),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
