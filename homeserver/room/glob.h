/* Glob-style matching as the protocol defines it: '*' any run, '?' one character, case folded.
 * Spec: appendices, "Glob-style matching". Linear in practice: no pattern makes it explode. */
#pragma once
#include "homeserver/base/slice.h"

enum glob_syntax {
    GLOB_WILDCARDS,
    GLOB_LITERAL, /* '*' and '?' stand for themselves */
};

/* The whole text. */
bool glob_matches(struct slice pattern, struct slice text);
/* Some part of the text that starts and ends at a word boundary: the ends of the text, or a
 * character outside A-Z a-z 0-9 _. Spec: client-server, "Push rules", content rules. */
bool glob_matches_word(struct slice pattern, struct slice text, enum glob_syntax syntax);
