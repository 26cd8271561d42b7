/* Previews of pages: fetched here, read by a helper, kept for a while with their picture.
 * Spec: client-server, "Content repository". */
#include "crypto/sha256.h"
#include "homeserver/http/url.h"
#include "homeserver/media/media_sandbox.h"
#include "homeserver/media/media_web.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ROW_VERSION = 1, JSON_BYTES_MAX = 1 << 18, OEMBED_BYTES_MAX = 1 << 18, DROPPED_AT_ONCE = 8 };
/* A page that could not be had is not asked for again for so long. */
enum { FAILURE_LIFE_MS = 300000 };
/* Pictures stay for those who saw the preview. */
#define KEPT_MS (INT64_C(7) * 24 * 3600 * 1000)

/* --- what is kept: one object; "u" hash -> the preview; "e" when it is dropped, hash -> the id of
 * its picture, or nothing. `%` is no character of a media id. --- */

struct kept {
    bool failed;
    int64_t fresh_until_ms, dropped_ms;
    struct slice json;
};

static struct store_object kept_object(void)
{
    return (struct store_object){STORE_MEDIA, LIT("%previews")};
}

static struct slice kept_key(struct ctx *ctx, struct slice url)
{
    struct sha256 hash = sha256_of(url);
    return arena_concat(ctx->arena, LIT("u"), sha256_slice(&hash));
}

static struct slice drop_key(struct ctx *ctx, int64_t dropped_ms, struct slice key)
{
    struct buf out;
    buf_init_arena(&out, ctx->arena, 128);
    buf_add_byte(&out, 'e');
    pack_be64(&out, (uint64_t)dropped_ms);
    buf_add(&out, key);
    return buf_slice(&out);
}

static struct slice encode(struct ctx *ctx, const struct kept *kept)
{
    struct buf out;
    buf_init_arena(&out, ctx->arena, JSON_BYTES_MAX + 64);
    pack_u64(&out, ROW_VERSION);
    pack_u64(&out, kept->failed);
    pack_i64(&out, kept->fresh_until_ms);
    pack_i64(&out, kept->dropped_ms);
    pack_bytes(&out, kept->json);
    return buf_slice(&out);
}

static struct err load(struct hs *hs, struct ctx *ctx, struct slice key, struct kept *kept_out,
                       bool *found_out)
{
    struct slice row;
    TRY(store_get(hs->store, ctx, kept_object(), key, &row, found_out));
    if (!*found_out) {
        return OK;
    }
    struct unpack in = unpack_of(row);
    uint64_t version = unpack_u64(&in);
    *kept_out = (struct kept){.failed = unpack_u64(&in) != 0};
    kept_out->fresh_until_ms = unpack_i64(&in);
    kept_out->dropped_ms = unpack_i64(&in);
    kept_out->json = unpack_bytes(&in);
    TRY(unpack_check(&in));
    return version == ROW_VERSION ? OK : err_make(ERR_CORRUPT, "a preview of another form");
}

/* One that is over, with its picture; a newer one of the same page stays. */
static struct err drop_one(struct hs *hs, struct ctx *ctx, const struct store_row *row)
{
    struct kept kept = {0};
    bool found = false;
    struct unpack in = unpack_of(slice_from(row->key, 1));
    int64_t dropped_ms = (int64_t)unpack_be64(&in);
    struct store_update *update = store_update_new(ctx, kept_object());
    if (row->value.len) {
        TRY(media_delete(hs, ctx, row->value));
    }
    TRY(load(hs, ctx, in.rest, &kept, &found));
    store_delete(update, row->key);
    if (found && kept.dropped_ms == dropped_ms) {
        store_delete(update, in.rest);
    }
    return store_write(hs->store, ctx, &update, 1);
}

