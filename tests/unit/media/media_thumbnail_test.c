#include "homeserver/media/media.h"
#include "homeserver/media/media_sandbox.h"

#include "tests/support/picture.h"
#include "tests/support/world.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

static struct world w;
static uint64_t ann;
static struct http_reply reply;

static int open_world(void **state)
{
    (void)state;
    world_open(&w, 0);
    w.conf.media_helper = LIT(MEDIA_HELPER);
    w.conf.media_pixels_max = 4000000;
    w.hs.media_waits = media_waits_new(&w.hs);
    w.hs.sandbox = media_sandbox_new(&w.hs);
    w.ctx.may_wait = true;
    ann = world_user(&w, "ann");
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    media_sandbox_stop(w.hs.sandbox);
    media_sandbox_free(&w.hs.sandbox);
    media_waits_free(&w.hs.media_waits);
    world_close(&w);
    return 0;
}

static struct media upload(struct slice bytes, const char *type)
{
    struct media draft = {.content_type = slice_of(type), .uploader = ann};
    struct media media = {0};
    struct media_upload upload;
    assert_int_equal(media_upload_begin(&w.hs, &upload).code, 0);
    assert_int_equal(media_upload_append(&upload, bytes).code, 0);
    assert_int_equal(media_upload_finish(&w.hs, &w.ctx, &upload, &draft, &media).code, 0);
    return media;
}

static struct err ask(const struct media *media, struct media_size size, struct slice *bytes_out)
{
    struct media_view view = {.media_id = media->media_id, .thumbnail = size};
    reply = (struct http_reply){.file_fd = -1};
    buf_init_arena(&reply.body, w.ctx.arena, 65536);
    *bytes_out = (struct slice){0};
    struct err err = media_serve(&w.hs, &w.ctx, NULL, &reply, &view, 0);
    if (!err.code && reply.file_fd >= 0) {
        char *bytes = arena_alloc(w.ctx.arena, (size_t)reply.file_bytes);
        ssize_t got = pread(reply.file_fd, bytes, (size_t)reply.file_bytes, 0);
        *bytes_out = (struct slice){bytes, (size_t)got};
        close(reply.file_fd);
    }
    return err;
}

static struct media upload_png(struct picture picture)
{
    return upload(picture_png(w.ctx.arena, picture), "image/png");
}

static void assert_size(struct slice bytes, uint32_t width, uint32_t height)
{
    struct picture got = picture_of_png(bytes);
    assert_int_equal(got.width, width);
    assert_int_equal(got.height, height);
}

static void sizes_are_the_next_of_a_few(void **state)
{
    static const struct {
        struct media_size wanted, got;
    } cases[] = {
        {{32, 32, MEDIA_JOB_CROP}, {32, 32, MEDIA_JOB_CROP}},
        {{96, 96, MEDIA_JOB_CROP}, {96, 96, MEDIA_JOB_CROP}},
        {{48, 48, MEDIA_JOB_CROP}, {96, 96, MEDIA_JOB_CROP}},
        {{320, 240, MEDIA_JOB_CROP}, {320, 240, MEDIA_JOB_CROP}},
        {{100, 200, MEDIA_JOB_CROP}, {160, 320, MEDIA_JOB_CROP}},
        {{1, 100000, MEDIA_JOB_CROP}, {0, 0, 0}},
        {{1, 1600, MEDIA_JOB_CROP}, {200, 1600, MEDIA_JOB_CROP}},
        {{320, 240, 0}, {320, 240, 0}},
        {{321, 240, MEDIA_JOB_ANIMATED}, {640, 480, MEDIA_JOB_ANIMATED}},
        {{64, 64, 0}, {96, 96, 0}},
        {{800, 600, 0}, {800, 600, 0}},
        {{1600, 1201, 0}, {0, 0, 0}},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct media_size got = media_thumbnail_size(cases[i].wanted);
        assert_int_equal(got.width, cases[i].got.width);
        assert_int_equal(got.height, cases[i].got.height);
        assert_int_equal(got.flags, cases[i].got.flags);
    }
}

static void a_picture_is_scaled_into_the_box(void **state)
{
    struct slice bytes;
    struct media media = upload_png((struct picture){800, 400, 400});
    (void)state;
    assert_int_equal(ask(&media, (struct media_size){320, 240, 0}, &bytes).code, 0);
    assert_size(bytes, 320, 160);
    assert_true(slice_eq(reply.content_type, LIT("image/png")));
    assert_int_equal(ask(&media, (struct media_size){96, 96, MEDIA_JOB_CROP}, &bytes).code, 0);
    assert_size(bytes, 96, 96);
}

static void a_small_picture_is_served_as_it_is(void **state)
{
    struct slice bytes;
    struct media media = upload_png((struct picture){30, 20, 20});
    (void)state;
    assert_int_equal(ask(&media, (struct media_size){32, 32, MEDIA_JOB_CROP}, &bytes).code, 0);
    assert_true(slice_eq(bytes, picture_png(w.ctx.arena, (struct picture){30, 20, 20})));
}

static void a_thin_picture_is_not_scaled_up(void **state)
{
    struct slice bytes;
    struct media media = upload_png((struct picture){400, 20, 20});
    (void)state;
    assert_int_equal(ask(&media, (struct media_size){96, 96, MEDIA_JOB_CROP}, &bytes).code, 0);
    assert_size(bytes, 96, 20);
}

