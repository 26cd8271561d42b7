/* Thumbnails by libvips: four formats in, three out, turned as the camera was held, sRGB, without
 * anything that the picture's file said beside the picture. */
#include "tools/myelin-media/helper.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <vips/vips.h>
#include <vips/vector.h>

enum { JPEG_QUALITY = 82, WEBP_QUALITY = 75, FRAMES_MAX = 1000 };

static const char *const loaders[] = {"VipsForeignLoadPng", "VipsForeignLoadJpeg",
                                      "VipsForeignLoadNsgif", "VipsForeignLoadWebp"};

/* What a picture is, by its head. */
struct shape {
    int width, height; /* of one frame, as it is to be seen */
    int frames;
    enum media_format format;
};

static void silence(const char *domain, GLogLevelFlags level, const char *text, void *arg)
{
    (void)domain;
    (void)level;
    (void)text;
    (void)arg;
}

/* --- looking --- */

/* A PNG that moves says so before its first picture. libpng shows that alone. */
static bool is_moving_png(struct slice input)
{
    size_t at = 8;
    while (at + 12 <= input.len) {
        struct unpack length = unpack_of((struct slice){input.ptr + at, 4});
        struct slice type = {input.ptr + at + 4, 4};
        uint64_t len = 0;
        for (int i = 0; i < 4; i++) {
            len = len << 8 | (unsigned char)length.rest.ptr[i];
        }
        if (slice_eq(type, LIT("acTL"))) {
            return true;
        }
        if (slice_eq(type, LIT("IDAT")) || len > input.len - at - 12) {
            return false;
        }
        at += (size_t)len + 12;
    }
    return false;
}

static VipsImage *load_head(struct slice input)
{
    return vips_image_new_from_buffer(input.ptr, input.len, "", "access", VIPS_ACCESS_SEQUENTIAL,
                                      NULL);
}

static bool look(struct slice input, struct shape *shape_out)
{
    *shape_out = (struct shape){.format = media_format_sniff(input)};
    if (shape_out->format == MEDIA_FORMAT_NONE) {
        return false;
    }
    VipsImage *image = load_head(input);
    if (!image) {
        return false;
    }
    bool is_turned = vips_image_get_orientation_swap(image);
    int width = vips_image_get_width(image);
    int height = vips_image_get_page_height(image);
    shape_out->width = is_turned ? height : width;
    shape_out->height = is_turned ? width : height;
    shape_out->frames = vips_image_get_n_pages(image);
    if (shape_out->format == MEDIA_FORMAT_PNG && is_moving_png(input)) {
        shape_out->frames = 2;
    }
    g_object_unref(image);
    return width > 0 && height > 0;
}

/* --- scaling --- */

struct target {
    int width, height;         /* after scaling */
    int cut_width, cut_height; /* after cutting */
    bool moves;
};

static int edge_of(double length)
{
    return length < 1.0 ? 1 : (int)lround(length);
}

/* Never larger than the picture. Spec: "Thumbnails". */
static struct target aim(const struct media_job *job, const struct shape *shape, bool moves)
{
    double across = (double)job->width / shape->width;
    double down = (double)job->height / shape->height;
    bool is_cut = (job->flags & MEDIA_JOB_CROP) != 0;
    double scale = is_cut ? fmax(across, down) : fmin(across, down);
    scale = fmin(scale, 1.0);
    struct target target = {.width = edge_of(shape->width * scale),
                            .height = edge_of(shape->height * scale),
                            .moves = moves};
    bool is_wide = is_cut && target.width > (int)job->width;
    bool is_high = is_cut && target.height > (int)job->height;
    target.cut_width = is_wide ? (int)job->width : target.width;
    target.cut_height = is_high ? (int)job->height : target.height;
    return target;
}

static VipsImage *scale(struct slice input, const struct target *target)
{
    VipsImage *out = NULL;
    int failed =
        vips_thumbnail_buffer((void *)(uintptr_t)input.ptr, input.len, &out, target->width,
                              "height", target->height, "size", VIPS_SIZE_FORCE, "export_profile",
                              "srgb", "option_string", target->moves ? "[n=-1]" : "", NULL);
    return failed ? NULL : out;
}

