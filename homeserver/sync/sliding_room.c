/* One room of an answer. Spec: MSC4186, "Room results" and "RoomResult". */
#include "homeserver/service/intake.h"
#include "homeserver/sync/sliding_priv.h"

struct writing {
    struct sliding_job *job;
    struct sync_job *base;
    struct json_out *out;
    size_t at; /* of the match */
    const struct sliding_match *match;
    const struct sliding_sent *sent; /* what was told before, NULL = nothing that holds */
    struct sync_room room;
    struct sliding_delta delta;
    uint16_t config;
    bool expanded;
    bool news;
};

/* --- what it is to the user --- */

static enum sync_standing standing_of(const struct sync_job *job, const struct user_room *entry)
{
    bool was_joined = entry->membership == MEMBERSHIP_JOIN || entry->previous == MEMBERSHIP_JOIN;
    if (entry->pos > job->upto) { /* changed since: as it was */
        return was_joined && entry->joined_pos > 0 && entry->joined_pos <= job->upto
                   ? SYNC_JOINED
                   : SYNC_NOT_SHOWN;
    }
    switch (entry->membership) {
    case MEMBERSHIP_JOIN:
        return SYNC_JOINED;
    case MEMBERSHIP_INVITE:
        return SYNC_INVITED;
    case MEMBERSHIP_KNOCK:
        return SYNC_KNOCKED;
    case MEMBERSHIP_LEAVE:
    case MEMBERSHIP_BAN:
        return entry->left_number > 0 && !entry->forgotten ? SYNC_LEFT : SYNC_TURNED_AWAY;
    case MEMBERSHIP_NONE:
    case MEMBERSHIP_OTHER:
        return SYNC_NOT_SHOWN;
    }
    return SYNC_NOT_SHOWN;
}

static struct slice membership_of_room(const struct sync_room *room)
{
    return room->standing == SYNC_JOINED ? LIT("join") : membership_word(room->entry.membership);
}

/* --- members that every room has --- */

static void write_lists(struct writing *w)
{
    const struct sliding_request *request = w->job->request;
    if (!w->match->lists[0] && !w->match->lists[1]) {
        return;
    }
    json_out_key_array(w->out, LIT("lists"));
    for (size_t i = 0; i < request->list_count; i++) {
        if (sync_sliding_in_list(w->match, i)) {
            json_out_string(w->out, request->lists[i].name);
        }
    }
    json_out_array_end(w->out);
}

static void write_common(struct writing *w, uint64_t bump_stamp)
{
    if (w->room.fresh) {
        json_out_key_bool(w->out, LIT("initial"), true);
    }
    json_out_key_int(w->out, LIT("bump_stamp"), (int64_t)bump_stamp);
    json_out_key_string(w->out, LIT("membership"), membership_of_room(&w->room));
    write_lists(w);
}

/* --- names --- */

/* A text of a state event's content: written when there is one, null when it went. */
static struct err write_text(struct writing *w, struct slice member, struct slice type,
                             struct slice key)
{
    struct stored_event event;
    bool found = false;
    TRY(hs_state_event(w->base->hs, w->base->room_ctx, w->room.room, w->room.end_root, type,
                       LIT(""), &event, &found));
    struct slice text = {0};
    if (found) {
        text = json_get_string(event.event.content, key);
    }
    if (text.len > 0) {
        json_out_key_string(w->out, member, text);
    } else if (!w->room.fresh) {
        json_out_key(w->out, member);
        json_out_null(w->out);
    }
    return OK;
}

static struct err has_name(struct writing *w, bool *has_out)
{
    struct stored_event event;
    TRY(hs_state_event(w->base->hs, w->base->room_ctx, w->room.room, w->room.end_root,
                       LIT("m.room.name"), LIT(""), &event, has_out));
    *has_out = *has_out && json_get_string(event.event.content, LIT("name")).len > 0;
    return OK;
}

static struct err write_hero(struct writing *w, struct slice user_id)
{
    static const struct slice texts[] = {{"displayname", 11}, {"avatar_url", 10}};
    struct stored_event event;
    bool found = false;
    TRY(hs_state_event(w->base->hs, w->base->room_ctx, w->room.room, w->room.end_root,
                       LIT("m.room.member"), user_id, &event, &found));
    json_out_object(w->out);
    json_out_key_string(w->out, LIT("user_id"), user_id);
    for (size_t i = 0; found && i < COUNT_OF(texts); i++) {
        struct slice text = json_get_string(event.event.content, texts[i]);
        if (text.ptr != NULL) {
            json_out_key_string(w->out, texts[i], text);
        }
    }
    json_out_object_end(w->out);
    return OK;
}

