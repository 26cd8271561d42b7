/* What a check finds of keys, messages and media beside rows that differ from what they derive
 * from (rebuild_test.c). */
#include "homeserver/service/keys_priv.h"
#include "homeserver/service/media_rows.h"
#include "homeserver/service/check_priv.h"
#include "homeserver/service/rebuild.h"
#include "homeserver/service/users_priv.h"
#include "tests/support/private_rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct house h;
static struct guest ann, bob;

static int open_house(void **state)
{
    (void)state;
    house_open(&h);
    ann = house_guest(&h, "ann");
    bob = house_guest(&h, "bob");
    house_private_rows(&h, &ann, &bob);
    house_settle(&h);
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    house_close(&h);
    return 0;
}

static struct check_result run(enum check_mode mode)
{
    struct check_result result;
    struct check_options options = {0};
    struct err err = mode == CHECK_ONLY ? hs_check(&h.hs, &h.ctx, &options, &result)
                                        : hs_rebuild(&h.hs, &h.ctx, &options, &result);
    assert_int_equal(err.code, 0);
    return result;
}

/* The damage is found under this name alone, healed, and gone. */
static void expect_healed(enum check_index index)
{
    struct check_result found = run(CHECK_ONLY);
    assert_true(found.of[index].differences > 0);
    assert_int_equal(found.of[index].differences, found.differences);
    struct check_result healed = run(CHECK_REBUILD);
    assert_int_equal(healed.healed, healed.differences);
    assert_int_equal(run(CHECK_ONLY).differences, 0);
}

static void write_row(struct store_object object, struct slice key, struct slice value)
{
    struct store_update *update = store_update_new(&h.ctx, object);
    if (value.ptr) {
        store_put(update, key, value);
    } else {
        store_delete(update, key);
    }
    assert_int_equal(store_write(h.hs.store, &h.ctx, &update, 1).code, 0);
}

static void counts_without_a_position_are_told_anew(void **state)
{
    struct key_counts counts;
    struct slice key = keys_key(&h.ctx, KEYS_ROW_COUNTED, ann.device_id);
    (void)state;
    write_row(keys_object(&h.ctx, ann.actor.user), key, (struct slice){0});
    expect_healed(CHECK_KEY_COUNTS);
    counts_forget(&h.hs, &h.ctx, ann.actor.user, ann.device_id);
    assert_int_equal(hs_key_counts(&h.hs, &h.ctx, ann.actor.user, ann.device_id, &counts).code, 0);
    assert_true(counts.pos >= positions_newest(h.hs.positions));
    write_row(keys_object(&h.ctx, ann.actor.user), key, store_id_u64(h.ctx.arena, UINT64_MAX));
    expect_healed(CHECK_KEY_COUNTS);
}

/* The same key under an older and a newer order would go out twice. */
static void a_key_that_was_given_out_does_not_wait_again(void **state)
{
    struct store_rows rows;
    struct key_claim claims[] = {{.device_id = ann.device_id, .algorithm = LIT("b")},
                                 {.device_id = ann.device_id, .algorithm = LIT("b")},
                                 {.device_id = ann.device_id, .algorithm = LIT("b")}};
    struct slice prefix = keys_key(&h.ctx, KEYS_ROW_ONE_TIME, (struct slice){0});
    (void)state;
    assert_int_equal(keys_rows(&h.hs, &h.ctx, ann.actor.user, prefix, 0, &rows).code, 0);
    assert_int_equal(rows.count, 3); /* one of "a", two of "b" */
    assert_int_equal(hs_keys_claim(&h.hs, &h.ctx, ann.actor.user, claims, 1).code, 0);
    write_row(keys_object(&h.ctx, ann.actor.user), rows.rows[1].key, rows.rows[1].value);
    expect_healed(CHECK_ONE_TIME_KEYS);
    assert_int_equal(hs_keys_claim(&h.hs, &h.ctx, ann.actor.user, claims, 3).code, 0);
    assert_true(slice_eq(claims[0].key_name, LIT("b:3")));
    assert_true(slice_eq(claims[1].key_name, LIT("b:f")));
}

static struct key_backup backup_now(void)
{
    struct key_backup backup;
    bool found = false;
    assert_int_equal(hs_key_backup_get(&h.hs, &h.ctx, ann.actor.user, 0, &backup, &found).code, 0);
    assert_true(found);
    return backup;
}

static void a_backup_counts_its_keys(void **state)
{
    struct key_backup backup = backup_now();
    uint64_t etag = backup.etag;
    struct slice key = keys_key(&h.ctx, KEYS_ROW_BACKUP, store_id_u64(h.ctx.arena, backup.version));
    (void)state;
    assert_int_equal(backup.count, 2);
    backup.count = 7;
    write_row(keys_object(&h.ctx, ann.actor.user), key, backup_encode(&h.ctx, &backup));
    expect_healed(CHECK_KEY_BACKUPS);
    assert_int_equal(backup_now().count, 2);
    assert_true(backup_now().etag != etag); /* a client that compares sees that it is another */
}

