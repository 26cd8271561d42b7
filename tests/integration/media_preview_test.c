/* Previews of pages of a real web server, read by a real helper. */
#include "homeserver/http/fetch.h"
#include "homeserver/media/media.h"
#include "homeserver/media/media_sandbox.h"

#include "tests/support/picture.h"
#include "tests/support/website.h"
#include "tests/support/world.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define HTML "Content-Type: text/html\r\n"
#define OK_200 "200 OK"

static struct world w;
static struct website *website;
static struct slice denied[] = {LIT("denied.example")};
static struct website_page pages[] = {
    {"/og", OK_200, HTML,
     LIT("<html><head><title>Other</title><meta property='og:title' content='The  Rock'>"
         "<meta property=\"og:type\" content=\"video.movie\">"
         "<meta property='og:image:width' content='9'>"
         "<meta property='og:image' content='/pictures/one.png'></head><body>x</body></html>")},
    {"/plain", OK_200, HTML "X-A: b\r\n",
     LIT("<title>A &amp; B</title><nav>menu</nav><script>alert(1)</script>"
         "<p>First   words.</p><p>More.</p><img src=data:x,y><img width=1 src=pixel.png>")},
    {"/twitter", OK_200, HTML,
     LIT("<meta name='twitter:title' content='Bird'><meta name=description content='Sings'>")},
    {"/latin", OK_200, "Content-Type: text/html; charset=ISO-8859-1\r\n",
     LIT("<title>Caf\xE9</title>")},
    {"/cyrillic", OK_200, HTML,
     LIT("<meta charset=windows-1251><title>\xCF\xF0\xE8\xE2\xE5\xF2</title>")},
    {"/japanese", OK_200, "Content-Type: text/html; charset=Shift_JIS\r\n",
     LIT("<title>\x93\xFA\x96\x7B</title>")},
    {"/moved", "302 Found", "Location: /og\r\n", LIT("")},
    {"/circle", "302 Found", "Location: /circle\r\n", LIT("")},
    {"/to_file", "302 Found", "Location: file:///etc/passwd\r\n", LIT("")},
    {"/to_denied", "302 Found", "Location: http://denied.example/\r\n", LIT("")},
    {"/pictures/one.png", OK_200, "Content-Type: image/png\r\n", {0}},
    {"/fake", OK_200, HTML, LIT("<title>F</title><meta property='og:image' content='/svg'>")},
    {"/svg", OK_200, "Content-Type: image/svg+xml\r\n",
     LIT("<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>")},
    {"/embedded", OK_200, HTML,
     LIT("<link rel=alternate type='application/json+oembed' href='/embed.json'>")},
    {"/embed.json", OK_200, "Content-Type: application/json\r\n",
     LIT("{\"title\": \"Film\", \"provider_name\": \"Tube\", \"thumbnail_url\": "
         "\"pictures/one.png\"}")},
    {"/text", OK_200, "Content-Type: text/plain\r\n", LIT("<title>no page</title>")},
    {"/broken", "500 Oh", HTML, LIT("<title>no page</title>")},
    {"/big", OK_200, HTML, {0}},
    {"/nothing", OK_200, HTML, LIT("")},
};

static struct website_page *page_of(const char *path)
{
    size_t i = 0;
    while (strcmp(pages[i].path, path) != 0) {
        i++;
    }
    return &pages[i];
}

static int open_world(void **state)
{
    const struct http_fetch_config config = {.user_agent = LIT("test")};
    (void)state;
    world_open(&w, 0);
    struct arena *arena = w.conf_arena;
    char *big = arena_alloc(arena, 3 << 20);
    memset(big, ' ', 3 << 20);
    memcpy(big, "<title>Big</title>", 18);
    page_of("/big")->body = (struct slice){big, 3 << 20};
    page_of("/pictures/one.png")->body = picture_png(arena, (struct picture){60, 40, 40});
    website = website_new(pages, COUNT_OF(pages));
    w.conf.media_helper = LIT(BUILD_ROOT "/myelin-media");
    w.conf.network_allow_private_addresses = true;
    w.conf.url_previews_deny_hosts = (struct conf_texts){.items = denied, .count = 1};
    w.hs.sandbox = media_sandbox_new(&w.hs);
    w.ctx.may_wait = true;
    return (int)http_fetcher_new(&config, &w.hs.fetcher).code;
}

