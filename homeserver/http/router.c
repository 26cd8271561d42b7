#include "homeserver/http/router.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <string.h>

enum { SEGMENTS_MAX = 24, METHODS = HTTP_OPTIONS + 1 };

struct node {
    struct map *fixed; /* segment -> node */
    struct node *param;
    const struct http_route *routes[METHODS];
    bool is_end; /* some method has a route here */
};

struct http_router {
    struct node root;
};

/* One step of the search: at which node we are and which of its children have been tried. */
struct step {
    const struct node *node;
    bool took_fixed, took_param;
    uint8_t params;
};

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool decode(struct arena *arena, struct slice raw, bool plus, struct slice *text_out)
{
    char *to = arena_alloc(arena, raw.len + 1);
    size_t len = 0;
    for (size_t i = 0; i < raw.len; i++) {
        char c = raw.ptr[i];
        if (c == '%') {
            int high = i + 2 < raw.len ? hex_value(raw.ptr[i + 1]) : -1;
            int low = i + 2 < raw.len ? hex_value(raw.ptr[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return false;
            }
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        to[len++] = c;
    }
    *text_out = (struct slice){to, len};
    return slice_is_utf8(*text_out);
}

bool http_decode_segment(struct arena *arena, struct slice raw, struct slice *text_out)
{
    if (!raw.len || !memchr(raw.ptr, '%', raw.len)) {
        *text_out = raw;
        return slice_is_utf8(raw);
    }
    return decode(arena, raw, false, text_out);
}

bool http_decode_query(struct arena *arena, struct slice raw, struct slice *text_out)
{
    bool plain = !raw.len || (!memchr(raw.ptr, '%', raw.len) && !memchr(raw.ptr, '+', raw.len));
    if (plain) {
        *text_out = (struct slice){raw.ptr ? raw.ptr : "", raw.len};
        return slice_is_utf8(raw);
    }
    return decode(arena, raw, true, text_out);
}

static struct node *child_for(struct node *node, struct slice segment)
{
    if (segment.len && segment.ptr[0] == '{') {
        if (!node->param) {
            node->param = mem_alloc(sizeof *node->param);
        }
        return node->param;
    }
    if (!node->fixed) {
        node->fixed = map_new();
    }
    struct node *child = map_get_ptr(node->fixed, segment);
    if (!child) {
        child = mem_alloc(sizeof *child);
        map_set_ptr(node->fixed, segment, child);
    }
    return child;
}

static void add_route(struct http_router *router, const struct http_route *route)
{
    struct node *node = &router->root;
    struct slice rest = slice_from(slice_of(route->path), 1);
    size_t params = 0;
    ASSERT(route->path[0] == '/');
    while (rest.ptr) {
        struct slice segment;
        rest = slice_cut(rest, '/', &segment);
        params += segment.len && segment.ptr[0] == '{';
        node = child_for(node, segment);
    }
    ASSERT(params <= HTTP_PARAMS_MAX);
    ASSERT(!node->routes[route->method]);
    node->routes[route->method] = route;
    node->is_end = true;
}

struct http_router *http_router_new(const struct http_route_table *tables, size_t table_count)
{
    struct http_router *router = mem_alloc(sizeof *router);
    for (size_t i = 0; i < table_count; i++) {
        for (size_t j = 0; j < tables[i].count; j++) {
            add_route(router, &tables[i].routes[j]);
        }
    }
    return router;
}

/* Depth is the longest path of the route tables, not of any input. */
static void free_children(struct node *node)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (node->fixed && map_next(node->fixed, &cursor, &key, &value)) {
        struct node *child = (struct node *)(uintptr_t)value;
        free_children(child);
        mem_free(child);
    }
    map_free(&node->fixed);
    if (node->param) {
        free_children(node->param);
        mem_free(node->param);
    }
}

void http_router_free(struct http_router **router)
{
    if (*router) {
        free_children(&(*router)->root);
        mem_free(*router);
        *router = NULL;
    }
}

/* Whether four or more segments spell a path of v3 as it was before: client and media had r0, media
 * a v1, of which `create` alone is of today, and keys were unstable. */
static bool is_old_spelling(const struct slice *segments)
{
    bool media = slice_eq(segments[1], LIT("media"));
    if (!slice_eq(segments[0], LIT("_matrix")) ||
        (!media && !slice_eq(segments[1], LIT("client")))) {
        return false;
    }
    if (!media && slice_eq(segments[2], LIT("unstable"))) {
        return slice_eq(segments[3], LIT("keys")) || slice_eq(segments[3], LIT("room_keys"));
    }
    return slice_eq(segments[2], LIT("r0")) ||
           (media && slice_eq(segments[2], LIT("v1")) && !slice_eq(segments[3], LIT("create")));
}

static enum http_match split(struct arena *arena, struct slice path, struct slice *segments,
                             size_t *count_out)
{
    if (!path.len || path.ptr[0] != '/') {
        return HTTP_MATCH_NO_PATH;
    }
    struct slice rest = slice_from(path, 1);
    size_t count = 0;
    rest.ptr = path.ptr + 1; /* "/" has one empty segment */
    while (rest.ptr) {
        struct slice raw;
        rest = slice_cut(rest, '/', &raw);
        if (count == SEGMENTS_MAX) {
            return HTTP_MATCH_NO_PATH;
        }
        if (!http_decode_segment(arena, raw, &segments[count])) {
            return HTTP_MATCH_BAD_PATH;
        }
        count++;
    }
    if (count > 3 && is_old_spelling(segments)) {
        segments[2] = LIT("v3");
    }
    *count_out = count;
    return HTTP_MATCH_FOUND;
}

/* Depth-first with an explicit stack of one step per segment: fixed child first, then parameter. */
static const struct node *walk(const struct http_router *router, const struct slice *segments,
                               size_t count, struct slice *params)
{
    struct step steps[SEGMENTS_MAX + 1] = {{.node = &router->root}};
    const struct node *child = NULL;
    size_t at = 0;
    for (;;) {
        struct step *step = &steps[at];
        if (at == count && step->node->is_end) {
            return step->node;
        }
        child = NULL;
        if (at < count && !step->took_fixed) {
            step->took_fixed = true;
            child = step->node->fixed ? map_get_ptr(step->node->fixed, segments[at]) : NULL;
            if (!child) {
                continue;
            }
            steps[at + 1] = (struct step){.node = child, .params = step->params};
        } else if (at < count && !step->took_param && step->node->param && segments[at].len) {
            step->took_param = true;
            child = step->node->param;
            params[step->params] = segments[at];
            steps[at + 1] = (struct step){.node = child, .params = (uint8_t)(step->params + 1)};
        }
        if (child) {
            at++;
        } else if (at == 0) {
            return NULL;
        } else {
            at--;
        }
    }
}

enum http_match http_router_find(const struct http_router *router, struct arena *arena,
                                 enum http_method method, struct slice path,
                                 const struct http_route **route_out,
                                 struct slice params_out[HTTP_PARAMS_MAX])
{
    struct slice segments[SEGMENTS_MAX];
    size_t count = 0;
    enum http_match match = split(arena, path, segments, &count);
    if (match != HTTP_MATCH_FOUND) {
        return match;
    }
    const struct node *node = walk(router, segments, count, params_out);
    if (!node) {
        return HTTP_MATCH_NO_PATH;
    }
    *route_out = node->routes[method];
    if (!*route_out && method == HTTP_HEAD) {
        *route_out = node->routes[HTTP_GET];
    }
    return *route_out ? HTTP_MATCH_FOUND : HTTP_MATCH_NO_METHOD;
}
