/* The first line is a server name, the rest the content of an m.room.server_acl event. */
#include "federation/fed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice server;
    struct slice text = slice_cut((struct slice){(const char *)data, size}, '\n', &server);
    struct arena *arena = arena_new();
    struct json content;
    if (text.ptr && json_parse(arena, text, &content).code == 0) {
        (void)fed_acl_allows(&content, server);
    }
    arena_free(&arena);
    return 0;
}
