/* Perl-compatible patterns that an operator wrote, matched with bounded work. The only user of
 * libpcre2. Any thread once made. */
#pragma once
#include "homeserver/base/err.h"

struct arena;
struct pattern;

/* ERR_SYNTAX with a public text (in `arena`) that says what is wrong and where. */
struct err pattern_new(struct arena *arena, struct slice text,
                       struct pattern **pattern_out) MUST_USE;
void pattern_free(struct pattern **pattern);
/* Whether the beginning of `text` matches. What takes too much work to tell does not. */
bool pattern_matches_start(const struct pattern *pattern, struct slice text);
