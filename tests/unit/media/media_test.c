#include "homeserver/media/media.h"

#include "homeserver/service/media_usage.h"
#include "spec/errcodes.h"
#include "tests/support/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <cmocka.h>

static struct world w;
static uint64_t ann, bob;

static int open_world(void **state)
{
    (void)state;
    world_open(&w, 0);
    w.conf.rate_limits_enabled = true;
    w.hs.media_waits = media_waits_new(&w.hs);
    ann = world_user(&w, "ann");
    bob = world_user(&w, "bob");
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    media_waits_free(&w.hs.media_waits);
    world_close(&w);
    return 0;
}

static uint32_t fill(uint64_t user, struct slice media_id)
{
    struct media draft = {.uploader = user, .media_id = media_id, .content_type = LIT("a/b")};
    struct media_upload upload;
    struct media made;
    assert_int_equal(media_upload_begin(&w.hs, &upload).code, 0);
    assert_int_equal(media_upload_append(&upload, LIT("bytes")).code, 0);
    return (uint32_t)media_upload_finish(&w.hs, &w.ctx, &upload, &draft, &made).code;
}

static bool is_ready(struct slice media_id)
{
    struct media media;
    bool found = false;
    assert_int_equal(media_find(&w.hs, &w.ctx, media_id, &media, &found).code, 0);
    return found && media.is_ready;
}

static void an_announced_file_is_filled_once_by_its_user(void **state)
{
    struct media media;
    (void)state;
    assert_int_equal(media_announce(&w.hs, &w.ctx, ann, &media).code, 0);
    assert_false(is_ready(media.media_id));
    assert_int_equal(fill(bob, media.media_id), ERR_M_FORBIDDEN);
    assert_int_equal(fill(ann, LIT("neverAnnounced")), ERR_M_NOT_FOUND);
    assert_int_equal(fill(ann, media.media_id), 0);
    assert_true(is_ready(media.media_id));
    assert_int_equal(fill(ann, media.media_id), ERR_M_CANNOT_OVERWRITE_MEDIA);
}

static void open_announcements_are_counted_until_they_are_filled(void **state)
{
    struct media media;
    (void)state;
    for (int64_t i = 0; i < w.conf.media_pending_per_user; i++) {
        assert_int_equal(media_announce(&w.hs, &w.ctx, ann, &media).code, 0);
    }
    struct media refused;
    assert_int_equal(media_announce(&w.hs, &w.ctx, ann, &refused).code, ERR_M_LIMIT_EXCEEDED);
    assert_int_equal(media_announce(&w.hs, &w.ctx, bob, &refused).code, 0);
    assert_int_equal(fill(ann, media.media_id), 0);
    assert_int_equal(media_announce(&w.hs, &w.ctx, ann, &media).code, 0);
}

static struct err count_object(void *arg, struct slice id)
{
    (void)id;
    (*(int *)arg)++;
    return OK;
}

static void lapsed_announcements_leave_nothing(void **state)
{
    struct media media;
    int objects = 0;
    (void)state;
    for (int64_t i = 0; i < w.conf.media_pending_per_user; i++) {
        assert_int_equal(media_announce(&w.hs, &w.ctx, ann, &media).code, 0);
    }
    world_wait(&w, w.conf.media_pending_life);
    assert_int_equal(fill(ann, media.media_id), ERR_M_NOT_FOUND);
    assert_int_equal(media_announce(&w.hs, &w.ctx, ann, &media).code, 0);
    struct err err = store_each_object(w.hs.store, &w.ctx, STORE_MEDIA, count_object, &objects);
    assert_int_equal(err.code, 0);
    assert_int_equal(objects, 2); /* the new record and the user's list */
}

static void an_upload_over_the_limit_is_refused(void **state)
{
    struct media_upload upload;
    (void)state;
    w.conf.limits_upload_bytes = 8;
    assert_int_equal(media_upload_begin(&w.hs, &upload).code, 0);
    assert_int_equal(media_upload_append(&upload, LIT("12345678")).code, 0);
    assert_int_equal(media_upload_append(&upload, LIT("9")).code, ERR_M_TOO_LARGE);
    media_upload_abort(&upload);
    media_upload_abort(&upload);
}

