/* Finds the route of a path: a tree over path segments. Segments are compared after
 * percent-decoding each by itself, so an encoded slash stays inside its segment. A fixed segment
 * goes before a parameter. An empty segment (`//` or a slash at the end) matches only where a route
 * spells it.
 * `/_matrix/client/r0/`, `/_matrix/media/r0/`, `/_matrix/media/v1/` (but for `create`) and
 * `/_matrix/client/unstable/` before `keys/` and `room_keys/` (older clients of cross-signing) are
 * read as `v3`. */
#pragma once
#include "homeserver/http/http.h"

struct http_router;

enum http_match {
    HTTP_MATCH_FOUND,
    HTTP_MATCH_NO_PATH,   /* 404 */
    HTTP_MATCH_NO_METHOD, /* 405 */
    HTTP_MATCH_BAD_PATH,  /* broken percent-encoding or not UTF-8: 400 */
};

/* The tables must stay; two routes with equal method and path are a fault. */
struct http_router *http_router_new(const struct http_route_table *tables, size_t table_count);
void http_router_free(struct http_router **router);
/* Decoded parameters live in the arena or borrow from `path`. HEAD finds GET routes. */
enum http_match http_router_find(const struct http_router *router, struct arena *arena,
                                 enum http_method method, struct slice path,
                                 const struct http_route **route_out,
                                 struct slice params_out[HTTP_PARAMS_MAX]);
/* Decodes %XX ('+' stays). Borrows when there is nothing to decode. False when malformed. */
bool http_decode_segment(struct arena *arena, struct slice raw, struct slice *text_out);
/* Decodes %XX and '+' (a space) of a query or form value. */
bool http_decode_query(struct arena *arena, struct slice raw, struct slice *text_out);
