/* What a room's part of an answer holds besides events: receipts, typing, account data, counts.
 * Spec: client-server, "Receipts", "Typing Notifications", "Client Config", "Receiving
 * notifications". */
#include "homeserver/sync/priv.h"

#include <stdlib.h>

/* --- receipts --- */

static int by_event_type_user(const void *a, const void *b)
{
    const struct receipt *left = *(const struct receipt *const *)a;
    const struct receipt *right = *(const struct receipt *const *)b;
    int order = slice_cmp(left->event_id, right->event_id);
    if (order == 0) {
        order = (left->type > right->type) - (left->type < right->type);
    }
    if (order == 0) {
        order = slice_cmp(left->user_id, right->user_id);
    }
    /* Of two receipts of one user for one event the unthreaded one says more: it comes last. */
    return order != 0 ? order : (left->thread.ptr == NULL) - (right->thread.ptr == NULL);
}

static bool same_place(const struct receipt *a, const struct receipt *b)
{
    return a->type == b->type && slice_eq(a->event_id, b->event_id) &&
           slice_eq(a->user_id, b->user_id);
}

static struct slice type_name(enum receipt_type type)
{
    return type == RECEIPT_READ ? LIT("m.read") : LIT("m.read.private");
}

static void write_receipt(const struct receipt *receipt, struct json_out *out)
{
    json_out_key_object(out, receipt->user_id);
    json_out_key_int(out, LIT("ts"), receipt->ts_ms);
    if (receipt->thread.ptr != NULL) {
        json_out_key_string(out, LIT("thread_id"), receipt->thread);
    }
    json_out_object_end(out);
}

/* content: event id -> receipt type -> user id -> data, from a sorted list. */
static void write_receipt_tree(const struct receipt **list, size_t count, struct json_out *out)
{
    for (size_t i = 0; i < count; i++) {
        bool new_event = i == 0 || !slice_eq(list[i]->event_id, list[i - 1]->event_id);
        bool new_type = new_event || list[i]->type != list[i - 1]->type;
        bool last_of_event = i + 1 == count || !slice_eq(list[i]->event_id, list[i + 1]->event_id);
        bool last_of_type = last_of_event || list[i]->type != list[i + 1]->type;
        if (new_event) {
            json_out_key_object(out, list[i]->event_id);
        }
        if (new_type) {
            json_out_key_object(out, type_name(list[i]->type));
        }
        if (last_of_type || !same_place(list[i], list[i + 1])) {
            write_receipt(list[i], out);
        }
        if (last_of_type) {
            json_out_object_end(out);
        }
        if (last_of_event) {
            json_out_object_end(out);
        }
    }
}

void sync_write_receipts(const struct receipt **list, size_t count, struct json_out *out)
{
    if (count > 0) {
        qsort(list, count, sizeof *list, by_event_type_user);
    }
    write_receipt_tree(list, count, out);
}

static struct err write_receipts(struct sync_job *job, struct sync_room *room, struct json_out *out,
                                 bool *news_out)
{
    struct receipts receipts;
    uint64_t since = room->fresh ? 0 : job->since;
    if (room->head.receipt_pos <= since) {
        return OK;
    }
    TRY(hs_receipts_since(job->hs, job->room_ctx, room->room, job->viewer.user, since, job->upto,
                          &receipts));
    if (receipts.count == 0) {
        return OK;
    }
    *news_out = true;
    if (!sync_filter_takes_type(&job->filter->room_ephemeral, LIT("m.receipt"))) {
        return OK;
    }
    const struct receipt **list = arena_array(job->room_ctx->arena, receipts.count, sizeof *list);
    for (size_t i = 0; i < receipts.count; i++) {
        list[i] = &receipts.items[i];
    }
    json_out_object(out);
    json_out_key_string(out, LIT("type"), LIT("m.receipt"));
    json_out_key_object(out, LIT("content"));
    sync_write_receipts(list, receipts.count, out);
    json_out_object_end(out);
    json_out_object_end(out);
    return OK;
}

/* --- typing --- */

static void write_typing(struct sync_job *job, struct sync_room *room, struct json_out *out,
                         bool *news_out)
{
    struct slice *user_ids = NULL;
    uint64_t pos = 0;
    size_t count = hs_typing_get(job->hs, job->room_ctx, room->info.number, &user_ids, &pos);
    bool changed = room->fresh ? count > 0 : pos > job->since;
    if (!changed || !sync_filter_takes_type(&job->filter->room_ephemeral, LIT("m.typing"))) {
        return;
    }
    *news_out = true;
    json_out_object(out);
    json_out_key_string(out, LIT("type"), LIT("m.typing"));
    hs_typing_write(user_ids, count, out);
    json_out_object_end(out);
}

