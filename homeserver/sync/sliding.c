#include "homeserver/sync/sliding.h"

#include "homeserver/base/mem.h"
#include "homeserver/sync/sliding_priv.h"

#include <stdlib.h>
#include <string.h>

/* --- life --- */

struct sync_sliding *sync_sliding_new(struct sync *sync)
{
    struct sync_sliding *sliding = mem_alloc(sizeof *sliding);
    int64_t now_ms = now_wall_ms(sync->hs->now);
    sliding->sync = sync;
    /* By the clock: connections of before a restart have smaller ones. */
    sliding->conns = sync_sliding_conns_new((uint64_t)(now_ms > 0 ? now_ms : 0));
    sliding->facts = sync_sliding_facts_new(sync->hs);
    sliding->lists = sync_sliding_lists_new(sync, sliding->facts);
    return sliding;
}

void sync_sliding_free(struct sync_sliding **sliding)
{
    if (*sliding == NULL) {
        return;
    }
    sync_sliding_lists_free(&(*sliding)->lists);
    sync_sliding_facts_free(&(*sliding)->facts);
    sync_sliding_conns_free(&(*sliding)->conns);
    mem_free(*sliding);
    *sliding = NULL;
}

void sync_sliding_forget(struct sync *sync)
{
    struct sync_sliding *sliding = sync->sliding;
    int64_t now_ms = now_wall_ms(sync->hs->now);
    sync_sliding_conns_free(&sliding->conns);
    sliding->conns = sync_sliding_conns_new((uint64_t)(now_ms > 0 ? now_ms : 0) + 1);
}

/* --- the connection --- */

static struct err unknown_pos(void)
{
    return err_public(ERR_M_UNKNOWN_POS,
                      "This pos is not known here any more; begin again without one.");
}

/* A loop tells of nothing new at most: more takes too long there. */
static struct err check_thread(const struct sliding_job *job, bool nothing)
{
    return job->base.ctx->on_loop && !nothing ? err_make(ERR_WAITS, "there is news") : OK;
}

static bool asks_for_rooms(const struct sliding_request *request)
{
    return request->list_count + request->subscription_count > 0;
}

/* A request that asks for no rooms needs none of the memory of its connection: what the pos says is
 * enough, also after a restart, but for changes of profiles, which are in memory too. */
static struct err resume(struct sliding_job *job, const struct sliding_pos *pos)
{
    uint64_t published = positions_published(job->base.hs->positions);
    if (asks_for_rooms(job->request) || job->request->profiles.scope.enabled ||
        pos->pos > published || pos->seq == 0) {
        return unknown_pos();
    }
    TRY(check_thread(job, false));
    job->conn = sync_sliding_begin(job->sliding->conns, &job->key);
    job->conn->had =
        (struct sliding_mark){.seq = pos->seq, .pos = pos->pos, .account_pos = pos->pos};
    job->conn->seq = pos->seq;
    return OK;
}

/* Takes the connection; job->conn NULL: a newer request has taken over. */
static struct err open_connection(struct sliding_job *job, const struct sliding_asking *asking)
{
    struct sliding_conns *conns = job->sliding->conns;
    struct sliding_pos pos;
    if (asking->pos.ptr == NULL) {
        TRY(check_thread(job, false));
        job->conn = sync_sliding_begin(conns, &job->key);
        job->conn->serial++;
        job->initial = true;
        return OK;
    }
    TRY(sync_sliding_pos_parse(asking->pos, &job->key, &pos));
    TRY(sync_sliding_take(conns, job->base.ctx, &job->key, &job->conn));
    bool known = job->conn && job->conn->epoch == pos.epoch;
    bool waited = asking->serial != 0;
    if (waited && known && job->conn->serial == asking->serial && job->conn->had.seq == pos.seq) {
        job->since = job->conn->had.pos;
        return OK;
    }
    if (!waited && known && sync_sliding_acknowledge(job->conn, pos.seq)) {
        job->conn->serial++;
        job->since = job->conn->had.pos;
        return OK;
    }
    if (job->conn) {
        sync_sliding_put_back(conns, job->conn);
        job->conn = NULL;
    }
    if (waited) {
        return known ? OK : unknown_pos();
    }
    if (known) {
        return unknown_pos();
    }
    TRY(resume(job, &pos));
    job->conn->serial++;
    job->since = job->conn->had.pos;
    return OK;
}

