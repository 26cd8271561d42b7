/* The `rooms` member: which rooms an answer shows, and as what.
 * Spec: client-server, "Syncing". */
#include "homeserver/service/intake.h"
#include "homeserver/service/invite_filter.h"
#include "homeserver/sync/priv.h"

#include <string.h>

enum { FEW_ROOMS = 2 };

struct sync_undo sync_undo_mark(const struct json_out *out)
{
    return (struct sync_undo){out->buf->len, out->need_comma};
}

void sync_undo_to(struct json_out *out, struct sync_undo undo)
{
    out->buf->len = undo.len;
    out->need_comma = undo.need_comma;
}

/* --- which standing --- */

static enum sync_standing standing_of_absent(const struct sync_job *job,
                                             const struct user_room *entry)
{
    enum sync_standing left =
        entry->previous == MEMBERSHIP_JOIN || (job->request->initial && entry->joined_number)
            ? SYNC_LEFT
            : SYNC_TURNED_AWAY;
    if (job->request->initial) {
        /* include_leave is about rooms that the user has left; a ban is told to a new client too.
         */
        bool wanted = job->filter->include_leave || entry->membership == MEMBERSHIP_BAN;
        return wanted && !entry->forgotten ? left : SYNC_NOT_SHOWN;
    }
    /* Spec: client-server, "Syncing": rooms left since the token. */
    return entry->pos > job->since ? left : SYNC_NOT_SHOWN;
}

/* What the entry was at `upto`, when it has changed since: of standings that are over only a stay
 * is worth showing. */
static enum sync_standing standing_before(const struct sync_job *job, const struct user_room *entry)
{
    bool was_joined = entry->membership == MEMBERSHIP_JOIN || entry->previous == MEMBERSHIP_JOIN;
    return was_joined && entry->joined_pos > 0 && entry->joined_pos <= job->upto ? SYNC_JOINED
                                                                                 : SYNC_NOT_SHOWN;
}

static enum sync_standing standing_of(const struct sync_job *job, const struct user_room *entry)
{
    if (entry->pos > job->upto) {
        return standing_before(job, entry);
    }
    switch (entry->membership) {
    case MEMBERSHIP_JOIN:
        return SYNC_JOINED;
    case MEMBERSHIP_INVITE:
        return entry->pos > job->since || job->request->initial ? SYNC_INVITED : SYNC_NOT_SHOWN;
    case MEMBERSHIP_KNOCK:
        return entry->pos > job->since || job->request->initial ? SYNC_KNOCKED : SYNC_NOT_SHOWN;
    case MEMBERSHIP_LEAVE:
    case MEMBERSHIP_BAN:
        return standing_of_absent(job, entry);
    case MEMBERSHIP_NONE:
    case MEMBERSHIP_OTHER:
        return SYNC_NOT_SHOWN;
    }
    return SYNC_NOT_SHOWN;
}

/* --- events --- */

static struct err write_event(struct sync_job *job, struct sync_room *room,
                              const struct stored_event *event, uint32_t flags,
                              struct json_out *out)
{
    if (job->filter->federation_format) {
        return hs_write_server_event(job->hs, job->room_ctx, room->room, &job->viewer, event, out);
    }
    return hs_write_event(job->hs, job->room_ctx, room->room, &job->viewer, event, flags, out);
}

struct err sync_write_events(struct sync_job *job, struct sync_room *room,
                             const struct stored_events *events, uint32_t flags,
                             struct json_out *out)
{
    json_out_key_array(out, LIT("events"));
    for (size_t i = 0; i < events->count; i++) {
        TRY(write_event(job, room, &events->items[i], flags, out));
    }
    json_out_array_end(out);
    return OK;
}

static struct err write_timeline(struct sync_job *job, struct sync_room *room, struct json_out *out)
{
    int64_t first =
        room->timeline.count > 0 ? room->timeline.items[0].number : room->end_number + 1;
    /* Spec: client-server, "Aggregations of child events": bundled in limited timelines. */
    uint32_t flags = room->limited || room->fresh ? VIEW_BUNDLE : 0;
    json_out_key_object(out, LIT("timeline"));
    TRY(sync_write_events(job, room, &room->timeline, flags, out));
    json_out_key_bool(out, LIT("limited"), room->limited);
    json_out_key_string(out, LIT("prev_batch"), hs_token_of_number(job->room_ctx, first));
    json_out_object_end(out);
    return OK;
}