struct err sync_write_ephemeral(struct sync_job *job, struct sync_room *room, struct json_out *out,
                                bool *news_out)
{
    json_out_key_object(out, LIT("ephemeral"));
    json_out_key_array(out, LIT("events"));
    if (sync_filter_takes_room(&job->filter->room_ephemeral, room->info.room_id)) {
        TRY(write_receipts(job, room, out, news_out));
        write_typing(job, room, out, news_out);
    }
    json_out_array_end(out);
    json_out_object_end(out);
    return OK;
}

/* --- account data --- */

static void write_datum(const struct account_datum *datum, struct json_out *out)
{
    json_out_object(out);
    json_out_key_string(out, LIT("type"), datum->type);
    json_out_key_raw(out, LIT("content"), datum->content);
    json_out_object_end(out);
}

/* Account data has no sender; a filter for senders does not concern it. */
static bool write_data(const struct account_data *data, uint64_t room,
                       const struct sync_event_filter *filter, struct json_out *out)
{
    bool any = false;
    for (size_t i = 0; i < data->count; i++) {
        const struct account_datum *datum = &data->items[i];
        if (datum->room == room && sync_filter_takes_type(filter, datum->type)) {
            write_datum(datum, out);
            any = true;
        }
    }
    return any;
}

struct err sync_write_room_account_data(struct sync_job *job, struct sync_room *room,
                                        struct json_out *out, bool *news_out)
{
    struct account_data all;
    const struct account_data *data = &job->account;
    /* A room that is new to the client may have old account data. */
    if (room->fresh && job->since > 0) {
        TRY(hs_account_data_since(job->hs, job->room_ctx, job->viewer.user, 0, job->upto, &all));
        data = &all;
    }
    json_out_key_object(out, LIT("account_data"));
    json_out_key_array(out, LIT("events"));
    if (sync_filter_takes_room(&job->filter->room_account_data, room->info.room_id) &&
        write_data(data, room->info.number, &job->filter->room_account_data, out)) {
        *news_out = true;
    }
    json_out_array_end(out);
    json_out_object_end(out);
    return OK;
}

struct err sync_write_account_data(struct sync_job *job, struct json_out *out)
{
    struct sync_undo undo = sync_undo_mark(out);
    json_out_key_object(out, LIT("account_data"));
    json_out_key_array(out, LIT("events"));
    bool any = write_data(&job->account, 0, &job->filter->account_data, out);
    json_out_array_end(out);
    json_out_object_end(out);
    if (!any) {
        sync_undo_to(out, undo);
    }
    job->news = job->news || any;
    return OK;
}

/* --- counts --- */

static void write_counts(uint32_t notify, uint32_t highlight, struct json_out *out)
{
    json_out_key_int(out, LIT("notification_count"), notify);
    json_out_key_int(out, LIT("highlight_count"), highlight);
    json_out_object_end(out);
}

struct err sync_count_unread(struct sync_job *job, struct sync_room *room,
                             struct unread_counts *counts_out)
{
    struct counts_request request = {.user = job->viewer.user,
                                     .user_id = job->viewer.user_id,
                                     .joined_number = room->entry.joined_number,
                                     .upto = job->upto};
    *counts_out = (struct unread_counts){0};
    return room->entry.membership == MEMBERSHIP_JOIN
               ? hs_unread_counts_of(job->hs, job->room_ctx, room->room, &request, counts_out)
               : OK;
}

struct err sync_write_unread(struct sync_job *job, struct sync_room *room, struct json_out *out)
{
    struct unread_counts counts;
    bool threads = job->filter->room_timeline.unread_thread_notifications;
    TRY(sync_count_unread(job, room, &counts));
    json_out_key_object(out, LIT("unread_notifications"));
    write_counts(threads ? counts.main.notify : counts.notify_all,
                 threads ? counts.main.highlight : counts.highlight_all, out);
    if (!threads || counts.thread_count == 0) {
        return OK;
    }
    json_out_key_object(out, LIT("unread_thread_notifications"));
    for (size_t i = 0; i < counts.thread_count; i++) {
        json_out_key_object(out, counts.threads[i].thread);
        write_counts(counts.threads[i].notify, counts.threads[i].highlight, out);
    }
    json_out_object_end(out);
    return OK;
}
