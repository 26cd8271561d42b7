#include "homeserver/http/router.h"

#include "spec/errcodes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static const struct http_route routes[] = {
    {.method = HTTP_GET, .path = "/"},
    {.method = HTTP_GET, .path = "/_matrix/client/versions"},
    {.method = HTTP_GET, .path = "/_matrix/client/v3/rooms/{room}/state"},
    {.method = HTTP_GET, .path = "/_matrix/client/v3/rooms/{room}/state/{type}/{key}"},
    {.method = HTTP_GET, .path = "/_matrix/client/v3/rooms/{room}/state/{type}"},
    {.method = HTTP_GET, .path = "/_matrix/client/v3/rooms/{room}/state/{type}/"},
    {.method = HTTP_PUT, .path = "/_matrix/client/v3/rooms/{room}/state/{type}/{key}"},
    {.method = HTTP_GET, .path = "/a/fixed/{x}/end"},
    {.method = HTTP_GET, .path = "/a/{y}/b/other"},
};
static const struct http_route_table tables[] = {{routes, COUNT_OF(routes)}};

static const struct {
    const char *path;
    enum http_method method;
    enum http_match match;
    int route;
    const char *params[3];
} cases[] = {
    {"/", HTTP_GET, HTTP_MATCH_FOUND, 0, {0}},
    {"/_matrix/client/versions", HTTP_GET, HTTP_MATCH_FOUND, 1, {0}},
    {"/_matrix/client/versions", HTTP_HEAD, HTTP_MATCH_FOUND, 1, {0}},
    {"/_matrix/client/%76ersions", HTTP_GET, HTTP_MATCH_FOUND, 1, {0}},
    {"/_matrix/client/versions", HTTP_POST, HTTP_MATCH_NO_METHOD, 0, {0}},
    {"/_matrix/client/versions/", HTTP_GET, HTTP_MATCH_NO_PATH, 0, {0}},
    {"/_matrix/client", HTTP_GET, HTTP_MATCH_NO_PATH, 0, {0}},
    {"/_matrix/client/v3/rooms/!a:b/state", HTTP_GET, HTTP_MATCH_FOUND, 2, {"!a:b"}},
    {"/_matrix/client/v3/rooms/%21a%2Fb%3A/state/m.x/k+%2B",
     HTTP_GET,
     HTTP_MATCH_FOUND,
     3,
     {"!a/b:", "m.x", "k++"}},
    {"/_matrix/client/v3/rooms/r/state/t/k", HTTP_PUT, HTTP_MATCH_FOUND, 6, {"r", "t", "k"}},
    {"/_matrix/client/v3/rooms/r/state/t", HTTP_GET, HTTP_MATCH_FOUND, 4, {"r", "t"}},
    {"/_matrix/client/v3/rooms/r/state/t/", HTTP_GET, HTTP_MATCH_FOUND, 5, {"r", "t"}},
    {"/_matrix/client/v3/rooms//state/t", HTTP_GET, HTTP_MATCH_NO_PATH, 0, {0}},
    {"/_matrix/client/r0/rooms/r/state", HTTP_GET, HTTP_MATCH_FOUND, 2, {"r"}},
    {"/_matrix/federation/r0/rooms/r/state", HTTP_GET, HTTP_MATCH_NO_PATH, 0, {0}},
    {"/a/fixed/b/other", HTTP_GET, HTTP_MATCH_FOUND, 8, {"fixed"}},
    {"/a/fixed/b/end", HTTP_GET, HTTP_MATCH_FOUND, 7, {"b"}},
    {"/a/fixed/b/none", HTTP_GET, HTTP_MATCH_NO_PATH, 0, {0}},
    {"/a/%zz/b/other", HTTP_GET, HTTP_MATCH_BAD_PATH, 0, {0}},
    {"/a/%4/b/other", HTTP_GET, HTTP_MATCH_BAD_PATH, 0, {0}},
    {"/a/%FF/b/other", HTTP_GET, HTTP_MATCH_BAD_PATH, 0, {0}},
    {"/a/%", HTTP_GET, HTTP_MATCH_BAD_PATH, 0, {0}},
    {"", HTTP_GET, HTTP_MATCH_NO_PATH, 0, {0}},
    {"*", HTTP_OPTIONS, HTTP_MATCH_NO_PATH, 0, {0}},
};

static void paths_find_their_routes(void **state)
{
    struct http_router *router = http_router_new(tables, 1);
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct arena *arena = arena_new();
        const struct http_route *route = NULL;
        struct slice params[HTTP_PARAMS_MAX] = {0};
        enum http_match match = http_router_find(router, arena, cases[i].method,
                                                 slice_of(cases[i].path), &route, params);
        bool good = match == cases[i].match &&
                    (match != HTTP_MATCH_FOUND || route == &routes[cases[i].route]);
        for (size_t j = 0; j < 3 && cases[i].params[j]; j++) {
            good = good && slice_eq(params[j], slice_of(cases[i].params[j]));
        }
        if (!good) {
            fail_msg("%s: match %d, route %s", cases[i].path, (int)match,
                     route ? route->path : "none");
        }
        arena_free(&arena);
    }
    http_router_free(&router);
    assert_null(router);
}

static void queries_are_decoded(void **state)
{
    struct arena *arena = arena_new();
    struct ctx ctx = {.arena = arena};
    struct http_request request = {.query = LIT("a=1&via=x%20y&empty=&via=z+w&flag=true&%61b=c"
                                                "&bad=%ZZ&ugly=%FF&n=-1&big=99999999999999999999")};
    struct slice values[3];
    int64_t number = 0;
    bool flag = false;
    (void)state;
    assert_true(slice_eq(http_query_get(&ctx, &request, LIT("via")), LIT("x y")));
    assert_int_equal(http_query_all(&ctx, &request, LIT("via"), values, 3), 2);
    assert_true(slice_eq(values[1], LIT("z w")));
    assert_true(slice_eq(http_query_get(&ctx, &request, LIT("ab")), LIT("c")));
    assert_non_null(http_query_get(&ctx, &request, LIT("empty")).ptr);
    assert_null(http_query_get(&ctx, &request, LIT("absent")).ptr);
    assert_null(http_query_get(&ctx, &request, LIT("bad")).ptr);
    assert_null(http_query_get(&ctx, &request, LIT("ugly")).ptr);
    assert_int_equal(http_query_int(&ctx, &request, LIT("a"), 7, &number).code, 0);
    assert_int_equal(number, 1);
    assert_int_equal(http_query_int(&ctx, &request, LIT("absent"), 7, &number).code, 0);
    assert_int_equal(number, 7);
    struct err err = http_query_int(&ctx, &request, LIT("n"), 7, &number);
    assert_int_equal(err.code, ERR_M_INVALID_PARAM);
    err = http_query_int(&ctx, &request, LIT("big"), 7, &number);
    assert_int_equal(err.code, ERR_M_INVALID_PARAM);
    assert_int_equal(http_query_bool(&ctx, &request, LIT("flag"), false, &flag).code, 0);
    assert_true(flag);
    err = http_query_bool(&ctx, &request, LIT("a"), false, &flag);
    assert_int_equal(err.code, ERR_M_INVALID_PARAM);
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_find_their_routes),
        cmocka_unit_test(queries_are_decoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
