#define PCRE2_CODE_UNIT_WIDTH 8
#include "homeserver/base/pattern.h"

#include "homeserver/base/arena.h"

#include <pcre2.h>

/* Enough for any sane pattern over an identifier of 255 bytes. */
enum { STEPS_MAX = 200000, DEPTH_MAX = 1000, HEAP_KIB_MAX = 256, PATTERN_BYTES_MAX = 4096 };

struct pattern {
    char unused; /* stands for the library's own type */
};

static const pcre2_code *code_of(const struct pattern *pattern)
{
    return (const pcre2_code *)(const void *)pattern;
}

struct err pattern_new(struct arena *arena, struct slice text, struct pattern **pattern_out)
{
    int number = 0;
    PCRE2_SIZE offset = 0;
    *pattern_out = NULL;
    if (text.len > PATTERN_BYTES_MAX) {
        return err_public(ERR_SYNTAX, "the pattern is longer than 4096 bytes");
    }
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)(text.len ? text.ptr : ""), text.len,
                      PCRE2_ANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &number, &offset, NULL);
    if (!code) {
        PCRE2_UCHAR message[256] = {0};
        pcre2_get_error_message(number, message, sizeof message);
        return err_publicf(arena, ERR_SYNTAX, "the pattern is not valid: %s (at byte %zu)",
                           (const char *)message, (size_t)offset);
    }
    *pattern_out = (struct pattern *)(void *)code;
    return OK;
}

void pattern_free(struct pattern **pattern)
{
    pcre2_code_free((pcre2_code *)(void *)*pattern);
    *pattern = NULL;
}

bool pattern_matches_start(const struct pattern *pattern, struct slice text)
{
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    ASSERT(data);
    ASSERT(limits);
    pcre2_set_match_limit(limits, STEPS_MAX);
    pcre2_set_depth_limit(limits, DEPTH_MAX);
    pcre2_set_heap_limit(limits, HEAP_KIB_MAX);
    int result = pcre2_match(code_of(pattern), (PCRE2_SPTR)(text.len ? text.ptr : ""), text.len, 0,
                             0, data, limits);
    pcre2_match_context_free(limits);
    pcre2_match_data_free(data);
    return result >= 0;
}
