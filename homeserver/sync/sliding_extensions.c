/* What an answer carries besides rooms. Each extension says up to where a room was told of it, so
 * that a room that comes into view later is told of what it missed.
 * Spec: MSC4186, "Extensions"; MSC3884 (encryption), MSC3885 (to-device), MSC3959 (account data),
 * MSC3960 (receipts), MSC4508 (typing). */
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/thread_subs.h"
#include "homeserver/sync/sliding_priv.h"

#include <stdlib.h>

static struct err room_id_of(struct sliding_job *job, size_t at, struct room **room_out,
                             struct slice *room_id_out)
{
    TRY(hs_room_get(job->base.hs, job->base.ctx, job->matches[at].entry->room, room_out));
    *room_id_out = hs_room_info(*room_out).room_id;
    return OK;
}

/* Whether something may be new of the room after `pos`, up to which it was told of. */
static bool may_be_new(const struct sliding_job *job, size_t at, uint64_t pos)
{
    const struct sliding_entry *entry = job->matches[at].entry;
    return pos == 0 || (job->all && entry->changed_pos > pos) ||
           sync_sliding_changed(job, entry->room);
}

/* --- account data --- */

static void write_datum(const struct account_datum *datum, struct json_out *out)
{
    json_out_object(out);
    json_out_key_string(out, LIT("type"), datum->type);
    json_out_key_raw(out, LIT("content"), datum->content);
    json_out_object_end(out);
}

static bool write_data(const struct account_data *data, uint64_t room, uint64_t after,
                       struct json_out *out)
{
    bool any = false;
    json_out_array(out);
    for (size_t i = 0; i < data->count; i++) {
        if (data->items[i].room == room && data->items[i].pos >= after) {
            write_datum(&data->items[i], out);
            any = true;
        }
    }
    json_out_array_end(out);
    return any;
}

/* Up to where account data is told of already, of everything in scope. */
static uint64_t oldest_told(const struct sliding_job *job, const struct sliding_in *scope)
{
    uint64_t oldest = job->conn->had.account_pos;
    for (size_t i = 0; job->all && i < job->match_count; i++) {
        const struct sliding_sent *sent =
            sync_sliding_in_scope(job, scope, i) ? sync_sliding_told(job, i) : NULL;
        if (sent && sent->account_pos > 0 && (oldest == 0 || sent->account_pos < oldest)) {
            oldest = sent->account_pos;
        }
    }
    return oldest;
}

static bool has_room(const struct account_data *data, uint64_t room)
{
    for (size_t i = 0; i < data->count; i++) {
        if (data->items[i].room == room) {
            return true;
        }
    }
    return false;
}

static struct err write_room_data(struct sliding_job *job, size_t at,
                                  const struct account_data *newer, struct json_out *out)
{
    struct sync_job *base = &job->base;
    uint64_t number = job->matches[at].entry->room;
    uint64_t pos = sync_sliding_told(job, at)->account_pos;
    struct account_data data = *newer;
    struct room *room = NULL;
    struct slice room_id;
    if (pos == 0) {
        TRY(hs_account_data_of_room(base->hs, base->ctx, base->viewer.user, number, base->upto,
                                    &data));
        sync_sliding_change(job, at)->account_pos = base->upto;
    }
    if (!has_room(&data, number)) {
        return OK;
    }
    struct sync_undo undo = sync_undo_mark(out);
    TRY(room_id_of(job, at, &room, &room_id));
    json_out_key(out, room_id);
    if (!write_data(&data, number, pos + 1, out)) {
        sync_undo_to(out, undo);
        return OK;
    }
    sync_sliding_change(job, at)->account_pos = base->upto;
    return OK;
}

static struct err write_global_data(struct sliding_job *job, const struct account_data *newer,
                                    struct json_out *out)
{
    struct sync_job *base = &job->base;
    struct account_data data = *newer;
    uint64_t had = job->conn->had.account_pos;
    if (had == 0) {
        TRY(hs_account_data_of_room(base->hs, base->ctx, base->viewer.user, 0, base->upto, &data));
    }
    struct sync_undo undo = sync_undo_mark(out);
    json_out_key(out, LIT("global"));
    if (!write_data(&data, 0, had == 0 ? 0 : had + 1, out)) {
        sync_undo_to(out, undo);
    }
    job->account_pos = base->upto;
    return OK;
}

static struct err write_account_data(struct sliding_job *job, struct json_out *out)
{
    struct sync_job *base = &job->base;
    struct sliding_in scope = sync_sliding_scope(job, &job->request->account_data);
    struct account_data newer = {0};
    uint64_t oldest = oldest_told(job, &scope);
    if (oldest > 0 && job->look.account_pos > oldest) {
        TRY(hs_account_data_since(base->hs, base->ctx, base->viewer.user, oldest, base->upto,
                                  &newer));
    }
    TRY(write_global_data(job, &newer, out));
    json_out_key_object(out, LIT("rooms"));
    for (size_t i = 0; i < job->match_count; i++) {
        if (sync_sliding_in_scope(job, &scope, i) &&
            (newer.count > 0 || sync_sliding_told(job, i)->account_pos == 0)) {
            TRY(write_room_data(job, i, &newer, out));
        }
    }
    json_out_object_end(out);
    return OK;
}