/* The middle of each frame; takes the image. */
static VipsImage *cut(VipsImage *image, const struct target *target)
{
    enum { TALL = FRAMES_MAX };
    VipsImage *frames[TALL] = {0};
    VipsImage *joined = NULL;
    int width = vips_image_get_width(image);
    int height = target->moves ? vips_image_get_page_height(image) : vips_image_get_height(image);
    int count = vips_image_get_height(image) / height;
    int cut_width = target->cut_width < width ? target->cut_width : width;
    int cut_height = target->cut_height < height ? target->cut_height : height;
    if (cut_width == width && cut_height == height) {
        return image;
    }
    bool good = count <= TALL;
    for (int i = 0; good && i < count; i++) {
        int top = i * height + (height - cut_height) / 2;
        good = vips_extract_area(image, &frames[i], (width - cut_width) / 2, top, cut_width,
                                 cut_height, NULL) == 0;
    }
    if (good && vips_arrayjoin(frames, &joined, count, "across", 1, NULL) == 0 && target->moves) {
        vips_image_set_int(joined, VIPS_META_PAGE_HEIGHT, cut_height);
    }
    for (int i = 0; i < count && i < TALL; i++) {
        g_clear_object(&frames[i]);
    }
    g_object_unref(image);
    return joined;
}

/* --- writing --- */

static enum media_format format_to_write(const VipsImage *image, const struct target *target,
                                         enum media_format from)
{
    if (target->moves) {
        return MEDIA_FORMAT_WEBP;
    }
    bool is_photo = from == MEDIA_FORMAT_JPEG || from == MEDIA_FORMAT_WEBP;
    return is_photo && !vips_image_hasalpha((VipsImage *)(uintptr_t)image) ? MEDIA_FORMAT_JPEG
                                                                           : MEDIA_FORMAT_PNG;
}

static bool is_personal(const char *field)
{
    static const char *const starts[] = {"exif-",      "xmp-",         "iptc-",
                                         "photoshop-", "png-comment-", "gif-comment"};
    bool found = false;
    for (size_t i = 0; !found && i < COUNT_OF(starts); i++) {
        found = strncmp(field, starts[i], strlen(starts[i])) == 0;
    }
    return found;
}

/* The image without what its file said beside it: `strip` alone keeps some of that in WebP. */
static bool forget(VipsImage *image, VipsImage **out)
{
    bool good = vips_copy(image, out, NULL) == 0;
    char **fields = good ? vips_image_get_fields(*out) : NULL;
    for (size_t i = 0; fields && fields[i]; i++) {
        if (is_personal(fields[i])) {
            vips_image_remove(*out, fields[i]);
        }
    }
    g_strfreev(fields);
    return good;
}

static bool save(struct arena *arena, VipsImage *picture, enum media_format format,
                 struct slice *bytes_out)
{
    void *made = NULL;
    size_t len = 0;
    int failed = 0;
    VipsImage *image = NULL;
    if (!forget(picture, &image)) {
        return false;
    }
    if (format == MEDIA_FORMAT_JPEG) {
        failed = vips_jpegsave_buffer(image, &made, &len, "Q", JPEG_QUALITY, "strip", TRUE,
                                      "optimize_coding", TRUE, NULL);
    } else if (format == MEDIA_FORMAT_WEBP) {
        failed = vips_webpsave_buffer(image, &made, &len, "Q", WEBP_QUALITY, "strip", TRUE,
                                      "effort", 2, NULL);
    } else {
        failed = vips_pngsave_buffer(image, &made, &len, "strip", TRUE, "compression", 6, NULL);
    }
    bool good = failed == 0 && len <= MEDIA_REPLY_PAYLOAD_MAX;
    if (good) {
        *bytes_out = arena_copy(arena, (struct slice){made, len});
    }
    g_free(made);
    g_object_unref(image);
    return good;
}

