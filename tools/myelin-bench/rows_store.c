/* Rows that need no server: the store and the room core, called directly. */
#include "homeserver/base/mem.h"
#include "homeserver/base/now.h"
#include "homeserver/room/resolve.h"
#include "store/state.h"
#include "tools/myelin-bench/rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    ROOM = 1,
    CACHE_BYTES = 64 << 20,
    NODE_CACHE_BYTES = 16 << 20,
    EVENT_JSON_BYTES = 850, /* of a usual member event */
    SIZE_MEMBERS = 10000,
    SIZE_CHANGES = 100000,
    RESOLVE_MEMBERS = 100000,
    RESOLVE_ROUNDS = 50,
    PURGE_EVENTS = 1000000,
    ROWS_A_WRITE = 1000,
};

/* A store of its own in the scratch folder. */
struct stage {
    char path[512];
    struct store *store;
    struct state_store *states;
    struct ctx ctx;
    struct now now;
    uint64_t random;
};

static struct err stage_open(const struct row_run *run, struct stage *stage)
{
    *stage = (struct stage){.random = 42};
    snprintf(stage->path, sizeof stage->path, "%s/myelin-bench-XXXXXX", run->options->scratch);
    if (!mkdtemp(stage->path)) {
        return err_public(ERR_IO, "the scratch folder cannot be written");
    }
    stage->now = now_system();
    stage->ctx = (struct ctx){.arena = arena_new(), .now = &stage->now};
    struct store_config config = {
        .path = slice_of(stage->path), .arena = stage->ctx.arena, .cache_bytes = CACHE_BYTES};
    TRY(store_open(&config, &stage->store));
    stage->states = state_store_new(stage->store, NODE_CACHE_BYTES);
    return OK;
}

static void stage_close(struct stage *stage)
{
    if (stage->states) {
        state_store_free(&stage->states);
    }
    if (stage->store) {
        store_close(&stage->store);
    }
    if (stage->ctx.arena) {
        arena_free(&stage->ctx.arena);
    }
    if (stage->path[0] == 0 || fork() != 0) {
        return;
    }
    execlp("rm", "rm", "-rf", stage->path, (char *)NULL);
    _exit(127);
}

static uint64_t draw(struct stage *stage, uint64_t below)
{
    stage->random = stage->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (stage->random >> 33) % below;
}

static struct store_object state_object(struct stage *stage)
{
    return (struct store_object){STORE_ROOM_STATE, store_id_u64(stage->ctx.arena, ROOM)};
}

/* The state with one change more. */
static struct err change(struct stage *stage, uint64_t *root, struct state_entry entry)
{
    struct store_update *update = store_update_new(&stage->ctx, state_object(stage));
    TRY(state_apply(stage->states, &stage->ctx, ROOM, *root, &entry, 1, update, root));
    return store_write(stage->store, &stage->ctx, &update, 1);
}

static struct err stored_bytes(struct stage *stage, size_t *bytes_out)
{
    struct store_rows rows;
    *bytes_out = 0;
    TRY(store_read_range(stage->store, &stage->ctx, state_object(stage), (struct store_range){0},
                         &rows));
    for (size_t i = 0; i < rows.count; i++) {
        *bytes_out += rows.rows[i].key.len + rows.rows[i].value.len;
    }
    return OK;
}

static struct err grow_state(struct stage *stage, size_t *bytes_out)
{
    uint64_t root = 0;
    int64_t event = 0;
    for (size_t i = 0; i < SIZE_MEMBERS + SIZE_CHANGES; i++) {
        uint64_t key = i < SIZE_MEMBERS ? i + 1 : 1 + draw(stage, SIZE_MEMBERS);
        TRY(change(stage, &root, (struct state_entry){key, ++event}));
        if (i % ROWS_A_WRITE == 0) {
            arena_reset(stage->ctx.arena);
        }
    }
    return stored_bytes(stage, bytes_out);
}

struct err row_state_size(struct row_run *run)
{
    struct stage stage;
    size_t bytes = 0;
    struct err err = stage_open(run, &stage);
    if (err.code == 0) {
        err = grow_state(&stage, &bytes);
    }
    stage_close(&stage);
    TRY(err);
    double events = (double)(SIZE_MEMBERS + SIZE_CHANGES) * EVENT_JSON_BYTES;
    report_add(run->report,
               (struct report_figure){"state-size", "state records / event JSON", "",
                                      (double)bytes / events, 0.3, REPORT_LOWER,
                                      "10,000 members, 100,000 changes, 850 bytes an event, before "
                                      "compression"});
    return OK;
}

/* --- state resolution --- */

