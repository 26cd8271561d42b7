/* Thumbnails: made when first asked for, by a helper, and kept beside their original.
 * Spec: client-server, "Thumbnails". */
#include "crypto/base64.h"
#include "crypto/sha256.h"
#include "homeserver/media/media_priv.h"
#include "homeserver/media/media_sandbox.h"

#include <unistd.h>

enum { ROW_VERSION = 1, HEAD_BYTES = 32 };
/* After this a picture that could not be read is tried again: the helper may have been short of
 * time. */
enum { NONE_LIFE_MS = 3600000 };

/* Boxes to fit into: those of the specification, one below them and one above. */
static const struct media_size boxes[] = {
    {96, 96, 0}, {320, 240, 0}, {640, 480, 0}, {800, 600, 0}, {1600, 1200, 0}};
/* The longer edges of what is cut. */
static const uint32_t edges[] = {32, 96, 320, 640, 800, 1600};
/* So many shapes of what is cut have the same longer edge. */
enum { SHAPES = 8 };

/* The shorter edge, rounded up to a part of the longer one. */
static uint32_t shorter_edge(uint64_t shorter, uint64_t longer, uint32_t edge)
{
    uint64_t parts = (shorter * SHAPES + longer - 1) / longer;
    return (uint32_t)(edge * parts / SHAPES);
}

static struct media_size cut_size(const struct media_size *wanted)
{
    uint32_t longer = wanted->width > wanted->height ? wanted->width : wanted->height;
    uint32_t shorter = wanted->width > wanted->height ? wanted->height : wanted->width;
    for (size_t i = 0; i < COUNT_OF(edges); i++) {
        if (longer <= edges[i]) {
            uint32_t other = shorter_edge(shorter, longer, edges[i]);
            bool is_wide = wanted->width == longer;
            return (struct media_size){is_wide ? edges[i] : other, is_wide ? other : edges[i],
                                       wanted->flags};
        }
    }
    return (struct media_size){0};
}

struct media_size media_thumbnail_size(struct media_size wanted)
{
    if (wanted.flags & MEDIA_JOB_CROP) {
        return cut_size(&wanted);
    }
    for (size_t i = 0; i < COUNT_OF(boxes); i++) {
        if (wanted.width <= boxes[i].width && wanted.height <= boxes[i].height) {
            return (struct media_size){boxes[i].width, boxes[i].height, wanted.flags};
        }
    }
    return (struct media_size){0};
}

/* --- what is kept --- */

bool media_id_is_thumbnail(struct slice media_id)
{
    return slice_has_prefix(media_id, hs_media_thumbnail_prefix());
}

/* In the object of the original, beside its record. */
static struct slice row_key(struct ctx *ctx, const struct media_size *size)
{
    return arena_printf(ctx->arena, "t%ux%u-%u", size->width, size->height, size->flags);
}

static struct slice thumbnail_id(struct ctx *ctx, struct slice original, struct slice key)
{
    struct slice parts[] = {original, LIT("/"), key};
    struct sha256 hash = sha256_of_parts(parts, COUNT_OF(parts));
    return arena_concat(ctx->arena, hs_media_thumbnail_prefix(),
                        base64_encode(ctx->arena, sha256_slice(&hash), BASE64_URL));
}

struct made {
    enum media_result result;
    enum media_format format; /* of the original, when that is served */
    int64_t made_ms;
};

static struct slice encode(struct ctx *ctx, const struct made *made)
{
    struct buf out;
    buf_init_arena(&out, ctx->arena, 64);
    pack_u64(&out, ROW_VERSION);
    pack_u64(&out, made->result);
    pack_u64(&out, made->format);
    pack_i64(&out, made->made_ms);
    return buf_slice(&out);
}

static struct err decode(struct slice row, struct made *made_out)
{
    struct unpack in = unpack_of(row);
    uint64_t version = unpack_u64(&in);
    uint64_t result = unpack_u64(&in);
    uint64_t format = unpack_u64(&in);
    *made_out =
        (struct made){(enum media_result)result, (enum media_format)format, unpack_i64(&in)};
    TRY(unpack_check(&in));
    bool good =
        version == ROW_VERSION && result <= MEDIA_RESULT_TOO_LARGE && format <= MEDIA_FORMAT_WEBP;
    return good ? OK : err_make(ERR_CORRUPT, "a thumbnail's row of another form");
}

