#include "homeserver/media/media_priv.h"

#include "crypto/base64.h"
#include "crypto/token.h"
#include "homeserver/service/media_usage.h"

#include <ctype.h>

enum { ID_LETTERS = 24, LAPSED_MAX = 100, TRIES_MAX = 100 };

bool media_id_is_valid(struct slice media_id)
{
    bool good = media_id.len > 0 && media_id.len <= MEDIA_ID_BYTES_MAX;
    for (size_t i = 0; good && i < media_id.len; i++) {
        char c = media_id.ptr[i];
        good = isalnum((unsigned char)c) || c == '_' || c == '-';
    }
    return good;
}

static const struct slice remote_prefix = LIT("remote-");

struct slice media_remote_id(struct arena *arena, struct slice server, struct slice media_id)
{
    struct slice parts[] = {server, LIT("/"), media_id};
    struct sha256 hash = sha256_of_parts(parts, COUNT_OF(parts));
    return arena_concat(arena, remote_prefix,
                        base64_encode(arena, sha256_slice(&hash), BASE64_URL));
}

bool media_id_is_remote(struct slice media_id)
{
    return slice_has_prefix(media_id, remote_prefix);
}

bool media_id_is_own(struct slice media_id)
{
    return media_id_is_valid(media_id) && !media_id_is_remote(media_id) &&
           !media_id_is_thumbnail(media_id);
}

struct err media_find(struct hs *hs, struct ctx *ctx, struct slice media_id,
                      struct media *media_out, bool *found_out)
{
    struct slice row;
    *found_out = false;
    if (!media_id_is_valid(media_id)) {
        return OK;
    }
    TRY(store_get(hs->store, ctx, hs_media_object(media_id), hs_media_record_key(), &row,
                  found_out));
    if (!*found_out) {
        return OK;
    }
    TRY(hs_media_decode(row, media_id, media_out));
    *found_out = media_out->is_ready || media_out->is_quarantined ||
                 media_out->expires_ms > now_wall_ms(ctx->now);
    return OK;
}

/* --- announcing --- */

/* The updates of one announcement; what lapsed goes along with it. */
struct announcement {
    struct store_update *pending;
    struct store_update *updates[2 + LAPSED_MAX];
    size_t count;
    int64_t open; /* announcements that still wait */
};

/* Takes out a lapsed announcement and its record. A record that is ready stays: its file came and
 * only the note of the announcement was left behind. */
static struct err drop_lapsed(struct hs *hs, struct ctx *ctx, struct slice media_id,
                              struct announcement *announcement)
{
    struct media media;
    bool found = false;
    if (announcement->count == COUNT_OF(announcement->updates) - 1) { /* the new record needs one */
        return OK;
    }
    TRY(media_find(hs, ctx, media_id, &media, &found));
    store_delete(announcement->pending, media_id);
    if (!found) {
        struct store_update *record = store_update_new(ctx, hs_media_object(media_id));
        store_delete(record, hs_media_record_key());
        announcement->updates[announcement->count++] = record;
    }
    return OK;
}