/* Events 0..: create, power levels, join rules, members; then those of the forks. */
enum { CREATE, POWER, JOIN_RULES, MEMBERS };
enum { FORK_EVENTS = 5 };

struct graph {
    struct arena *arena;
    const struct room_rules *rules;
    struct event *events;
    size_t count, base_count;
    struct stage *stage;
    uint64_t left, right; /* roots */
    struct state_difference *differences;
    size_t difference_count;
};

static struct event_id graph_id(struct graph *graph, size_t index)
{
    return ids_trust_event(arena_printf(graph->arena, "$event%08zu", index));
}

struct draft {
    struct slice type, state_key, content, sender;
    size_t previous;
};

static struct err graph_add(struct graph *graph, const struct draft *draft)
{
    size_t index = graph->count++;
    struct json content;
    TRY(json_parse(graph->arena, draft->content, &content));
    struct event_id *auth = arena_array(graph->arena, 4, sizeof *auth);
    size_t auth_count = index < 4 ? index : 4;
    auth[0] = graph_id(graph, CREATE);
    auth[1] = graph_id(graph, POWER);
    auth[2] = graph_id(graph, JOIN_RULES);
    auth[3] = graph_id(graph, MEMBERS);
    struct event_id *previous = arena_alloc(graph->arena, sizeof *previous);
    *previous = graph_id(graph, draft->previous);
    struct json *kept = arena_alloc(graph->arena, sizeof *kept);
    *kept = content;
    graph->events[index] = (struct event){
        .rules = graph->rules,
        .content = kept,
        .content_json = draft->content,
        .id = graph_id(graph, index),
        .room_id = ids_trust_room(LIT("!room:example.org")),
        .sender = ids_trust_user(draft->sender),
        .type = draft->type,
        .state_key = draft->state_key,
        .has_state_key = true,
        .depth = (int64_t)index + 1,
        .origin_server_ts = 1000 + (int64_t)index,
        .prev_events = previous,
        .prev_event_count = index > 0 ? 1 : 0,
        .auth_events = auth,
        .auth_event_count = auth_count,
    };
    return OK;
}

static struct slice member(struct graph *graph, size_t number)
{
    return number == 0 ? LIT("@admin:example.org")
                       : arena_printf(graph->arena, "@user%zu:example.org", number);
}

static struct err graph_base(struct graph *graph)
{
    struct slice admin = member(graph, 0);
    struct draft drafts[] = {
        {LIT("m.room.create"), LIT(""), LIT("{\"room_version\":\"11\"}"), admin, 0},
        {LIT("m.room.power_levels"), LIT(""), LIT("{\"users\":{\"@admin:example.org\":100}}"),
         admin, 0},
        {LIT("m.room.join_rules"), LIT(""), LIT("{\"join_rule\":\"public\"}"), admin, 1},
    };
    for (size_t i = 0; i < COUNT_OF(drafts); i++) {
        TRY(graph_add(graph, &drafts[i]));
    }
    for (size_t i = 0; i < RESOLVE_MEMBERS; i++) {
        struct slice user = member(graph, i);
        TRY(graph_add(graph,
                      &(struct draft){LIT("m.room.member"), user, LIT("{\"membership\":\"join\"}"),
                                      user, graph->count - 1}));
    }
    graph->base_count = graph->count;
    return OK;
}

/* Left: a new topic and a member who changes a name. Right: other power levels, another topic, a
 * ban. */
static struct err graph_forks(struct graph *graph)
{
    size_t last = graph->base_count - 1;
    struct slice admin = member(graph, 0), named = member(graph, 10), banned = member(graph, 5);
    struct draft drafts[FORK_EVENTS] = {
        {LIT("m.room.topic"), LIT(""), LIT("{\"topic\":\"left\"}"), admin, last},
        {LIT("m.room.member"), named, LIT("{\"displayname\":\"N\",\"membership\":\"join\"}"), named,
         last + 1},
        {LIT("m.room.power_levels"), LIT(""),
         LIT("{\"users\":{\"@admin:example.org\":100,\"@user9:example.org\":50}}"), admin, last},
        {LIT("m.room.topic"), LIT(""), LIT("{\"topic\":\"right\"}"), admin, last + 3},
        {LIT("m.room.member"), banned, LIT("{\"membership\":\"ban\"}"), admin, last + 4},
    };
    for (size_t i = 0; i < FORK_EVENTS; i++) {
        TRY(graph_add(graph, &drafts[i]));
    }
    return OK;
}

