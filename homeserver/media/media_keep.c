#include "homeserver/media/media_keep.h"

struct err media_keep_parse(struct hs *hs, struct ctx *ctx, struct slice uri,
                            struct media *media_out)
{
    struct slice server;
    struct slice media_id = slice_cut(slice_from(uri, 6), '/', &server);
    bool found = false;
    if (!slice_has_prefix(uri, LIT("mxc://")) || !ids_is_server_name(server) ||
        !media_id_is_own(media_id)) {
        return err_public(ERR_M_INVALID_PARAM, "A file is named by mxc://<server>/<media id>.");
    }
    bool is_local = hs_is_local(hs, server);
    struct slice kept_id = is_local ? media_id : media_remote_id(ctx->arena, server, media_id);
    TRY(media_find(hs, ctx, kept_id, media_out, &found));
    if (!found) {
        *media_out =
            (struct media){.media_id = kept_id, .origin = is_local ? (struct slice){0} : server};
    }
    return OK;
}

struct err media_keep_quarantine(struct hs *hs, struct ctx *ctx, const struct media *media,
                                 enum media_quarantine what)
{
    struct media changed = *media;
    bool is_there = media->is_ready || media->is_quarantined || media->expires_ms != 0;
    if (!is_there && (media->origin.len == 0 || what == MEDIA_RELEASE)) {
        return err_public(ERR_M_NOT_FOUND, "There is no such file.");
    }
    changed.is_quarantined = what == MEDIA_QUARANTINE;
    changed.created_ms = changed.created_ms ? changed.created_ms : now_wall_ms(ctx->now);
    struct store_update *record = store_update_new(ctx, hs_media_object(changed.media_id));
    bool holds_nothing = !changed.is_quarantined && !changed.is_ready && changed.expires_ms == 0;
    if (holds_nothing) { /* one that was never here */
        store_delete(record, hs_media_record_key());
    } else {
        store_put(record, hs_media_record_key(), hs_media_encode(ctx, &changed));
    }
    return store_write(hs->store, ctx, &record, 1);
}

/* --- files of other servers --- */

struct purge {
    struct hs *hs;
    struct ctx *ctx; /* of the caller */
    struct ctx page; /* of one file */
    int64_t before_ms;
    struct media_purged *purged;
};

static struct err visit(void *arg, struct slice id)
{
    struct purge *purge = arg;
    struct media media;
    bool found = false;
    if (!media_id_is_remote(id)) {
        return OK;
    }
    arena_reset(purge->page.arena);
    struct slice media_id = arena_copy(purge->page.arena, id);
    TRY(media_find(purge->hs, &purge->page, media_id, &media, &found));
    if (!found || !media.is_ready || media.is_quarantined || media.created_ms >= purge->before_ms) {
        return OK;
    }
    TRY(media_delete(purge->hs, &purge->page, media_id));
    purge->purged->files++;
    purge->purged->bytes += media.bytes;
    return OK;
}

struct err media_keep_purge_remote(struct hs *hs, struct ctx *ctx, int64_t before_ms,
                                   struct media_purged *purged_out)
{
    struct purge purge = {
        .hs = hs, .ctx = ctx, .page = *ctx, .before_ms = before_ms, .purged = purged_out};
    *purged_out = (struct media_purged){0};
    purge.page.arena = arena_new();
    struct err err = store_each_object(hs->store, ctx, STORE_MEDIA, visit, &purge);
    arena_free(&purge.page.arena);
    ctx->write_ticket =
        purge.page.write_ticket > ctx->write_ticket ? purge.page.write_ticket : ctx->write_ticket;
    return err;
}