static void ids_are_no_paths(void **state)
{
    (void)state;
    assert_true(media_id_is_valid(LIT("aZ09_-")));
    assert_false(media_id_is_valid(LIT("")));
    assert_false(media_id_is_valid(LIT("..")));
    assert_false(media_id_is_valid(LIT("a.b")));
    assert_false(media_id_is_valid(LIT("a b")));
    assert_false(media_id_is_valid(LIT("a%2Fb")));
    assert_false(media_id_is_valid(LIT("a/b")));
    assert_false(media_id_is_valid(LIT("@a")));
    assert_false(media_id_is_valid(LIT("\xc3\xa4")));
}

/* With failure at call 1..n, a file is there exactly when its upload was acknowledged or whole. */
static void a_failed_write_leaves_no_half_file(void **state)
{
    (void)state;
    for (int32_t at = 1; at <= 12; at++) {
        struct media media;
        assert_int_equal(media_announce(&w.hs, &w.ctx, ann, &media).code, 0);
        store_fail_after(w.hs.store, at);
        uint32_t code = fill(ann, media.media_id);
        store_fail_after(w.hs.store, 0);
        assert_true(code == 0 ? is_ready(media.media_id) : !is_ready(media.media_id));
        assert_true(code == 0 || fill(ann, media.media_id) == 0);
    }
}

static int64_t taken_by(uint64_t user)
{
    struct media_usage usage;
    assert_int_equal(hs_media_usage_get(&w.hs, &w.ctx, user, &usage).code, 0);
    assert_int_equal(usage.bytes, usage.files * 5);
    return usage.bytes;
}

static struct slice upload(uint64_t user, enum err_code expected)
{
    struct media_upload bytes;
    struct media draft = {.uploader = user, .content_type = LIT("text/plain")};
    struct media media = {0};
    assert_int_equal(media_upload_begin(&w.hs, &bytes).code, 0);
    assert_int_equal(media_upload_append(&bytes, LIT("hello")).code, 0);
    uint32_t code = media_upload_finish(&w.hs, &w.ctx, &bytes, &draft, &media).code;
    assert_int_equal(code, expected);
    return media.media_id;
}

static void files_count_for_their_user_until_they_are_deleted(void **state)
{
    struct media announced;
    (void)state;
    struct slice first = upload(ann, ERR_OK);
    assert_int_equal(media_announce(&w.hs, &w.ctx, ann, &announced).code, 0);
    assert_int_equal(taken_by(ann), 5);
    assert_int_equal(fill(ann, announced.media_id), 0);
    assert_int_equal(taken_by(ann), 10);
    assert_int_equal(taken_by(bob), 0);
    assert_int_equal(media_delete(&w.hs, &w.ctx, first).code, 0);
    assert_int_equal(media_delete(&w.hs, &w.ctx, first).code, 0);
    assert_int_equal(taken_by(ann), 5);
    assert_int_equal(media_delete(&w.hs, &w.ctx, announced.media_id).code, 0);
    assert_int_equal(taken_by(ann), 0);
}

static void who_has_no_room_left_uploads_nothing(void **state)
{
    struct media announced;
    (void)state;
    w.conf.media_quota_per_user = 12;
    assert_int_equal(media_announce(&w.hs, &w.ctx, ann, &announced).code, 0);
    struct slice first = upload(ann, ERR_OK);
    upload(ann, ERR_OK);
    upload(ann, (enum err_code)ERR_M_USER_LIMIT_EXCEEDED);
    assert_int_equal(fill(ann, announced.media_id), ERR_M_USER_LIMIT_EXCEEDED);
    upload(bob, ERR_OK);
    assert_int_equal(media_delete(&w.hs, &w.ctx, first).code, 0);
    assert_int_equal(fill(ann, announced.media_id), 0);
    assert_int_equal(taken_by(ann), 10);
}

