/* What becomes of pictures; in this process, so not confined. */
#include "tests/support/picture.h"
#include "tools/myelin-media/helper.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <vips/vips.h>
#include <cmocka.h>

/* libvips forgets its writer of moving WebP when reading fails meanwhile; helpers end after some
 * hundred jobs. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libwebpmux\n";
}

static struct arena *arena;

static int start(void **state)
{
    (void)state;
    arena = arena_new();
    return picture_init(arena) ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

/* A picture of random bytes; frames stand below each other. */
static VipsImage *noise(int width, int height, int bands, int frames)
{
    size_t len = (size_t)width * (size_t)height * (size_t)bands * (size_t)frames;
    unsigned char *bytes = arena_alloc(arena, len);
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (unsigned char)(i * 2654435761u >> 13);
    }
    VipsImage *memory =
        vips_image_new_from_memory(bytes, len, width, height * frames, bands, VIPS_FORMAT_UCHAR);
    VipsImage *image = NULL;
    assert_non_null(memory);
    assert_int_equal(vips_copy(memory, &image, "interpretation", VIPS_INTERPRETATION_sRGB, NULL),
                     0);
    g_object_unref(memory);
    if (frames > 1) {
        vips_image_set_int(image, VIPS_META_PAGE_HEIGHT, height);
    }
    return image;
}

/* In the format of the suffix; takes the image. */
static struct slice saved(VipsImage *image, const char *suffix)
{
    void *bytes = NULL;
    size_t len = 0;
    assert_int_equal(vips_image_write_to_buffer(image, suffix, &bytes, &len, NULL), 0);
    struct slice copy = arena_copy(arena, (struct slice){bytes, len});
    g_free(bytes);
    g_object_unref(image);
    return copy;
}

static struct media_reply run(struct slice input, struct media_job job)
{
    struct media_reply reply;
    job.kind = MEDIA_JOB_THUMBNAIL;
    job.pixels_max = job.pixels_max ? job.pixels_max : 1000000;
    picture_run(arena, &job, input, &reply);
    return reply;
}

static VipsImage *open_reply(const struct media_reply *reply)
{
    VipsImage *image = vips_image_new_from_buffer(
        reply->bytes.ptr, reply->bytes.len, reply->format == MEDIA_FORMAT_WEBP ? "n=-1" : "", NULL);
    assert_non_null(image);
    return image;
}

struct want {
    enum media_format format;
    int width, height, frames;
};

static void assert_picture(const struct media_reply *reply, struct want want)
{
    assert_int_equal(reply->result, MEDIA_RESULT_MADE);
    assert_int_equal(reply->format, want.format);
    assert_int_equal(media_format_sniff(reply->bytes), want.format);
    VipsImage *image = open_reply(reply);
    assert_int_equal(vips_image_get_width(image), want.width);
    assert_int_equal(vips_image_get_page_height(image), want.height);
    assert_int_equal(vips_image_get_height(image), want.height * want.frames);
    assert_int_equal(vips_image_get_typeof(image, "exif-ifd0-Make"), 0);
    assert_int_equal(vips_image_get_typeof(image, VIPS_META_XMP_NAME), 0);
    g_object_unref(image);
}

static void formats_become_what_clients_show(void **state)
{
    static const struct {
        const char *suffix;
        int bands;
        enum media_format format;
    } cases[] = {
        {".png", 3, MEDIA_FORMAT_PNG},   {".png", 4, MEDIA_FORMAT_PNG},
        {".jpg", 3, MEDIA_FORMAT_JPEG},  {".jpg", 1, MEDIA_FORMAT_JPEG},
        {".webp", 3, MEDIA_FORMAT_JPEG}, {".webp", 4, MEDIA_FORMAT_PNG},
        {".gif", 3, MEDIA_FORMAT_PNG},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct slice input = saved(noise(200, 100, cases[i].bands, 1), cases[i].suffix);
        struct media_reply reply = run(input, (struct media_job){.width = 96, .height = 96});
        assert_picture(&reply, (struct want){cases[i].format, 96, 48, 1});
    }
}

