/* The state after each event is the state before it with that event; proven from one event to the
 * next by what differs between the two snapshots, and by the last snapshot as a whole. Where the
 * graph forks, the state before an event comes from resolution and is taken as it is told. */
#include "homeserver/service/check_priv.h"

#include <string.h>

/* --- numbers of state keys --- */

static struct slice packed(struct checker *c, uint64_t number)
{
    struct buf out;
    buf_init_arena(&out, c->page.arena, 16);
    pack_u64(&out, number);
    return buf_slice(&out);
}

static struct err visit_name(struct checker *c, void *arg, const struct store_row *row)
{
    struct room_walk *w = arg;
    struct unpack key = unpack_of(slice_from(row->key, 1));
    uint64_t number = unpack_be64(&key);
    struct check_place place = {CHECK_STATE_KEYS, w->log,
                                key_bytes(&c->page, ROOM_KEY_STATE_KEY, row->value)};
    if (key.bad || number == 0 || place.key.len > STORE_KEY_BYTES_MAX) {
        return check_row_stray(c, (struct check_place){CHECK_STATE_KEYS, w->log, row->key});
    }
    w->next_key = number >= w->next_key ? number + 1 : w->next_key;
    return check_row_is(c, place, packed(c, number));
}

static struct err visit_key(struct checker *c, void *arg, const struct store_row *row)
{
    struct room_walk *w = arg;
    struct unpack in = unpack_of(row->value);
    uint64_t number = unpack_u64(&in);
    struct slice pair = slice_from(row->key, 1);
    if (in.bad || number == 0) {
        return check_row_stray(c, (struct check_place){CHECK_STATE_KEYS, w->log, row->key});
    }
    w->next_key = number >= w->next_key ? number + 1 : w->next_key;
    struct check_place place = {CHECK_STATE_KEYS, w->log,
                                key_u64(&c->page, ROOM_KEY_STATE_NAME, number)};
    return check_row_is(c, place, pair);
}

struct err check_state_keys(struct room_walk *w)
{
    TRY(check_each_row(w->c, w->log, ROOM_KEY_STATE_NAME, visit_name, w));
    return check_each_row(w->c, w->log, ROOM_KEY_STATE_KEY, visit_key, w);
}

/* The number that the snapshots use for the event at hand, when its row of names is lost. */
static uint64_t number_in_snapshots(struct room_walk *w)
{
    struct state_difference *items = NULL;
    size_t count = 0;
    struct err err = state_diff(w->c->hs->states, &w->c->page, w->shape.number,
                                w->record.state_before, w->record.state_after, &items, &count);
    bool one = err.code == 0 && count == 1 && items[0].right == w->number;
    return one ? items[0].key : w->next_key;
}

static struct err key_of_event(struct room_walk *w, uint64_t *key_out)
{
    struct checker *c = w->c;
    struct slice row;
    bool found = false;
    struct slice pair = state_pair(&c->page, w->event.type, w->event.state_key);
    struct slice key = key_bytes(&c->page, ROOM_KEY_STATE_KEY, pair);
    TRY(store_get(c->hs->store, &c->page, w->log, key, &row, &found));
    struct unpack in = unpack_of(found ? row : (struct slice){0});
    *key_out = unpack_u64(&in);
    if (found && !in.bad) {
        return OK;
    }
    *key_out = number_in_snapshots(w);
    w->next_key = *key_out >= w->next_key ? *key_out + 1 : w->next_key;
    TRY(check_row_is(c, (struct check_place){CHECK_STATE_KEYS, w->log, key}, packed(c, *key_out)));
    struct slice name = key_u64(&c->page, ROOM_KEY_STATE_NAME, *key_out);
    return check_row_is(c, (struct check_place){CHECK_STATE_KEYS, w->log, name}, pair);
}

/* --- what a change of state means for the counts --- */

static void count_as(struct room_walk *w, enum membership membership, bool joins)
{
    uint32_t step = joins ? 1u : UINT32_MAX;
    w->joined_count += membership == MEMBERSHIP_JOIN ? step : 0;
    w->invited_count += membership == MEMBERSHIP_INVITE ? step : 0;
}

static void set_membership(struct room_walk *w, uint64_t key, enum membership membership)
{
    uint64_t before = MEMBERSHIP_NONE;
    map_get(w->memberships, map_key_u64(&key), &before);
    count_as(w, (enum membership)before, false);
    count_as(w, membership, true);
    map_set(w->memberships, map_key_u64(&key), (uint64_t)membership);
}