/* Synapse CVE-2024-53863. */
static void what_is_no_picture_has_no_thumbnail(void **state)
{
    static const struct slice files[] = {LIT("no picture"),
                                         LIT("<svg xmlns='http://www.w3.org/2000/svg'/>"),
                                         LIT("\x89PNG\r\n\x1a\n"),
                                         LIT("GIF89a"),
                                         LIT("\xFF\xD8\xFF\xE0 cut off"),
                                         LIT("RIFF....WEBPVP8 ....")};
    struct slice bytes;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        struct media media = upload(files[i], "image/png");
        struct err err = ask(&media, (struct media_size){32, 32, 0}, &bytes);
        assert_int_equal(err.code, ERR_M_UNKNOWN_400);
    }
}

static void a_picture_of_too_many_pixels_is_refused_by_its_head(void **state)
{
    struct slice bytes;
    struct media media = upload_png((struct picture){60000, 60000, 1});
    (void)state;
    struct err err = ask(&media, (struct media_size){32, 32, 0}, &bytes);
    assert_int_equal(err.code, ERR_M_TOO_LARGE);
}

static void half_a_picture_harms_nobody(void **state)
{
    struct slice bytes;
    struct slice whole = picture_png(w.ctx.arena, (struct picture){800, 400, 400});
    struct media half = upload(slice_sub(whole, 0, whole.len / 2), "image/png");
    struct media good = upload(whole, "image/png");
    (void)state;
    struct err err = ask(&half, (struct media_size){320, 240, 0}, &bytes);
    assert_true(err.code == 0 || err.code == ERR_M_UNKNOWN_400);
    assert_int_equal(ask(&good, (struct media_size){320, 240, 0}, &bytes).code, 0);
}

static void outside_the_waiting_pool_it_waits(void **state)
{
    struct slice bytes;
    struct media media = upload_png((struct picture){200, 200, 200});
    (void)state;
    w.ctx.may_wait = false;
    struct err err = ask(&media, (struct media_size){32, 32, 0}, &bytes);
    assert_int_equal(err.code, ERR_WAITS);
    w.ctx.may_wait = true;
    assert_int_equal(ask(&media, (struct media_size){32, 32, 0}, &bytes).code, 0);
    w.ctx.may_wait = false; /* made once */
    assert_int_equal(ask(&media, (struct media_size){32, 32, 0}, &bytes).code, 0);
    w.ctx.may_wait = true;
}

static void without_a_helper_the_original_is_served(void **state)
{
    struct slice bytes;
    struct media media = upload_png((struct picture){200, 200, 200});
    struct media_sandbox *sandbox = w.hs.sandbox;
    (void)state;
    w.conf.media_helper = LIT("/nonexistent/helper");
    w.hs.sandbox = media_sandbox_new(&w.hs);
    assert_int_equal(ask(&media, (struct media_size){32, 32, 0}, &bytes).code, 0);
    assert_size(bytes, 200, 200);
    media_sandbox_free(&w.hs.sandbox);
    w.hs.sandbox = sandbox;
    w.conf.media_helper = LIT(MEDIA_HELPER);
}

static void thumbnails_go_with_their_original(void **state)
{
    struct slice bytes;
    struct media thumbnail;
    bool found = true;
    struct media media = upload_png((struct picture){200, 200, 200});
    const struct media_size size = {32, 32, MEDIA_JOB_CROP};
    (void)state;
    assert_int_equal(ask(&media, size, &bytes).code, 0);
    assert_int_equal(media_thumbnail_find(&w.hs, &w.ctx, &media, &size, &thumbnail).code, 0);
    assert_true(media_id_is_thumbnail(thumbnail.media_id));
    assert_false(media_id_is_own(thumbnail.media_id));
    assert_int_equal(media_thumbnails_delete(&w.hs, &w.ctx, media.media_id).code, 0);
    assert_int_equal(media_find(&w.hs, &w.ctx, thumbnail.media_id, &thumbnail, &found).code, 0);
    assert_false(found);
    assert_int_equal(ask(&media, size, &bytes).code, 0); /* made anew */
}

struct asker {
    pthread_t thread;
    const struct media *media;
    struct err err;
    struct media thumbnail;
};

static void *ask_beside(void *arg)
{
    struct asker *asker = arg;
    struct ctx ctx = {.arena = arena_new(), .now = &w.now, .may_wait = true};
    const struct media_size size = {320, 240, 0};
    asker->err = media_thumbnail_find(&w.hs, &ctx, asker->media, &size, &asker->thumbnail);
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return NULL;
}

static void many_who_ask_for_the_same_get_it(void **state)
{
    struct asker askers[8];
    struct media media = upload_png((struct picture){900, 900, 900});
    (void)state;
    for (size_t i = 0; i < COUNT_OF(askers); i++) {
        askers[i] = (struct asker){.media = &media};
        assert_int_equal(pthread_create(&askers[i].thread, NULL, ask_beside, &askers[i]), 0);
    }
    for (size_t i = 0; i < COUNT_OF(askers); i++) {
        pthread_join(askers[i].thread, NULL);
        assert_int_equal(askers[i].err.code, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_the_next_of_a_few),
        cmocka_unit_test(a_picture_is_scaled_into_the_box),
        cmocka_unit_test(a_small_picture_is_served_as_it_is),
        cmocka_unit_test(a_thin_picture_is_not_scaled_up),
        cmocka_unit_test(what_is_no_picture_has_no_thumbnail),
        cmocka_unit_test(a_picture_of_too_many_pixels_is_refused_by_its_head),
        cmocka_unit_test(half_a_picture_harms_nobody),
        cmocka_unit_test(outside_the_waiting_pool_it_waits),
        cmocka_unit_test(without_a_helper_the_original_is_served),
        cmocka_unit_test(thumbnails_go_with_their_original),
        cmocka_unit_test(many_who_ask_for_the_same_get_it),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