/* State key numbers: 1 create, 2 power levels, 3 join rules, 4.. members, then the topic. */
static uint64_t key_of(const struct event *event)
{
    uint64_t number = 0;
    if (slice_eq(event->type, LIT("m.room.create"))) {
        return CREATE + 1;
    }
    if (slice_eq(event->type, LIT("m.room.power_levels"))) {
        return POWER + 1;
    }
    if (slice_eq(event->type, LIT("m.room.join_rules"))) {
        return JOIN_RULES + 1;
    }
    if (slice_eq(event->type, LIT("m.room.member"))) {
        struct slice digits;
        slice_cut(slice_from(event->state_key, 5), ':', &digits);
        return slice_parse_u64(digits, &number) ? MEMBERS + 1 + number : MEMBERS + 1;
    }
    return MEMBERS + 2 + RESOLVE_MEMBERS;
}

static struct err apply_events(struct graph *graph, uint64_t *root, size_t from, size_t to)
{
    struct stage *stage = graph->stage;
    struct state_entry entries[ROWS_A_WRITE];
    while (from < to) {
        size_t count = 0;
        for (; count < ROWS_A_WRITE && from < to; from++) {
            entries[count++] =
                (struct state_entry){key_of(&graph->events[from]), (int64_t)from + 1};
        }
        struct store_update *update = store_update_new(&stage->ctx, state_object(stage));
        TRY(state_apply(stage->states, &stage->ctx, ROOM, *root, entries, count, update, root));
        TRY(store_write(stage->store, &stage->ctx, &update, 1));
    }
    return OK;
}

static const struct event *graph_event(void *arg, struct event_id id)
{
    struct graph *graph = arg;
    uint64_t index = 0;
    bool known = slice_parse_u64(slice_from(id.s, 6), &index) && index < graph->count;
    return known ? &graph->events[index] : NULL;
}

/* The base is the auth chain of the members who stay. */
static void graph_chain(void *arg, const struct event_id *ids, size_t count, bool *in_chain_out)
{
    struct graph *graph = arg;
    for (size_t i = 0; i < count; i++) {
        const struct event *event = graph_event(graph, ids[i]);
        in_chain_out[i] = event && (size_t)(event - graph->events) < graph->base_count;
    }
}

static const struct event *graph_agreed(void *arg, struct slice type, struct slice state_key)
{
    struct graph *graph = arg;
    struct event wanted = {.type = type, .state_key = state_key};
    uint64_t key = key_of(&wanted);
    int64_t number = 0;
    bool found = false;
    for (size_t i = 0; i < graph->difference_count; i++) {
        if (graph->differences[i].key == key) {
            return NULL;
        }
    }
    struct err err = state_get(graph->stage->states, &graph->stage->ctx, ROOM, graph->left, key,
                               &number, &found);
    return err.code == 0 && found ? &graph->events[number - 1] : NULL;
}

/* The entries of one side under the keys that differ. */
static struct resolve_set side(struct graph *graph, struct arena *arena, bool right)
{
    struct resolve_entry *items = arena_array(arena, graph->difference_count, sizeof *items);
    size_t count = 0;
    for (size_t i = 0; i < graph->difference_count; i++) {
        int64_t number = right ? graph->differences[i].right : graph->differences[i].left;
        if (number > 0) {
            const struct event *event = &graph->events[number - 1];
            items[count++] = (struct resolve_entry){event->type, event->state_key, event->id};
        }
    }
    return (struct resolve_set){items, count};
}

/* From two roots to the root of the resolved state. */
static struct err resolve_once(struct graph *graph, uint64_t *root_out)
{
    struct stage *stage = graph->stage;
    struct ctx *ctx = &stage->ctx;
    TRY(state_diff(stage->states, ctx, ROOM, graph->left, graph->right, &graph->differences,
                   &graph->difference_count));
    struct resolve_set sets[2] = {side(graph, ctx->arena, false), side(graph, ctx->arena, true)};
    struct resolve_input input = {
        .arena = ctx->arena,
        .rules = graph->rules,
        .create = &graph->events[CREATE],
        .sets = sets,
        .set_count = 2,
        .unconflicted = graph_agreed,
        .event = graph_event,
        .unconflicted_chain = graph_chain,
        .arg = graph,
    };
    struct resolve_set resolved;
    resolve_conflicts(&input, &resolved);
    struct state_entry *changes = arena_array(ctx->arena, resolved.count, sizeof *changes);
    for (size_t i = 0; i < resolved.count; i++) {
        const struct event *event = graph_event(graph, resolved.items[i].event);
        changes[i] = (struct state_entry){key_of(event), event - graph->events + 1};
    }
    struct store_update *update = store_update_new(ctx, state_object(stage));
    TRY(state_apply(stage->states, ctx, ROOM, graph->left, changes, resolved.count, update,
                    root_out));
    return store_write(stage->store, ctx, &update, 1);
}