static struct err write_heroes(struct writing *w)
{
    struct sync_heroes heroes;
    bool named = false;
    if (!w->room.fresh && !w->delta.members_changed && !w->delta.name_changed) {
        return OK;
    }
    TRY(has_name(w, &named));
    if (named) {
        return OK;
    }
    TRY(sync_pick_heroes(w->base, &w->room, &heroes));
    json_out_key_array(w->out, LIT("heroes"));
    for (size_t i = 0; i < heroes.count; i++) {
        TRY(write_hero(w, heroes.user_ids[i]));
    }
    json_out_array_end(w->out);
    return OK;
}

static struct err write_summary(struct writing *w)
{
    bool is_dm = (w->match->entry->flags & SLIDING_DM) != 0;
    bool fresh = w->room.fresh;
    if (fresh || w->delta.name_changed) {
        TRY(write_text(w, LIT("name"), LIT("m.room.name"), LIT("name")));
    }
    if (fresh || w->delta.avatar_changed) {
        TRY(write_text(w, LIT("avatar"), LIT("m.room.avatar"), LIT("url")));
    }
    TRY(write_heroes(w));
    if (fresh ? is_dm : is_dm != w->sent->is_dm) {
        json_out_key_bool(w->out, LIT("is_dm"), is_dm);
    }
    if (fresh || w->delta.members_changed) {
        json_out_key_int(w->out, LIT("joined_count"), w->room.head.joined_count);
        json_out_key_int(w->out, LIT("invited_count"), w->room.head.invited_count);
    }
    w->news = w->news || fresh || w->delta.name_changed || w->delta.avatar_changed ||
              w->delta.members_changed || is_dm != w->sent->is_dm;
    return OK;
}

/* --- events --- */

static struct err write_events(struct writing *w, const struct stored_events *events,
                               uint32_t flags)
{
    for (size_t i = 0; i < events->count; i++) {
        TRY(hs_write_event(w->base->hs, w->base->room_ctx, w->room.room, &w->base->viewer,
                           &events->items[i], flags, w->out));
    }
    return OK;
}

static struct err write_required_state(struct writing *w)
{
    const struct sliding_delta *delta = &w->delta;
    if (!w->room.fresh && delta->state.count == 0 && delta->gone_count == 0) {
        return OK;
    }
    w->news = true;
    json_out_key_array(w->out, LIT("required_state"));
    TRY(write_events(w, &delta->state, 0));
    for (size_t i = 0; i < delta->gone_count; i++) {
        json_out_object(w->out);
        json_out_key_string(w->out, LIT("type"), delta->gone[i].type);
        json_out_key_string(w->out, LIT("state_key"), delta->gone[i].key);
        json_out_object_end(w->out);
    }
    json_out_array_end(w->out);
    return OK;
}

static int64_t count_live(const struct writing *w)
{
    int64_t live = 0;
    for (size_t i = 0; !w->job->initial && i < w->room.timeline.count; i++) {
        live += w->room.timeline.items[i].pos > w->job->since ? 1 : 0;
    }
    return live;
}

static struct err write_timeline(struct writing *w)
{
    const struct sync_room *room = &w->room;
    if (!room->fresh && room->timeline.count == 0 && !room->limited) {
        return OK;
    }
    w->news = true;
    int64_t first =
        room->timeline.count > 0 ? room->timeline.items[0].number : room->end_number + 1;
    uint32_t flags = room->limited || room->fresh || w->expanded ? VIEW_BUNDLE : 0;
    json_out_key_array(w->out, LIT("timeline"));
    TRY(write_events(w, &room->timeline, flags));
    json_out_array_end(w->out);
    json_out_key_string(w->out, LIT("prev_batch"), hs_token_of_number(w->base->room_ctx, first));
    json_out_key_bool(w->out, LIT("limited"), room->limited);
    json_out_key_int(w->out, LIT("num_live"), count_live(w));
    if (w->expanded) {
        json_out_key_bool(w->out, LIT("expanded_timeline"), true);
        json_out_key_bool(w->out, LIT("unstable_expanded_timeline"), true);
    }
    w->job->timeline_pos[w->at] = room->timeline.count > 0 ? room->timeline.items[0].pos : 0;
    return OK;
}

