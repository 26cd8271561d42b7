#include "homeserver/service/reports.h"

static struct store_object reports_object(void)
{
    return (struct store_object){STORE_SERVER, LIT("reports")};
}

static struct slice encode(struct ctx *ctx, const struct report *report)
{
    struct buf row;
    struct slice reason = report->reason;
    if (reason.len > REPORT_REASON_BYTES_MAX) {
        size_t end = REPORT_REASON_BYTES_MAX;
        while (((unsigned char)reason.ptr[end] & 0xC0) == 0x80) { /* not within a character */
            end--;
        }
        reason = slice_sub(reason, 0, end);
    }
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    pack_i64(&row, now_wall_ms(ctx->now));
    pack_bytes(&row, report->reporter);
    pack_bytes(&row, report->room_id);
    pack_bytes(&row, report->event_id);
    pack_bytes(&row, report->user_id);
    pack_bytes(&row, reason);
    return buf_slice(&row);
}

static struct err decode(const struct store_row *row, struct report *report)
{
    struct unpack key = unpack_of(row->key);
    struct unpack in = unpack_of(row->value);
    report->number = unpack_be64(&key);
    report->received_ms = unpack_i64(&in);
    report->reporter = unpack_bytes(&in);
    report->room_id = unpack_bytes(&in);
    report->event_id = unpack_bytes(&in);
    report->user_id = unpack_bytes(&in);
    report->reason = unpack_bytes(&in);
    return unpack_check(&in);
}

static struct err next_number(struct hs *hs, struct ctx *ctx, uint64_t *number_out)
{
    struct store_rows rows;
    struct store_range newest = {.limit = 1, .order = STORE_REVERSE};
    *number_out = 1;
    TRY(store_read_range(hs->store, ctx, reports_object(), newest, &rows));
    if (rows.count) {
        struct unpack key = unpack_of(rows.rows[0].key);
        *number_out = unpack_be64(&key) + 1;
    }
    return OK;
}

/* Two at once may want the same number: the second takes the next. */
struct err hs_report_add(struct hs *hs, struct ctx *ctx, const struct report *report)
{
    struct err err = OK;
    do {
        uint64_t number = 0;
        TRY(next_number(hs, ctx, &number));
        struct store_update *update = store_update_new(ctx, reports_object());
        struct slice key = store_id_u64(ctx->arena, number);
        store_expect(update, key, (struct slice){0});
        store_put(update, key, encode(ctx, report));
        err = store_write(hs->store, ctx, &update, 1);
    } while (err.code == ERR_CONFLICT);
    return err;
}

struct err hs_reports_list(struct hs *hs, struct ctx *ctx, uint64_t from, size_t limit,
                           struct reports *reports_out)
{
    struct store_rows rows;
    struct store_range range = {.from = store_id_u64(ctx->arena, from), .limit = limit};
    TRY(store_read_range(hs->store, ctx, reports_object(), range, &rows));
    reports_out->items = arena_array(ctx->arena, rows.count, sizeof *reports_out->items);
    reports_out->count = rows.count;
    for (size_t i = 0; i < rows.count; i++) {
        TRY(decode(&rows.rows[i], &reports_out->items[i]));
    }
    return OK;
}

struct err hs_report_delete(struct hs *hs, struct ctx *ctx, uint64_t number)
{
    struct slice value;
    bool found = false;
    struct slice key = store_id_u64(ctx->arena, number);
    TRY(store_get(hs->store, ctx, reports_object(), key, &value, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "There is no report of this number.");
    }
    struct store_update *update = store_update_new(ctx, reports_object());
    store_delete(update, key);
    return store_write(hs->store, ctx, &update, 1);
}
