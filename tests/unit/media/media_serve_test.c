#include "homeserver/media/media.h"

#include "tests/support/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <cmocka.h>

static struct world w;
static struct http_reply reply;
static struct media file;

static int open_world(void **state)
{
    struct media draft = {.content_type = LIT("text/plain; charset=utf-8"),
                          .file_name = LIT("plain.txt")};
    struct media_upload upload;
    (void)state;
    world_open(&w, 0);
    w.hs.media_waits = media_waits_new(&w.hs);
    draft.uploader = world_user(&w, "ann");
    assert_int_equal(media_upload_begin(&w.hs, &upload).code, 0);
    assert_int_equal(media_upload_append(&upload, LIT("0123456789")).code, 0);
    return (int)media_upload_finish(&w.hs, &w.ctx, &upload, &draft, &file).code;
}

static int close_world(void **state)
{
    (void)state;
    media_waits_free(&w.hs.media_waits);
    world_close(&w);
    return 0;
}

static struct slice header(const char *name)
{
    for (size_t i = 0; i < reply.header_count; i++) {
        if (slice_eq(reply.headers[i].name, slice_of(name))) {
            return reply.headers[i].value;
        }
    }
    return (struct slice){0};
}

static void assert_text(struct slice got, const char *want)
{
    print_message("%.*s\n", (int)got.len, got.ptr);
    assert_true(slice_eq(got, slice_of(want)));
}

/* Serves the file; the bytes of the answer go to `out`. */
static struct slice serve(struct media_view view, char *out, size_t size)
{
    reply = (struct http_reply){.file_fd = -1};
    buf_init_arena(&reply.body, w.ctx.arena, 65536);
    view.media_id = file.media_id;
    assert_int_equal(media_serve(&w.hs, &w.ctx, NULL, &reply, &view, 0).code, 0);
    if (reply.file_fd < 0) {
        return (struct slice){0};
    }
    assert_true((size_t)reply.file_bytes <= size);
    ssize_t got = pread(reply.file_fd, out, (size_t)reply.file_bytes, reply.file_offset);
    close(reply.file_fd);
    return (struct slice){out, got > 0 ? (size_t)got : 0};
}

static void a_file_comes_back_whole(void **state)
{
    char bytes[32];
    (void)state;
    assert_text(serve((struct media_view){0}, bytes, sizeof bytes), "0123456789");
    assert_text(reply.content_type, "text/plain; charset=utf-8");
    assert_text(header("Content-Disposition"), "inline; filename=\"plain.txt\"");
    assert_text(header("Cross-Origin-Resource-Policy"), "cross-origin");
    assert_true(header("Content-Security-Policy").len > 0);
}

static void a_part_is_answered_with_206(void **state)
{
    char bytes[32];
    struct media_view view = {.range = LIT("bytes=2-4"), .file_name = LIT("other.txt")};
    (void)state;
    assert_text(serve(view, bytes, sizeof bytes), "234");
    assert_int_equal(reply.status, 206);
    assert_text(header("Content-Range"), "bytes 2-4/10");
    assert_text(header("Content-Disposition"), "inline; filename=\"other.txt\"");
}

static void a_part_outside_is_answered_with_416(void **state)
{
    char bytes[32];
    (void)state;
    serve((struct media_view){.range = LIT("bytes=10-")}, bytes, sizeof bytes);
    assert_int_equal(reply.status, 416);
    assert_text(header("Content-Range"), "bytes */10");
}

static void a_known_file_is_not_sent_again(void **state)
{
    char bytes[32];
    (void)state;
    serve((struct media_view){0}, bytes, sizeof bytes);
    serve((struct media_view){.if_none_match = header("ETag")}, bytes, sizeof bytes);
    assert_int_equal(reply.status, 304);
    assert_int_equal(reply.file_fd, -1);
    assert_int_equal(reply.body.len, 0);
}

static void only_harmless_types_are_shown_in_place(void **state)
{
    (void)state;
    assert_true(media_type_is_inline(LIT("image/png")));
    assert_true(media_type_is_inline(LIT("Image/PNG")));
    assert_true(media_type_is_inline(LIT("text/plain; charset=utf-8")));
    assert_false(media_type_is_inline(LIT("text/html")));
    assert_false(media_type_is_inline(LIT("image/svg+xml")));
    assert_false(media_type_is_inline(LIT("image/pngx")));
    assert_false(media_type_is_inline(LIT("")));
}

struct disposition_case {
    const char *type, *name, *want;
};

static const struct disposition_case dispositions[] = {
    {"image/png", "", "inline"},
    {"IMAGE/PNG ; a=b", "a.png", "inline; filename=\"a.png\""},
    {"image/svg+xml", "a.svg", "attachment; filename=\"a.svg\""},
    {"text/html", "a;b.html", "attachment; filename=\"a;b.html\""},
    {"text/plain", "a\"b", "inline; filename*=utf-8''a%22b"},
    {"text/plain", "a\r\nX: y", "inline; filename*=utf-8''a%0D%0AX%3A%20y"},
    {"text/plain", "\xe2\x98\x95.txt", "inline; filename*=utf-8''%E2%98%95.txt"},
    {"text/plainish", "a", "attachment; filename=\"a\""},
};

static void a_name_stays_inside_its_header(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(dispositions); i++) {
        const struct disposition_case *c = &dispositions[i];
        assert_text(media_disposition(w.ctx.arena, slice_of(c->type), slice_of(c->name)), c->want);
    }
}

static void a_long_name_is_cut_between_characters(void **state)
{
    char name[300];
    (void)state;
    for (size_t i = 0; i < sizeof name; i += 2) {
        name[i] = '\xc3';
        name[i + 1] = '\xa4';
    }
    struct slice cut = media_clean_name((struct slice){name, sizeof name});
    assert_int_equal(cut.len, MEDIA_NAME_BYTES_MAX - 1);
    assert_true(slice_is_utf8(cut));
    assert_int_equal(media_clean_name(LIT("\xc3")).len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_comes_back_whole),
        cmocka_unit_test(a_part_is_answered_with_206),
        cmocka_unit_test(a_part_outside_is_answered_with_416),
        cmocka_unit_test(a_known_file_is_not_sent_again),
        cmocka_unit_test(only_harmless_types_are_shown_in_place),
        cmocka_unit_test(a_name_stays_inside_its_header),
        cmocka_unit_test(a_long_name_is_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