static int close_world(void **state)
{
    (void)state;
    http_fetcher_free(&w.hs.fetcher);
    media_sandbox_free(&w.hs.sandbox);
    website_free(&website);
    world_close(&w);
    return 0;
}

static struct slice url_of(const char *path)
{
    return arena_printf(w.ctx.arena, "http://127.0.0.1:%u%s", website_port(website), path);
}

static struct err ask(const char *path, struct json *json_out)
{
    struct slice text;
    struct err err = media_preview(&w.hs, &w.ctx, url_of(path), &text);
    *json_out = (struct json){0};
    return err.code ? err : json_parse(w.ctx.arena, text, json_out);
}

static void assert_member(const struct json *json, const char *key, const char *value)
{
    struct slice got = json_get_string(json, slice_of(key));
    print_message("%s: %.*s\n", key, (int)got.len, got.ptr);
    assert_true(slice_eq(got, slice_of(value)));
}

static void open_graph_counts_first(void **state)
{
    struct json json;
    int64_t value = 0;
    (void)state;
    assert_int_equal(ask("/og", &json).code, 0);
    assert_member(&json, "og:title", "The Rock");
    assert_member(&json, "og:type", "video.movie");
    assert_member(&json, "og:image:type", "image/png");
    assert_true(json_get_int(&json, LIT("og:image:width"), &value) && value == 60);
    assert_true(json_get_int(&json, LIT("og:image:height"), &value) && value == 40);
    assert_true(json_get_int(&json, LIT("matrix:image:size"), &value));
    assert_int_equal(value, (int64_t)page_of("/pictures/one.png")->body.len);
    struct slice uri = json_get_string(&json, LIT("og:image"));
    assert_true(slice_has_prefix(uri, LIT("mxc://test/")));
    struct media media;
    bool found = false;
    struct err err = media_find(&w.hs, &w.ctx, slice_from(uri, 11), &media, &found);
    assert_true(err.code == 0 && found);
    assert_true(slice_eq(media.content_type, LIT("image/png")));
}

static void other_pages_are_described_by_what_they_have(void **state)
{
    static const struct {
        const char *path, *title, *description;
    } cases[] = {
        {"/plain", "A & B", "First words. More."},
        {"/twitter", "Bird", "Sings"},
        {"/latin", "Caf\xC3\xA9", ""},
        {"/cyrillic", "\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82", ""},
        {"/japanese", "\xE6\x97\xA5\xE6\x9C\xAC", ""},
        {"/moved", "The Rock", "x"},
        {"/big", "Big", ""},
        {"/embedded", "Film", ""},
        {"/text", "", ""},
        {"/nothing", "", ""},
        {"/fake", "F", ""},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct json json;
        assert_int_equal(ask(cases[i].path, &json).code, 0);
        assert_member(&json, "og:title", cases[i].title);
        assert_member(&json, "og:description", cases[i].description);
    }
}

static void what_is_no_picture_is_not_shown(void **state)
{
    struct json json;
    (void)state;
    assert_int_equal(ask("/fake", &json).code, 0);
    assert_null(json_get(&json, LIT("og:image")));
    assert_int_equal(ask("/plain", &json).code, 0);
    assert_null(json_get(&json, LIT("og:image")));
    assert_int_equal(ask("/embedded", &json).code, 0);
    assert_non_null(json_get(&json, LIT("og:image")));
    assert_member(&json, "og:site_name", "Tube");
}

static void a_picture_is_its_own_preview(void **state)
{
    struct json json;
    (void)state;
    assert_int_equal(ask("/pictures/one.png", &json).code, 0);
    assert_member(&json, "og:image:type", "image/png");
}

