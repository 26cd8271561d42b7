/* The first two lines are headers, the rest the body of a .well-known answer: it delegates to a
 * valid name or not at all, and is kept for at least a minute and at most two days. */
#include "federation/wellknown.h"

#include "spec/ids.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct slice rest = {(const char *)data, size};
    struct http_header headers[2] = {{.name = LIT("Cache-Control")}, {.name = LIT("Expires")}};
    rest = slice_cut(rest, '\n', &headers[0].value);
    rest = slice_cut(rest, '\n', &headers[1].value);
    struct http_fetch_reply reply = {
        .status = 200, .body = rest, .headers = headers, .header_count = 2};
    struct wellknown found = wellknown_read(arena, &reply, 1700000000000, (unsigned)size);
    ASSERT(!found.delegated.ptr || ids_is_server_name(found.delegated));
    ASSERT(found.keep_ms >= 60000);
    ASSERT(found.keep_ms <= INT64_C(172800000));
    arena_free(&arena);
    return 0;
}
