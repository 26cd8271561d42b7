/* The text interface of meetings: versions are ETags. */
#include "homeserver/service/rendezvous.h"

#include "homeserver/client/routes_priv.h"
#include "spec/errcodes.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { LIFE_MS = 60000 };

static struct house h;
static struct http_reply reply;

static int setup(void **state)
{
    (void)state;
    house_open(&h);
    h.hs.rendezvous = hs_rendezvous_new(LIFE_MS);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    hs_rendezvous_free(&h.hs.rendezvous);
    house_close(&h);
    return 0;
}

struct asking {
    const char *id, *body, *type, *if_match, *if_none_match;
};

static struct slice text_of(const char *text)
{
    return text ? slice_of(text) : (struct slice){0};
}

static struct err ask(enum http_method method, struct asking asking)
{
    struct http_request request = {.params = {text_of(asking.id)},
                                   .body = text_of(asking.body),
                                   .content_type = text_of(asking.type),
                                   .if_match = text_of(asking.if_match),
                                   .if_none_match = text_of(asking.if_none_match)};
    reply = (struct http_reply){.file_fd = -1};
    buf_init_arena(&reply.body, h.ctx.arena, 1 << 16);
    for (size_t i = 0; i < cs_rendezvous_routes.count; i++) {
        const struct http_route *route = &cs_rendezvous_routes.routes[i];
        bool is_one = slice_has_suffix(slice_of(route->path), LIT("/{id}"));
        if (route->method == method && is_one == (asking.id != NULL) &&
            slice_contains(slice_of(route->path), LIT("msc4108"))) {
            return route->handler(&h.hs, &h.ctx, &request, &reply);
        }
    }
    return err_make(ERR_INTERNAL, "no such route");
}

static const char *header(const char *name)
{
    for (size_t i = 0; i < reply.header_count; i++) {
        if (slice_eq(reply.headers[i].name, slice_of(name))) {
            return arena_cstr(h.ctx.arena, reply.headers[i].value);
        }
    }
    return "";
}

/* Opens a meeting; its id. */
static const char *open_meeting(const char *body)
{
    struct json json;
    struct err err = ask(HTTP_POST, (struct asking){.body = body, .type = "text/plain"});
    assert_int_equal(err.code, 0);
    assert_int_equal(reply.status, 201);
    assert_int_equal(json_parse(h.ctx.arena, buf_slice(&reply.body), &json).code, 0);
    struct slice url = json_get_string(&json, LIT("url"));
    return arena_cstr(h.ctx.arena, slice_from(url, slice_find_last(url, '/') + 1));
}

static void the_etag_follows_the_content(void **state)
{
    (void)state;
    const char *id = open_meeting("one");
    const char *first = header("ETag");
    assert_int_equal(ask(HTTP_GET, (struct asking){.id = id}).code, 0);
    assert_string_equal(header("ETag"), first);
    assert_true(slice_eq(buf_slice(&reply.body), LIT("one")));
    assert_int_equal(ask(HTTP_GET, (struct asking){.id = id, .if_none_match = first}).code, 0);
    assert_int_equal(reply.status, 304);
    assert_int_equal(reply.body.len, 0);
    struct asking write = {.id = id, .body = "two", .type = "text/plain", .if_match = first};
    assert_int_equal(ask(HTTP_PUT, write).code, 0);
    assert_int_equal(reply.status, 202);
    assert_string_not_equal(header("ETag"), first);
    assert_int_equal(ask(HTTP_GET, (struct asking){.id = id, .if_none_match = first}).code, 0);
    assert_true(slice_eq(buf_slice(&reply.body), LIT("two")));
}

static void an_old_etag_overwrites_nothing(void **state)
{
    (void)state;
    const char *id = open_meeting("one");
    struct asking write = {.id = id, .body = "two", .type = "text/plain", .if_match = "\"old\""};
    assert_int_equal(ask(HTTP_PUT, write).code, ERR_M_CONCURRENT_WRITE_412);
    assert_int_equal(reply.status, 412);
    write.if_match = NULL;
    assert_int_equal(ask(HTTP_PUT, write).code, ERR_M_MISSING_PARAM);
    assert_int_equal(ask(HTTP_GET, (struct asking){.id = id}).code, 0);
    assert_true(slice_eq(buf_slice(&reply.body), LIT("one")));
}

static void a_meeting_ends(void **state)
{
    (void)state;
    const char *id = open_meeting("one");
    h.mono_ms += LIFE_MS - 1;
    assert_int_equal(ask(HTTP_GET, (struct asking){.id = id}).code, 0);
    h.mono_ms += 1;
    assert_int_equal(ask(HTTP_GET, (struct asking){.id = id}).code, ERR_M_NOT_FOUND);
    id = open_meeting("two");
    assert_int_equal(ask(HTTP_DELETE, (struct asking){.id = id}).code, 0);
    assert_int_equal(reply.status, 204);
    assert_int_equal(ask(HTTP_GET, (struct asking){.id = id}).code, ERR_M_NOT_FOUND);
}

static void what_is_no_text_is_refused(void **state)
{
    (void)state;
    assert_int_equal(ask(HTTP_POST, (struct asking){.body = "x"}).code, ERR_M_MISSING_PARAM);
    assert_int_equal(ask(HTTP_POST, (struct asking){.body = "x", .type = "image/png"}).code,
                     ERR_M_INVALID_PARAM);
}

static void there_are_only_so_many(void **state)
{
    (void)state;
    for (int i = 0; i < RENDEZVOUS_COUNT_MAX; i++) {
        open_meeting("x");
    }
    struct asking one_more = {.body = "x", .type = "text/plain"};
    assert_int_equal(ask(HTTP_POST, one_more).code, ERR_M_LIMIT_EXCEEDED);
    h.mono_ms += LIFE_MS;
    assert_int_equal(ask(HTTP_POST, one_more).code, 0);
}

static void strangers_open_none_unless_they_may(void **state)
{
    (void)state;
    h.conf.rendezvous_anonymous = false;
    struct asking asking = {.body = "x", .type = "text/plain"};
    assert_int_equal(ask(HTTP_POST, asking).code, ERR_M_FORBIDDEN);
    h.conf.rendezvous_enabled = false;
    assert_int_equal(ask(HTTP_POST, asking).code, ERR_M_UNRECOGNIZED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_etag_follows_the_content),
        TEST(an_old_etag_overwrites_nothing),
        TEST(a_meeting_ends),
        TEST(what_is_no_text_is_refused),
        TEST(there_are_only_so_many),
        TEST(strangers_open_none_unless_they_may),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
