/* The state a client needs besides the timeline. What the client holds afterwards, timeline
 * included, must be the room's state: so what changed is the difference of two snapshots, whatever
 * way the change took (forks, filters), less what the timeline shows.
 * Spec: client-server, "Syncing" and "Lazy-loading room members". */
#include "homeserver/sync/priv.h"

#include "homeserver/service/intake.h"
#include "homeserver/service/users.h"

#include <stdlib.h>

/* In rooms with fewer people reading all of the state is cheaper than avoiding the members. */
enum { FEW_PEOPLE = 100 };

struct picking {
    struct sync_job *job;
    struct sync_room *room;
    size_t cap;
    uint64_t start_root; /* state at the start of the timeline */
    uint64_t base_root;  /* what the client has: 0 = nothing */
    bool lazy;
    struct stored_events ready; /* read ahead, ascending by number */
};

static int64_t first_number(const struct sync_room *room)
{
    return room->timeline.count > 0 ? room->timeline.items[0].number : INT64_MAX;
}

/* The timeline event of that number, or NULL. */
static const struct stored_event *in_timeline(const struct sync_room *room, int64_t number)
{
    if (number < first_number(room)) {
        return NULL;
    }
    for (size_t i = room->timeline.count; i > 0; i--) {
        if (room->timeline.items[i - 1].number == number) {
            return &room->timeline.items[i - 1];
        }
    }
    return NULL;
}

static void push(struct picking *p, const struct stored_event *event)
{
    struct stored_events *state = &p->room->state;
    if (state->count == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 32;
        state->items = arena_grow(p->job->room_ctx->arena, state->items,
                                  p->cap * sizeof *state->items, cap * sizeof *state->items);
        p->cap = cap;
    }
    state->items[state->count++] = *event;
}

static bool has_number(const struct sync_room *room, int64_t number)
{
    for (size_t i = 0; i < room->state.count; i++) {
        if (room->state.items[i].number == number) {
            return true;
        }
    }
    return false;
}

static bool is_member(const struct stored_event *event)
{
    return slice_eq(event->event.type, LIT("m.room.member"));
}

static struct sync_lazy_key lazy_key(const struct picking *p, int64_t number)
{
    return (struct sync_lazy_key){.user = p->job->viewer.user,
                                  .device_id = p->job->viewer.device_id,
                                  .room = p->room->info.number,
                                  .member_event = number};
}

/* Adds an event if the filter takes it. */
static struct err offer(struct picking *p, struct stored_event *event)
{
    const struct sync_event_filter *filter = &p->job->filter->room_state;
    if (filter->needs_content) {
        TRY(hs_event_parse_content(p->job->room_ctx, event));
    }
    if (!sync_filter_takes_event(filter, event->event.type, event->event.sender.s,
                                 event->event.content)) {
        return OK;
    }
    push(p, event);
    if (p->lazy && is_member(event)) {
        struct sync_lazy_key key = lazy_key(p, event->number);
        sync_lazy_sent(p->job->sync->lazy, &key, p->job->upto);
    }
    return OK;
}

static int by_number(const void *a, const void *b)
{
    const struct stored_event *left = a;
    const struct stored_event *right = b;
    return (left->number > right->number) - (left->number < right->number);
}

