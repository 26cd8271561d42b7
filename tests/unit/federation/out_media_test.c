/* Files of other servers. */
#include "homeserver/media/media.h"
#include "homeserver/service/remote.h"
#include "tests/support/street.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct street street;
static size_t file_bytes;

static int open_street(void **state)
{
    (void)state;
    street_open(&street);
    street.houses[1].hs.media_waits = media_waits_new(&street.houses[1].hs);
    return 0;
}

static int close_street(void **state)
{
    (void)state;
    media_waits_free(&street.houses[1].hs.media_waits);
    street_close(&street);
    return 0;
}

/* A file as it comes from its server, cut where the request bounds the answer. */
static bool give_file(struct street *s, size_t to, const struct http_fetch_request *request,
                      struct http_fetch_reply *reply)
{
    static const char head[] = "--b\r\n\r\n{}\r\n--b\r\nContent-Type: text/plain\r\n\r\n";
    struct buf body;
    (void)to;
    if (!slice_contains(request->url, LIT("/media/download/"))) {
        return false;
    }
    buf_init_arena(&body, s->houses[1].ctx.arena, SIZE_MAX / 2);
    buf_add(&body, slice_of(head));
    for (size_t i = 0; i < file_bytes; i++) {
        buf_add_byte(&body, 'x');
    }
    buf_add(&body, LIT("\r\n--b--\r\n"));
    size_t max = request->body_bytes_max ? request->body_bytes_max : 16 << 20;
    reply->status = body.len > max ? 413 : 200;
    reply->content_type = LIT("multipart/mixed; boundary=b");
    reply->body = body.len > max ? LIT("") : buf_slice(&body);
    return true;
}

static struct err fetch_file(struct media *media_out, bool *found_out)
{
    struct house *b = &street.houses[1];
    struct slice kept = media_remote_id(b->ctx.arena, street_name(0), LIT("file"));
    street.intercept = give_file;
    TRY(b->hs.remote->media(&b->hs, &b->ctx, street_name(0), LIT("file"), 1000));
    return media_find(&b->hs, &b->ctx, kept, media_out, found_out);
}

static void a_file_may_be_as_large_as_one_of_this_server(void **state)
{
    struct media media;
    bool found = false;
    (void)state;
    file_bytes = (size_t)street.houses[1].hs.conf->limits_upload_bytes;
    assert_true(file_bytes > 16 << 20);
    assert_int_equal(fetch_file(&media, &found).code, 0);
    assert_true(found);
    assert_int_equal(media.bytes, file_bytes);
}

static void a_larger_one_is_refused(void **state)
{
    struct media media;
    bool found = false;
    (void)state;
    file_bytes = (size_t)street.houses[1].hs.conf->limits_upload_bytes + 1;
    assert_int_equal(fetch_file(&media, &found).code, ERR_M_TOO_LARGE);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_street, close_street)
    const struct CMUnitTest tests[] = {
        TEST(a_file_may_be_as_large_as_one_of_this_server),
        TEST(a_larger_one_is_refused),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
