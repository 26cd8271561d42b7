/* The reader gives the same events for bytes that come whole and one by one. */
#include "homeserver/http/ws_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t read_all(struct slice bytes, size_t step)
{
    struct http_ws_reader reader;
    struct slice payload;
    uint16_t code = 0;
    uint64_t seen = 0;
    enum http_ws_event event = HTTP_WS_GOT_NOTHING;
    http_ws_reader_init(&reader, 1000);
    for (size_t at = 0; at < bytes.len && event != HTTP_WS_GOT_ERROR; at += step) {
        struct slice part = slice_sub(bytes, at, step);
        do {
            event = http_ws_reader_next(&reader, &part, &payload, &code);
            seen = event ? seen * 31 + slice_hash(payload) + code + event : seen;
        } while (event != HTTP_WS_GOT_NOTHING && event != HTTP_WS_GOT_ERROR);
    }
    http_ws_reader_deinit(&reader);
    return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice bytes = {(const char *)data, size};
    ASSERT(size == 0 || read_all(bytes, size) == read_all(bytes, 1));
    return 0;
}
