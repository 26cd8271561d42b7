/* Random graphs, also with cycles and missing events: resolution ends and gives one event a key. */
#include "homeserver/room/resolve.h"

enum { EVENTS = 64, SETS = 3 };

struct graph {
    struct event events[EVENTS];
    size_t count;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct event *by_id(void *arg, struct event_id id)
{
    const struct graph *graph = arg;
    size_t at = (size_t)(unsigned char)id.s.ptr[1];
    return at < graph->count ? &graph->events[at] : NULL;
}

/* Event `at` from four bytes: kind, two citations, state. */
static struct event make_event(struct arena *arena, const struct room_rules *rules, size_t at,
                               const uint8_t *bytes)
{
    static const struct slice types[] = {LIT("m.room.create"), LIT("m.room.power_levels"),
                                         LIT("m.room.join_rules"), LIT("m.room.member"),
                                         LIT("m.room.topic")};
    static const struct slice contents[] = {
        LIT("{\"creator\":\"@a:h\",\"join_rule\":\"public\",\"membership\":\"join\"}"),
        LIT("{\"users\":{\"@a:h\":100},\"membership\":\"ban\"}"),
        LIT("{\"membership\":\"leave\"}")};
    static const struct slice users[] = {LIT("@a:h"), LIT("@b:h")};
    const uint8_t numbers[] = {(uint8_t)at, bytes[1] % 80, bytes[2] % 80};
    struct event_id *ids = arena_array(arena, 3, sizeof *ids);
    struct json *content = arena_alloc(arena, sizeof *content);
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        struct slice id = arena_copy(arena, (struct slice){"$ ", 2});
        ((char *)(uintptr_t)id.ptr)[1] = (char)numbers[i];
        ids[i] = ids_trust_event(id);
    }
    struct err err = json_parse(arena, contents[bytes[3] % COUNT_OF(contents)], content);
    ASSERT(err.code == 0);
    struct slice type = types[bytes[0] % COUNT_OF(types)];
    return (struct event){.rules = rules,
                          .id = ids[0],
                          .type = type,
                          .has_state_key = true,
                          .state_key = bytes[0] % 5 == 3 ? users[bytes[3] >> 4 & 1] : LIT(""),
                          .sender = ids_trust_user(users[bytes[3] >> 5 & 1]),
                          .room_id = ids_trust_room(LIT("!r:h")),
                          .content = content,
                          .depth = bytes[3],
                          .origin_server_ts = bytes[3],
                          .auth_events = ids + 1,
                          .auth_event_count = 2};
}

/* Every `step`th event from `from` on; the first of each key, as a state has it. */
static struct resolve_set pick(struct arena *arena, const struct graph *graph, size_t from,
                               size_t step)
{
    struct resolve_entry *entries = arena_array(arena, graph->count, sizeof *entries);
    struct resolve_set set = {entries, 0};
    for (size_t i = from; i < graph->count; i += step) {
        const struct event *event = &graph->events[i];
        bool known = false;
        for (size_t j = 0; j < set.count; j++) {
            known = known || event_is(event, entries[j].type, entries[j].state_key);
        }
        if (!known) {
            entries[set.count++] = (struct resolve_entry){event->type, event->state_key, event->id};
        }
    }
    return set;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct graph *graph = arena_alloc(arena, sizeof *graph);
    const struct room_rules *rules = size ? room_rules_at(data[0] % 12) : NULL;
    struct resolve_set sets[SETS];
    struct resolve_set state;
    for (size_t i = 0; i < EVENTS && (i + 1) * 4 <= size; i++) {
        graph->events[graph->count++] = make_event(arena, rules, i, data + i * 4);
    }
    for (size_t i = 0; i < SETS; i++) {
        sets[i] = pick(arena, graph, i, 1 + i);
    }
    if (graph->count) {
        const struct resolve_input input = {.arena = arena,
                                            .rules = rules,
                                            .create = &graph->events[0],
                                            .sets = sets,
                                            .set_count = SETS,
                                            .event = by_id,
                                            .arg = graph};
        resolve_states(&input, &state);
        ASSERT(state.count <= graph->count);
    }
    arena_free(&arena);
    return 0;
}
