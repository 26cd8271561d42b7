/* The parameters that thumbnails are asked for with: what is made of them is one of a few sizes. */
#include "homeserver/media/media.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ctx ctx = {.arena = arena_new()};
    const struct http_request request = {.query = {(const char *)data, size}};
    struct media_size wanted;
    struct err err = media_size_parse(&ctx, &request, &wanted);
    if (err.code == 0) {
        struct media_size made = media_thumbnail_size(wanted);
        ASSERT(wanted.width > 0 && wanted.height > 0);
        ASSERT(made.width <= 1600 && made.height <= 1600);
        struct media_size again = made.width ? media_thumbnail_size(made) : made;
        ASSERT(again.width == made.width && again.height == made.height);
    }
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return 0;
}