static void keys_of_no_backup_go(void **state)
{
    struct key_backup backup = backup_now();
    struct slice version = store_id_u64(h.ctx.arena, backup.version);
    (void)state;
    write_row(keys_object(&h.ctx, ann.actor.user), keys_key(&h.ctx, KEYS_ROW_BACKUP, version),
              (struct slice){0});
    expect_healed(CHECK_KEY_BACKUPS);
}

/* As when a message was sent while its device was being removed. */
static void what_a_device_left_behind_goes(void **state)
{
    static const enum check_index all[] = {CHECK_DEVICES, CHECK_DEVICE_KEYS, CHECK_ONE_TIME_KEYS,
                                           CHECK_KEY_COUNTS, CHECK_INBOXES};
    (void)state;
    write_row(users_object(&h.ctx, ann.actor.user),
              users_row_key(&h.ctx, USER_ROW_DEVICE, ann.device_id), (struct slice){0});
    struct check_result found = run(CHECK_ONLY);
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        assert_true(found.of[all[i]].differences > 0);
    }
    struct check_result healed = run(CHECK_REBUILD);
    assert_int_equal(healed.healed, healed.differences);
    assert_int_equal(run(CHECK_ONLY).differences, 0);
}

/* --- media --- */

static void put_file(struct slice name)
{
    struct store_blob_writer *writer;
    assert_int_equal(store_blob_begin(h.hs.store, &writer).code, 0);
    assert_int_equal(store_blob_append(writer, LIT("hi")).code, 0);
    assert_int_equal(store_blob_commit(&writer, name).code, 0);
}

static bool has_file(struct slice name)
{
    int fd = -1;
    int64_t bytes = 0;
    bool found = false;
    assert_int_equal(store_blob_open(h.hs.store, name, &fd, &bytes, &found).code, 0);
    if (found) {
        close(fd);
    }
    return found;
}

/* The files are of today, on whatever day the test runs. */
static void set_clock_ahead_of_files(int64_t ms)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    h.wall_ms = (int64_t)now.tv_sec * 1000 + ms;
}

static void a_file_that_nobody_refers_to_goes_after_an_hour(void **state)
{
    (void)state;
    put_file(LIT("orphan"));
    put_file(house_announced); /* its record was never written */
    set_clock_ahead_of_files(60000);
    assert_int_equal(run(CHECK_REBUILD).differences, 0);
    assert_true(has_file(LIT("orphan")));
    set_clock_ahead_of_files(2 * 3600 * 1000);
    expect_healed(CHECK_MEDIA);
    assert_false(has_file(LIT("orphan")));
    assert_false(has_file(house_announced));
    assert_true(has_file(house_uploaded));
}

static void a_thumbnail_goes_with_its_original(void **state)
{
    const struct media media = {
        .media_id = LIT("thumb-x"), .file_name = LIT("no_original"), .bytes = 2, .is_ready = true};
    struct store_update *record = store_update_new(&h.ctx, hs_media_object(media.media_id));
    (void)state;
    put_file(media.media_id);
    store_put(record, hs_media_record_key(), hs_media_encode(&h.ctx, &media));
    assert_int_equal(store_write(h.hs.store, &h.ctx, &record, 1).code, 0);
    expect_healed(CHECK_MEDIA);
    set_clock_ahead_of_files(2 * 3600 * 1000);
    expect_healed(CHECK_MEDIA);
    assert_false(has_file(media.media_id));
}

static void a_lost_file_is_reported(void **state)
{
    (void)state;
    assert_int_equal(store_blob_delete(h.hs.store, house_uploaded).code, 0);
    assert_int_equal(run(CHECK_ONLY).of[CHECK_MEDIA].differences, 1);
    struct check_result result = run(CHECK_REBUILD);
    assert_int_equal(result.differences, 1);
    assert_int_equal(result.healed, 0);
}

#define IN_HOUSE(test) cmocka_unit_test_setup_teardown(test, open_house, close_house)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_HOUSE(counts_without_a_position_are_told_anew),
        IN_HOUSE(a_key_that_was_given_out_does_not_wait_again),
        IN_HOUSE(a_backup_counts_its_keys),
        IN_HOUSE(keys_of_no_backup_go),
        IN_HOUSE(what_a_device_left_behind_goes),
        IN_HOUSE(a_file_that_nobody_refers_to_goes_after_an_hour),
        IN_HOUSE(a_thumbnail_goes_with_its_original),
        IN_HOUSE(a_lost_file_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
