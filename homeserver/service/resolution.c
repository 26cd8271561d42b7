/* Resolving states of a room: only the keys under which they differ are looked at, so that two
 * forks of a large room cost what they changed. Spec: room versions, "State resolution". */
#include "homeserver/room/resolve.h"

#include "homeserver/service/room_priv.h"

/* An event that the resolution met. `number` is the one it has now. */
struct known {
    struct event event;
    int64_t number;
    bool found;
};

/* A key and its event in each state; NULL where there is none. */
struct conflict {
    uint64_t key;
    struct slice type, state_key;
    const struct known **values;
    bool agrees; /* the same event everywhere, under numbers old and new */
};

struct resolving {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    const uint64_t *roots; /* no two of one state */
    size_t root_count;
    struct map *by_number;   /* struct known * */
    struct map *by_id;       /* struct known * */
    struct map *conflict_of; /* key -> index into conflicts + 1 */
    struct conflict *conflicts;
    size_t conflict_count, conflict_cap;
    const struct event *create;
    struct err err; /* of a callback */
};

static void keep_err(struct resolving *r, struct err err)
{
    if (r->err.code == 0) {
        r->err = err;
    }
}

/* --- events --- */

static struct err know(struct resolving *r, int64_t number, struct known **known_out)
{
    struct stored_event stored;
    struct known *known = map_get_ptr(r->by_number, map_key_u64((uint64_t *)&number));
    bool found = false;
    *known_out = known;
    if (known) {
        return OK;
    }
    TRY(hs_event_load(r->hs, r->ctx, r->room, number, &stored, &found));
    if (!found) {
        return err_make(ERR_CORRUPT, "an event of a state is missing");
    }
    known = map_get_ptr(r->by_id, stored.event.id.s);
    if (!known) {
        known = arena_alloc(r->ctx->arena, sizeof *known);
        *known = (struct known){.event = stored.event, .number = stored.number, .found = true};
        known->event.rejected = (stored.flags & EVENT_REJECTED) != 0;
        map_set_ptr(r->by_id, known->event.id.s, known);
    }
    map_set_ptr(r->by_number, map_key_u64((uint64_t *)&number), known);
    *known_out = known;
    return OK;
}

static struct known *know_id(struct resolving *r, struct event_id id)
{
    struct known *known = map_get_ptr(r->by_id, id.s);
    struct stored_event stored;
    bool found = false;
    if (known) {
        return known;
    }
    struct err err = hs_event_find(r->hs, r->ctx, r->room, id.s, &stored, &found);
    known = arena_alloc(r->ctx->arena, sizeof *known);
    if (err.code != 0) {
        keep_err(r, err);
    } else if (found) {
        *known = (struct known){.event = stored.event, .number = stored.number, .found = true};
        known->event.rejected = (stored.flags & EVENT_REJECTED) != 0;
    }
    map_set_ptr(r->by_id, id.s, known);
    return known;
}

static const struct event *event_by_id(void *arg, struct event_id id)
{
    const struct known *known = know_id(arg, id);
    return known->found ? &known->event : NULL;
}

/* --- conflicts --- */

static struct conflict *conflict_at(struct resolving *r, uint64_t key)
{
    uint64_t at = 0;
    if (map_get(r->conflict_of, map_key_u64(&key), &at)) {
        return &r->conflicts[at - 1];
    }
    if (r->conflict_count == r->conflict_cap) {
        size_t cap = r->conflict_cap ? r->conflict_cap * 2 : 16;
        r->conflicts =
            arena_grow(r->ctx->arena, r->conflicts, r->conflict_cap * sizeof *r->conflicts,
                       cap * sizeof *r->conflicts);
        r->conflict_cap = cap;
    }
    struct conflict *conflict = &r->conflicts[r->conflict_count++];
    *conflict = (struct conflict){.key = key};
    map_set(r->conflict_of, map_key_u64(&key), r->conflict_count);
    return conflict;
}

static struct err load_values(struct resolving *r, struct conflict *conflict)
{
    TRY(hs_state_key_name(r->hs, r->ctx, r->room, conflict->key, &conflict->type,
                          &conflict->state_key));
    conflict->values = arena_array(r->ctx->arena, r->root_count, sizeof(struct known *));
    conflict->agrees = true;
    for (size_t i = 0; i < r->root_count; i++) {
        int64_t number = 0;
        bool found = false;
        if (r->roots[i]) {
            TRY(state_get(r->hs->states, r->ctx, r->room->number, r->roots[i], conflict->key,
                          &number, &found));
        }
        if (found) {
            struct known *known = NULL;
            TRY(know(r, number, &known));
            conflict->values[i] = known;
        }
        conflict->agrees = conflict->agrees && conflict->values[i] == conflict->values[0];
    }
    return OK;
}

