/* Sliding sync requests come from any client: parsing either refuses or gives rules that can be
 * asked. */
#include "homeserver/sync/sliding_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct sliding_request request;
    struct json json;
    struct slice text = {(const char *)data, size};
    struct err err = json_parse(arena, text, &json);
    if (err.code == 0) {
        err = sync_sliding_parse(arena, &json, LIT("@u:hs"), &request);
    }
    for (size_t i = 0; err.code == 0 && i < request.list_count; i++) {
        const struct sliding_state *state = &request.lists[i].config.state;
        (void)sync_sliding_takes(state, LIT("m.room.member"), LIT("@u:hs"));
        (void)sync_sliding_takes_members(state);
    }
    arena_free(&arena);
    return 0;
}
