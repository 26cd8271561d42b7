#include "homeserver/service/media_usage.h"

static const struct store_object meta = {.kind = STORE_META};
#define MARK_KEY LIT("media_usage")

/* `~` is no character of a media id. */
struct store_object hs_media_usage_object(struct ctx *ctx, uint64_t user)
{
    return (struct store_object){
        STORE_MEDIA, arena_concat(ctx->arena, LIT("~"), store_id_u64(ctx->arena, user))};
}

bool hs_media_is_usage_object(struct slice id, uint64_t *user_out)
{
    if (!slice_has_prefix(id, LIT("~"))) {
        return false;
    }
    struct unpack in = unpack_of(slice_from(id, 1));
    *user_out = unpack_be64(&in);
    return true;
}

struct slice hs_media_usage_sum_key(void)
{
    return LIT("=");
}

struct slice hs_media_encode_usage(struct ctx *ctx, const struct media_usage *usage)
{
    struct buf out;
    buf_init_arena(&out, ctx->arena, 64);
    pack_i64(&out, usage->bytes);
    pack_i64(&out, usage->files);
    return buf_slice(&out);
}

bool hs_media_counts(const struct media *media)
{
    return media->is_ready && media->uploader != 0;
}

/* --- one user --- */

/* What stands there; row.ptr NULL = nothing yet. */
struct standing {
    struct media_usage usage;
    struct slice row;
};

static struct err load(struct hs *hs, struct ctx *ctx, struct store_object object,
                       struct standing *standing_out)
{
    bool found = false;
    *standing_out = (struct standing){0};
    TRY(store_get(hs->store, ctx, object, hs_media_usage_sum_key(), &standing_out->row, &found));
    if (!found) {
        standing_out->row = (struct slice){0};
        return OK;
    }
    struct unpack in = unpack_of(standing_out->row);
    standing_out->usage.bytes = unpack_i64(&in);
    standing_out->usage.files = unpack_i64(&in);
    return unpack_check(&in);
}

struct err hs_media_usage_get(struct hs *hs, struct ctx *ctx, uint64_t user,
                              struct media_usage *usage_out)
{
    struct standing standing;
    TRY(load(hs, ctx, hs_media_usage_object(ctx, user), &standing));
    *usage_out = standing.usage;
    return OK;
}

/* The object's update with its condition, without the file in the sum. */
static struct err begin_change(struct hs *hs, struct ctx *ctx, const struct media *media,
                               struct store_update **update_out, struct media_usage *others_out)
{
    struct store_object object = hs_media_usage_object(ctx, media->uploader);
    struct standing standing;
    struct slice counted;
    bool found = false;
    TRY(load(hs, ctx, object, &standing));
    TRY(store_get(hs->store, ctx, object, media->media_id, &counted, &found));
    *others_out = standing.usage;
    if (found) {
        struct unpack in = unpack_of(counted);
        others_out->bytes -= unpack_i64(&in);
        others_out->files--;
        TRY(unpack_check(&in));
    }
    *update_out = store_update_new(ctx, object);
    store_expect(*update_out, hs_media_usage_sum_key(), standing.row);
    return OK;
}

struct err hs_media_usage_add(struct hs *hs, struct ctx *ctx, const struct media *media,
                              struct store_update **update_out, struct media_usage *usage_out)
{
    TRY(begin_change(hs, ctx, media, update_out, usage_out));
    usage_out->bytes += media->bytes;
    usage_out->files++;
    store_put(*update_out, media->media_id, hs_media_encode_number(ctx, media->bytes));
    store_put(*update_out, hs_media_usage_sum_key(), hs_media_encode_usage(ctx, usage_out));
    return OK;
}

struct err hs_media_usage_remove(struct hs *hs, struct ctx *ctx, const struct media *media,
                                 struct store_update **update_out)
{
    struct media_usage usage;
    TRY(begin_change(hs, ctx, media, update_out, &usage));
    store_delete(*update_out, media->media_id);
    if (usage.files > 0) {
        store_put(*update_out, hs_media_usage_sum_key(), hs_media_encode_usage(ctx, &usage));
    } else {
        store_delete(*update_out, hs_media_usage_sum_key());
    }
    return OK;
}

/* --- files from before --- */

struct counting {
    struct hs *hs;
    struct ctx page; /* of one file */
};

static struct err count_object(void *arg, struct slice id)
{
    struct counting *counting = arg;
    struct ctx *ctx = &counting->page;
    struct media media;
    struct media_usage usage;
    struct store_update *update = NULL;
    struct slice row;
    bool found = false;
    arena_reset(ctx->arena);
    struct slice media_id = arena_copy(ctx->arena, id);
    TRY(store_get(counting->hs->store, ctx, hs_media_object(media_id), hs_media_record_key(), &row,
                  &found));
    if (!found) {
        return OK;
    }
    struct err err = hs_media_decode(row, media_id, &media);
    if (err.code != 0 || !hs_media_counts(&media)) {
        return OK; /* a check reports the record that cannot be read */
    }
    TRY(hs_media_usage_add(counting->hs, ctx, &media, &update, &usage));
    return store_write(counting->hs->store, ctx, &update, 1);
}

struct err hs_media_usage_start(struct hs *hs, struct ctx *ctx)
{
    struct counting counting = {.hs = hs, .page = *ctx};
    struct slice mark;
    bool found = false;
    TRY(store_get(hs->store, ctx, meta, MARK_KEY, &mark, &found));
    if (found) {
        return OK;
    }
    counting.page.arena = arena_new();
    struct err err = store_each_object(hs->store, ctx, STORE_MEDIA, count_object, &counting);
    arena_free(&counting.page.arena);
    TRY(err);
    struct store_update *update = store_update_new(ctx, meta);
    store_put(update, MARK_KEY, LIT("1"));
    return store_write(hs->store, ctx, &update, 1);
}
