/* The state that a connection asked for: all of it for a room that is new to it, else what changed,
 * and what it did not ask for before. Spec: MSC4186, "RequiredStateRequest" and "Changes to
 * `required_state`". */
#include "homeserver/sync/sliding_priv.h"

#include <stdlib.h>

/* In rooms with fewer people reading all of the state is cheaper than avoiding the members. */
enum { FEW_PEOPLE = 100 };

struct picking {
    struct sliding_job *job;
    struct sync_job *base;
    struct sync_room *room;
    struct sliding_delta *delta;
    int64_t *numbers; /* of events to look at */
    size_t count, cap;
};

static struct arena *arena_of(const struct picking *p)
{
    return p->base->room_ctx->arena;
}

static void want(struct picking *p, int64_t number)
{
    if (p->count == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 32;
        p->numbers = arena_grow(arena_of(p), p->numbers, p->cap * sizeof *p->numbers,
                                cap * sizeof *p->numbers);
        p->cap = cap;
    }
    p->numbers[p->count++] = number;
}

static bool has_event(const struct sliding_delta *delta, int64_t number)
{
    for (size_t i = 0; i < delta->state.count; i++) {
        if (delta->state.items[i].number == number) {
            return true;
        }
    }
    return false;
}

static struct err tell(struct picking *p, const struct stored_event *event)
{
    struct sliding_delta *delta = p->delta;
    if (delta->state.count == delta->state_cap) {
        size_t cap = delta->state_cap ? delta->state_cap * 2 : 32;
        delta->state.items = arena_grow(arena_of(p), delta->state.items,
                                        delta->state_cap * sizeof *delta->state.items,
                                        cap * sizeof *delta->state.items);
        delta->state_cap = cap;
    }
    delta->state.items[delta->state.count++] = *event;
    return sync_sliding_note_member(p->job, event);
}

static bool is_member(const struct stored_event *event)
{
    return slice_eq(event->event.type, LIT("m.room.member"));
}

static struct sync_lazy_key lazy_key(const struct picking *p, int64_t number)
{
    /* The connection in place of a device: what one was told the other was not. */
    struct slice conn = {(const char *)&p->job->conn->lazy, sizeof p->job->conn->lazy};
    return (struct sync_lazy_key){.user = p->base->viewer.user,
                                  .device_id = conn,
                                  .room = p->room->info.number,
                                  .member_event = number};
}

static void note_told(struct picking *p, const struct stored_event *event)
{
    if (p->delta->ask.lazy && is_member(event)) {
        struct sync_lazy_key key = lazy_key(p, event->number);
        sync_lazy_sent(p->base->sync->lazy, &key, p->job->conn->seq + 1);
    }
}

static int by_value(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

/* Reads what is wanted, each once. */
static struct err read_wanted(struct picking *p, struct stored_events *events_out)
{
    size_t kept = 0;
    *events_out = (struct stored_events){0};
    if (p->count == 0) {
        return OK;
    }
    qsort(p->numbers, p->count, sizeof *p->numbers, by_value);
    for (size_t i = 0; i < p->count; i++) {
        if (kept == 0 || p->numbers[kept - 1] != p->numbers[i]) {
            p->numbers[kept++] = p->numbers[i];
        }
    }
    p->count = 0;
    return hs_events_scan_many(p->base->hs, p->base->room_ctx, p->room->room,
                               (struct event_numbers){p->numbers, kept}, events_out);
}

/* --- all that is asked for --- */

static struct err want_key(struct picking *p, uint64_t key)
{
    int64_t number = 0;
    bool found = false;
    TRY(state_get(p->base->hs->states, p->base->room_ctx, p->room->info.number, p->room->end_root,
                  key, &number, &found));
    if (found) {
        want(p, number);
    }
    return OK;
}

static struct err want_keys(struct picking *p, const uint64_t *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        TRY(want_key(p, keys[i]));
    }
    return OK;
}

static struct err want_everything(struct picking *p)
{
    struct state_entries entries;
    TRY(state_read(p->base->hs->states, p->base->room_ctx, p->room->info.number, p->room->end_root,
                   &entries));
    for (size_t i = 0; i < entries.count; i++) {
        want(p, entries.items[i].event);
    }
    return OK;
}

static struct err want_all_types(struct picking *p)
{
    uint64_t *keys = NULL;
    size_t count = 0;
    uint32_t people = p->room->head.joined_count + p->room->head.invited_count;
    if (!p->delta->ask.lazy || people <= FEW_PEOPLE) {
        return want_everything(p);
    }
    TRY(hs_state_keys_without_members(p->base->hs, p->base->room_ctx, p->room->room, &keys,
                                      &count));
    return want_keys(p, keys, count);
}

static struct err want_element(struct picking *p, const struct sliding_element *element)
{
    struct sync_job *job = p->base;
    uint64_t *keys = NULL;
    uint64_t key = 0;
    size_t count = 0;
    bool found = false;
    if (element->any_type) {
        return want_all_types(p);
    }
    if (element->any_key) {
        TRY(hs_state_keys_of_type(job->hs, job->room_ctx, p->room->room, element->type, &keys,
                                  &count));
        return want_keys(p, keys, count);
    }
    TRY(hs_state_key_find(job->hs, job->room_ctx, p->room->room, element->type, element->state_key,
                          &key, &found));
    return found ? want_key(p, key) : OK;
}

