/* A multipart body gives the same content in one piece and byte by byte. */
#include "federation/multipart.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct err take(void *arg, struct slice bytes)
{
    buf_add(arg, bytes);
    return OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = {(const char *)data, size};
    struct arena *arena = arena_new();
    struct multipart m[2];
    struct buf content[2];
    struct err err[2] = {OK, OK};
    for (size_t i = 0; i < 2; i++) {
        size_t step = i == 0 ? size : 1;
        buf_init_arena(&content[i], arena, 1 << 24);
        multipart_begin(&m[i], arena, take, &content[i]);
        for (size_t at = 0; at < size && err[i].code == 0; at += step) {
            err[i] = multipart_read(&m[i], slice_sub(text, at, step));
        }
    }
    if (err[0].code == 0 && err[1].code == 0 && multipart_is_whole(&m[1])) {
        ASSERT(slice_eq(buf_slice(&content[0]), buf_slice(&content[1])));
    }
    multipart_file_name(arena, text);
    arena_free(&arena);
    return 0;
}