/* With the store failing at call 1..n, what counts is what is there. */
static void a_failed_deletion_counts_what_is_left(void **state)
{
    uint32_t code = ERR_IO;
    (void)state;
    struct slice media_id = upload(ann, ERR_OK);
    for (int32_t at = 1; code != 0; at++) {
        store_fail_after(w.hs.store, at);
        code = media_delete(&w.hs, &w.ctx, media_id).code;
        store_fail_after(w.hs.store, 0);
        assert_int_equal(taken_by(ann), is_ready(media_id) ? 5 : 0);
        assert_true(at < 20);
    }
}

static void what_was_uploaded_before_is_counted_at_the_first_start(void **state)
{
    (void)state;
    upload(ann, ERR_OK);
    struct slice second = upload(ann, ERR_OK);
    struct store_update *usage = store_update_new(&w.ctx, hs_media_usage_object(&w.ctx, ann));
    store_delete_range(usage, (struct slice){0}, (struct slice){0});
    assert_int_equal(store_write(w.hs.store, &w.ctx, &usage, 1).code, 0);
    assert_int_equal(taken_by(ann), 0);
    assert_int_equal(hs_media_usage_start(&w.hs, &w.ctx).code, 0);
    assert_int_equal(taken_by(ann), 10);
    assert_int_equal(media_delete(&w.hs, &w.ctx, second).code, 0);
    assert_int_equal(hs_media_usage_start(&w.hs, &w.ctx).code, 0);
    assert_int_equal(taken_by(ann), 5);
}

static struct err count_blob(void *arg, const struct store_blob *blob)
{
    (void)blob;
    (*(int *)arg)++;
    return OK;
}

/* A file under a name that nobody was told goes when its record cannot be written. */
static void a_failed_upload_leaves_no_file(void **state)
{
    int uploads = 0;
    uint32_t code = ERR_IO;
    (void)state;
    for (int32_t at = 1; code != 0; at++) {
        struct media_upload upload;
        struct media draft = {.uploader = ann, .content_type = LIT("text/plain")};
        struct media media;
        int blobs = 0;
        assert_int_equal(media_upload_begin(&w.hs, &upload).code, 0);
        assert_int_equal(media_upload_append(&upload, LIT("hello")).code, 0);
        store_fail_after(w.hs.store, at);
        code = media_upload_finish(&w.hs, &w.ctx, &upload, &draft, &media).code;
        store_fail_after(w.hs.store, 0);
        uploads += code == 0 ? 1 : 0;
        assert_int_equal(store_each_blob(w.hs.store, count_blob, &blobs).code, 0);
        assert_int_equal(blobs, uploads);
        assert_true(at < 20);
    }
}

/* Announcing fails whole: nothing waits that has no record. */
static void a_failed_announcement_leaves_nothing(void **state)
{
    uint32_t code = ERR_IO;
    (void)state;
    for (int32_t at = 1; code != 0; at++) {
        struct media media;
        int objects = 0;
        store_fail_after(w.hs.store, at);
        code = media_announce(&w.hs, &w.ctx, ann, &media).code;
        store_fail_after(w.hs.store, 0);
        struct err err = store_each_object(w.hs.store, &w.ctx, STORE_MEDIA, count_object, &objects);
        assert_int_equal(err.code, 0);
        assert_int_equal(objects, code == 0 ? 2 : 0);
        assert_true(at < 20);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        TEST(an_announced_file_is_filled_once_by_its_user),
        TEST(open_announcements_are_counted_until_they_are_filled),
        TEST(lapsed_announcements_leave_nothing),
        TEST(an_upload_over_the_limit_is_refused),
        TEST(ids_are_no_paths),
        TEST(a_failed_write_leaves_no_half_file),
        TEST(files_count_for_their_user_until_they_are_deleted),
        TEST(who_has_no_room_left_uploads_nothing),
        TEST(a_failed_deletion_counts_what_is_left),
        TEST(what_was_uploaded_before_is_counted_at_the_first_start),
        TEST(a_failed_upload_leaves_no_file),
        TEST(a_failed_announcement_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
