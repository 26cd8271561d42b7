/* Everyday steps in words ("bob joins $room"), written out as requests. */
#pragma once
#include "tools/myelin-conform/play.h"

struct sugar_row {
    const char *words; /* %1..%4 take a word, a string or a JSON value */
    const char *method;
    const char *path;
    const char *body;
    const char *expect; /* the pattern of the answer; "" for none */
};

struct sugar_hit {
    const struct sugar_row *row;
    struct slice path;
    struct slice body;
    struct slice expect;
    struct slice user; /* a user whom the step names; empty when none */
};

enum { SUGAR_HOLES = 5 }; /* %u, %1..%4 */

/* Whether the words fit the form; fills the holes. */
bool sugar_words_fit(struct slice form, struct slice words, struct slice holes[SUGAR_HOLES]);
/* The same table for played servers, whose own name is `%u`. */
struct sugar_hit sugar_find_peer(struct arena *arena, struct slice actor, struct slice words);
/* The row that the words behind the actor fit, with its holes filled; `row` NULL when none does. */
struct sugar_hit sugar_find(struct arena *arena, struct slice words);