static int by_value(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

/* Reads the events of many changes in few steps; the order of events is that of their rows. */
static struct err read_ahead(struct picking *p, const struct state_difference *changes,
                             size_t count)
{
    enum { WORTH_IT = 4 };
    int64_t *numbers = arena_array(p->job->room_ctx->arena, count, sizeof *numbers);
    size_t wanted = 0;
    for (size_t i = 0; i < count; i++) {
        if (changes[i].right && !in_timeline(p->room, changes[i].right)) {
            numbers[wanted++] = changes[i].right;
        }
    }
    if (wanted < WORTH_IT) {
        return OK;
    }
    qsort(numbers, wanted, sizeof *numbers, by_value);
    struct event_numbers list = {numbers, wanted};
    return hs_events_scan_many(p->job->hs, p->job->room_ctx, p->room->room, list, &p->ready);
}

static struct err load(struct picking *p, int64_t number, struct stored_event *event_out,
                       bool *found_out)
{
    struct stored_event wanted = {.number = number};
    const struct stored_event *known = in_timeline(p->room, number);
    if (known == NULL && p->ready.count > 0) {
        known = bsearch(&wanted, p->ready.items, p->ready.count, sizeof wanted, by_number);
    }
    *found_out = known != NULL;
    if (known) {
        *event_out = *known;
        return OK;
    }
    return hs_event_scan(p->job->hs, p->job->room_ctx, p->room->room, number, event_out, found_out);
}

/* --- who came, who went --- */

/* Spec: client-server, "Tracking the device list for a user": those who begin to share a room are
 * reported as changed, those who share none any more as left. */
static struct err note_member(struct picking *p, struct stored_event *event, int64_t before)
{
    struct stored_event old;
    bool found = false;
    bool known = false;
    uint64_t user = 0;
    p->room->members_changed = true;
    if (p->room->fresh) {
        return OK; /* everybody in the room is new to the client */
    }
    TRY(hs_event_parse_content(p->job->room_ctx, event));
    if (before) {
        TRY(load(p, before, &old, &found));
    }
    if (found) {
        TRY(hs_event_parse_content(p->job->room_ctx, &old));
    }
    bool was = found && membership_of(&old.event) == MEMBERSHIP_JOIN;
    bool is = membership_of(&event->event) == MEMBERSHIP_JOIN;
    if (was == is) {
        return OK;
    }
    TRY(hs_user_find(p->job->hs, p->job->room_ctx, event->event.state_key, &user, &known));
    if (known) {
        sync_users_add(p->job->ctx, is ? &p->job->arrived : &p->job->gone, user);
    }
    return OK;
}

/* --- differences --- */

/* A key that the timeline shows changing: its value at the start of the timeline, if the client
 * has another. */
static struct err offer_start_value(struct picking *p, const struct state_difference *change)
{
    struct stored_event event;
    int64_t number = 0;
    bool found = false;
    TRY(state_get(p->job->hs->states, p->job->room_ctx, p->room->info.number, p->start_root,
                  change->key, &number, &found));
    if (!found || number == change->left || in_timeline(p->room, number)) {
        return OK;
    }
    TRY(load(p, number, &event, &found));
    if (found && !(p->lazy && p->room->full_state && is_member(&event))) {
        return offer(p, &event);
    }
    return OK;
}

static struct err offer_change(struct picking *p, const struct state_difference *change)
{
    struct stored_event event;
    bool found = false;
    if (change->right == 0) {
        return OK;
    }
    bool shown = in_timeline(p->room, change->right) != NULL;
    TRY(load(p, change->right, &event, &found));
    if (!found) {
        return err_make(ERR_CORRUPT, "an event of the room's state is missing");
    }
    if (is_member(&event) && !p->room->full_state) {
        TRY(note_member(p, &event, change->left));
    } else if (is_member(&event) && p->lazy) {
        return OK; /* members are chosen by need */
    }
    if (!shown || p->job->request->use_state_after) {
        return offer(p, &event);
    }
    return p->room->limited || p->room->full_state ? offer_start_value(p, change) : OK;
}

static struct err offer_changes(struct picking *p)
{
    struct state_difference *changes = NULL;
    size_t count = 0;
    if (p->base_root == p->room->end_root) {
        return OK;
    }
    TRY(state_diff(p->job->hs->states, p->job->room_ctx, p->room->info.number, p->base_root,
                   p->room->end_root, &changes, &count));
    TRY(read_ahead(p, changes, count));
    for (size_t i = 0; i < count; i++) {
        TRY(offer_change(p, &changes[i]));
    }
    return OK;
}

/* full_state asks for all of the state, but who came and went since is a difference all the same.
 */
static struct err note_changes(struct picking *p)
{
    struct state_difference *changes = NULL;
    size_t count = 0;
    TRY(state_diff(p->job->hs->states, p->job->room_ctx, p->room->info.number, p->room->since_root,
                   p->room->end_root, &changes, &count));
    for (size_t i = 0; i < count; i++) {
        struct stored_event event;
        bool found = false;
        if (changes[i].right) {
            TRY(load(p, changes[i].right, &event, &found));
        }
        if (found && is_member(&event)) {
            TRY(note_member(p, &event, changes[i].left));
        }
    }
    return OK;
}

/* Everything but members, without looking at members. */
static struct err offer_all_but_members(struct picking *p)
{
    struct sync_job *job = p->job;
    uint64_t *keys = NULL;
    size_t count = 0;
    TRY(hs_state_keys_without_members(job->hs, job->room_ctx, p->room->room, &keys, &count));
    struct state_difference *changes = arena_array(job->room_ctx->arena, count, sizeof *changes);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        bool found = false;
        changes[kept].key = keys[i];
        TRY(state_get(job->hs->states, job->room_ctx, p->room->info.number, p->room->end_root,
                      keys[i], &changes[kept].right, &found));
        kept += found ? 1 : 0;
    }
    TRY(read_ahead(p, changes, kept));
    for (size_t i = 0; i < kept; i++) {
        TRY(offer_change(p, &changes[i]));
    }
    return OK;
}

/* --- members by need --- */

/* Among the events read ahead, which are the state at the end: also that at the start, unless the
 * timeline changed it. */
