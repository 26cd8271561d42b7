#include "federation/wellknown.h"

#include "spec/ids.h"

#include <string.h>
#include <time.h>

static const int64_t minute_ms = 60 * 1000;
static const int64_t hour_ms = 3600 * 1000;

enum { DATE_BYTES_MAX = 64 };

static bool parse_seconds(struct slice text, int64_t *ms_out)
{
    uint64_t seconds = 0;
    if (!slice_parse_u64(text, &seconds)) {
        return false;
    }
    *ms_out = seconds > (uint64_t)(INT64_MAX / 2000) ? INT64_MAX / 2 : (int64_t)seconds * 1000;
    return true;
}

/* Spec: RFC 9111, 5.2.2: s-maxage is for shared caches, which this one is not. */
static int64_t read_cache_control(struct slice value)
{
    int64_t lifetime_ms = -1;
    while (value.len) {
        struct slice part;
        struct slice name;
        value = slice_cut(value, ',', &part);
        struct slice argument = slice_trim(slice_cut(slice_trim(part), '=', &name));
        if (argument.len > 1 && argument.ptr[0] == '"') {
            argument = slice_sub(argument, 1, argument.len - 2);
        }
        name = slice_trim(name);
        if (slice_eq_nocase(name, LIT("no-store")) || slice_eq_nocase(name, LIT("no-cache"))) {
            return 0;
        }
        if (slice_eq_nocase(name, LIT("max-age"))) {
            parse_seconds(argument, &lifetime_ms);
        }
    }
    return lifetime_ms;
}

static int64_t read_expires(struct slice value, int64_t now_ms)
{
    char text[DATE_BYTES_MAX];
    struct tm fields = {0};
    if (value.len == 0 || value.len >= sizeof text) {
        return -1;
    }
    memcpy(text, value.ptr, value.len);
    text[value.len] = '\0';
    const char *end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &fields);
    if (!end || *end) {
        return 0; /* RFC 9111, 5.3: a malformed date counts as past */
    }
    int64_t left_ms = (int64_t)timegm(&fields) * 1000 - now_ms;
    return left_ms > 0 ? left_ms : 0;
}

int64_t wellknown_lifetime_ms(const struct http_fetch_reply *reply, int64_t now_wall_ms)
{
    struct slice control = http_fetch_header(reply, LIT("Cache-Control"));
    struct slice expires = http_fetch_header(reply, LIT("Expires"));
    int64_t lifetime_ms = read_cache_control(control);
    if (lifetime_ms < 0 && expires.ptr) {
        lifetime_ms = read_expires(expires, now_wall_ms);
    }
    return lifetime_ms;
}

int64_t wellknown_failure_ms(unsigned failures)
{
    int64_t keep_ms = minute_ms << (failures < 6 ? failures : 6);
    return keep_ms < hour_ms ? keep_ms : hour_ms;
}

static struct slice read_name(struct arena *arena, const struct http_fetch_reply *reply)
{
    struct json body;
    if (reply->status != 200 || json_parse(arena, reply->body, &body).code) {
        return (struct slice){0};
    }
    struct slice name =
        body.type == JSON_OBJECT ? json_get_string(&body, LIT("m.server")) : (struct slice){0};
    return ids_is_server_name(name) ? name : (struct slice){0};
}

struct wellknown wellknown_read(struct arena *arena, const struct http_fetch_reply *reply,
                                int64_t now_wall_ms, unsigned failures)
{
    struct wellknown found = {.delegated = read_name(arena, reply), .is_final = true};
    if (!found.delegated.ptr) {
        found.is_final = reply->status < 500 && reply->status != 429;
        found.keep_ms = wellknown_failure_ms(failures);
        return found;
    }
    /* The recommended default is 24 hours, the maximum 48; and not each request asks anew. */
    int64_t lifetime_ms = wellknown_lifetime_ms(reply, now_wall_ms);
    lifetime_ms = lifetime_ms < 0 ? 24 * hour_ms : lifetime_ms;
    lifetime_ms = lifetime_ms < 48 * hour_ms ? lifetime_ms : 48 * hour_ms;
    found.keep_ms = lifetime_ms > minute_ms ? lifetime_ms : minute_ms;
    return found;
}