static struct err find_conflicts(struct resolving *r)
{
    for (size_t i = 1; i < r->root_count; i++) {
        struct state_difference *items = NULL;
        size_t count = 0;
        TRY(state_diff(r->hs->states, r->ctx, r->room->number, r->roots[0], r->roots[i], &items,
                       &count));
        for (size_t j = 0; j < count; j++) {
            conflict_at(r, items[j].key);
        }
    }
    for (size_t i = 0; i < r->conflict_count; i++) {
        TRY(load_values(r, &r->conflicts[i]));
    }
    return OK;
}

static struct resolve_set *sets_of(const struct resolving *r)
{
    struct resolve_set *sets = arena_array(r->ctx->arena, r->root_count, sizeof *sets);
    for (size_t i = 0; i < r->root_count; i++) {
        struct resolve_entry *entries =
            arena_array(r->ctx->arena, r->conflict_count, sizeof *entries);
        size_t count = 0;
        for (size_t j = 0; j < r->conflict_count; j++) {
            const struct conflict *conflict = &r->conflicts[j];
            if (!conflict->agrees && conflict->values[i]) {
                entries[count++] = (struct resolve_entry){conflict->type, conflict->state_key,
                                                          conflict->values[i]->event.id};
            }
        }
        sets[i] = (struct resolve_set){entries, count};
    }
    return sets;
}

/* --- the part on which all agree --- */

static bool is_conflicted(const struct resolving *r, uint64_t key)
{
    uint64_t at = 0;
    return map_get(r->conflict_of, map_key_u64(&key), &at) && !r->conflicts[at - 1].agrees;
}

static struct err load_unconflicted(struct resolving *r, struct slice type, struct slice state_key,
                                    const struct event **event_out)
{
    struct known *known = NULL;
    uint64_t key = 0;
    int64_t number = 0;
    bool found = false;
    *event_out = NULL;
    TRY(hs_state_key_find(r->hs, r->ctx, r->room, type, state_key, &key, &found));
    if (!found || is_conflicted(r, key) || r->roots[0] == 0) {
        return OK;
    }
    TRY(state_get(r->hs->states, r->ctx, r->room->number, r->roots[0], key, &number, &found));
    if (found) {
        TRY(know(r, number, &known));
        *event_out = &known->event;
    }
    return OK;
}

static const struct event *unconflicted(void *arg, struct slice type, struct slice state_key)
{
    struct resolving *r = arg;
    const struct event *event = NULL;
    struct err err = load_unconflicted(r, type, state_key, &event);
    if (err.code != 0) {
        keep_err(r, err);
    }
    return event;
}

static struct err stands_in_all(void *arg, uint64_t key, int64_t number, bool *matches_out)
{
    struct resolving *r = arg;
    int64_t current = 0;
    bool found = false;
    *matches_out = false;
    if (is_conflicted(r, key) || r->roots[0] == 0) {
        return OK;
    }
    TRY(state_get(r->hs->states, r->ctx, r->room->number, r->roots[0], key, &current, &found));
    *matches_out = found && current == number;
    return OK;
}

static struct err find_in_chains(struct resolving *r, const struct event_id *ids, size_t count,
                                 bool *in_chain_out)
{
    struct room_cites_query query = {.room = r->room, .matches = stands_in_all, .arg = r};
    if (!r->room->keeps_cites) {
        TRY(room_cites_build(r->hs, r->ctx, r->room));
    }
    for (size_t i = 0; i < count; i++) {
        const struct known *known = know_id(r, ids[i]);
        in_chain_out[i] = false;
        if (known->found) {
            query.number = known->number;
            TRY(room_cites_find(r->hs, r->ctx, &query, &in_chain_out[i]));
        }
    }
    return OK;
}

/* Whether an event of the auth difference is in the chain of an event on which all agree: then it
 * is in every state's chain. Looked for from the event upwards, through those that cite it. */
static void unconflicted_chain(void *arg, const struct event_id *ids, size_t count,
                               bool *in_chain_out)
{
    struct err err = find_in_chains(arg, ids, count, in_chain_out);
    if (err.code != 0) {
        keep_err(arg, err);
    }
}

/* --- the result --- */

static struct err find_create(struct resolving *r)
{
    for (size_t i = 0; i < r->root_count && !r->create; i++) {
        struct stored_event *create = arena_alloc(r->ctx->arena, sizeof *create);
        bool found = false;
        TRY(hs_state_event(r->hs, r->ctx, r->room, r->roots[i], LIT("m.room.create"), LIT(""),
                           create, &found));
        r->create = found ? &create->event : NULL;
    }
    return OK;
}

struct outcome {
    struct state_entry *changes; /* against the first root */
    size_t count;
    struct store_update *log; /* new state keys; NULL = none */
};

