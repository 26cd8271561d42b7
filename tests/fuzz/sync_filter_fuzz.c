/* Filters come from any client: parsing either refuses or gives a filter that matching can use. */
#include "homeserver/sync/filter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct sync_filter filter;
    struct slice text = {(const char *)data, size};
    struct err err = sync_filter_parse_text(arena, text, &filter);
    if (err.code == 0) {
        (void)sync_filter_visits_room(&filter, LIT("!r:hs"));
        (void)sync_filter_takes_room(&filter.room_timeline, text);
        (void)sync_filter_takes_event(&filter.room_timeline, text, LIT("@u:hs"), NULL);
        (void)sync_filter_takes_event(&filter.room_state, LIT("m.room.member"), text, NULL);
    }
    arena_free(&arena);
    return 0;
}
