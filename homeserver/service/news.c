#include "homeserver/service/news.h"

/* be64 room, order-keeping first -> last, stamp. */
static const struct store_object notes_object = {STORE_SERVER, {"history_news", 12}};

static struct slice note_key(struct ctx *ctx, const struct history_note *note)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, 32);
    pack_be64(&key, note->room);
    pack_be_i64(&key, note->first);
    return buf_slice(&key);
}

static struct slice note_value(struct ctx *ctx, const struct history_note *note)
{
    struct buf value;
    buf_init_arena(&value, ctx->arena, 32);
    pack_i64(&value, note->last);
    pack_i64(&value, note->stamp);
    return buf_slice(&value);
}

static struct err decode(const struct store_row *row, struct history_note *note_out)
{
    struct unpack key = unpack_of(row->key);
    struct unpack value = unpack_of(row->value);
    note_out->room = unpack_be64(&key);
    note_out->first = unpack_be_i64(&key);
    note_out->last = unpack_i64(&value);
    note_out->stamp = unpack_i64(&value);
    TRY(unpack_check(&key));
    return unpack_check(&value);
}

struct err hs_news_history_begin(struct hs *hs, struct ctx *ctx, struct history_note *note)
{
    if (!hs->news) {
        return OK;
    }
    note->stamp = now_mono_us();
    struct store_update *update = store_update_new(ctx, notes_object);
    store_put(update, note_key(ctx, note), note_value(ctx, note));
    return store_write(hs->store, ctx, &update, 1);
}

void hs_news_history(struct hs *hs, const struct history_note *note)
{
    if (hs->news) {
        hs->news->history(hs->news->arg, note);
    }
}

struct err hs_news_history_left(struct hs *hs, struct ctx *ctx, struct history_notes *notes_out)
{
    struct store_rows rows;
    TRY(store_read_range(hs->store, ctx, notes_object, (struct store_range){0}, &rows));
    *notes_out = (struct history_notes){
        .items = arena_array(ctx->arena, rows.count + 1, sizeof *notes_out->items),
        .count = rows.count};
    for (size_t i = 0; i < rows.count; i++) {
        TRY(decode(&rows.rows[i], &notes_out->items[i]));
    }
    return OK;
}

/* A row that was written anew meanwhile stays. */
static struct err drop_row(struct hs *hs, struct ctx *ctx, const struct history_note *note)
{
    struct store_update *update = store_update_new(ctx, notes_object);
    store_expect(update, note_key(ctx, note), note_value(ctx, note));
    store_delete(update, note_key(ctx, note));
    struct err err = store_write(hs->store, ctx, &update, 1);
    return err.code == ERR_CONFLICT ? OK : err;
}

struct err hs_news_history_done(struct hs *hs, struct ctx *ctx, const struct history_notes *notes)
{
    for (size_t i = 0; i < notes->count; i++) {
        TRY(drop_row(hs, ctx, &notes->items[i]));
    }
    return OK;
}

void hs_news_purged(struct hs *hs, uint64_t room)
{
    if (hs->news) {
        hs->news->purged(hs->news->arg, room);
    }
}

void hs_news_account(struct hs *hs, uint64_t user)
{
    if (hs->news) {
        hs->news->account(hs->news->arg, user);
    }
}
