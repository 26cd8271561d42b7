/* A page of any bytes: what is found is text of bounded length. */
#include "tools/myelin-media/helper.h"

#include "homeserver/base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct charset_reader *charsets = charset_reader_new();
    struct slice text = {(const char *)data, size};
    struct slice charset;
    struct slice page = slice_cut(text, '\n', &charset);
    const struct media_job job = {.kind = MEDIA_JOB_PAGE, .charset = charset};
    struct media_reply reply;
    page_run(charsets, arena, &job, page.ptr ? page : text, &reply);
    struct unpack in = unpack_of(reply.bytes);
    while (in.rest.len) {
        struct slice name = unpack_bytes(&in);
        struct slice value = unpack_bytes(&in);
        ASSERT(!in.bad && name.len <= 64 && value.len <= 2048);
        ASSERT(slice_is_utf8(value));
    }
    charset_reader_free(&charsets);
    arena_free(&arena);
    return 0;
}