static bool is_member(const struct event *event)
{
    return event->has_state_key && slice_eq(event->type, LIT("m.room.member")) &&
           ids_is_user(event->state_key);
}

/* The name of a key; empty when it is lost. */
static struct err name_of(struct room_walk *w, uint64_t key, struct slice *type_out,
                          struct slice *state_key_out)
{
    struct slice row;
    bool found = false;
    TRY(store_get(w->c->hs->store, &w->c->page, w->log,
                  key_u64(&w->c->page, ROOM_KEY_STATE_NAME, key), &row, &found));
    *state_key_out = slice_cut(found ? row : (struct slice){0}, '\0', type_out);
    return OK;
}

static struct err take_change(struct room_walk *w, const struct state_difference *item,
                              uint64_t pos)
{
    struct event event = {0};
    struct slice type;
    struct slice state_key;
    bool found = false;
    struct slice key = map_key_u64(&item->key);
    if (item->right) {
        map_set(w->state, key, (uint64_t)item->right);
        TRY(check_event_load(w, item->right, &event, &found));
    } else {
        map_remove(w->state, key);
    }
    TRY(name_of(w, item->key, &type, &state_key));
    if (!slice_eq(type, LIT("m.room.member")) || !ids_is_user(state_key)) {
        return OK;
    }
    set_membership(w, item->key, membership_of(found ? &event : NULL));
    return check_member_changed(w, state_key, item->right, pos);
}

/* Takes over what resolution, a join or the end of a partial time made of the state. */
static struct err move_to(struct room_walk *w, uint64_t root, uint64_t pos)
{
    struct state_difference *items = NULL;
    size_t count = 0;
    TRY(state_diff(w->c->hs->states, &w->c->page, w->shape.number, w->root, root, &items, &count));
    for (size_t i = 0; i < count; i++) {
        TRY(take_change(w, &items[i], pos));
    }
    w->root = root;
    return OK;
}

/* --- snapshots --- */

static void report_state(struct room_walk *w, const char *what)
{
    w->wrong |= RECORD_STATE;
    check_report(w->c, CHECK_STATE, (struct slice){0}, what, w->c->mode == CHECK_REBUILD);
}

/* The snapshot before the event is the one after the event before it. */
static struct err check_before(struct room_walk *w)
{
    struct checker *c = w->c;
    struct state_difference *items = NULL;
    size_t count = 0;
    if (w->record.state_before == w->root) {
        return OK;
    }
    struct err err = state_diff(c->hs->states, &c->page, w->shape.number, w->root,
                                w->record.state_before, &items, &count);
    bool damaged = check_is_damage(err);
    if (!damaged) {
        TRY(err);
    }
    if (damaged || count || w->is_rerooted) {
        w->record.state_before = w->root;
        w->wrong |= RECORD_STATE;
    }
    if (damaged || count) {
        report_state(w, damaged ? "the snapshot before it cannot be read"
                                : "the snapshot before it is not that after the last event");
    }
    return OK;
}

static struct err check_after(struct room_walk *w, uint64_t key, int64_t replaced)
{
    struct checker *c = w->c;
    struct state_difference *items = NULL;
    size_t count = 0;
    struct err err = state_diff(c->hs->states, &c->page, w->shape.number, w->root,
                                w->record.state_after, &items, &count);
    bool damaged = check_is_damage(err);
    if (!damaged) {
        TRY(err);
    }
    bool right = !damaged && count == 1 && items[0].key == key && items[0].left == replaced &&
                 items[0].right == w->number;
    if (right && !w->is_rerooted) {
        return OK;
    }
    if (c->mode == CHECK_REBUILD) {
        TRY(rebuild_snapshot(w, w->root, key, &w->record.state_after));
        w->is_rerooted = true;
        w->wrong |= RECORD_STATE;
    }
    if (right) { /* only moved to the new snapshots */
        return OK;
    }
    report_state(w, damaged ? "the snapshot after it cannot be read"
                            : "the snapshot after it is not that before it with this event");
    return OK;
}

static void check_next_key(struct room_walk *w, uint64_t key)
{
    if (w->record.next_key > key) {
        return;
    }
    w->record.next_key = w->next_key > key ? w->next_key : key + 1;
    w->wrong |= RECORD_KEYS;
    check_report(w->c, CHECK_STATE_KEYS, (struct slice){0}, "lets its number be given out twice",
                 w->c->mode == CHECK_REBUILD);
}

