/* An event that parses in a version reads back equal from its own canonical bytes. */
#include "homeserver/room/event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = {(const char *)data, size};
    struct arena *arena = arena_new();
    for (size_t i = 0; room_rules_at(i); i++) {
        struct event event;
        struct event again;
        struct event stored;
        const struct room_rules *rules = room_rules_at(i);
        if (event_parse(arena, rules, text, &event).code != 0) {
            continue;
        }
        struct err err = event_parse(arena, rules, event.json, &again);
        ASSERT(err.code == 0);
        ASSERT(slice_eq(event.json, again.json));
        ASSERT(ids_event_eq(event.id, again.id));
        err = event_parse_stored(arena, rules, event.json, event.id, &stored);
        ASSERT(err.code == 0);
        ASSERT(slice_eq(stored.state_key, event.state_key) && slice_eq(stored.type, event.type));
        ASSERT(ids_event_eq(stored.redacts, event.redacts));
        ASSERT(stored.auth_event_count == event.auth_event_count);
        err = event_redacted(arena, &event, &again);
        ASSERT(err.code == 0);
        ASSERT(ids_event_eq(event.id, again.id));
    }
    arena_free(&arena);
    return 0;
}
