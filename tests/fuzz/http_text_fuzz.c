/* What comes decoded out of paths and queries is UTF-8; forwarded addresses are addresses. */
#include "homeserver/http/cidr.h"
#include "homeserver/http/priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct http_route routes[] = {{.path = "/{a}/b/{c}"}, {.path = "/{a}/{b}/d"}};
    static const struct http_route_table table = {routes, COUNT_OF(routes)};
    static const struct slice trusted[] = {{"127.0.0.1", 9}};
    struct arena *arena = arena_new();
    struct ctx ctx = {.arena = arena};
    struct slice text = {(const char *)data, size};
    struct http_request request = {.query = text};
    struct http_router *router = http_router_new(&table, 1);
    if (http_router_find(router, arena, HTTP_GET, text, &request.route, request.params) ==
        HTTP_MATCH_FOUND) {
        ASSERT(slice_is_utf8(request.params[0]) && slice_is_utf8(request.params[1]));
    }
    ASSERT(slice_is_utf8(http_query_get(&ctx, &request, LIT("a"))));
    struct slice from = http_address_forwarded(trusted[0], text, trusted, 1);
    struct http_address address;
    ASSERT(http_address_parse(from, &address));
    http_router_free(&router);
    arena_free(&arena);
    return 0;
}