static struct err check_state_event(struct room_walk *w)
{
    uint64_t key = 0;
    uint64_t replaced = 0;
    TRY(key_of_event(w, &key));
    check_next_key(w, key);
    map_get(w->state, map_key_u64(&key), &replaced);
    map_set(w->state, map_key_u64(&key), (uint64_t)w->number);
    TRY(check_after(w, key, (int64_t)replaced));
    if (w->record.replaces != (int64_t)replaced) {
        w->record.replaces = (int64_t)replaced;
        report_state(w, "names another event as replaced");
    }
    if (is_member(&w->event)) {
        set_membership(w, key, membership_of(&w->event));
    }
    return OK;
}

/* After the one event before it: the state is proven by that after this one. */
static struct err check_linear(struct room_walk *w)
{
    TRY(check_before(w));
    if (w->event.has_state_key) {
        TRY(check_state_event(w));
    } else {
        w->record.state_after = w->record.state_before;
    }
    w->record.room_root = w->record.state_after;
    w->root = w->record.state_after;
    return check_member(w);
}

/* Where the graph forks the state before the event and that of the room are taken as told; the
 * state after the event still is that before it with the event. */
static struct err check_forked(struct room_walk *w)
{
    struct checker *c = w->c;
    uint64_t key = 0;
    int64_t replaced = 0;
    bool found = false;
    uint64_t root = w->root;
    w->root = w->record.state_before;
    if (w->event.has_state_key) {
        TRY(key_of_event(w, &key));
        check_next_key(w, key);
        if (w->root) {
            TRY(state_get(c->hs->states, &c->page, w->shape.number, w->root, key, &replaced,
                          &found));
        }
        TRY(check_after(w, key, replaced));
    }
    w->root = root;
    if (!(w->record.flags & EVENT_FORKED)) {
        w->record.room_root = w->record.state_after;
    }
    TRY(move_to(w, w->record.room_root, w->record.pos));
    return w->record.flags & EVENT_LATER ? move_to(w, w->record.later_root, w->record.later_pos)
                                         : OK;
}

struct err check_state(struct room_walk *w)
{
    bool is_state = (w->record.flags & EVENT_STATE) != 0;
    check_compared(w->c, CHECK_STATE);
    if (is_state != w->event.has_state_key) {
        w->record.flags ^= EVENT_STATE;
        report_state(w, "is marked as state and is none, or the other way round");
    }
    if (w->is_linear) {
        return check_linear(w);
    }
    struct err err = check_forked(w);
    if (check_is_damage(err)) {
        report_state(w, "a snapshot that it names cannot be read");
        w->record.flags &= ~(uint32_t)(EVENT_FORKED | EVENT_LATER);
        return check_linear(w);
    }
    return err;
}

/* Every entry of the last snapshot, and its hash. */
static struct err compare_head(struct room_walk *w, bool *right_out)
{
    struct checker *c = w->c;
    struct state_entries entries;
    *right_out = false;
    TRY(state_check(c->hs->states, &c->page, w->shape.number, w->root));
    TRY(state_read(c->hs->states, &c->page, w->shape.number, w->root, &entries));
    bool right = entries.count == map_count(w->state);
    for (size_t i = 0; i < entries.count && right; i++) {
        uint64_t event = 0;
        right = map_get(w->state, map_key_u64(&entries.items[i].key), &event) &&
                (int64_t)event == entries.items[i].event;
    }
    *right_out = right;
    return OK;
}

static struct err heal_head(struct room_walk *w)
{
    struct checker *c = w->c;
    bool found = false;
    TRY(rebuild_snapshot(w, 0, 0, &w->root));
    w->number = w->last_number;
    TRY(check_record_load(c, w->shape.number, w->number, &w->record, &found));
    if (!found) {
        return OK;
    }
    w->record.flags &= ~(uint32_t)(EVENT_FORKED | EVENT_LATER);
    w->record.state_after = w->root;
    w->record.room_root = w->root;
    if (!(w->record.flags & EVENT_STATE)) {
        w->record.state_before = w->root;
    }
    return rebuild_record(w);
}

struct err check_state_head(struct room_walk *w)
{
    bool right = false;
    if (w->last_number == 0) {
        return OK;
    }
    check_compared(w->c, CHECK_STATE);
    struct err err = compare_head(w, &right);
    if (err.code != 0 && !check_is_damage(err)) {
        return err;
    }
    if (right) {
        return OK;
    }
    if (w->c->mode == CHECK_REBUILD) {
        TRY(heal_head(w));
    }
    check_report(w->c, CHECK_STATE, (struct slice){0}, "the present state is damaged",
                 w->c->mode == CHECK_REBUILD);
    return OK;
}