/* --- receipts --- */

static void append(struct ctx *ctx, struct receipts *all, const struct receipts *more,
                   struct slice user_id)
{
    all->items = arena_grow(ctx->arena, all->items, all->count * sizeof *all->items,
                            (all->count + more->count) * sizeof *all->items);
    for (size_t i = 0; i < more->count; i++) {
        bool known = false;
        for (size_t j = 0; j < all->count && !known; j++) {
            known = all->items[j].pos == more->items[i].pos;
        }
        if (!known) {
            all->items[all->count] = more->items[i];
            all->items[all->count++].user_id = user_id;
        }
    }
}

/* A room that is new to the client: its own receipts, and those for the events it has now, which
 * came after the first of them. */
static struct err read_receipts(struct sliding_job *job, size_t at, struct room *room,
                                struct receipts *receipts)
{
    struct sync_job *base = &job->base;
    struct receipts own;
    uint64_t since = sync_sliding_told(job, at)->receipts_pos;
    uint64_t first = job->timeline_pos[at];
    if (since > 0) {
        return hs_receipts_since(base->hs, base->ctx, room, base->viewer.user, since, base->upto,
                                 receipts);
    }
    *receipts = (struct receipts){0};
    TRY(hs_receipts_of_user(base->hs, base->ctx, room, base->viewer.user, &own));
    if (first > 0) {
        TRY(hs_receipts_since(base->hs, base->ctx, room, base->viewer.user, first - 1, base->upto,
                              receipts));
    }
    append(base->ctx, receipts, &own, base->viewer.user_id);
    return OK;
}

static struct err write_room_receipts(struct sliding_job *job, size_t at, struct json_out *out)
{
    struct receipts receipts;
    struct room *room = NULL;
    struct slice room_id;
    TRY(room_id_of(job, at, &room, &room_id));
    TRY(read_receipts(job, at, room, &receipts));
    bool first = sync_sliding_told(job, at)->receipts_pos == 0;
    if (first || receipts.count > 0) {
        sync_sliding_change(job, at)->receipts_pos = job->base.upto;
    }
    if (receipts.count == 0) {
        return OK;
    }
    const struct receipt **list = arena_array(job->base.ctx->arena, receipts.count, sizeof *list);
    for (size_t i = 0; i < receipts.count; i++) {
        list[i] = &receipts.items[i];
    }
    json_out_key_object(out, room_id);
    json_out_key_string(out, LIT("type"), LIT("m.receipt"));
    json_out_key_object(out, LIT("content"));
    sync_write_receipts(list, receipts.count, out);
    json_out_object_end(out);
    json_out_object_end(out);
    return OK;
}

static struct err write_receipts(struct sliding_job *job, struct json_out *out)
{
    struct sliding_in scope = sync_sliding_scope(job, &job->request->receipts);
    json_out_key_object(out, LIT("rooms"));
    for (size_t i = 0; i < job->match_count; i++) {
        if (sync_sliding_in_scope(job, &scope, i) &&
            may_be_new(job, i, sync_sliding_told(job, i)->receipts_pos)) {
            TRY(write_room_receipts(job, i, out));
        }
    }
    json_out_object_end(out);
    return OK;
}

/* --- typing --- */

static struct err write_room_typing(struct sliding_job *job, size_t at, struct json_out *out)
{
    struct slice *user_ids = NULL;
    struct room *room = NULL;
    struct slice room_id;
    uint64_t pos = 0;
    uint64_t since = sync_sliding_told(job, at)->typing_pos;
    size_t count =
        hs_typing_get(job->base.hs, job->base.ctx, job->matches[at].entry->room, &user_ids, &pos);
    /* Spec: MSC4508, "Semantics": whoever types is told of when a room comes into view again. */
    bool tell = (count > 0 && (since == 0 || job->all)) || (since > 0 && pos > since);
    if (since == 0 || tell) {
        sync_sliding_change(job, at)->typing_pos = job->base.upto;
    }
    if (!tell) {
        return OK;
    }
    TRY(room_id_of(job, at, &room, &room_id));
    json_out_key_object(out, room_id);
    json_out_key_string(out, LIT("type"), LIT("m.typing"));
    hs_typing_write(user_ids, count, out);
    json_out_object_end(out);
    return OK;
}

static struct err write_typing(struct sliding_job *job, struct json_out *out)
{
    struct sliding_in scope = sync_sliding_scope(job, &job->request->typing);
    json_out_key_object(out, LIT("rooms"));
    for (size_t i = 0; i < job->match_count; i++) {
        if (sync_sliding_in_scope(job, &scope, i) &&
            (job->all || may_be_new(job, i, sync_sliding_told(job, i)->typing_pos))) {
            TRY(write_room_typing(job, i, out));
        }
    }
    json_out_object_end(out);
    return OK;
}

