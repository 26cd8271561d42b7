#include "homeserver/room/resolve.h"

#include <stdlib.h>

#include "homeserver/room/resolve_priv.h"

static int compare_entries(const void *a, const void *b)
{
    const struct resolve_entry *left = a;
    const struct resolve_entry *right = b;
    int order = slice_cmp(left->type, right->type);
    return order ? order : slice_cmp(left->state_key, right->state_key);
}

static void sort_entries(struct resolve_entry *entries, size_t count)
{
    if (count) {
        qsort(entries, count, sizeof *entries, compare_entries);
    }
}

/* Last step: what is unconflicted stands, whatever was resolved for its key. */
static void collect(const struct resolve_input *input, const struct resolve_state *state,
                    struct resolve_set *resolved_out)
{
    struct resolve_entry *entries =
        arena_array(input->arena, map_count(state->by_key), sizeof *entries);
    size_t count = 0;
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(state->by_key, &cursor, &key, &value)) {
        const struct event *event = (const struct event *)(uintptr_t)value;
        if (!input->unconflicted(input->arg, event->type, event->state_key)) {
            entries[count++] = (struct resolve_entry){event->type, event->state_key, event->id};
        }
    }
    sort_entries(entries, count);
    *resolved_out = (struct resolve_set){entries, count};
}

void resolve_conflicts(const struct resolve_input *input, struct resolve_set *resolved_out)
{
    struct resolve_state state = {.arena = input->arena, .by_key = map_new()};
    if (input->rules->stateres == STATERES_1) {
        resolve_v1(input, &state);
    } else {
        resolve_v2(input, &state);
    }
    collect(input, &state, resolved_out);
    map_free(&state.by_key);
}

/* One key over all states. */
struct column {
    struct resolve_entry first;
    size_t present;
    bool differs;
};

struct whole {
    const struct resolve_input *input;
    struct map *by_key; /* struct column * */
    struct column *columns;
    size_t column_count;
    struct map *common; /* ids in the auth chains of unconflicted events; made when asked for */
};

static bool is_common(const struct whole *whole, const struct column *column)
{
    return !column->differs && column->present == whole->input->set_count;
}

static const struct event *whole_event(void *arg, struct event_id id)
{
    const struct whole *whole = arg;
    return whole->input->event(whole->input->arg, id);
}

static const struct event *whole_unconflicted(void *arg, struct slice type, struct slice state_key)
{
    const struct whole *whole = arg;
    const struct column *column =
        map_get_ptr(whole->by_key, resolve_key(whole->input->arena, type, state_key));
    return column && is_common(whole, column) ? whole_event(arg, column->first.event) : NULL;
}

/* Adds an id to the common set and to the queue of those whose auth_events are yet to be seen. */
static void add_common(struct whole *whole, struct event_id id, struct resolve_set *queue,
                       size_t *cap)
{
    uint64_t seen = 0;
    struct resolve_entry *items = (struct resolve_entry *)(uintptr_t)queue->items;
    if (map_get(whole->common, id.s, &seen)) {
        return;
    }
    map_set(whole->common, id.s, 1);
    if (queue->count == *cap) {
        size_t grown = *cap ? *cap * 2 : 64;
        items = arena_grow(whole->input->arena, items, *cap * sizeof *items, grown * sizeof *items);
        *cap = grown;
    }
    items[queue->count++] = (struct resolve_entry){.event = id};
    queue->items = items;
}

static void load_common(struct whole *whole)
{
    struct resolve_set queue = {0};
    size_t cap = 0;
    whole->common = map_new();
    for (size_t i = 0; i < whole->column_count; i++) {
        if (is_common(whole, &whole->columns[i])) {
            add_common(whole, whole->columns[i].first.event, &queue, &cap);
        }
    }
    for (size_t i = 0; i < queue.count; i++) {
        const struct event *event = whole_event(whole, queue.items[i].event);
        for (size_t j = 0; event && j < event->auth_event_count; j++) {
            add_common(whole, event->auth_events[j], &queue, &cap);
        }
    }
}

static void whole_chain(void *arg, const struct event_id *ids, size_t count, bool *in_chain_out)
{
    struct whole *whole = arg;
    uint64_t seen = 0;
    if (!whole->common) {
        load_common(whole);
    }
    for (size_t i = 0; i < count; i++) {
        in_chain_out[i] = map_get(whole->common, ids[i].s, &seen);
    }
}

static void load_columns(struct whole *whole)
{
    const struct resolve_input *input = whole->input;
    size_t total = 0;
    for (size_t i = 0; i < input->set_count; i++) {
        total += input->sets[i].count;
    }
    whole->columns = arena_array(input->arena, total, sizeof *whole->columns);
    for (size_t i = 0; i < input->set_count; i++) {
        for (size_t j = 0; j < input->sets[i].count; j++) {
            const struct resolve_entry *entry = &input->sets[i].items[j];
            struct slice key = resolve_key(input->arena, entry->type, entry->state_key);
            struct column *column = map_get_ptr(whole->by_key, key);
            if (!column) {
                column = &whole->columns[whole->column_count++];
                column->first = *entry;
                map_set_ptr(whole->by_key, key, column);
            }
            column->present++;
            column->differs = column->differs || !ids_event_eq(column->first.event, entry->event);
        }
    }
}

/* The entries of one state under the keys that conflict. */
static struct resolve_set conflicting_part(struct whole *whole, const struct resolve_set *set)
{
    struct arena *arena = whole->input->arena;
    struct resolve_entry *entries = arena_array(arena, set->count, sizeof *entries);
    size_t count = 0;
    for (size_t i = 0; i < set->count; i++) {
        const struct column *column = map_get_ptr(
            whole->by_key, resolve_key(arena, set->items[i].type, set->items[i].state_key));
        if (column && !is_common(whole, column)) {
            entries[count++] = set->items[i];
        }
    }
    return (struct resolve_set){entries, count};
}

void resolve_states(const struct resolve_input *input, struct resolve_set *state_out)
{
    struct whole whole = {.input = input, .by_key = map_new()};
    struct resolve_set resolved = {0};
    load_columns(&whole);
    struct resolve_set *parts = arena_array(input->arena, input->set_count, sizeof *parts);
    size_t conflicting = 0;
    for (size_t i = 0; i < input->set_count; i++) {
        parts[i] = conflicting_part(&whole, &input->sets[i]);
        conflicting += parts[i].count;
    }
    if (conflicting) {
        struct resolve_input inner = *input;
        inner.sets = parts;
        inner.unconflicted = whole_unconflicted;
        inner.unconflicted_chain = whole_chain;
        inner.event = whole_event;
        inner.arg = &whole;
        resolve_conflicts(&inner, &resolved);
    }
    struct resolve_entry *entries =
        arena_array(input->arena, whole.column_count + resolved.count, sizeof *entries);
    size_t count = 0;
    for (size_t i = 0; i < whole.column_count; i++) {
        if (is_common(&whole, &whole.columns[i])) {
            entries[count++] = whole.columns[i].first;
        }
    }
    for (size_t i = 0; i < resolved.count; i++) {
        entries[count++] = resolved.items[i];
    }
    sort_entries(entries, count);
    *state_out = (struct resolve_set){entries, count};
    map_free(&whole.by_key);
    map_free(&whole.common);
}
