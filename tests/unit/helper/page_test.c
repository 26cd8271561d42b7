#include "tools/myelin-media/helper.h"

#include "homeserver/base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct arena *arena;
static struct charset_reader *charsets;

static int start(void **state)
{
    (void)state;
    arena = arena_new();
    charsets = charset_reader_new();
    page_init();
    return 0;
}

static int stop(void **state)
{
    (void)state;
    charset_reader_free(&charsets);
    arena_free(&arena);
    return 0;
}

/* The value of a field; none when the page has no such. */
static struct slice field(struct slice page, const char *name)
{
    struct media_reply reply;
    const struct media_job job = {.kind = MEDIA_JOB_PAGE};
    page_run(charsets, arena, &job, page, &reply);
    struct unpack in = unpack_of(reply.bytes);
    while (in.rest.len) {
        struct slice key = unpack_bytes(&in);
        struct slice value = unpack_bytes(&in);
        assert_int_equal(unpack_check(&in).code, 0);
        if (slice_eq(key, slice_of(name))) {
            return value;
        }
    }
    return (struct slice){0};
}

static void fields_are_found(void **state)
{
    static const struct {
        const char *page, *name, *value;
    } cases[] = {
        {"<title> A\n B </title>", "og:title", "A B"},
        {"<h1>Head</h1>", "og:title", "Head"},
        {"<title>T</title><meta name='twitter:title' content=W>", "og:title", "W"},
        {"<META NAME='Twitter:Title' CONTENT=W>", "og:title", "W"},
        {"<meta property='og:title' content='1'><meta property='og:title' content='2'>", "og:title",
         "1"},
        {"<meta name='og:title' content='named'>", "og:title", "named"},
        {"<meta property='og:title' content='a&lt;b&gt;&#8212;'>", "og:title", "a<b>\xE2\x80\x94"},
        {"<meta property='og:title' content=''><title>T</title>", "og:title", "T"},
        {"<meta property='og:video:width' content='640'>", "og:video:width", "640"},
        {"<meta name=description content=D><p>P</p>", "og:description", "D"},
        {"<p>One</p><p>Two</p><div>Three</div>", "og:description", "One Two"},
        {"<div>Three</div><footer>no</footer>", "og:description", "Three"},
        {"<svg><title>Icon</title></svg><title>T</title>", "og:title", "T"},
        {"<meta property='og:image' content='a.png'><img src=b.png>", "image", "a.png"},
        {"<meta property='og:image' content='a'><meta property='og:image:secure_url' content='s'>",
         "image", "s"},
        {"<link rel=image_src href=l.png>", "image", "l.png"},
        {"<img src='data:x'><img src=small.png width=16><img src=b.png>", "image", "b.png"},
        {"<base href='/x/'>", "base", "/x/"},
        {"<link type='application/json+oembed' href='/o'>", "oembed", "/o"},
        {"<meta property='article:author' content='A'>", "article:author", ""},
        {"", "og:title", ""},
        {"<<<>>><title", "og:title", ""},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct slice got = field(slice_of(cases[i].page), cases[i].name);
        print_message("%s: %.*s\n", cases[i].page, (int)got.len, got.ptr ? got.ptr : "");
        assert_true(slice_eq(got, slice_of(cases[i].value)));
    }
}

static void characters_are_read_as_they_were_meant(void **state)
{
    static const struct {
        struct slice page;
        const char *title;
    } cases[] = {
        {LIT("<title>\xC3\xA9</title>"), "\xC3\xA9"},
        {LIT("<title>\xE9</title>"), "\xC3\xA9"},
        {LIT("\xEF\xBB\xBF<meta charset=koi8-r><title>\xC3\xA9</title>"), "\xC3\xA9"},
        {LIT("<meta http-equiv=Content-Type content='text/html; charset=utf-8'><title>a\xFF"
             "b"
             "</title>"),
         "a\xEF\xBF\xBD"
         "b"},
        {LIT("<meta charset=\"EUC-KR\"><title>\xC7\xD1</title>"), "\xED\x95\x9C"},
        {LIT("<meta charset=gb2312><title>\xD6\xD0</title>"), "\xE4\xB8\xAD"},
        {LIT("<meta charset=no-such><title>\xC3\xA9</title>"), "\xC3\xA9"},
        {LIT("<title>a\0b</title>"), "a b"},
        {LIT("\xFF\xFE<\0t\0i\0t\0l\0e\0>\0x\0"), "x"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct slice got = field(cases[i].page, "og:title");
        print_message("%zu: %.*s\n", i, (int)got.len, got.ptr ? got.ptr : "");
        assert_true(slice_eq(got, slice_of(cases[i].title)));
    }
}

static void descriptions_end_between_words(void **state)
{
    struct buf page;
    (void)state;
    buf_init_arena(&page, arena, 1 << 20);
    for (int i = 0; i < 1000; i++) {
        buf_add(&page, LIT("<p>W\xC3\xB6rter </p>"));
    }
    struct slice got = field(buf_slice(&page), "og:description");
    assert_true(got.len > 200 && got.len <= 403);
    assert_true(slice_has_suffix(got, LIT("W\xC3\xB6rter\xE2\x80\xA6")));
}

static void a_page_without_end_is_read_to_its_limits(void **state)
{
    static const char *const pieces[] = {
        "<div>", "<meta property='og:x", "<p>", "&#x41;", "<title>", "<!--", "</div>"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(pieces); i++) {
        struct buf page;
        buf_init_arena(&page, arena, 1 << 24);
        for (int j = 0; j < 50000; j++) {
            buf_add(&page, slice_of(pieces[i]));
            if (i == 1) {
                buf_printf(&page, "%d' content=%d>", j, j);
            }
        }
        struct slice got = field(buf_slice(&page), "og:title");
        assert_true(got.len <= 2048);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_found),
        cmocka_unit_test(characters_are_read_as_they_were_meant),
        cmocka_unit_test(descriptions_end_between_words),
        cmocka_unit_test(a_page_without_end_is_read_to_its_limits),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
