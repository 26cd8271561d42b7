#include "homeserver/http/url.h"

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
