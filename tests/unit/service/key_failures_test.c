/* Each write path of end-to-end keys, backups and to-device messages with the store failing at its
 * k-th call. */
#include "homeserver/service/device_keys.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/key_backup.h"
#include "homeserver/service/to_device.h"
#include "spec/errcodes.h"
#include "tests/support/cross_keys.h"
#include "tests/support/failing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct house h;
static struct guest ann, bob;
static struct cross_keys ann_keys, bob_keys, other_keys;

static struct json parsed(const char *text)
{
    struct json json;
    assert_int_equal(json_parse(h.ctx.arena, slice_of(text), &json).code, 0);
    return json;
}

/* --- keys of a device --- */

static const char device_text[] = "{\"user_id\":\"@ann:test\",\"device_id\":\"DEVICE\","
                                  "\"algorithms\":[],\"keys\":{},\"signatures\":{}}";

static struct err upload_keys(void)
{
    struct json device = parsed(device_text);
    struct json one_time = parsed("{\"a:1\":\"x\",\"b:1\":\"x\",\"b:2\":\"y\"}");
    struct json fallback = parsed("{\"b:f\":\"w\"}");
    struct key_upload upload = {.user = ann.actor.user,
                                .user_id = ann.actor.user_id,
                                .device_id = ann.device_id,
                                .device_keys = &device,
                                .one_time_keys = &one_time,
                                .fallback_keys = &fallback};
    return hs_keys_upload(&h.hs, &h.ctx, &upload);
}

static void furnish(void)
{
    ann = house_guest(&h, "ann");
    bob = house_guest(&h, "bob");
}

static struct key_counts counts_now(void)
{
    struct key_counts counts;
    assert_int_equal(hs_key_counts(&h.hs, &h.ctx, ann.actor.user, ann.device_id, &counts).code, 0);
    return counts;
}

static void keys_are_there(void)
{
    struct key_counts counts = counts_now();
    assert_int_equal(counts.one_time[0].count, 1);
    assert_int_equal(counts.one_time[1].count, 2);
    assert_int_equal(counts.unused_fallback_count, 1);
}

static void keys_are_there_or_not(void)
{
    struct key_counts counts = counts_now();
    assert_int_equal(counts.one_time_count, counts.pos ? 3 : 1);
    assert_int_equal(counts.unused_fallback_count, counts.pos ? 1 : 0);
}

static void keys_are_uploaded_whole(void **state)
{
    (void)state;
    failing_each_call(
        &(struct failing){&h, furnish, upload_keys, keys_are_there, keys_are_there_or_not});
}

static void furnish_keys(void)
{
    furnish();
    assert_int_equal(upload_keys().code, 0);
}

/* Both one-time keys, then the fallback key; a second attempt after a failure gets the same. */
static struct err claim_keys(void)
{
    struct key_claim claims[3];
    for (size_t i = 0; i < COUNT_OF(claims); i++) {
        claims[i] = (struct key_claim){.device_id = ann.device_id, .algorithm = LIT("b")};
    }
    TRY(hs_keys_claim(&h.hs, &h.ctx, ann.actor.user, claims, COUNT_OF(claims)));
    assert_true(slice_eq(claims[0].key_name, LIT("b:1")));
    assert_true(slice_eq(claims[2].key_name, LIT("b:f")));
    return OK;
}

static void keys_are_claimed_whole(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_keys, claim_keys, NULL, NULL});
}

static struct err remove_device(void)
{
    return hs_devices_delete(&h.hs, &h.ctx, ann.actor.user, &ann.device_id, 1);
}

static void no_keys_are_left(void)
{
    struct buf text;
    buf_init_arena(&text, h.ctx.arena, 1024);
    struct json_out out = json_out_to(&text);
    assert_int_equal(hs_keys_write_devices(&h.hs, &h.ctx, ann.actor.user, NULL, &out).code, 0);
    assert_true(slice_eq(buf_slice(&text), LIT("{}")));
    assert_int_equal(counts_now().pos, 0);
}