/* --- looking --- */

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static struct err look_at_changes(struct sliding_job *job)
{
    struct sync_job *base = &job->base;
    TRY(sync_sessions_look(base->sync->sessions, base->ctx, base->viewer.user, job->since,
                           &job->look));
    size_t count = job->look.room_count;
    job->changed = arena_array(base->ctx->arena, count + 1, sizeof *job->changed);
    if (count > 0) {
        memcpy(job->changed, job->look.rooms, count * sizeof *job->changed);
        qsort(job->changed, count, sizeof *job->changed, by_value);
    }
    base->look = job->look;
    base->upto = job->look.upto;
    return OK;
}

/* Nothing happened, and the client wants what it wanted: no room need be looked at. */
static bool is_idle(const struct sliding_job *job)
{
    return !job->initial && job->look.nothing &&
           job->conn->had.fingerprint == job->request->fingerprint;
}

/* The rooms as of one position, and what changed up to there at least. */
static struct err look_at_rooms(struct sliding_job *job)
{
    const struct sliding_mark *had = &job->conn->had;
    TRY(sync_sliding_rooms(job->sliding->lists, &job->base, sync_sliding_wants(job->request),
                           &job->rooms));
    TRY(look_at_changes(job));
    job->base.upto = job->rooms.upto;
    job->all = job->initial || !job->look.complete ||
               had->fingerprint != job->request->fingerprint ||
               had->list_version != job->rooms.version;
    return sync_sliding_match(job);
}

/* --- rooms --- */

/* Whether the room may have something to tell. */
static struct err is_candidate(struct sliding_job *job, const struct sliding_match *match,
                               bool *candidate_out)
{
    struct sliding_ask_state ask;
    const struct sliding_entry *entry = match->entry;
    *candidate_out = sync_sliding_changed(job, entry->room);
    if (*candidate_out || !job->all) {
        return OK;
    }
    const struct sliding_sent *sent = sync_sliding_sent(job->conn, entry->room);
    *candidate_out = true;
    if (sent == NULL || entry->changed_pos > sent->pos || entry->member_pos > sent->pos ||
        ((entry->flags & SLIDING_DM) != 0) != sent->is_dm) {
        return OK;
    }
    TRY(sync_sliding_combine(job, match, &ask));
    *candidate_out = ask.timeline_limit > sent->timeline_limit ||
                     !slice_eq(ask.text, job->conn->configs_owned[sent->config]);
    return OK;
}

/* In memory of its own: an answer about many rooms stays in the processor's cache. */
static struct err write_room_apart(struct sliding_job *job, size_t match, struct arena *arena,
                                   struct json_out *out)
{
    struct sync_job *base = &job->base;
    struct ctx ctx = *base->ctx;
    ctx.arena = arena;
    ctx.deferred = NULL;
    base->room_ctx = &ctx;
    base->memo = (struct view_memo){0};
    struct err err = sync_sliding_write_room(job, match, out);
    base->room_ctx = base->ctx;
    base->memo = (struct view_memo){0};
    if (err.code != 0) {
        err.text = arena_cstr(base->ctx->arena, slice_of(err.text));
    }
    ctx_finish(&ctx);
    arena_reset(arena);
    return err;
}

static struct err write_rooms(struct sliding_job *job, struct arena *arena, struct json_out *out)
{
    json_out_key_object(out, LIT("rooms"));
    for (size_t i = 0; i < job->match_count; i++) {
        bool candidate = false;
        TRY(is_candidate(job, &job->matches[i], &candidate));
        if (candidate) {
            TRY(write_room_apart(job, i, arena, out));
        }
    }
    json_out_object_end(out);
    return OK;
}

/* --- lists --- */

static struct slice make_lists(struct sliding_job *job)
{
    struct buf buf;
    buf_init_arena(&buf, job->base.ctx->arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&buf);
    json_out_object(&out);
    for (size_t i = 0; i < job->request->list_count; i++) {
        json_out_key_object(&out, job->request->lists[i].name);
        json_out_key_int(&out, LIT("count"), (int64_t)job->list_counts[i]);
        json_out_object_end(&out);
    }
    json_out_object_end(&out);
    return buf_slice(&buf);
}

/* --- the answer --- */

static void write_pos(struct sliding_job *job, struct json_out *out)
{
    struct sliding_pos pos = {job->base.upto, job->conn->epoch, job->conn->seq + 1};
    json_out_key_string(out, LIT("pos"),
                        sync_sliding_pos_encode(job->base.ctx->arena, &job->key, pos));
}

