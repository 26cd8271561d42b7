#include "homeserver/base/mem.h"
#include "homeserver/service/users.h"
#include "homeserver/sync/priv.h"
#include "homeserver/sync/sliding.h"
#include "homeserver/sync/stream.h"

enum {
    USERS_MAX = 100000,
    LAZY_ENTRIES_MAX = 400000,
    FILTER_IDS_MAX = 50000,
    ROOM_BYTES_GUESS = 9000,
    BODY_BYTES_GUESS_MAX = 2 << 20,
    TO_DEVICE_MAX = 100, /* Spec: client-server, "Send-to-Device messaging": at most 100 a sync */
};

/* Rooms come first: device lists and presence follow from who came and went in them. */
static const struct sync_section sections[] = {
    {"rooms", sync_write_rooms},
    {"presence", sync_write_presence},
    {"account_data", sync_write_account_data},
    {"to_device", sync_write_to_device},
    {"device_lists", sync_write_device_lists},
    {"key_counts", sync_write_key_counts},
};

/* --- where sessions learn what changes do not say --- */

static struct err rooms_joined(void *arg, struct ctx *ctx, uint64_t user, uint64_t **rooms_out,
                               size_t *count_out)
{
    struct user_rooms rooms;
    TRY(hs_user_rooms(arg, ctx, user, &rooms));
    *rooms_out = arena_array(ctx->arena, rooms.count, sizeof **rooms_out);
    *count_out = 0;
    for (size_t i = 0; i < rooms.count; i++) {
        if (rooms.items[i].membership == MEMBERSHIP_JOIN) {
            (*rooms_out)[(*count_out)++] = rooms.items[i].room;
        }
    }
    return OK;
}

static struct err users_sharing(void *arg, struct ctx *ctx, uint64_t user, uint64_t **users_out,
                                size_t *count_out)
{
    return hs_users_sharing(arg, ctx, user, users_out, count_out);
}

/* --- life --- */

struct sync *sync_new(struct hs *hs)
{
    struct sync *sync = mem_alloc(sizeof *sync);
    sync->hs = hs;
    sync->lazy = sync_lazy_new(LAZY_ENTRIES_MAX);
    sync->filter_ids = sync_filter_ids_new(FILTER_IDS_MAX);
    sync->sessions = sync_sessions_new(&(struct sync_sessions_config){
        .positions = hs->positions,
        .workers = hs->workers,
        .now = hs->now,
        .log = hs->log,
        .source = {.arg = hs, .rooms_joined = rooms_joined, .users_sharing = users_sharing},
        .users_max = USERS_MAX,
    });
    sync->watch = sync_room_watch_new(hs->positions, hs->workers);
    sync->streams = sync_streams_new(sync);
    sync->sliding = sync_sliding_new(sync);
    return sync;
}

void sync_free(struct sync **sync)
{
    if (*sync == NULL) {
        return;
    }
    sync_sliding_free(&(*sync)->sliding);
    sync_streams_free(&(*sync)->streams);
    sync_room_watch_free(&(*sync)->watch);
    sync_sessions_free(&(*sync)->sessions);
    sync_filter_ids_free(&(*sync)->filter_ids);
    sync_lazy_free(&(*sync)->lazy);
    mem_free(*sync);
    *sync = NULL;
}

struct sync_sessions *sync_get_sessions(struct sync *sync)
{
    return sync->sessions;
}

/* --- preparing --- */

/* Rooms to look at: those marked, or all when the marks do not reach back. */
static struct err find_rooms(struct sync_job *job)
{
    const struct sync_look *look = &job->look;
    if (!look->complete || job->request->initial || job->request->full_state) {
        return hs_user_rooms(job->hs, job->ctx, job->viewer.user, &job->rooms);
    }
    job->rooms.items = arena_array(job->ctx->arena, look->room_count, sizeof *job->rooms.items);
    for (size_t i = 0; i < look->room_count; i++) {
        struct user_room *entry = &job->rooms.items[job->rooms.count];
        bool found = false;
        TRY(hs_user_room(job->hs, job->ctx, job->viewer.user, look->rooms[i], entry, &found));
        entry->room = look->rooms[i];
        bool left = !found || (entry->membership != MEMBERSHIP_JOIN && entry->pos <= job->upto);
        if (left) {
            sync_sessions_leave(job->sync->sessions, job->viewer.user, look->rooms[i], job->upto);
        }
        job->rooms.count += found ? 1 : 0;
    }
    return OK;
}

static struct err read_account_data(struct sync_job *job)
{
    if (job->request->initial || job->look.account_pos > job->since) {
        return hs_account_data_since(job->hs, job->ctx, job->viewer.user, job->since, job->upto,
                                     &job->account);
    }
    return OK;
}

/* When more wait than one answer carries, the token says how far it got. */
static struct err read_inbox(struct sync_job *job)
{
    struct slice device_id = job->viewer.device_id;
    uint64_t since = job->request->initial ? 0 : job->request->since.inbox;
    job->next = (struct sync_token){job->upto, job->upto};
    if (device_id.len == 0 || (!job->request->initial && job->look.device_pos <= since) ||
        !hs_inbox_may_have(job->hs, job->viewer.user, device_id, since)) {
        return OK;
    }
    struct inbox_range wanted = {.since = since, .upto = job->upto, .limit = TO_DEVICE_MAX};
    TRY(hs_inbox_read(job->hs, job->ctx, job->viewer.user, device_id, wanted, &job->inbox));
    if (job->inbox.count == TO_DEVICE_MAX) {
        job->next.inbox = job->inbox.items[TO_DEVICE_MAX - 1].pos;
    }
    return OK;
}