static struct err write_unread(struct writing *w, struct sliding_sent *change)
{
    struct unread_counts counts;
    TRY(sync_count_unread(w->base, &w->room, &counts));
    json_out_key_int(w->out, LIT("notification_count"), counts.notify_all);
    json_out_key_int(w->out, LIT("highlight_count"), counts.highlight_all);
    bool same = w->sent && w->sent->notify == counts.notify_all &&
                w->sent->highlight == counts.highlight_all;
    w->news = w->news || !same;
    change->notify = counts.notify_all;
    change->highlight = counts.highlight_all;
    return OK;
}

/* --- the timeline's two forms --- */

/* The newest events, whether they were told before or not. */
static struct err read_newest(struct writing *w)
{
    bool fresh = w->room.fresh;
    w->room.fresh = true;
    struct err err = sync_room_timeline(w->base, &w->room);
    w->room.fresh = fresh;
    return err;
}

/* Spec: MSC4186, "Changes to `timeline_limit`": more events than before are wanted. */
static struct err read_expanded(struct writing *w)
{
    struct sync_job *base = w->base;
    TRY(read_newest(w));
    TRY(hs_room_at(base->hs, base->room_ctx, w->room.room, base->since, &w->room.since_number,
                   &w->room.since_root));
    w->expanded =
        w->room.timeline.count > 0 && w->room.timeline.items[0].number <= w->room.since_number;
    return OK;
}

static struct err read_timeline(struct writing *w)
{
    w->job->filter.room_timeline.limit = w->delta.ask.timeline_limit;
    w->job->filter.room_timeline.limit_given = true;
    if (!w->room.fresh && w->room.standing == SYNC_JOINED &&
        w->delta.ask.timeline_limit > w->sent->timeline_limit) {
        return read_expanded(w);
    }
    return sync_room_timeline(w->base, &w->room);
}

/* How many of the newest events the client has now, at least. */
static uint16_t limit_told(const struct writing *w)
{
    const struct sync_room *room = &w->room;
    size_t limit = w->delta.ask.timeline_limit;
    bool whole = (room->fresh || w->expanded) && !room->limited;
    bool joins_on = !room->fresh && !room->limited;
    if (whole || (joins_on && w->sent->timeline_limit == SLIDING_ALL_EVENTS)) {
        return SLIDING_ALL_EVENTS;
    }
    return (uint16_t)(joins_on && w->sent->timeline_limit > limit ? w->sent->timeline_limit
                                                                  : limit);
}

/* --- a room that the user is or was in --- */

/* What was told before holds on, when it was of this stay. */
static bool goes_on(const struct writing *w, const struct sliding_sent *sent)
{
    return sent && sent->is_joined && w->room.entry.joined_pos <= sent->pos;
}

static struct err prepare(struct writing *w)
{
    if (w->room.fresh || w->sent->config == w->config) {
        return OK;
    }
    struct sliding_ask_state *asked = arena_alloc(w->base->room_ctx->arena, sizeof *asked);
    TRY(sync_sliding_parse_ask(w->job, w->job->conn->configs_owned[w->sent->config], asked));
    w->delta.asked = asked;
    return OK;
}

static void note_sent(struct writing *w, struct sliding_sent *change)
{
    bool joined = w->room.standing == SYNC_JOINED;
    change->pos = w->base->upto;
    change->config = w->config;
    change->is_joined = joined;
    change->is_dm = (w->match->entry->flags & SLIDING_DM) != 0;
    change->timeline_limit = joined ? limit_told(w) : 0;
    /* Told of once: what the user has left is of no more concern. */
    bool kept = (w->match->entry->flags & SLIDING_LISTED) || w->match->subscription;
    change->forget = !joined && !kept;
}

static struct err write_stay(struct writing *w)
{
    struct sliding_sent *change = NULL;
    uint64_t bump = w->room.entry.pos;
    TRY(prepare(w));
    TRY(read_timeline(w));
    TRY(sync_sliding_state(w->job, &w->room, &w->delta));
    if (w->room.standing == SYNC_JOINED) {
        TRY(sync_sliding_bump(w->job->sliding->facts, w->base->room_ctx, w->room.room, &bump));
    } else {
        w->news = true;
    }
    write_common(w, bump ? bump : w->room.entry.pos);
    TRY(write_summary(w));
    TRY(write_required_state(w));
    TRY(write_timeline(w));
    change = sync_sliding_change(w->job, w->at);
    TRY(write_unread(w, change));
    note_sent(w, change);
    return OK;
}

/* --- a room that the user is invited to, knocks at, or was turned away from --- */

