#include "homeserver/push/push_priv.h"

/* "https://gateway.example:8443/path" -> "https://gateway.example:8443" */
static struct slice authority_of(struct slice url)
{
    for (size_t i = 0; i + 2 < url.len; i++) {
        if (url.ptr[i] == ':' && url.ptr[i + 1] == '/' && url.ptr[i + 2] == '/') {
            struct slice rest = slice_from(url, i + 3);
            return slice_sub(url, 0, i + 3 + slice_find(rest, '/'));
        }
    }
    return url;
}

void push_read_pusher(struct arena *arena, const struct pusher *pusher,
                      struct pusher_data *data_out)
{
    struct json *json = arena_alloc(arena, sizeof *json);
    struct pusher_data data = {0};
    *data_out = data;
    if (json_parse(arena, pusher->json, json).code != 0) {
        return;
    }
    const struct json *kind = json_get(json, LIT("kind"));
    bool is_web = json_is_string(kind, LIT("webpush")) ||
                  json_is_string(kind, LIT("org.matrix.msc4174.webpush"));
    data.kind =
        is_web ? PUSHER_WEBPUSH : (json_is_string(kind, LIT("http")) ? PUSHER_HTTP : PUSHER_NONE);
    data.data = json_get_object(json, LIT("data"));
    data.url = json_get_string(data.data, LIT("url"));
    data.auth = json_get_string(data.data, LIT("auth"));
    data.event_id_only = json_is_string(json_get(data.data, LIT("format")), LIT("event_id_only"));
    data.gateway = authority_of(data.url);
    data.is_enabled = data.kind != PUSHER_NONE &&
                      json_get_bool(json, LIT("org.matrix.msc3881.enabled"), true) &&
                      (!is_web || json_get_bool(json, LIT("activated"), false));
    *data_out = data;
}