static struct err write_state(struct sync_job *job, struct sync_room *room, struct json_out *out)
{
    json_out_key_object(out, job->request->use_state_after ? LIT("state_after") : LIT("state"));
    TRY(sync_write_events(job, room, &room->state, 0, out));
    json_out_object_end(out);
    return OK;
}

/* --- joined --- */

static struct err write_joined(struct sync_job *job, struct sync_room *room, struct json_out *out)
{
    struct sync_undo undo = sync_undo_mark(out);
    bool news = room->full_state;
    TRY(sync_room_timeline(job, room));
    TRY(sync_room_state(job, room));
    news = news || room->timeline.count > 0 || room->state.count > 0 || room->limited ||
           room->members_changed;
    json_out_key_object(out, room->info.room_id);
    TRY(sync_write_summary(job, room, out));
    TRY(write_state(job, room, out));
    TRY(write_timeline(job, room, out));
    TRY(sync_write_ephemeral(job, room, out, &news));
    TRY(sync_write_room_account_data(job, room, out, &news));
    if (!news) {
        sync_undo_to(out, undo);
        return OK;
    }
    TRY(sync_write_unread(job, room, out));
    json_out_object_end(out);
    job->news = true;
    return OK;
}

struct noting {
    struct sync_job *job;
    struct sync_users *users;
};

static struct err note_joined(void *arg, struct ctx *page, const struct room_member *member)
{
    struct noting *noting = arg;
    struct sync_job *job = noting->job;
    bool counts = member->user != job->viewer.user || noting->users == &job->arrived;
    (void)page;
    if (member->membership == MEMBERSHIP_JOIN && counts) {
        sync_users_add(job->ctx, noting->users, member->user);
    }
    return OK;
}

/* The caller too, who joins: other servers learn of devices that the caller's others may not know.
 */
struct err sync_note_everybody(struct sync_job *job, struct sync_room *room,
                               struct sync_users *users)
{
    struct noting noting = {job, users};
    return job->request->initial
               ? OK
               : hs_room_members_each(job->hs, job->room_ctx, room->room, note_joined, &noting);
}

static struct err write_join_room(struct sync_job *job, struct sync_room *room,
                                  struct json_out *out)
{
    /* Spec: client-server, "Syncing": a room joined since, also for the second time, comes whole.
     */
    bool lazy = job->filter->room_state.lazy_load_members || job->keys_alone;
    bool is_partial = hs_room_is_partial(room->room);
    uint64_t whole_pos = hs_room_whole_pos(room->room);
    if (!lazy && (is_partial || whole_pos > job->upto)) {
        return OK; /* who wants all members gets the room when they are here */
    }
    room->fresh = job->request->initial || room->entry.joined_pos > job->since ||
                  (!lazy && whole_pos > job->since);
    room->full_state = room->fresh || job->request->full_state;
    if (room->fresh) {
        TRY(sync_note_everybody(job, room, &job->arrived));
    }
    return write_joined(job, room, out);
}

/* --- left --- */

static struct err load_own_event(struct sync_job *job, struct sync_room *room)
{
    struct stored_event *event = arena_alloc(job->room_ctx->arena, sizeof *event);
    bool found = false;
    TRY(hs_event_load(job->hs, job->room_ctx, room->room, room->entry.number, event, &found));
    room->timeline = (struct stored_events){event, found ? 1 : 0};
    room->end_number = room->entry.number;
    return OK;
}

