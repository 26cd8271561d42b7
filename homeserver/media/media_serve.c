/* Answering downloads. Spec: client-server, "Content repository", "Serving inline content". */
#include "crypto/token.h"
#include "homeserver/media/media_priv.h"

#include <ctype.h>
#include <string.h>

static const struct slice inline_types[] = {
    LIT("text/css"),         LIT("text/plain"),          LIT("text/csv"),
    LIT("application/json"), LIT("application/ld+json"), LIT("image/jpeg"),
    LIT("image/gif"),        LIT("image/png"),           LIT("image/apng"),
    LIT("image/webp"),       LIT("image/avif"),          LIT("video/mp4"),
    LIT("video/webm"),       LIT("video/ogg"),           LIT("video/quicktime"),
    LIT("audio/mp4"),        LIT("audio/webm"),          LIT("audio/aac"),
    LIT("audio/mpeg"),       LIT("audio/ogg"),           LIT("audio/wave"),
    LIT("audio/wav"),        LIT("audio/x-wav"),         LIT("audio/x-pn-wav"),
    LIT("audio/flac"),       LIT("audio/x-flac"),
};

/* The media type without its parameters. */
static struct slice bare_type(struct slice content_type)
{
    struct slice type;
    slice_cut(content_type, ';', &type);
    return slice_trim(type);
}

bool media_type_is_inline(struct slice content_type)
{
    struct slice type = bare_type(content_type);
    for (size_t i = 0; i < COUNT_OF(inline_types); i++) {
        if (slice_eq_nocase(type, inline_types[i])) {
            return true;
        }
    }
    return false;
}

static bool is_plain_name(struct slice name)
{
    bool good = true;
    for (size_t i = 0; good && i < name.len; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        good = c >= ' ' && c < 0x7f && c != '"' && c != '\\';
    }
    return good;
}

static void add_percent_encoded(struct buf *out, struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        if (isalnum(c) || (c != 0 && strchr("-._~", c))) {
            buf_add_byte(out, (char)c);
        } else {
            buf_printf(out, "%%%02X", c);
        }
    }
}

struct slice media_clean_type(struct slice content_type)
{
    bool good = content_type.len > 0 && content_type.len <= MEDIA_TYPE_BYTES_MAX &&
                slice_find(content_type, '/') < content_type.len;
    for (size_t i = 0; good && i < content_type.len; i++) {
        good = isprint((unsigned char)content_type.ptr[i]);
    }
    return good ? content_type : LIT("application/octet-stream");
}

static struct err parse_edge(struct ctx *ctx, const struct http_request *request, struct slice name,
                             uint32_t *edge_out)
{
    enum { EDGE_MAX = 100000 };
    int64_t edge = 0;
    TRY(http_query_int(ctx, request, name, 0, &edge));
    *edge_out = (uint32_t)edge;
    return edge > 0 && edge <= EDGE_MAX
               ? OK
               : err_public(ERR_M_INVALID_PARAM, "`width` and `height` must be positive numbers.");
}

struct err media_size_parse(struct ctx *ctx, const struct http_request *request,
                            struct media_size *size_out)
{
    struct slice method = http_query_get(ctx, request, LIT("method"));
    bool is_animated = false;
    *size_out = (struct media_size){0};
    TRY(parse_edge(ctx, request, LIT("width"), &size_out->width));
    TRY(parse_edge(ctx, request, LIT("height"), &size_out->height));
    TRY(http_query_bool(ctx, request, LIT("animated"), false, &is_animated));
    if (method.ptr && !slice_eq(method, LIT("crop")) && !slice_eq(method, LIT("scale"))) {
        return err_public(ERR_M_INVALID_PARAM, "`method` must be crop or scale.");
    }
    size_out->flags = (slice_eq(method, LIT("crop")) ? MEDIA_JOB_CROP : 0) |
                      (is_animated ? MEDIA_JOB_ANIMATED : 0);
    return OK;
}

struct slice media_clean_name(struct slice name)
{
    size_t len = name.len < MEDIA_NAME_BYTES_MAX ? name.len : MEDIA_NAME_BYTES_MAX;
    while (len > 0 && len < name.len && ((unsigned char)name.ptr[len] & 0xC0) == 0x80) {
        len--;
    }
    struct slice cut = slice_sub(name, 0, len);
    return slice_is_utf8(cut) ? cut : (struct slice){0};
}

struct slice media_disposition(struct arena *arena, struct slice content_type,
                               struct slice file_name)
{
    struct buf out;
    buf_init_arena(&out, arena, 8192);
    buf_add(&out, media_type_is_inline(content_type) ? LIT("inline") : LIT("attachment"));
    if (file_name.len > 0 && is_plain_name(file_name)) {
        buf_printf(&out, "; filename=\"%.*s\"", (int)file_name.len, file_name.ptr);
    } else if (file_name.len > 0) {
        buf_add(&out, LIT("; filename*=utf-8''"));
        add_percent_encoded(&out, file_name);
    }
    return buf_slice(&out);
}

