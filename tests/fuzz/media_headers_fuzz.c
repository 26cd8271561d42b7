/* Headers made of what clients send: parts stay within the file, names break out of no header. */
#include "homeserver/media/media.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct slice text = {(const char *)data, size};
    for (int64_t bytes = 0; bytes <= 1000; bytes += 100) {
        struct media_part part;
        enum media_range range = media_range_parse(text, bytes, &part);
        ASSERT(range != MEDIA_RANGE_PART || part.bytes > 0);
        ASSERT(range == MEDIA_RANGE_OUTSIDE ||
               (part.offset >= 0 && part.bytes >= 0 && part.offset + part.bytes <= bytes));
    }
    media_etag_matches(text, LIT("\"id\""));
    struct slice name = media_clean_name(text);
    ASSERT(name.len <= MEDIA_NAME_BYTES_MAX && slice_is_utf8(name));
    struct slice header = media_disposition(arena, text, name);
    for (size_t i = 0; i < header.len; i++) {
        ASSERT(header.ptr[i] >= ' ' && header.ptr[i] < 0x7f);
    }
    arena_free(&arena);
    return 0;
}
