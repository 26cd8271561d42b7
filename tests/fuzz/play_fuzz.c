/* Any text either parses as a play or is refused with a message. */
#include "tools/myelin-conform/play.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct play play;
    struct err err =
        play_parse(arena, LIT("input"), (struct slice){(const char *)data, size}, &play);
    ASSERT(err.code == 0 || err.text != NULL);
    for (size_t i = 0; err.code == 0 && i < play.scene_count; i++) {
        ASSERT(play.scenes[i].name.ptr != NULL);
    }
    arena_free(&arena);
    return 0;
}