static struct err write_left_room(struct sync_job *job, struct sync_room *room,
                                  struct json_out *out)
{
    if (room->standing == SYNC_TURNED_AWAY) {
        TRY(load_own_event(job, room));
    } else {
        room->fresh = job->request->initial || room->entry.joined_pos > job->since;
        room->full_state = room->fresh || job->request->full_state;
        TRY(sync_room_timeline(job, room));
        TRY(sync_room_state(job, room));
        TRY(sync_note_everybody(job, room, &job->gone));
    }
    job->news = true;
    json_out_key_object(out, room->info.room_id);
    TRY(write_state(job, room, out));
    TRY(write_timeline(job, room, out));
    json_out_key_object(out, LIT("account_data"));
    json_out_key_array(out, LIT("events"));
    json_out_array_end(out);
    json_out_object_end(out);
    json_out_object_end(out);
    return OK;
}

/* --- invited, knocked --- */

/* The sender of the caller's own member event among stripped events; empty when unknown. */
static struct slice inviter_of(struct sync_job *job, struct slice stripped)
{
    struct json list;
    if (json_parse(job->room_ctx->arena, stripped, &list).code != 0 || list.type != JSON_ARRAY) {
        return (struct slice){0};
    }
    for (uint32_t i = 0; i < list.count; i++) {
        const struct json *event = &list.items[i];
        if (json_is_string(json_get(event, LIT("type")), LIT("m.room.member")) &&
            json_is_string(json_get(event, LIT("state_key")), job->viewer.user_id)) {
            return json_get_string(event, LIT("sender"));
        }
    }
    return (struct slice){0};
}

/* Kept from the remote server, or taken from the room as of the event. */
struct err sync_find_stripped(struct sync_job *job, struct sync_room *room,
                              struct slice *stripped_out)
{
    struct stored_event own;
    struct buf buf;
    bool found = false;
    *stripped_out = room->entry.invite_state;
    if (stripped_out->len > 0) {
        return OK;
    }
    buf_init_arena(&buf, job->room_ctx->arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&buf);
    TRY(hs_event_load(job->hs, job->room_ctx, room->room, room->entry.number, &own, &found));
    TRY(hs_write_stripped_state(job->hs, job->room_ctx, room->room, found ? own.state_after : 0,
                                job->viewer.user_id, &out));
    *stripped_out = buf_slice(&buf);
    return OK;
}

/* Spec: client-server, "Ignoring Users", "Invite permission": invites that came before are hidden
 * too. */
struct err sync_hides_invite(struct sync_job *job, struct slice stripped, bool *hidden_out)
{
    return hs_invite_is_hidden(job->hs, job->room_ctx, job->viewer.user, inviter_of(job, stripped),
                               hidden_out);
}

static struct err write_stripped_room(struct sync_job *job, struct sync_room *room,
                                      struct json_out *out)
{
    bool invited = room->standing == SYNC_INVITED;
    struct slice stripped;
    bool hidden = false;
    TRY(sync_find_stripped(job, room, &stripped));
    if (invited) {
        TRY(sync_hides_invite(job, stripped, &hidden));
    }
    if (hidden) {
        return OK;
    }
    job->news = true;
    json_out_key_object(out, room->info.room_id);
    json_out_key_object(out, invited ? LIT("invite_state") : LIT("knock_state"));
    json_out_key_raw(out, LIT("events"), stripped);
    json_out_object_end(out);
    json_out_object_end(out);
    return OK;
}

/* --- all of them --- */

struct category {
    struct slice name;
    unsigned standings; /* bits */
    struct err (*write)(struct sync_job *job, struct sync_room *room, struct json_out *out);
};

static const struct category categories[] = {
    {{"join", 4}, 1U << SYNC_JOINED, write_join_room},
    {{"invite", 6}, 1U << SYNC_INVITED, write_stripped_room},
    {{"knock", 5}, 1U << SYNC_KNOCKED, write_stripped_room},
    {{"leave", 5}, 1U << SYNC_LEFT | 1U << SYNC_TURNED_AWAY, write_left_room},
};