static struct err prepare(struct sync_job *job)
{
    job->since = job->request->initial ? 0 : job->request->since.pos;
    TRY(sync_sessions_look(job->sync->sessions, job->ctx, job->viewer.user, job->since,
                           &job->look));
    job->upto = job->look.upto;
    return read_inbox(job);
}

/* A loop tells of nothing new at most: more takes too long there. */
static struct err check_thread(const struct sync_job *job, bool nothing)
{
    return job->ctx->on_loop && !nothing ? err_make(ERR_WAITS, "there is news") : OK;
}

static bool has_nothing(const struct sync_job *job)
{
    return job->look.nothing && !job->request->initial && !job->request->full_state &&
           job->inbox.count == 0;
}

/* A first answer is long: growing step by step would copy it, and touch memory, twice over. */
static void make_room(const struct sync_job *job, struct buf *body)
{
    size_t guess = job->rooms.count * ROOM_BYTES_GUESS;
    if (job->request->initial && guess < BODY_BYTES_GUESS_MAX) {
        (void)buf_reserve(body, guess);
    }
}

static struct err write_sections(struct sync_job *job, struct json_out *out)
{
    TRY(find_rooms(job));
    make_room(job, out->buf);
    TRY(read_account_data(job));
    for (size_t i = 0; i < COUNT_OF(sections); i++) {
        TRY(sections[i].write(job, out));
    }
    return OK;
}

/* --- public --- */

static void begin(struct sync_job *job, struct sync *sync, struct ctx *ctx,
                  const struct sync_request *request)
{
    *job = (struct sync_job){
        .sync = sync, .hs = sync->hs, .ctx = ctx, .room_ctx = ctx, .request = request};
    job->filter = request->filter;
    job->viewer = (struct viewer){.user = request->user,
                                  .user_id = request->user_id,
                                  .device_id = request->device_id,
                                  .memo = &job->memo,
                                  .fields = request->filter->event_fields.items,
                                  .field_count = request->filter->event_fields.count};
}

/* Who came and who went is found where rooms are written. */
struct err sync_key_changes(struct sync *sync, struct ctx *ctx, const struct sync_request *request,
                            uint64_t upto, struct json_out *out)
{
    struct sync_job job;
    struct buf rooms;
    buf_init_arena(&rooms, ctx->arena, SIZE_MAX / 2);
    struct json_out discarded = json_out_to(&rooms);
    begin(&job, sync, ctx, request);
    job.since = request->since.pos;
    job.keys_alone = true;
    TRY(sync_sessions_look(sync->sessions, ctx, request->user, job.since, &job.look));
    job.upto = upto < job.look.upto ? upto : job.look.upto;
    TRY(find_rooms(&job));
    TRY(sync_write_rooms(&job, &discarded));
    return sync_write_key_changes(&job, out);
}

struct err sync_respond(struct sync *sync, struct ctx *ctx, const struct sync_request *request,
                        struct buf *body, struct sync_answer *answer_out)
{
    struct sync_job job;
    begin(&job, sync, ctx, request);
    TRY(prepare(&job));
    TRY(check_thread(&job, has_nothing(&job)));
    struct json_out out = json_out_to(body);
    json_out_object(&out);
    json_out_key_string(&out, LIT("next_batch"), sync_token_encode(ctx->arena, job.next));
    job.news = request->initial || request->full_state;
    if (has_nothing(&job)) {
        TRY(sync_write_key_counts(&job, &out));
    } else {
        TRY(write_sections(&job, &out));
    }
    json_out_object_end(&out);
    *answer_out = (struct sync_answer){.news = job.news, .next = job.next, .upto = job.upto};
    return buf_check(body);
}

struct err sync_acknowledge(struct sync *sync, struct ctx *ctx, const struct sync_request *request)
{
    if (request->initial || request->device_id.len == 0) {
        return OK;
    }
    return hs_inbox_acknowledge(sync->hs, ctx, request->user, request->device_id,
                                request->since.inbox);
}

struct err sync_parse_since(struct sync *sync, struct slice since, struct sync_request *request)
{
    request->initial = since.ptr == NULL;
    request->since = (struct sync_token){0};
    return request->initial
               ? OK
               : sync_token_check(since, positions_published(sync->hs->positions), &request->since);
}

struct err sync_find_filter(struct sync *sync, struct ctx *ctx, uint64_t user, struct slice filter,
                            struct sync_filter *filter_out)
{
    struct slice json;
    bool found = false;
    *filter_out = sync_filter_all();
    if (filter.len == 0) {
        return OK;
    }
    if (filter.ptr[0] == '{') {
        return sync_filter_parse_text(ctx->arena, filter, filter_out);
    }
    if (ctx->on_loop && sync_filter_ids_has(sync->filter_ids, user, filter)) {
        return OK;
    }
    TRY(hs_filter_get(sync->hs, ctx, user, filter, &json, &found));
    if (!found) {
        return err_public(ERR_M_INVALID_PARAM, "There is no filter of this id; upload it first.");
    }
    sync_filter_ids_add(sync->filter_ids, user, filter);
    return sync_filter_parse_text(ctx->arena, json, filter_out);
}