static struct err write_body(struct sliding_job *job, struct json_out *out)
{
    const struct sliding_mark *had = &job->conn->had;
    struct sliding_mark mark = {.fingerprint = job->request->fingerprint,
                                .list_version = had->list_version};
    struct slice lists = {had->lists_owned, had->lists_len};
    bool with_rooms = asks_for_rooms(job->request) && !is_idle(job);
    json_out_object(out);
    if (with_rooms) {
        TRY(look_at_rooms(job));
        mark.list_version = job->rooms.version;
        lists = make_lists(job);
        bool same =
            had->lists_owned && slice_eq(lists, (struct slice){had->lists_owned, had->lists_len});
        job->base.news = job->base.news || (!job->all && !same);
    }
    lists = lists.ptr ? lists : LIT("{}");
    write_pos(job, out);
    json_out_key_raw(out, LIT("lists"), lists);
    if (with_rooms) {
        struct arena *arena = arena_new();
        struct err err = write_rooms(job, arena, out);
        arena_free(&arena);
        TRY(err);
    } else {
        json_out_key_raw(out, LIT("rooms"), LIT("{}"));
    }
    TRY(sync_sliding_write_extensions(job, out));
    json_out_object_end(out);
    TRY(buf_check(out->buf));
    mark.pos = job->base.upto;
    mark.account_pos = job->account_pos ? job->account_pos : had->account_pos;
    mark.fields_hash = job->request->profiles.scope.enabled ? job->request->profiles.fields_hash
                                                            : had->fields_hash;
    (void)sync_sliding_answer(job->conn, &mark, lists, job->changes, job->change_count);
    return OK;
}

/* Nobody reads it; were it read, it would do no harm. */
static void write_superseded(const struct sliding_asking *asking, struct json_out *out)
{
    json_out_object(out);
    json_out_key_string(out, LIT("pos"), asking->pos);
    json_out_key_raw(out, LIT("lists"), LIT("{}"));
    json_out_key_raw(out, LIT("rooms"), LIT("{}"));
    json_out_key_raw(out, LIT("extensions"), LIT("{}"));
    json_out_object_end(out);
}

/* To-device messages that the client has are deleted. */
static struct err acknowledge(struct sync *sync, struct ctx *ctx,
                              const struct sliding_asking *asking)
{
    const struct sliding_request *request = asking->request;
    struct sync_token since;
    if (asking->serial != 0 || !request->to_device.enabled ||
        request->to_device.since.ptr == NULL || asking->device_id.len == 0) {
        return OK;
    }
    TRY(sync_token_check(request->to_device.since, positions_published(sync->hs->positions),
                         &since));
    return hs_inbox_acknowledge(sync->hs, ctx, asking->user, asking->device_id, since.inbox);
}

static void begin(struct sliding_job *job, struct sync *sync, struct ctx *ctx,
                  const struct sliding_asking *asking)
{
    *job = (struct sliding_job){.sliding = sync->sliding, .request = asking->request};
    job->key = (struct sliding_key){asking->user, asking->device_id, asking->request->conn_id};
    job->filter = sync_filter_all();
    job->base = (struct sync_job){
        .sync = sync, .hs = sync->hs, .ctx = ctx, .room_ctx = ctx, .filter = &job->filter};
    job->base.viewer = (struct viewer){.user = asking->user,
                                       .user_id = asking->user_id,
                                       .device_id = asking->device_id,
                                       .memo = &job->base.memo};
}

struct err sync_sliding_respond(struct sync *sync, struct ctx *ctx,
                                const struct sliding_asking *asking, struct buf *body,
                                struct sliding_answer *answer_out)
{
    struct sliding_job *job = arena_alloc(ctx->arena, sizeof *job);
    struct json_out out = json_out_to(body);
    begin(job, sync, ctx, asking);
    TRY(acknowledge(sync, ctx, asking));
    TRY(open_connection(job, asking));
    *answer_out = (struct sliding_answer){.news = true};
    if (job->conn == NULL) {
        write_superseded(asking, &out);
        return buf_check(body);
    }
    struct sync_request request = {.user = asking->user,
                                   .user_id = asking->user_id,
                                   .device_id = asking->device_id,
                                   .initial = job->initial,
                                   .filter = &job->filter,
                                   .use_state_after = true};
    job->base.request = &request;
    struct err err = look_at_changes(job);
    err = err.code != 0 ? err : check_thread(job, is_idle(job));
    err = err.code != 0 ? err : write_body(job, &out);
    answer_out->news = job->base.news || job->initial;
    answer_out->upto = job->base.upto;
    answer_out->serial = job->conn->serial;
    sync_sliding_put_back(sync->sliding->conns, job->conn);
    return err;
}
