/* Pairs of bytes are edges between at most 256 events: the order must hold each event once. */
#include "federation/inbound.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct ctx ctx = {.arena = arena};
    struct event events[256] = {0};
    const struct event *order[256];
    bool seen[256] = {false};
    for (size_t i = 0; i < 256; i++) {
        events[i].id = ids_trust_event(arena_printf(arena, "$%zu", i));
        events[i].prev_events = arena_array(arena, 20, sizeof(struct event_id));
        order[i] = &events[i];
    }
    for (size_t i = 0; i + 1 < size; i += 2) {
        struct event *event = &events[data[i]];
        if (event->prev_event_count < 20) {
            struct event_id *prev = (struct event_id *)(uintptr_t)event->prev_events;
            prev[event->prev_event_count++] = events[data[i + 1]].id;
        }
    }
    fed_graph_order(&ctx, order, 256, GRAPH_PREV);
    for (size_t i = 0; i < 256; i++) {
        ASSERT(!seen[order[i] - events]);
        seen[order[i] - events] = true;
    }
    arena_free(&arena);
    return 0;
}
