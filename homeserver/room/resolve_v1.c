/* State resolution of room version 1. Spec: room version 1, "State resolution". */
#include <stdlib.h>
#include <string.h>

#include "crypto/sha1.h"
#include "homeserver/room/resolve_priv.h"

struct candidate {
    const struct event *event;
    struct sha1 hash;
};

/* The different events of one conflicting key. */
struct conflict {
    struct candidate *items;
    size_t count;
};

struct conflicts {
    struct conflict *items;
    size_t count;
};

enum pass {
    PASS_POWER_LEVELS,
    PASS_JOIN_RULES,
    PASS_MEMBERS,
    PASS_OTHERS,
    PASS_COUNT,
};

static enum pass pass_of(const struct event *event)
{
    if (event_is(event, LIT("m.room.power_levels"), LIT(""))) {
        return PASS_POWER_LEVELS;
    }
    if (slice_eq(event->type, LIT("m.room.join_rules"))) {
        return PASS_JOIN_RULES;
    }
    return slice_eq(event->type, LIT("m.room.member")) ? PASS_MEMBERS : PASS_OTHERS;
}

/* Ascending depth, then descending hash. */
static int compare_candidates(const void *a, const void *b)
{
    const struct candidate *left = a;
    const struct candidate *right = b;
    if (left->event->depth != right->event->depth) {
        return left->event->depth < right->event->depth ? -1 : 1;
    }
    return memcmp(right->hash.bytes, left->hash.bytes, sizeof left->hash.bytes);
}

static const struct event *state_lookup(void *arg, struct slice type, struct slice state_key)
{
    return resolve_state_get(arg, type, state_key);
}

static bool is_allowed(const struct resolve_input *input, struct resolve_state *state,
                       const struct event *event)
{
    struct auth_input check = {.arena = input->arena,
                               .event = event,
                               .create = input->create,
                               .state = state_lookup,
                               .state_arg = state};
    return auth_check_event(&check).allowed;
}

/* From the lowest depth on, each event must be allowed by the one before it. R is changed while the
 * key is tried and restored by the caller's next steps: other keys of this pass must not see it. */
static const struct event *pick_auth_event(const struct resolve_input *input,
                                           const struct resolve_state *state,
                                           const struct conflict *conflict)
{
    struct resolve_state trial = *state;
    const struct event *picked = conflict->items[0].event;
    trial.by_key = map_new();
    trial.base = state_lookup;
    trial.base_arg = (void *)(uintptr_t)state;
    for (size_t i = 1; i < conflict->count; i++) {
        resolve_state_set(&trial, picked);
        if (!is_allowed(input, &trial, conflict->items[i].event)) {
            break;
        }
        picked = conflict->items[i].event;
    }
    map_free(&trial.by_key);
    return picked;
}

/* The highest depth that is allowed; the lowest depth when none is. */
static const struct event *pick_other(const struct resolve_input *input,
                                      struct resolve_state *state, const struct conflict *conflict)
{
    for (size_t i = conflict->count; i > 0; i--) {
        if (is_allowed(input, state, conflict->items[i - 1].event)) {
            return conflict->items[i - 1].event;
        }
    }
    return conflict->items[0].event;
}

static void add_candidate(struct conflict *conflict, size_t max, const struct event *event)
{
    for (size_t i = 0; i < conflict->count; i++) {
        if (ids_event_eq(conflict->items[i].event->id, event->id)) {
            return;
        }
    }
    ASSERT(conflict->count < max); /* each set holds a key once */
    conflict->items[conflict->count++] = (struct candidate){event, sha1_of(event->id.s)};
}

/* Groups the known events of all sets by key. */
static struct conflicts group(const struct resolve_input *input)
{
    struct map *by_key = map_new();
    size_t total = 0;
    for (size_t i = 0; i < input->set_count; i++) {
        total += input->sets[i].count;
    }
    struct conflicts conflicts = {arena_array(input->arena, total, sizeof *conflicts.items), 0};
    for (size_t i = 0; i < input->set_count; i++) {
        for (size_t j = 0; j < input->sets[i].count; j++) {
            const struct resolve_entry *entry = &input->sets[i].items[j];
            const struct event *event = input->event(input->arg, entry->event);
            struct slice key = resolve_key(input->arena, entry->type, entry->state_key);
            struct conflict *conflict = map_get_ptr(by_key, key);
            if (!conflict) {
                conflict = &conflicts.items[conflicts.count++];
                conflict->items =
                    arena_array(input->arena, input->set_count, sizeof *conflict->items);
                map_set_ptr(by_key, key, conflict);
            }
            if (event) {
                add_candidate(conflict, input->set_count, event);
            }
        }
    }
    map_free(&by_key);
    return conflicts;
}

void resolve_v1(const struct resolve_input *input, struct resolve_state *state)
{
    struct conflicts conflicts = group(input);
    const struct event **picked =
        arena_array(input->arena, conflicts.count, sizeof(const struct event *));
    state->base = input->unconflicted;
    state->base_arg = input->arg;
    /* Keys that only some states have, all with the same event, do not conflict here. */
    for (size_t i = 0; i < conflicts.count; i++) {
        struct conflict *conflict = &conflicts.items[i];
        if (conflict->count == 1) {
            resolve_state_set(state, conflict->items[0].event);
        } else if (conflict->count) {
            qsort(conflict->items, conflict->count, sizeof *conflict->items, compare_candidates);
        }
    }
    for (enum pass pass = PASS_POWER_LEVELS; pass < PASS_COUNT; pass++) {
        for (size_t i = 0; i < conflicts.count; i++) {
            const struct conflict *conflict = &conflicts.items[i];
            picked[i] = NULL;
            if (conflict->count > 1 && pass_of(conflict->items[0].event) == pass) {
                picked[i] = pass == PASS_OTHERS ? pick_other(input, state, conflict)
                                                : pick_auth_event(input, state, conflict);
            }
        }
        for (size_t i = 0; i < conflicts.count; i++) {
            if (picked[i]) {
                resolve_state_set(state, picked[i]);
            }
        }
    }
}
