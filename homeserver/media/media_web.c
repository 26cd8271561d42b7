#include "homeserver/media/media_web.h"

#include "homeserver/http/fetch.h"
#include "homeserver/http/url.h"
#include "homeserver/room/glob.h"

#include <ctype.h>

enum { URL_BYTES_MAX = 4096, REDIRECTS_MAX = 5, SLACK_BYTES = 1 << 20 };

static bool is_listed(const struct conf_texts *list, struct slice host)
{
    bool found = false;
    for (size_t i = 0; !found && i < list->count; i++) {
        found = glob_matches(list->items[i], host);
    }
    return found;
}

static struct slice lower_case(struct arena *arena, struct slice text)
{
    char *lower = arena_cstr(arena, text);
    for (size_t i = 0; i < text.len; i++) {
        lower[i] = (char)tolower((unsigned char)lower[i]);
    }
    return (struct slice){lower, text.len};
}

struct err media_web_check(struct hs *hs, struct ctx *ctx, struct slice url, struct slice *url_out)
{
    struct slice clean = http_url_resolve(ctx->arena, url, url);
    struct slice lower = lower_case(ctx->arena, slice_sub(clean, 0, 8));
    bool is_web =
        slice_has_prefix(lower, LIT("http://")) || slice_has_prefix(lower, LIT("https://"));
    struct slice authority = http_url_authority(clean);
    struct slice host = lower_case(ctx->arena, http_url_without_port(authority));
    while (slice_has_suffix(host, LIT("."))) {
        host.len--;
    }
    if (!is_web || host.len == 0 || clean.len > URL_BYTES_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "`url` must be an http or https URL.");
    }
    bool is_refused = is_listed(&hs->conf->url_previews_deny_hosts, host) ||
                      (hs->conf->url_previews_allow_hosts.count > 0 &&
                       !is_listed(&hs->conf->url_previews_allow_hosts, host));
    *url_out = clean;
    return is_refused ? err_public(ERR_M_FORBIDDEN, "This server previews no pages of this host.")
                      : OK;
}

struct sink {
    const struct media_want *want;
    struct buf body;
    bool is_cut;
};

static struct err append(void *arg, struct slice bytes)
{
    struct sink *sink = arg;
    if (sink->want->upload) {
        return media_upload_append(sink->want->upload, bytes);
    }
    size_t room = (size_t)sink->want->bytes_max - sink->body.len;
    sink->is_cut = bytes.len > room;
    buf_add(&sink->body, slice_sub(bytes, 0, room));
    return sink->is_cut ? err_make(ERR_LIMIT, "enough of the page is here") : OK;
}

/* One request. */
static struct err get_once(struct hs *hs, struct ctx *ctx, struct sink *sink, struct slice url,
                           struct http_fetch_reply *reply_out)
{
    const struct conf *conf = hs->conf;
    const struct http_header headers[] = {
        {LIT("Accept"), sink->want->accept},
        {LIT("Accept-Language"), conf->url_previews_accept_language},
    };
    const struct http_fetch_request request = {
        .url = url,
        .headers = headers,
        .header_count = COUNT_OF(headers),
        .timeout_ms = conf->url_previews_timeout,
        .body_bytes_max = (size_t)sink->want->bytes_max + SLACK_BYTES,
        .flags = conf->network_allow_private_addresses ? HTTP_FETCH_ANY_ADDRESS : 0,
        .sink = append,
        .sink_arg = sink};
    struct err err = http_fetch(hs->fetcher, ctx, &request, reply_out);
    return sink->is_cut ? OK : err;
}

static bool is_redirect(int status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

struct err media_web_get(struct hs *hs, struct ctx *ctx, const struct media_want *want,
                         struct media_got *got_out)
{
    struct http_fetch_reply reply = {0};
    struct sink sink = {.want = want};
    struct slice url = want->url;
    buf_init_arena(&sink.body, ctx->arena, (size_t)want->bytes_max);
    for (int i = 0; i <= REDIRECTS_MAX; i++) {
        TRY(get_once(hs, ctx, &sink, url, &reply));
        struct slice location = http_fetch_header(&reply, LIT("Location"));
        if (!is_redirect(reply.status) || location.len == 0) {
            break;
        }
        TRY(media_web_check(hs, ctx, http_url_resolve(ctx->arena, url, location), &url));
    }
    if (reply.status / 100 != 2) {
        return err_make(ERR_UNAVAILABLE, "the page is not given out");
    }
    *got_out = (struct media_got){
        .url = url, .content_type = reply.content_type, .body = buf_slice(&sink.body)};
    return OK;
}