static void add_headers(struct ctx *ctx, const struct media *media, const struct media_view *view,
                        struct http_reply *reply)
{
    struct slice name = view->file_name.len > 0 ? view->file_name : media->file_name;
    if (view->thumbnail.width) {
        name = LIT("thumbnail");
    }
    reply->content_type = media->content_type;
    http_reply_header(reply, LIT("Content-Disposition"),
                      media_disposition(ctx->arena, media->content_type, name));
    http_reply_header(reply, LIT("Content-Security-Policy"),
                      LIT("sandbox; default-src 'none'; script-src 'none'; "
                          "plugin-types application/pdf; style-src 'unsafe-inline'; "
                          "object-src 'self';"));
    http_reply_header(reply, LIT("Cross-Origin-Resource-Policy"), LIT("cross-origin"));
    http_reply_header(reply, LIT("X-Content-Type-Options"), LIT("nosniff"));
    http_reply_header(reply, LIT("Accept-Ranges"), LIT("bytes"));
}

/* The content of an id never changes, so the id is its validator. */
static struct slice etag_of(struct ctx *ctx, const struct media *media)
{
    return arena_printf(ctx->arena, "\"%.*s\"", (int)media->media_id.len, media->media_id.ptr);
}

static void add_caching(struct ctx *ctx, const struct media *media, struct http_reply *reply)
{
    http_reply_header(reply, LIT("ETag"), etag_of(ctx, media));
    http_reply_header(reply, LIT("Cache-Control"), LIT("private, max-age=86400, immutable"));
}

static void reply_outside(struct ctx *ctx, const struct media *media, struct http_reply *reply)
{
    http_reply_error(reply, err_public(ERR_M_UNKNOWN_400, "The range lies outside the file."),
                     (struct slice){0});
    reply->status = 416;
    http_reply_header(reply, LIT("Content-Range"),
                      arena_printf(ctx->arena, "bytes */%lld", (long long)media->bytes));
}

/* Spec: server-server, "Content Repository": metadata that is always empty, then the file. */
static void frame_parts(struct ctx *ctx, const struct media *media, const struct media_view *view,
                        struct http_reply *reply)
{
    struct slice boundary = token_random_letters(ctx->arena, 32);
    struct slice name = view->thumbnail.width ? LIT("thumbnail") : media->file_name;
    struct slice disposition = media_disposition(ctx->arena, media->content_type, name);
    struct slice type = media->content_type;
    reply->content_type =
        arena_printf(ctx->arena, "multipart/mixed; boundary=%.*s", (int)boundary.len, boundary.ptr);
    reply->file_head =
        arena_printf(ctx->arena,
                     "--%.*s\r\nContent-Type: application/json\r\n\r\n{}\r\n"
                     "--%.*s\r\nContent-Type: %.*s\r\nContent-Disposition: %.*s\r\n\r\n",
                     (int)boundary.len, boundary.ptr, (int)boundary.len, boundary.ptr,
                     (int)type.len, type.ptr, (int)disposition.len, disposition.ptr);
    reply->file_tail =
        arena_printf(ctx->arena, "\r\n--%.*s--\r\n", (int)boundary.len, boundary.ptr);
}

/* The whole file, or the part that was asked for. */
static struct err reply_file(struct hs *hs, struct ctx *ctx, const struct media *media,
                             const struct media_view *view, struct http_reply *reply)
{
    struct media_part part;
    bool found = false;
    int fd = -1;
    int64_t bytes = 0;
    enum media_range range = media_range_parse(view->range, media->bytes, &part);
    if (range == MEDIA_RANGE_OUTSIDE) {
        reply_outside(ctx, media, reply);
        return OK;
    }
    TRY(store_blob_open(hs->store, media->media_id, &fd, &bytes, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "The content of this media is gone.");
    }
    reply->file_fd = fd;
    reply->file_offset = part.offset;
    reply->file_bytes = part.bytes;
    if (view->is_multipart) {
        frame_parts(ctx, media, view, reply);
        return OK;
    }
    add_headers(ctx, media, view, reply);
    add_caching(ctx, media, reply);
    if (range == MEDIA_RANGE_PART) {
        reply->status = 206;
        http_reply_header(reply, LIT("Content-Range"),
                          arena_printf(ctx->arena, "bytes %lld-%lld/%lld", (long long)part.offset,
                                       (long long)(part.offset + part.bytes - 1),
                                       (long long)media->bytes));
    }
    return OK;
}

struct err media_answer(struct hs *hs, struct ctx *ctx, const struct media_view *view,
                        struct http_reply *reply)
{
    struct media media;
    bool found = false;
    TRY(media_find(hs, ctx, view->media_id, &media, &found));
    if (!found || media.is_quarantined) {
        return err_public(ERR_M_NOT_FOUND, "There is no media of this id.");
    }
    if (!media.is_ready) {
        return err_make(ERR_M_NOT_YET_UPLOADED, "announced media");
    }
    if (view->thumbnail.width) {
        struct media original = media;
        TRY(media_thumbnail_find(hs, ctx, &original, &view->thumbnail, &media));
    }
    if (media_etag_matches(view->if_none_match, etag_of(ctx, &media))) {
        add_caching(ctx, &media, reply);
        reply->status = 304;
        return OK;
    }
    return reply_file(hs, ctx, &media, view, reply);
}

struct err media_serve(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                       struct http_reply *reply, const struct media_view *view, int64_t timeout_ms)
{
    struct err err = media_answer(hs, ctx, view, reply);
    if (err.code != ERR_M_NOT_YET_UPLOADED || timeout_ms <= 0) {
        return err;
    }
    media_waits_park(hs->media_waits, ctx, request, reply, view, timeout_ms);
    return OK;
}