/* Synapse CVE-2022-41952. */
static void what_cannot_be_had_is_an_error(void **state)
{
    static const struct {
        const char *path;
        uint32_t code;
    } cases[] = {{"/broken", ERR_M_REMOTE},
                 {"/absent", ERR_M_REMOTE},
                 {"/circle", ERR_M_REMOTE},
                 {"/to_file", ERR_M_REMOTE},
                 {"/to_denied", ERR_M_FORBIDDEN}};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct json json;
        print_message("%s\n", cases[i].path);
        assert_int_equal(ask(cases[i].path, &json).code, cases[i].code);
    }
}

static void only_the_web_is_asked(void **state)
{
    static const struct {
        struct slice url;
        uint32_t code;
    } cases[] = {{LIT(""), ERR_M_INVALID_PARAM},
                 {LIT("file:///etc/passwd"), ERR_M_INVALID_PARAM},
                 {LIT("ftp://example.org/"), ERR_M_INVALID_PARAM},
                 {LIT("http:///path"), ERR_M_INVALID_PARAM},
                 {LIT("example.org"), ERR_M_INVALID_PARAM},
                 {LIT("http://Denied.Example./"), ERR_M_FORBIDDEN}};
    struct slice text;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = media_preview(&w.hs, &w.ctx, cases[i].url, &text);
        assert_int_equal(err.code, cases[i].code);
    }
}

/* Synapse CVE-2023-32683. */
static void private_addresses_are_out_of_reach(void **state)
{
    struct json json;
    (void)state;
    w.conf.network_allow_private_addresses = false;
    int asked = website_asked(website);
    assert_int_equal(ask("/og?private", &json).code, ERR_M_REMOTE);
    assert_int_equal(website_asked(website), asked);
    w.conf.network_allow_private_addresses = true;
}

static void a_page_is_fetched_once_for_a_while(void **state)
{
    struct json json;
    (void)state;
    assert_int_equal(ask("/latin", &json).code, 0);
    int asked = website_asked(website);
    assert_int_equal(ask("/latin", &json).code, 0);
    assert_int_equal(ask("/latin#part", &json).code, 0);
    assert_int_equal(ask("/broken", &json).code, ERR_M_REMOTE);
    assert_int_equal(website_asked(website), asked);
    world_wait(&w, w.conf.url_previews_life + 1);
    assert_int_equal(ask("/latin", &json).code, 0);
    assert_int_equal(website_asked(website), asked + 1);
}

static void pictures_of_old_previews_go(void **state)
{
    struct json json;
    struct media media;
    bool found = true;
    (void)state;
    assert_int_equal(ask("/moved", &json).code, 0);
    struct slice id = slice_from(json_get_string(&json, LIT("og:image")), 11);
    for (int i = 0; i < 9; i++) {
        world_wait(&w, INT64_C(24) * 3600 * 1000);
        assert_int_equal(ask("/latin", &json).code, 0);
    }
    assert_int_equal(media_find(&w.hs, &w.ctx, id, &media, &found).code, 0);
    assert_false(found);
}

static void *ask_beside(void *arg)
{
    struct err *err = arg;
    struct slice text;
    struct ctx ctx = {.arena = arena_new(), .now = &w.now, .may_wait = true};
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%u/big?beside", website_port(website));
    *err = media_preview(&w.hs, &ctx, slice_of(url), &text);
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return NULL;
}

static void many_who_ask_at_once_cost_one_request(void **state)
{
    pthread_t threads[8];
    struct err errs[8];
    (void)state;
    page_of("/nothing")->path = "/big?beside";
    int asked = website_asked(website);
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, ask_beside, &errs[i]), 0);
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        assert_int_equal(errs[i].code, 0);
    }
    assert_int_equal(website_asked(website), asked + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_graph_counts_first),
        cmocka_unit_test(other_pages_are_described_by_what_they_have),
        cmocka_unit_test(what_is_no_picture_is_not_shown),
        cmocka_unit_test(a_picture_is_its_own_preview),
        cmocka_unit_test(what_cannot_be_had_is_an_error),
        cmocka_unit_test(only_the_web_is_asked),
        cmocka_unit_test(private_addresses_are_out_of_reach),
        cmocka_unit_test(a_page_is_fetched_once_for_a_while),
        cmocka_unit_test(pictures_of_old_previews_go),
        cmocka_unit_test(many_who_ask_at_once_cost_one_request),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
