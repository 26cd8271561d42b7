/* Matching a JSON value against a pattern, with captures. */
#pragma once
#include "tools/myelin-conform/vars.h"

struct match {
    struct vars *vars; /* captures are added; those of a failed match are taken back */
    struct slice path[TERM_DEPTH_MAX * 2];
    size_t depth;
    size_t quiet; /* > 0 while alternatives are tried: faults are not kept */
    size_t fault_depth;
    struct slice fault; /* why the match failed; empty when it did not */
};

/* Whether `value` (NULL: absent) matches. */
bool match_value(struct match *match, const struct term *pattern, const struct json *value);
/* Glob with `*` for any run of bytes. */
bool match_glob(struct slice glob, struct slice text);