static struct err count_pending(struct hs *hs, struct ctx *ctx, uint64_t user,
                                struct announcement *announcement)
{
    struct store_rows rows;
    TRY(store_read_range(hs->store, ctx, hs_media_pending_object(ctx, user),
                         (struct store_range){0}, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack in = unpack_of(rows.rows[i].value);
        if (unpack_i64(&in) > now_wall_ms(ctx->now)) {
            announcement->open++;
        } else {
            TRY(drop_lapsed(hs, ctx, rows.rows[i].key, announcement));
        }
    }
    return OK;
}

struct slice media_new_id(struct ctx *ctx)
{
    return token_random_letters(ctx->arena, ID_LETTERS);
}

struct err media_announce(struct hs *hs, struct ctx *ctx, uint64_t user, struct media *media_out)
{
    int64_t now_ms = now_wall_ms(ctx->now);
    struct announcement made = {.pending =
                                    store_update_new(ctx, hs_media_pending_object(ctx, user))};
    made.updates[made.count++] = made.pending;
    TRY(count_pending(hs, ctx, user, &made));
    if (hs->conf->rate_limits_enabled && made.open >= hs->conf->media_pending_per_user) {
        return err_public(ERR_M_LIMIT_EXCEEDED, "Upload what you have announced first.");
    }
    *media_out = (struct media){.media_id = media_new_id(ctx),
                                .uploader = user,
                                .created_ms = now_ms,
                                .expires_ms = now_ms + hs->conf->media_pending_life};
    store_put(made.pending, media_out->media_id,
              hs_media_encode_number(ctx, media_out->expires_ms));
    struct store_update *record = store_update_new(ctx, hs_media_object(media_out->media_id));
    store_put(record, hs_media_record_key(), hs_media_encode(ctx, media_out));
    made.updates[made.count++] = record;
    return store_write(hs->store, ctx, made.updates, made.count);
}

struct err media_check_fill(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice media_id)
{
    struct media media;
    bool found = false;
    TRY(media_find(hs, ctx, media_id, &media, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "This media id was not announced, or too long ago.");
    }
    if (media.uploader != user) {
        return err_public(ERR_M_FORBIDDEN, "Another user has announced this media id.");
    }
    return media.is_ready ? err_make(ERR_M_CANNOT_OVERWRITE_MEDIA, "media is there") : OK;
}

/* --- the room of one user --- */

static struct slice size_text(struct ctx *ctx, int64_t bytes)
{
    static const char *const units[] = {"bytes", "KB", "MB", "GB", "TB"};
    double size = (double)bytes;
    size_t unit = 0;
    for (; size >= 1000 && unit + 1 < COUNT_OF(units); unit++) {
        size /= 1000;
    }
    return arena_printf(ctx->arena, unit ? "%.1f %s" : "%.0f %s", size, units[unit]);
}

/* Whether what the user's files take with the last one, of so many bytes, is allowed. */
static struct err quota_judge(struct hs *hs, struct ctx *ctx, const struct media_usage *usage,
                              int64_t last_bytes)
{
    int64_t quota = hs->conf->media_quota_per_user;
    if (quota == 0 || usage->bytes <= quota) {
        return OK;
    }
    struct slice taken = size_text(ctx, usage->bytes - last_bytes);
    struct slice allowed = size_text(ctx, quota);
    return err_publicf(ctx->arena, ERR_M_USER_LIMIT_EXCEEDED,
                       "Your files take %s of the %s that you may keep here: send a smaller file, "
                       "or ask the administrators of this server to delete some of yours.",
                       arena_cstr(ctx->arena, taken), arena_cstr(ctx->arena, allowed));
}

struct err media_quota_check(struct hs *hs, struct ctx *ctx, uint64_t user, int64_t bytes)
{
    struct media_usage usage;
    if (hs->conf->media_quota_per_user == 0) {
        return OK;
    }
    TRY(hs_media_usage_get(hs, ctx, user, &usage));
    usage.bytes += bytes;
    return quota_judge(hs, ctx, &usage, bytes);
}

/* --- uploading --- */

struct err media_upload_begin(struct hs *hs, struct media_upload *upload)
{
    *upload = (struct media_upload){.bytes_max = hs->conf->limits_upload_bytes};
    return store_blob_begin(hs->store, &upload->writer);
}

struct err media_upload_append(struct media_upload *upload, struct slice bytes)
{
    upload->bytes += (int64_t)bytes.len;
    if (upload->bytes > upload->bytes_max) {
        return err_make(ERR_M_TOO_LARGE, "upload");
    }
    return store_blob_append(upload->writer, bytes);
}

void media_upload_abort(struct media_upload *upload)
{
    if (upload->writer) {
        store_blob_abort(&upload->writer);
        upload->writer = NULL;
    }
}

/* The record and the end of the announcement, after the bytes are on the disk; and the file counts
 * from now on. Who uploads several at once is let in for each that there is room for. */
static struct err write_record(struct hs *hs, struct ctx *ctx, const struct media *media,
                               const struct media_upload *upload)
{
    struct store_update *record = store_update_new(ctx, hs_media_object(media->media_id));
    struct store_update *pending =
        store_update_new(ctx, hs_media_pending_object(ctx, media->uploader));
    struct store_update *updates[3] = {record, pending};
    struct err err = err_make(ERR_CONFLICT, "not tried");
    store_put(record, hs_media_record_key(), hs_media_encode(ctx, media));
    store_delete(pending, media->media_id);
    for (int i = 0; i < TRIES_MAX && err.code == ERR_CONFLICT; i++) {
        struct media_usage usage;
        TRY(hs_media_usage_add(hs, ctx, media, &updates[2], &usage));
        TRY(upload->quota == MEDIA_QUOTA_HOLDS ? quota_judge(hs, ctx, &usage, media->bytes) : OK);
        err = store_write(hs->store, ctx, updates, COUNT_OF(updates));
    }
    return err;
}

/* Nobody knows the name of a file without a record. One under an announced name stays: whoever
 * announced it fills it again, or has done so meanwhile. */
static void drop_file(struct hs *hs, struct slice media_id)
{
    struct err err = store_blob_delete(hs->store, media_id);
    if (err.code != 0) {
        log_warn(hs->log, "media_file_left_over", .err = slice_of(err.text));
    }
}

struct err media_upload_finish(struct hs *hs, struct ctx *ctx, struct media_upload *upload,
                               const struct media *draft, struct media *media_out)
{
    struct err err = OK;
    *media_out = *draft;
    media_out->bytes = upload->bytes;
    media_out->created_ms = now_wall_ms(ctx->now);
    media_out->is_ready = true;
    if (draft->media_id.len > 0) {
        err = media_check_fill(hs, ctx, draft->uploader, draft->media_id);
    } else {
        media_out->media_id = media_new_id(ctx);
    }
    if (err.code == 0 && upload->quota == MEDIA_QUOTA_HOLDS) {
        err = media_quota_check(hs, ctx, draft->uploader, upload->bytes);
    }
    if (err.code != 0) {
        media_upload_abort(upload);
        return err;
    }
    TRY(store_blob_commit(&upload->writer, media_out->media_id));
    err = write_record(hs, ctx, media_out, upload);
    if (err.code != 0 && draft->media_id.len == 0) {
        drop_file(hs, media_out->media_id);
    }
    TRY(err);
    media_waits_wake(hs->media_waits, media_out->media_id);
    return OK;
}

struct err media_upload_finish_remote(struct hs *hs, struct ctx *ctx, struct media_upload *upload,
                                      const struct media *draft)
{
    struct media media = *draft;
    media.bytes = upload->bytes;
    media.created_ms = now_wall_ms(ctx->now);
    media.is_ready = true;
    TRY(store_blob_commit(&upload->writer, media.media_id));
    struct store_update *record = store_update_new(ctx, hs_media_object(media.media_id));
    store_put(record, hs_media_record_key(), hs_media_encode(ctx, &media));
    return store_write(hs->store, ctx, &record, 1);
}

struct err media_set_type(struct hs *hs, struct ctx *ctx, struct slice media_id,
                          struct slice content_type)
{
    struct media media;
    bool found = false;
    TRY(media_find(hs, ctx, media_id, &media, &found));
    if (!found) {
        return err_make(ERR_CORRUPT, "a file is gone at once");
    }
    media.content_type = content_type;
    struct store_update *record = store_update_new(ctx, hs_media_object(media_id));
    store_put(record, hs_media_record_key(), hs_media_encode(ctx, &media));
    return store_write(hs->store, ctx, &record, 1);
}

/* The record as it stands, announced or not. */
static struct err load_record(struct hs *hs, struct ctx *ctx, struct slice media_id,
                              struct media *media_out)
{
    struct slice row;
    bool found = false;
    *media_out = (struct media){.media_id = media_id};
    TRY(store_get(hs->store, ctx, hs_media_object(media_id), hs_media_record_key(), &row, &found));
    return found ? hs_media_decode(row, media_id, media_out) : OK;
}

static struct err delete_record(struct hs *hs, struct ctx *ctx, const struct media *media)
{
    struct store_update *updates[2] = {store_update_new(ctx, hs_media_object(media->media_id))};
    struct err err = err_make(ERR_CONFLICT, "not tried");
    store_delete_range(updates[0], (struct slice){0}, (struct slice){0});
    if (!hs_media_counts(media)) {
        return store_write(hs->store, ctx, updates, 1);
    }
    for (int i = 0; i < TRIES_MAX && err.code == ERR_CONFLICT; i++) {
        TRY(hs_media_usage_remove(hs, ctx, media, &updates[1]));
        err = store_write(hs->store, ctx, updates, COUNT_OF(updates));
    }
    return err;
}

struct err media_delete(struct hs *hs, struct ctx *ctx, struct slice media_id)
{
    struct media media;
    TRY(media_thumbnails_delete(hs, ctx, media_id));
    TRY(load_record(hs, ctx, media_id, &media));
    TRY(delete_record(hs, ctx, &media));
    return store_blob_delete(hs->store, media_id);
}
