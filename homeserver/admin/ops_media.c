/* Files: what is known of one, quarantine, removal. */
#include "homeserver/admin/ops_priv.h"
#include "homeserver/media/media_keep.h"

#include <time.h>

static struct err find(struct admin_call *call, struct media *media_out)
{
    struct slice uri;
    TRY(admin_text(call, LIT("mxc"), &uri));
    return media_keep_parse(call->hs, call->ctx, uri, media_out);
}

static struct err no_such_file(void)
{
    return err_public(ERR_M_NOT_FOUND, "There is no such file.");
}

static void answer_nothing(struct admin_call *call)
{
    json_out_object(call->out);
    json_out_object_end(call->out);
}

struct err admin_media_show(struct admin_call *call)
{
    struct media media;
    TRY(find(call, &media));
    if (!media.is_ready && !media.is_quarantined) {
        return no_such_file();
    }
    json_out_object(call->out);
    json_out_key_string(call->out, LIT("kept_as"), media.media_id);
    json_out_key_string(call->out, LIT("content_type"), media.content_type);
    json_out_key_string(call->out, LIT("file_name"), media.file_name);
    json_out_key_int(call->out, LIT("bytes"), media.bytes);
    json_out_key_int(call->out, LIT("created_ms"), media.created_ms);
    json_out_key_bool(call->out, LIT("is_here"), media.is_ready);
    json_out_key_bool(call->out, LIT("is_quarantined"), media.is_quarantined);
    if (media.uploader) {
        struct slice user_id;
        TRY(hs_user_id_of(call->hs, call->ctx, media.uploader, &user_id));
        json_out_key_string(call->out, LIT("uploader"), user_id);
    }
    json_out_object_end(call->out);
    return OK;
}

static struct err set_quarantine(struct admin_call *call, enum media_quarantine what)
{
    struct media media;
    TRY(find(call, &media));
    TRY(media_keep_quarantine(call->hs, call->ctx, &media, what));
    answer_nothing(call);
    return OK;
}

struct err admin_media_quarantine(struct admin_call *call)
{
    return set_quarantine(call, MEDIA_QUARANTINE);
}

struct err admin_media_release(struct admin_call *call)
{
    return set_quarantine(call, MEDIA_RELEASE);
}

struct err admin_media_delete(struct admin_call *call)
{
    struct media media;
    TRY(find(call, &media));
    if (!media.is_ready) {
        return no_such_file();
    }
    TRY(media_delete(call->hs, call->ctx, media.media_id));
    answer_nothing(call);
    return OK;
}

/* Midnight, in UTC, of a date such as 2026-01-31. */
static bool parse_date(struct ctx *ctx, struct slice text, int64_t *ms_out)
{
    struct tm day = {0};
    const char *end = strptime(arena_cstr(ctx->arena, text), "%Y-%m-%d", &day);
    *ms_out = (int64_t)timegm(&day) * 1000;
    return end && *end == '\0';
}

struct err admin_media_purge_remote(struct admin_call *call)
{
    struct slice before;
    struct media_purged purged;
    int64_t before_ms = 0;
    TRY(admin_text(call, LIT("before"), &before));
    if (!parse_date(call->ctx, before, &before_ms)) {
        return err_public(ERR_M_INVALID_PARAM, "The date is written like 2026-01-31.");
    }
    TRY(media_keep_purge_remote(call->hs, call->ctx, before_ms, &purged));
    json_out_object(call->out);
    json_out_key_int(call->out, LIT("files"), purged.files);
    json_out_key_int(call->out, LIT("bytes"), purged.bytes);
    json_out_object_end(call->out);
    return OK;
}
