/* What writes files and their records, with a store that fails at any call. */
#include "homeserver/media/media_keep.h"
#include "homeserver/media/media_sandbox.h"

#include "tests/support/failing.h"
#include "tests/support/picture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct house h;
static struct media original;

static void must(struct err err)
{
    assert_int_equal(err.code, 0);
}

/* The house is new for each call; its helper is, too. */
static void furnish(void)
{
    struct media_upload upload;
    const struct media draft = {.media_id = LIT("picture"), .content_type = LIT("image/png")};
    h.ctx.may_wait = true;
    must(media_upload_begin(&h.hs, &upload));
    must(media_upload_append(&upload, picture_png(h.ctx.arena, (struct picture){200, 100, 100})));
    must(media_upload_finish_remote(&h.hs, &h.ctx, &upload, &draft));
    original = (struct media){.media_id = LIT("picture"), .is_ready = true};
}

static struct err make_thumbnail(void)
{
    struct media thumbnail;
    const struct media_size size = {32, 32, MEDIA_JOB_CROP};
    h.conf.media_helper = LIT(MEDIA_HELPER);
    h.ctx.may_wait = true;
    h.hs.sandbox = media_sandbox_new(&h.hs);
    struct err err = media_thumbnail_find(&h.hs, &h.ctx, &original, &size, &thumbnail);
    media_sandbox_free(&h.hs.sandbox);
    return err;
}

static void furnish_with_thumbnail(void)
{
    furnish();
    must(make_thumbnail());
}

static struct err delete_all(void)
{
    return media_delete(&h.hs, &h.ctx, LIT("picture"));
}

static void assert_gone(void)
{
    struct media media;
    bool found = true;
    must(media_find(&h.hs, &h.ctx, LIT("picture"), &media, &found));
    assert_false(found);
}

static struct err quarantine(void)
{
    struct media media;
    TRY(media_keep_parse(&h.hs, &h.ctx, LIT("mxc://far/never"), &media));
    return media_keep_quarantine(&h.hs, &h.ctx, &media, MEDIA_QUARANTINE);
}

static struct err purge(void)
{
    struct media_purged purged;
    return media_keep_purge_remote(&h.hs, &h.ctx, INT64_MAX, &purged);
}

static void furnish_remote(void)
{
    struct media_upload upload;
    const struct media draft = {.media_id = media_remote_id(h.ctx.arena, LIT("far"), LIT("x")),
                                .content_type = LIT("text/plain"),
                                .origin = LIT("far")};
    must(media_upload_begin(&h.hs, &upload));
    must(media_upload_append(&upload, LIT("far away")));
    must(media_upload_finish_remote(&h.hs, &h.ctx, &upload, &draft));
}

static void each_call_may_fail(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish, make_thumbnail, NULL, NULL});
    failing_each_call(&(struct failing){&h, furnish_with_thumbnail, delete_all, assert_gone, NULL});
    failing_each_call(&(struct failing){&h, furnish, quarantine, NULL, NULL});
    failing_each_call(&(struct failing){&h, furnish_remote, purge, NULL, NULL});
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_call_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