static const struct stored_event *member_read_ahead(const struct picking *p, struct slice user_id)
{
    int64_t first = p->job->request->use_state_after ? INT64_MAX : first_number(p->room);
    for (size_t i = 0; i < p->ready.count && p->ready.items[i].number < first; i++) {
        const struct stored_event *event = &p->ready.items[i];
        if (is_member(event) && slice_eq(event->event.state_key, user_id)) {
            return event;
        }
    }
    return NULL;
}

static struct err find_member(struct picking *p, struct slice user_id,
                              struct stored_event *event_out, bool *found_out)
{
    struct sync_job *job = p->job;
    uint64_t root = job->request->use_state_after ? p->room->end_root : p->start_root;
    const struct stored_event *known = member_read_ahead(p, user_id);
    *found_out = known != NULL;
    if (known) {
        *event_out = *known;
        return OK;
    }
    return hs_state_event(job->hs, job->room_ctx, p->room->room, root, LIT("m.room.member"),
                          user_id, event_out, found_out);
}

static struct err offer_found(struct picking *p, struct stored_event *event)
{
    struct sync_job *job = p->job;
    if (has_number(p->room, event->number) ||
        (!job->request->use_state_after && in_timeline(p->room, event->number))) {
        return OK;
    }
    struct sync_lazy_key key = lazy_key(p, event->number);
    bool redundant = !p->room->full_state && !job->filter->room_state.include_redundant_members &&
                     sync_lazy_has(job->sync->lazy, &key, job->since);
    return redundant ? OK : offer(p, event);
}

static struct err offer_member(struct picking *p, struct slice user_id)
{
    struct stored_event event;
    bool found = false;
    TRY(find_member(p, user_id, &event, &found));
    return found ? offer_found(p, &event) : OK;
}

/* Where the room's graph forks, the timeline may begin on a branch that does not know the sender of
 * a later event: the state before that one does. In a partial room it may lack it, too: the event
 * cites it. */
static struct err offer_sender(struct picking *p, const struct stored_event *event)
{
    struct stored_event member;
    bool found = false;
    TRY(find_member(p, event->event.sender.s, &member, &found));
    if (!found) {
        TRY(hs_state_event(p->job->hs, p->job->room_ctx, p->room->room, event->state_before,
                           LIT("m.room.member"), event->event.sender.s, &member, &found));
    }
    bool partial = hs_room_is_partial(p->room->room);
    for (size_t i = 0; partial && !found && i < event->event.auth_event_count; i++) {
        TRY(hs_event_find(p->job->hs, p->job->room_ctx, p->room->room,
                          event->event.auth_events[i].s, &member, &found));
        found = found && event_is(&member.event, LIT("m.room.member"), event->event.sender.s) &&
                !(member.flags & EVENT_REJECTED);
    }
    return found ? offer_found(p, &member) : OK;
}

static bool sent_before(const struct stored_events *timeline, size_t at)
{
    for (size_t i = at; i > 0; i--) {
        if (timeline->items[i - 1].sender == timeline->items[at].sender) {
            return true;
        }
    }
    return false;
}

static struct err offer_needed_members(struct picking *p)
{
    const struct stored_events *timeline = &p->room->timeline;
    struct sync_heroes heroes;
    for (size_t i = 0; i < timeline->count; i++) {
        const struct stored_event *event = &timeline->items[i];
        if (!sent_before(timeline, i)) {
            TRY(offer_sender(p, event));
        }
        if (p->job->request->use_state_after && is_member(event) && event->event.has_state_key) {
            TRY(offer_member(p, event->event.state_key));
        }
    }
    if (p->room->full_state) {
        TRY(offer_member(p, p->job->viewer.user_id));
    }
    if (p->room->full_state || p->room->members_changed) {
        TRY(sync_room_heroes(p->job, p->room, &heroes));
        for (size_t i = 0; heroes.wanted && i < heroes.count; i++) {
            TRY(offer_member(p, heroes.user_ids[i]));
        }
    }
    return OK;
}

struct err sync_room_state(struct sync_job *job, struct sync_room *room)
{
    struct picking p = {.job = job, .room = room};
    p.start_root = room->timeline.count > 0 ? room->timeline.items[0].state_before : room->end_root;
    p.base_root = room->full_state ? 0 : room->since_root;
    p.lazy = job->filter->room_state.lazy_load_members;
    if (!sync_filter_takes_room(&job->filter->room_state, room->info.room_id)) {
        return OK;
    }
    if (room->full_state && !room->fresh) {
        TRY(note_changes(&p));
    }
    uint32_t people = room->head.joined_count + room->head.invited_count;
    if (p.lazy && room->full_state && people > FEW_PEOPLE) {
        TRY(offer_all_but_members(&p));
    } else {
        TRY(offer_changes(&p));
    }
    return p.lazy ? offer_needed_members(&p) : OK;
}
