/* Any text gives settings or at least one report, and never both. */
#include "homeserver/base/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct conf conf;
    struct buf problems;
    buf_init_arena(&problems, arena, 1 << 16);
    struct slice text = {(const char *)data, size};
    struct err err = conf_parse(arena, text, LIT("fuzz.yaml"), &conf, &problems);
    ASSERT((err.code == 0) == (problems.len == 0));
    arena_free(&arena);
    return 0;
}
