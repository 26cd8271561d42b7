/* Media records, announcements that wait for their files, and files that nobody refers to. A file
 * is published before its record is written, so a server that stopped in between leaves one. */
#include "homeserver/service/check_priv.h"
#include "homeserver/service/media_rows.h"

#include <unistd.h>

/* A younger file may be one whose record is just being written. */
#define FILE_AGE_MIN_MS (INT64_C(3600) * 1000)

static struct check_place place_of(struct store_object object, struct slice key)
{
    return (struct check_place){CHECK_MEDIA, object, key};
}

static struct err load(struct checker *c, struct slice media_id, struct media *media_out,
                       bool *found_out)
{
    struct slice row;
    TRY(store_get(c->hs->store, &c->page, hs_media_object(media_id), hs_media_record_key(), &row,
                  found_out));
    return *found_out ? hs_media_decode(row, media_id, media_out) : OK;
}

/* --- records --- */

static struct err check_file(struct checker *c, const struct media *media)
{
    int fd = -1;
    int64_t bytes = 0;
    bool found = false;
    TRY(store_blob_open(c->hs->store, media->media_id, &fd, &bytes, &found));
    if (!found) {
        check_report(c, CHECK_MEDIA, media->media_id, "has no file", false);
        return OK;
    }
    close(fd);
    if (bytes != media->bytes) {
        check_report(c, CHECK_MEDIA, media->media_id, "has a file of another size", false);
    }
    return OK;
}

/* One whose original is gone goes, too. */
static struct err check_thumbnail(struct checker *c, const struct media *thumbnail)
{
    struct media original = {0};
    bool found = false;
    struct err err = load(c, thumbnail->file_name, &original, &found);
    if (found || err.code) {
        return check_is_damage(err) ? OK : err;
    }
    return check_row_stray(c,
                           place_of(hs_media_object(thumbnail->media_id), hs_media_record_key()));
}

static struct err check_record(struct checker *c, struct slice media_id)
{
    struct media media;
    bool found = false;
    struct err err = load(c, media_id, &media, &found);
    check_compared(c, CHECK_MEDIA);
    if (check_is_damage(err)) {
        check_report(c, CHECK_MEDIA, media_id, "cannot be read", false);
        return OK;
    }
    TRY(err);
    if (found && slice_has_prefix(media_id, hs_media_thumbnail_prefix())) {
        TRY(check_thumbnail(c, &media));
    }
    if (!found || media.is_ready) {
        return found ? check_file(c, &media) : OK;
    }
    if (media.is_quarantined && media.expires_ms == 0) { /* never here, and shall not come */
        return OK;
    }
    return check_row_is(c, place_of(hs_media_pending_object(&c->page, media.uploader), media_id),
                        hs_media_encode_pending(&c->page, media.expires_ms));
}

static struct err visit_pending(struct checker *c, void *arg, const struct store_row *row)
{
    const struct store_object *pending = arg;
    struct unpack user = unpack_of(slice_from(pending->id, 1));
    struct media media = {0};
    bool found = false;
    struct err err = row->key.len <= STORE_ID_BYTES_MAX ? load(c, row->key, &media, &found) : OK;
    check_compared(c, CHECK_MEDIA);
    if (err.code != 0 && !check_is_damage(err)) {
        return err;
    }
    bool waits = err.code == 0 && found && !media.is_ready && media.uploader == unpack_be64(&user);
    return waits ? OK : check_row_stray(c, place_of(*pending, row->key));
}

static struct err visit_object(void *arg, struct slice id)
{
    struct checker *c = arg;
    struct store_object object = {STORE_MEDIA, arena_copy(c->room.arena, id)};
    arena_reset(c->page.arena);
    if (id.len > 0 && id.ptr[0] == '@') {
        TRY(check_each_row(c, object, 0, visit_pending, &object));
    } else {
        TRY(check_record(c, object.id));
    }
    arena_reset(c->room.arena);
    return OK;
}

/* --- files --- */

static struct err visit_blob(void *arg, const struct store_blob *blob)
{
    struct checker *c = arg;
    struct media media = {0};
    bool found = false;
    arena_reset(c->page.arena);
    struct err err = load(c, blob->name, &media, &found);
    check_compared(c, CHECK_MEDIA);
    if (check_is_damage(err) || now_wall_ms(c->ctx->now) - blob->modified_ms < FILE_AGE_MIN_MS) {
        return OK; /* reported with its record; or too young to judge */
    }
    TRY(err);
    if (found && media.is_ready) {
        return OK;
    }
    if (c->mode == CHECK_REBUILD) {
        TRY(store_blob_delete(c->hs->store, blob->name));
    }
    check_report(c, CHECK_MEDIA, blob->name, "is a file without a record",
                 c->mode == CHECK_REBUILD);
    return OK;
}

struct err check_media(struct checker *c)
{
    TRY(store_each_object(c->hs->store, c->ctx, STORE_MEDIA, visit_object, c));
    return store_each_blob(c->hs->store, visit_blob, c);
}
