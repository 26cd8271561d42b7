#include "homeserver/service/media_rows.h"

/* Version 1 ended before is_quarantined. */
enum { RECORD_VERSION = 2 };

struct store_object hs_media_object(struct slice media_id)
{
    return (struct store_object){STORE_MEDIA, media_id};
}

/* `@` is no character of a media id. */
struct store_object hs_media_pending_object(struct ctx *ctx, uint64_t user)
{
    return (struct store_object){
        STORE_MEDIA, arena_concat(ctx->arena, LIT("@"), store_id_u64(ctx->arena, user))};
}

struct slice hs_media_encode(struct ctx *ctx, const struct media *media)
{
    struct buf out;
    buf_init_arena(&out, ctx->arena, 65536);
    pack_u64(&out, RECORD_VERSION);
    pack_u64(&out, media->uploader);
    pack_bytes(&out, media->content_type);
    pack_bytes(&out, media->file_name);
    pack_i64(&out, media->bytes);
    pack_i64(&out, media->created_ms);
    pack_i64(&out, media->expires_ms);
    pack_u64(&out, media->is_ready);
    pack_u64(&out, media->is_quarantined);
    pack_bytes(&out, media->origin);
    return buf_slice(&out);
}

struct err hs_media_decode(struct slice row, struct slice media_id, struct media *media_out)
{
    struct unpack in = unpack_of(row);
    uint64_t version = unpack_u64(&in);
    *media_out = (struct media){.media_id = media_id, .uploader = unpack_u64(&in)};
    media_out->content_type = unpack_bytes(&in);
    media_out->file_name = unpack_bytes(&in);
    media_out->bytes = unpack_i64(&in);
    media_out->created_ms = unpack_i64(&in);
    media_out->expires_ms = unpack_i64(&in);
    media_out->is_ready = unpack_u64(&in) != 0;
    if (version >= RECORD_VERSION) {
        media_out->is_quarantined = unpack_u64(&in) != 0;
        media_out->origin = unpack_bytes(&in);
    }
    TRY(unpack_check(&in));
    return version >= 1 && version <= RECORD_VERSION
               ? OK
               : err_make(ERR_CORRUPT, "media record of another form");
}

struct slice hs_media_record_key(void)
{
    return LIT("r");
}

struct slice hs_media_encode_number(struct ctx *ctx, int64_t number)
{
    struct buf out;
    buf_init_arena(&out, ctx->arena, 64);
    pack_i64(&out, number);
    return buf_slice(&out);
}

struct slice hs_media_thumbnail_prefix(void)
{
    return LIT("thumb-");
}