static void keys_go_with_their_device(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_keys, remove_device, no_keys_are_left, NULL});
}

static struct err rename_device(void)
{
    return hs_device_rename(&h.hs, &h.ctx, ann.actor.user, ann.device_id, LIT("name"));
}

/* Whoever asks from here on hears of the new name. */
static void the_list_has_changed(void)
{
    uint64_t *users = NULL;
    size_t count = 0;
    uint64_t newest = positions_newest(h.hs.positions);
    assert_int_equal(hs_device_changes(&h.hs, &h.ctx, newest - 1, newest, &users, &count).code, 0);
    assert_int_equal(count, 1);
    assert_int_equal(users[0], ann.actor.user);
}

static void a_renamed_device_is_told(void **state)
{
    (void)state;
    failing_each_call(
        &(struct failing){&h, furnish_keys, rename_device, the_list_has_changed, NULL});
}

/* --- cross-signing --- */

static struct err upload_cross(const struct cross_keys *keys)
{
    enum cross_answer answer = CROSS_NEEDS_PROOF;
    struct cross_upload upload = cross_keys_upload(keys);
    upload.proof = CROSS_PROVEN;
    TRY(hs_cross_signing_upload(&h.hs, &h.ctx, &upload, &answer));
    assert_int_equal(answer, CROSS_DONE);
    return OK;
}

static void furnish_cross(void)
{
    furnish_keys();
    ann_keys = cross_keys_make(h.conf_arena, ann.actor.user, ann.actor.user_id);
    bob_keys = cross_keys_make(h.conf_arena, bob.actor.user, bob.actor.user_id);
    other_keys = cross_keys_make(h.conf_arena, ann.actor.user, ann.actor.user_id);
}

static struct err upload_ann(void)
{
    return upload_cross(&ann_keys);
}

static bool has_key(enum cross_key key, const struct cross_keys *of)
{
    struct cross_view view = {ann.actor.user, ann.actor.user, key};
    struct slice json;
    bool found = false;
    assert_int_equal(hs_cross_signing_get(&h.hs, &h.ctx, view, &json, &found).code, 0);
    return found && slice_contains(json, cross_keys_public(h.ctx.arena, &of->keys[key]));
}

/* All three are of one upload. */
static void all_keys_are_of_one(void)
{
    for (int i = 1; i < CROSS_KEY_COUNT; i++) {
        assert_int_equal(has_key((enum cross_key)i, &ann_keys), has_key(CROSS_MASTER, &ann_keys));
        assert_int_equal(has_key((enum cross_key)i, &other_keys),
                         has_key(CROSS_MASTER, &other_keys));
    }
}

static void ann_has_her_keys(void)
{
    assert_true(has_key(CROSS_MASTER, &ann_keys));
}

static void cross_signing_keys_are_uploaded_whole(void **state)
{
    (void)state;
    failing_each_call(
        &(struct failing){&h, furnish_cross, upload_ann, ann_has_her_keys, all_keys_are_of_one});
}

static void furnish_signed(void)
{
    furnish_cross();
    assert_int_equal(upload_cross(&other_keys).code, 0);
}

static void cross_signing_keys_are_replaced_whole(void **state)
{
    (void)state;
    failing_each_call(
        &(struct failing){&h, furnish_signed, upload_ann, ann_has_her_keys, all_keys_are_of_one});
}

static void furnish_to_sign(void)
{
    furnish_cross();
    assert_int_equal(upload_cross(&ann_keys).code, 0);
    assert_int_equal(upload_cross(&bob_keys).code, 0);
}

