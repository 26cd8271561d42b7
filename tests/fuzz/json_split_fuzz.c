/* What json_parse takes as an array falls into the same items here. */
#include "federation/json_split.h"
#include "homeserver/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct slice text = {(const char *)data, size};
    struct json_split split = json_split_array(text);
    struct slice item;
    uint32_t count = 0;
    struct json whole;
    while (json_split_item(&split, &item)) {
        count++;
    }
    struct err err = json_parse(arena, text, &whole);
    if (err.code == 0 && whole.type == JSON_ARRAY) {
        ASSERT(!split.broken);
        ASSERT(count == whole.count);
    }
    arena_free(&arena);
    return 0;
}