static struct err find_made(struct hs *hs, struct ctx *ctx, const struct media *original,
                            struct slice key, struct made *made_out, bool *found_out)
{
    struct slice row;
    TRY(store_get(hs->store, ctx, hs_media_object(original->media_id), key, &row, found_out));
    if (*found_out) {
        TRY(decode(row, made_out));
        int64_t age_ms = now_wall_ms(ctx->now) - made_out->made_ms;
        *found_out = made_out->result != MEDIA_RESULT_NONE || age_ms < NONE_LIFE_MS;
    }
    return OK;
}

/* The file is there before its record, and the original knows of it when the record does. */
static struct err keep(struct hs *hs, struct ctx *ctx, const struct media *original,
                       struct slice key, const struct media_reply *reply)
{
    struct made made = {reply->result, reply->format, now_wall_ms(ctx->now)};
    struct store_update *row = store_update_new(ctx, hs_media_object(original->media_id));
    store_put(row, key, encode(ctx, &made));
    if (reply->result != MEDIA_RESULT_MADE) {
        return store_write(hs->store, ctx, &row, 1);
    }
    struct media_upload upload;
    const struct media thumbnail = {.media_id = thumbnail_id(ctx, original->media_id, key),
                                    .content_type = media_format_type(reply->format),
                                    .file_name = original->media_id,
                                    .bytes = (int64_t)reply->bytes.len,
                                    .created_ms = made.made_ms,
                                    .is_ready = true};
    struct store_update *record = store_update_new(ctx, hs_media_object(thumbnail.media_id));
    struct store_update *updates[] = {row, record};
    TRY(media_upload_begin(hs, &upload));
    struct err err = store_blob_append(upload.writer, reply->bytes);
    if (err.code) {
        media_upload_abort(&upload);
        return err;
    }
    TRY(store_blob_commit(&upload.writer, thumbnail.media_id));
    store_put(record, hs_media_record_key(), hs_media_encode(ctx, &thumbnail));
    return store_write(hs->store, ctx, updates, COUNT_OF(updates));
}

