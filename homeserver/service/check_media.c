/* Media records, announcements that wait for their files, and files that nobody refers to. A file
 * is published before its record is written, so a server that stopped in between leaves one. */
#include "homeserver/base/map.h"
#include "homeserver/service/check_priv.h"
#include "homeserver/service/media_usage.h"

#include <string.h>
#include <unistd.h>

/* A younger file may be one whose record is just being written. */
#define FILE_AGE_MIN_MS (INT64_C(3600) * 1000)

struct media_check {
    struct checker *c;
    struct map *usage; /* user number -> struct media_usage *, as the records tell it */
    struct store_object at;
};

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

static struct err count_file(struct media_check *check, const struct media *media)
{
    struct checker *c = check->c;
    struct slice key = map_key_u64(&media->uploader);
    struct media_usage *usage = map_get_ptr(check->usage, key);
    if (!usage) {
        usage = arena_alloc(c->ctx->arena, sizeof *usage);
        *usage = (struct media_usage){0};
        map_set_ptr(check->usage, key, usage);
    }
    usage->bytes += media->bytes;
    usage->files++;
    return check_row_is(c,
                        (struct check_place){CHECK_MEDIA_USAGE,
                                             hs_media_usage_object(&c->page, media->uploader),
                                             media->media_id},
                        hs_media_encode_number(&c->page, media->bytes));
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

static struct err check_record(struct media_check *check, struct slice media_id)
{
    struct checker *c = check->c;
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
    if (!found) {
        return OK;
    }
    if (hs_media_counts(&media)) {
        TRY(count_file(check, &media));
    }
    if (media.is_ready) {
        return check_file(c, &media);
    }
    if (media.is_quarantined && media.expires_ms == 0) { /* never here, and shall not come */
        return OK;
    }
    return check_row_is(c, place_of(hs_media_pending_object(&c->page, media.uploader), media_id),
                        hs_media_encode_number(&c->page, media.expires_ms));
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

/* Usage: after all records have been counted. */
static struct err visit_usage(struct checker *c, void *arg, const struct store_row *row)
{
    const struct media_check *check = arg;
    struct unpack in = unpack_of(slice_from(check->at.id, 1));
    uint64_t user = unpack_be64(&in);
    struct media media = {0};
    bool found = false;
    bool is_sum = slice_eq(row->key, hs_media_usage_sum_key());
    bool has_name = !is_sum && row->key.len <= STORE_ID_BYTES_MAX;
    struct err err = has_name ? load(c, row->key, &media, &found) : OK;
    check_compared(c, CHECK_MEDIA_USAGE);
    if (err.code != 0 && !check_is_damage(err)) {
        return err;
    }
    bool counts = is_sum
                      ? map_get_ptr(check->usage, map_key_u64(&user)) != NULL
                      : err.code == 0 && found && hs_media_counts(&media) && media.uploader == user;
    return counts
               ? OK
               : check_row_stray(c, (struct check_place){CHECK_MEDIA_USAGE, check->at, row->key});
}

static struct err check_sums(struct media_check *check)
{
    struct checker *c = check->c;
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(check->usage, &cursor, &key, &value)) {
        const struct media_usage *usage = map_get_ptr(check->usage, key);
        uint64_t user = 0;
        arena_reset(c->page.arena);
        memcpy(&user, key.ptr, sizeof user);
        struct check_place place = {CHECK_MEDIA_USAGE, hs_media_usage_object(&c->page, user),
                                    hs_media_usage_sum_key()};
        TRY(check_row_is(c, place, hs_media_encode_usage(&c->page, usage)));
    }
    return OK;
}

static struct err visit_object(void *arg, struct slice id)
{
    struct media_check *check = arg;
    struct checker *c = check->c;
    uint64_t user = 0;
    struct store_object object = {STORE_MEDIA, arena_copy(c->room.arena, id)};
    arena_reset(c->page.arena);
    if (id.len > 0 && id.ptr[0] == '@') {
        TRY(check_each_row(c, object, 0, visit_pending, &object));
    } else if (!hs_media_is_usage_object(id, &user)) {
        TRY(check_record(check, object.id));
    }
    arena_reset(c->room.arena);
    return OK;
}

static struct err visit_usage_object(void *arg, struct slice id)
{
    struct media_check *check = arg;
    struct checker *c = check->c;
    uint64_t user = 0;
    if (hs_media_is_usage_object(id, &user)) {
        check->at = (struct store_object){STORE_MEDIA, arena_copy(c->room.arena, id)};
        arena_reset(c->page.arena);
        TRY(check_each_row(c, check->at, 0, visit_usage, check));
        arena_reset(c->room.arena);
    }
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

static struct err check_all_records(struct media_check *check)
{
    struct checker *c = check->c;
    TRY(store_each_object(c->hs->store, c->ctx, STORE_MEDIA, visit_object, check));
    TRY(store_each_object(c->hs->store, c->ctx, STORE_MEDIA, visit_usage_object, check));
    return check_sums(check);
}

struct err check_media(struct checker *c)
{
    struct media_check check = {.c = c, .usage = map_new()};
    struct err err = check_all_records(&check);
    map_free(&check.usage);
    TRY(err);
    return store_each_blob(c->hs->store, visit_blob, c);
}