static struct err drop_old(struct hs *hs, struct ctx *ctx)
{
    struct store_rows rows;
    const struct store_range range = {.from = LIT("e"),
                                      .to = drop_key(ctx, now_wall_ms(ctx->now), LIT("")),
                                      .limit = DROPPED_AT_ONCE};
    TRY(store_read_range(hs->store, ctx, kept_object(), range, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        TRY(drop_one(hs, ctx, &rows.rows[i]));
    }
    return OK;
}

static struct err keep(struct hs *hs, struct ctx *ctx, struct slice key, struct kept *kept,
                       struct slice image_id)
{
    int64_t now_ms = now_wall_ms(ctx->now);
    int64_t life_ms = kept->failed ? FAILURE_LIFE_MS : hs->conf->url_previews_life;
    struct store_update *update = store_update_new(ctx, kept_object());
    kept->fresh_until_ms = now_ms + life_ms;
    kept->dropped_ms = kept->fresh_until_ms + (image_id.len ? KEPT_MS : 0);
    store_put(update, key, encode(ctx, kept));
    store_put(update, drop_key(ctx, kept->dropped_ms, key), image_id);
    TRY(drop_old(hs, ctx));
    return store_write(hs->store, ctx, &update, 1);
}

/* --- pages --- */

/* What is said of a page, in the order it was found. */
struct preview {
    struct hs *hs;
    struct ctx *ctx;
    struct slice url; /* where the page is */
    struct slice base, image, oembed;
    bool has_title;
    struct buf json;
    struct json_out out;
    struct media media; /* the picture; no id = none */
};

static bool is_plain_name(struct slice name)
{
    bool good = name.len > 3 && name.len <= 64;
    for (size_t i = 0; good && i < name.len; i++) {
        char c = name.ptr[i];
        good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == ':' || c == '_' || c == '-';
    }
    return good;
}

/* What the helper found; it may be anybody's word. The picture is told of by what it is. */
static void take_field(struct preview *preview, struct slice name, struct slice value)
{
    if (!slice_is_utf8(value)) {
        return;
    }
    if (slice_eq(name, LIT("image"))) {
        preview->image = value;
    } else if (slice_eq(name, LIT("base"))) {
        preview->base = value;
    } else if (slice_eq(name, LIT("oembed"))) {
        preview->oembed = value;
    } else if (slice_has_prefix(name, LIT("og:")) && is_plain_name(name) &&
               !slice_has_prefix(name, LIT("og:image"))) {
        preview->has_title = preview->has_title || slice_eq(name, LIT("og:title"));
        json_out_key_string(&preview->out, name, value);
    }
}

/* The bytes as a file without a name. */
static int file_of(struct slice bytes)
{
    int fd = memfd_create("page", MFD_CLOEXEC);
    while (fd >= 0 && bytes.len) {
        ssize_t written = write(fd, bytes.ptr, bytes.len);
        if (written <= 0) {
            close(fd);
            fd = -1;
            break;
        }
        bytes = slice_from(bytes, (size_t)written);
    }
    return fd;
}

/* The charset parameter of a Content-Type. */
static struct slice charset_of(struct slice content_type)
{
    struct slice part;
    struct slice rest = slice_cut(content_type, ';', &part);
    while (rest.ptr) {
        rest = slice_cut(rest, ';', &part);
        part = slice_trim(part);
        if (slice_eq_nocase(slice_sub(part, 0, 8), LIT("charset="))) {
            struct slice value = slice_from(part, 8);
            bool is_quoted = value.len > 2 && value.ptr[0] == '"';
            return is_quoted ? slice_sub(value, 1, value.len - 2) : value;
        }
    }
    return (struct slice){0};
}

static struct err read_page(struct preview *preview, const struct media_got *got)
{
    const struct media_job job = {.kind = MEDIA_JOB_PAGE, .charset = charset_of(got->content_type)};
    struct media_reply reply;
    int fd = file_of(got->body);
    if (fd < 0) {
        return err_make(ERR_IO, "no memory file for a page");
    }
    struct err err = media_sandbox_run(preview->hs->sandbox, preview->ctx, &job, fd, &reply);
    close(fd);
    TRY(err);
    struct unpack in = unpack_of(reply.bytes);
    while (in.rest.len && !in.bad) {
        struct slice name = unpack_bytes(&in);
        struct slice value = unpack_bytes(&in);
        if (!in.bad) {
            take_field(preview, name, value);
        }
    }
    return OK;
}

/* Where a reference of the page leads; empty when no such place is fetched from. */
static struct slice place_of(struct preview *preview, struct slice reference)
{
    struct arena *arena = preview->ctx->arena;
    struct slice base = preview->url;
    struct slice place = {0};
    if (preview->base.len) {
        base = http_url_resolve(arena, base, preview->base);
    }
    struct slice url = http_url_resolve(arena, base, reference);
    struct err err = media_web_check(preview->hs, preview->ctx, url, &place);
    return err.code ? (struct slice){0} : place;
}

/* Pages that say nothing of themselves but where that is said. */
static void read_oembed(struct preview *preview)
{
    struct json body = {0};
    struct media_got got;
    const struct media_want want = {.url = place_of(preview, preview->oembed),
                                    .accept = LIT("application/json"),
                                    .bytes_max = OEMBED_BYTES_MAX};
    struct err err = want.url.len ? media_web_get(preview->hs, preview->ctx, &want, &got)
                                  : err_make(ERR_UNAVAILABLE, "not fetched from");
    err = err.code ? err : json_parse(preview->ctx->arena, got.body, &body);
    if (err.code) {
        return;
    }
    struct slice title = json_get_string(&body, LIT("title"));
    struct slice site = json_get_string(&body, LIT("provider_name"));
    struct slice image = json_get_string(&body, LIT("thumbnail_url"));
    if (title.len) {
        take_field(preview, LIT("og:title"), title);
    }
    if (site.len) {
        take_field(preview, LIT("og:site_name"), site);
    }
    preview->image = preview->image.len ? preview->image : image;
}

/* --- pictures --- */

/* Whether it is one that clients can show, and how large. */
static struct err measure(struct preview *preview, struct media *media, struct media_reply *reply)
{
    struct hs *hs = preview->hs;
    const struct media_job job = {.kind = MEDIA_JOB_PROBE,
                                  .pixels_max = (uint64_t)hs->conf->media_pixels_max};
    int fd = -1;
    int64_t bytes = 0;
    bool found = false;
    TRY(store_blob_open(hs->store, media->media_id, &fd, &bytes, &found));
    if (!found) {
        return err_make(ERR_CORRUPT, "a picture is gone at once");
    }
    struct err err = media_sandbox_run(hs->sandbox, preview->ctx, &job, fd, reply);
    close(fd);
    return err;
}

static void write_image(struct preview *preview, const struct media_reply *shape)
{
    struct slice server = preview->hs->server_name;
    struct slice id = preview->media.media_id;
    struct json_out *out = &preview->out;
    json_out_key_string(out, LIT("og:image"),
                        arena_printf(preview->ctx->arena, "mxc://%.*s/%.*s", (int)server.len,
                                     server.ptr, (int)id.len, id.ptr));
    json_out_key_string(out, LIT("og:image:type"), preview->media.content_type);
    json_out_key_int(out, LIT("og:image:width"), shape->width);
    json_out_key_int(out, LIT("og:image:height"), shape->height);
    json_out_key_int(out, LIT("matrix:image:size"), preview->media.bytes);
}

/* The bytes become a file of this server under the draft's id. */
static struct err fetch_image(struct preview *preview, struct slice url, struct media *draft)
{
    struct media_got got;
    struct media_upload upload;
    const struct media_want want = {.url = url,
                                    .accept = LIT("image/png,image/jpeg,image/webp,image/gif"),
                                    .bytes_max = preview->hs->conf->url_previews_image_bytes,
                                    .upload = &upload};
    TRY(media_upload_begin(preview->hs, &upload));
    upload.bytes_max = want.bytes_max;
    struct err err = media_web_get(preview->hs, preview->ctx, &want, &got);
    if (err.code) {
        media_upload_abort(&upload);
        return err;
    }
    draft->bytes = upload.bytes;
    return media_upload_finish_remote(preview->hs, preview->ctx, &upload, draft);
}

/* A preview without its picture is one, too. */
static void add_image(struct preview *preview, struct slice url)
{
    struct hs *hs = preview->hs;
    struct media_reply shape = {.result = MEDIA_RESULT_NONE};
    struct media media = {.media_id = media_new_id(preview->ctx),
                          .content_type = LIT("application/octet-stream")};
    struct err err = fetch_image(preview, url, &media);
    if (err.code) {
        log_debug(hs->log, "preview_image_failed", .err = slice_of(err.text));
        return;
    }
    err = measure(preview, &media, &shape);
    if (!err.code && shape.result == MEDIA_RESULT_ORIGINAL) {
        media.content_type = media_format_type(shape.format);
        err = media_set_type(hs, preview->ctx, media.media_id, media.content_type);
    }
    if (err.code || shape.result != MEDIA_RESULT_ORIGINAL) {
        err = media_delete(hs, preview->ctx, media.media_id);
    } else {
        preview->media = media;
        write_image(preview, &shape);
    }
    if (err.code) {
        log_warn(hs->log, "preview_image_left_over", .err = slice_of(err.text));
    }
}

/* --- the whole --- */

static bool has_type(struct slice content_type, struct slice prefix)
{
    return slice_eq_nocase(slice_sub(slice_trim(content_type), 0, prefix.len), prefix);
}

static struct err look(struct preview *preview)
{
    struct media_got got;
    const struct media_want want = {
        .url = preview->url,
        .accept = LIT("text/html,application/xhtml+xml,image/*;q=0.9,*/*;q=0.5"),
        .bytes_max = preview->hs->conf->url_previews_page_bytes};
    TRY(media_web_get(preview->hs, preview->ctx, &want, &got));
    preview->url = got.url;
    json_out_object(&preview->out);
    if (has_type(got.content_type, LIT("image/"))) {
        preview->image = got.url;
    } else if (has_type(got.content_type, LIT("text/html")) ||
               has_type(got.content_type, LIT("application/xhtml+xml"))) {
        TRY(read_page(preview, &got));
    }
    if (preview->oembed.len && (!preview->has_title || !preview->image.len)) {
        read_oembed(preview);
    }
    struct slice image = preview->image.len ? place_of(preview, preview->image) : preview->image;
    if (image.len) {
        add_image(preview, image);
    }
    json_out_object_end(&preview->out);
    return buf_check(&preview->json);
}

static struct err cannot(void)
{
    return err_public(ERR_M_REMOTE, "The page could not be fetched.");
}

static struct err make(struct hs *hs, struct ctx *ctx, struct slice url, struct slice *json_out)
{
    struct preview preview = {.hs = hs, .ctx = ctx, .url = url};
    struct kept kept = {0};
    buf_init_arena(&preview.json, ctx->arena, JSON_BYTES_MAX);
    preview.out = json_out_to(&preview.json);
    struct err err = look(&preview);
    if (err.code == ERR_CANCELLED || err.code == ERR_IO) {
        return err;
    }
    kept.failed = err.code != 0;
    kept.json = kept.failed ? LIT("{}") : buf_slice(&preview.json);
    TRY(keep(hs, ctx, kept_key(ctx, url), &kept, preview.media.media_id));
    *json_out = kept.json;
    if (!kept.failed) {
        return OK;
    }
    log_debug(hs->log, "preview_failed", .err = slice_of(err.text));
    return err.code == ERR_M_FORBIDDEN ? err : cannot();
}

static struct err find(struct hs *hs, struct ctx *ctx, struct slice url, struct slice *json_out,
                       bool *found_out)
{
    struct kept kept = {0};
    TRY(load(hs, ctx, kept_key(ctx, url), &kept, found_out));
    *found_out = *found_out && kept.fresh_until_ms > now_wall_ms(ctx->now);
    *json_out = kept.json;
    return *found_out && kept.failed ? cannot() : OK;
}

struct err media_preview(struct hs *hs, struct ctx *ctx, struct slice url, struct slice *json_out)
{
    struct slice clean;
    bool found = false;
    bool is_first = false;
    TRY(media_web_check(hs, ctx, url, &clean));
    TRY(find(hs, ctx, clean, json_out, &found));
    if (found) {
        return OK;
    }
    if (!ctx->may_wait) {
        return err_make(ERR_WAITS, "a page is fetched");
    }
    struct slice what = kept_key(ctx, clean);
    TRY(media_sandbox_begin(hs->sandbox, what, &is_first));
    struct err err = find(hs, ctx, clean, json_out, &found);
    if (!err.code && !found) {
        err = is_first ? make(hs, ctx, clean, json_out) : cannot();
    }
    if (is_first) {
        media_sandbox_end(hs->sandbox, what);
    }
    return err;
}