/* --- to-device --- */

static struct err write_to_device(struct sliding_job *job, struct json_out *out)
{
    struct sync_job *base = &job->base;
    struct slice device_id = base->viewer.device_id;
    struct sync_token since = {0};
    struct sync_token next = {base->upto, base->upto};
    size_t limit = job->request->to_device.limit;
    if (job->request->to_device.since.ptr != NULL) {
        TRY(sync_token_check(job->request->to_device.since,
                             positions_published(base->hs->positions), &since));
    }
    if (device_id.len > 0 &&
        hs_inbox_may_have(base->hs, base->viewer.user, device_id, since.inbox)) {
        struct inbox_range wanted = {.since = since.inbox, .upto = base->upto, .limit = limit};
        TRY(hs_inbox_read(base->hs, base->ctx, base->viewer.user, device_id, wanted, &base->inbox));
    }
    const struct to_device_messages *inbox = &base->inbox;
    if (inbox->count > 0 && inbox->count == limit) {
        next.pos = next.inbox = inbox->items[inbox->count - 1].pos;
    }
    json_out_key_string(out, LIT("next_batch"), sync_token_encode(base->ctx->arena, next));
    json_out_key_array(out, LIT("events"));
    for (size_t i = 0; i < inbox->count; i++) {
        json_out_raw(out, inbox->items[i].json);
    }
    json_out_array_end(out);
    base->news = base->news || inbox->count > 0;
    return OK;
}

/* --- encryption --- */

static struct err write_e2ee(struct sliding_job *job, struct json_out *out)
{
    job->base.since = job->since;
    if (!job->initial && !job->look.nothing) {
        TRY(sync_sliding_neighbours(job));
        TRY(sync_write_device_lists(&job->base, out));
    }
    return sync_write_key_counts(&job->base, out);
}

/* --- all --- */

/* Writes one that is left out when it has nothing to say. */
static struct err write_quiet(struct sliding_job *job, struct slice name,
                              struct err (*write)(struct sliding_job *job, struct json_out *out),
                              struct json_out *out)
{
    static const struct slice empties[] = {{"\"rooms\":{}", 10}};
    struct sync_undo undo = sync_undo_mark(out);
    json_out_key_object(out, name);
    size_t start = out->buf->len;
    TRY(write(job, out));
    struct slice written = slice_from(buf_slice(out->buf), start);
    bool empty = written.len == 0 || slice_eq(written, empties[0]);
    json_out_object_end(out);
    if (empty) {
        sync_undo_to(out, undo);
    } else {
        job->base.news = true;
    }
    return OK;
}

/* --- threads that are followed (MSC4308) --- */

static struct err write_thread_subs(struct sliding_job *job, struct json_out *out)
{
    struct sync_job *base = &job->base;
    struct thread_subs subs;
    if (job->look.nothing && !job->initial) {
        return OK;
    }
    struct thread_sub_window window = {.since = job->initial ? 0 : job->conn->had.pos,
                                       .upto = base->upto,
                                       .limit = job->request->thread_subs.limit};
    TRY(hs_thread_subs_changed(base->hs, base->ctx, base->viewer.user, window, &subs));
    uint64_t last = subs.count ? subs.items[subs.count - 1].pos : 0;
    bool has_more = subs.count == window.limit;
    TRY(hs_thread_subs_write(base->hs, base->ctx, &subs, out));
    if (has_more) {
        json_out_key_string(
            out, LIT("prev_batch"),
            arena_printf(base->ctx->arena, "h%llu", (unsigned long long)(last - 1)));
    }
    return OK;
}

struct err sync_sliding_write_extensions(struct sliding_job *job, struct json_out *out)
{
    const struct sliding_request *request = job->request;
    json_out_key_object(out, LIT("extensions"));
    if (request->to_device.enabled) {
        json_out_key_object(out, LIT("to_device"));
        TRY(write_to_device(job, out));
        json_out_object_end(out);
    }
    if (request->e2ee) {
        json_out_key_object(out, LIT("e2ee"));
        TRY(write_e2ee(job, out));
        json_out_object_end(out);
    }
    if (request->account_data.enabled) {
        TRY(write_quiet(job, LIT("account_data"), write_account_data, out));
    }
    if (request->receipts.enabled) {
        TRY(write_quiet(job, LIT("receipts"), write_receipts, out));
    }
    if (request->typing.enabled) {
        TRY(write_quiet(job, LIT("typing"), write_typing, out));
    }
    if (request->presence) {
        TRY(sync_sliding_write_presence(job, out));
    }
    if (request->profiles.scope.enabled) {
        TRY(write_quiet(job, LIT("org.matrix.msc4262.profiles"), sync_sliding_write_profiles, out));
    }
    if (request->thread_subs.enabled) {
        TRY(write_quiet(job, LIT("io.element.msc4308.thread_subscriptions"), write_thread_subs,
                        out));
    }
    json_out_object_end(out);
    return OK;
}