static struct err tell_asked(struct picking *p)
{
    const struct sliding_ask_state *ask = &p->delta->ask;
    struct stored_events events;
    for (size_t i = 0; i < ask->count; i++) {
        for (size_t j = 0; j < ask->items[i]->include.count; j++) {
            TRY(want_element(p, &ask->items[i]->include.items[j]));
        }
    }
    TRY(read_wanted(p, &events));
    for (size_t i = 0; i < events.count; i++) {
        const struct stored_event *event = &events.items[i];
        struct slice type = event->event.type;
        struct slice key = event->event.state_key;
        bool known = p->delta->asked && sync_sliding_asks(p->delta->asked, type, key);
        if (!known && sync_sliding_asks(ask, type, key) && !has_event(p->delta, event->number)) {
            TRY(tell(p, event));
            note_told(p, event);
        }
    }
    return OK;
}

/* --- what changed --- */

static struct err note_gone(struct picking *p, uint64_t key)
{
    struct sliding_delta *delta = p->delta;
    struct sliding_gone *gone = &delta->gone[delta->gone_count];
    TRY(hs_state_key_name(p->base->hs, p->base->room_ctx, p->room->room, key, &gone->type,
                          &gone->key));
    bool is_name = slice_eq(gone->type, LIT("m.room.name")) && gone->key.len == 0;
    bool is_avatar = slice_eq(gone->type, LIT("m.room.avatar")) && gone->key.len == 0;
    delta->name_changed = delta->name_changed || is_name;
    delta->avatar_changed = delta->avatar_changed || is_avatar;
    delta->members_changed = delta->members_changed || slice_eq(gone->type, LIT("m.room.member"));
    delta->gone_count += sync_sliding_asks(&delta->ask, gone->type, gone->key) ? 1 : 0;
    return OK;
}

static struct err note_changed(struct picking *p, const struct stored_event *event)
{
    struct sliding_delta *delta = p->delta;
    struct slice type = event->event.type;
    struct slice key = event->event.state_key;
    bool member = is_member(event);
    delta->name_changed =
        delta->name_changed || (slice_eq(type, LIT("m.room.name")) && key.len == 0);
    delta->avatar_changed =
        delta->avatar_changed || (slice_eq(type, LIT("m.room.avatar")) && key.len == 0);
    delta->members_changed = delta->members_changed || member;
    /* All changes of members while there is no gap: a client may keep the list of them. */
    bool by_need = member && delta->ask.lazy && !p->room->limited;
    if (by_need || sync_sliding_asks(&delta->ask, type, key)) {
        TRY(tell(p, event));
        note_told(p, event);
    }
    return OK;
}

static struct err tell_changes(struct picking *p)
{
    struct state_difference *changes = NULL;
    struct stored_events events;
    size_t count = 0;
    if (p->room->since_root == p->room->end_root) {
        return OK;
    }
    TRY(state_diff(p->base->hs->states, p->base->room_ctx, p->room->info.number,
                   p->room->since_root, p->room->end_root, &changes, &count));
    p->delta->gone = arena_array(arena_of(p), count, sizeof *p->delta->gone);
    for (size_t i = 0; i < count; i++) {
        if (changes[i].right) {
            want(p, changes[i].right);
        } else {
            TRY(note_gone(p, changes[i].key));
        }
    }
    TRY(read_wanted(p, &events));
    for (size_t i = 0; i < events.count; i++) {
        TRY(note_changed(p, &events.items[i]));
    }
    return OK;
}

/* --- members by need --- */

static struct err tell_member(struct picking *p, struct slice user_id)
{
    struct sync_job *job = p->base;
    struct stored_event event;
    uint64_t key = 0;
    int64_t number = 0;
    bool found = false;
    TRY(hs_state_key_find(job->hs, job->room_ctx, p->room->room, LIT("m.room.member"), user_id,
                          &key, &found));
    if (found) {
        TRY(state_get(job->hs->states, job->room_ctx, p->room->info.number, p->room->end_root, key,
                      &number, &found));
    }
    if (!found || has_event(p->delta, number)) {
        return OK;
    }
    struct sync_lazy_key lazy = lazy_key(p, number);
    if (!p->room->fresh && sync_lazy_has(job->sync->lazy, &lazy, p->job->conn->had.seq)) {
        return OK;
    }
    TRY(hs_event_scan(job->hs, job->room_ctx, p->room->room, number, &event, &found));
    if (found) {
        TRY(tell(p, &event));
        note_told(p, &event);
    }
    return OK;
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

/* Spec: MSC4186, "Lazy loaded memberships": senders, and targets of member events. */
static struct err tell_needed_members(struct picking *p)
{
    const struct stored_events *timeline = &p->room->timeline;
    for (size_t i = 0; i < timeline->count; i++) {
        const struct stored_event *event = &timeline->items[i];
        if (!sent_before(timeline, i)) {
            TRY(tell_member(p, event->event.sender.s));
        }
        if (is_member(event) && event->event.has_state_key) {
            TRY(tell_member(p, event->event.state_key));
        }
    }
    return OK;
}

struct err sync_sliding_state(struct sliding_job *job, struct sync_room *room,
                              struct sliding_delta *delta)
{
    struct picking p = {.job = job, .base = &job->base, .room = room, .delta = delta};
    if (!room->fresh) {
        TRY(tell_changes(&p));
    }
    if (room->fresh || delta->asked) {
        TRY(tell_asked(&p));
    }
    return delta->ask.lazy ? tell_needed_members(&p) : OK;
}
