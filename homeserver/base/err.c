#include "homeserver/base/err.h"

#include "homeserver/base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct err err_make(uint32_t code, const char *text)
{
    return (struct err){.text = text, .code = code};
}

struct err err_public(uint32_t code, const char *text)
{
    return (struct err){.text = text, .code = code, .is_public = 1};
}

struct err err_publicf(struct arena *arena, uint32_t code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct slice text = arena_vprintf(arena, format, args);
    va_end(args);
    return err_public(code, text.ptr);
}

_Noreturn void assert_failed(const char *file, int line, const char *condition)
{
    fprintf(stderr, "error event=assert file=%s line=%d condition=\"%s\"\n", file, line, condition);
    abort();
}
