/* Any header gives values that stand in it, unescaped, or nothing. */
#include "federation/xmatrix.h"

#include "homeserver/base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct xmatrix header;
    if (xmatrix_parse(arena, (struct slice){(const char *)data, size}, &header)) {
        size_t total = header.origin.len + header.destination.len + header.key.len + header.sig.len;
        ASSERT(total < size);
        ASSERT(header.origin.len > 0);
        ASSERT(header.key.len > 0);
        ASSERT(header.sig.len > 0);
    }
    arena_free(&arena);
    return 0;
}