struct err media_thumbnails_delete(struct hs *hs, struct ctx *ctx, struct slice media_id)
{
    struct store_rows rows;
    const struct store_range range = {.from = LIT("t"), .to = LIT("u")};
    TRY(store_read_range(hs->store, ctx, hs_media_object(media_id), range, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        struct slice id = thumbnail_id(ctx, media_id, rows.rows[i].key);
        struct store_update *record = store_update_new(ctx, hs_media_object(id));
        struct store_update *row = store_update_new(ctx, hs_media_object(media_id));
        struct store_update *updates[] = {record, row};
        store_delete(record, hs_media_record_key());
        store_delete(row, rows.rows[i].key);
        TRY(store_write(hs->store, ctx, updates, COUNT_OF(updates)));
        TRY(store_blob_delete(hs->store, id));
    }
    return OK;
}

/* --- making --- */

static struct err sniff(struct hs *hs, struct slice media_id, enum media_format *format_out)
{
    char head[HEAD_BYTES];
    int fd = -1;
    int64_t bytes = 0;
    bool found = false;
    TRY(store_blob_open(hs->store, media_id, &fd, &bytes, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "The content of this media is gone.");
    }
    ssize_t got = pread(fd, head, sizeof head, 0);
    close(fd);
    *format_out = media_format_sniff((struct slice){head, got > 0 ? (size_t)got : 0});
    return OK;
}

static struct err run(struct hs *hs, struct ctx *ctx, const struct media *original,
                      const struct media_size *size, struct media_reply *reply_out)
{
    const struct media_job job = {.kind = MEDIA_JOB_THUMBNAIL,
                                  .flags = size->flags,
                                  .width = size->width,
                                  .height = size->height,
                                  .pixels_max = (uint64_t)hs->conf->media_pixels_max};
    int fd = -1;
    int64_t bytes = 0;
    bool found = false;
    TRY(store_blob_open(hs->store, original->media_id, &fd, &bytes, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "The content of this media is gone.");
    }
    struct err err = media_sandbox_run(hs->sandbox, ctx, &job, fd, reply_out);
    close(fd);
    return err;
}

/* Once, whoever asks. */
static struct err make(struct hs *hs, struct ctx *ctx, const struct media *original,
                       const struct media_size *size, struct made *made_out)
{
    struct slice key = row_key(ctx, size);
    struct slice what = thumbnail_id(ctx, original->media_id, key);
    struct media_reply reply = {0};
    bool is_first = false;
    bool found = false;
    TRY(media_sandbox_begin(hs->sandbox, what, &is_first));
    struct err err = find_made(hs, ctx, original, key, made_out, &found);
    if (!err.code && !found && is_first) {
        err = run(hs, ctx, original, size, &reply);
        if (!err.code && reply.result != MEDIA_RESULT_TOO_LARGE) {
            err = keep(hs, ctx, original, key, &reply);
        }
        *made_out = (struct made){reply.result, reply.format, now_wall_ms(ctx->now)};
    } else if (!err.code && !found) {
        err = err_make(ERR_UNAVAILABLE, "the thumbnail was not made");
    }
    if (is_first) {
        media_sandbox_end(hs->sandbox, what);
    }
    return err;
}

static struct err too_large(const struct media *original)
{
    return media_id_is_remote(original->media_id)
               ? err_public(ERR_M_REMOTE_TOO_LARGE, "The picture has too many pixels.")
               : err_public(ERR_M_TOO_LARGE, "The picture has too many pixels.");
}

static struct err answer_made(struct hs *hs, struct ctx *ctx, const struct media *original,
                              const struct media_size *size, struct media *media_out)
{
    struct slice key = row_key(ctx, size);
    struct made made = {0};
    bool found = false;
    TRY(find_made(hs, ctx, original, key, &made, &found));
    if (!found && !ctx->may_wait) {
        return err_make(ERR_WAITS, "a thumbnail is made");
    }
    if (!found) {
        TRY(make(hs, ctx, original, size, &made));
    }
    switch (made.result) {
    case MEDIA_RESULT_MADE:
        TRY(media_find(hs, ctx, thumbnail_id(ctx, original->media_id, key), media_out, &found));
        return found ? OK : err_make(ERR_CORRUPT, "a thumbnail without its record");
    case MEDIA_RESULT_ORIGINAL:
        *media_out = *original;
        media_out->content_type = media_format_type(made.format);
        return OK;
    case MEDIA_RESULT_TOO_LARGE:
        return too_large(original);
    case MEDIA_RESULT_NONE:
        break;
    }
    return err_public(ERR_M_UNKNOWN_400, "There is no thumbnail of what is no picture.");
}

struct err media_thumbnail_find(struct hs *hs, struct ctx *ctx, const struct media *original,
                                const struct media_size *wanted, struct media *media_out)
{
    struct media_size size = media_thumbnail_size(*wanted);
    enum media_format format = MEDIA_FORMAT_NONE;
    TRY(sniff(hs, original->media_id, &format));
    if (format == MEDIA_FORMAT_NONE) {
        return err_public(ERR_M_UNKNOWN_400, "This media is no picture that thumbnails are of.");
    }
    if (format == MEDIA_FORMAT_JPEG) {
        size.flags &= ~(uint32_t)MEDIA_JOB_ANIMATED; /* the same thumbnail */
    }
    bool is_still = format == MEDIA_FORMAT_JPEG;
    bool may_move = (wanted->flags & MEDIA_JOB_ANIMATED) != 0;
    if (media_sandbox_is_there(hs->sandbox) && (size.width || !(is_still || may_move))) {
        struct media_size all = {MEDIA_EDGE_MAX, MEDIA_EDGE_MAX, 0};
        return answer_made(hs, ctx, original, size.width ? &size : &all, media_out);
    }
    *media_out = *original;
    media_out->content_type = media_format_type(format);
    return OK;
}