static void a_box_is_filled_and_cut_in_the_middle(void **state)
{
    static const struct {
        int width, height;
        uint32_t box_width, box_height;
        int cut_width, cut_height;
    } cases[] = {{200, 100, 32, 32, 32, 32}, {100, 300, 96, 96, 96, 96}, {400, 20, 96, 96, 96, 20},
                 {20, 400, 96, 96, 20, 96},  {333, 77, 64, 48, 64, 48},  {1000, 1, 32, 32, 32, 1}};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct slice input = saved(noise(cases[i].width, cases[i].height, 3, 1), ".png");
        struct media_reply reply = run(input, (struct media_job){.flags = MEDIA_JOB_CROP,
                                                                 .width = cases[i].box_width,
                                                                 .height = cases[i].box_height});
        assert_picture(&reply,
                       (struct want){MEDIA_FORMAT_PNG, cases[i].cut_width, cases[i].cut_height, 1});
    }
}

static void a_photograph_is_turned_and_forgets_its_camera(void **state)
{
    VipsImage *image = noise(200, 100, 3, 1);
    (void)state;
    vips_image_set_int(image, VIPS_META_ORIENTATION, 6);
    vips_image_set_string(image, "exif-ifd0-Make", "Camera (Camera, ASCII, 7 components, 7 bytes)");
    struct slice input = saved(image, ".jpg");
    struct media_reply reply = run(input, (struct media_job){.width = 96, .height = 96});
    assert_picture(&reply, (struct want){MEDIA_FORMAT_JPEG, 48, 96, 1});
    reply = run(input, (struct media_job){.flags = MEDIA_JOB_CROP, .width = 64, .height = 96});
    assert_picture(&reply, (struct want){MEDIA_FORMAT_JPEG, 64, 96, 1});
    reply = run(input, (struct media_job){.width = 100, .height = 200});
    assert_int_equal(reply.result, MEDIA_RESULT_ORIGINAL);
}

static void what_moves_does_so_when_asked_to(void **state)
{
    static const char *const suffixes[] = {".gif", ".webp"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(suffixes); i++) {
        VipsImage *image = noise(100, 60, 3, 3);
        vips_image_set_string(image, "exif-ifd0-Make", "Camera (Camera, ASCII, 7, 7 bytes)");
        struct slice input = saved(image, suffixes[i]);
        struct media_job job = {.flags = MEDIA_JOB_ANIMATED, .width = 50, .height = 50};
        struct media_reply reply = run(input, job);
        assert_picture(&reply, (struct want){MEDIA_FORMAT_WEBP, 50, 30, 3});
        job.flags |= MEDIA_JOB_CROP;
        reply = run(input, job);
        assert_picture(&reply, (struct want){MEDIA_FORMAT_WEBP, 50, 50, 3});
        job.pixels_max = 7000; /* enough for one frame */
        reply = run(input, job);
        assert_int_equal(vips_image_get_n_pages(open_reply(&reply)), 1);
        job = (struct media_job){.width = 200, .height = 200};
        reply = run(input, job); /* small, but it must not move */
        assert_int_equal(reply.width, 100);
        assert_int_equal(vips_image_get_n_pages(open_reply(&reply)), 1);
        job.flags = MEDIA_JOB_ANIMATED;
        assert_int_equal(run(input, job).result, MEDIA_RESULT_ORIGINAL);
    }
}

