#include "homeserver/http/url.h"

#include "homeserver/base/buf.h"

#include <ctype.h>
#include <string.h>

struct slice http_url_authority(struct slice url)
{
    size_t scheme = slice_contains(url, LIT("://")) ? slice_find(url, ':') + 3 : 0;
    struct slice rest = slice_from(url, scheme);
    size_t end = 0;
    while (end < rest.len && !memchr("/?#", rest.ptr[end], 3)) {
        end++;
    }
    rest = slice_sub(rest, 0, end);
    size_t at = slice_find_last(rest, '@');
    return at < rest.len ? slice_from(rest, at + 1) : rest;
}

struct slice http_url_without_port(struct slice host)
{
    if (host.len && host.ptr[0] == '[') {
        return slice_sub(host, 0, slice_find(host, ']') + 1);
    }
    return slice_sub(host, 0, slice_find(host, ':'));
}

bool http_url_is_literal(struct slice host, struct http_address *address_out)
{
    bool bracketed = host.len > 2 && host.ptr[0] == '[';
    host = bracketed ? slice_sub(host, 1, host.len - 2) : host;
    return http_address_parse(host, address_out);
}

/* The bytes of a scheme with its colon, none when there is no scheme. */
static size_t scheme_bytes(struct slice reference)
{
    size_t i = 0;
    while (i < reference.len &&
           (isalnum((unsigned char)reference.ptr[i]) || memchr("+-.", reference.ptr[i], 3))) {
        i++;
    }
    bool good = i > 0 && i < reference.len && reference.ptr[i] == ':' &&
                isalpha((unsigned char)reference.ptr[0]);
    return good ? i + 1 : 0;
}

/* Up to the first of these bytes. */
static struct slice before(struct slice s, const char *ends, size_t count)
{
    size_t i = 0;
    while (i < s.len && !memchr(ends, s.ptr[i], count)) {
        i++;
    }
    return slice_sub(s, 0, i);
}

static struct slice encode(struct arena *arena, struct slice url)
{
    struct buf out;
    buf_init_arena(&out, arena, url.len * 3 + 1);
    for (size_t i = 0; i < url.len; i++) {
        unsigned char c = (unsigned char)url.ptr[i];
        if (c <= ' ' || c >= 0x7f || memchr("\"<>\\^`{|}", c, 9)) {
            buf_printf(&out, "%%%02X", c);
        } else {
            buf_add_byte(&out, (char)c);
        }
    }
    return buf_slice(&out);
}

struct slice http_url_resolve(struct arena *arena, struct slice base, struct slice reference)
{
    struct slice to = before(slice_trim(reference), "#", 1);
    struct slice scheme = slice_sub(base, 0, scheme_bytes(base));
    struct slice rest = slice_from(base, scheme.len + 2); /* behind the "//" */
    struct slice root = slice_sub(base, 0, scheme.len + 2 + before(rest, "/?#", 3).len);
    struct slice path = before(slice_from(base, root.len), "?#", 2);
    struct slice from = {0};
    if (scheme_bytes(to)) {
        from = (struct slice){0};
    } else if (slice_has_prefix(to, LIT("//"))) {
        from = scheme;
    } else if (slice_has_prefix(to, LIT("/"))) {
        from = root;
    } else if (slice_has_prefix(to, LIT("?")) || to.len == 0) {
        from = slice_sub(base, 0, root.len + path.len);
    } else {
        size_t slash = slice_find_last(path, '/');
        from = slash < path.len ? slice_sub(base, 0, root.len + slash + 1)
                                : arena_concat(arena, root, LIT("/"));
    }
    return encode(arena, arena_concat(arena, from, to));
}