static struct err measure_resolution(struct graph *graph, int64_t *samples)
{
    uint64_t base = 0, root = 0;
    TRY(graph_base(graph));
    TRY(graph_forks(graph));
    TRY(apply_events(graph, &base, 0, graph->base_count));
    graph->left = graph->right = base;
    TRY(apply_events(graph, &graph->left, graph->base_count, graph->base_count + 2));
    TRY(apply_events(graph, &graph->right, graph->base_count + 2, graph->count));
    for (size_t i = 0; i < RESOLVE_ROUNDS; i++) {
        int64_t began_us = now_mono_us();
        TRY(resolve_once(graph, &root));
        samples[i] = now_mono_us() - began_us;
    }
    return root != 0 && root != base ? OK : err_public(ERR_INTERNAL, "nothing was resolved");
}

struct err row_resolve(struct row_run *run)
{
    struct stage stage;
    int64_t samples[RESOLVE_ROUNDS];
    struct graph graph = {
        .arena = arena_new(),
        .rules = room_rules_get(LIT("11")),
        .events = mem_alloc((RESOLVE_MEMBERS + 16) * sizeof(struct event)),
        .stage = &stage,
    };
    struct err err = stage_open(run, &stage);
    if (err.code == 0) {
        err = measure_resolution(&graph, samples);
    }
    stage_close(&stage);
    arena_free(&graph.arena);
    mem_free(graph.events);
    TRY(err);
    report_add(run->report,
               (struct report_figure){"resolve", "state resolution of two forks, 100,000 members",
                                      "ms", report_quantile(samples, RESOLVE_ROUNDS, 0.5) / 1000,
                                      10, REPORT_LOWER,
                                      "median; difference of two roots, resolution, new root"});
    return OK;
}

/* --- purge --- */

static struct err fill_log(struct stage *stage)
{
    char value[EVENT_JSON_BYTES];
    for (size_t i = 0; i < sizeof value; i++) {
        value[i] = (char)('!' + draw(stage, 90));
    }
    for (uint64_t row = 0; row < PURGE_EVENTS; row += ROWS_A_WRITE) {
        struct store_object object = {STORE_ROOM, store_id_u64(stage->ctx.arena, ROOM)};
        struct store_update *update = store_update_new(&stage->ctx, object);
        for (uint64_t i = row; i < row + ROWS_A_WRITE; i++) {
            memcpy(value + draw(stage, sizeof value - 8), &i, sizeof i);
            store_put(update, store_id_u64(stage->ctx.arena, i),
                      arena_copy(stage->ctx.arena, (struct slice){value, sizeof value}));
        }
        TRY(store_write(stage->store, &stage->ctx, &update, 1));
        arena_reset(stage->ctx.arena);
    }
    return store_wait_durable(stage->store, stage->ctx.write_ticket);
}

static struct err purge(struct stage *stage, double *seconds_out, uint64_t *before_out,
                        uint64_t *after_out)
{
    struct store_stats stats;
    TRY(fill_log(stage));
    TRY(store_compact(stage->store, STORE_ROOM));
    store_get_stats(stage->store, &stats);
    *before_out = stats.disk_bytes;
    int64_t began_us = now_mono_us();
    struct store_object object = {STORE_ROOM, store_id_u64(stage->ctx.arena, ROOM)};
    struct store_update *update = store_update_new(&stage->ctx, object);
    store_delete_range(update, (struct slice){0}, (struct slice){0});
    TRY(store_write(stage->store, &stage->ctx, &update, 1));
    TRY(store_wait_durable(stage->store, stage->ctx.write_ticket));
    TRY(store_compact_object(stage->store, &stage->ctx, object));
    *seconds_out = (double)(now_mono_us() - began_us) / 1e6;
    store_get_stats(stage->store, &stats);
    *after_out = stats.disk_bytes;
    return OK;
}

struct err row_purge(struct row_run *run)
{
    struct stage stage;
    double seconds = 0;
    uint64_t before = 0, after = 0;
    char note[128];
    struct err err = stage_open(run, &stage);
    if (err.code == 0) {
        err = purge(&stage, &seconds, &before, &after);
    }
    stage_close(&stage);
    TRY(err);
    snprintf(note, sizeof note, "the store's part; disk %.0f MB before, %.0f MB after",
             (double)before / 1e6, (double)after / 1e6);
    report_add(run->report, (struct report_figure){"purge", "purge of a room with 1,000,000 events",
                                                   "s", seconds, 10, REPORT_LOWER, note});
    return OK;
}