/* Ann signs her device and bob's master key in one request. */
static struct err sign_both(void)
{
    struct arena *arena = h.ctx.arena;
    struct json device = parsed(device_text);
    struct json master = bob_keys.objects[CROSS_MASTER];
    struct json own = json_object();
    struct json others = json_object();
    struct json users = json_object();
    struct json failures;
    cross_keys_sign(arena, &device, ann.actor.user_id, &ann_keys.keys[CROSS_SELF_SIGNING]);
    cross_keys_sign(arena, &master, ann.actor.user_id, &ann_keys.keys[CROSS_USER_SIGNING]);
    json_set(arena, &own, ann.device_id, device);
    json_set(arena, &others, cross_keys_public(arena, &bob_keys.keys[CROSS_MASTER]), master);
    json_set(arena, &users, ann.actor.user_id, own);
    json_set(arena, &users, bob.actor.user_id, others);
    struct signature_upload upload = {ann.actor.user, ann.actor.user_id, &users};
    TRY(hs_signatures_upload(&h.hs, &h.ctx, &upload, &failures));
    assert_int_equal(failures.count, 0);
    return OK;
}

static bool is_signed(struct slice json)
{
    return slice_contains(json, LIT("@ann:test\":{\"ed25519:"));
}

static void both_or_none_are_signed(void)
{
    struct cross_view view = {bob.actor.user, ann.actor.user, CROSS_MASTER};
    struct json device;
    struct slice json;
    bool found = false;
    assert_int_equal(
        hs_device_keys_get(&h.hs, &h.ctx, ann.actor.user, ann.device_id, &device, &found).code, 0);
    assert_int_equal(hs_cross_signing_get(&h.hs, &h.ctx, view, &json, &found).code, 0);
    assert_int_equal(is_signed(json), is_signed(json_canonical(h.ctx.arena, &device)));
}

static void signatures_are_uploaded_whole(void **state)
{
    (void)state;
    failing_each_call(
        &(struct failing){&h, furnish_to_sign, sign_both, NULL, both_or_none_are_signed});
}

/* --- backups --- */

static struct err create_backup(void)
{
    struct key_backup draft = {.algorithm = LIT("m.test"), .auth_data = LIT("{}")};
    uint64_t version = 0;
    return hs_key_backup_create(&h.hs, &h.ctx, ann.actor.user, &draft, &version);
}

static struct key_backup backup_now(bool *found_out)
{
    struct key_backup backup;
    assert_int_equal(hs_key_backup_get(&h.hs, &h.ctx, ann.actor.user, 0, &backup, found_out).code,
                     0);
    return backup;
}

static void one_backup_is_there(void)
{
    bool found = false;
    assert_int_equal(backup_now(&found).version, 1);
    assert_true(found);
}

static void a_backup_is_made_whole(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish, create_backup, one_backup_is_there, NULL});
}

static void furnish_backup(void)
{
    furnish();
    assert_int_equal(create_backup().code, 0);
}

static struct err put_keys(void)
{
    struct json data = parsed("{\"first_message_index\":1,\"forwarded_count\":1,"
                              "\"is_verified\":true,\"session_data\":{}}");
    struct backup_key keys[] = {{LIT("!r"), LIT("s"), &data}, {LIT("!r"), LIT("t"), &data}};
    struct key_backup backup;
    return hs_backup_keys_put(&h.hs, &h.ctx, ann.actor.user, 1, keys, 2, &backup);
}

static void both_keys_or_none(void)
{
    bool found = false;
    struct key_backup backup = backup_now(&found);
    assert_int_equal(backup.count, backup.etag ? 2 : 0);
}

static void keys_are_backed_up_whole(void **state)
{
    (void)state;
    failing_each_call(
        &(struct failing){&h, furnish_backup, put_keys, both_keys_or_none, both_keys_or_none});
}

static void furnish_full_backup(void)
{
    furnish_backup();
    assert_int_equal(put_keys().code, 0);
}