/* Whether anything can have happened in a joined room when the marks do not tell. */
static bool may_have_news(struct sync_job *job, const struct sync_room *room)
{
    struct slice *user_ids = NULL;
    uint64_t typing_pos = 0;
    if (job->request->initial || job->request->full_state || job->look.complete ||
        hs_room_changed_pos(room->room) > job->since || room->entry.pos > job->since) {
        return true;
    }
    (void)hs_typing_get(job->hs, job->room_ctx, room->info.number, &user_ids, &typing_pos);
    if (typing_pos > job->since) {
        return true;
    }
    for (size_t i = 0; i < job->account.count; i++) {
        if (job->account.items[i].room == room->info.number) {
            return true;
        }
    }
    return false;
}

int64_t sync_stay_end(const struct sync_room *room)
{
    const struct user_room *entry = &room->entry;
    if (entry->joined_number <= 0) {
        return 0;
    }
    if (room->standing == SYNC_JOINED) {
        return entry->membership == MEMBERSHIP_JOIN ? INT64_MAX : entry->left_number;
    }
    return room->standing == SYNC_LEFT ? entry->left_number : 0;
}

static struct err write_room(struct sync_job *job, const struct category *category,
                             const struct user_room *entry, struct json_out *out)
{
    struct sync_room *room = arena_alloc(job->room_ctx->arena, sizeof *room);
    room->entry = *entry;
    room->standing = standing_of(job, entry);
    if (!(category->standings & (1U << room->standing))) {
        return OK;
    }
    TRY(hs_room_get(job->hs, job->room_ctx, entry->room, &room->room));
    room->info = hs_room_info(room->room);
    room->head = hs_room_head(room->room);
    if (!sync_filter_visits_room(job->filter, room->info.room_id)) {
        return OK;
    }
    job->viewer.joined_from = entry->joined_number > 0 ? entry->joined_number : 0;
    job->viewer.joined_until = sync_stay_end(room);
    if (room->standing == SYNC_JOINED && !may_have_news(job, room)) {
        return OK;
    }
    return category->write(job, room, out);
}

/* In memory of its own, which the next room uses again: an answer about many rooms stays in the
 * processor's cache. The memo names rooms by address and must not outlive them. */
static struct err write_room_apart(struct sync_job *job, const struct category *category,
                                   const struct user_room *entry, struct json_out *out)
{
    struct ctx ctx = *job->ctx;
    ctx.arena = job->room_arena;
    ctx.deferred = NULL;
    job->room_ctx = &ctx;
    job->memo = (struct view_memo){0};
    struct err err = write_room(job, category, entry, out);
    job->room_ctx = job->ctx;
    job->memo = (struct view_memo){0};
    if (err.code != 0) {
        err.text = arena_cstr(job->ctx->arena, slice_of(err.text));
    }
    ctx_finish(&ctx);
    arena_reset(job->room_arena);
    return err;
}

static struct err write_category(struct sync_job *job, const struct category *category,
                                 struct json_out *out)
{
    struct sync_undo undo = sync_undo_mark(out);
    json_out_key_object(out, category->name);
    size_t before = out->buf->len;
    for (size_t i = 0; i < job->rooms.count; i++) {
        const struct user_room *entry = &job->rooms.items[i];
        TRY(job->room_arena ? write_room_apart(job, category, entry, out)
                            : write_room(job, category, entry, out));
    }
    bool any = out->buf->len > before;
    json_out_object_end(out);
    if (!any) {
        sync_undo_to(out, undo);
    }
    return OK;
}

static struct err write_categories(struct sync_job *job, struct json_out *out)
{
    struct err err = OK;
    job->room_arena = job->rooms.count > FEW_ROOMS ? arena_new() : NULL;
    for (size_t i = 0; i < COUNT_OF(categories) && err.code == 0; i++) {
        err = write_category(job, &categories[i], out);
    }
    arena_free(&job->room_arena);
    return err;
}

struct err sync_write_rooms(struct sync_job *job, struct json_out *out)
{
    struct sync_undo undo = sync_undo_mark(out);
    json_out_key_object(out, LIT("rooms"));
    size_t before = out->buf->len;
    TRY(write_categories(job, out));
    bool any = out->buf->len > before;
    json_out_object_end(out);
    if (!any) {
        sync_undo_to(out, undo);
    }
    return OK;
}