static bool make(struct arena *arena, struct slice input, const struct shape *shape,
                 const struct target *target, struct media_reply *reply)
{
    VipsImage *image = scale(input, target);
    image = image ? cut(image, target) : NULL;
    if (!image) {
        return false;
    }
    reply->format = format_to_write(image, target, shape->format);
    reply->width = (uint32_t)target->cut_width;
    reply->height = (uint32_t)target->cut_height;
    bool good = save(arena, image, reply->format, &reply->bytes);
    g_object_unref(image);
    return good;
}

static void make_thumbnail(struct arena *arena, const struct media_job *job, struct slice input,
                           const struct shape *shape, struct media_reply *reply)
{
    uint64_t all_pixels = (uint64_t)shape->width * (uint64_t)shape->height *
                          (uint64_t)(shape->frames > 0 ? shape->frames : 1);
    bool can_move = shape->format != MEDIA_FORMAT_PNG && shape->frames > 1 &&
                    shape->frames <= FRAMES_MAX && all_pixels <= job->pixels_max;
    bool wants_moving = (job->flags & MEDIA_JOB_ANIMATED) != 0;
    bool fits = shape->width <= (int)job->width && shape->height <= (int)job->height;
    if (fits && (shape->frames <= 1 || wants_moving)) {
        reply->result = MEDIA_RESULT_ORIGINAL;
        return;
    }
    struct target target = aim(job, shape, wants_moving && can_move);
    reply->result =
        make(arena, input, shape, &target, reply) ? MEDIA_RESULT_MADE : MEDIA_RESULT_NONE;
}

void picture_run(struct arena *arena, const struct media_job *job, struct slice input,
                 struct media_reply *reply_out)
{
    struct shape shape;
    *reply_out = (struct media_reply){.result = MEDIA_RESULT_NONE};
    if (look(input, &shape)) {
        reply_out->format = shape.format;
        reply_out->width = (uint32_t)shape.width;
        reply_out->height = (uint32_t)shape.height;
        if ((uint64_t)shape.width * (uint64_t)shape.height > job->pixels_max) {
            reply_out->result = MEDIA_RESULT_TOO_LARGE;
        } else if (job->kind == MEDIA_JOB_PROBE) {
            reply_out->result = MEDIA_RESULT_ORIGINAL;
        } else {
            make_thumbnail(arena, job, input, &shape, reply_out);
        }
    }
    vips_error_clear();
}

/* --- beginning --- */

#ifdef __SANITIZE_THREAD__
/* The libraries' threads are not instrumented, so all that they hand to each other looks like a
 * race. Nothing of ours runs beside them. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "report_bugs=0";
}
#endif

/* One picture in and out of each format, so that nothing is loaded later. */
static bool rehearse(struct arena *arena)
{
    static const char *const suffixes[] = {".png", ".jpg", ".webp", ".gif"};
    const struct media_job job = {.kind = MEDIA_JOB_THUMBNAIL,
                                  .flags = MEDIA_JOB_ANIMATED | MEDIA_JOB_CROP,
                                  .width = 8,
                                  .height = 6,
                                  .pixels_max = 1000000};
    VipsImage *image = NULL;
    bool good = vips_black(&image, 64, 64, "bands", 3, NULL) == 0;
    for (size_t i = 0; good && i < COUNT_OF(suffixes); i++) {
        void *bytes = NULL;
        size_t len = 0;
        struct media_reply reply;
        good = vips_image_write_to_buffer(image, suffixes[i], &bytes, &len, NULL) == 0;
        if (good) {
            picture_run(arena, &job, (struct slice){bytes, len}, &reply);
            good = reply.result == MEDIA_RESULT_MADE;
        }
        g_free(bytes);
    }
    g_clear_object(&image);
    return good;
}

bool picture_init(struct arena *arena)
{
    g_log_set_default_handler(silence, NULL);
    if (vips_init("myelin-media") != 0) {
        return false;
    }
    vips_concurrency_set(1);
    vips_cache_set_max(0);
    vips_vector_set_enabled(FALSE); /* it writes programs at run time */
    bool good = rehearse(arena);
    vips_block_untrusted_set(TRUE);
    vips_operation_block_set("VipsForeignLoad", TRUE);
    for (size_t i = 0; i < COUNT_OF(loaders); i++) {
        vips_operation_block_set(loaders[i], FALSE);
    }
    return good;
}