static struct err write_stripped(struct writing *w)
{
    struct slice stripped = LIT("[]");
    bool hidden = false;
    bool asked_in = w->room.standing == SYNC_INVITED || w->room.standing == SYNC_KNOCKED;
    if (asked_in) {
        TRY(sync_find_stripped(w->base, &w->room, &stripped));
    }
    if (w->room.standing == SYNC_INVITED) {
        TRY(sync_hides_invite(w->base, stripped, &hidden));
    }
    if (hidden) {
        return OK;
    }
    w->news = true;
    w->room.fresh = true;
    write_common(w, w->room.entry.pos);
    if (asked_in) {
        json_out_key_raw(w->out, LIT("invite_state"), stripped);
    }
    json_out_key_raw(w->out, LIT("stripped_state"), stripped);
    struct sliding_sent *change = sync_sliding_change(w->job, w->at);
    *change = (struct sliding_sent){.room = w->room.info.number,
                                    .pos = w->base->upto,
                                    .config = w->config,
                                    .forget = !asked_in};
    return OK;
}

/* --- both --- */

/* Spec: MSC4186, "Lists": what was left by oneself is shown to who was told of it before. */
static bool has_something(struct writing *w, const struct sliding_sent *sent)
{
    const struct user_room *entry = &w->room.entry;
    bool kept = (w->match->entry->flags & SLIDING_LISTED) || w->match->subscription;
    bool newer = sent == NULL || entry->pos > sent->pos;
    switch (w->room.standing) {
    case SYNC_JOINED:
        return true;
    case SYNC_INVITED:
    case SYNC_KNOCKED:
        return newer;
    case SYNC_LEFT:
        return newer && (sent || kept);
    case SYNC_TURNED_AWAY:
        return newer && sent;
    case SYNC_NOT_SHOWN:
        return false;
    }
    return false;
}

static struct err write_shown(struct writing *w)
{
    struct sync_job *base = w->base;
    bool stay = w->room.standing == SYNC_JOINED || w->room.standing == SYNC_LEFT;
    bool is_whole =
        !hs_room_is_partial(w->room.room) && hs_room_whole_pos(w->room.room) <= base->upto;
    if (!sync_sliding_config(w->job->conn, w->delta.ask.text, &w->config)) {
        return err_make(ERR_M_UNKNOWN_POS, "a connection has asked for too many different states");
    }
    if (stay && !is_whole && !w->delta.ask.lazy) {
        return OK; /* who wants all members gets the room when they are here */
    }
    struct sync_undo undo = sync_undo_mark(w->out);
    size_t changes = w->job->change_count;
    json_out_key_object(w->out, w->room.info.room_id);
    base->viewer.joined_from = w->room.entry.joined_number > 0 ? w->room.entry.joined_number : 0;
    base->viewer.joined_until = sync_stay_end(&w->room);
    TRY(stay ? write_stay(w) : write_stripped(w));
    json_out_object_end(w->out);
    if (w->news) {
        base->news = true;
        return OK;
    }
    sync_undo_to(w->out, undo);
    /* A narrower wish is remembered, so that it is not looked at each time. */
    bool same = w->sent && w->sent->config == w->config;
    if (same && changes < w->job->change_count) {
        w->job->change_count = changes;
        w->job->change_at[w->at] = 0;
    }
    return OK;
}

struct err sync_sliding_write_room(struct sliding_job *job, size_t match, struct json_out *out)
{
    struct sync_job *base = &job->base;
    struct writing *w = arena_alloc(base->room_ctx->arena, sizeof *w);
    bool found = false;
    w->job = job;
    w->base = base;
    w->out = out;
    w->at = match;
    w->match = &job->matches[match];
    uint64_t number = w->match->entry->room;
    const struct sliding_sent *sent = sync_sliding_sent(job->conn, number);
    TRY(hs_user_room(base->hs, base->ctx, base->viewer.user, number, &w->room.entry, &found));
    w->room.entry.room = number;
    w->room.standing = found ? standing_of(base, &w->room.entry) : SYNC_NOT_SHOWN;
    if (!has_something(w, sent)) {
        return OK;
    }
    TRY(hs_room_get(base->hs, base->room_ctx, number, &w->room.room));
    w->room.info = hs_room_info(w->room.room);
    w->room.head = hs_room_head(w->room.room);
    w->sent = goes_on(w, sent) ? sent : NULL;
    w->room.fresh = w->sent == NULL;
    w->room.full_state = w->room.fresh;
    base->since = w->sent ? w->sent->pos : 0;
    TRY(sync_sliding_combine(job, w->match, &w->delta.ask));
    return write_shown(w);
}