static struct err delete_keys(void)
{
    struct backup_scope scope = {
        .user = ann.actor.user, .version = 1, .room_id = LIT("!r"), .session_id = LIT("s")};
    struct key_backup backup;
    return hs_backup_keys_delete(&h.hs, &h.ctx, &scope, &backup);
}

static void one_key_is_left(void)
{
    bool found = false;
    assert_int_equal(backup_now(&found).count, 1);
}

static void backed_up_keys_go_whole(void **state)
{
    (void)state;
    failing_each_call(
        &(struct failing){&h, furnish_full_backup, delete_keys, one_key_is_left, NULL});
}

static struct err change_backup(void)
{
    struct key_backup draft = {
        .version = 1, .algorithm = LIT("m.test"), .auth_data = LIT("{\"new\":1}")};
    TRY(hs_key_backup_update(&h.hs, &h.ctx, ann.actor.user, &draft));
    return hs_key_backup_delete(&h.hs, &h.ctx, ann.actor.user, 1);
}

/* An update after the deletion finds nothing: the second attempt begins with a backup again. */
static struct err change_or_make_backup(void)
{
    struct err err = change_backup();
    return err.code == ERR_M_NOT_FOUND ? OK : err;
}

static void no_backup_is_left(void)
{
    bool found = true;
    backup_now(&found);
    assert_false(found);
}

static void a_backup_changes_and_goes_whole(void **state)
{
    (void)state;
    failing_each_call(
        &(struct failing){&h, furnish_full_backup, change_or_make_backup, no_backup_is_left, NULL});
}

/* --- messages to devices --- */

static struct err send_message(void)
{
    struct json content = json_object();
    struct to_device_item items[] = {{ann.actor.user_id, LIT("*"), &content},
                                     {bob.actor.user_id, LIT("*"), &content}};
    struct to_device_send send = {.user = bob.actor.user,
                                  .device_id = bob.device_id,
                                  .sender = bob.actor.user_id,
                                  .type = LIT("m.test"),
                                  .txn_id = LIT("t"),
                                  .items = items,
                                  .count = 2};
    return hs_to_device_send(&h.hs, &h.ctx, &send);
}

static size_t waiting(const struct guest *guest)
{
    struct to_device_messages messages;
    struct inbox_range all = {.upto = positions_newest(h.hs.positions), .limit = 10};
    assert_int_equal(
        hs_inbox_read(&h.hs, &h.ctx, guest->actor.user, guest->device_id, all, &messages).code, 0);
    return messages.count;
}

static void both_got_it_once(void)
{
    assert_int_equal(waiting(&ann), 1);
    assert_int_equal(waiting(&bob), 1);
}

static void messages_arrive_once(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish, send_message, both_got_it_once, NULL});
}

static void furnish_message(void)
{
    furnish();
    assert_int_equal(send_message().code, 0);
}

static struct err acknowledge(void)
{
    return hs_inbox_acknowledge(&h.hs, &h.ctx, ann.actor.user, ann.device_id,
                                positions_newest(h.hs.positions));
}

static void nothing_waits(void)
{
    assert_int_equal(waiting(&ann), 0);
}

static void messages_are_acknowledged_whole(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish_message, acknowledge, nothing_waits, NULL});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_uploaded_whole),
        cmocka_unit_test(keys_are_claimed_whole),
        cmocka_unit_test(keys_go_with_their_device),
        cmocka_unit_test(a_renamed_device_is_told),
        cmocka_unit_test(cross_signing_keys_are_uploaded_whole),
        cmocka_unit_test(cross_signing_keys_are_replaced_whole),
        cmocka_unit_test(signatures_are_uploaded_whole),
        cmocka_unit_test(a_backup_is_made_whole),
        cmocka_unit_test(keys_are_backed_up_whole),
        cmocka_unit_test(backed_up_keys_go_whole),
        cmocka_unit_test(a_backup_changes_and_goes_whole),
        cmocka_unit_test(messages_arrive_once),
        cmocka_unit_test(messages_are_acknowledged_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