/* Keys that conflict are gone unless the resolution gives them an event. */
static void begin_outcome(const struct resolving *r, size_t resolved_count, struct outcome *out)
{
    out->changes =
        arena_array(r->ctx->arena, r->conflict_count + resolved_count, sizeof *out->changes);
    for (size_t i = 0; i < r->conflict_count; i++) {
        const struct conflict *conflict = &r->conflicts[i];
        int64_t number = conflict->agrees && conflict->values[0] ? conflict->values[0]->number : 0;
        out->changes[out->count++] = (struct state_entry){conflict->key, number};
    }
}

static struct err take_entry(struct resolving *r, const struct resolve_entry *entry,
                             struct outcome *out)
{
    struct state_entry *change = &out->changes[out->count++];
    bool found = false;
    change->event = know_id(r, entry->event)->number;
    TRY(hs_state_key_find(r->hs, r->ctx, r->room, entry->type, entry->state_key, &change->key,
                          &found));
    if (!found) {
        out->log =
            out->log ? out->log : store_update_new(r->ctx, room_object(r->ctx, r->room->number));
        TRY(room_state_key_intern(r->hs, r->ctx, r->room, entry->type, entry->state_key, out->log,
                                  &change->key));
    }
    return OK;
}

static struct err write_outcome(struct resolving *r, struct outcome *out, uint64_t *root_out)
{
    struct store_update *state =
        store_update_new(r->ctx, room_state_object(r->ctx, r->room->number));
    struct store_update *updates[] = {state, out->log};
    TRY(state_apply(r->hs->states, r->ctx, r->room->number, r->roots[0], out->changes, out->count,
                    state, root_out));
    if (*root_out == r->roots[0] && !out->log) {
        return OK;
    }
    return store_write(r->hs->store, r->ctx, updates, out->log ? 2 : 1);
}

static struct err resolve(struct resolving *r, uint64_t *root_out)
{
    struct resolve_set resolved = {0};
    struct outcome outcome = {0};
    TRY(find_conflicts(r));
    TRY(find_create(r));
    struct resolve_input input = {.arena = r->ctx->arena,
                                  .rules = r->room->rules,
                                  .create = r->create,
                                  .sets = sets_of(r),
                                  .set_count = r->root_count,
                                  .unconflicted = unconflicted,
                                  .event = event_by_id,
                                  .unconflicted_chain = unconflicted_chain,
                                  .arg = r};
    resolve_conflicts(&input, &resolved);
    TRY(r->err);
    begin_outcome(r, resolved.count, &outcome);
    for (size_t i = 0; i < resolved.count; i++) {
        TRY(take_entry(r, &resolved.items[i], &outcome));
    }
    return write_outcome(r, &outcome, root_out);
}

enum { EQUALS_TRIED_MAX = 32 };

/* Drops roots that hold the state of another one, as far as that is cheap: what stays double makes
 * no conflict. */
static struct err drop_equal(struct resolving *r, const uint64_t *roots, size_t count)
{
    uint64_t *kept = arena_array(r->ctx->arena, count, sizeof *kept);
    struct map *seen = map_new();
    struct err err = OK;
    for (size_t i = 0; i < count && err.code == 0; i++) {
        uint64_t before = 0;
        bool equal = map_get(seen, map_key_u64(&roots[i]), &before);
        map_set(seen, map_key_u64(&roots[i]), 1);
        for (size_t j = 0; j < r->root_count && j < EQUALS_TRIED_MAX && !equal && err.code == 0;
             j++) {
            err = state_eq(r->hs->states, r->ctx, r->room->number, kept[j], roots[i], &equal);
        }
        if (!equal) {
            kept[r->root_count++] = roots[i];
        }
    }
    map_free(&seen);
    r->roots = kept;
    return err;
}

/* In memory of its own: of what is read nothing stays. */
static struct err resolve_apart(struct resolving *r, uint64_t *root_out)
{
    struct ctx *ctx = r->ctx;
    struct ctx own = room_page_begin(ctx);
    r->ctx = &own;
    return room_page_end(ctx, &own, resolve(r, root_out));
}

static void know_new(struct resolving *r, const struct room_states *states)
{
    struct known *known = arena_alloc(r->ctx->arena, sizeof *known);
    *known = (struct known){.event = *states->event, .number = states->number, .found = true};
    map_set_ptr(r->by_id, known->event.id.s, known);
    map_set_ptr(r->by_number, map_key_u64((uint64_t *)&known->number), known);
}

struct err room_resolve(struct hs *hs, struct ctx *ctx, struct room *room,
                        const struct room_states *states, uint64_t *root_out)
{
    struct resolving r = {.hs = hs, .ctx = ctx, .room = room};
    *root_out = states->count ? states->roots[0] : 0;
    TRY(drop_equal(&r, states->roots, states->count));
    if (r.root_count < 2) {
        return OK;
    }
    r.by_number = map_new();
    r.by_id = map_new();
    r.conflict_of = map_new();
    if (states->event) {
        know_new(&r, states);
    }
    struct err err = resolve_apart(&r, root_out);
    map_free(&r.by_number);
    map_free(&r.by_id);
    map_free(&r.conflict_of);
    return err;
}
