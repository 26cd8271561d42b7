/* What a client sees of the room for its files. */
#include "homeserver/client/routes_priv.h"
#include "homeserver/media/media.h"
#include "tests/support/front.h"
#include "tests/support/world.h"

#include <string.h>
#include <unistd.h>

static struct world w;
static struct harness front;
static struct harness_reply raw;
static struct json body; /* of the last answer */
static struct slice token;

static void make_token(void)
{
    struct sign_in sign_in = {.user = world_user(&w, "ann"), .device_id = LIT("DEVICE")};
    struct issued_tokens tokens;
    assert_int_equal(hs_token_issue(&w.hs, &w.ctx, &sign_in, &tokens).code, 0);
    token = tokens.access_token;
}

static int start(void **state)
{
    static struct http_route_table tables[1];
    (void)state;
    world_open(&w, 0);
    w.now = now_system();
    w.conf.media_quota_per_user = 100;
    w.hs.media_waits = media_waits_new(&w.hs);
    make_token();
    tables[0] = cs_media_routes;
    struct http_server_config config = front_config(&w.hs, tables, COUNT_OF(tables));
    front_start(&front, &config);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    http_server_stop(front.server, 1000);
    workers_free(&w.hs.workers);
    media_waits_free(&w.hs.media_waits);
    http_server_free(&front.server);
    world_close(&w);
    return 0;
}

/* The status; the answer is left in `body`. */
static int call(const char *method, const char *path, const char *head, const char *bytes)
{
    struct buf request;
    buf_init_arena(&request, w.ctx.arena, 1 << 18);
    buf_printf(&request,
               "%s /_matrix/media/%s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
               "Authorization: Bearer %.*s\r\n%s\r\n%s",
               method, path, (int)token.len, token.ptr, head, bytes);
    int fd = harness_connect(&front, 0);
    harness_write(fd, buf_slice(&request));
    assert_true(harness_read(fd, &raw));
    close(fd);
    struct slice text = arena_copy(w.ctx.arena, (struct slice){raw.body, raw.body_len});
    assert_int_equal(json_parse(w.ctx.arena, text, &body).code, 0);
    return raw.status;
}

static int upload(const char *method, const char *path, size_t count)
{
    char bytes[101] = {0};
    memset(bytes, 'x', count);
    struct slice head = arena_printf(w.ctx.arena, "Content-Length: %zu\r\n", count);
    return call(method, path, head.ptr, bytes);
}

static void expect_limit(int status)
{
    assert_int_equal(status, 403);
    struct slice errcode = json_get_string(&body, LIT("errcode"));
    assert_true(slice_eq(errcode, LIT("M_USER_LIMIT_EXCEEDED")));
    struct slice uri = json_get_string(&body, LIT("info_uri"));
    assert_true(slice_eq(uri, LIT("https://test")));
    assert_true(json_get_string(&body, LIT("error")).len > 50);
}

static void an_upload_beyond_the_quota_is_refused_with_a_place_to_read_on(void **state)
{
    (void)state;
    assert_int_equal(upload("POST", "v3/upload", 60), 200);
    expect_limit(upload("POST", "v3/upload", 41));
    assert_int_equal(upload("POST", "v3/upload", 40), 200);
    expect_limit(upload("POST", "v3/upload", 1));
    expect_limit(call("POST", "v1/create", "Content-Length: 2\r\n", "{}"));
}

static void one_of_untold_length_is_refused_at_its_end(void **state)
{
    (void)state;
    assert_int_equal(upload("POST", "v3/upload", 98), 200);
    expect_limit(
        call("POST", "v3/upload", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"));
    assert_int_equal(
        call("POST", "v3/upload", "Transfer-Encoding: chunked\r\n", "2\r\nab\r\n0\r\n\r\n"), 200);
}

static void an_announced_file_is_refused_and_may_be_filled_with_less(void **state)
{
    (void)state;
    assert_int_equal(call("POST", "v1/create", "Content-Length: 2\r\n", "{}"), 200);
    struct slice uri = json_get_string(&body, LIT("content_uri"));
    struct slice path = arena_concat(w.ctx.arena, LIT("v3/upload/"), slice_from(uri, 6));
    assert_int_equal(upload("POST", "v3/upload", 90), 200);
    expect_limit(upload("PUT", arena_cstr(w.ctx.arena, path), 11));
    assert_int_equal(upload("PUT", arena_cstr(w.ctx.arena, path), 10), 200);
}

#define LIVE(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIVE(an_upload_beyond_the_quota_is_refused_with_a_place_to_read_on),
        LIVE(one_of_untold_length_is_refused_at_its_end),
        LIVE(an_announced_file_is_refused_and_may_be_filled_with_less),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