static void a_png_that_moves_is_known(void **state)
{
    struct slice still = picture_png(arena, (struct picture){20, 20, 20});
    struct slice chunk = {"\0\0\0\x08"
                          "acTL\0\0\0\x02\0\0\0\0\xF3\x8D\x93\x70",
                          20};
    struct slice moving = arena_concat(arena, arena_concat(arena, slice_sub(still, 0, 33), chunk),
                                       slice_from(still, 33));
    struct media_job job = {.width = 96, .height = 96};
    (void)state;
    assert_int_equal(run(still, job).result, MEDIA_RESULT_ORIGINAL);
    struct media_reply reply = run(moving, job);
    assert_picture(&reply, (struct want){MEDIA_FORMAT_PNG, 20, 20, 1});
    job.flags = MEDIA_JOB_ANIMATED;
    assert_int_equal(run(moving, job).result, MEDIA_RESULT_ORIGINAL);
}

static void other_colours_become_srgb(void **state)
{
    VipsImage *image = noise(200, 100, 3, 1);
    VipsImage *cmyk = NULL;
    (void)state;
    assert_int_equal(vips_colourspace(image, &cmyk, VIPS_INTERPRETATION_CMYK, NULL), 0);
    g_object_unref(image);
    struct media_reply reply =
        run(saved(cmyk, ".jpg"), (struct media_job){.width = 96, .height = 96});
    VipsImage *made = open_reply(&reply);
    assert_int_equal(vips_image_get_interpretation(made), VIPS_INTERPRETATION_sRGB);
    g_object_unref(made);
}

static void other_formats_are_no_pictures(void **state)
{
    static const char *const suffixes[] = {".tif", ".hdr"};
    struct media_job job = {.width = 96, .height = 96};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(suffixes); i++) {
        struct slice input = saved(noise(200, 100, 3, 1), suffixes[i]);
        assert_int_equal(run(input, job).result, MEDIA_RESULT_NONE);
    }
    assert_int_equal(run(LIT("<svg width='200' height='200'/>"), job).result, MEDIA_RESULT_NONE);
    assert_int_equal(run((struct slice){0}, job).result, MEDIA_RESULT_NONE);
}

static void a_bomb_is_known_by_its_head(void **state)
{
    struct media_job job = {.width = 96, .height = 96, .pixels_max = 1000};
    struct media_reply reply = run(saved(noise(200, 100, 3, 1), ".jpg"), job);
    (void)state;
    assert_int_equal(reply.result, MEDIA_RESULT_TOO_LARGE);
    assert_int_equal(reply.bytes.len, 0);
    reply = run(picture_png(arena, (struct picture){100000, 100000, 1}), job);
    assert_int_equal(reply.result, MEDIA_RESULT_TOO_LARGE);
}

/* Each byte that is turned over, and each end that is missing, is another way to harm. */
static void spoilt_pictures_harm_nothing(void **state)
{
    static const char *const suffixes[] = {".png", ".jpg", ".gif", ".webp"};
    struct media_job job = {.flags = MEDIA_JOB_ANIMATED, .width = 16, .height = 16};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(suffixes); i++) {
        struct slice input = saved(noise(40, 40, 3, 2), suffixes[i]);
        for (size_t at = 0; at < input.len; at += 1 + at / 3) {
            char *spoilt = arena_cstr(arena, input);
            spoilt[at] = (char)~spoilt[at];
            run((struct slice){spoilt, input.len}, job);
            run(slice_sub(input, 0, at), job);
        }
    }
    struct media_reply reply = run(saved(noise(200, 100, 3, 1), ".png"), job);
    assert_int_equal(reply.result, MEDIA_RESULT_MADE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_become_what_clients_show),
        cmocka_unit_test(a_box_is_filled_and_cut_in_the_middle),
        cmocka_unit_test(a_photograph_is_turned_and_forgets_its_camera),
        cmocka_unit_test(what_moves_does_so_when_asked_to),
        cmocka_unit_test(a_png_that_moves_is_known),
        cmocka_unit_test(other_colours_become_srgb),
        cmocka_unit_test(a_bomb_is_known_by_its_head),
        cmocka_unit_test(spoilt_pictures_harm_nothing),
        cmocka_unit_test(other_formats_are_no_pictures),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
