/* Whatever parses must come back equal from its canonical form. */
#include "homeserver/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct json value;
    struct json again;
    struct err err = json_parse(arena, (struct slice){(const char *)data, size}, &value);
    if (err.code == 0) {
        struct slice canonical = json_canonical(arena, &value);
        err = json_parse(arena, canonical, &again);
        ASSERT(err.code == 0);
        ASSERT(json_eq(&value, &again));
        ASSERT(slice_eq(canonical, json_canonical(arena, &again)));
    }
    arena_free(&arena);
    return 0;
}
